"""One set of points, one law: the fit with everything that follows from it, or the reason why there is none.

Whoever chooses the points (`study.py` from a results folder, `tables.py` from anybody's table) gets the same treatment
of them: estimate, hold-out, frontier, what limits the loss, and objectives side by side when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ecgscale.errors import FitError
from ecgscale.laws import (
    DataLimited,
    Frontier,
    HoldOut,
    LawFit,
    PairFit,
    SideBySide,
    compute_frontier,
    data_limited,
    fit,
    fit_pair,
    fit_pair_with_floors,
    fit_side_by_side,
    hold_out,
)
from ecgscale.laws.arrays import FloatArray

Cost = Callable[[FloatArray, FloatArray], FloatArray]
"""Training FLOPs of (n, d)."""


@dataclass(frozen=True)
class Method:
    """How laws are fitted; see `ecgscale.laws.fit`."""

    objective: str = "huber"
    delta: float | None = None
    bootstrap: int = 1000
    seed: int = 0
    drop_highest: int = 0
    """Rows with the highest losses of a group of a table that are left out."""
    side_by_side: bool = False
    """Fit with every objective, and flag where they disagree."""

    def options(self) -> dict[str, Any]:
        """What `fit` and `fit_pair` take of it."""
        return {"objective": self.objective, "delta": self.delta, "bootstrap": self.bootstrap, "seed": self.seed}


@dataclass(frozen=True)
class Fitted:
    """One law of one group and target; `fit` is None and `refused` says why when there is no estimate."""

    group: str
    target: str
    kind: str
    """`L(N, D)`, `L(N)`, `L(D)`, or `y(x)` for a one-variable law of a table."""
    law: str
    points: pd.DataFrame
    """The rows used: the variables (n, d or x), loss, and weight and run where rows have them."""
    fit: LawFit | None
    refused: str | None = None
    excluded: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Reason → lines of the table that were left out."""
    held_out: tuple[HoldOut, ...] = ()
    """One per variable that has levels to hold out."""
    frontier: Frontier | None = None
    limit: DataLimited | None = None
    side_by_side: SideBySide | None = None

    def to_dict(self) -> dict[str, Any]:
        """One entry of `fits` in the JSON; a refused fit has a null theta and its reason."""
        head: dict[str, Any] = {"group": self.group, "target": self.target, "kind": self.kind, "law": self.law}
        head |= {"refused": self.refused, "excluded": {reason: list(lines) for reason, lines in self.excluded.items()}}
        if self.fit is None:
            return head | {"theta": None}
        return (
            head
            | self.fit.to_dict()
            | {
                "extrapolation": {held.axis: _summary(held) for held in self.held_out},
                "frontier": None if self.frontier is None else self.frontier.to_dict(),
                "data_limited": None if self.limit is None else self.limit.to_dict(),
                "side_by_side": None if self.side_by_side is None else self.side_by_side.to_dict(),
            }
        )


@dataclass(frozen=True)
class FittedPair:
    """One loss-to-loss law of one group."""

    group: str
    x: str
    y: str
    points: pd.DataFrame
    """Columns x, y and, unless the floors were given, n and d."""
    fit: PairFit | None
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """One entry of `pairs` in the JSON."""
        head = {"group": self.group, "x": self.x, "y": self.y, "refused": self.refused}
        return head | (self.fit.to_dict() if self.fit is not None else {"theta": None})


def fit_points(
    group: str,
    target: str,
    kind: str,
    law: str,
    points: pd.DataFrame,
    variables: Sequence[str],
    method: Method,
    *,
    excluded: Mapping[str, Sequence[int]] | None = None,
    cost: Cost | None = None,
) -> Fitted:
    """One law of points with the columns `variables`, loss and, if rows weigh or belong together, weight and run.

    Args:
        cost: Counted training FLOPs of (n, d), for the frontier; without it, 6·N·D.
    """
    columns = [points[v].to_numpy(dtype=float) for v in [*variables, "loss"]]
    try:
        found = fit(law, *columns, **_resampled(points), **method.options())
    except FitError as error:
        return Fitted(group, target, kind, law, points, None, str(error), excluded or {})
    beside = None
    if method.side_by_side:
        beside = fit_side_by_side(law, *columns, weights=_resampled(points)["weights"], main=found)
        found = beside.main
    joint = len(variables) == 2
    return Fitted(
        group,
        target,
        kind,
        law,
        points,
        found,
        excluded=excluded or {},
        held_out=_held_out(law, columns, points, found, method),
        frontier=compute_frontier(found, cost=cost) if joint else None,
        limit=data_limited(found) if joint else None,
        side_by_side=beside,
    )


def fit_pair_points(
    group: str,
    x: str,
    y: str,
    points: pd.DataFrame,
    method: Method,
    floors: tuple[float, float] | None = None,
    floors_from: str = "chinchilla",
    stages: tuple[LawFit, LawFit] | None = None,
) -> FittedPair:
    """The loss-to-loss law of points with the columns x, y and, unless the floors are given, n and d.

    Args:
        floors: E0 and E1, if they are known.
        floors_from: The law that gives them otherwise.
        stages: That law of x and of y, where the same points have been fitted already.
    """
    common = _resampled(points) | method.options()
    loss_x, loss_y = (points[c].to_numpy(dtype=float) for c in ("x", "y"))
    try:
        if floors is not None:
            pair = fit_pair(loss_x, loss_y, floor_x=floors[0], floor_y=floors[1], **common)
        else:
            n, d = (points[c].to_numpy(dtype=float) for c in ("n", "d"))
            pair, _, _ = fit_pair_with_floors(floors_from, n, d, loss_x=loss_x, loss_y=loss_y, stages=stages, **common)
    except FitError as error:
        return FittedPair(group, x, y, points, None, str(error))
    return FittedPair(group, x, y, points, pair)


def _resampled(points: pd.DataFrame) -> dict[str, Any]:
    """Weights and runs of the points, where they have any."""
    return {
        "weights": points["weight"].to_numpy(dtype=float) if "weight" in points else None,
        "runs": points["run"].to_numpy() if "run" in points else None,
    }


MOST_WINDOWS = 12
"""Levels of an axis beyond which holding them out one by one says nothing more: it has no rungs. Our choice."""


def _held_out(
    law: str, columns: Sequence[FloatArray], points: pd.DataFrame, found: LawFit, method: Method
) -> tuple[HoldOut, ...]:
    held = []
    for axis, column in zip(found.form.variables, columns, strict=False):
        if 2 < pd.Series(column).nunique() <= MOST_WINDOWS:
            try:
                counted = _resampled(points)
                held.append(
                    hold_out(law, *columns, axis=axis, objective=method.objective, delta=method.delta, **counted)
                )
            except FitError:  # a single level within a per cent: nothing to hold out
                continue
    return tuple(held)


def _summary(held: HoldOut) -> dict[str, Any]:
    """What the JSON says of a hold-out: errors, not every held-out point."""
    whole = held.to_dict()
    return {key: whole[key] for key in ("error", "bias", "largest", "flags")} | {"n_windows": len(held.windows)}
