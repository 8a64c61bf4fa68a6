"""Loss-to-loss laws: planted κ and K come back, and what is not known about the floors reaches the interval of κ."""

import numpy as np
import pytest
from planted_sweep import planted_loss

from ecgscale.errors import FitError
from ecgscale.laws import FitStatus, PairFit, fit, fit_pair, fit_pair_with_floors

LOSS_X = np.geomspace(0.7, 3.0, 25)


def shifted(loss_x, k=0.8, kappa=1.3, e0=0.5, e1=0.2):
    return k * (loss_x - e0) ** kappa + e1


@pytest.fixture
def two_losses(grid, truth):
    """(n, d, L0, L1) with 0.3 % noise; L1 = 0.6 (L0 − 0.5) + 0.2 follows the same law, so both stages are right."""
    n, d = grid
    loss = planted_loss(truth, n, d)
    noise = np.exp(0.003 * np.random.default_rng(1).standard_normal((2, len(n))))
    return n, d, loss * noise[0], (0.6 * (loss - 0.5) + 0.2) * noise[1]


@pytest.mark.parametrize("objective", ["lsq", "huber"])
def test_noise_free_law_is_recovered_given_the_floors(objective):
    pair = fit_pair(LOSS_X, shifted(LOSS_X), floor_x=0.5, floor_y=0.2, objective=objective, bootstrap=50)
    assert pair.theta["K"] == pytest.approx(0.8, rel=1e-10)
    assert pair.theta["kappa"] == pytest.approx(1.3, rel=1e-10)
    assert pair.interval["kappa"] == pytest.approx((1.3, 1.3), rel=1e-9)
    assert pair.flags == ()


def test_least_squares_is_the_straight_line_of_logs():
    rng = np.random.default_rng(0)
    y = shifted(LOSS_X) * np.exp(0.02 * rng.standard_normal(25))
    slope, intercept = np.polyfit(np.log(LOSS_X - 0.5), np.log(y - 0.1), 1)
    pair = fit_pair(LOSS_X, y, floor_x=0.5, floor_y=0.1, objective="lsq", bootstrap=0)
    assert pair.theta["kappa"] == pytest.approx(slope, rel=1e-12)
    assert pair.theta["K"] == pytest.approx(np.exp(intercept), rel=1e-12)
    residual = np.polyval((slope, intercept), np.log(LOSS_X - 0.5)) - np.log(y - 0.1)
    assert pair.objective.value == pytest.approx(0.5 * (residual**2).sum(), rel=1e-9)


def test_huber_line_agrees_with_the_solver_of_laws():
    rng = np.random.default_rng(0)
    y = shifted(LOSS_X) * np.exp(0.02 * rng.standard_normal(25))
    y[3] *= 1.5
    pair = fit_pair(LOSS_X, y, floor_x=0.5, floor_y=0.1, delta=0.01, bootstrap=0)
    line = fit("power", LOSS_X - 0.5, y - 0.1, delta=0.01, bootstrap=0)
    assert pair.theta["kappa"] == pytest.approx(-line.theta["alpha"], rel=1e-8)
    assert pair.theta["K"] == pytest.approx(line.theta["A"], rel=1e-8)
    assert pair.objective.value == pytest.approx(line.objective.value, rel=1e-10)


def test_kappa_does_not_depend_on_the_unit_of_either_loss():
    y = shifted(LOSS_X) * np.exp(0.02 * np.random.default_rng(0).standard_normal(25))
    before = fit_pair(LOSS_X, y, floor_x=0.5, floor_y=0.1, bootstrap=0)
    after = fit_pair(7 * LOSS_X, 1e-3 * y, floor_x=3.5, floor_y=1e-4, bootstrap=0)
    assert after.theta["kappa"] == pytest.approx(before.theta["kappa"], rel=1e-9)
    assert after.slope == pytest.approx(before.slope, rel=1e-9)


def test_slope_needs_no_floor():
    pair = fit_pair(LOSS_X, 2 * LOSS_X**0.7, floor_x=0.5, floor_y=0.1, bootstrap=100)
    assert pair.slope == pytest.approx(0.7, rel=1e-10)
    assert pair.slope_interval == pytest.approx((0.7, 0.7), rel=1e-9)


def test_fitted_floors_widen_the_interval_of_kappa(two_losses):
    n, d, loss_x, loss_y = two_losses
    pair, law_x, law_y = fit_pair_with_floors("chinchilla", n, d, loss_x=loss_x, loss_y=loss_y, bootstrap=400)
    assert pair.theta["E0"] == law_x.theta["E"]
    assert pair.theta["E1"] == law_y.theta["E"]
    low, high = pair.interval["kappa"]
    assert low < 1.0 < high
    given = fit_pair(loss_x, loss_y, floor_x=law_x.theta["E"], floor_y=law_y.theta["E"], bootstrap=400)
    assert given.theta["kappa"] == pytest.approx(pair.theta["kappa"], rel=1e-12)
    assert high - low > 1.5 * (given.interval["kappa"][1] - given.interval["kappa"][0])


def test_both_stages_use_the_same_resamples(two_losses):
    n, d, loss_x, _ = two_losses
    pair, law_x, law_y = fit_pair_with_floors("chinchilla", n, d, loss_x=loss_x, loss_y=2 * loss_x, bootstrap=100)
    np.testing.assert_array_equal(pair.draws[:, 2], law_x.draws[:, 0])
    np.testing.assert_allclose(law_y.draws, law_x.draws * [2, 2, 2, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(pair.draws[:, 1], 1.0, rtol=1e-5)  # the loss against itself


def test_a_floor_near_the_data_and_the_flags_of_the_laws_are_reported(grid):
    n, d = grid
    rng = np.random.default_rng(2)
    loss_x = (1 + 0.5 * (n / 2e4) ** -0.1 + 0.1 * (d / 2.3e4) ** -0.1) * np.exp(0.01 * rng.standard_normal(30))
    pair, law_x, _ = fit_pair_with_floors("chinchilla", n, d, loss_x=loss_x, loss_y=1.5 * loss_x, bootstrap=200)
    assert "near_floor:E0" in pair.flags
    assert {f"E0:{flag}" for flag in law_x.flags} <= set(pair.flags)


def test_a_loss_at_its_floor_is_refused():
    with pytest.raises(FitError, match=r"values of L0 lie at or below its floor 0.75"):
        fit_pair(LOSS_X, shifted(LOSS_X), floor_x=0.75, floor_y=0.1)


def test_a_law_without_floor_can_not_give_one(two_losses):
    n, _, loss_x, loss_y = two_losses
    with pytest.raises(FitError, match="power has no floor"):
        fit_pair_with_floors("power", n, loss_x=loss_x, loss_y=loss_y)


def test_pair_survives_json_and_predicts():
    y = shifted(LOSS_X) * np.exp(0.02 * np.random.default_rng(0).standard_normal(25))
    pair = fit_pair(LOSS_X, y, floor_x=0.5, floor_y=0.1, bootstrap=100)
    again = PairFit.from_json(pair.to_json())
    assert again == pair
    assert again.status is FitStatus.CONVERGED
    prediction = pair.predict([1.0, 5.0])
    np.testing.assert_array_equal(prediction.extrapolated, [False, True])
    np.testing.assert_array_equal(again.predict([1.0, 5.0]).value, prediction.value)
    assert (prediction.low <= prediction.high).all()
