"""Does a loss still fall along one variable: its elasticity over the upper half of an axis, without a law.

A law with a floor can only fall, so its exponents can't answer this; here a loss that rises is as possible as one that
falls, and the interval holds zero where nothing happens.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import Estimate
from ecgscale.laws.intervals import CONFIDENCE


def end_elasticity(size: ArrayLike, held: ArrayLike, loss: ArrayLike) -> Estimate:
    """−∂ log L / ∂ log size over the upper half of the sizes (in logs; at least the two largest).

    The slope of log L on log size with one intercept per value of `held`, by least squares, with Student's t over the
    scatter that this leaves: noise, and whatever the slope changes from one value of `held` to the next.

    Raises:
        FitError: one size, or too few points to know their scatter.
    """
    x, group, y = (np.asarray(column, dtype=float) for column in (size, held, loss))
    sizes = np.unique(x)
    if len(sizes) < 2:
        raise FitError("all points share one size: vary it")
    middle = np.sqrt(sizes[0] * sizes[-1])
    upper = x >= min(middle, sizes[-2])
    x, y, group = np.log(x[upper]), np.log(y[upper]), group[upper]
    x, y = _from_group_means(x, group), _from_group_means(y, group)
    freedom = len(x) - len(np.unique(group)) - 1
    spread = float(x @ x)
    if freedom < 1 or spread == 0:
        raise FitError("too few points among the larger sizes to know their scatter: add seeds or levels")
    slope = float(x @ y) / spread
    error = float(np.sqrt(((y - slope * x) ** 2).sum() / freedom / spread))
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, freedom)) * error
    return Estimate(-slope, -slope - reach, -slope + reach, 1.0)


def _from_group_means(values: FloatArray, group: FloatArray) -> FloatArray:
    _, index = np.unique(group, return_inverse=True)
    return np.asarray(values - (np.bincount(index, values) / np.bincount(index))[index])
