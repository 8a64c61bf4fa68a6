"""How much more one arm gets out of its parameters and data than another, in both readings of such a claim.

Reading A is a horizontal shift: how many times the size the other arm needs for the same loss. It depends on the loss,
so it is a curve, given over the range that both arms observed and nowhere else. Reading B, ratios of exponents, is in
`ratios`. Arms a and b are fits of one law; draw i of a belongs to draw i of b, so what moves both alike cancels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import (
    FEWEST_DRAWS,
    as_json,
    axis_index,
    in_odds,
    pairing_flags,
    rows_of,
    unidentified_flags,
)
from ecgscale.laws.forms import Law
from ecgscale.laws.intervals import percentile_interval
from ecgscale.laws.inverse import size_at_loss
from ecgscale.laws.ratios import Ratio, common_law, exponent_ratios
from ecgscale.laws.result import LawFit

N_LOSSES = 21
"""Losses of a curve when none are given; odd, so that one is the middle of the range."""

UNBOUNDED = 1e12
"""A multiplier beyond this, or below its inverse, is none: the law of one arm practically never gets there."""

IN_RANGE = 1e-9
"""Slack of the logs when asking whether a size lies within the observed ones: rounding."""


@dataclass(frozen=True)
class Multiplier:
    """At one loss: the sizes at which arms a and b reach it, and b's over a's.

    Attributes:
        value: Above one where a needs less; nan where `reason` says why.
        low, high: 95 % of the paired draws. A draw in which only b never reaches the loss counts as infinite, one in
            which only a never does as zero; a bound of inf or 0 therefore means "open on this side".
        reached: Share of draws in which both arms reach the loss within the sizes observed. None without draws.
    """

    loss: float
    size_a: float
    size_b: float
    value: float
    low: float | None
    high: float | None
    reached: float | None
    reason: str | None


@dataclass(frozen=True)
class EqualLoss:
    """Reading A on one axis: multipliers over the losses, the other variable held.

    Attributes:
        axis: The variable that is multiplied.
        at: The value of the other variable; None for a law of one variable.
        overlap: Smallest and largest loss that the laws of both arms reach within their observed sizes; None if none.
        middle: The multiplier at the middle (in logs) of the overlap; None if there is none.
        curve: By rising loss (rising error odds for a bounded metric, whose values are given as such).
        flags: Unidentifying flags of the arms as `a:flag`, `b:flag`; `no_overlap`, `open_interval`, `unpaired`,
            `no_interval`, `extrapolating:D` (the held value was not observed), `rising:a` (its loss grows with size).
    """

    axis: str
    at: float | None
    overlap: tuple[float, float] | None
    middle: Multiplier | None
    curve: tuple[Multiplier, ...]
    flags: tuple[str, ...]

    @property
    def span(self) -> tuple[float, float] | None:
        """Smallest and largest multiplier over the overlap: "1.3 to 2.5 times"."""
        values = [m.value for m in self.curve if not math.isnan(m.value)]
        return (min(values), max(values)) if values else None

    def describe(self) -> str:
        if self.overlap is None or self.middle is None:
            return f"{self.axis} multiplier: not reached in range (the arms observed no common loss)"
        low, high = self.span or (math.nan, math.nan)
        m = self.middle
        interval = "" if m.low is None or m.high is None else f" [{m.low:.3g}, {m.high:.3g}]"
        return f"{self.axis} multiplier {m.value:.3g}{interval} at loss {m.loss:.4g}; {low:.3g} to {high:.3g} in range"

    def to_dict(self) -> dict[str, Any]:
        return as_json(self) | {"span": as_json(self.span)}  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Efficiency:
    """Both readings between two arms of one law: a multiplier per axis, a ratio per exponent."""

    law: str
    equal_loss: tuple[EqualLoss, ...]
    exponents: tuple[Ratio, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": self.law,
            "equal_loss": [item.to_dict() for item in self.equal_loss],
            "exponents": [item.to_dict() for item in self.exponents],
        }


def compare_arms(a: LawFit, b: LawFit) -> Efficiency:
    """Reading A along every axis, the other variable at the largest value that both observed, and reading B."""
    law = common_law(a, b)
    return Efficiency(law.name, tuple(equal_loss(a, b, axis=name) for name in law.variables), exponent_ratios(a, b))


def equal_loss(
    a: LawFit, b: LawFit, axis: str | None = None, at: float | None = None, losses: ArrayLike | None = None
) -> EqualLoss:
    """How many times the size arm b needs for the same loss: size_b(L) / size_a(L).

    Args:
        a, b: Fits of the same law of one or two variables.
        axis: The variable that is multiplied, in either case. Default: the first.
        at: The other variable. Default: the largest value that both arms observed.
        losses: Where to ask. Default: 21 losses over the overlap, evenly in logs. Outside it, the answer is nan.

    Raises:
        FitError: Different laws, an unknown axis, or losses that are not positive.
    """
    law = common_law(a, b)
    which = axis_index(law, axis)
    flags: list[str] = []
    if len(law.variables) == 1:
        at = None
    else:
        held = law.variables[1 - which]
        at = min(a.support[held][1], b.support[held][1]) if at is None else float(at)
        outside = any(
            not s[0] * (1 - IN_RANGE) <= at <= s[1] * (1 + IN_RANGE) for s in (a.support[held], b.support[held])
        )
        flags += [f"extrapolating:{held}"] if outside else []
    ranges = [_observed_losses(arm, which, at) for arm in (a, b)]
    overlap = (max(r.low for r in ranges), min(r.high for r in ranges))
    exists = overlap[0] < overlap[1]
    if losses is not None:
        wanted = np.sort(_in_odds(law, losses))
    else:
        wanted = np.geomspace(*overlap, N_LOSSES) if exists else np.empty(0)
    curve = _multipliers(a, b, which, at, wanted, ranges)
    middle = None
    if exists:
        (middle,) = _multipliers(a, b, which, at, np.array([math.sqrt(overlap[0] * overlap[1])]), ranges)
    flags += unidentified_flags(a.flags, "a:") + unidentified_flags(b.flags, "b:") + pairing_flags(a, b)
    flags += [f"rising:{arm}" for arm, r in zip("ab", ranges, strict=True) if r.rising]
    flags += ["no_overlap"] if middle is None else []
    flags += ["open_interval"] if any(m.low == 0 or m.high == math.inf for m in curve) else []
    seen = tuple(_natural(law, end) for end in overlap)
    return EqualLoss(law.variables[which], at, (min(seen), max(seen)) if exists else None, middle, curve, tuple(flags))


class _Range(NamedTuple):
    """Smallest and largest loss (or odds) of a law within the observed sizes, and whether it rises with size."""

    low: float
    high: float
    rising: bool


def _observed_losses(arm: LawFit, which: int, at: float | None) -> _Range:
    law = in_odds(arm.form)
    sizes = np.array(arm.support[law.variables[which]])
    columns = [sizes] if at is None else [sizes, np.full(2, at)][:: 1 if which == 0 else -1]
    first, last = law.loss(arm.theta, *columns).tolist()
    return _Range(min(first, last), max(first, last), last > first)


def _in_odds(law: Law, losses: ArrayLike) -> FloatArray:
    wanted = np.atleast_1d(np.asarray(losses, dtype=float))
    if law.link is not None:
        return law.link.to_odds(wanted)
    if wanted.ndim != 1 or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise FitError("losses to compare at must be positive finite numbers")
    return wanted


def _natural(law: Law, loss: float) -> float:
    return loss if law.link is None else float(law.link.from_odds(loss))


def _multipliers(
    a: LawFit, b: LawFit, which: int, at: float | None, losses: FloatArray, ranges: Sequence[_Range]
) -> tuple[Multiplier, ...]:
    """At losses (or odds), rising."""
    law = a.form
    n_draws = 0 if a.draws is None or b.draws is None else min(len(a.draws), len(b.draws))
    logs, within = [], []
    for arm in (a, b):
        log_size = size_at_loss(in_odds(law), rows_of(arm, n_draws), losses, which, at, arm.support)
        smallest, largest = np.log(arm.support[law.variables[which]])
        logs.append(log_size)
        within.append((log_size >= smallest - IN_RANGE) & (log_size <= largest + IN_RANGE))
    with np.errstate(invalid="ignore"):
        shift = logs[1] - logs[0]  # inf − inf, where neither arm gets there, is nan
    both = within[0] & within[1]
    return tuple(
        _multiplier(
            _natural(law, loss), logs[0][0, i], logs[1][0, i], shift[:, i], both[1:, i], _why_not(law, loss, ranges)
        )
        for i, loss in enumerate(losses.tolist())
    )


def _why_not(law: Law, loss: float, ranges: Sequence[_Range]) -> str | None:
    """Which arm does not reach a loss within its observed sizes; None if both do."""
    slack = 1e-9 * loss
    short = [
        f"arm {arm} observed {_natural(law, r.low):.6g} to {_natural(law, r.high):.6g}"
        for arm, r in zip("ab", ranges, strict=True)
        if not r.low - slack <= loss <= r.high + slack
    ]
    return f"loss {_natural(law, loss):.6g} is not reached in range: {', '.join(short)}" if short else None


def _multiplier(
    loss: float, log_a: float, log_b: float, shift: FloatArray, both: FloatArray, reason: str | None
) -> Multiplier:
    draws = shift[1:]
    reached = float(both.mean()) if len(both) else None
    if reason is not None:
        return Multiplier(loss, math.nan, math.nan, math.nan, None, None, reached, reason)
    low = high = None
    known = draws[~np.isnan(draws)]
    if len(known) >= FEWEST_DRAWS:
        edge = 2 * math.log(UNBOUNDED)
        ends = percentile_interval(np.clip(known, -edge, edge))
        low, high = (_bounded(float(end)) for end in ends)
    return Multiplier(loss, math.exp(log_a), math.exp(log_b), math.exp(shift[0]), low, high, reached, None)


def _bounded(log_value: float) -> float:
    if abs(log_value) < math.log(UNBOUNDED):
        return math.exp(log_value)
    return math.inf if log_value > 0 else 0.0
