"""The scale on which a network learns a concentration, and where its buckets lie; fitted on training values only.

Buckets are half-open, `low < value <= high`, so that class k means "above edge k", as the ordinal heads ask it. Within
a bucket a value is taken to be distributed as the training values of that bucket are: the mean of a bucket is theirs,
and heads with few and with many classes can be compared as regressors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.predictive import Floats, Histogram
from ecgscale.errors import DataError

N_BINS, FEWEST_IN_BIN = 32, 10
"""Bins of equal counts that describe the training values, and how many values each holds at least (our choice)."""

FEWEST_VALUES = 2 * FEWEST_IN_BIN

WIDTH_RANGE = (0.005, 0.995)
"""Training quantiles between which buckets of equal width divide the target, so that neither end is empty (our
choice; the two outer buckets take what lies beyond)."""

NARROWEST_TAIL = 0.01
"""In standard deviations of the target: the training values of an outer bin may all lie on its edge."""


@dataclass(frozen=True)
class TargetScale:
    """Attributes:
    log: whether the network sees log(value).
    mean, sd: of the (logged) training values.
    edges: `classes + 1` in the unit; the outer ones are the smallest and the largest training value, beyond which the
        outer buckets go on. Two of them for a head that predicts the number.
    bins: finer edges, those of the buckets among them; no bin is empty.
    shares: of the training values in each bin.
    tails: mean distance of the values in the outer bins from their inner edges.
    """

    log: bool
    mean: float
    sd: float
    edges: tuple[float, ...]
    bins: tuple[float, ...]
    shares: tuple[float, ...]
    tails: tuple[float, float]

    @classmethod
    def fit(cls, values: Floats, target: TargetSpec, head: HeadSpec) -> Self:
        """On training values `(n,)` in the unit.

        Raises:
            DataError: too few values, values that aren't finite, all the same, or not above 0 where the logarithm is
                asked for; cut-offs that the target doesn't have, buckets without a training value.
        """
        where = f"target {target.name}"
        if len(values) < FEWEST_VALUES or not np.isfinite(values).all():
            raise DataError(f"{where}: training needs at least {FEWEST_VALUES} values, all of them finite")
        if target.log and values.min() <= 0:
            raise DataError(f"{where}: {int((values <= 0).sum())} values are not above 0, so `log` is impossible")
        seen = np.log(values) if target.log else values
        if values.min() == values.max():
            raise DataError(f"{where}: all {len(values)} training values are {values[0]:g}")
        inner = _inner_edges(values, target, head)
        by_class = [values[np.searchsorted(inner, values) == k] for k in range(len(inner) + 1)]
        empty = [k for k, own in enumerate(by_class) if not len(own)]
        if empty:
            names = ["below", *(f"{edge:g}" for edge in inner), "above"]
            between = f"{names[empty[0]]} to {names[empty[0] + 1]} {target.unit}"
            raise DataError(f"{where}, head {head.name}: no training value in the bucket {between}")
        fine = [inner]
        for own in by_class:
            n_bins = min(round(N_BINS * len(own) / len(values)), len(own) // FEWEST_IN_BIN)
            fine.append(_between(own, n_bins))
        within = np.sort(np.concatenate(fine))
        shares = np.bincount(np.searchsorted(within, values), minlength=len(within) + 1) / len(values)
        below, above = within[0] - values[values <= within[0]], values[values > within[-1]] - within[-1]
        narrowest = NARROWEST_TAIL * float(values.std())
        return cls(
            log=target.log,
            mean=float(seen.mean()),
            sd=float(seen.std()),
            edges=_with_ends(inner, values),
            bins=_with_ends(within, values),
            shares=tuple(shares.tolist()),
            tails=(max(float(below.mean()), narrowest), max(float(above.mean()), narrowest)),
        )

    @property
    def n_classes(self) -> int:
        """1 for a head that predicts the number."""
        return len(self.edges) - 1

    def to_model(self, values: Floats) -> Floats:
        """Unit → standard deviations from the training mean."""
        z: Floats = ((np.log(values) if self.log else values) - self.mean) / self.sd
        return z

    def to_unit(self, z: Floats) -> Floats:
        values = self.mean + self.sd * z
        return np.exp(values) if self.log else values

    def classes(self, values: Floats) -> npt.NDArray[np.intp]:
        """The number of inner edges that each value lies above."""
        return np.searchsorted(self.edges[1:-1], values)

    def trained_on(self, values: Floats) -> npt.NDArray[np.float32]:
        """What the head is given as truth: the number of the class, or the standardised value."""
        return (self.classes(values) if self.n_classes > 1 else self.to_model(values)).astype(np.float32)

    def histogram(self, p: Floats) -> Histogram:
        """Probabilities of the classes `(n, classes)` → a distribution in the unit."""
        shares = np.array(self.shares)
        of_bin = self.classes(np.array(self.bins[1:]))
        in_class = shares / np.bincount(of_bin, weights=shares)[of_bin]
        return Histogram(np.array(self.bins), p[:, of_bin] * in_class, self.tails)

    def marginal(self, n: int) -> Histogram:
        """The distribution of the training values, said of n records: what a constant predictor knows."""
        return Histogram(np.array(self.bins), np.tile(self.shares, (n, 1)), self.tails)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Of what JSON gives back: lists for tuples."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**given)


def _inner_edges(values: Floats, target: TargetSpec, head: HeadSpec) -> Floats:
    """Where the classes meet, `(classes - 1,)` in the unit; none for a head that predicts the number."""
    if not head.predicts_classes:
        return np.empty(0)
    if isinstance(head.buckets, tuple):
        return np.array(head.buckets)
    if head.classes is None:
        if not target.cuts:
            raise DataError(f"head {head.name} has `buckets: {head.buckets}`, but target {target.name} has no `cuts`")
        chosen = {"lowest_cut": target.cuts[:1], "highest_cut": target.cuts[-1:]}
        return np.array(chosen.get(str(head.buckets), target.cuts))
    if head.buckets == "width":
        low, high = np.quantile(values, WIDTH_RANGE)
        return np.linspace(low, high, head.classes + 1)[1:-1]
    edges = _between(values, head.classes)
    if len(edges) < head.classes - 1:
        raise DataError(
            f"target {target.name}, head {head.name}: {len(np.unique(values))} distinct training values do not give "
            f"{head.classes} buckets by quantiles"
        )
    return edges


def _between(values: Floats, n_parts: int) -> Floats:
    """Edges of parts with equal counts, midway between neighbouring values; fewer parts where many are the same."""
    distinct = np.unique(values)
    if len(distinct) < 2 or n_parts < 2:
        return np.empty(0)
    cuts = np.quantile(values, np.arange(1, n_parts) / n_parts)
    after = np.clip(np.searchsorted(distinct, cuts, side="right"), 1, len(distinct) - 1)
    return np.unique((distinct[after - 1] + distinct[after]) / 2)


def _with_ends(inner: Floats, values: Floats) -> tuple[float, ...]:
    return tuple(map(float, (values.min(), *inner, values.max())))


@dataclass(frozen=True)
class AgeAndSexScale:
    """Age and sex as a head sees them: standardised by the training records, 0 where unknown.

    Attributes:
        mean, sd: of the age in years and of being male (0 or 1).
    """

    mean: tuple[float, float]
    sd: tuple[float, float]

    @classmethod
    def fit(cls, age_years: Floats, is_male: Floats) -> Self:
        """On training records `(n,)`, NaN where unknown.

        Raises:
            DataError: nobody's age, or nobody's sex, is known.
        """
        both = np.stack([age_years, is_male], axis=1)
        if np.isnan(both).all(axis=0).any():
            raise DataError("`age_and_sex`: nobody's age, or nobody's sex, is known in training")
        mean, sd = np.nanmean(both, axis=0), np.nanstd(both, axis=0)
        sd[sd == 0] = 1.0
        return cls((float(mean[0]), float(mean[1])), (float(sd[0]), float(sd[1])))

    def to_model(self, age_years: Floats, is_male: Floats) -> npt.NDArray[np.float32]:
        """`(n, 2)`."""
        z = (np.stack([age_years, is_male], axis=1) - self.mean) / self.sd
        return np.nan_to_num(z, nan=0.0).astype(np.float32)
