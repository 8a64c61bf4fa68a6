"""AUROC, AUPRC and losses against scikit-learn's, with ties and weights; intervals that cover what they promise."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from ecgscale.resampling import Ranking, resamples
from ecgscale.transfer.scores import Predicted, measure, record_losses


def records(n=200, share=0.2, decimals=None, seed=0):
    """Targets, and probabilities that know something of them; rounded ones have ties."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(float)
    p = 1 / (1 + np.exp(-(1.5 * y + rng.normal(size=n))))
    return y, p if decimals is None else np.round(p, decimals)


def binary(y, p):
    return Predicted("binary", y, p, 1.0, np.arange(len(y)))


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.95])
def test_ranking_scores_are_those_of_scikit_learn(decimals, share):
    y, p = records(share=share, decimals=decimals)
    weights = np.random.default_rng(1).integers(0, 3, size=(len(y), 4)).astype(float)
    weights[y > 0, :] += 1  # both classes are drawn
    auroc, auprc = Ranking(y > 0, p).measured(np.column_stack([np.ones(len(y)), weights]))
    assert auroc[0] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert auprc[0] == pytest.approx(average_precision_score(y, p), abs=1e-12)
    for k, w in enumerate(weights.T, start=1):
        assert auroc[k] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-12)
        assert auprc[k] == pytest.approx(average_precision_score(y, p, sample_weight=w), abs=1e-12)


def test_weights_count_records():
    """A record of weight 2 is two records."""
    y, p = records(n=50)
    weights = np.random.default_rng(1).integers(1, 4, size=len(y))
    (weighted,) = (np.ravel(binary(y, p).measured(weights[:, None].astype(float))),)
    repeated = np.ravel(binary(np.repeat(y, weights), np.repeat(p, weights)).measured(np.ones((weights.sum(), 1))))
    assert weighted == pytest.approx(repeated, abs=1e-12)


def test_losses_are_nats_or_squares_over_a_variance():
    y, p = records()
    assert record_losses("binary", y, p, 1.0).mean() == pytest.approx(log_loss(y, p), rel=1e-12)
    three = np.column_stack([p / 2, p / 2, 1 - p])
    classes = np.arange(len(y)) % 3
    expected = log_loss(classes, three, labels=[0, 1, 2])
    assert record_losses("multiclass", classes.astype(float), three, 1.0).mean() == pytest.approx(expected, rel=1e-12)
    assert record_losses("regression", np.array([3.0, 5.0]), np.array([1.0, 5.0]), 4.0).tolist() == [1.0, 0.0]
    assert np.isfinite(record_losses("binary", np.array([1.0]), np.array([0.0]), 1.0)).all()


def test_one_class_has_no_auroc_and_a_loss_with_its_interval():
    (found,) = measure([binary(np.zeros(30), np.full(30, 0.2))], np.arange(30), "B")
    assert math.isnan(found.auroc.value) and math.isnan(found.auprc.high)
    assert found.loss.value == pytest.approx(-math.log(0.8))
    assert found.loss.low == pytest.approx(found.loss.high) == pytest.approx(found.loss.value)


def test_one_positive_still_has_an_interval_from_the_draws_that_hold_it():
    y, p = records(n=40)
    y = np.arange(40) == 7
    (found,) = measure([binary(y.astype(float), p)], np.arange(40), "B")
    assert found.auroc.low <= found.auroc.value <= found.auroc.high


@pytest.mark.parametrize("per_patient", [1, 3])
def test_intervals_cover_the_truth_as_often_as_they_say(per_patient):
    """Patients' records are alike, so resampling records instead of patients would cover far too rarely."""
    truth, covered = 0.7602499, 0  # Φ(1 / √2), of normal scores one deviation apart
    rng = np.random.default_rng(5)
    for trial in range(100):
        y = (np.arange(80) < 30).astype(float)
        score = y + rng.normal(size=80)
        y, score, patient = (np.repeat(a, per_patient) for a in (y, score, np.arange(80)))
        p = 1 / (1 + np.exp(-score))
        (found,) = measure([binary(y, p)], patient, f"population {trial}", n_resamples=200)
        covered += found.auroc.low <= truth <= found.auroc.high
    assert 88 <= covered <= 99


def test_the_draws_belong_to_the_population_alone():
    """So that encoders are compared on the same patients, task by task, whatever else is scored with them."""
    y, p = records()
    other = binary(*records(seed=4))
    (alone,) = measure([binary(y, p)], np.arange(len(y)), "B")
    in_company = measure([other, binary(y, p)], np.arange(len(y)), "B")[1]
    (elsewhere,) = measure([binary(y, p)], np.arange(len(y)), "C")
    assert alone == in_company
    assert alone.auroc.low != elsewhere.auroc.low and alone.auroc.value == elsewhere.auroc.value


def test_records_without_a_value_take_no_part():
    y, p = records()
    there = np.flatnonzero(np.arange(len(y)) % 3 > 0)
    (found,) = measure([Predicted("binary", y[there], p[there], 1.0, there)], np.arange(len(y)), "B")
    assert found.auroc.value == pytest.approx(roc_auc_score(y[there], p[there]))
    assert found.loss.low < found.loss.value < found.loss.high


def test_resamples_draw_whole_patients_and_as_many_as_there_are(monkeypatch):
    monkeypatch.setattr("ecgscale.resampling.LARGEST_CHUNK", 30)
    patient = np.array([0, 0, 1, 2, 2, 2])
    chunks = list(resamples(patient, "B", 12))
    weights = np.concatenate(chunks, axis=1)
    assert len(chunks) > 1 and weights.shape == (6, 12)
    assert (weights[0] == weights[1]).all() and (weights[3] == weights[5]).all()
    assert (weights[[0, 2, 3]].sum(axis=0) == 3).all()
    assert len({tuple(column) for column in weights.T}) > 3
