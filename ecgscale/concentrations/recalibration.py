"""Honest spreads after the training: what validation records say of a head's distributions, applied to other records.

Three ways that trust the head less and less: one factor on the spread, a map of the whole distribution function, and
split conformal intervals, which cover at the stated rate whatever the head says, as long as validation and test records
come from the same source. Each is fitted on records that neither trained the head nor test it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from ecgscale.concentrations.measures import LEVELS
from ecgscale.concentrations.predictive import Logged, Normal, NormalMixture, Predictive, Quantiles
from ecgscale.resampling import Floats

N_PIECES = 20
"""Of the map of a distribution function: enough for its shape, few enough for a density. Our assumption."""
OUTERMOST = 1e-9
"""Closer to 0 and 1 a distribution function is not mapped: what a head calls as good as impossible is rounded there."""
CONFORMAL_LEVELS = tuple(sorted({0.1, 0.2, 0.3, 0.4, 0.6, 0.7, *LEVELS}))
"""Central intervals that conformal prediction states; between their ends its distribution is linear."""


@dataclass(frozen=True)
class VarianceScaling:
    """One factor on all spreads, with which the mean of (error / sd)² is one on the validation records.

    It maximises a normal's likelihood (Laves et al. 2020, MIDL). A logged target is stretched in the logarithm. A point
    gets one spread for all records, a normal's or, of a logged target, a log-normal's around its median.
    """

    factor: float
    log: bool

    @classmethod
    def fit(cls, truth: Floats, predictive: Predictive, log: bool = False) -> Self:
        """From validation records `(record,)`; `log` says that a point is of a logged target."""
        if isinstance(predictive, Logged):
            return cls(cls.fit(np.log(truth), predictive.inner).factor, log=True)
        if predictive.has_spread:
            return cls(_root_mean_square((truth - predictive.mean) / predictive.sd), log=False)
        error = np.log(truth) - np.log(predictive.mean) if log else truth - predictive.mean
        return cls(_root_mean_square(error), log)

    def apply(self, predictive: Predictive) -> Predictive:
        if isinstance(predictive, Logged):
            return Logged(_stretched(predictive.inner, self.factor))
        if isinstance(predictive, NormalMixture):
            return _stretched(predictive, self.factor)
        if predictive.has_spread:
            return Stretched(predictive, self.factor)
        sd = np.full(predictive.n, self.factor)
        return Logged(Normal(np.log(predictive.mean), sd)) if self.log else Normal(predictive.mean, sd)


@dataclass(frozen=True)
class Isotonic:
    """A map of the distribution function to how often validation values were below it (Kuleshov et al. 2018, ICML).

    Isotonic regression of an empirical distribution function is that function itself; it is taken at its quantiles and
    drawn straight between, so that a density is left.

    Attributes:
        at: distribution function, ascending from 0 to 1.
        level: what it becomes there, from 0 to 1.
    """

    at: tuple[float, ...]
    level: tuple[float, ...]

    @classmethod
    def fit(cls, truth: Floats, predictive: Predictive) -> Self:
        """From validation records `(record,)`.

        Raises:
            ValueError: fewer records than pieces.
        """
        if len(truth) < N_PIECES:
            raise ValueError(f"a map of {N_PIECES} pieces needs as many validation records, not {len(truth)}")
        transformed = np.sort(predictive.cdf(truth))
        at = np.unique(np.quantile(transformed, np.arange(1, N_PIECES) / N_PIECES))
        level = np.searchsorted(transformed, at, side="right") / len(truth)
        inside = (at > OUTERMOST) & (at < 1 - OUTERMOST) & (level < 1)
        return cls((0.0, *at[inside].tolist(), 1.0), (0.0, *level[inside].tolist(), 1.0))

    def apply(self, predictive: Predictive) -> Predictive:
        return Mapped(predictive, np.array(self.at), np.array(self.level))


@dataclass(frozen=True)
class Conformal:
    """Split conformal intervals: the mean ± a quantile of the validation errors, or of the errors over the head's sd.

    The quantile of n errors is the ⌈(n + 1) level⌉-th smallest, with which a new record is covered at least as often as
    stated (Vovk et al. 2005; Lei et al. 2018, JASA 113:1094). Several records of one patient are not exchangeable one
    by one; over patients the rate holds on average.

    Attributes:
        normalised: whether by the head's sd; else all records get the same width.
        half_widths: at `CONFORMAL_LEVELS`, in the unit or in sd.
    """

    normalised: bool
    half_widths: tuple[float, ...]

    @classmethod
    def fit(cls, truth: Floats, predictive: Predictive, normalised: bool) -> Self:
        """From validation records `(record,)`.

        Raises:
            ValueError: too few records for the highest level.
        """
        error = np.sort(np.abs(truth - predictive.mean) / (predictive.sd if normalised else 1.0))
        # rounded, as 0.9 × 10 is not 9 in doubles
        ranks = [math.ceil(round((len(error) + 1) * level, 9)) for level in CONFORMAL_LEVELS]
        if ranks[-1] > len(error):
            highest = CONFORMAL_LEVELS[-1]
            n_needed = math.ceil(round(highest / (1 - highest), 9))
            raise ValueError(f"{highest:.0%} intervals need {n_needed} validation records, there are {len(error)}")
        return cls(normalised, tuple(float(error[rank - 1]) for rank in ranks))

    def apply(self, predictive: Predictive) -> Quantiles:
        """A distribution whose central intervals at `CONFORMAL_LEVELS` are the conformal ones."""
        half = np.array(self.half_widths) * (predictive.sd[:, None] if self.normalised else np.ones((predictive.n, 1)))
        mean = predictive.mean[:, None]
        below = [(1 - level) / 2 for level in reversed(CONFORMAL_LEVELS)]
        above = [(1 + level) / 2 for level in CONFORMAL_LEVELS]
        values = np.concatenate([mean - half[:, ::-1], mean, mean + half], axis=1)
        return Quantiles(np.array([*below, 0.5, *above]), values, predictive.epistemic_sd)


class Recalibrated(Predictive):
    """A distribution that was changed after the training."""

    def __init__(self, inner: Predictive) -> None:
        self._inner = inner

    @classmethod
    def pooled(cls, members: Sequence[Self]) -> Predictive:
        """Raises ValueError: members' spreads that are honest one by one are not so together."""
        raise ValueError("networks are pooled first, then what they say together is recalibrated")


class Stretched(Recalibrated):
    """Every distribution stretched around its mean by one factor."""

    def __init__(self, inner: Predictive, factor: float) -> None:
        super().__init__(inner)
        self._factor = factor
        self.mean = inner.mean
        self.epistemic_sd = None if inner.epistemic_sd is None else factor * inner.epistemic_sd

    @property
    def sd(self) -> Floats:
        return self._factor * self._inner.sd

    def _before(self, at: float | Floats) -> Floats:
        """Where a value was before it was stretched."""
        where: Floats = self.mean + (at - self.mean) / self._factor
        return where

    def cdf(self, at: float | Floats) -> Floats:
        return self._inner.cdf(self._before(at))

    def quantile(self, level: float) -> Floats:
        return self.mean + self._factor * (self._inner.quantile(level) - self.mean)

    def log_density(self, y: Floats) -> Floats:
        return self._inner.log_density(self._before(y)) - math.log(self._factor)

    def crps(self, y: Floats) -> Floats:
        return self._factor * self._inner.crps(self._before(y))


class Mapped(Recalibrated):
    """Every distribution function F changed to R(F); R is linear between knots.

    Mean, spread and CRPS are integrals over the levels by Gauss-Legendre nodes on each piece of R: where R is linear,
    the quantile function is as smooth as the inner one's.
    """

    def __init__(self, inner: Predictive, at: Floats, level: Floats) -> None:
        super().__init__(inner)
        self._at, self._level = at, level
        self.epistemic_sd = inner.epistemic_sd
        nodes, weights = _nodes(at, level)
        self._node_levels, self._node_weights = np.interp(nodes, at, level), weights
        self._values = np.stack([inner.quantile(float(node)) for node in nodes])  # (node, record)
        self.mean: Floats = weights @ self._values

    @cached_property
    def sd(self) -> Floats:
        spread: Floats = np.sqrt(self._node_weights @ (self._values - self.mean) ** 2)
        return spread

    def cdf(self, at: float | Floats) -> Floats:
        return np.interp(self._inner.cdf(at), self._at, self._level)

    def quantile(self, level: float) -> Floats:
        return self._inner.quantile(float(np.interp(level, self._level, self._at)))

    def log_density(self, y: Floats) -> Floats:
        slopes = np.diff(self._level) / np.diff(self._at)
        piece = np.clip(np.searchsorted(self._at, self._inner.cdf(y)) - 1, 0, len(slopes) - 1)
        return self._inner.log_density(y) + np.log(slopes[piece])

    def crps(self, y: Floats) -> Floats:
        """Twice the pinball loss over all levels (Gneiting & Raftery 2007)."""
        above = (y < self._values) - self._node_levels[:, None]
        found: Floats = 2 * self._node_weights @ (above * (self._values - y))
        return found


def _nodes(at: Floats, level: Floats) -> tuple[Floats, Floats]:
    """Values of the distribution function and their weights, which are shares of the probability after the map."""
    nodes, weights = [], []
    n_pieces = len(at) - 1
    for k in range(n_pieces):
        # the outer quantiles go to infinity
        on_piece, share = np.polynomial.legendre.leggauss(24 if k in (0, n_pieces - 1) else 4)
        nodes.append(at[k] + (at[k + 1] - at[k]) * (on_piece + 1) / 2)
        weights.append((level[k + 1] - level[k]) * share / 2)
    return np.concatenate(nodes), np.concatenate(weights)


def _stretched(mixture: NormalMixture, factor: float) -> NormalMixture:
    """Members and what they disagree about, stretched around their common mean."""
    epistemic = None if mixture.epistemic_sds is None else factor * mixture.epistemic_sds
    means = mixture.mean + factor * (mixture.means - mixture.mean)
    return NormalMixture(means, factor * mixture.sds, epistemic)


def _root_mean_square(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))
