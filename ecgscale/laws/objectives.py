"""What a fit minimises: a function of each point's residual, summed over points, never averaged.

An objective gives the solver, per point, the loss and its first two derivatives with respect to the predicted *log*
loss, plus a majorant of the curvature (iteratively reweighted least squares) for steps far from the optimum.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray

OBJECTIVES = ("huber", "lad", "lsq", "lsq_raw")

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation (Huber & Ronchetti 2009, Robust Statistics)."""

HUBER_EFFICIENCY = 1.345
"""Tuning constant at which the Huber estimator keeps 95 % efficiency under Gaussian noise (ibid.)."""

SMALLEST_DELTA = 1e-6
"""Floor of a delta taken from residuals. Our assumption: nobody knows a loss to better than one part in a million;
it keeps exactly reproduced (noise-free) data fittable."""

LAD_DELTA = 1e-10
"""Huber with this delta, divided by it, is the absolute residual to within 5e-11 per point, and only at the few
points that the law passes through does it differ at all."""

LAD_DELTA_OF_DRAWS = 1e-6
"""A thousandth of the smallest noise in use: draws scatter far more."""

WIDEST_STAGE = 1e-3
"""Where a cold start comes in; measured: from 1e-3 up the path by powers of ten saves no iterations."""


class PointTerms(NamedTuple):
    """Per point (problem, point): value, d/d(log loss), d²/d(log loss)² and a majorant of the latter."""

    value: FloatArray
    slope: FloatArray
    curvature: FloatArray
    majorant: FloatArray


@dataclass(frozen=True)
class Objective:
    """`huber`: ½r² inside delta, delta(|r| − ½delta) outside, r = log residual. `lad`: |r|. `lsq`: ½r².

    `lsq_raw`: (predicted loss − loss)², in the loss's own unit: the residual sum of squares.
    """

    name: str
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise FitError(f"unknown objective {self.name!r}: choose one of {', '.join(OBJECTIVES)}")
        if self.name == "huber" and not (self.delta is not None and np.isfinite(self.delta) and self.delta > 0):
            raise FitError(f"objective huber needs a positive delta, got {self.delta}")
        if self.name != "huber" and self.delta is not None:
            raise FitError(f"objective {self.name} has no delta; drop delta={self.delta} or use huber")

    def point_terms(self, log_predicted: FloatArray, log_loss: FloatArray) -> PointTerms:
        """Terms of the smooth objective that the solver works on (`lad` is solved as a sequence of Hubers)."""
        if self.name == "lsq_raw":
            predicted, loss = np.exp(log_predicted), np.exp(log_loss)
            residual = predicted - loss
            slope, square = residual * predicted, predicted * predicted
            return PointTerms(residual * residual, 2 * slope, 2 * (square + slope), 2 * square)
        residual = log_predicted - log_loss
        if self.name == "lsq":
            one = np.ones_like(residual)
            return PointTerms(0.5 * residual * residual, residual, one, one)
        delta = LAD_DELTA if self.delta is None else self.delta
        size = np.abs(residual)
        inside = size <= delta
        slope = np.clip(residual, -delta, delta)
        majorant = delta / np.maximum(size, delta)
        return PointTerms(slope * (residual - 0.5 * slope), slope, inside.astype(float), majorant)

    def total(self, log_predicted: FloatArray, log_loss: FloatArray, weights: FloatArray) -> FloatArray:
        """The reported objective, summed over the last axis."""
        if self.name == "lad":
            value = np.abs(log_predicted - log_loss)
        else:
            value = self.point_terms(log_predicted, log_loss).value
        return np.asarray((weights * value).sum(axis=-1))

    def best_constant(self, log_loss: FloatArray, weights: FloatArray) -> float:
        """The log prediction, the same for every point, with the smallest objective; in closed form."""
        if self.name == "lsq":
            return float(np.average(log_loss, weights=weights))
        if self.name == "lsq_raw":
            return float(np.log(np.average(np.exp(log_loss), weights=weights)))
        # The slope Σ w clip(z − y, −δ, δ) is piecewise linear in z, with a corner δ to either side of every point.
        delta = LAD_DELTA if self.delta is None else self.delta
        corners = np.concatenate((log_loss - delta, log_loss + delta))
        order = np.argsort(corners, kind="stable")
        corners, steepness = corners[order], np.cumsum(np.concatenate((weights, -weights))[order])
        slope = np.concatenate(([0.0], np.cumsum(steepness[:-1] * np.diff(corners)))) - delta * weights.sum()
        return float(np.interp(0.0, slope, corners))

    def stages(self, warm: bool = False) -> tuple["Objective", ...]:
        """Smooth objectives to be solved in turn; the last one is the target (for `lad`, up to its tiny delta).

        A Huber whose delta is far below the residuals has its Newton basin only near the optimum, so a cold start
        comes down in powers of ten. A warm start (a resample) needs that for `lad` only, and not all the way.
        """
        if self.name not in ("huber", "lad") or (warm and self.name == "huber"):
            return (self,)
        target = self.delta if self.delta is not None else LAD_DELTA_OF_DRAWS if warm else LAD_DELTA
        steps = int(np.ceil(np.log10(max(WIDEST_STAGE / target, 1.0)) - 1e-9))
        return tuple(Objective("huber", target * 10.0**k) for k in range(steps, -1, -1))


def adaptive_delta(residuals: FloatArray, weights: FloatArray) -> float:
    """1.345 robust standard deviations of the log residuals: efficient under Gaussian noise, robust to outliers."""
    centre = weighted_median(residuals, weights)
    mad = weighted_median(np.abs(residuals - centre), weights)
    return max(HUBER_EFFICIENCY * MAD_TO_SIGMA * mad, SMALLEST_DELTA)


def weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """Median under weights; a weight of 2 counts as two copies of the point."""
    order = np.argsort(values, kind="stable")
    values, cumulative = values[order], np.cumsum(weights[order])
    half = 0.5 * cumulative[-1]
    upper = values[min(np.searchsorted(cumulative, half * (1 + 1e-12), side="right"), len(values) - 1)]
    lower = values[np.searchsorted(cumulative, half * (1 - 1e-12), side="left")]
    return float(0.5 * (lower + upper))
