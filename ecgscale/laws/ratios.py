"""Reading B of an efficiency claim: ratios of exponents between two arms, and of κ between two loss-to-loss laws.

No loss and no unit is in a ratio of exponents, but it explodes where the other exponent is near zero; then it has no
interval. What a multiplier at equal loss says is another question, asked in `efficiency`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import (
    FEWEST_DRAWS,
    LARGEST_UNDEFINED,
    Estimate,
    as_json,
    pairing_flags,
    rows_of,
    unidentified_flags,
)
from ecgscale.laws.forms import Law, SkalingLaw
from ecgscale.laws.intervals import percentile_interval
from ecgscale.laws.loss_to_loss import THETA, PairFit
from ecgscale.laws.result import LawFit


@dataclass(frozen=True)
class Ratio:
    """Reading B: a's exponent over b's. `near_zero`: b's interval holds zero, so the ratio has no interval."""

    name: str
    estimate: Estimate
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class TransferEfficiency:
    """Both readings between two loss-to-loss laws, a over b.

    Attributes:
        kappa: Ratio of κ: unit-free, also between losses of different kinds (reading B).
        log_slope: Ratio of the mean slopes d log L1 / d log L0 of the fitted curves, each over its own observed range:
            unit-free as well, and far less sensitive to the floors than κ.
        slope: Ratio of the drops of L1 per drop of L0 over the common range of L0 (reading A). Only for arms whose L0
            is the same loss; nan with the flag `no_overlap` where they observed no common L0.
        overlap: That common range.
    """

    kappa: Ratio
    log_slope: Ratio
    slope: Ratio
    overlap: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        return as_json(self)  # type: ignore[no-any-return]


def common_law(a: LawFit, b: LawFit) -> Law:
    """The one law that both arms are fits of; refuses arms that can't be compared."""
    if (a.law, a.bounded) != (b.law, b.bounded):
        raise FitError(
            f"arms are compared under one law; a is a fit of {a.law}, b of {b.law}"
            ": fit both with the same form and the same bounds"
        )
    law = a.form
    if len(law.variables) > 2:
        raise FitError(f"law {law.name} has {len(law.variables)} variables; arms are compared in laws of one or two")
    return law


def exponent_ratios(a: LawFit, b: LawFit) -> tuple[Ratio, ...]:
    """a's exponents over b's, in the order of the law: how much faster a improves per decade of size.

    Of a law with an outer exponent k the products k·alpha and k·beta, by which the loss falls; alone they mean nothing.
    """
    law = common_law(a, b)
    rows_a, rows_b = _paired(rows_of(a), rows_of(b))
    flags = unidentified_flags(a.flags, "a:") + unidentified_flags(b.flags, "b:") + pairing_flags(a, b)
    outer_a, outer_b = np.ones(len(rows_a)), np.ones(len(rows_b))
    if isinstance(law, SkalingLaw):
        outer_a, outer_b = (rows[:, law.theta.index("k")] for rows in (rows_a, rows_b))
    columns = {name: law.theta.index(name) for name in law.exponents}
    return tuple(
        _ratio(f"{name}_a/{name}_b", outer_a * rows_a[:, i], outer_b * rows_b[:, i], flags)
        for name, i in columns.items()
    )


def transfer_efficiency(a: PairFit, b: PairFit) -> TransferEfficiency:
    """How much more the second loss of arm a follows its first than that of arm b, in three ways."""
    rows_a, rows_b = _paired(_pair_rows(a), _pair_rows(b))
    flags = _pair_flags(a, b)
    supports = (a.support["L0"], b.support["L0"])
    overlap = (max(s[0] for s in supports), min(s[1] for s in supports))
    common = overlap[0] < overlap[1]
    kappa = THETA.index("kappa")
    log_slope_a, log_slope_b = _log_slope(rows_a, supports[0]), _log_slope(rows_b, supports[1])
    nothing = np.full(len(rows_a), np.nan)
    slope_a, slope_b = (_slope(rows, overlap) if common else nothing for rows in (rows_a, rows_b))
    return TransferEfficiency(
        kappa=_ratio("kappa_a/kappa_b", rows_a[:, kappa], rows_b[:, kappa], flags),
        log_slope=_ratio("log_slope_a/log_slope_b", log_slope_a, log_slope_b, flags),
        slope=_ratio("slope_a/slope_b", slope_a, slope_b, flags if common else [*flags, "no_overlap"]),
        overlap=overlap if common else None,
    )


def _ratio(name: str, a: FloatArray, b: FloatArray, flags: list[str]) -> Ratio:
    """a / b row by row. Where the draws of b straddle zero, the ratios are two branches and no interval."""
    known = b[1:][np.isfinite(b[1:])]
    if len(known) >= FEWEST_DRAWS:
        low, high = percentile_interval(known)
        if low <= 0 <= high:
            value = float(a[0] / b[0]) if b[0] != 0 else math.nan
            return Ratio(name, Estimate(value), (*flags, "near_zero"))
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = Estimate.of(a / b)
    few = estimate.defined is not None and 1 - estimate.defined > LARGEST_UNDEFINED
    return Ratio(name, estimate, (*flags, *(["draws_undefined"] if few else [])))


def _paired(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rows that both have: with draws of one arm only, the points alone."""
    n = min(len(a), len(b))
    return a[:n], b[:n]


def _pair_rows(pair: PairFit) -> FloatArray:
    point = np.array([[pair.theta[name] for name in THETA]])
    return point if pair.draws is None else np.concatenate((point, pair.draws))


def _pair_flags(a: PairFit, b: PairFit) -> list[str]:
    flags = [f"{arm}:{flag}" for arm, pair in (("a", a), ("b", b)) for flag in pair.flags]
    if a.draws is None or b.draws is None:
        return [*flags, "no_interval"]
    return flags if (a.n_points, len(a.draws)) == (b.n_points, len(b.draws)) else [*flags, "unpaired"]


def _second_loss(rows: FloatArray, loss_x: float) -> FloatArray:
    """L1 at one L0 for rows of K, kappa, E0, E1; nan at or below the floor."""
    k, kappa, floor_x, floor_y = rows.T
    above = np.where(loss_x > floor_x, loss_x - floor_x, np.nan)
    return np.asarray(k * above**kappa + floor_y)


def _slope(rows: FloatArray, support: tuple[float, float]) -> FloatArray:
    low, high = support
    return np.asarray((_second_loss(rows, high) - _second_loss(rows, low)) / (high - low))


def _log_slope(rows: FloatArray, support: tuple[float, float]) -> FloatArray:
    low, high = support
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.log(_second_loss(rows, high) / _second_loss(rows, low)) / math.log(high / low))
