"""Planted arms: on one curve, with one exponent, or each on its own."""

import numpy as np
import pytest

from ecgscale.errors import FitError
from ecgscale.laws import pool_pairs

X = np.geomspace(0.05, 1.0, 30)


def arms(kappas, coefficients, floors=(0.0, 0.0), noise=0.01):
    rng = np.random.default_rng(0)
    return {
        name: (X + floors[0], k * X**kappa * np.exp(noise * rng.standard_normal(len(X))) + floors[1])
        for name, kappa, k in zip("abc", kappas, coefficients, strict=True)
    }


@pytest.mark.parametrize("objective", ["huber", "lsq"])
@pytest.mark.parametrize(
    ("kappas", "coefficients", "expected"),
    [
        ((0.8, 0.8, 0.8), (2.0, 2.0, 2.0), "one_line"),
        ((0.8, 0.8, 0.8), (2.0, 2.3, 1.8), "one_exponent"),
        ((0.8, 1.0, 0.6), (2.0, 2.0, 2.0), "separate"),
    ],
)
def test_what_was_planted_is_found(kappas, coefficients, expected, objective):
    found = pool_pairs(arms(kappas, coefficients), objective=objective)
    assert found.best == expected
    separate = next(h for h in found.hypotheses if h.name == "separate")
    assert list(separate.kappa.values()) == pytest.approx(kappas, abs=0.02)
    assert np.exp(list(separate.log_k.values())) == pytest.approx(coefficients, rel=0.03)
    assert expected in found.describe()
    assert found.to_dict()["best"] == expected


def test_floors_belong_to_their_arm():
    shifted = arms((0.8, 0.8, 0.8), (2.0, 2.0, 2.0), floors=(0.3, 0.5))
    assert pool_pairs(shifted, dict.fromkeys("abc", (0.3, 0.5))).best == "one_line"
    with pytest.raises(FitError, match="arm a: a loss lies at or below its floor"):
        pool_pairs(shifted, dict.fromkeys("abc", (0.5, 0.5)))


def test_an_outlier_parts_nobody_under_huber():
    spoiled = arms((0.8, 0.8, 0.8), (2.0, 2.0, 2.0))
    spoiled["a"][1][0] *= 3
    assert pool_pairs(spoiled).best == "one_line"


def test_too_few_arms_or_pairs_are_refused():
    with pytest.raises(FitError, match="got 1"):
        pool_pairs({"a": (X, X)})
    with pytest.raises(FitError, match="arm b: needs three pairs"):
        pool_pairs({"a": (X, X), "b": (X[:2], X[:2])})
