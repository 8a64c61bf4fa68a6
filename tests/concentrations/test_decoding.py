"""Stored outputs to statements in the unit of the target."""

import numpy as np
import pytest
import torch

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.decoding import class_probabilities, crossing, exceedance, predictive
from ecgscale.concentrations.heads import build_head
from ecgscale.concentrations.predictive import Histogram, Logged, Normal, Point, Quantiles
from ecgscale.concentrations.target import TargetScale

POTASSIUM = TargetSpec(name="potassium", column="k", unit="mmol/l", cuts=(3.5, 5.0))
CREATININE = TargetSpec(name="creatinine", column="c", unit="µmol/l", log=True)
VALUES = np.exp(np.random.default_rng(0).normal(1.4, 0.15, 3000))
OUTPUTS = np.random.default_rng(1).normal(size=(500, 7))
ORDINAL = ("cumulative", "coral", "corn")


def head_of(kind: str, classes: int = 8) -> HeadSpec:
    if kind == "quantile":
        return HeadSpec(name=kind, kind=kind, levels=(0.1, 0.5, 0.9))
    if kind == "huber":
        return HeadSpec(name=kind, kind=kind, huber_delta=1)
    if kind in ("mse", "gaussian"):
        return HeadSpec(name=kind, kind=kind)
    return HeadSpec(name=kind, kind=kind, buckets="quantile", classes=2 if kind == "binary" else classes)


@pytest.mark.parametrize("target", [POTASSIUM, CREATININE], ids=["plain", "logged"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("mse", Point),
        ("huber", Point),
        ("gaussian", (Normal, Logged)),
        ("quantile", Quantiles),
        ("softmax", Histogram),
        ("cumulative", Histogram),
        ("coral", Histogram),
        ("corn", Histogram),
        ("binary", Histogram),
    ],
)
def test_every_head_says_something_in_the_unit_of_every_target(kind, says, target):
    head = head_of(kind)
    scale = TargetScale.fit(VALUES, target, head)
    outputs = build_head(4, head, scale.n_classes)(torch.zeros(6, 4)).detach().numpy()
    said = predictive(outputs, head, scale)
    assert isinstance(said, says)
    assert said.n == 6
    assert said.mean.dtype == np.float64
    np.testing.assert_allclose(said.mean, VALUES.mean(), rtol=0.05)  # a fresh head knows the average
    if said.has_spread and kind != "quantile":
        np.testing.assert_allclose(said.sd, VALUES.std(), rtol=0.1)


def test_a_standardised_gaussian_is_taken_back_to_the_unit():
    head = head_of("gaussian")
    scale = TargetScale.fit(VALUES, POTASSIUM, head)
    said = predictive(np.array([[1.0, np.log(0.25)]]), head, scale)
    assert said.mean == pytest.approx(VALUES.mean() + VALUES.std())
    assert said.sd == pytest.approx(VALUES.std() / 2)


@pytest.mark.parametrize("target", [POTASSIUM, CREATININE], ids=["plain", "logged"])
@pytest.mark.parametrize("kind", ["mse", "gaussian"])
def test_what_laplace_does_not_know_of_the_mean_is_the_epistemic_part(kind, target):
    """Against the spread of means drawn around the stated one."""
    head = head_of(kind)
    scale = TargetScale.fit(VALUES, target, head)
    drawn = 0.4 + 0.3 * np.random.default_rng(2).standard_normal(400_000)
    noise = np.full_like(drawn, np.log(0.25))
    outputs = np.stack([drawn, noise], axis=1)[:, : 1 if kind == "mse" else 2]
    said = predictive(np.array([[0.4, np.log(0.25)]])[:, : outputs.shape[1]], head, scale, np.array([0.3]))
    assert said.epistemic_sd == pytest.approx(predictive(outputs, head, scale).mean.std(), rel=0.01)
    if kind == "gaussian":
        assert said.aleatoric_sd == pytest.approx(predictive(outputs[:1] * [0, 1] + [0.4, 0], head, scale).sd, rel=0.03)
        assert (said.sd > said.aleatoric_sd).all()


def test_only_a_mean_can_be_unsure():
    scale = TargetScale.fit(VALUES, POTASSIUM, head_of("softmax"))
    with pytest.raises(ValueError, match="head softmax is of kind softmax: it has no mean"):
        predictive(OUTPUTS[:, :1].repeat(8, axis=1), head_of("softmax"), scale, np.ones(500))


def test_of_a_logged_target_quantiles_are_those_of_the_logarithm_taken_back():
    scale = TargetScale.fit(VALUES, CREATININE, head_of("quantile"))
    said = predictive(np.array([[-1.0, 0.0, 1.5]]), head_of("quantile"), scale)
    for level, z in ((0.1, -1.0), (0.5, 0.0), (0.9, 1.5)):
        assert said.quantile(level) == pytest.approx(np.exp(scale.mean + scale.sd * z))


@pytest.mark.parametrize("kind", ["coral", "corn"])
def test_coral_and_corn_never_contradict_themselves(kind):
    """Whatever is learned; the published CORAL layer has free biases, whose order only the optimum guarantees."""
    head = head_of(kind)
    scale = TargetScale.fit(VALUES, POTASSIUM, head)
    for seed in range(20):
        torch.manual_seed(seed)
        built = build_head(16, head, scale.n_classes)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.normal_(0, 10)
            outputs = built(torch.randn(200, 16)).numpy().astype(np.float64)
        assert crossing(outputs, head) == 0
        assert (np.diff(exceedance(outputs, head), axis=1) <= 0).all()


def test_cumulative_heads_can_contradict_themselves_and_it_is_counted():
    head = head_of("cumulative", classes=3)
    outputs = np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 0.0], [-1.0, 3.0]])
    assert crossing(outputs, head) == 0.5
    assert crossing(OUTPUTS[:, :2], head_of("softmax", classes=2)) == 0
    p = class_probabilities(outputs, head)
    assert (p >= 0).all()
    np.testing.assert_allclose(p[0], p[1])  # sorted, the contradiction says what its consistent twin says


@pytest.mark.parametrize("kind", ORDINAL)
def test_probabilities_of_ordinal_classes_are_probabilities(kind):
    p = class_probabilities(OUTPUTS, head_of(kind))
    assert p.shape == (500, 8)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_corn_multiplies_what_is_given():
    given = np.array([[0.8, 0.5]])
    outputs = np.log(given / (1 - given))
    np.testing.assert_allclose(class_probabilities(outputs, head_of("corn", classes=3)), [[0.2, 0.4, 0.4]])


@pytest.mark.parametrize("outputs", [np.zeros((5, 3)), np.zeros(5)])
def test_outputs_of_another_head_are_refused(outputs):
    head = head_of("gaussian")
    with pytest.raises(ValueError, match="head gaussian has 2 outputs, not an array of"):
        predictive(outputs, head, TargetScale.fit(VALUES, POTASSIUM, head))
