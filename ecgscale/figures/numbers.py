"""What the figures show as tables: one function per kind of figure, one row per mark.

Curves are not sampled: a run's row has the law's value and intervals at that run; the law itself is in the law table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.figures.fits import Fits, columns, exponents, log_residuals, variables
from ecgscale.fitted import Fitted
from ecgscale.laws import Estimate, HoldOut, LawFit, PairFit, Prediction
from ecgscale.study import JOINT, Study

Rows = list[dict[str, Any]]


def runs_and_laws(fits: Fits) -> pd.DataFrame:
    """Per run: its variables and loss, and what the law says there."""
    return _table(_run_rows(fits.fitted))


def lines_numbers(study: Study, target: str) -> pd.DataFrame:
    """The same of every one-variable law of a target."""
    return _table(_run_rows(f for f in study.laws if f.target == target and f.kind != JOINT))


def residual_numbers(fits: Fits) -> pd.DataFrame:
    """Per run: log of observed over predicted."""
    rows: Rows = []
    for one in fits.fitted:
        if one.fit is not None:
            predicted, residual = log_residuals(one)
            places = _named(one.points[list(variables(one))])
            for place, p, r in zip(places, predicted, residual, strict=True):
                rows.append({"group": one.group} | place | {"predicted": p, "residual": r})
    return _table(rows)


def corner_numbers(fits: Fits) -> pd.DataFrame:
    """Per bootstrap draw: the floor and the exponents."""
    parts = [pd.DataFrame()]
    for one in fits.fitted:
        if one.fit is not None and one.fit.draws is not None:
            order = list(one.fit.theta)
            names = [name for name in ("E", *exponents(one.fit)) if name in order]
            draws = pd.DataFrame(one.fit.draws[:, [order.index(name) for name in names]], columns=names)
            parts.append(draws.assign(group=one.group)[["group", *names]])
    return pd.concat(parts)


def frontier_numbers(fits: Fits) -> pd.DataFrame:
    """Per group and budget: N*, D* and the loss there."""
    rows: Rows = []
    for one in fits.fitted:
        if one.frontier is not None:
            f = one.frontier
            for flops, n, d, loss, beyond in zip(f.flops, f.n, f.d, f.loss, f.extrapolating, strict=True):
                row: dict[str, Any] = {"group": one.group, "flops": flops}
                for name, estimate in (("n", n), ("d", d), ("loss", loss)):
                    row |= _estimate(name, estimate)
                rows.append(row | {"extrapolating": beyond})
    return _table(rows)


def hold_out_numbers(fits: Fits) -> pd.DataFrame:
    """Per window and point that it did not see: the errors of the law and of both trivial predictors."""
    rows: Rows = []
    for one in fits.fitted:
        for held in one.held_out:
            rows += _held_rows(one, held)
    return _table(rows)


def pair_numbers(study: Study) -> pd.DataFrame:
    """Per run: both losses, and what the law says of the second."""
    rows: Rows = []
    for pair in study.pairs:
        x = pair.points["x"].to_numpy(dtype=float)
        law = _law_columns(pair.fit, [x])
        for i, point in enumerate(_named(pair.points)):
            rows.append({"group": pair.group, "x_loss": pair.x, "y_loss": pair.y} | point | {k: v[i] for k, v in law})
    return _table(rows)


def _run_rows(laws: Iterable[Fitted]) -> Iterator[dict[str, Any]]:
    for one in laws:
        law = _law_columns(one.fit, columns(one))
        for i, point in enumerate(_named(one.points)):
            yield {"group": one.group, "kind": one.kind, "law": one.law} | point | {k: v[i] for k, v in law}


def _named(points: pd.DataFrame) -> Rows:
    return [{str(name): value for name, value in row.items()} for row in points.to_dict("records")]


def _law_columns(fit: LawFit | PairFit | None, places: list[Any]) -> list[tuple[str, Any]]:
    if fit is None:
        return []
    predicted: Prediction = fit.predict(*places)
    parts = {
        "law_loss": predicted.value,
        "law_low": predicted.low,
        "law_high": predicted.high,
        "run_low": predicted.new_low,
        "run_high": predicted.new_high,
    }
    return [(name, values) for name, values in parts.items() if values is not None]


def _held_rows(one: Fitted, held: HoldOut) -> Rows:
    return [
        {
            "group": one.group,
            "axis": held.axis,
            "trained_up_to": window.up_to,
            **dict(zip(variables(one), point.x, strict=True)),
            "loss": point.loss,
            "factor_beyond": float(np.exp(point.distance)),
            "law_error": point.law,
            "best_so_far_error": point.best_so_far,
            "no_floor_error": point.floor_free,
        }
        for window in held.windows
        for point in window.points
    ]


def _estimate(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))
