"""`overtaking`: planted crossings come back, and so does their absence."""

import json
import math

import numpy as np
import pytest
from planted_sweep import planted_loss, sweep_grid

from ecgscale.laws import fit, overtaking

STEADY = {"E": 0.5, "A": 5.0, "alpha": 0.20, "B": 10.0, "beta": 0.35}
"""Ahead at small sizes."""
STEEP = {"E": 0.5, "A": 60.0, "alpha": 0.40, "B": 10.0, "beta": 0.35}
CROSSING = (60 / 5) ** (1 / 0.20)
"""Where 5·N^−0.2 = 60·N^−0.4."""


def arm(truth, noise=0.0, bootstrap=0, seed=0):
    n, d = sweep_grid(6, 5)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return fit("chinchilla", n, d, planted_loss(truth, n, d) * scatter, bootstrap=bootstrap)


def test_planted_crossing_comes_back():
    found = overtaking(arm(STEADY), arm(STEEP))
    assert found.size == pytest.approx(CROSSING, rel=0.01)
    assert found.smallest < found.size < found.largest
    assert (found.low, found.high, found.never) == (None, None, None)


def test_interval_of_a_crossing():
    found = overtaking(arm(STEADY, 0.003, 200, seed=1), arm(STEEP, 0.003, 200, seed=2))
    assert found.smallest < found.low < CROSSING < found.high < found.horizon
    assert found.never == 0
    assert found.at_horizon.high < 0 < found.at_smallest.low
    json.dumps(found.to_dict(), allow_nan=False)


def test_who_is_ahead_everywhere_never_crosses():
    worse = STEADY | {"E": 0.6}
    behind = overtaking(arm(STEADY), arm(worse))
    ahead = overtaking(arm(worse), arm(STEADY))
    assert behind.size == math.inf
    assert ahead.size == 0
    sure = overtaking(arm(STEADY, 0.003, 100), arm(worse, 0.003, 100, seed=1))
    assert (sure.low, sure.high, sure.never) == (math.inf, math.inf, 1.0)


def test_a_lead_that_is_lost_again_does_not_count():
    """b is below a at large sizes only from the last crossing on."""
    found = overtaking(arm(STEEP), arm(STEADY))
    assert found.size == math.inf
