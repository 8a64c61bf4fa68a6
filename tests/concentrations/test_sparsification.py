"""An uncertainty that sorts the errors reaches the oracle, one that knows nothing of them the random line."""

import numpy as np
import pytest

from ecgscale.concentrations.predictive import Normal, NormalMixture, Point
from ecgscale.concentrations.scores import measure
from ecgscale.concentrations.sparsification import KEPT, Sorting, areas


def curves(error, uncertainty):
    """Curve and areas of one sorting, everybody counting once."""
    everybody = np.ones((len(error), 1))
    curve, oracle = (Sorting(error, by).curve(everybody) for by in (uncertainty, error))
    return curve[:, 0], oracle[:, 0], {name: float(of[0]) for name, of in areas(curve, oracle).items()}


def errors(n=4000, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=n))


def test_perfect_sorting_is_the_oracle():
    error = errors()
    curve, oracle, found = curves(error, np.exp(error))
    assert (curve == oracle).all()
    assert found["ause"] == found["share"] == 0 and found["aurg"] > 0.3
    assert curve[0] == pytest.approx(np.sort(error)[:200].mean(), rel=1e-12)
    assert curve[-1] == pytest.approx(error.mean(), rel=1e-12)
    assert (np.diff(curve) > 0).all()


def test_random_sorting_is_the_random_line():
    error = errors(n=20_000)
    curve, _, found = curves(error, np.random.default_rng(1).random(20_000))
    assert np.abs(curve - error.mean()).max() < 0.06  # 1,000 records in the first share
    assert found["share"] == pytest.approx(1, abs=0.03)


def test_the_wrong_way_round_is_worse_than_random():
    error = errors()
    assert curves(error, -error)[2]["share"] > 1.5


def test_equal_uncertainties_say_nothing_whatever_the_order_of_the_records():
    error = np.sort(errors())
    curve, _, found = curves(error, np.ones(len(error)))
    assert curve == pytest.approx(np.full(len(KEPT), error.mean()), rel=1e-12)
    assert found["share"] == pytest.approx(1, rel=1e-12)
    # two groups: a random order within each
    curve, _, _ = curves(error, (error > 1).astype(float))
    half = KEPT <= (error <= 1).mean()
    assert curve[half] == pytest.approx(np.full(half.sum(), error[error <= 1].mean()), rel=1e-9)


def test_a_record_of_weight_two_is_two_records():
    error, uncertainty = errors(n=60), np.random.default_rng(1).random(60)
    weights = np.random.default_rng(2).integers(0, 4, size=60)
    weighted = Sorting(error, uncertainty).curve(weights[:, None].astype(float))[:, 0]
    copies = Sorting(np.repeat(error, weights), np.repeat(uncertainty, weights)).curve(np.ones((weights.sum(), 1)))
    assert weighted == pytest.approx(copies[:, 0], rel=1e-12)


def test_each_kind_of_uncertainty_is_sorted_by_where_it_is_stated():
    """Aleatoric spreads are those of the errors, the members' disagreement is not."""
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=3000), np.exp(0.7 * rng.normal(size=3000))
    truth, patients = mean + sd * rng.normal(size=3000), np.arange(3000)
    disagreement = 0.01 * rng.normal(size=(5, 3000))
    said = NormalMixture(mean + disagreement, np.tile(sd, (5, 1)))
    found = {s.uncertainty: s for s in measure(truth, said, patients, (), "A", 50).scores().sparsification}
    assert set(found) == {"total", "aleatoric", "epistemic"}
    assert found["aleatoric"].share.high < 0.7 and found["total"].share.high < 0.7
    assert found["epistemic"].share.low < 1 < found["epistemic"].share.high
    (alone,) = measure(truth, Normal(mean, sd), patients, (), "A", 0).scores().sparsification
    assert alone.uncertainty == "total"  # of one network, all of it is aleatoric
    (points,) = measure(truth, Point(mean, disagreement.std(axis=0)), patients, (), "A", 0).scores().sparsification
    assert points.uncertainty == "epistemic"
    assert points.mae[-1].value == pytest.approx(np.abs(mean - truth).mean(), rel=1e-9)
