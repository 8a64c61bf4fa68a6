"""Data for a fit, checked once: positive finite columns, weights, run labels, and the levels of every axis.

Refuses (`FitError`) what no estimator can use; what is merely doubtful is left for the flags of the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray, IndexArray
from ecgscale.laws.forms import Law

SAME_LEVEL = 1.01
"""Values within 1 % of the smallest of a level are one level of an axis: token counts and measured sizes jitter.
Our assumption; the closest rungs in use differ by 10 %."""


@dataclass(frozen=True)
class Observations:
    """Variables (variable, point) in the law's order; loss, weights and run index (point,); levels per variable.

    Only points of positive weight; `used` says which rows of the input these are.
    """

    variables: FloatArray
    loss: FloatArray
    weights: FloatArray
    runs: IndexArray
    levels: tuple[IndexArray, ...]
    used: NDArray[np.bool_]

    @property
    def n_runs(self) -> int:
        return int(self.runs.max()) + 1

    def n_levels(self) -> tuple[int, ...]:
        """Distinct levels of every axis."""
        return tuple(len(np.unique(level)) for level in self.levels)


def observe(
    law: Law, columns: Sequence[ArrayLike], weights: ArrayLike | None = None, runs: ArrayLike | None = None
) -> Observations:
    """Check the columns of a law (its variables in order, then the loss) and count runs and levels."""
    names = (*law.variables, "loss")
    if len(columns) != len(names):
        raise FitError(f"law {law.name} takes {len(names)} columns ({', '.join(names)}), got {len(columns)}")
    n_points = np.size(columns[-1])
    arrays = [_column(name, column, n_points) for name, column in zip(names, columns, strict=True)]
    weight = np.ones(n_points) if weights is None else _weights(weights, n_points)
    if runs is None:
        run_index = np.arange(n_points)
    else:
        labels = np.asarray(runs)
        if labels.shape != (n_points,):
            raise FitError(f"runs has shape {labels.shape}, loss has {n_points} points: give one label per point")
        run_index = np.unique(labels, return_inverse=True)[1]
    used = weight > 0
    variables, run_index = np.stack(arrays[:-1])[:, used], np.unique(run_index[used], return_inverse=True)[1]
    levels = tuple(_levels(variable) for variable in variables)
    _refuse_too_few(law, levels, int(used.sum()))
    return Observations(variables, arrays[-1][used], weight[used], run_index, levels, used)


def _column(name: str, column: ArrayLike, n_points: int) -> FloatArray:
    values = np.asarray(column, dtype=float)
    if values.shape != (n_points,):
        raise FitError(f"column {name} has shape {values.shape}, loss has {n_points} points: give one value per point")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        raise FitError(
            f"column {name} must be positive and finite; row {wrong[0]} is {values[wrong[0]]:g}"
            f" ({len(wrong)} such rows): drop them and say why, laws are fitted in logs"
        )
    return values


def _weights(weights: ArrayLike, n_points: int) -> FloatArray:
    values = np.asarray(weights, dtype=float)
    if values.shape != (n_points,) or not (np.isfinite(values) & (values >= 0)).all():
        raise FitError(f"weights must be {n_points} finite numbers, none negative; zero leaves a point out")
    return values


def _levels(values: FloatArray) -> IndexArray:
    """Index of the level of every value: a level begins where a value leaves the one before by more than 1 %."""
    level, begin = np.zeros(len(values), dtype=np.intp), -np.inf
    index = -1
    for position in np.argsort(values, kind="stable"):
        if values[position] > begin * SAME_LEVEL or index < 0:
            index, begin = index + 1, values[position]
        level[position] = index
    return level


def _refuse_too_few(law: Law, levels: tuple[IndexArray, ...], n_points: int) -> None:
    needed = len(law.theta) + 1
    if n_points < needed:
        raise FitError(
            f"law {law.name} has {needed - 1} parameters and needs at least {needed} points, got {n_points}:"
            " add runs or choose a law with fewer parameters"
        )
    for name, level in zip(law.variables, levels, strict=True):
        if len(np.unique(level)) < 2:
            raise FitError(
                f"law {law.name}: all points share one level of {name}, so its term can't be told from a constant:"
                f" vary {name} or fit a law without it"
            )
