"""Straight lines in batches: one per row of points and weights, by least squares or Huber. The second stage of a
loss-to-loss law needs them because there, other than in `solver`, the abscissa differs from resample to resample.
"""

import numpy as np

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.objectives import Objective, adaptive_delta

MAX_ITERATIONS = 500
RELATIVE_STEP = 1e-13
"""Reweighting ends when no coefficient moves by more than this share of the spread of y. Measured: 20 to 80 steps."""


def line_objective(name: str, delta: float | None, x: FloatArray, y: FloatArray, weights: FloatArray) -> Objective:
    """The objective of a line, Huber's delta taken from its residuals when none is given (once re-estimated)."""
    if name not in ("huber", "lsq"):
        raise FitError(f"a straight line is fitted by huber or lsq, not by {name!r}")
    if name == "lsq" or delta is not None:
        return Objective(name, delta)
    objective = Objective("lsq")
    for _ in range(2):
        intercept, slope = fit_lines(x[None], y[None], weights[None], objective)
        objective = Objective("huber", adaptive_delta(intercept[0] + slope[0] * x - y, weights))
    return objective


def fit_lines(x: FloatArray, y: FloatArray, weights: FloatArray, objective: Objective) -> tuple[FloatArray, FloatArray]:
    """Intercept and slope (row,) of y on x for rows of x, y and weights, all (row, point) or broadcastable to it.

    Huber by iteratively reweighted least squares: the problem is convex, so where it ends is the optimum.
    """
    x, y, weights = np.broadcast_arrays(x, y, weights)
    intercept, slope = _weighted_lines(x, y, weights)
    if objective.delta is None:
        return intercept, slope
    smallest = RELATIVE_STEP * np.ptp(y, axis=1).clip(min=1e-300)
    for _ in range(MAX_ITERATIONS):
        residual = np.abs(intercept[:, None] + slope[:, None] * x - y)
        robust = weights * (objective.delta / np.maximum(residual, objective.delta))
        new_intercept, new_slope = _weighted_lines(x, y, robust)
        moved = np.abs(new_intercept - intercept) + np.abs(new_slope - slope) * np.abs(x).max(axis=1)
        intercept, slope = new_intercept, new_slope
        if (moved <= smallest).all():
            break
    return intercept, slope


def _weighted_lines(x: FloatArray, y: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    total = weights.sum(axis=1)
    mean_x, mean_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    from_mean = x - mean_x[:, None]
    slope = (weights * from_mean * (y - mean_y[:, None])).sum(axis=1) / (weights * from_mean**2).sum(axis=1)
    return mean_y - slope * mean_x, slope
