"""Sparsification: does the error fall when the least certain records are left out?

The records are sorted by their uncertainty, the certain ones first, and the mean error of the first share of them is
drawn against that share. The oracle sorts by the error itself; an uncertainty that knows nothing of the errors leaves
the mean error as it is. The areas between the three say how good a sorting is (Ilg et al. 2018; Poggi et al. 2020).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.integrate import trapezoid

from ecgscale.concentrations.estimate import Estimate
from ecgscale.concentrations.predictive import Predictive
from ecgscale.resampling import Floats
from ecgscale.spec_base import Spec

Uncertainty = Literal["total", "aleatoric", "epistemic"]

KEPT = np.linspace(0.05, 1.0, 20)
"""Shares of the records that are kept. Below the first, too few records are left for a mean."""


class Sorting:
    """Records sorted by an uncertainty; those that are equally certain are kept together or in part, never one by one.

    Args:
        error: `(record,)`, not negative, in any unit.
        uncertainty: `(record,)`; only its order counts.
    """

    def __init__(self, error: Floats, uncertainty: Floats) -> None:
        self._order = np.argsort(uncertainty, kind="stable")
        self._error = error[self._order]
        ordered = uncertainty[self._order]
        # where a run of equal uncertainties ends; between such ends the curve is that of a random order
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)

    def curve(self, weights: Floats) -> Floats:
        """Mean error of the most certain records `(KEPT, sample)` under weights `(record, sample)`."""
        ordered = weights[self._order]
        n_kept = np.cumsum(ordered, axis=0)[self._ends]
        summed = np.cumsum(ordered * self._error[:, None], axis=0)[self._ends]
        columns = zip(n_kept.T, summed.T, strict=True)
        return np.stack([_first_shares(n, total) for n, total in columns], axis=1)


def _first_shares(n_kept: Floats, summed: Floats) -> Floats:
    """Mean error `(KEPT,)` from the cumulated weights and errors at the ends of the runs."""
    if not n_kept[-1] > 0:
        return np.full(len(KEPT), np.nan)
    wanted = KEPT * n_kept[-1]
    means: Floats = np.interp(wanted, np.append(0.0, n_kept), np.append(0.0, summed)) / wanted
    return means


def areas(curve: Floats, oracle: Floats) -> dict[str, Floats]:
    """Areas over the kept share, `(sample,)` each, of curves `(KEPT, sample)`.

    `ause` lies between the curve and the oracle, `aurg` between the random order, whose error stays what it is of all
    records, and the curve; both in the unit of the error. `share` is ause / (ause + aurg): 0 is the oracle, 1 a random
    order, above 1 the certain records are the wrong ones.
    """
    ause = trapezoid(curve - oracle, KEPT, axis=0)
    aurg = trapezoid(curve[-1] - curve, KEPT, axis=0)
    best = ause + aurg
    return {"ause": ause, "aurg": aurg, "share": np.divide(ause, best, out=np.full_like(best, np.nan), where=best > 0)}


class SparsificationScores(Spec):
    """Mean absolute error of the `kept` most certain records, the oracle's, and the areas between (`areas`)."""

    uncertainty: Uncertainty
    kept: tuple[float, ...]
    mae: tuple[Estimate, ...]
    oracle: tuple[Estimate, ...]
    ause: Estimate
    aurg: Estimate
    share: Estimate


class Sparsification:
    """The absolute errors of a predictive's mean, sorted by every uncertainty that it states."""

    def __init__(self, truth: Floats, predictive: Predictive) -> None:
        error = np.abs(predictive.mean - truth)
        self._oracle = Sorting(error, error)
        stated: dict[Uncertainty, Floats] = {}
        if predictive.has_spread:
            stated |= {"total": predictive.sd, "aleatoric": predictive.aleatoric_sd}
        if predictive.epistemic_sd is not None:
            stated["epistemic"] = predictive.epistemic_sd
        elif predictive.has_spread:
            del stated["aleatoric"]  # it is the total
        self._sortings = {name: Sorting(error, uncertainty) for name, uncertainty in stated.items()}

    def measured(self, weights: Floats) -> dict[str, Floats]:
        """`oracle` and, by uncertainty, `total_mae` … `(KEPT, sample)`, `total_ause`, `total_aurg` … `(sample,)`."""
        if not self._sortings:
            return {}
        found = {"oracle": self._oracle.curve(weights)}
        for name, sorting in self._sortings.items():
            curve = sorting.curve(weights)
            found[f"{name}_mae"] = curve
            found |= {f"{name}_{area}": of for area, of in areas(curve, found["oracle"]).items()}
        return found

    def scores(self, samples: dict[str, Floats]) -> tuple[SparsificationScores, ...]:
        return tuple(
            SparsificationScores(
                uncertainty=name,
                kept=tuple(KEPT.tolist()),
                mae=tuple(map(Estimate.of, samples[f"{name}_mae"])),
                oracle=tuple(map(Estimate.of, samples["oracle"])),
                **{area: Estimate.of(samples[f"{name}_{area}"]) for area in ("ause", "aurg", "share")},
            )
            for name in self._sortings
        )
