"""The best learning rate of a few trainings, and the rule in the width that goes through the best of several widths.

Arrays in, plain values out. A rate is looked for on a scale of octaves: x = log2 rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ecgscale.errors import EcgscaleError

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.95

REACH_OCTAVES = 1.5
"""The parabola goes through the best rate, its neighbours, and what is as near: further up the loss rises as a cliff
(measured on the embedded data: docs/learning_rates.md)."""


class NoOptimum(EcgscaleError):
    """The tried rates do not enclose a best one; says what to add."""


@dataclass(frozen=True)
class Optimum:
    """The vertex of a parabola through losses against x.

    Attributes:
        rate: the best one.
        interval: at 95 %; infinite where so few trainings can't tell.
        reach: the lowest and the highest rate that the parabola was put through.
        loss: at the best rate, mean over the seeds.
        curvature: loss per squared octave.
    """

    rate: float
    interval: Interval
    reach: Interval
    loss: float
    curvature: float

    def excess(self, rate: float) -> float:
        """By how much the loss is higher at another rate, in its unit; out of reach, at the nearest within."""
        low, high = self.reach
        return self.curvature * math.log2(min(max(rate, low), high) / self.rate) ** 2


def optimum(rates: Sequence[float], seeds: Sequence[int], losses: Sequence[float]) -> Optimum:
    """The best rate of an arm and rung, from one loss per training.

    One parabola for all seeds, each with a level of its own: what a seed adds to every loss says nothing of the rate.
    The interval is Fieller's for the vertex −b / 2c.

    Args:
        losses: infinite where a training diverged.

    Raises:
        NoOptimum: the best rate is at an edge, or the losses are level.
    """
    rate, seed, loss = np.asarray(rates, float), np.asarray(seeds), np.asarray(losses, float)
    tried = np.unique(rate)
    means = np.array([loss[rate == one].mean() for one in tried])
    best = int(means.argmin())
    if not math.isfinite(means[best]):
        raise NoOptimum(f"every rate diverged; add a lower one: {tried[0] / 4:.3g}")
    if best == 0:
        raise NoOptimum(f"the best rate is the lowest, {tried[0]:.3g}; add a lower one: {tried[0] / 2:.3g}")
    if best == len(tried) - 1:
        raise NoOptimum(f"the best rate is the highest, {tried[-1]:.3g}; add a higher one: {tried[-1] * 2:.3g}")
    if not math.isfinite(means[best + 1]):
        between = math.sqrt(tried[best] * tried[best + 1])
        raise NoOptimum(
            f"the best rate, {tried[best]:.3g}, is the last that does not diverge; add one between: {between:.3g}"
        )
    reach = np.abs(np.log2(tried / tried[best])) <= REACH_OCTAVES
    reach[best - 1 : best + 2] = True
    near = tried[reach & np.isfinite(means)]
    used = np.isin(rate, near)
    x = np.log2(rate[used] / tried[best])
    level = seed[used][:, None] == np.unique(seed[used])
    design = np.column_stack([x, x**2, level])
    coefficients, *_ = np.linalg.lstsq(design, loss[used], rcond=None)
    b, c = coefficients[:2]
    vertex = -b / (2 * c) if c > 0 else math.inf
    if not x.min() <= vertex <= x.max():
        raise NoOptimum(f"the loss has no minimum from {near[0]:.3g} to {near[-1]:.3g}; add seeds, or rates between")
    return Optimum(
        rate=float(tried[best] * 2**vertex),
        interval=_rates(_fieller(design, loss[used], coefficients), tried[best]),
        reach=(float(near[0]), float(near[-1])),
        loss=float(coefficients[2:].mean() - b**2 / (4 * c)),
        curvature=float(c),
    )


def _rates(octaves: Interval, reference: float) -> Interval:
    low, high = octaves
    return float(reference * 2**low), float(reference * 2**high)


def _fieller(design: Array, loss: Array, coefficients: Array) -> Interval:
    """Where the slope b + 2·c·x of the parabola may be zero (Fieller 1954)."""
    freedom = len(loss) - design.shape[1]
    if freedom < 1:
        return -math.inf, math.inf
    residual = loss - design @ coefficients
    covariance = np.linalg.pinv(design.T @ design) * (residual @ residual) / freedom
    t2 = stats.t.ppf((1 + LEVEL) / 2, freedom) ** 2
    b, c = coefficients[0], 2 * coefficients[1]
    v_bb, v_bc, v_cc = covariance[0, 0], 2 * covariance[0, 1], 4 * covariance[1, 1]
    # (b + c·x)² ≤ t² (v_bb + 2·x·v_bc + x²·v_cc)
    square, linear, constant = c**2 - t2 * v_cc, b * c - t2 * v_bc, b**2 - t2 * v_bb
    if square <= 0:
        return -math.inf, math.inf
    half = math.sqrt(max(linear**2 - square * constant, 0.0))
    return float((-linear - half) / square), float((-linear + half) / square)


@dataclass(frozen=True)
class Rule:
    """peak rate = base · (width / reference width) ^ exponent, and how sure that is at 95 %.

    Attributes:
        exponent_interval: None if the exponent was given.
    """

    base: float
    base_interval: Interval
    exponent: float
    exponent_interval: Interval | None


def rule(widths: Sequence[int], found: Sequence[Optimum], reference_width: int, exponent: float | None = None) -> Rule:
    """The line through the best rates against log2 width.

    Every optimum counts alike: what arms differ by is larger than what seeds do, and would not be in weights of seeds.

    Args:
        exponent: what is known of it, as of µP: 0; None to fit it.

    Raises:
        NoOptimum: there are fewer than two widths to fit an exponent to.
    """
    width = np.log2(np.asarray(widths, float) / reference_width)
    best = np.log2([one.rate for one in found])
    if exponent is None:
        if len(np.unique(width)) < 2:
            raise NoOptimum("an exponent needs the best rates of at least two widths; add rungs")
        design = np.column_stack([np.ones_like(width), width])
    else:
        design, best = np.ones((len(width), 1)), best - exponent * width
    coefficients, *_ = np.linalg.lstsq(design, best, rcond=None)
    half = _half_widths(design, best - design @ coefficients)
    base = float(coefficients[0])
    fitted = float(coefficients[1]) if exponent is None else exponent
    return Rule(
        base=2**base,
        base_interval=_rates((-float(half[0]), float(half[0])), 2**base),
        exponent=fitted,
        exponent_interval=(fitted - float(half[1]), fitted + float(half[1])) if exponent is None else None,
    )


def _half_widths(design: Array, residual: Array) -> Array:
    """Of the intervals of the coefficients of a line; infinite where it goes through its points by necessity."""
    freedom = len(residual) - design.shape[1]
    if freedom < 1:
        return np.full(design.shape[1], math.inf)
    variance = np.diag(np.linalg.inv(design.T @ design)) * (residual @ residual) / freedom
    return np.asarray(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance))
