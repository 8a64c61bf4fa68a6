"""Batched read-outs against scikit-learn's, problem by problem, and at the edges: separable, rank-deficient, few."""

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from ecgscale.transfer import linear
from ecgscale.transfer.linear import Whitened, logistic, multinomial, ridge
from ecgscale.transfer.minimise import minimise

PENALTIES = np.array([1e-4, 1e-2, 1.0])


def correlated_features(rng, n, width):
    """As pooled features are: a few directions hold most of the variance, and none is negative for long."""
    mixed = rng.normal(size=(n, width)) * np.arange(1, width + 1) ** -0.7 @ rng.normal(size=(width, width))
    features = np.maximum(mixed, -0.05)
    return (features - features.mean(axis=0)) / features.std(axis=0)


@pytest.fixture(scope="module")
def problem():
    """300 records of 20 features, five targets from rare to balanced, from noisy to nearly separable."""
    rng = np.random.default_rng(3)
    x = correlated_features(rng, 300, 20)
    score = x @ rng.normal(size=(20, 5)) * np.array([0.2, 0.5, 1, 2, 5])
    y = score + rng.logistic(size=score.shape) > np.quantile(score, [0.95, 0.9, 0.8, 0.6, 0.5], axis=0).diagonal()
    return x, y.astype(float)


def test_logistic_read_outs_are_those_of_scikit_learn(problem):
    x, y = problem
    found = logistic(Whitened(x), y, PENALTIES)
    assert found.converged.all()
    log_odds = found(x)
    for p, l2 in enumerate(PENALTIES):
        for t, target in enumerate(y.T):
            reference = LogisticRegression(C=1 / (l2 * len(x)), solver="newton-cholesky", tol=1e-10, max_iter=200)
            expected = reference.fit(x, target).predict_proba(x)[:, 1]
            assert 1 / (1 + np.exp(-log_odds[:, p, t])) == pytest.approx(expected, abs=1e-6)


def test_multinomial_read_outs_are_those_of_scikit_learn(problem):
    x, _ = problem
    classes = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    found = multinomial(Whitened(x), classes, 3, PENALTIES)
    assert found.converged.all()
    for p, l2 in enumerate(PENALTIES):
        reference = LogisticRegression(C=1 / (l2 * len(x)), solver="newton-cg", tol=1e-10, max_iter=1000)
        assert softmax(found(x)[:, p], axis=1) == pytest.approx(reference.fit(x, classes).predict_proba(x), abs=2e-6)


@pytest.mark.parametrize("n", [300, 12])
def test_ridge_read_outs_are_those_of_scikit_learn_also_with_fewer_records_than_features(problem, n):
    x, _ = problem
    targets = x[:n, :2] @ np.array([[1.0, 3.0], [2.0, -1.0]]) + 60
    found = ridge(Whitened(x[:n]), targets, PENALTIES)(x)
    for p, l2 in enumerate(PENALTIES):
        for t in range(2):
            expected = Ridge(alpha=l2 * n).fit(x[:n], targets[:, t]).predict(x)
            assert found[:, p, t] == pytest.approx(expected, abs=1e-9)


def test_fewer_records_than_features_have_the_same_read_out(problem):
    x, y = problem
    found = logistic(Whitened(x[:12]), y[:12, 4:], PENALTIES)
    for p, l2 in enumerate(PENALTIES):
        reference = LogisticRegression(C=1 / (l2 * 12), solver="newton-cholesky", tol=1e-10, max_iter=200)
        expected = reference.fit(x[:12], y[:12, 4]).decision_function(x)
        assert found(x)[:, p, 0] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_company_a_target_is_fitted_in_changes_it_by_less_than_a_millionth(problem):
    x, y = problem
    whitened = Whitened(x)
    together = logistic(whitened, y, PENALTIES)(x)
    for t in range(y.shape[1]):
        assert logistic(whitened, y[:, t : t + 1], PENALTIES)(x)[..., 0] == pytest.approx(together[..., t], abs=1e-5)


def test_many_targets_are_worked_on_in_parts(problem, monkeypatch):
    x, y = problem
    whole = logistic(Whitened(x), y, PENALTIES)
    monkeypatch.setattr(linear, "LARGEST_BATCH", 2 * len(x) * len(PENALTIES))
    parts = logistic(Whitened(x), y, PENALTIES)
    assert parts(x) == pytest.approx(whole(x), abs=1e-5) and parts.converged.all()


def test_the_same_problem_has_the_same_answer_to_the_last_bit(problem):
    x, y = problem
    one, other = (logistic(Whitened(x), y, PENALTIES).weights for _ in range(2))
    assert (one == other).all()


@pytest.mark.parametrize("l2", [1e-6, 1e-10, 1e-14])
def test_separable_records_and_a_penalty_of_next_to_nothing_converge(problem, l2):
    x, _ = problem
    y = (x[:, :1] > 0).astype(float)
    found = logistic(Whitened(x), y, np.array([l2]))
    right_side = found(x)[:, 0, 0] * (2 * y[:, 0] - 1)
    assert found.converged.all()
    assert (right_side > 0).all() and np.log1p(np.exp(-right_side)).mean() < 1e-3


def test_a_read_out_that_ran_out_of_iterations_says_so(problem, monkeypatch):
    x, y = problem
    monkeypatch.setattr(linear, "MAX_ITERATIONS", 15)
    found = logistic(Whitened(x), y, np.array([1e-10, 1e4]))
    assert not found.converged[0].any() and found.converged[1].all()
    assert np.isfinite(found.weights).all()


def test_features_that_say_nothing_leave_the_prevalence():
    y = np.repeat([[0.0], [1.0]], [30, 10], axis=0)
    found = logistic(Whitened(np.zeros((40, 3))), y, PENALTIES)
    assert found(np.zeros((1, 3))).ravel() == pytest.approx([math.log(10 / 30)] * 3, abs=1e-6)


def test_repeated_features_share_their_weight(problem):
    x, y = problem
    once = logistic(Whitened(x), y[:, :1], np.array([0.1]))
    twice = logistic(Whitened(np.hstack([x, x])), y[:, :1], np.array([0.2]))  # |w|² is halved
    assert twice(np.hstack([x, x])) == pytest.approx(once(x), abs=1e-5)


def test_minimise_reaches_the_minimum_of_each_problem_by_itself():
    """Quadratics of very different curvature side by side, one of them already at its minimum."""
    curvature = np.array([[1.0, 1e-3, 1.0], [1e-2, 1.0, 1.0]])
    centre = np.array([[3.0, -2.0, 0.0], [5.0, 1.0, 0.0]])

    def objective(x, which):
        away = x - centre[:, which]
        return 0.5 * (curvature[:, which] * away**2).sum(axis=0), curvature[:, which] * away

    found, converged = minimise(objective, 2, 3, tolerance=1e-10, max_iterations=100)
    assert converged.all()
    assert found == pytest.approx(centre, abs=1e-6)
