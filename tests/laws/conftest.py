"""Fixtures of the law tests: a planted truth on a 6×5 sweep, with and without noise."""

import numpy as np
import pytest
from planted_sweep import TRUTH, planted_loss, sweep_grid


@pytest.fixture
def truth():
    return dict(TRUTH)


@pytest.fixture
def grid():
    """(n, d) of a 6×5 grid, each (30,)."""
    return sweep_grid(6, 5)


@pytest.fixture
def noisy(grid, truth):
    """(n, d, loss) of the 6×5 grid with 1 % noise."""
    n, d = grid
    return n, d, planted_loss(truth, n, d) * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(n)))
