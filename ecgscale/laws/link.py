"""Bounded metrics: a law is fitted to the error odds of a score, never to the score itself.

An accuracy or an AUROC can't follow a power law up to its ceiling, but the odds (best − y) / (y − worst) can fall like
one for ever. This module knows two numbers and one ratio; which law the odds follow is chosen elsewhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray


@dataclass(frozen=True)
class Logit:
    """Error odds of a score between `worst` (chance, or the far end of the scale) and `best`.

    The law must fall towards `best`, so an error rate has worst=1 and best=0.
    """

    worst: float
    best: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.worst) and np.isfinite(self.best) and self.worst != self.best):
            raise FitError(f"a bounded metric needs two different finite ends, got ({self.worst}, {self.best})")

    def to_odds(self, y: ArrayLike) -> FloatArray:
        """Error odds of scores, positive; refuses scores at or beyond an end by row."""
        score = np.asarray(y, dtype=float)
        low, high = min(self.worst, self.best), max(self.worst, self.best)
        outside = np.flatnonzero(~((score > low) & (score < high)))
        if len(outside):
            raise FitError(
                f"a metric bounded by {low:g} and {high:g} must lie strictly between them; row {outside[0]} is"
                f" {score.ravel()[outside[0]]:g} ({len(outside)} such rows): drop them and say why, or move the bounds"
            )
        return np.asarray((self.best - score) / (score - self.worst))

    def from_odds(self, odds: ArrayLike) -> FloatArray:
        """Scores of error odds: `best` at 0, `worst` at infinity."""
        return np.asarray(self.worst + (self.best - self.worst) / (1.0 + np.asarray(odds, dtype=float)))
