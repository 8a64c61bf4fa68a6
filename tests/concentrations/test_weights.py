"""Rare concentrations count for more: by the class they are in, or by the smoothed density around them."""

import numpy as np
import pytest

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.target import TargetScale
from ecgscale.concentrations.weights import rarity, smoothed_density, training_weights

TARGET = TargetSpec(name="potassium", column="k", unit="mmol/l", cuts=(3.5, 5.0))
VALUES = np.random.default_rng(0).normal(4.2, 0.5, 20_000)


def weights_of(**head: object) -> np.ndarray:
    spec = HeadSpec(name="h", **head)
    return training_weights(VALUES, spec, TargetScale.fit(VALUES, TARGET, spec))


def test_without_weights_every_record_counts_the_same():
    assert (weights_of(kind="mse") == 1).all()


@pytest.mark.parametrize("weights", ["inverse_frequency", "smoothed_density"])
@pytest.mark.parametrize("head", [{"kind": "mse"}, {"kind": "coral", "buckets": "cuts"}])
def test_weights_average_1_and_grow_towards_the_extremes(weights, head):
    found = weights_of(weights=weights, max_weight=20, **head)
    assert found.mean() == pytest.approx(1, rel=1e-5)
    middle, extremes = np.abs(VALUES - 4.2) < 0.2, np.abs(VALUES - 4.2) > 1.2
    assert found[extremes].mean() > 3 * found[middle].mean()


def test_with_a_generous_limit_every_class_counts_the_same_in_all():
    found = weights_of(kind="softmax", buckets="cuts", weights="inverse_frequency", max_weight=1000)
    totals = np.bincount(np.searchsorted([3.5, 5.0], VALUES), weights=found)
    np.testing.assert_allclose(totals, len(VALUES) / 3, rtol=1e-4)


def test_the_limit_is_in_multiples_of_the_average_weight():
    """Nine common records and a rare one: 1/9 and 1 of the weight before the limit, on average 0.2."""
    density = np.array([0.9] * 9 + [0.1])
    np.testing.assert_allclose(rarity(density, max_weight=100), [5 / 9] * 9 + [5])
    np.testing.assert_allclose(rarity(density, max_weight=2), np.array([5 / 9] * 9 + [2]) / 0.7)


def test_a_smoothed_density_follows_the_density_without_its_noise():
    """Neighbouring values weigh nearly the same, however few records there are."""
    few = np.sort(np.random.default_rng(1).normal(size=500))
    true = np.exp(-(few**2) / 2)
    found = smoothed_density(few)
    inside = np.abs(few) < 1.5
    ratio = found[inside] / true[inside]
    assert ratio.std() / ratio.mean() < 0.25
