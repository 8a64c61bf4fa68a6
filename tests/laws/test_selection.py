"""`compare_laws` and `aicc`: the planted law wins, the scale of the objective is right, and refusals have reasons."""

import json
import math

import numpy as np
import pytest

from ecgscale.errors import FitError
from ecgscale.laws import fit
from ecgscale.laws.selection import aicc, compare_laws

PAIR = ["chinchilla", "chinchilla_tied"]


@pytest.mark.parametrize("objective", ["huber", "lad", "lsq", "lsq_raw"])
def test_the_planted_law_wins(grid, truth, objective):
    n, d = grid
    rng = np.random.default_rng(1)
    tied = truth["E"] + 0.2 * (n / 2e6) ** -0.3 + 0.2 * (d / 2.3e5) ** -0.3
    split = truth["E"] + 0.2 * (n / 2e6) ** -0.15 + 0.2 * (d / 2.3e5) ** -0.55
    for loss, expected in ((tied, "chinchilla_tied"), (split, "chinchilla")):
        noisy = loss * np.exp(0.005 * rng.standard_normal(len(n)))
        assert compare_laws(PAIR, n, d, noisy, objective=objective).best == expected


def test_a_floor_is_found_and_its_absence_too():
    x = np.geomspace(1e4, 1e9, 14)
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(14))
    with_floor = compare_laws(["power", "power_floor"], x, (0.4 + 30 * x**-0.4) * noise)
    without = compare_laws(["power", "power_floor"], x, 30 * x**-0.2 * noise)
    assert with_floor.supported == ("power_floor",)
    assert without.best == "power"
    assert sum(c.weight for c in without.candidates) == pytest.approx(1)
    assert without.candidates[0].difference == 0
    json.dumps(without.to_dict(), allow_nan=False)


def test_laws_share_the_delta_of_the_richest(noisy):
    found = compare_laws(["chinchilla_tied", "chinchilla"], *noisy)
    assert found.delta == fit("chinchilla", *noisy, bootstrap=0).objective.delta
    assert compare_laws(PAIR, *noisy, delta=0.02).delta == 0.02


def test_aicc_is_gaussian_for_wide_and_laplacian_for_narrow_deltas(noisy):
    """Huber runs from one to the other; the textbook formulas stand at its ends."""
    n, k = 30, 6
    correction = 2 * k + 2 * k * (k + 1) / (n - k - 1)
    gaussian = fit("chinchilla", *noisy, objective="lsq", bootstrap=0)
    expected = n * (math.log(2 * math.pi * 2 * gaussian.objective.value / n) + 1) + correction
    assert aicc(gaussian) == pytest.approx(expected, rel=1e-9)
    assert aicc(fit("chinchilla", *noisy, delta=10.0, bootstrap=0)) == pytest.approx(expected, rel=1e-6)
    laplace = fit("chinchilla", *noisy, objective="lad", bootstrap=0)
    expected = 2 * n * (math.log(2 * laplace.objective.value / n) + 1) + correction
    assert aicc(laplace) == pytest.approx(expected, rel=1e-6)
    assert aicc(fit("chinchilla", *noisy, delta=1e-7, bootstrap=0)) == pytest.approx(expected, rel=1e-3)


def test_neither_units_nor_the_scale_of_weights_move_the_differences(noisy):
    n, d, loss = noisy
    plain, scaled = (compare_laws(PAIR, *v) for v in ((n, d, loss), (n / 7, 1e3 * d, 50 * loss)))
    weighted = compare_laws(PAIR, n, d, loss, weights=np.full(30, 3.0))
    for other in (scaled, weighted):
        assert [c.law for c in other.candidates] == [c.law for c in plain.candidates]
        assert other.candidates[1].difference == pytest.approx(plain.candidates[1].difference, abs=1e-6)


def test_noise_free_data_prefer_the_smaller_of_two_exact_laws(grid):
    n, d = grid
    loss = 0.5 + 0.2 * (n / 2e6) ** -0.3 + 0.2 * (d / 2.3e5) ** -0.3
    assert compare_laws(PAIR, n, d, loss).best == "chinchilla_tied"


def test_too_few_points_are_a_reason_not_a_rank():
    x = np.geomspace(1e4, 1e8, 5)
    loss = (0.4 + 30 * x**-0.4) * np.array([1, 1.01, 0.99, 1.02, 1])
    found = compare_laws(["power_floor", "power"], x, loss)
    assert found.best == "power"
    last = found.candidates[-1]
    assert last.law == "power_floor"
    assert math.isnan(last.aicc)
    assert "at least 6 points" in last.reason
    assert "one_candidate" in found.flags
    with pytest.raises(FitError, match="at least 6 points"):
        aicc(fit("power_floor", x, loss, bootstrap=0))


def test_a_law_that_cannot_be_fitted_keeps_its_reason(grid):
    n = grid[0][:6]
    found = compare_laws(PAIR, n, np.geomspace(1, 9, 6), 1 + 1 / np.geomspace(1, 9, 6))
    assert "chinchilla" in found.candidates[-1].reason


def test_refusals(noisy):
    with pytest.raises(FitError, match="at least one"):
        compare_laws([], *noisy)
    with pytest.raises(FitError, match="different variables"):
        compare_laws(["power", "chinchilla"], *noisy)
    with pytest.raises(FitError, match="unknown law"):
        compare_laws(["straight"], *noisy)


def test_checkpoints_are_flagged(noisy):
    n, _, _ = noisy
    assert "correlated_points" in compare_laws(PAIR, *noisy, runs=n).flags
    assert "correlated_points" not in compare_laws(PAIR, *noisy).flags
