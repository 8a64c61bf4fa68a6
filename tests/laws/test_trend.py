"""`end_elasticity`: the fall of a loss at the end of an axis, zero included in what it can say."""

from itertools import product

import numpy as np
import pytest

from ecgscale.errors import FitError
from ecgscale.laws import end_elasticity

N, D, SEEDS = np.geomspace(2e4, 2e7, 4), np.geomspace(7e3, 2e6, 5), range(2)
CELLS = np.array(list(product(N, D, SEEDS)))


def test_a_power_law_has_its_exponent_whatever_the_other_variable_does():
    n, d, _ = CELLS.T
    found = end_elasticity(n, d, 3 * n**-0.2 * d**-0.4)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))


def test_only_the_upper_half_counts():
    n, d, _ = CELLS.T
    flattened = np.maximum(n, N[2]) ** -0.3 * d**-0.1  # nothing falls below the third size
    assert end_elasticity(n, d, flattened).value == pytest.approx(0.3)
    assert end_elasticity(n, d, np.minimum(n, N[2]) ** -0.3).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("planted", [0.0, 0.05, -0.05])
def test_intervals_hold_the_planted_elasticity(planted):
    n, d, _ = CELLS.T
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = end_elasticity(n, d, n**-planted * d**-0.2 * np.exp(0.02 * rng.standard_normal(len(n))))
        hits += found.low <= planted <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_what_says_nothing_of_a_slope_is_refused():
    with pytest.raises(FitError, match="one size"):
        end_elasticity([1e4, 1e4], [10, 20], [0.5, 0.4])
    with pytest.raises(FitError, match="too few points"):
        end_elasticity([1e4, 1e5], [10, 10], [0.5, 0.4])
