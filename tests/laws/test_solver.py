"""The solver on every form: planted truths come back, and nothing that means nothing moves them."""

import numpy as np
import pytest
from planted_sweep import sweep_grid

from ecgscale.laws import LAWS, fit, get_law
from ecgscale.laws.forms import with_floor
from ecgscale.laws.objectives import Objective
from ecgscale.laws.solver import Sample, minimise, starting_points

N_CENTRE, D_CENTRE = 2e6, 2.3e5
OBJECTIVES = [("huber", None), ("huber", 1e-3), ("lad", None), ("lsq", None), ("lsq_raw", None)]


def kaplan(e, at_centre_n, at_centre_d, alpha, beta):
    a, b = at_centre_n ** (1 / alpha) * N_CENTRE, at_centre_d ** (1 / beta) * D_CENTRE
    return {"E": e, "A": a, "B": b, "alpha": alpha, "beta": beta}


def skaling(e, a, r, alpha, beta, k):
    """Coefficients at the centre, exponents where the other variable is plentiful."""
    scale = N_CENTRE**alpha
    ratio = r * D_CENTRE ** (beta / k) / N_CENTRE ** (alpha / k)
    return {"E": e, "A": a * scale, "R": ratio, "alpha": alpha / k, "beta": beta / k, "k": k}


TRUTHS = [
    ("chinchilla", {"E": 0.5, "A": 0.2 * N_CENTRE**0.3, "B": 0.2 * D_CENTRE**0.35, "alpha": 0.3, "beta": 0.35}),
    ("chinchilla_tied", {"E": 0.5, "A": 15.0, "B": 20.0, "alpha": 0.3}),
    ("kaplan", kaplan(0.5, 0.2, 0.2, 0.3, 0.35)),
    ("kaplan", kaplan(0.5, 0.05, 0.3, 0.25, 0.6)),
    ("kaplan", kaplan(0.1, 0.4, 0.1, 0.5, 0.2)),
    ("skaling", skaling(0.5, 0.2, 1.0, 0.3, 0.35, 0.5)),
    ("skaling", skaling(0.5, 0.2, 1.0, 0.3, 0.35, 1.0)),
    ("skaling", skaling(0.3, 0.1, 0.5, 0.6, 0.35, 2.0)),
    ("multiplicative", {"E": 0.5, "A": 0.3 * N_CENTRE**0.15 * D_CENTRE**0.2, "alpha": 0.15, "beta": 0.2}),
    ("power_floor", {"E": 0.4, "A": 30.0, "alpha": 0.4}),
    ("power", {"A": 30.0, "alpha": 0.4}),
    ("sigmoid", {"A": 30.0, "alpha": 0.4}),
]


def columns(law):
    return sweep_grid(6, 5) if len(get_law(law).variables) == 2 else (np.geomspace(2e4, 2e8, 8),)


def theta_of(found):
    return np.array(list(found.theta.values()))


def noisy(law, seed=0, size=0.005):
    """Columns of a planted law with log-normal noise (on the odds of a bounded metric)."""
    theta = next(theta for name, theta in TRUTHS if name == law)
    form, x = get_law(law), columns(law)
    loss = form.loss(theta, *x)
    odds = loss if form.link is None else form.link.to_odds(loss)
    odds = odds * np.exp(size * np.random.default_rng(seed).standard_normal(len(odds)))
    return (*x, odds if form.link is None else form.link.from_odds(odds))


@pytest.mark.parametrize(("objective", "delta"), OBJECTIVES)
@pytest.mark.parametrize(("law", "theta"), TRUTHS)
def test_every_form_is_recovered_from_its_own_data(law, theta, objective, delta):
    x = columns(law)
    found = fit(law, *x, get_law(law).loss(theta, *x), objective=objective, delta=delta, bootstrap=0)
    np.testing.assert_allclose(theta_of(found), list(theta.values()), rtol=1e-6)
    assert found.objective.value < 1e-12


def test_every_form_has_a_planted_truth():
    assert {law for law, _ in TRUTHS} == set(LAWS)


@pytest.mark.parametrize("law", LAWS)
def test_row_order_scale_of_the_objective_and_copies_move_nothing(law):
    *x, loss = noisy(law)
    n_points = len(loss)
    expected = theta_of(fit(law, *x, loss, delta=1e-3, bootstrap=0))
    order = np.random.default_rng(3).permutation(n_points)
    permuted = fit(law, *(v[order] for v in x), loss[order], delta=1e-3, bootstrap=0)
    np.testing.assert_allclose(theta_of(permuted), expected, rtol=1e-6)
    for factor in (1e-6, 1 / n_points, 1e6):
        scaled = fit(law, *x, loss, delta=1e-3, weights=np.full(n_points, factor), bootstrap=0)
        np.testing.assert_allclose(theta_of(scaled), expected, rtol=1e-6)
    counts = np.arange(n_points) % 2 + 1
    copies = np.repeat(np.arange(n_points), counts)
    weighted = fit(law, *x, loss, delta=1e-3, weights=counts, bootstrap=0)
    copied = fit(law, *(v[copies] for v in x), loss[copies], delta=1e-3, bootstrap=0)
    np.testing.assert_allclose(theta_of(weighted), theta_of(copied), rtol=1e-6)


@pytest.mark.parametrize("law", LAWS)
def test_units_move_no_exponent_and_no_prediction(law):
    *x, loss = noisy(law)
    units, loss_unit = (1e-6, 4096.0)[: len(x)], 1.0 if get_law(law).link else 1e3
    before = fit(law, *x, loss, delta=1e-3, bootstrap=0)
    after = fit(law, *(v * u for v, u in zip(x, units, strict=True)), loss * loss_unit, delta=1e-3, bootstrap=0)
    for name in (*get_law(law).exponents, *(name for name in after.theta if name == "k")):
        assert after.theta[name] == pytest.approx(before.theta[name], rel=1e-6)
    far = [10 * v for v in x]
    there = after.predict(*(v * u for v, u in zip(far, units, strict=True))).value
    np.testing.assert_allclose(there, loss_unit * before.predict(*far).value, rtol=1e-7)


@pytest.mark.parametrize("law", ["kaplan", "skaling", "multiplicative"])
def test_all_starts_of_the_new_forms_find_the_same_optimum(law):
    assert fit(law, *noisy(law), bootstrap=0).starts_agreeing == 1.0


def test_skaling_is_never_worse_than_what_it_contains():
    for truth in ("chinchilla", "kaplan"):
        data = noisy(truth, seed=1)
        smallest = min(fit(law, *data, delta=1e-3, bootstrap=0).objective.value for law in ("chinchilla", "kaplan"))
        assert fit("skaling", *data, delta=1e-3, bootstrap=0).objective.value <= smallest * (1 + 1e-9)


def test_a_bounded_metric_is_fitted_on_its_odds():
    x = np.geomspace(2e4, 2e8, 8)
    odds = 0.05 + 30 * x**-0.4
    auroc = 0.5 + 0.5 / (1 + odds)
    found = fit("power_floor", x, auroc, bounded=(0.5, 1.0), bootstrap=0)
    assert found.theta == pytest.approx({"E": 0.05, "A": 30.0, "alpha": 0.4}, rel=1e-6)
    np.testing.assert_allclose(found.predict(x).value, auroc, rtol=1e-9)
    error = 1 - auroc
    falling = fit("power_floor", x, error, bounded=(0.5, 0.0), bootstrap=0)
    assert falling.theta == pytest.approx(found.theta, rel=1e-6)


@pytest.mark.parametrize("law", ["chinchilla", "kaplan", "skaling", "multiplicative", "power_floor"])
def test_a_given_floor_stays_and_the_rest_is_recovered(law):
    theta = next(theta for name, theta in TRUTHS if name == law)
    x = columns(law)
    loss = get_law(law).loss(theta, *x)
    found = fit(with_floor(law, theta["E"]), *x, loss, bootstrap=0)
    assert found.theta == pytest.approx(theta, rel=1e-5)
    assert found.theta["E"] == pytest.approx(theta["E"], rel=1e-15)
    unit = fit(with_floor(law, 1e3 * theta["E"]), *x, 1e3 * loss, bootstrap=0)
    np.testing.assert_allclose(unit.predict(*x).value, 1e3 * loss, rtol=1e-9)


def test_a_wrong_given_floor_fits_worse_and_the_free_one_is_the_best():
    data = noisy("chinchilla")
    free = fit("chinchilla", *data, delta=1e-3, bootstrap=0)

    def objective(floor):
        return fit(with_floor("chinchilla", floor), *data, delta=1e-3, bootstrap=0).objective.value

    best = free.theta["E"]
    assert objective(best) == pytest.approx(free.objective.value, rel=1e-9)
    assert objective(0.0) > objective(0.8 * best) > free.objective.value < objective(1.1 * best)


def test_targets_of_a_problem_replace_those_of_the_sample():
    """What a wild bootstrap refits: one design, other losses in every row."""
    n, d, loss = noisy("chinchilla")
    other = loss * np.exp(0.01 * np.random.default_rng(7).standard_normal((3, len(loss))))
    law, objective = get_law("chinchilla"), Objective("huber", 1e-3)
    sample = Sample.of(np.stack((n, d)), loss)
    weights = np.ones((3, len(loss)))
    start = np.repeat(starting_points(law, sample, weights[0], 1), 3, axis=0)
    targets = np.log(other / sample.scale)
    minima = minimise(law, sample, weights, start, objective.stages(), log_loss=targets)
    for theta, row in zip(law.to_theta(minima.z, sample.centre, sample.scale), other, strict=True):
        alone = fit("chinchilla", n, d, row, delta=1e-3, bootstrap=0)
        np.testing.assert_allclose(theta, theta_of(alone), rtol=1e-6)
