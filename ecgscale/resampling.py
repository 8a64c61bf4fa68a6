"""Intervals over patients: whole patients are drawn with replacement, and a score is computed of each draw.

A score is a function of the weights of the records: all ones give the estimate, the counts of a patient bootstrap give
its interval, by the same formula. Ranking scores under many weights at once are here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
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

    @classmethod
    def of(cls, sample: Floats) -> Score:
        """From `(1 + draw,)`, the estimate first; the percentiles of the draws in which the score is defined."""
        value, draws = float(sample[0]), sample[1:]
        defined = draws[np.isfinite(draws)]
        if not (np.isfinite(value) and len(defined)):
            return cls(value, np.nan, np.nan)
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(value, float(low), float(high))


def sampled(
    measured: Callable[[Floats], Mapping[str, Floats]], patients: Rows, seed: str, n_resamples: int = N_RESAMPLES
) -> dict[str, Floats]:
    """Each score `(…, 1 + draw)`: first the estimate, then what it is of each draw of patients.

    All calls with the same patients and seed see the same draws, so that differences of scores are paired.

    Args:
        measured: scores by name, each `(…, sample)`, under weights `(record, sample)`.
        patients: number of the patient of each record, from 0, `(record,)`.
        n_resamples: 0 for the estimate alone.
    """
    found = [measured(np.ones((len(patients), 1)))]
    found += [measured(weights) for weights in resamples(patients, seed, n_resamples)]
    return {name: np.concatenate([part[name] for part in found], axis=-1) for name in found[0]}


def resamples(patients: Rows, seed: str, n: int) -> Iterator[Floats]:
    """Weights `(record, sample)`, a chunk at a time: how often each record's patient was drawn, with replacement."""
    n_patients = int(patients.max()) + 1 if len(patients) else 0
    random = generator(seed)
    n_together = max(1, LARGEST_CHUNK // max(len(patients), 1))
    for first in range(0, n, n_together):
        size = min(n_together, n - first)
        drawn = random.integers(n_patients, size=(size, n_patients)) + n_patients * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_patients).reshape(size, n_patients)
        yield counts.T[patients].astype(np.float64)


def generator(seed: str) -> np.random.Generator:
    """The same for the same words, on every machine."""
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big"))


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
