"""How good predictions are: loss, AUROC and AUPRC of any number of weighted samples at once.

A score is a function of the weights of the records: all ones give the estimate, the counts of a patient bootstrap give
its interval, by the same formula.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

N_RESAMPLES = 500
LEVEL = 0.95
LARGEST_CHUNK = 2**18
"""Weights that are held at a time: 2 MB, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval; NaN where it isn't defined: an AUROC of one class, an interval not asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """AUROC and AUPRC of several classes are the mean of one against the rest; a regression has none."""

    loss: Score
    auroc: Score
    auprc: Score


class Predicted:
    """The predictions of one target on its test records.

    Args:
        kind: binary, multiclass or regression.
        target: `(record,)`.
        predicted: `(record,)` probabilities of the positive class or values, `(record, class)` probabilities.
        unit_loss: a regression's loss is the mean squared error over this.
        records: their places among all test records of the population, `(record,)`.
    """

    def __init__(self, kind: str, target: Floats, predicted: Floats, unit_loss: float, records: Rows) -> None:
        self.losses = record_losses(kind, target, predicted, unit_loss)
        self.records = records
        self._rankings: list[Ranking] = []
        if kind == "binary":
            self._rankings = [Ranking(target > 0, predicted)]
        elif kind == "multiclass":
            every = ((target == k, p) for k, p in enumerate(predicted.T))
            self._rankings = [Ranking(positive, p) for positive, p in every if 0 < positive.sum() < len(positive)]

    def measured(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Loss, AUROC and AUPRC `(sample,)` under weights `(record, sample)`; of classes the mean of one against the
        rest, NaN for a regression."""
        total = weights.sum(axis=0)
        loss = np.divide(self.losses @ weights, total, out=np.full(len(total), np.nan), where=total > 0)
        if not self._rankings:
            return loss, np.full(len(total), np.nan), np.full(len(total), np.nan)
        auroc, auprc = np.mean([ranking.measured(weights) for ranking in self._rankings], axis=0)
        return loss, auroc, auprc


def record_losses(kind: str, target: Floats, predicted: Floats, unit_loss: float) -> Floats:
    """`(record,)`: nats of the class that is there, or the squared error over `unit_loss`."""
    if kind == "regression":
        squared: Floats = (target - predicted) ** 2 / unit_loss
        return squared
    if kind == "multiclass":
        right = np.take_along_axis(predicted, target.astype(np.intp)[:, None], axis=1)[:, 0]
    else:
        right = np.where(target > 0, predicted, 1.0 - predicted)
    # the smallest probability that a double can tell from a certainty, as scikit-learn has it
    return -np.log(np.clip(right, np.finfo(np.float64).eps, 1.0))


class Ranking:
    """Records sorted by their score, to count who stands above whom; equal scores share their place.

    AUROC is the chance that a positive stands above a negative (Mann-Whitney, ties half). AUPRC is the average
    precision: the precision at every score with a positive, weighted by the positives there.
    """

    def __init__(self, positive: npt.NDArray[np.bool_], score: Floats) -> None:
        _, place = np.unique(-score, return_inverse=True)  # 0 is the highest
        order = np.argsort(place, kind="stable")
        is_positive = positive[order]
        self.positives, self.negatives = order[is_positive], order[~is_positive]
        places, self._first = np.unique(place[self.positives], return_index=True)
        self._above = np.searchsorted(place[self.negatives], places)
        self._not_below = np.searchsorted(place[self.negatives], places + 1)

    def measured(self, weights: Floats) -> tuple[Floats, Floats]:
        """AUROC and AUPRC `(sample,)` under weights `(record, sample)`; NaN where they leave one class only."""
        n_samples = weights.shape[1]
        if not len(self.positives):
            return np.full(n_samples, np.nan), np.full(n_samples, np.nan)
        false = np.zeros((len(self.negatives) + 1, n_samples))
        np.cumsum(weights[self.negatives], axis=0, out=false[1:])
        above, not_below, n_false = false[self._above], false[self._not_below], false[-1]
        true = np.add.reduceat(weights[self.positives], self._first, axis=0)
        found, n_true = np.cumsum(true, axis=0), true.sum(axis=0)
        both = (n_true > 0) & (n_false > 0)
        with np.errstate(invalid="ignore"):  # 0 / 0 above the first record that was drawn
            precision = np.where(true > 0, found / (found + not_below), 0.0)
        auroc = (true * (n_false - (above + not_below) / 2)).sum(axis=0) / np.where(both, n_true * n_false, np.nan)
        auprc = (true * precision).sum(axis=0) / np.where(both, n_true, np.nan)
        return auroc, auprc


def measure(
    predictions: Sequence[Predicted], patients: Rows, seed: str, n_resamples: int = N_RESAMPLES
) -> list[Measured]:
    """Every target's scores, with percentile intervals over resampled patients.

    All targets see the same patients, and so do all calls with the same seed: encoders are compared on the same draws.

    Args:
        patients: number of the patient of each test record of the population, from 0.
        n_resamples: 0 for no intervals.
    """
    everybody = np.ones((len(patients), 1))
    estimates = [np.stack(p.measured(everybody[p.records])) for p in predictions]  # (score, 1)
    draws: list[list[Floats]] = [[np.empty((3, 0))] for _ in predictions]
    for weights in resamples(patients, seed, n_resamples):
        for own, p in zip(draws, predictions, strict=True):
            own.append(np.stack(p.measured(weights if len(p.records) == len(patients) else weights[p.records])))
    found = []
    for estimate, own in zip(estimates, draws, strict=True):
        samples = np.concatenate(own, axis=1)
        found.append(Measured(*(_with_interval(float(e[0]), s) for e, s in zip(estimate, samples, strict=True))))
    return found


def _with_interval(value: float, sample: Floats) -> Score:
    """Of the samples in which the score is defined."""
    defined = sample[np.isfinite(sample)]
    if not (np.isfinite(value) and len(defined)):
        return Score(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(value, float(low), float(high))


def resamples(patients: Rows, seed: str, n: int) -> Iterator[Floats]:
    """Weights `(record, sample)`, a chunk at a time: how often each record's patient was drawn, with replacement."""
    n_patients = int(patients.max()) + 1 if len(patients) else 0
    generator = np.random.default_rng(int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big"))
    n_together = max(1, LARGEST_CHUNK // max(len(patients), 1))
    for first in range(0, n, n_together):
        size = min(n_together, n - first)
        drawn = generator.integers(n_patients, size=(size, n_patients)) + n_patients * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_patients).reshape(size, n_patients)
        yield counts.T[patients].astype(np.float64)
