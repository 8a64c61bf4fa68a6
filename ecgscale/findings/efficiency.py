"""Which arm needs fewer parameters or records for the same loss elsewhere, and which transfers more of its gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ecgscale.findings.deciding import (
    RESNET,
    SL,
    SSL,
    TRANSFORMER,
    arm_group,
    arm_law,
    conclude,
    decided,
    elsewhere,
    is_there,
    no_transfer,
    not_held,
    question,
    reading,
    refused,
    why_not_held,
    widened,
)
from ecgscale.findings.more_trials import Design, Plan
from ecgscale.findings.plans import exponent_plan, law_plan, reach
from ecgscale.findings.values import Conclusion, Finding
from ecgscale.fitted import Fitted, FittedPair
from ecgscale.laws import Estimate, LawFit, equal_loss, exponent_ratios, transfer_efficiency
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import by_name, rows_of
from ecgscale.laws.efficiency import EqualLoss
from ecgscale.laws.information import Theta, variance
from ecgscale.laws.inverse import size_at_loss
from ecgscale.study import ID_TARGET, Study, TransferTarget
from ecgscale.words import signed

Side = tuple[str, str]
"""Family and paradigm."""

WHAT = {"N": "parameters", "D": "records"}
EXPONENT = {"N": "alpha", "D": "beta"}


def parameter_efficiency(study: Study) -> Conclusion:
    sides = [((RESNET, paradigm), (TRANSFORMER, paradigm)) for paradigm in (SL, SSL)]
    return conclude(
        "parameter_efficiency",
        "Do ResNets need fewer parameters than Transformers for the same loss out of distribution?",
        "ResNets are 1.3–2.5 × more parameter-efficient than Transformers out of distribution",
        "N of the Transformer over N of the ResNet at equal loss, at the largest D and the middle of the losses that "
        "both observed (reading A); α of the ResNet over α of the Transformer stands beside it (reading B).",
        _multipliers(study, sides, "N"),
    )


def data_efficiency(study: Study) -> Conclusion:
    sides = [((family, SSL), (family, SL)) for family in (RESNET, TRANSFORMER)]
    return conclude(
        "data_efficiency",
        "Does self-supervised pre-training need fewer records than supervised for the same loss out of distribution?",
        "SSL is up to 16 × more data-efficient than SL out of distribution",
        "D of SL over D of SSL at equal loss, at the largest N and the middle of the losses that both observed "
        "(reading A); β of SSL over β of SL stands beside it (reading B).",
        _multipliers(study, sides, "D"),
    )


def transfer_gain(study: Study) -> Conclusion:
    families = [family for family in (RESNET, TRANSFORMER) if _any_there(study, (family, SSL), (family, SL))]
    targets = list(elsewhere(study, unseen_only=True))
    findings = [_kappa_ratio(study, family, target) for target in targets for family in families]
    return conclude(
        "transfer_efficiency",
        "Does more of a gain in distribution reach unseen tasks after self-supervised than after supervised training?",
        "SSL transfers up to 7.6 × more efficiently than SL to unseen clinical tasks",
        "κ of SSL over κ of SL in the loss-to-loss law L1 = K (L0 − E0)^κ + E1 (reading B); L0 of SL and SSL have "
        "different units, so slopes can't be compared, but the floor-free log slopes can, and stand beside it.",
        findings or [no_transfer("ssl against sl", _KAPPA, 1.0, unseen_only=True)],
    )


# --- equal loss -------------------------------------------------------------------------------------------------------


def _multipliers(study: Study, sides: Sequence[tuple[Side, Side]], axis: str) -> list[Finding]:
    compared = [(a, b) for a, b in sides if _any_there(study, a, b)]
    targets = list(elsewhere(study))
    found = [_multiplier(study, a, b, axis, target) for target in targets for a, b in compared]
    subject = " and ".join(_against(a, b) for a, b in sides)
    return found or [no_transfer(subject, _times(axis, sides[0][1]), 1.0)]


def _any_there(study: Study, *sides: Side) -> bool:
    """Whether a comparison is worth listing: with neither of its arms in the folder it is not."""
    return any(is_there(study, *side) for side in sides)


def _against(a: Side, b: Side) -> str:
    return f"{'-'.join(a)} against {'-'.join(b)}"


def _times(axis: str, b: Side) -> str:
    return f"{WHAT[axis]} that {'-'.join(b)} needs, as a multiple"


def _multiplier(study: Study, a: Side, b: Side, axis: str, target: TransferTarget) -> Finding:
    asked = question(_against(a, b), target.name, _times(axis, b), 1.0, target.one_task)
    laws = [arm_law(study, *side, target.name) for side in (a, b)]
    if missing := [law for law in laws if isinstance(law, str)]:
        return refused(asked, "; ".join(missing))
    one, other = (law for law in laws if isinstance(law, Fitted))
    assert one.fit is not None
    assert other.fit is not None
    exponent = EXPONENT[axis]
    doubts = {law.group: not_held(law.fit, exponent) for law in (one, other) if law.fit}
    flags = [f"{group}:{flag}" for group, doubt in doubts.items() for flag in doubt]
    if flags:
        unheld = one if doubts[one.group] else other
        return refused(asked, why_not_held(doubts, exponent), flags, exponent_plan(unheld, exponent))
    at_equal_loss = equal_loss(one.fit, other.fit, axis)
    if at_equal_loss.middle is None:
        return _apart(asked, one.fit, other.fit, at_equal_loss)
    m = at_equal_loss.middle
    estimate = widened(Estimate(m.value, m.low, m.high), 1.0, [one.fit, other.fit])
    smallest, largest = at_equal_loss.span or (math.nan, math.nan)
    held = "D" if axis == "N" else "N"
    by_name_of = {ratio.name: ratio for ratio in exponent_ratios(one.fit, other.fit)}
    ratio = by_name_of[f"{exponent}_a/{exponent}_b"]
    return decided(
        asked,
        estimate,
        f"at loss {m.loss:.4g} and {held} = {signed(at_equal_loss.at or math.nan)} {'-'.join(b)} needs "
        f"{signed(m.value)} times the {WHAT[axis]} of {'-'.join(a)}; over the losses that both observed, "
        f"{signed(smallest)} to {signed(largest)} times",
        at_equal_loss.flags,
        reading(f"{exponent} of {'-'.join(a)} over that of {'-'.join(b)}", ratio.estimate),
        _multiplier_plan(one, other, at_equal_loss, reach(estimate, 1.0)),
    )


def _apart(asked: Finding, a: LawFit, b: LawFit, compared: EqualLoss) -> Finding:
    """No common loss: one arm at its smallest size beats the other at its largest, so the multiplier has one bound."""
    which = a.form.variables.index(compared.axis)
    for better, worse, sign in ((a, b, 1), (b, a, -1)):
        smallest, largest = better.support[compared.axis][0], worse.support[compared.axis][1]
        ahead = _log_loss(worse, which, largest, compared.at) - _log_loss(better, which, smallest, compared.at)
        estimate = Estimate.of(ahead)
        if estimate.low is not None and estimate.low > 0:
            bound = (largest / smallest) ** sign
            low, high = (bound, math.inf) if sign > 0 else (0.0, bound)
            return decided(
                asked,
                Estimate(math.nan, low, high),
                f"the two arms observed no common loss: the better one is ahead at its smallest size already, so the "
                f"multiple is {'more' if sign > 0 else 'less'} than {signed(bound)}",
                compared.flags,
            )
    return refused(
        asked,
        "the two arms observed no common loss, and which of them is ahead is not clear either: add smaller sizes or "
        "fractions of the better arm",
        compared.flags,
    )


def _log_loss(arm: LawFit, which: int, size: float, at: float | None) -> FloatArray:
    columns = [size, size if at is None else at][:: 1 if which == 0 else -1]
    return np.asarray(np.log(arm.form.loss(by_name(arm.form, rows_of(arm)), *columns)))


def _multiplier_plan(a: Fitted, b: Fitted, compared: EqualLoss, needed: float) -> Plan:
    assert compared.middle is not None
    loss = np.array([compared.middle.loss])

    def log_size(arm: Fitted) -> Callable[[Theta], float]:
        assert arm.fit is not None
        law, support = arm.fit.form, arm.fit.support
        which = law.variables.index(compared.axis)

        def of(theta: Theta) -> float:
            row = np.array([[theta[name] for name in law.theta]])
            return float(size_at_loss(law, row, loss, which, compared.at, support)[0, 0])

        return of

    return law_plan([a, b], [log_size(a), log_size(b)], needed)


# --- loss to loss -----------------------------------------------------------------------------------------------------

_KAPPA = "κ of SSL over κ of SL"


def _kappa_ratio(study: Study, family: str, target: TransferTarget) -> Finding:
    asked = question(_against((family, SSL), (family, SL)), target.name, _KAPPA, 1.0, target.one_task)
    pairs: list[FittedPair] = []
    floors_from: list[LawFit] = []
    for paradigm in (SSL, SL):
        group = arm_group(study, family, paradigm)
        if group is None:
            return refused(asked, f"no completed trial of {family}-{paradigm}")
        pair = study.pair(group, ID_TARGET, target.name)
        if pair is None or pair.fit is None:
            return refused(asked, f"{group}: {'no loss-to-loss law was fitted' if pair is None else pair.refused}")
        pairs.append(pair)
        law = arm_law(study, family, paradigm, ID_TARGET)
        floors_from += [law.fit] if isinstance(law, Fitted) and law.fit is not None else []
    one, other = (pair.fit for pair in pairs)
    assert one is not None
    assert other is not None
    flags = [
        f"{family}-{paradigm}:{flag}"
        for paradigm, pair in ((SSL, one), (SL, other))
        for flag in pair.flags
        if _forbids_kappa(flag)
    ]
    ratio = transfer_efficiency(one, other)
    flags += [flag for flag in ratio.kappa.flags if flag in ("near_zero", "draws_undefined")]
    beside = reading("mean slope d log L1 / d log L0 of SSL over that of SL", ratio.log_slope.estimate)
    estimate = widened(ratio.kappa.estimate, 1.0, floors_from)
    plan = _kappa_plan(study, family, target, pairs, reach(estimate, 1.0))
    if flags:
        arms = sorted({flag.split(":")[0] for flag in flags if ":" in flag})
        of = f" ({', '.join(arms)})" if arms else ""
        reason = f"κ is not held, nor are the floors that it hangs on{of}; flags in conclusions.json"
        return refused(asked, reason, flags)
    return decided(
        asked,
        estimate,
        f"κ is {signed(one.theta['kappa'])} after SSL and {signed(other.theta['kappa'])} after SL",
        (),
        beside,
        plan,
    )


def _forbids_kappa(flag: str) -> bool:
    """A floor that is not held, or is too near to the smallest loss, takes κ with it."""
    name, _, of_law = flag.partition(":")
    if name in ("E0", "E1"):
        return of_law in ("at_bound:E", "unidentified:E", "floor_above_data", "flat")
    return name in ("near_floor", "draws_undefined", "no_interval")


def _kappa_plan(
    study: Study, family: str, target: TransferTarget, pairs: Sequence[FittedPair], needed: float
) -> Plan | None:
    """κ moves with both floors and with the scatter around its line; each is linearised by itself."""
    laws: list[tuple[Fitted, Fitted]] = []
    for paradigm in (SSL, SL):
        found = [arm_law(study, family, paradigm, name) for name in (ID_TARGET, target.name)]
        if any(isinstance(law, str) for law in found):
            return None
        one, other = (law for law in found if isinstance(law, Fitted))
        laws.append((one, other))

    def total(designs: Sequence[Design]) -> float:
        return sum(
            _kappa_variance(one, other, pair, design)
            for (one, other), pair, design in zip(laws, pairs, designs, strict=True)
        )

    return Plan(tuple(Design.of(one.points) for one, _ in laws), total, needed)


def _kappa_variance(one: Fitted, other: Fitted, pair: FittedPair, design: Design) -> float:
    """Of log κ."""
    assert one.fit is not None
    assert other.fit is not None
    assert pair.fit is not None
    x, y = (law.form.loss(law.theta, design.n, design.d) for law in (one.fit, other.fit))
    floors = pair.fit.theta["E0"], pair.fit.theta["E1"]

    def log_kappa(floor_x: float, floor_y: float) -> float:
        u, v = np.log(x - floor_x), np.log(y - floor_y)
        return math.log(abs(np.polyfit(u, v, 1)[0]))

    of_floors = variance(one.fit, lambda theta: log_kappa(theta["E"], floors[1]), design.n, design.d)
    of_floors += variance(other.fit, lambda theta: log_kappa(floors[0], theta["E"]), design.n, design.d)
    u, v = np.log(x - floors[0]), np.log(y - floors[1])
    kappa = np.polyfit(u, v, 1)[0]
    scatter = [1.0 if law.residuals is None else float(np.std(law.residuals)) for law in (one.fit, other.fit)]
    noise = (scatter[1] * y / (y - floors[1])) ** 2 + (kappa * scatter[0] * x / (x - floors[0])) ** 2
    return of_floors + float((noise * (u - u.mean()) ** 2).sum() / ((u - u.mean()) ** 2).sum() ** 2 / kappa**2)
