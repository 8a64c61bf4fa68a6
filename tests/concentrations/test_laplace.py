"""The last layer's posterior is Bayesian regression on the features, as scikit-learn has it, and its spread is that of
layers trained on other draws of the noise."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import BayesianRidge

from ecgscale.concentrations.laplace import LastLayerLaplace


def features(n, width=6, seed=0):
    return np.tanh(np.random.default_rng(seed).normal(size=(n, 3)) @ np.random.default_rng(9).normal(size=(3, width)))


def trained(phi, z, spread=None, prior=1e-6):
    """Weights and bias of the last layer: ridge regression, weighted by what is said of each record's noise."""
    rows = np.column_stack([phi, np.ones(len(phi))]) / (np.ones(len(phi)) if spread is None else spread)[:, None]
    target = z if spread is None else z / spread
    return np.linalg.solve(rows.T @ rows + prior * np.eye(rows.shape[1]), rows.T @ target)


def fitted(phi, z, spread=None, weights=None):
    weights = trained(phi, z, spread) if weights is None else weights
    error = np.column_stack([phi, np.ones(len(phi))]) @ weights - z
    return LastLayerLaplace.fit([(phi, error, np.ones(len(phi)) if spread is None else spread)], weights)


def test_prior_noise_and_spread_are_those_of_bayesian_ridge():
    rng = np.random.default_rng(1)
    phi = features(200)
    z = phi @ rng.normal(size=6) + 0.7 + 0.5 * rng.normal(size=200)
    rows = np.column_stack([phi, np.ones(200)])
    reference = BayesianRidge(
        fit_intercept=False, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, tol=1e-12, max_iter=5000, compute_score=True
    ).fit(rows, z)
    found = fitted(phi, z, weights=reference.coef_)
    assert found.prior_precision == pytest.approx(reference.lambda_, rel=1e-4)
    assert found.noise == pytest.approx(reference.alpha_**-0.5, rel=1e-4)
    assert found.log_marginal_likelihood == pytest.approx(reference.scores_[-1], abs=1e-6)
    elsewhere = features(50, seed=5)
    _, total = reference.predict(np.column_stack([elsewhere, np.ones(50)]), return_std=True)
    assert np.hypot(found.noise, found.epistemic_sd(elsewhere)) == pytest.approx(total, rel=1e-4)
    assert 6 < found.n_effective < 7


def test_the_marginal_likelihood_is_that_of_the_records():
    """z is normal with covariance noise² + features · prior · features, where the weights are the likeliest."""
    rng = np.random.default_rng(2)
    phi, spread = features(40), np.exp(rng.normal(size=40))
    for said in (np.ones(40), spread):
        z = phi @ rng.normal(size=6) + 0.3 * said * rng.normal(size=40)
        found = fitted(phi, z, said)
        for _ in range(200):  # weights for the prior, and the prior for the weights
            found = fitted(phi, z, said, trained(phi, z, said, prior=found.prior_precision * found.noise**2))
        rows = np.column_stack([phi, np.ones(40)])
        covariance = np.diag((found.noise * said) ** 2) + rows @ rows.T / found.prior_precision
        exact = multivariate_normal(np.zeros(40), covariance).logpdf(z)
        assert found.log_marginal_likelihood == pytest.approx(exact, rel=1e-6)


def test_the_spread_is_that_of_networks_trained_on_other_noise():
    rng = np.random.default_rng(3)
    phi, elsewhere = features(150), features(30, seed=6)
    clean, spread = phi @ rng.normal(size=6), np.exp(0.8 * rng.normal(size=150))
    at = np.column_stack([elsewhere, np.ones(30)])
    for said in (None, spread):  # one noise for all; or what a Gaussian head says of each record's
        noise = 0.4 * (np.ones(150) if said is None else said)
        found = fitted(phi, clean + noise * rng.normal(size=150), said)
        retrained = [at @ trained(phi, clean + noise * rng.normal(size=150), said) for _ in range(2000)]
        assert found.noise == pytest.approx(0.4, rel=0.15)
        assert found.epistemic_sd(elsewhere) / found.noise == pytest.approx(np.std(retrained, axis=0) / 0.4, rel=0.1)


def test_stated_spreads_that_are_right_give_a_factor_of_one():
    rng = np.random.default_rng(4)
    phi, spread = features(3000), np.exp(rng.normal(size=3000))
    z = phi @ rng.normal(size=6) + spread * rng.normal(size=3000)
    assert fitted(phi, z, spread).noise == pytest.approx(1, rel=0.04)
    assert fitted(phi, z, spread / 2).noise == pytest.approx(2, rel=0.04)


def test_it_grows_away_from_the_training_records_and_shrinks_with_their_number():
    rng = np.random.default_rng(5)
    z = features(4000) @ rng.normal(size=6) + 0.5 * rng.normal(size=4000)
    many, few = fitted(features(4000), z), fitted(features(4000)[:100], z[:100])
    inside = features(50, seed=7)
    ratio = few.epistemic_sd(inside) / many.epistemic_sd(inside)
    assert 3 < np.median(ratio) < 12  # √40 = 6.3
    assert (many.epistemic_sd(10 * inside) > 3 * many.epistemic_sd(inside)).all()


def test_batches_make_no_difference_and_single_precision_features_are_taken():
    rng = np.random.default_rng(6)
    phi = features(100).astype(np.float32)
    z = phi @ rng.normal(size=6) + 0.5 * rng.normal(size=100)
    weights = trained(phi, z)
    error, ones = np.column_stack([phi, np.ones(100)]) @ weights - z, np.ones(100)
    whole = LastLayerLaplace.fit([(phi, error, ones)], weights)
    parts = [(phi[k : k + 30], error[k : k + 30], ones[k : k + 30]) for k in range(0, 100, 30)]
    in_parts = LastLayerLaplace.fit(iter(parts), weights)
    assert in_parts.epistemic_sd(phi) == pytest.approx(whole.epistemic_sd(phi), rel=1e-9)


def test_features_that_are_the_same_are_decided_by_the_prior():
    """Two copies of a feature, and one that is always 0: a singular Hessian is no obstacle."""
    rng = np.random.default_rng(7)
    phi = features(100)
    z = phi @ rng.normal(size=6) + 0.5 * rng.normal(size=100)
    doubled = np.column_stack([phi, phi, np.zeros(100)])
    found = fitted(doubled, z)
    assert np.isfinite(found.epistemic_sd(doubled)).all() and found.n_effective < 7.01
    assert found.epistemic_sd(doubled) == pytest.approx(fitted(phi, z).epistemic_sd(phi), rel=0.05)
