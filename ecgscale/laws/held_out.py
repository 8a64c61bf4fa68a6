"""Does a law predict what it has not seen: an expanding window over the levels of an axis, smallest first.

Every window trains on all points up to a level and predicts all points above it, so the largest level is held out in
each. Beside the law stand two predictors that need no law; one that does not beat them has shown nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import as_json, axis_index
from ecgscale.laws.estimate import fit
from ecgscale.laws.forms import Law, get_law
from ecgscale.laws.observations import Observations, observe
from ecgscale.laws.result import FitStatus, LawFit

PREDICTORS = ("law", "best_so_far", "floor_free")


@dataclass(frozen=True)
class HeldOut:
    """One point that a window did not see. Errors are predicted / true − 1, nan where the law could not be fitted.

    Attributes:
        x: The variables of the point, in the order of the law.
        distance: log of its place on the axis over the largest one trained on: what the summary weights by.
        best_so_far: Error of the smallest loss of the training points: "nothing improves any more".
        floor_free: Error of the power law without a floor in all variables at once, K·Π x^−s, a straight plane in
            logs by least squares on the same training points: "it goes on like this".
    """

    x: tuple[float, ...]
    loss: float
    distance: float
    law: float
    best_so_far: float
    floor_free: float


@dataclass(frozen=True)
class Window:
    """One training set: all points up to the n-th level of the axis, and what it said of those above.

    Attributes:
        reason: Why the law could not be fitted; None if it was.
        flags: Of the fit.
    """

    n_levels: int
    up_to: float
    n_points: int
    theta: dict[str, float] | None
    flags: tuple[str, ...]
    reason: str | None
    points: tuple[HeldOut, ...]


@dataclass(frozen=True)
class HoldOut:
    """All windows of an axis, and the mean absolute relative error of every predictor.

    Attributes:
        error: Per predictor, over the points for which the law has a prediction (so that all are judged on the same),
            weighted by distance: a point a decade away counts twice as much as one half a decade away, for far is
            where a law is needed. nan if the law was never fitted.
        bias: The same mean of the signed errors.
        largest: The same absolute error for the points of the largest level in the last window, unweighted.
        flags: `largest_not_predicted` (no fit on all levels but the last), `not_better_than:NAME`.
    """

    law: str
    axis: str
    windows: tuple[Window, ...]
    error: dict[str, float]
    bias: dict[str, float]
    largest: dict[str, float]
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return as_json(self)  # type: ignore[no-any-return]


def hold_out(
    law: Law | str,
    *columns: ArrayLike,
    axis: str | None = None,
    weights: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    objective: str = "huber",
    delta: float | None = None,
    bounded: tuple[float, float] | None = None,
) -> HoldOut:
    """Train on the small, predict the large: `hold_out("chinchilla", n, d, loss, axis="N")`.

    Args:
        law: A name or a law.
        columns: Its variables in order, then the loss.
        axis: The variable whose levels are held out, in either case. Default: the first.
        weights, runs, objective, delta, bounded: As in `fit`; delta None is found anew in every window.

    Raises:
        FitError: An unknown axis, or one with a single level: nothing is left to predict.
    """
    law = get_law(law, bounded)
    which = axis_index(law, axis)
    table = observe(law, columns, weights, runs)
    windows = tuple(
        _window(law, table, which, n_levels, objective, delta) for n_levels in range(1, table.n_levels()[which])
    )
    judged = [point for window in windows if window.reason is None for point in window.points]
    error = {name: _mean(judged, name, absolute=True) for name in PREDICTORS}
    flags = [] if windows[-1].reason is None else ["largest_not_predicted"]
    flags += [f"not_better_than:{name}" for name in PREDICTORS[1:] if error["law"] >= error[name]]
    last = windows[-1].points if windows[-1].reason is None else ()
    return HoldOut(
        law=law.name,
        axis=law.variables[which],
        windows=windows,
        error=error,
        bias={name: _mean(judged, name, absolute=False) for name in PREDICTORS},
        largest={
            name: float(np.mean([abs(getattr(p, name)) for p in last])) if last else math.nan for name in PREDICTORS
        },
        flags=tuple(flags),
    )


def _window(law: Law, table: Observations, axis: int, n_levels: int, objective: str, delta: float | None) -> Window:
    seen = table.levels[axis] < n_levels
    trained, reason = _fit_or_reason(law, table, seen, law.variables[axis], objective, delta)
    up_to = float(table.variables[axis, seen].max())
    x, loss = table.variables[:, ~seen], _natural(law, table.loss[~seen])
    predicted = np.full(len(loss), np.nan) if trained is None else law.loss(trained.theta, *x)
    errors = {
        "law": predicted / loss - 1,
        "best_so_far": _natural(law, table.loss[seen].min()) / loss - 1,
        "floor_free": _natural(law, _floor_free(table, seen, x)) / loss - 1,
    }
    distance = np.log(x[axis] / up_to)
    points = tuple(
        HeldOut(
            x=tuple(x[:, i].tolist()),
            loss=float(loss[i]),
            distance=float(distance[i]),
            **{name: float(errors[name][i]) for name in PREDICTORS},
        )
        for i in range(len(loss))
    )
    theta, flags = (None, ()) if trained is None else (trained.theta, trained.flags)
    return Window(n_levels, up_to, int(seen.sum()), theta, flags, reason, points)


def _fit_or_reason(
    law: Law, table: Observations, seen: Any, axis: str, objective: str, delta: float | None
) -> tuple[LawFit | None, str | None]:
    """The law on the training points, or why there is none: what a design can't hold is not extrapolated."""
    try:
        found = fit(
            law,
            *table.variables[:, seen],
            _natural(law, table.loss[seen]),
            weights=table.weights[seen],
            runs=table.runs[seen],
            objective=objective,
            delta=delta,
            bootstrap=0,
        )
    except FitError as error:
        return None, str(error)
    if found.status in (FitStatus.ABNORMAL, FitStatus.ITERATION_LIMIT):
        return None, f"the search ended without an optimum ({found.status.value})"
    if f"too_few_levels:{axis}" in found.flags:
        return None, f"two levels of {axis} can't tell coefficient, exponent and floor apart"
    return found, None


def _natural(law: Law, loss: FloatArray) -> FloatArray:
    """Losses as they were given: the table of a bounded metric holds its odds."""
    return loss if law.link is None else law.link.from_odds(loss)


def _floor_free(table: Observations, seen: Any, x: FloatArray) -> FloatArray:
    """K·Π x^−s by least squares of logs; a variable with one level has no say (the least-norm slope of zero)."""
    log_x, log_loss = np.log(table.variables[:, seen]), np.log(table.loss[seen])
    centre, root = log_x.mean(axis=1, keepdims=True), np.sqrt(table.weights[seen])
    design = np.concatenate((np.ones((1, log_x.shape[1])), log_x - centre))
    coefficients = np.linalg.lstsq((design * root).T, log_loss * root, rcond=1e-10)[0]
    return np.asarray(np.exp(coefficients[0] + coefficients[1:] @ (np.log(x) - centre)))


def _mean(points: Sequence[HeldOut], predictor: str, absolute: bool) -> float:
    if not points:
        return math.nan
    errors = np.array([getattr(point, predictor) for point in points])
    return float(np.average(np.abs(errors) if absolute else errors, weights=[point.distance for point in points]))
