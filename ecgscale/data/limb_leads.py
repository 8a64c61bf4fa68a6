"""Do the six limb leads fit each other, and if not, why: another order, an inverted lead, a gain of its own per lead.

Works on the covariances of one record's leads, so a hypothesis costs nothing but a small product. A swap of two limb
cables obeys every relation between the leads and cannot be seen here: `swapped_cables` guesses it from the waves.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgscale.conventions import LEADS
from ecgscale.data.standard_form import DERIVED_LEADS

Floats = NDArray[np.float64]

LIMB = LEADS[:6]

CONTRADICTION = 0.1
"""Residual above which the limb leads of a record contradict each other. The largest that we measured in sound records:
4.4 % in CODE-15 %, 1.0 % in Georgia, 0.7 % in LUDB and PTB-XL. Leads that were filtered one by one fit to 6-18 %
(Brugada-HUCA)."""

KNOWN_ORDERS = {
    "I, II, III, aVL, aVF, aVR": "as in CODE-test",
    "I, II, III, aVR, aVF, aVL": "as in MIMIC-IV-ECG",
    "aVL, I, -aVR, II, aVF, III": "Cabrera's",
}

_GAINS_AGREE = 0.1
"""Four relations give four estimates of gain II / gain I; if gains explain a record, they agree within this share."""

# One row per derived lead d = a I + b II: its coefficients (1, -a, -b) in the places of d, I and II.
_RELATIONS = np.zeros((4, 6))
for _row, (_lead, (_a, _b)) in enumerate(DERIVED_LEADS.items()):
    _RELATIONS[_row, [LIMB.index(_lead), 0, 1]] = 1.0, -_a, -_b
_DERIVED = tuple(LIMB.index(lead) for lead in DERIVED_LEADS)


class Residuals(NamedTuple):
    """RMS of what contradicts I and II, relative to the RMS of the leads that should follow from them.

    0 for perfect leads; about 1 if order, gains or units are mixed up.
    """

    einthoven: float
    """III alone."""
    goldberger: float
    """aVR, aVL and aVF."""
    together: float
    """All four."""


@dataclass(frozen=True)
class Cause:
    """What would make the leads of a record fit: an order, inverted leads, gains per lead, or nothing that we know."""

    kind: str
    """`order`, `inverted`, `gains` or `unknown`."""
    leads: str = ""
    """The order in which the leads really are; the leads that are inverted."""
    residual: float = float("nan")
    """What remains then."""


def residuals(covariance: Floats) -> Residuals:
    """How badly the derived limb leads disagree with I and II.

    Args:
        covariance: (6, 6) or larger, of the leads in standard order. Covariances and not mean products: recorders
            couple each lead by itself, so its offset means nothing.
    """
    limb = covariance[:6, :6]
    error = np.maximum(np.einsum("rk,kl,rl->r", _RELATIONS, limb, _RELATIONS), 0.0)
    power = limb.diagonal()[list(_DERIVED)]
    return Residuals(_ratio(error[:1], power[:1]), _ratio(error[1:], power[1:]), _ratio(error, power))


def probable_cause(covariance: Floats) -> Cause:
    """The simplest change that makes the limb leads of a record fit to less than `CONTRADICTION`."""
    limb = covariance[:6, :6]
    forms, powers, hypotheses = _hypotheses()
    remaining = np.sqrt(np.maximum(forms @ limb.ravel(), 0.0) / np.maximum(powers @ limb.ravel(), 1e-300))
    # One inverted lead first: it looks like an order too, since a swap of two electrodes is both at once.
    for candidates in (slice(0, 6), slice(6, None)):
        best = candidates.start + int(remaining[candidates].argmin())
        if remaining[best] < CONTRADICTION:
            return Cause(*hypotheses[best], float(remaining[best]))
    gains, residual = _signed_gains(limb)
    if residual >= CONTRADICTION:
        return Cause("unknown")
    sizes, inverted = np.abs(gains), [lead for lead, gain in zip(LIMB, gains, strict=True) if gain < 0]
    if len(inverted) > 3:  # a common sign of all leads cannot be told: count the fewer as inverted
        inverted = [lead for lead in LIMB if lead not in inverted]
    if inverted and sizes.max() < (1 + _GAINS_AGREE) * sizes.min():
        return Cause("inverted", ", ".join(inverted), residual)
    return Cause("gains", ", ".join(inverted), residual)


def swapped_cables(leads: NDArray[np.float32], slopes: Floats) -> str:
    """Two limb cables that probably changed places: "LA-RA", "RA-RL", "LA-RL", or "" if nothing speaks for it.

    - Arms: lead I turns over, QRS included, while V6 does not, and aVR points upwards. In dextrocardia V6 changes too.
    - An arm and the right leg: lead II (right arm) or III (left arm) is the voltage between the two legs, almost flat.

    Signs by Batchvarov, Malik and Camm, Europace 2007;9:1081; the thresholds are ours: they name 2 of 200 LUDB records,
    none of 97 others, and 65 % of the same records with their arms swapped on paper. Both of LUDB look like it for
    another reason (one is paced), so this is for people to look at. A swap of left arm and left leg, or of both legs,
    changes too little to be told from one ECG.

    Args:
        leads: (lead, time) in standard order.
        slopes: (lead, lead), mean products of the leads' slopes.
    """
    steepness = np.sqrt(slopes.diagonal())
    for lead, cables in (("II", "RA-RL"), ("III", "LA-RL")):
        if steepness[LEADS.index(lead)] < _FLAT_SHARE * steepness[:3].max():
            return cables
    one, six = LEADS.index("I"), LEADS.index("V6")
    if not slopes[one, six] < _OPPOSITE * steepness[one] * steepness[six]:
        return ""
    low, middle, high = np.quantile(leads[LEADS.index("aVR")], (0.002, 0.5, 0.998))
    return "LA-RA" if high - middle > middle - low else ""


_OPPOSITE = -0.5
_FLAT_SHARE = 0.12
"""Slope (RMS) of a limb lead between two legs, relative to the largest of I, II and III."""


def _ratio(error: Floats, power: Floats) -> float:
    total = float(power.sum())
    return float(np.sqrt(error.sum() / total)) if total > 0 else float(error.sum() > 0)


@cache
def _hypotheses() -> tuple[Floats, Floats, list[tuple[str, str]]]:
    """Each lead inverted, then every order of the six leads with aVR as it is or inverted (Cabrera's).

    Error and power of the derived leads are quadratic in the leads, so each hypothesis is two forms, (hypothesis, 36),
    of the covariance. The relations single out one order: what a swap of electrodes does needs other signs as well.
    """
    moves, names = [], []
    for lead, name in enumerate(LIMB):
        moves.append(np.diag(np.where(np.arange(6) == lead, -1.0, 1.0)))
        names.append(("inverted", name))
    for places in itertools.permutations(range(6)):  # column k of the file is lead places[k]
        for sign in (1.0, -1.0):
            move = np.zeros((6, 6))
            move[places, range(6)] = [sign if LIMB[lead] == "aVR" else 1.0 for lead in places]
            moves.append(move)
            order = ", ".join("-aVR" if LIMB[lead] == "aVR" and sign < 0 else LIMB[lead] for lead in places)
            names.append(("order", order))
    own = np.zeros((6, 6))
    own[_DERIVED, _DERIVED] = 1.0
    error, power = (np.array([(m.T @ form @ m).ravel() for m in moves]) for form in (_RELATIONS.T @ _RELATIONS, own))
    return error, power, names


def _signed_gains(limb: Floats) -> tuple[Floats, float]:
    """A factor for each lead, relative to lead I's, with which the relations fit best, and the residual that is left.

    If I, II and d = a I + b II were stored with gains g, the regression of the stored d on the stored I and II has
    coefficients a g_d / g_I and b g_d / g_II: their ratio gives g_II / g_I, from each of the four relations anew.
    """
    nothing = np.ones(6), float("inf")
    basis = limb[:2, :2]
    if np.linalg.det(basis) <= 1e-6 * basis[0, 0] * basis[1, 1]:
        return nothing
    fitted = np.linalg.solve(basis, limb[:2, _DERIVED])  # (I and II, derived lead)
    shares = np.array(list(DERIVED_LEADS.values())).T
    relative = fitted / shares
    if (relative == 0).any():
        return nothing
    ratios = relative[0] / relative[1]
    if np.unique(np.sign(ratios)).size > 1 or np.ptp(np.log(np.abs(ratios))) > 2 * _GAINS_AGREE:
        return nothing
    gains = np.ones(6)
    gains[1] = np.sign(ratios[0]) * np.exp(np.log(np.abs(ratios)).mean())
    for (a, b), place in zip(DERIVED_LEADS.values(), _DERIVED, strict=True):
        expected = np.array([a, b / gains[1]])  # the stored d is g_d times this combination
        gains[place] = (expected @ limb[:2, place]) / (expected @ basis @ expected)
    rescaled = limb / np.outer(gains, gains)
    return gains, residuals(rescaled).together
