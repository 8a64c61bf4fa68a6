"""Numbers with intervals that can be written as JSON, and means under many weights at once."""

from __future__ import annotations

import math

import numpy as np

from ecgscale.resampling import LEVEL, Floats, Score
from ecgscale.spec_base import Spec

N_HONEST = 200
"""Simulated honest predictors."""


class Estimate(Spec):
    """A value with its 95 % interval over patients; None where it isn't defined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, sample: Floats) -> Estimate:
        """From `(1 + draw,)`, the estimate first (`resampling.sampled`)."""
        score = Score.of(sample)
        value, low, high = (x if math.isfinite(x) else None for x in (score.value, score.low, score.high))
        return cls(value=value, low=low, high=high)


class AgainstChance(Spec):
    """A distance that is never negative, so that chance alone makes it positive.

    Draws of patients add their own chance to it: near honesty their percentiles lie above the truth (of 100 simulated
    honest predictors none was covered). It is compared with what an honest predictor would show instead.
    """

    value: float
    by_chance: float
    """What an honest predictor on as many records stays below in 95 % of the cases."""

    @classmethod
    def of(cls, value: float, honest: Floats) -> AgainstChance:
        """From the distance and those of simulated honest predictors `(simulation,)`."""
        return cls(value=value, by_chance=float(np.quantile(honest, LEVEL)))


def weighted_means(columns: Floats, weights: Floats) -> Floats:
    """Means `(column, sample)` of columns `(record, column)` under weights `(record, sample)`; NaN without weight."""
    return quotient(columns.T @ weights, weights.sum(axis=0))


def quotient(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where the denominator isn't above 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    found: Floats = np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator > 0)
    return found


class Bins:
    """Records in bins of equally many by one of their numbers; equal numbers are in the same bin.

    Args:
        values: `(record,)`.
        n_bins: at most; fewer where values are equal.
    """

    def __init__(self, values: Floats, n_bins: int) -> None:
        inner = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1]))
        _, self._place = np.unique(np.searchsorted(inner, values, side="right"), return_inverse=True)
        self.n_records = np.bincount(self._place)
        self._indicator = (self._place[:, None] == np.arange(len(self.n_records))).astype(np.float64)

    def plain_means(self, values: Floats) -> Floats:
        """Means `(bin, case)` of several cases of a number `(record, case)`, all records counting the same."""
        means: Floats = self._indicator.T @ values / self.n_records[:, None]
        return means

    def means(self, columns: Floats, weights: Floats) -> Floats:
        """Means `(column, bin, sample)` of columns `(record, column)` under weights `(record, sample)`; of a bin
        without weight NaN."""
        sums = np.stack([(self._indicator * column[:, None]).T @ weights for column in columns.T])
        return quotient(sums, self._indicator.T @ weights)
