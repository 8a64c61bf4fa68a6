"""Objectives: sums of the stated functions, with the derivatives that the solver is told."""

import numpy as np
import pytest

from ecgscale.laws.objectives import Objective, adaptive_delta, weighted_median

LOG_LOSS = np.zeros((1, 5))
LOG_PREDICTED = np.array([[-0.5, -0.003, 0.0004, 0.02, 0.3]])


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective("lsq"), 0.5 * LOG_PREDICTED**2),
        (Objective("lad"), np.abs(LOG_PREDICTED)),
        (Objective("lsq_raw"), np.expm1(LOG_PREDICTED) ** 2),
        (
            Objective("huber", 0.01),
            [[0.01 * (0.5 - 0.005), 0.5 * 0.003**2, 0.5 * 0.0004**2, 0.01 * 0.015, 0.01 * 0.295]],
        ),
    ],
)
def test_total_is_the_weighted_sum(objective, expected):
    weights = np.array([[1.0, 2.0, 1.0, 0.0, 3.0]])
    total = objective.total(LOG_PREDICTED, LOG_LOSS, weights)
    np.testing.assert_allclose(total, (weights * expected).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("objective", [Objective("huber", 0.01), Objective("lsq"), Objective("lsq_raw")])
def test_slope_and_curvature_agree_with_differences(objective):
    step = 1e-7
    up, down = (objective.point_terms(LOG_PREDICTED + s, LOG_LOSS) for s in (step, -step))
    here = objective.point_terms(LOG_PREDICTED, LOG_LOSS)
    np.testing.assert_allclose(here.slope, (up.value - down.value) / (2 * step), atol=1e-8)
    np.testing.assert_allclose(here.curvature, (up.slope - down.slope) / (2 * step), atol=1e-6)


def test_median_under_weights_is_the_median_of_copies():
    rng = np.random.default_rng(0)
    for n in (5, 6, 17):
        values, counts = rng.normal(size=n), rng.integers(1, 4, size=n)
        assert weighted_median(values, counts.astype(float)) == np.median(np.repeat(values, counts))


def test_adaptive_delta_of_gaussian_residuals_is_1345_sigma():
    residuals = 0.02 * np.random.default_rng(0).standard_normal(20_000)
    assert adaptive_delta(residuals, np.ones(20_000)) == pytest.approx(1.345 * 0.02, rel=0.02)


@pytest.mark.parametrize("objective", [Objective("huber", 0.01), Objective("huber", 10.0), Objective("lsq")])
def test_best_constant_has_no_slope(objective):
    rng = np.random.default_rng(2)
    log_loss, weights = rng.normal(size=17), rng.uniform(size=17)
    level = np.full(17, objective.best_constant(log_loss, weights))
    assert weights @ objective.point_terms(level, log_loss).slope == pytest.approx(0.0, abs=1e-12)


def test_best_constant_is_the_median_of_absolute_and_the_mean_of_raw_residuals():
    log_loss = np.log([1.0, 2.0, 10.0])
    assert Objective("lad").best_constant(log_loss, np.ones(3)) == pytest.approx(np.log(2.0), abs=1e-9)
    assert Objective("lsq_raw").best_constant(log_loss, np.ones(3)) == pytest.approx(np.log(13 / 3))
