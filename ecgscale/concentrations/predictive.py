"""What a head says of n records: distributions of a concentration, in the unit of the target.

Every head ends here, so that all are scored by the same formulas. Values are float64, log densities are in nats per
unit, and the scores are closed forms (Gneiting & Raftery 2007, JASA 102:359). This room knows no network and no table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr, ndtri

Floats = npt.NDArray[np.float64]
LOG_2_PI = float(np.log(2 * np.pi))
BISECTIONS = 60
"""Halvings of the bracket of a mixture's quantile: below the resolution of a double."""


class NoSpread(ValueError):
    """A point has no standard deviation, density or quantile before it is recalibrated."""


class Predictive(ABC):
    """One distribution per record.

    Attributes:
        mean: `(n,)`.
        epistemic_sd: `(n,)`, the part of the spread that comes from not knowing the network; None for one network.
        has_spread: whether `sd`, `quantile` and `log_density` exist.
    """

    has_spread: ClassVar[bool] = True
    mean: Floats
    epistemic_sd: Floats | None

    @property
    def n(self) -> int:
        return len(self.mean)

    @property
    @abstractmethod
    def sd(self) -> Floats:
        """`(n,)` standard deviation."""

    @property
    def aleatoric_sd(self) -> Floats:
        """`(n,)`, the rest of the spread: noise that no network could predict (law of total variance)."""
        if self.epistemic_sd is None:
            return self.sd
        rest: Floats = np.sqrt(np.maximum(self.sd**2 - self.epistemic_sd**2, 0))
        return rest

    @abstractmethod
    def cdf(self, at: float | Floats) -> Floats:
        """`(n,)` probability of a value up to `at`, one number or one per record."""

    @abstractmethod
    def quantile(self, level: float) -> Floats:
        """`(n,)` the value that is not exceeded with probability `level`."""

    @abstractmethod
    def log_density(self, y: Floats) -> Floats:
        """`(n,)` nats per unit at the true values."""

    @abstractmethod
    def crps(self, y: Floats) -> Floats:
        """`(n,)` continuous ranked probability score in the unit, ∫ (F(x) - 1{x ≥ y})² dx."""

    @classmethod
    @abstractmethod
    def pooled(cls, members: Sequence[Self]) -> Predictive:
        """What several networks say together; called by `ensemble`."""


def ensemble(members: Sequence[Predictive]) -> Predictive:
    """Networks that differ by their seed as one prediction (deep ensembles, Lakshminarayanan et al. 2017).

    Distributions are averaged (quantiles: their values); what the members disagree about is the epistemic part.

    Raises:
        ValueError: no members, members of several kinds or of different records.
    """
    if not members:
        raise ValueError("an ensemble has at least one member")
    kinds = {_family(member) for member in members}
    if len(kinds) > 1:
        raise ValueError(f"members of one kind, not {', '.join(sorted(kind.__name__ for kind in kinds))}")
    if len({member.n for member in members}) > 1:
        raise ValueError(f"members of the same records, not {', '.join(str(member.n) for member in members)}")
    return kinds.pop().pooled(members)


def _family(member: Predictive) -> type[Predictive]:
    return NormalMixture if isinstance(member, NormalMixture) else type(member)


def _disagreement(members: Sequence[Predictive]) -> Floats:
    """`(n,)`: the members' own epistemic variances, averaged, and the variance of their means; its root."""
    own = [np.zeros(member.n) if member.epistemic_sd is None else member.epistemic_sd**2 for member in members]
    both: Floats = np.sqrt(np.mean(own, axis=0) + np.var([member.mean for member in members], axis=0))
    return both


class Point(Predictive):
    """A number without a spread; of a logged target it is the median, not the mean."""

    has_spread = False

    def __init__(self, mean: Floats, epistemic_sd: Floats | None = None) -> None:
        self.mean, self.epistemic_sd = mean, epistemic_sd

    @property
    def sd(self) -> Floats:
        raise NoSpread("a point has no standard deviation")

    def cdf(self, at: float | Floats) -> Floats:
        return (self.mean <= at).astype(np.float64)

    def quantile(self, level: float) -> Floats:
        raise NoSpread("a point has no quantiles")

    def log_density(self, y: Floats) -> Floats:
        raise NoSpread("a point has no density")

    def crps(self, y: Floats) -> Floats:
        """The absolute error, to which the score reduces."""
        return np.abs(y - self.mean)

    @classmethod
    def pooled(cls, members: Sequence[Self]) -> Point:
        return cls(np.mean([member.mean for member in members], axis=0), _disagreement(members))


class NormalMixture(Predictive):
    """Normals with equal weights, one per network.

    Args:
        means, sds: `(member, n)`; the spreads are above 0.
        epistemic_sds: `(member, n)`, the part of each spread that is epistemic already (Laplace), if any.
    """

    def __init__(self, means: Floats, sds: Floats, epistemic_sds: Floats | None = None) -> None:
        if not (np.isfinite(means).all() and np.isfinite(sds).all() and (sds > 0).all()):
            raise ValueError("means are finite, standard deviations finite and above 0")
        self.means, self.sds, self.epistemic_sds = means, sds, epistemic_sds
        self.mean: Floats = means.mean(axis=0)
        own = np.zeros_like(self.mean) if epistemic_sds is None else np.mean(epistemic_sds**2, axis=0)
        one_network = len(means) == 1 and epistemic_sds is None
        self.epistemic_sd = None if one_network else np.sqrt(own + means.var(axis=0))

    @cached_property
    def sd(self) -> Floats:
        total: Floats = np.sqrt(np.mean(self.sds**2, axis=0) + self.means.var(axis=0))
        return total

    def cdf(self, at: float | Floats) -> Floats:
        found: Floats = ndtr((at - self.means) / self.sds).mean(axis=0)
        return found

    def quantile(self, level: float) -> Floats:
        """By bisection between the members' own quantiles, which a single normal's are."""
        own = self.means + self.sds * ndtri(level)
        low, high = own.min(axis=0), own.max(axis=0)
        for _ in range(BISECTIONS if len(own) > 1 else 0):
            middle = (low + high) / 2
            below = self.cdf(middle) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        between: Floats = (low + high) / 2
        return between

    def log_density(self, y: Floats) -> Floats:
        z = (y - self.means) / self.sds
        own = -0.5 * (z**2 + LOG_2_PI) - np.log(self.sds)
        found: Floats = logsumexp(own, axis=0) - np.log(len(own))
        return found

    def crps(self, y: Floats) -> Floats:
        """E|Y - y| - E|Y - Y'| / 2 (Grimit et al. 2006, Q J R Meteorol Soc 132:2925)."""
        to_truth = _mean_absolute(y - self.means, self.sds).mean(axis=0)
        pairs = zip(self.means, self.sds, strict=True)
        apart = [_mean_absolute(self.means - mean, np.hypot(self.sds, sd)).mean(axis=0) for mean, sd in pairs]
        found: Floats = to_truth - np.mean(apart, axis=0) / 2
        return found

    @classmethod
    def pooled(cls, members: Sequence[NormalMixture]) -> NormalMixture:
        """Raises ValueError for mixtures of different sizes: their members would not weigh the same."""
        if len({len(member.means) for member in members}) > 1:
            raise ValueError("mixtures of an ensemble have the same number of members")
        some_epistemic = any(member.epistemic_sds is not None for member in members)
        own = [np.zeros_like(m.means) if m.epistemic_sds is None else m.epistemic_sds for m in members]
        means, sds = np.concatenate([m.means for m in members]), np.concatenate([m.sds for m in members])
        return NormalMixture(means, sds, np.concatenate(own) if some_epistemic else None)


class Normal(NormalMixture):
    """Of one network; `epistemic_sd` is the part of `sd` that comes from not knowing its weights, if known."""

    def __init__(self, mean: Floats, sd: Floats, epistemic_sd: Floats | None = None) -> None:
        super().__init__(mean[None], sd[None], None if epistemic_sd is None else epistemic_sd[None])


def _mean_absolute(mean: Floats, sd: Floats) -> Floats:
    """E|X| of a normal X."""
    z = mean / sd
    found: Floats = 2 * sd * np.exp(-0.5 * (z**2 + LOG_2_PI)) + mean * (2 * ndtr(z) - 1)
    return found


class Logged(Predictive):
    """A target whose logarithm is `inner`: log-normals, one per network."""

    def __init__(self, inner: NormalMixture) -> None:
        self.inner = inner
        self.means: Floats = np.exp(inner.means + inner.sds**2 / 2)
        self.mean = self.means.mean(axis=0)
        self.epistemic_sd = None
        if inner.epistemic_sd is not None:
            # of the mean given the network, which is log-normal in what is not known of that network
            own = np.zeros_like(self.means) if inner.epistemic_sds is None else inner.epistemic_sds
            unsure = self.means**2 * np.expm1(own**2)
            self.epistemic_sd = np.sqrt(unsure.mean(axis=0) + self.means.var(axis=0))

    @cached_property
    def sd(self) -> Floats:
        within = self.means**2 * np.expm1(self.inner.sds**2)
        total: Floats = np.sqrt(within.mean(axis=0) + self.means.var(axis=0))
        return total

    def cdf(self, at: float | Floats) -> Floats:
        return self.inner.cdf(_log(at))

    def quantile(self, level: float) -> Floats:
        return np.exp(self.inner.quantile(level))

    def log_density(self, y: Floats) -> Floats:
        """Change of variables: that of log y, less log y; -inf where y is not above 0."""
        inside = y > 0
        log_y = np.log(np.where(inside, y, 1.0))
        return np.where(inside, self.inner.log_density(log_y) - log_y, -np.inf)

    def crps(self, y: Floats) -> Floats:
        """E|Y - y| - E|Y - Y'| / 2, each from the partial means of log-normals (Baran & Lerch 2015, Q J R Meteorol Soc
        141:2289, for one; E|Y - Y'| = E max - E min for two)."""
        mu, sigma = self.inner.means, self.inner.sds
        z = (_log(y) - mu) / sigma
        to_truth = y * (2 * ndtr(z) - 1) + self.means * (1 - 2 * ndtr(z - sigma))
        apart = np.zeros_like(self.mean)
        for m, s, mean in zip(mu, sigma, self.means, strict=True):
            both = np.hypot(sigma, s)
            first = self.means * (2 * ndtr((mu - m + sigma**2) / both) - 1)
            second = mean * (2 * ndtr((m - mu + s**2) / both) - 1)
            apart += (first + second).mean(axis=0) / len(mu)
        found: Floats = to_truth.mean(axis=0) - apart / 2
        return found

    @classmethod
    def pooled(cls, members: Sequence[Self]) -> Logged:
        return cls(NormalMixture.pooled([member.inner for member in members]))


def _log(y: float | Floats) -> Floats:
    """-inf where y is not above 0."""
    values = np.asarray(y, dtype=np.float64)
    return np.log(values, out=np.full_like(values, -np.inf), where=values > 0)


class Piecewise(Predictive):
    """A distribution function that is linear between knots, with exponential tails outside.

    Args:
        knots: `(n or 1, knot)`, ascending.
        levels: `(n or 1, knot)`, its values there: the tails hold `levels[:, 0]` and `1 - levels[:, -1]`.
        tails: `(n or 1, 2)`, mean distance of what lies below the first and above the last knot.
        epistemic_sd: `(n,)`, if members of an ensemble disagreed.
    """

    def __init__(self, knots: Floats, levels: Floats, tails: Floats, epistemic_sd: Floats | None) -> None:
        n = max(len(knots), len(levels))
        self._knots = np.broadcast_to(knots, (n, knots.shape[1]))
        self._levels = np.broadcast_to(levels, self._knots.shape)
        self._tails = np.broadcast_to(tails, (n, 2))
        if not (np.diff(knots) > 0).all():
            raise ValueError("knots ascend")
        self.epistemic_sd = epistemic_sd
        inner = (self._knots[:, 1:] + self._knots[:, :-1]) / 2
        ends = self._knots[:, [0, -1]] + self._tails * [-1, 1]
        self._centres = np.concatenate([ends[:, :1], inner, ends[:, 1:]], axis=1)
        self._masses = np.diff(self._levels, axis=1, prepend=0.0, append=1.0)
        self.mean: Floats = (self._masses * self._centres).sum(axis=1)

    @cached_property
    def sd(self) -> Floats:
        widths = np.diff(self._knots)
        own = np.concatenate([self._tails[:, :1] ** 2, widths**2 / 12, self._tails[:, 1:] ** 2], axis=1)
        spread: Floats = np.sqrt((self._masses * (own + (self._centres - self.mean[:, None]) ** 2)).sum(axis=1))
        return spread

    def _piece(self, at: Floats) -> npt.NDArray[np.intp]:
        """`(n, 1)`: 0 below the knots, j between knot j - 1 and j, the number of knots above; a knot ends its piece."""
        found = (self._knots < at[:, None]).sum(axis=1)
        return np.where(at == self._knots[:, 0], 1, found)[:, None]

    def _outside(self, at: Floats) -> Floats:
        """`(n, 2)`: how many tail lengths a value lies below the first or above the last knot; 0 inside."""
        past = np.maximum((self._knots[:, [0, -1]] - at[:, None]) * [1, -1], 0)
        return past / self._tails

    def cdf(self, at: float | Floats) -> Floats:
        values = np.broadcast_to(np.asarray(at, dtype=np.float64), self.mean.shape)
        piece, outside = self._piece(values), np.exp(-self._outside(values))
        j = np.clip(piece, 1, self._knots.shape[1] - 1)
        (x, x1), (level, level1) = _ends(self._knots, j), _ends(self._levels, j)
        inside = level + (level1 - level) * (values - x) / (x1 - x)
        below, above = self._masses[:, 0] * outside[:, 0], 1 - self._masses[:, -1] * outside[:, 1]
        return np.select([piece[:, 0] == 0, piece[:, 0] == self._knots.shape[1]], [below, above], inside)

    def quantile(self, level: float) -> Floats:
        piece = (self._levels < level).sum(axis=1)[:, None]
        j = np.clip(piece, 1, self._knots.shape[1] - 1)
        (x, x1), (at, at1) = _ends(self._knots, j), _ends(self._levels, j)
        low, high = self._masses[:, 0], self._masses[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):  # pieces without mass, which are not chosen
            inside = x + (x1 - x) * (level - at) / (at1 - at)
            below = self._knots[:, 0] + self._tails[:, 0] * np.log(level / low)
            above = self._knots[:, -1] - self._tails[:, 1] * np.log((1 - level) / high)
        return np.select([piece[:, 0] == 0, piece[:, 0] == self._knots.shape[1]], [below, above], inside)

    def log_density(self, y: Floats) -> Floats:
        """-inf where there is no mass."""
        lengths = np.concatenate([self._tails[:, :1], np.diff(self._knots), self._tails[:, 1:]], axis=1)
        piece = self._piece(y)
        mass, length = (np.take_along_axis(of, piece, axis=1)[:, 0] for of in (self._masses, lengths))
        with np.errstate(divide="ignore"):
            found: Floats = np.log(mass) - np.log(length) - self._outside(y).sum(axis=1)
        return found

    def crps(self, y: Floats) -> Floats:
        """The integral piece by piece: quadratics inside, exponentials outside."""
        x, level = self._knots, self._levels
        split = np.clip(y[:, None], x[:, :-1], x[:, 1:])
        at_split = level[:, :-1] + np.diff(level) * (split - x[:, :-1]) / np.diff(x)
        left = (split - x[:, :-1]) * _mean_square(level[:, :-1], at_split)
        right = (x[:, 1:] - split) * _mean_square(1 - at_split, 1 - level[:, 1:])
        mass, outside = self._masses[:, [0, -1]], self._outside(y)
        # a tail of mass m and length s integrates to m² s / 2; between it and a truth beyond it 1 - F takes F's place
        tails = self._tails * (outside - 2 * mass * -np.expm1(-outside) + mass**2 / 2)
        found: Floats = (left + right).sum(axis=1) + tails.sum(axis=1)
        return found


def _ends(of: Floats, j: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """`(n,)` twice: the values at the start and the end of piece j `(n, 1)`."""
    start, end = (np.take_along_axis(of, at, axis=1)[:, 0] for at in (j - 1, j))
    return start, end


def _mean_square(a: Floats, b: Floats) -> Floats:
    """Of a line from a to b."""
    found: Floats = (a * a + a * b + b * b) / 3
    return found


class Histogram(Piecewise):
    """Probabilities of buckets, uniform within each.

    Args:
        edges: `(k + 1,)` in the unit, the same for all records.
        p: `(n, k)`.
        tails: mean distances from the outer buckets' inner edges, if these fall off exponentially from there instead of
            ending at the outer edges.

    Raises:
        ValueError: probabilities that are negative or do not sum to 1, or tails of a single bucket.
    """

    def __init__(
        self,
        edges: Floats,
        p: Floats,
        tails: tuple[float, float] | None = None,
        epistemic_sd: Floats | None = None,
    ) -> None:
        if p.shape[1] != len(edges) - 1 or (p < 0).any() or not np.allclose(p.sum(axis=1), 1, rtol=0, atol=1e-6):
            raise ValueError(f"{len(edges) - 1} buckets need as many probabilities per record, which sum to 1")
        if tails is not None and len(edges) < 3:
            raise ValueError("a single bucket has no inner edge for tails to fall off from")
        self.edges, self.p, self.tails = edges, p / p.sum(axis=1, keepdims=True), tails
        levels = np.concatenate([np.zeros((len(p), 1)), np.minimum(np.cumsum(self.p, axis=1), 1.0)], axis=1)
        levels[:, -1] = 1.0
        inner = slice(None) if tails is None else slice(1, -1)
        super().__init__(edges[None, inner], levels[:, inner], np.array([tails or (1.0, 1.0)]), epistemic_sd)

    @classmethod
    def pooled(cls, members: Sequence[Self]) -> Histogram:
        """Raises ValueError for members with other buckets."""
        first = members[0]
        if any(not np.array_equal(m.edges, first.edges) or m.tails != first.tails for m in members):
            raise ValueError("histograms of an ensemble have the same buckets")
        return cls(first.edges, np.mean([m.p for m in members], axis=0), first.tails, _disagreement(members))


class Quantiles(Piecewise):
    """Values at given probabilities: linear between them, tails that continue the density at either end.

    Values that cross are sorted, which never makes them worse (Chernozhukov et al. 2010, Econometrica 78:1093). An
    ensemble averages the values, so that what its members disagree about stands beside the spread, not in it.

    Args:
        levels: `(q,)`, ascending, at least two.
        values: `(n, q)` in the unit.
    """

    def __init__(self, levels: Floats, values: Floats, epistemic_sd: Floats | None = None) -> None:
        if len(levels) < 2 or values.shape[1] != len(levels):
            raise ValueError(f"{len(levels)} levels, {values.shape[1]} values: as many of each, at least two")
        self.levels, self.values = levels, np.sort(values, axis=1)
        # equal values would be a lump of probability without a density: they are told apart at the ninth digit
        steps = 1e-9 * max(float(np.abs(values).max(initial=0)), 1e-300) * np.arange(len(levels))
        knots = np.maximum.accumulate(self.values - steps, axis=1) + steps
        low, high = knots[:, 1] - knots[:, 0], knots[:, -1] - knots[:, -2]
        tails = np.stack(
            [levels[0] * low / (levels[1] - levels[0]), (1 - levels[-1]) * high / (levels[-1] - levels[-2])], axis=1
        )
        super().__init__(knots, levels[None], tails, epistemic_sd)

    @property
    def aleatoric_sd(self) -> Floats:
        return self.sd

    @classmethod
    def pooled(cls, members: Sequence[Self]) -> Quantiles:
        """Raises ValueError for members with other levels."""
        first = members[0]
        if any(not np.array_equal(m.levels, first.levels) for m in members):
            raise ValueError("quantiles of an ensemble have the same levels")
        return cls(first.levels, np.mean([m.values for m in members], axis=0), _disagreement(members))
