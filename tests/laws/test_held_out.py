"""`hold_out`: windows grow level by level, the largest is always unseen, and trivial predictors stand beside."""

import json
import math

import numpy as np
import pytest

from ecgscale.errors import FitError
from ecgscale.laws.held_out import hold_out


@pytest.mark.parametrize(("axis", "n_levels", "largest"), [("N", 6, 2e8), ("d", 5, 2.3e6)])
def test_a_noise_free_law_predicts_every_level_above(grid, truth, axis, n_levels, largest):
    n, d = grid
    loss = truth["E"] + truth["A"] * n**-0.30 + truth["B"] * d**-0.35
    found = hold_out("chinchilla", n, d, loss, axis=axis)
    assert len(found.windows) == n_levels - 1
    for window in found.windows:
        held = [p.x[0 if axis == "N" else 1] for p in window.points]
        assert max(held) == pytest.approx(largest)  # the largest level is unseen in every window
        assert min(held) > window.up_to
    assert [w.reason is None for w in found.windows] == [False, False] + [True] * (n_levels - 3)
    assert found.error["law"] < 1e-6
    assert found.error["best_so_far"] > 0.05
    assert found.error["floor_free"] > 0.005
    assert found.flags == ()
    json.dumps(found.to_dict(), allow_nan=False)


def test_windows_that_hold_no_law_have_a_reason_and_trivial_errors(noisy):
    found = hold_out("chinchilla", *noisy)
    one, two = found.windows[:2]
    assert "at least 6 points, got 5" in one.reason
    assert "two levels of N" in two.reason
    for window in (one, two):
        assert len(window.points) == 30 - window.n_points
        assert all(math.isnan(p.law) for p in window.points)
        assert all(math.isfinite(p.best_so_far) and math.isfinite(p.floor_free) for p in window.points)


def test_errors_are_weighted_by_distance(noisy):
    found = hold_out("chinchilla", *noisy)
    points = [p for w in found.windows if w.reason is None for p in w.points]
    distances, errors = np.array([p.distance for p in points]), np.array([p.law for p in points])
    assert found.error["law"] == pytest.approx((distances * abs(errors)).sum() / distances.sum())
    assert found.bias["law"] == pytest.approx((distances * errors).sum() / distances.sum())
    last = found.windows[-1].points
    assert found.largest["law"] == pytest.approx(np.mean([abs(p.law) for p in last]))
    assert distances.min() == pytest.approx(math.log(10) * 0.8)  # four decades in five steps


def test_errors_are_predicted_over_true(noisy):
    n, _, loss = noisy
    window = hold_out("chinchilla", *noisy).windows[-1]
    point = window.points[0]
    theta = window.theta
    predicted = theta["E"] + theta["A"] * point.x[0] ** -theta["alpha"] + theta["B"] * point.x[1] ** -theta["beta"]
    assert point.law == pytest.approx(predicted / point.loss - 1)
    assert point.best_so_far == pytest.approx(loss[n < n.max()].min() / point.loss - 1)


def test_a_law_without_a_floor_is_no_better_than_the_floor_free_line():
    x = np.geomspace(1e4, 1e9, 8)
    loss = 30 * x**-0.2 * np.exp(0.01 * np.random.default_rng(0).standard_normal(8))
    found = hold_out("power", x, loss, objective="lsq")
    assert found.error["law"] == pytest.approx(found.error["floor_free"], rel=1e-6)
    assert found.windows[0].reason is not None
    assert found.windows[1].reason is not None  # two parameters need three points


def test_saturated_data_are_predicted_better_by_the_best_so_far():
    x = np.geomspace(1e4, 1e9, 9)
    saturated = np.maximum(30 * x**-0.2, 30 * x[4] ** -0.2)
    found = hold_out("power", x, saturated)
    assert "not_better_than:best_so_far" in found.flags
    assert found.bias["law"] < 0  # too hopeful


def test_small_sweeps_end_in_reasons_not_in_numbers():
    x = np.geomspace(1e4, 1e6, 4)
    found = hold_out("power_floor", x, 0.3 + 30 * x**-0.4)
    assert all(w.reason for w in found.windows)
    assert found.flags == ("largest_not_predicted",)
    assert math.isnan(found.error["law"])
    assert math.isnan(found.largest["law"])


def test_bounded_metrics_are_judged_as_scores(grid, truth):
    n, d = grid
    odds = 0.1 + truth["A"] * n**-0.30 + truth["B"] * d**-0.35
    score = 0.5 + 0.5 / (1 + odds)
    found = hold_out("chinchilla", n, d, score, bounded=(0.5, 1.0))
    assert found.windows[-1].points[0].loss == pytest.approx(score[n == n.max()][0])
    assert found.error["law"] < 1e-6
    assert found.error["best_so_far"] < 0.5


def test_unknown_axes_and_single_levels_are_refused(noisy):
    with pytest.raises(FitError, match="no axis 'C'"):
        hold_out("chinchilla", *noisy, axis="C")
    with pytest.raises(FitError, match="one level"):
        hold_out("power", np.full(5, 2.0), np.arange(1.0, 6.0))
