"""`fit_isoflops`: the bottoms of planted surfaces and their power law, and budgets that enclose no bottom."""

import json
import math

import numpy as np
import pytest
from planted_sweep import planted_loss

from ecgscale.errors import FitError
from ecgscale.laws.isoflop import fit_isoflops

A_TRUE = 0.35 / 0.65
BUDGETS = np.array([1e11, 1e12, 1e13, 1e14])


def best_size(truth, flops):
    g = (0.30 * truth["A"] / (0.35 * truth["B"])) ** (1 / 0.65)
    return g * (flops / 6) ** A_TRUE


def iso_runs(truth, noise=0.0, seed=0, off_centre=1.0, width=30.0, n_sizes=9):
    """(flops, n, loss) of runs on four budgets, sizes a factor `width` around the optimum."""
    rng = np.random.default_rng(seed)
    c = np.repeat(BUDGETS, n_sizes)
    n = best_size(truth, c) * off_centre * np.tile(np.geomspace(1 / width, width, n_sizes), len(BUDGETS))
    return c, n, planted_loss(truth, n, c / (6 * n)) * np.exp(noise * rng.standard_normal(len(c)))


def test_the_bottoms_and_the_exponent_are_recovered(truth):
    found = fit_isoflops(*iso_runs(truth, width=5.0), bootstrap=0)
    np.testing.assert_allclose([b.minimum.value for b in found.budgets], best_size(truth, BUDGETS), rtol=0.01)
    np.testing.assert_allclose([b.flops for b in found.budgets], BUDGETS, rtol=1e-12)
    assert found.exponent.value == pytest.approx(A_TRUE, abs=2e-3)
    assert found.law.theta["alpha"] == pytest.approx(-found.exponent.value)
    assert found.law.predict(1e13).value == pytest.approx(best_size(truth, 1e13), rel=0.02)
    assert found.flags == ()
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_cubic_is_less_biased_than_a_parabola(truth):
    runs = iso_runs(truth, off_centre=2.0, width=8.0)
    cubic, parabola = (fit_isoflops(*runs, degree=degree, bootstrap=0) for degree in (3, 2))
    error = [abs(math.log(f.budgets[2].minimum.value / best_size(truth, 1e13))) for f in (cubic, parabola)]
    assert error[0] < 0.5 * error[1]


def test_an_exact_parabola_and_cubic_have_their_bottom():
    x = np.linspace(-2, 2, 7)
    for cubic in (0.0, 0.05):
        loss = np.exp(0.1 * (x - 0.3) ** 2 + cubic * (x - 0.3) ** 3)
        found = fit_isoflops(np.full(7, 1e12), 1e6 * np.exp(x), loss, bootstrap=0)
        assert found.budgets[0].minimum.value == pytest.approx(1e6 * math.exp(0.3), rel=1e-9)
        assert found.budgets[0].loss == pytest.approx(1.0)
        assert "too_few_budgets" in found.flags
        assert found.law is None


@pytest.mark.parametrize("method", ["residual", "pairs"])
def test_intervals_hold_the_truth(truth, method):
    found = fit_isoflops(*iso_runs(truth, noise=0.003, width=10.0), method=method, bootstrap=400)
    for budget in found.budgets:
        assert budget.minimum.low < budget.minimum.value < budget.minimum.high
        assert budget.minimum.defined > 0.9
    assert found.exponent.low < A_TRUE < found.exponent.high
    low, high = found.law.interval["alpha"]
    assert (-high, -low) == pytest.approx((found.exponent.low, found.exponent.high))
    assert found.law.predict(1e13).low < best_size(truth, 1e13) < found.law.predict(1e13).high


def test_residual_intervals_cover_in_a_small_simulation(truth):
    """Nominal 95 %; 100 worlds, so a binomial at 95 % is below 89 about once in a hundred."""
    hits = dict.fromkeys(["exponent", "minimum"], 0)
    for world in range(100):
        found = fit_isoflops(*iso_runs(truth, noise=0.003, seed=world, width=8.0), bootstrap=200, seed=world)
        hits["exponent"] += found.exponent.low <= A_TRUE <= found.exponent.high
        bottom = found.budgets[2].minimum
        hits["minimum"] += bottom.low <= best_size(truth, 1e13) <= bottom.high
    assert min(hits.values()) >= 88, hits


def test_a_budget_without_an_enclosed_bottom_is_an_edge(truth):
    c, n, loss = iso_runs(truth, width=8.0)
    keep = (c < 5e13) | (n < 0.5 * best_size(truth, c))
    found = fit_isoflops(c[keep], n[keep], loss[keep], degree=2, bootstrap=50)
    last = found.budgets[-1]
    assert math.isnan(last.minimum.value)
    assert last.reason is not None
    assert found.exponent.value == pytest.approx(A_TRUE, abs=0.05)  # from the other three
    small = fit_isoflops(*iso_runs(truth, off_centre=0.02, width=8.0), bootstrap=50)
    assert all(b.reason.startswith("edge: the loss is lowest at the largest size") for b in small.budgets)
    assert small.flags == ("edge", "too_few_budgets")
    assert math.isnan(small.exponent.value)


def test_concave_budgets_have_no_bottom():
    x = np.linspace(-2, 2, 7)
    found = fit_isoflops(np.full(7, 1e12), np.exp(x), np.exp(-0.1 * x**2), degree=2, bootstrap=0)
    assert found.budgets[0].reason.startswith("edge")


def test_a_bottom_held_by_one_size_is_near_the_edge():
    x = np.linspace(-2, 2, 7)
    found = fit_isoflops(np.full(7, 1e12), np.exp(x), np.exp(0.1 * (x - 1.7) ** 2), bootstrap=0)
    assert found.budgets[0].near_edge
    assert "near_edge" in found.flags


def test_nearly_equal_budgets_are_one(truth):
    c, n, loss = iso_runs(truth)
    jitter = 1 + 0.05 * np.random.default_rng(0).random(len(c))
    assert len(fit_isoflops(c * jitter, n, loss, bootstrap=0).budgets) == 4
    with pytest.raises(FitError, match="no budget has 5 sizes"):
        fit_isoflops(c * jitter, n, loss, same_budget=1.0001, bootstrap=0)


def test_row_order_units_and_seeds(truth):
    c, n, loss = iso_runs(truth, noise=0.003, width=10.0)
    order = np.random.default_rng(1).permutation(len(c))
    one, permuted = fit_isoflops(c, n, loss, bootstrap=0), fit_isoflops(c[order], n[order], loss[order], bootstrap=0)
    scaled = fit_isoflops(c / 1e9, n / 1e3, 7 * loss, bootstrap=0)
    assert permuted.exponent.value == pytest.approx(one.exponent.value, rel=1e-9)
    assert scaled.exponent.value == pytest.approx(one.exponent.value, rel=1e-9)
    assert fit_isoflops(c, n, loss, bootstrap=50, seed=3) == fit_isoflops(c, n, loss, bootstrap=50, seed=3)


def test_few_sizes_keep_their_reason_and_bad_columns_are_refused(truth):
    c, n, loss = iso_runs(truth)
    keep = (c < 5e13) | (np.arange(len(c)) % 3 == 0)
    found = fit_isoflops(c[keep], n[keep], loss[keep], bootstrap=0)
    assert found.budgets[-1].reason == "too few sizes: 3, a degree-3 curve needs 5"
    with pytest.raises(FitError, match="column loss"):
        fit_isoflops(c, n, -loss)
    with pytest.raises(FitError, match="one length"):
        fit_isoflops(c, n, loss[1:])
    with pytest.raises(FitError, match="degree is 2 or 3"):
        fit_isoflops(c, n, loss, degree=4)
