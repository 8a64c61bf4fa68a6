"""Planted designs that look like a sweep: sizes 20 K to 200 M, 1 % to 100 % of 2.3 M records."""

import numpy as np

TRUTH = {"E": 0.5, "A": 0.2 * 2e6**0.30, "B": 0.2 * 2.3e5**0.35, "alpha": 0.30, "beta": 0.35}


def sweep_grid(n_sizes, n_fractions):
    """(n, d), each (n_sizes * n_fractions,)."""
    n, d = np.meshgrid(np.geomspace(2e4, 2e8, n_sizes), np.geomspace(2.3e4, 2.3e6, n_fractions))
    return n.ravel(), d.ravel()


def planted_loss(truth, n, d):
    return truth["E"] + truth["A"] * n ** -truth["alpha"] + truth["B"] * d ** -truth["beta"]
