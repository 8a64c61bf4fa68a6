"""Data for a fit, checked once: positive finite columns, weights, run labels, and the levels of every axis.

Refuses (`FitError`) what no estimator can use; what is merely doubtful is left for the flags of the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray, IndexArray
from ecgscale.laws.forms import Law, free_parameters

SAME_LEVEL = 1.01
"""Values within 1 % of the smallest of a level are one level of an axis: token counts and measured sizes jitter.
Our assumption; the closest rungs in use differ by 10 %."""


@dataclass(frozen=True)
class Observations:
    """Variables (variable, point) in the law's order; loss, weights and run index (point,); levels per variable.

    Only points of positive weight; `used` says which rows of the input these are. A bounded metric is given as its
    error odds. `labelled` says whether the caller named the runs; otherwise they are the configurations.
    """

    variables: FloatArray
    loss: FloatArray
    weights: FloatArray
    runs: IndexArray
    levels: tuple[IndexArray, ...]
    used: NDArray[np.bool_]
    labelled: bool

    @property
    def n_runs(self) -> int:
        return int(self.runs.max()) + 1

    def n_levels(self) -> tuple[int, ...]:
        """Distinct levels of every axis."""
        return tuple(int(level.max()) + 1 for level in self.levels)


def observe(
    law: Law, columns: Sequence[ArrayLike], weights: ArrayLike | None = None, runs: ArrayLike | None = None
) -> Observations:
    """Check the columns of a law (its variables in order, then the loss) and count runs and levels."""
    names = (*law.variables, "loss")
    if len(columns) != len(names):
        raise FitError(f"law {law.name} takes {len(names)} columns ({', '.join(names)}), got {len(columns)}")
    n_points = np.size(columns[-1])
    if law.link is not None:
        columns = (*columns[:-1], law.link.to_odds(columns[-1]))
    arrays = [_column(name, column, n_points) for name, column in zip(names, columns, strict=True)]
    weight = np.ones(n_points) if weights is None else _weights(weights, n_points)
    used = weight > 0
    variables = np.stack(arrays[:-1])[:, used]
    run_index = _configurations(variables) if runs is None else _labelled(runs, used)
    levels = tuple(_levels(variable) for variable in variables)
    _refuse_too_few(law, levels, int(used.sum()))
    return Observations(variables, arrays[-1][used], weight[used], run_index, levels, used, runs is not None)


def _configurations(variables: FloatArray) -> IndexArray:
    """Points with the same variables are seeds of one configuration; numbered by value, so that order means nothing."""
    order = np.lexsort(variables)
    changes = (np.diff(variables[:, order], axis=1) != 0).any(axis=0)
    index = np.empty(len(order), dtype=np.intp)
    index[order] = np.concatenate(([0], np.cumsum(changes)))
    return index


def _labelled(runs: ArrayLike, used: NDArray[np.bool_]) -> IndexArray:
    labels = np.asarray(runs)
    if labels.shape != used.shape:
        raise FitError(f"runs has shape {labels.shape}, loss has {len(used)} points: give one label per point")
    return np.asarray(np.unique(labels[used], return_inverse=True)[1])


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
    """Index of the level of every value: a level begins where a value leaves the smallest of the one before by 1 %."""
    ordered = np.sort(values)
    begin_after = ordered.searchsorted(ordered * SAME_LEVEL, side="right").tolist()
    begins, position = [], 0
    while position < len(ordered):
        begins.append(position)
        position = begin_after[position]
    return np.asarray(ordered[begins].searchsorted(values, side="right") - 1)


def _refuse_too_few(law: Law, levels: tuple[IndexArray, ...], n_points: int) -> None:
    needed = len(free_parameters(law)) + 1
    if n_points < needed:
        raise FitError(
            f"law {law.name} has {needed - 1} parameters and needs at least {needed} points, got {n_points}:"
            " add runs or choose a law with fewer parameters"
        )
    for name, level in zip(law.variables, levels, strict=True):
        if level.max() == 0:
            raise FitError(
                f"law {law.name}: all points share one level of {name}, so its term can't be told from a constant:"
                f" vary {name} or fit a law without it"
            )
