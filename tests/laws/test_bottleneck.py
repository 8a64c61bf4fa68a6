"""`data_limited`: planted bottlenecks on either side are named with their probability."""

import json

import numpy as np
import pytest
from planted_sweep import sweep_grid

from ecgscale.errors import FitError
from ecgscale.laws import LAWS, fit
from ecgscale.laws.bottleneck import data_limited, term_ratio


def arm(share_n, share_d, bootstrap=200, noise=0.005):
    """A sweep whose terms at the largest N and D are the given parts of the loss."""
    n, d = sweep_grid(6, 5)
    loss = 0.5 + share_n * (n / 2e8) ** -0.3 + share_d * (d / 2.3e6) ** -0.35
    scatter = np.exp(noise * np.random.default_rng(0).standard_normal(30))
    return fit("chinchilla", n, d, loss * scatter, bootstrap=bootstrap)


def test_planted_bottlenecks():
    data, size = data_limited(arm(0.01, 0.1)), data_limited(arm(0.1, 0.01))
    assert data.describe() == "data-bottlenecked: yes (1.00)"
    assert size.describe() == "data-bottlenecked: no (0.00)"
    assert (data.n, data.d) == pytest.approx((2e8, 2.3e6))
    assert data.basis == "terms"
    json.dumps(data.to_dict(), allow_nan=False)


def test_ratio_of_the_terms_has_an_interval():
    found = term_ratio(arm(0.04, 0.1))
    assert found.low < 2.5 < found.high
    assert term_ratio(arm(0.04, 0.1, bootstrap=0, noise=0)).value == pytest.approx(2.5, rel=1e-4)
    n, d = sweep_grid(6, 5)
    with pytest.raises(FitError, match="no term of its own"):
        term_ratio(fit("multiplicative", n, d, n**-0.1 * d**-0.2, bootstrap=0))


def test_terms_and_elasticities_are_those_of_the_law():
    found = data_limited(arm(0.04, 0.1, bootstrap=0, noise=0))
    assert found.term_n.value == pytest.approx(0.04, rel=1e-5)
    assert found.term_d.value == pytest.approx(0.1, rel=1e-5)
    assert found.elasticity_n.value == pytest.approx(0.3 * 0.04 / 0.64, rel=1e-5)
    assert found.elasticity_d.value == pytest.approx(0.35 * 0.1 / 0.64, rel=1e-5)
    assert found.probability is None
    assert found.flags == ("no_interval",)
    assert found.describe() == "data-bottlenecked: yes (no interval)"


def test_equal_terms_are_undecided():
    found = data_limited(arm(0.05, 0.05, noise=0.01))
    assert 0.05 < found.probability < 0.95
    assert found.describe().startswith("data-bottlenecked: undecided")
    assert found.term_n.low < 0.05 < found.term_n.high
    assert found.term_d.low < 0.05 < found.term_d.high


def test_small_models_are_limited_by_their_size():
    fitted = arm(0.01, 0.1)
    assert data_limited(fitted).verdict == "yes"
    assert data_limited(fitted, n=2e4).verdict == "no"
    assert "extrapolating" in data_limited(fitted, d=1e9).flags


def test_laws_without_terms_are_judged_by_their_elasticities():
    n, d = sweep_grid(6, 5)
    law = LAWS["kaplan"]
    loss = law.loss({"E": 0.5, "A": 20.0, "B": 1e5, "alpha": 0.3, "beta": 0.35}, n, d)
    noisy = loss * np.exp(0.003 * np.random.default_rng(0).standard_normal(30))
    found = data_limited(fit("kaplan", n, d, noisy, bootstrap=100))
    assert found.basis == "elasticities"
    assert found.term_n is None
    assert found.verdict == ("yes" if found.elasticity_d.value > found.elasticity_n.value else "no")
    step = 1e-3
    moved = [
        float(law.loss({"E": 0.5, "A": 20.0, "B": 1e5, "alpha": 0.3, "beta": 0.35}, 2e8, 2.3e6 * f))
        for f in (1 - step, 1 + step)
    ]
    assert found.elasticity_d.low < np.log(moved[0] / moved[1]) / (2 * step) < found.elasticity_d.high


def test_unidentified_laws_say_so_in_the_line():
    n, d = sweep_grid(2, 5)
    found = data_limited(fit("chinchilla", n, d, 0.5 + 10 * n**-0.3 + 9 * d**-0.3, bootstrap=0))
    assert "law not identified: too_few_levels:N" in found.describe()


def test_one_variable_laws_and_bad_places_are_refused():
    x = np.geomspace(1, 1e4, 6)
    with pytest.raises(FitError, match="can't weigh"):
        data_limited(fit("power", x, x**-0.3, bootstrap=0))
    with pytest.raises(FitError, match="positive"):
        data_limited(arm(0.01, 0.1, bootstrap=0), n=-1)
