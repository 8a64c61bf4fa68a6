"""What is predicted and by what head, as a sweep declares it. One `HeadSpec` is one column of a head × target table.

A head that is meant for several targets takes its edges from the target (`quantile`, `width`, or the target's own
clinical cut-offs); edges that are written out are in the unit of one target.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from ecgscale.spec_base import Name, Spec

Kind = Literal["mse", "huber", "gaussian", "quantile", "softmax", "cumulative", "coral", "corn", "binary"]
Weighting = Literal["none", "inverse_frequency", "smoothed_density"]
BucketRule = Literal["quantile", "width", "cuts", "lowest_cut", "highest_cut"]

CLASS_KINDS = ("softmax", "cumulative", "coral", "corn", "binary")
"""Kinds that predict the bucket of a concentration; all others predict the number itself."""


class TargetSpec(Spec):
    """One concentration: a column of the population's index, in one unit."""

    name: Name
    column: str
    unit: str
    """For people; nothing is converted here."""
    log: bool = False
    """Whether the network sees log(value): for targets with a long upper tail, such as creatinine."""
    cuts: tuple[float, ...] = ()
    """Clinical cut-offs in the unit, ascending: at them regressors and classifiers are compared as classifiers."""
    missing_values: tuple[float, ...] = ()
    """Values that stand for "not known", besides an empty cell."""

    @model_validator(mode="after")
    def _cuts_ascend(self) -> TargetSpec:
        _ascending(self.cuts, f"target {self.name}: `cuts`")
        if self.log and self.cuts and self.cuts[0] <= 0:
            raise ValueError(f"target {self.name}: `cuts` of a target with `log` are above 0, not {self.cuts[0]:g}")
        return self


class HeadSpec(Spec):
    """What a network says about a concentration, and what it is trained by.

    mse, huber: one number. gaussian: mean and log-variance. quantile: one number per level. softmax: a probability per
    bucket. cumulative: one logit per inner edge, each with its own weights (Frank & Hall 2001, Niu et al. 2016); coral:
    the same with one shared weight vector (Cao et al. 2020); corn: conditional probabilities (Shi et al. 2023);
    binary: above one edge or not.
    """

    name: Name
    kind: Kind
    classes: int | None = Field(default=None, ge=2)
    """Number of buckets when the training values decide where they are; edges and cut-offs say it themselves."""
    buckets: BucketRule | tuple[float, ...] | None = None
    """Where the classes meet: training quantiles, equal widths, the target's cut-offs (all, the lowest or the highest),
    or the inner edges in the unit of the target."""
    levels: tuple[float, ...] = ()
    """Quantile heads: the probabilities, ascending."""
    huber_delta: float | None = Field(default=None, gt=0)
    """Huber heads: where squared becomes absolute error, in standard deviations of the target."""
    burn_in: float = Field(default=0.0, ge=0, lt=1)
    """Gaussian heads: share of the training during which the variance is held at that of the target."""
    weights: Weighting = "none"
    """How much a training record counts: equally, or more where the target is rare."""
    max_weight: float | None = Field(default=None, ge=1)
    """With `weights`: where they are cut off, in multiples of the average one."""
    age_and_sex: bool = False
    """Whether the head sees age and sex besides the ECG."""

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> HeadSpec:
        where = f"head {self.name}:"
        for field, wanted in (("levels", "quantile"), ("huber_delta", "huber")):
            if bool(getattr(self, field)) != (self.kind == wanted):
                raise ValueError(f"{where} `{field}` is for, and needed by, kind {wanted}; this is kind {self.kind}")
        if self.burn_in and self.kind != "gaussian":
            raise ValueError(f"{where} `burn_in` is for kind gaussian; kind {self.kind} has no variance")
        if (self.weights == "none") != (self.max_weight is None):
            raise ValueError(f"{where} `max_weight` goes with `weights`, one without the other means nothing")
        _ascending(self.levels, f"{where} `levels`")
        if len(self.levels) == 1:
            raise ValueError(f"{where} `levels` are at least two: one is no distribution")
        if any(not 0 < level < 1 for level in self.levels):
            raise ValueError(f"{where} `levels` lie between 0 and 1")
        return self

    @model_validator(mode="after")
    def _buckets_fit_the_kind(self) -> HeadSpec:
        where = f"head {self.name}:"
        if self.kind not in CLASS_KINDS:
            if self.buckets is not None or self.classes is not None:
                raise ValueError(f"{where} kind {self.kind} predicts a number: it has no `buckets` and no `classes`")
            return self
        if self.buckets is None:
            raise ValueError(f"{where} kind {self.kind} needs `buckets`")
        if (self.buckets in ("quantile", "width")) != (self.classes is not None):
            raise ValueError(f"{where} `classes` goes with `buckets: quantile` and `width`; edges say it themselves")
        if isinstance(self.buckets, tuple):
            _ascending(self.buckets, f"{where} `buckets`")
            if not self.buckets:
                raise ValueError(f"{where} `buckets` has no edge")
        one_edge = self.buckets in ("lowest_cut", "highest_cut") or self.classes == 2
        if self.kind == "binary" and not (one_edge or (isinstance(self.buckets, tuple) and len(self.buckets) == 1)):
            raise ValueError(f"{where} `buckets` of kind binary is one edge, `lowest_cut` or `highest_cut`")
        return self

    @property
    def predicts_classes(self) -> bool:
        return self.kind in CLASS_KINDS


def _ascending(values: tuple[float, ...], what: str) -> None:
    for low, high in pairwise(values):
        if low >= high:
            raise ValueError(f"{what} ascend; {high:g} comes after {low:g}")
