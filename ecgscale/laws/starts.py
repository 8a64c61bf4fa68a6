"""Where a fit begins: variable projection.

Given the exponents, an additive law is linear in its floor and coefficients, so a grid over the exponents with a tiny
non-negative least squares in every cell sees the whole landscape (the idea of Golub & Pereyra 1973). The best cell of
each part of the grid becomes a start. This module knows columns and cells, not laws.
"""

from itertools import combinations

import numpy as np

from ecgscale.laws.arrays import FloatArray, IndexArray

GRID_LEVELS = {1: 27, 2: 9}
"""Exponent values per axis, by number of distinct exponents. Measured on 12 published tables and 5 objectives: grids of
6 to 24 levels lead to the same 60 optima from the best cell alone."""

GRID_RANGE = (0.03, 3.0)
"""Our assumption, wider than the exponents of the literature (0.02 to 1) at the steep end, where small grids end up."""


def exponent_grid(n_exponents: int) -> tuple[FloatArray, IndexArray]:
    """The levels of an exponent, and all combinations of them as indices into the levels, (cell, exponent)."""
    levels = np.geomspace(*GRID_RANGE, GRID_LEVELS[n_exponents])
    return levels, np.indices([len(levels)] * n_exponents).reshape(n_exponents, -1).T


def project(design: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per cell, the non-negative combination of the columns closest to 1 everywhere.

    There are at most seven non-empty subsets of three columns; the optimum is the best subset whose own unconstrained
    solution is positive.

    Args:
        design: Columns divided by the loss, (cell, column, point): residuals are relative.
        weights: (point,).

    Returns:
        Coefficients (cell, column) and misfit (cell,).
    """
    gram = (design * weights) @ design.transpose(0, 2, 1)
    target = design @ weights
    n_cells, n_columns = target.shape
    best, misfit = np.zeros((n_cells, n_columns)), np.full(n_cells, weights.sum())
    for size in range(1, n_columns + 1):
        for subset in combinations(range(n_columns), size):
            columns = list(subset)
            sub_gram = gram[:, columns][:, :, columns]
            diagonal = np.einsum("cii->ci", sub_gram)  # a view
            diagonal *= 1 + 1e-12  # keeps cells with parallel columns (one level, tiny exponent) solvable
            solution = np.linalg.solve(sub_gram, target[:, columns, None])[..., 0]
            candidate = weights.sum() - (solution * target[:, columns]).sum(axis=1)
            better = (solution > 0).all(axis=1) & (candidate < misfit)
            misfit[better] = candidate[better]
            best[better] = 0.0
            best[np.ix_(better, columns)] = solution[better]
    return best, misfit


def best_per_part(misfit: FloatArray, index: IndexArray, n_starts: int) -> IndexArray:
    """The best cell of each part of the exponent grid, best part first, so that starts lie far apart."""
    order = np.argsort(misfit, kind="stable")
    n_exponents = index.shape[1]
    per_axis = max(1, int(np.ceil(round(n_starts ** (1 / n_exponents), 9))))
    part = (index * per_axis // GRID_LEVELS[n_exponents]) @ per_axis ** np.arange(n_exponents)
    _, first = np.unique(part[order], return_index=True)
    return np.asarray(order[np.sort(first)[:n_starts]])
