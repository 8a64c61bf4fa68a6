"""What would decide: more trials shrink an interval as they should, and the cheapest way is named with its cost."""

import math

import numpy as np
import pandas as pd
import pytest

from ecgscale.findings.more_trials import Design, Plan


@pytest.fixture
def design():
    """Three sizes, three fractions, one seed; a trial costs 6·N·D FLOPs at 1e12 FLOP/s."""
    n, d = (grid.ravel() for grid in np.meshgrid([20_000.0, 200_000.0, 2_000_000.0], [2e2, 2e3, 2e4]))
    return Design.of(pd.DataFrame({"n": n, "d": d, "flops": 6 * n * d, "wall_s": 6 * n * d / 1e12}))


def by_trials(designs):
    return 1 / sum(len(design.n) for design in designs)


def test_costs_are_those_of_the_trials_that_ran(design):
    np.testing.assert_allclose(design.cost_flops, 6 * design.n * design.d, rtol=1e-6)


def test_nothing_narrows_enough(design):
    assert "up to 4 × the cost so far" in Plan((design,), by_trials, 0.1).words()
    assert Plan((design,), by_trials, 0.0).words().startswith("no grid of this kind")


def test_seeds_where_only_repetitions_count(design):
    def by_repetitions(designs):
        counts = [np.unique(np.column_stack((d.n, d.d)), axis=0, return_counts=True)[1] for d in designs]
        return 1 / min(int(count.max()) for count in counts)

    said = Plan((design,), by_repetitions, math.sqrt(0.5)).words()
    assert said.startswith("1 more seed of every cell (9 trials")
    assert said.endswith("would decide, if the estimate stays")


def test_cheapest_way_wins(design):
    """Any trial counts the same, and those between the smallest fractions are cheaper than seeds of all cells."""
    said = Plan((design,), by_trials, 0.8).words()
    assert said.startswith("1 more data fraction between every two (6 trials")


def test_no_fraction_is_proposed_that_can_not_be_trained_on(design):
    def by_fewest(designs):
        return min(float(d.d.min()) for d in designs)

    assert Plan((design,), by_fewest, 0.5).words().startswith("no grid of this kind")


def test_no_size_beyond_the_ladder_is_proposed(design):
    def by_smallest(designs):
        return min(float(d.n.min()) for d in designs)

    assert Plan((design,), by_smallest, 0.5).words().startswith("no grid of this kind")
