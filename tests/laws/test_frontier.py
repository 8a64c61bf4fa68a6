"""`compute_frontier`: closed forms are exact, searches agree with them, and places without an optimum have none."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from planted_sweep import planted_loss, sweep_grid

from ecgscale.errors import FitError
from ecgscale.laws import LAWS, fit
from ecgscale.laws.frontier import compute_frontier

REAL_DATA = os.environ.get("ECGSCALE_REAL_DATA")


def six_nd(n, d):
    return 6 * n * d


def values(estimates):
    return np.array([e.value for e in estimates])


@pytest.fixture
def exact(grid, truth):
    return fit("chinchilla", *grid, planted_loss(truth, *grid), bootstrap=0)


def test_the_closed_form_is_an_optimum(exact, truth):
    found = compute_frontier(exact, [1e12, 1e13, 1e14])
    n, d = values(found.n), values(found.d)
    np.testing.assert_allclose(6 * n * d, found.flops, rtol=1e-12)
    assert found.a.value == pytest.approx(0.35 / 0.65, rel=1e-5)
    assert found.b.value == pytest.approx(0.30 / 0.65, rel=1e-5)
    # At the optimum a per cent more N gains what a per cent less D costs.
    np.testing.assert_allclose(0.30 * truth["A"] * n**-0.30, 0.35 * truth["B"] * d**-0.35, rtol=1e-5)
    np.testing.assert_allclose(values(found.loss), planted_loss(truth, n, d), rtol=1e-6)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert (planted_loss(truth, n * factor, d / factor) > values(found.loss)).all()


@pytest.mark.parametrize("law", ["chinchilla", "chinchilla_tied"])
def test_the_search_agrees_with_the_closed_form(noisy, law):
    fitted = fit(law, *noisy, bootstrap=50)
    closed, searched = compute_frontier(fitted), compute_frontier(fitted, cost=six_nd)
    np.testing.assert_allclose(values(searched.n), values(closed.n), rtol=1e-5)
    np.testing.assert_allclose(values(searched.d), values(closed.d), rtol=1e-5)
    np.testing.assert_allclose(values(searched.loss), values(closed.loss), rtol=1e-10)
    assert searched.a.value == pytest.approx(closed.a.value, rel=1e-5)
    assert searched.n[3].low == pytest.approx(closed.n[3].low, rel=1e-4)
    assert searched.flags == closed.flags
    assert (closed.cost, searched.cost) == ("6 N D", "counted")


def test_tied_exponents_give_equal_shares(grid):
    n, d = grid
    fitted = fit("chinchilla_tied", n, d, 0.5 + 3 * n**-0.3 + 2 * d**-0.3, bootstrap=0)
    assert compute_frontier(fitted).a.value == pytest.approx(0.5)


def test_a_counted_cost_moves_the_optimum(exact):
    """A model whose cost grows faster than its size is used at a smaller size."""

    def costly(n, d):
        return 6 * n * (1 + n / 1e6) * d

    plain, counted = compute_frontier(exact, [1e13]), compute_frontier(exact, [1e13], cost=costly)
    n, d = counted.n[0].value, counted.d[0].value
    assert costly(n, d) == pytest.approx(1e13, rel=1e-9)
    assert n < plain.n[0].value
    for factor in (0.9, 1.1):
        other = 1e13 / costly(n * factor, 1.0)
        assert exact.predict(n * factor, other).value > counted.loss[0].value


def test_budgets_default_to_the_observed_corners_and_beyond_is_flagged(exact):
    inside = compute_frontier(exact)
    assert inside.flops[0] == pytest.approx(6 * 2e4 * 2.3e4)
    assert inside.flops[-1] == pytest.approx(6 * 2e8 * 2.3e6)
    middle, far = compute_frontier(exact, [1e12]), compute_frontier(exact, [1e12, 1e19])
    assert middle.extrapolating == (False,)
    assert "extrapolating" not in middle.flags
    assert far.extrapolating == (False, True)
    assert "extrapolating" in far.flags


def test_a_law_without_an_optimum_has_none(exact):
    """A cost that hardly depends on D is spent on data up to the end of the search."""
    found = compute_frontier(exact, [1e10], cost=lambda n, d: n * d**1e-3)
    assert found.edge == (True,)
    assert "edge" in found.flags
    assert math.isnan(found.n[0].value)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("law", "theta"),
    [
        ("kaplan", {"E": 0.5, "A": 50.0, "B": 1e4, "alpha": 0.3, "beta": 0.35}),
        ("skaling", {"E": 0.5, "A": 15.0, "R": 1.0, "alpha": 0.6, "beta": 0.7, "k": 0.5}),
    ],
)
def test_laws_without_a_closed_form_have_their_optimum(grid, law, theta):
    fitted = fit(law, *grid, LAWS[law].loss({name: theta[name] for name in LAWS[law].theta}, *grid), bootstrap=0)
    found = compute_frontier(fitted, [1e12, 1e13])
    assert not any(found.edge)
    for flops, n, loss in zip(found.flops, found.n, found.loss, strict=True):
        for factor in (0.8, 0.98, 1.02, 1.25):
            size = n.value * factor
            assert fitted.predict(size, flops / (6 * size)).value > loss.value
    assert found.a.value + found.b.value == pytest.approx(1)


def test_a_product_of_powers_has_no_optimum(grid):
    """N^-α D^-β at given N·D only asks for more of the steeper one."""
    n, d = grid
    fitted = fit("multiplicative", n, d, 0.5 + 500 * n**-0.3 * d**-0.35, bootstrap=0)
    assert compute_frontier(fitted, [1e12]).edge == (True,)


def test_a_score_has_its_best_at_the_optimum_of_its_odds(grid, truth):
    n, d = grid
    odds = planted_loss(truth | {"E": 0.1}, n, d)
    fitted = fit("chinchilla", n, d, 0.5 + 0.5 / (1 + odds), bounded=(0.5, 1.0), bootstrap=0)
    found = compute_frontier(fitted, [1e12])
    n_best = found.n[0].value
    assert 0.5 < found.loss[0].value < 1
    for factor in (0.8, 1.25):
        assert fitted.predict(n_best * factor, 1e12 / (6 * n_best * factor)).value < found.loss[0].value


def test_intervals_cover_in_a_small_simulation(truth):
    """Nominal 95 %; 60 worlds."""
    n, d = sweep_grid(6, 5)
    loss, rng = planted_loss(truth, n, d), np.random.default_rng(5)
    g = (0.30 * truth["A"] / (0.35 * truth["B"])) ** (1 / 0.65)
    expected = {"a": 0.35 / 0.65, "n": g * (1e13 / 6) ** (0.35 / 0.65)}
    hits = dict.fromkeys(expected, 0)
    for world in range(60):
        noise = np.exp(0.01 * rng.standard_normal(len(n)))
        found = compute_frontier(fit("chinchilla", n, d, loss * noise, bootstrap=200, seed=world), [1e13])
        hits["a"] += found.a.low <= expected["a"] <= found.a.high
        hits["n"] += found.n[0].low <= expected["n"] <= found.n[0].high
    assert min(hits.values()) >= 50, hits


def test_refusals(noisy, exact):
    n, _, loss = noisy
    with pytest.raises(FitError, match="no frontier"):
        compute_frontier(fit("power", n, loss, bootstrap=0))
    with pytest.raises(FitError, match="budgets"):
        compute_frontier(exact, [0.0])
    with pytest.raises(FitError, match="not positive"):
        compute_frontier(exact, [1e12], cost=lambda n, d: n * d * np.nan)
    with pytest.raises(FitError, match="shape"):
        compute_frontier(exact, [1e12], cost=lambda n, d: 1.0)
    with pytest.raises(FitError, match="c is FLOPs"):
        compute_frontier(exact, c=-6)


def test_unidentified_laws_say_so(noisy):
    n, d, loss = noisy
    kept = n < 2e5
    found = compute_frontier(fit("chinchilla", n[kept], d[kept], loss[kept], bootstrap=100))
    assert any(flag.startswith("too_few_levels") for flag in found.flags)


@pytest.mark.skipif(not REAL_DATA, reason="ECGSCALE_REAL_DATA is unset")
def test_the_published_interval_of_the_allocation_exponent():
    """4000 pairs resamples of 240 published points (numpy's legacy generator, seed 42): a in [.4805, .5561]."""
    with (Path(REAL_DATA) / "fits/epoch/table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["one_of_5_highest_losses"] == "False"]
    n, d, loss = (np.array([float(row[name]) for row in rows]) for name in ("N", "D", "loss"))
    legacy = np.random.RandomState(42)
    resamples = np.array([np.bincount(legacy.choice(240, 240, replace=True), minlength=240) for _ in range(4000)])
    found = compute_frontier(fit("chinchilla", n, d, loss, delta=1e-3, bootstrap=resamples))
    assert (found.a.low, found.a.high) == pytest.approx((0.4805, 0.5561), abs=1e-4)
    assert found.a.low < found.a.value < found.a.high
    assert found.a.value + found.b.value == pytest.approx(1)
