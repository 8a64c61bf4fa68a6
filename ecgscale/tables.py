"""Laws of anybody's table of runs: which columns are meant, which rows count, and one fit per group and law.

A row that can't be used is left out with its reason and its line, never silently; what can't be fitted at all is kept
with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.errors import EcgscaleError
from ecgscale.fitted import FittedPair, Method, fit_pair_points, fit_points
from ecgscale.laws import get_law
from ecgscale.study import JOINT, Study, choices, comparisons, pooled


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what; `n`, `d` for laws in both, `x` for laws in one variable."""

    loss: str = "loss"
    n: str = "n_params"
    d: str = "n_records"
    x: str | None = None
    by: tuple[str, ...] = ()
    """Columns that tell the groups apart."""
    weights: str | None = None
    sigma: str | None = None
    """Standard deviation of the log loss; a weight of 1/σ²."""
    cluster: str | None = None
    """Rows of one run (checkpoints), which are resampled together."""


def law_study(path: Path, columns: Columns, laws: Sequence[str], method: Method) -> Study:
    """Every law for every group of a CSV or parquet table.

    Raises:
        EcgscaleError: the file can't be read, a column does not exist, or a law has other variables than are given.
    """
    variables = (columns.x,) if columns.x is not None else (columns.n, columns.d)
    table = _read(path, [*variables, columns.loss, *_named(columns)])
    names = ("x",) if columns.x is not None else ("n", "d")
    fitted = []
    for group, rows in _groups(table, columns.by):
        points, excluded = _usable(rows, dict(zip(variables, names, strict=True)), columns, method.drop_highest)
        for law in laws:
            if len(get_law(law).variables) != len(variables):
                raise EcgscaleError(
                    f"law {law} has the variables {', '.join(get_law(law).variables)}: "
                    + ("give --n and --d instead of --x" if columns.x is not None else "give --x (and --y)")
                )
            kind = JOINT if columns.x is None else f"{columns.loss}({columns.x})"
            fitted.append(fit_points(group, columns.loss, kind, law, points, names, method, excluded=excluded))
    return Study(
        path.stem,
        None,
        tuple(fitted),
        choices=tuple(choices(fitted, method)),
        comparisons=tuple(comparisons(fitted, (), lambda a, b, target: True)),
    )


def pair_study(
    path: Path,
    pairs: Sequence[tuple[str, str]],
    columns: Columns,
    method: Method,
    floors: tuple[float, float] | None = None,
    floors_from: str = "chinchilla",
) -> Study:
    """Loss-to-loss laws of pairs of loss columns, with both floors given or both taken from laws of the same rows.

    Raises:
        EcgscaleError: the file can't be read, or a column does not exist.
    """
    variables = {} if floors is not None else {columns.n: "n", columns.d: "d"}
    table = _read(path, [*variables, *(c for pair in pairs for c in pair), *_named(columns)])
    fitted = []
    for group, rows in _groups(table, columns.by):
        for x, y in pairs:
            points, _ = _usable(rows, {**variables, x: "x"}, replace(columns, loss=y), drop_highest=0)
            points = points.rename(columns={"loss": "y"})
            fitted.append(fit_pair_points(group, x, y, points, method, floors, floors_from))
    return _pairs_of(path, fitted)


def matched_study(
    path: Path,
    pairs: Sequence[tuple[str, str]],
    columns: Columns,
    method: Method,
    *,
    pair_by: str,
    match: Sequence[str],
    floors: tuple[float, float] | None = None,
) -> Study:
    """Loss-to-loss laws between the values of one column: runs that agree in `match` are pairs (train-to-train).

    Args:
        pairs: Values of `pair_by`, for example two training corpora; L0 and L1 are both `columns.loss`.
        pair_by: The column that tells the two sides apart.
        match: Columns in which the runs of a pair agree, for example the size and the compute.

    Raises:
        EcgscaleError: the file can't be read, a column does not exist, a value does not occur, or runs of one side
            agree in everything that is matched.
    """
    variables = {} if floors is not None else {columns.n: "n", columns.d: "d"}
    table = _read(path, [*variables, columns.loss, pair_by, *match])
    fitted = []
    for left, right in pairs:
        sides = [table[table[pair_by].astype(str) == value] for value in (left, right)]
        for value, side in zip((left, right), sides, strict=True):
            if side.empty:
                there = ", ".join(sorted(map(str, table[pair_by].unique())))
                raise EcgscaleError(f"{path}: column {pair_by!r} has no {value!r}; it has {there}")
            if side.duplicated(list(match)).any():
                raise EcgscaleError(f"{path}: runs of {value!r} agree in {', '.join(match)}: match by more columns")
        both = sides[0].merge(sides[1][[*match, columns.loss]], on=list(match), suffixes=("", " of the other"))
        wanted = {**variables, columns.loss: "x"}
        points, _ = _usable(both, wanted, replace(columns, loss=f"{columns.loss} of the other", by=()), drop_highest=0)
        points = points.rename(columns={"loss": "y"})
        fitted.append(
            fit_pair_points("all", f"{columns.loss}, {left}", f"{columns.loss}, {right}", points, method, floors)
        )
    return _pairs_of(path, fitted)


def _pairs_of(path: Path, fitted: Sequence[FittedPair]) -> Study:
    return Study(
        path.stem,
        None,
        (),
        tuple(fitted),
        comparisons=tuple(comparisons((), fitted, lambda a, b, target: True)),
        pooled=tuple(pooled(fitted, lambda a, b, target: True)),
    )


def _read(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise EcgscaleError(f"{path}: can't be read as a table ({error})") from None
    for column in wanted:
        if column not in table:
            raise EcgscaleError(f"{path}: has no column {column!r}; it has {', '.join(map(str, table.columns))}")
    return table


def _named(columns: Columns) -> list[str]:
    return [c for c in (*columns.by, columns.weights, columns.sigma, columns.cluster) if c is not None]


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for name, rows in table.groupby(list(by)) if by else [("all", table)]:
        yield " ".join(str(part) for part in name) if isinstance(name, tuple) else str(name), rows


def _usable(
    rows: pd.DataFrame, names: Mapping[str, str], columns: Columns, drop_highest: int
) -> tuple[pd.DataFrame, dict[str, list[int]]]:
    """The rows that count, as n, d or x, loss, weight and run, and the lines of the file that do not, by reason."""
    numbers = {new: pd.to_numeric(rows[old], errors="coerce") for old, new in {**names, columns.loss: "loss"}.items()}
    points = pd.DataFrame(numbers)
    points["weight"] = _weights(rows, columns)
    if columns.cluster is not None:
        points["run"] = rows[columns.cluster]
    excluded: dict[str, pd.Index] = {}
    original = {new: old for old, new in names.items()} | {"loss": columns.loss}
    for new in (*names.values(), "loss"):
        bad = ~(np.isfinite(points[new]) & (points[new] > 0))
        if bad.any():
            excluded[f"{original[new]} is not a positive number"] = points.index[bad]
            points = points[~bad]
    bad = ~(np.isfinite(points["weight"]) & (points["weight"] > 0))
    if bad.any():
        excluded["no positive weight"] = points.index[bad]
        points = points[~bad]
    if drop_highest:
        highest = points["loss"].nlargest(drop_highest).index
        excluded[f"among the {drop_highest} highest losses"] = highest
        points = points.drop(highest)
    return points, {reason: [int(i) + 2 for i in index] for reason, index in excluded.items()}  # line 1 is the header


def _weights(rows: pd.DataFrame, columns: Columns) -> Any:
    if columns.weights is not None and columns.sigma is not None:
        raise EcgscaleError("give --weights or --sigma, not both: a sigma is a weight of 1/σ²")
    if columns.sigma is not None:
        return 1.0 / pd.to_numeric(rows[columns.sigma], errors="coerce") ** 2
    return 1.0 if columns.weights is None else pd.to_numeric(rows[columns.weights], errors="coerce")
