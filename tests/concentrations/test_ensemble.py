"""Networks together: identical ones add nothing, different ones are better and say how much they disagree.

Runs on 13 networks of the CODE test set where the environment variable ECGSCALE_REAL_DATA names a folder with `ecg/`.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgscale.concentrations.classification import Probability, probability_scores
from ecgscale.concentrations.estimate import Estimate
from ecgscale.concentrations.predictive import Histogram, Normal, Point, Quantiles, ensemble
from ecgscale.concentrations.scores import differences, measure
from ecgscale.resampling import sampled

CODE_TEST = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg" / "code-test-annotations"
CLASSES = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")


def member(kind, seed, n=400):
    """What one network says, which errs in its own way."""
    rng = np.random.default_rng(seed)
    mean = np.linspace(3, 6, n) + 0.3 * rng.normal(size=n)
    if kind == "normal":
        return Normal(mean, np.full(n, 0.4))
    if kind == "point":
        return Point(mean)
    if kind == "histogram":
        p = np.exp(-0.5 * ((np.linspace(2.25, 6.75, 10) - mean[:, None]) / 0.4) ** 2)
        return Histogram(np.linspace(2, 7, 11), p / p.sum(axis=1, keepdims=True))
    return Quantiles(np.array([0.1, 0.5, 0.9]), mean[:, None] + np.array([-0.5, 0, 0.5]))


def truth(n=400):
    return np.linspace(3, 6, n) + 0.4 * np.random.default_rng(99).normal(size=n)


KINDS = ("normal", "point", "histogram", "quantiles")


@pytest.mark.parametrize("kind", KINDS)
def test_identical_members_add_nothing(kind):
    one = member(kind, 0)
    together = ensemble([one] * 5)
    found, alone = (measure(truth(), said, np.arange(400), (5.0,), "A", 20).scores() for said in (together, one))
    for name in ("mae", "mse", "r2", "slope", "crps", "nll", "auroc", "error_over_sd"):
        ours, its = getattr(found, name), getattr(alone, name)
        assert (ours is None) == (its is None)
        if ours is not None:
            assert (ours.value, ours.low, ours.high) == pytest.approx((its.value, its.low, its.high), abs=1e-9)
    for ours, its in zip(found.coverage, alone.coverage, strict=True):
        assert ours.width.value == pytest.approx(its.width.value, rel=1e-6)
    assert together.epistemic_sd == pytest.approx(np.zeros(400), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_differ_are_better_together_and_say_how_much_they_disagree(kind):
    members = [member(kind, seed) for seed in range(8)]
    together = ensemble(members)
    assert together.epistemic_sd.mean() == pytest.approx(0.3, rel=0.15)
    own = measure(truth(), together, np.arange(400), (5.0,), "A", 100)
    for one in members[:2]:
        beyond = differences(own, measure(truth(), one, np.arange(400), (5.0,), "A", 100))
        assert beyond["mae"].high < 0 and beyond["crps"].high < 0


# --- real networks ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    """Probabilities `(network, record, class)` of the 13 different networks, and the gold standard."""
    if "ECGSCALE_REAL_DATA" not in os.environ or not CODE_TEST.is_dir():
        pytest.skip("no ECGSCALE_REAL_DATA")
    files = sorted(CODE_TEST.glob("dnn_predicts/*/*.npy"))  # model.npy is one of the other seeds
    gold = pd.read_csv(CODE_TEST / "data" / "annotations" / "gold_standard.csv")[list(CLASSES)].to_numpy() > 0
    return np.stack([np.load(file) for file in files]).astype(np.float64), gold


def test_thirteen_real_networks_are_better_together(networks):
    """Likelihood and Brier score of the mean are never worse than the members' means (both are convex); here they are
    better than the typical member's by more than the draw of patients explains."""
    said, gold = networks
    assert said.shape == (13, 827, 6)
    patients = np.arange(827)  # one exam each
    beyond = {}
    for k, name in enumerate(CLASSES):
        members = [Probability(gold[:, k], p) for p in said[:, :, k]]
        together = Probability(gold[:, k], said[:, :, k].mean(axis=0))

        def beside(weights, members=members, together=together):
            own, each = together.measured(weights), [m.measured(weights) for m in members]
            return {
                score: own[score] - np.mean([m[score] for m in each], axis=0) for score in ("nll", "brier", "auroc")
            }

        beyond[name] = {k: Estimate.of(v) for k, v in sampled(beside, patients, "CODE-test", 300).items()}
        assert beyond[name]["nll"].value < 0 and beyond[name]["brier"].value < 0
    assert sum(one["nll"].high < 0 for one in beyond.values()) >= 5
    assert sum(one["brier"].high < 0 for one in beyond.values()) >= 4
    assert all(one["auroc"].high > -0.001 for one in beyond.values())


def test_pooling_real_networks_does_not_make_them_honest(networks):
    """Each errs in the same direction: a first-degree block is not said as often as cardiologists see it."""
    said, gold = networks
    found = []
    for k in range(6):
        probabilities = (said[:, :, k].mean(axis=0), said[0, :, k])
        scored = [probability_scores(gold[:, k], p, np.arange(827), "CODE-test", 100) for p in probabilities]
        together, single = scored
        assert together.n_positive == [28, 34, 30, 16, 13, 37][k]
        assert together.auroc.low > 0.95 and together.brier.low < together.brier.value < together.brier.high
        assert together.ece.value == pytest.approx(single.ece.value, abs=0.002)
        found.append(together.ece)
    assert found[0].value > 3 * found[0].by_chance
    assert found[4].value < found[4].by_chance  # atrial fibrillation
