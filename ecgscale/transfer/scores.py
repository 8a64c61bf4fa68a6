"""How good predictions are: loss, AUROC and AUPRC of any number of weighted samples at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecgscale.resampling import N_RESAMPLES, Floats, Ranking, Rows, Score, sampled


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


def measure(
    predictions: Sequence[Predicted], patients: Rows, seed: str, n_resamples: int = N_RESAMPLES
) -> list[Measured]:
    """Every target's scores, with percentile intervals over resampled patients.

    All targets see the same patients, and so do all calls with the same seed: encoders are compared on the same draws.

    Args:
        patients: number of the patient of each test record of the population, from 0.
        n_resamples: 0 for no intervals.
    """

    def measured(weights: Floats) -> dict[str, Floats]:
        everybody = len(weights)
        return {
            str(k): np.stack(p.measured(weights if len(p.records) == everybody else weights[p.records]))
            for k, p in enumerate(predictions)
        }

    samples = sampled(measured, patients, seed, n_resamples)
    return [Measured(*map(Score.of, samples[str(k)])) for k in range(len(predictions))]
