"""Where a fit begins: variable projection.

Given the exponents, a law is linear in its floor and coefficients, so a grid over the exponents with a tiny
non-negative least squares in every cell sees the whole landscape (the idea of Golub & Pereyra 1973). The best cell of
each part of the grid becomes a start. This module knows columns and cells, not laws.
"""

from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ecgscale.laws.arrays import FloatArray, IndexArray

GRID_LEVELS = {0: 1, 1: 27, 2: 9}
"""Exponent values per axis, by number of distinct exponents. Measured on 12 published tables and 5 objectives: grids of
6 to 24 levels lead to the same 60 optima from the best cell alone."""

GRID_RANGE = (0.03, 3.0)
"""Our assumption, wider than the exponents of the literature (0.02 to 1) at the steep end, where small grids end up."""

PARALLEL = 1e-12
"""Added to the unit diagonal: keeps cells with parallel columns (one level, tiny exponent) solvable."""


class Normal(NamedTuple):
    """Normal equations of each cell: gram (cell, column, column), moment (cell, column), and the square of the target.

    Residuals are relative to the loss, so columns and target are divided by it.
    """

    gram: FloatArray
    moment: FloatArray
    total: float

    @classmethod
    def of(cls, rows: FloatArray, cells: IndexArray, weights: FloatArray, target: FloatArray) -> "Normal":
        """Cells (cell, column) pick their columns among shared rows (row, point): every product is taken once."""
        weighted = rows * weights
        gram, moment = weighted @ rows.T, weighted @ target
        return cls(gram[cells[:, :, None], cells[:, None, :]], moment[cells], float(weights @ (target * target)))


@cache
def exponent_grid(n_exponents: int) -> tuple[FloatArray, IndexArray]:
    """The levels of an exponent, and all combinations of them as indices into the levels, (cell, exponent)."""
    levels = np.geomspace(*GRID_RANGE, GRID_LEVELS[n_exponents])
    index = np.indices([len(levels)] * n_exponents).reshape(n_exponents, len(levels) ** n_exponents).T
    levels.setflags(write=False)
    index.setflags(write=False)
    return levels, index


@cache
def _subsets(n_columns: int, size: int) -> IndexArray:
    """All ways to choose columns, (subset, size)."""
    return np.array(list(combinations(range(n_columns), size)))


def project(normal: Normal) -> tuple[FloatArray, FloatArray]:
    """Per cell, the non-negative combination of the columns closest to the target, (cell, column), and its misfit.

    Where all columns come out positive that is the optimum; elsewhere it is the best subset of fewer columns whose own
    unconstrained solution is positive, and there are at most six of three columns.
    """
    n_cells, n_columns = normal.moment.shape
    best, misfit = np.zeros((n_cells, n_columns)), np.full(n_cells, normal.total)
    cells = np.arange(n_cells)
    for size in range(n_columns, 0, -1):
        subsets = _subsets(n_columns, size)
        gram = normal.gram[cells[:, None, None, None], subsets[:, :, None], subsets[:, None, :]]
        gram *= 1 + PARALLEL * np.eye(size)
        moment = normal.moment[cells[:, None, None], subsets]
        solution = np.linalg.solve(gram, moment[..., None])[..., 0]  # (cell, subset, size)
        candidate = normal.total - (solution * moment).sum(axis=2)
        candidate[(solution <= 0).any(axis=2)] = np.inf
        subset = candidate.argmin(axis=1)
        row = np.arange(len(cells))
        better = row[candidate[row, subset] < misfit[cells]]
        chosen, subset = cells[better], subset[better]
        misfit[chosen] = candidate[better, subset]
        best[chosen] = 0.0
        best[chosen[:, None], subsets[subset]] = solution[better, subset]
        if size == n_columns:
            cells = cells[(solution[:, 0] <= 0).any(axis=1)]
    return best, misfit


def best_per_part(misfit: FloatArray, index: IndexArray, n_levels: int, n_starts: int) -> IndexArray:
    """The best cell of each part of a grid (cell, axis), best part first, so that starts lie far apart."""
    if n_starts == 1:
        return np.array([misfit.argmin()])
    order = np.argsort(misfit, kind="stable")
    n_axes = index.shape[1]
    per_axis = max(1, int(np.ceil(round(n_starts ** (1 / n_axes), 9))))
    part = (index * per_axis // n_levels) @ per_axis ** np.arange(n_axes)
    _, first = np.unique(part[order], return_index=True)
    return np.asarray(order[np.sort(first)[:n_starts]])
