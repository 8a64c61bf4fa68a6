"""Last-layer Laplace: how far a network's last layer is decided by its training records.

A linear last layer under squared error, or under a normal's likelihood of known spreads, has a loss that is quadratic
in its weights. The Laplace approximation with the full Hessian is then the posterior of Bayesian linear regression on
the features, centred on the trained weights; prior and noise maximise the log marginal likelihood, which has a closed
form (MacKay 1992, Neural Computation 4:415; Daxberger et al. 2021, NeurIPS). No network is known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ecgscale.resampling import Floats

LARGEST_LOG = 25.0
"""Bound of the logarithm of prior precision and noise variance: beyond it neither is told from none."""


@dataclass(frozen=True)
class LastLayerLaplace:
    """Posterior of the weights and the bias of a last layer, in the units that the network predicts in.

    Attributes:
        prior_precision: of every weight, the bias included.
        noise: standard deviation of a record around the network, or the factor on the spreads that were given.
        n_effective: weights that the records decide rather than the prior.
        log_marginal_likelihood: nats, of the training records.
    """

    prior_precision: float
    noise: float
    n_effective: float
    log_marginal_likelihood: float
    _axes: Floats
    _precisions: Floats

    @classmethod
    def fit(cls, batches: Iterable[tuple[Floats, Floats, Floats]], weights: Floats) -> LastLayerLaplace:
        """From the training records, which are passed once.

        Args:
            batches: features `(record, width)`, what the trained layer predicts less the truth `(record,)`, and the
                spread that the network states of each record `(record,)`: ones if it states none.
            weights: `(width + 1,)`, those of the trained layer, its bias last.
        """
        gram, sum_squares, log_spreads, n = np.zeros((len(weights), len(weights))), 0.0, 0.0, 0
        for features, error, spread in batches:
            rows = _with_bias(features) / spread[:, None]
            gram += rows.T @ rows
            sum_squares += float(np.sum((error / spread) ** 2))
            log_spreads += float(np.sum(np.log(spread)))
            n += len(error)
        eigenvalues, axes = np.linalg.eigh(gram)
        eigenvalues = np.maximum(eigenvalues, 0)  # rounded
        size = float(weights @ weights)

        def negative_log_marginal(logs: Floats) -> tuple[float, Floats]:
            """Without its constants, and its gradient, in the logarithms of prior precision and noise variance."""
            prior, variance = np.exp(logs)
            decided = eigenvalues / (eigenvalues + prior * variance)
            value = n * logs[1] + sum_squares / variance + prior * size - len(weights) * logs[0]
            value += np.sum(np.log(eigenvalues / variance + prior))
            of_prior = prior * size - decided.sum()
            of_noise = n - sum_squares / variance - decided.sum()
            return value / 2, np.array([of_prior, of_noise]) / 2

        start = np.log([len(weights) / max(size, 1e-12), max(sum_squares / n, 1e-12)])
        bounds = [(-LARGEST_LOG, LARGEST_LOG)] * 2
        found = minimize(negative_log_marginal, np.clip(start, *bounds[0]), jac=True, method="L-BFGS-B", bounds=bounds)
        prior, variance = np.exp(found.x)
        return cls(
            prior_precision=float(prior),
            noise=float(np.sqrt(variance)),
            n_effective=float(np.sum(eigenvalues / (eigenvalues + prior * variance))),
            log_marginal_likelihood=float(-found.fun - n * np.log(2 * np.pi) / 2 - log_spreads),
            _axes=axes,
            _precisions=eigenvalues / variance + prior,
        )

    def epistemic_sd(self, features: Floats) -> Floats:
        """`(record,)`: standard deviation of the prediction under the posterior, for features `(record, width)`."""
        along = _with_bias(features) @ self._axes
        spread: Floats = np.sqrt((along**2 / self._precisions).sum(axis=1))
        return spread


def _with_bias(features: Floats) -> Floats:
    return np.column_stack([features.astype(np.float64), np.ones(len(features))])
