"""`information`: the linearised spread is that of repeated studies, and shrinks as designs grow."""

import numpy as np
import pytest
from planted_sweep import TRUTH, planted_loss, sweep_grid

from ecgscale.laws import fit
from ecgscale.laws.information import covariance, variance

NOISE = 0.005


def studies(n, d, count):
    rng = np.random.default_rng(0)
    clean = planted_loss(TRUTH, n, d)
    return [
        fit("chinchilla", n, d, clean * np.exp(NOISE * rng.standard_normal(len(n))), objective="lsq", bootstrap=0)
        for _ in range(count)
    ]


def test_spread_of_an_exponent_is_that_of_repeated_studies():
    n, d = sweep_grid(6, 5)
    found = studies(n, d, 100)
    repeated = np.std([np.log(one.theta["alpha"]) for one in found])
    said = np.median([np.sqrt(covariance(one, n, d)[3, 3]) for one in found])
    assert found[0].form.theta[3] == "alpha"
    assert said == pytest.approx(repeated, rel=0.25)


def test_twice_the_trials_are_half_the_variance():
    n, d = sweep_grid(6, 5)
    (law,) = studies(n, d, 1)

    def loss_beyond(theta):
        return float(law.form.loss(theta, 2e9, 2.3e6))

    once = variance(law, loss_beyond, n, d)
    assert variance(law, loss_beyond, np.tile(n, 2), np.tile(d, 2)) == pytest.approx(once / 2, rel=1e-6)
    larger = np.concatenate((n, np.full(5, 2e9))), np.concatenate((d, np.unique(d)))
    assert variance(law, loss_beyond, *larger) < 0.6 * once
