"""From rows to laws: which points of a results folder, or of any table, go into which fit.

Per arm and target: L(N) at the largest D and L(D) at the largest N, with and without a floor, the joint L(N, D), and
from the in-distribution loss to every transfer target the loss-to-loss law. What can't be fitted is kept with its
reason, not dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale import results
from ecgscale.errors import EcgscaleError, FitError
from ecgscale.laws import LawFit, PairFit, fit, fit_pair_with_floors

JOINT, IN_N, IN_D = "L(N, D)", "L(N)", "L(D)"

FEWEST_POSITIVES = 5
"""A transfer task with fewer positive test records is not averaged: its loss is mostly the draw of those few."""

LEVELS_FOR_A_FLOOR = 4
"""Levels of one axis below which only the floor-free line is fitted: a floor makes three parameters of it."""

ID_TARGET = "in distribution"


@dataclass(frozen=True)
class Fitted:
    """One law of one group and target; `fit` is None and `refused` says why when there is no estimate."""

    group: str
    target: str
    kind: str
    """`L(N, D)`, `L(N)` or `L(D)`."""
    law: str
    points: pd.DataFrame
    """The rows used: columns n, d, loss."""
    fit: LawFit | None
    refused: str | None = None


@dataclass(frozen=True)
class FittedPair:
    """One loss-to-loss law of one group."""

    group: str
    x: str
    y: str
    points: pd.DataFrame
    """Columns n, d, x, y."""
    fit: PairFit | None
    refused: str | None = None


@dataclass(frozen=True)
class Study:
    """Everything that was fitted to one results folder or table."""

    name: str
    folder: Path | None
    laws: tuple[Fitted, ...]
    pairs: tuple[FittedPair, ...]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(law.group for law in self.laws))

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(law.target for law in self.laws))

    def law(self, group: str, target: str, law: str, kind: str) -> Fitted | None:
        """The fit of one form; None when it was not tried."""
        wanted = (group, target, law, kind)
        return next((f for f in self.laws if (f.group, f.target, f.law, f.kind) == wanted), None)

    def to_dict(self) -> dict[str, Any]:
        """`fits` and `pairs` for machines; a refused fit has a null theta and its reason."""
        return {
            "fits": [
                {"group": f.group, "target": f.target, "kind": f.kind, "law": f.law, "refused": f.refused}
                | (f.fit.to_dict() if f.fit is not None else {"theta": None})
                for f in self.laws
            ],
            "pairs": [
                {"group": p.group, "x": p.x, "y": p.y, "refused": p.refused}
                | (p.fit.to_dict() if p.fit is not None else {"theta": None})
                for p in self.pairs
            ],
        }

    def law_table(self) -> pd.DataFrame:
        """One row per fit: estimates with their 95 % intervals, flags and refusals."""
        rows: list[dict[str, Any]] = []
        for f in self.laws:
            row: dict[str, Any] = {"group": f.group, "target": f.target, "kind": f.kind, "law": f.law}
            # a one-variable law calls its exponent alpha whatever the variable; in D people read beta
            names = {"A": "B", "alpha": "beta"} if f.kind == IN_D else {}
            row |= _estimates(f.fit, names) | {"points": len(f.points), "refused": f.refused}
            rows.append(row)
        for p in self.pairs:
            row = {"group": p.group, "target": f"{p.x} → {p.y}", "kind": "loss-to-loss", "law": "shifted_power"}
            row |= _estimates(p.fit, {}) | {"points": len(p.points), "refused": p.refused}
            if p.fit is not None:
                row |= {"slope": p.fit.slope}
            rows.append(row)
        return pd.DataFrame(rows)


def is_held(flags: Sequence[str], parameter: str) -> bool:
    """Whether nothing in the flags speaks against quoting this parameter: not unidentified, runaway or at its bound."""
    own = {f"{reason}:{parameter}" for reason in ("unidentified", "at_bound", "runaway")}
    variable = {"alpha": ("N", "X"), "beta": ("D",), "A": ("N", "X"), "B": ("D",)}.get(parameter, ())
    own |= {f"no_effect:{v}" for v in variable}
    return not own.intersection(flags)


def _estimates(fitted: LawFit | PairFit | None, names: Mapping[str, str]) -> dict[str, Any]:
    if fitted is None:
        return {}
    out: dict[str, Any] = {"status": fitted.status.value, "flags": " ".join(fitted.flags)}
    for name, value in fitted.theta.items():
        low, high = (fitted.interval or {}).get(name, (None, None))
        shown = names.get(name, name)
        out |= {shown: value, f"{shown}_low": low, f"{shown}_high": high}
        out[f"{shown}_held"] = is_held(fitted.flags, name)
    return out


# --- a results folder ----------------------------------------------------------------------------------------------


def studies(folder: Path, *, bootstrap: int = 1000, seed: int = 0) -> Iterator[Study]:
    """One study per sweep found in `folder`.

    Raises:
        EcgscaleError: no results, or no completed trial among them.
    """
    for sweep_folder in results.sweep_folders(folder):
        yield sweep_study(sweep_folder, bootstrap=bootstrap, seed=seed)


def sweep_study(folder: Path, *, bootstrap: int = 1000, seed: int = 0) -> Study:
    """The laws of one sweep.

    Raises:
        EcgscaleError: no completed trial.
    """
    records = [r for r in results.latest(results.read(folder)).values() if r.status == results.Status.COMPLETED]
    if not records:
        raise EcgscaleError(f"{folder}: no completed trial; `ecgscale status {folder}` says why")
    points = trial_points(records)
    targets = [c for c in points.columns.astype(str) if c == ID_TARGET or c.startswith("transfer")]
    laws: list[Fitted] = []
    pairs: list[FittedPair] = []
    for group in sorted(points["group"].unique()):
        rows = points[points["group"] == group]
        for target in targets:
            laws.extend(_laws_of(group, target, rows, bootstrap, seed))
        pairs.extend(_pair(group, rows, target, bootstrap, seed) for target in targets if target != ID_TARGET)
    return Study(folder.name, folder, tuple(laws), tuple(pairs), tuple(_notes(records)))


def trial_points(records: Sequence[results.RunRecord]) -> pd.DataFrame:
    """One row per trial: group, n, d and one loss column per target.

    Targets: the in-distribution test loss, and per population the mean loss over seen and over unseen binary tasks.
    A task counts when it could be scored in every trial and has enough positives.
    """
    several_label_sets = len({r.n_labels for r in records if r.paradigm == "sl"}) > 1
    counted = _counted_tasks(records)
    rows = []
    for record in records:
        group = f"{record.arm} k={record.n_labels}" if several_label_sets and record.n_labels else record.arm
        row: dict[str, Any] = {"group": group, "n": record.n_params, "d": record.n_records, ID_TARGET: record.id_loss}
        for target, tasks in counted.items():
            row[target] = np.mean([s.loss for s in record.transfer if (s.population, s.task) in tasks])
        rows.append(row)
    return pd.DataFrame(rows)


def _counted_tasks(records: Sequence[results.RunRecord]) -> dict[str, set[tuple[str, str]]]:
    """Transfer target → its (population, task)s."""
    scored = [{(s.population, s.task): s for s in r.transfer if s.kind == "binary" and _enough(s)} for r in records]
    everywhere = set.intersection(*(set(s) for s in scored)) if scored else set()
    counted: dict[str, set[tuple[str, str]]] = {}
    for population, task in sorted(everywhere):
        kind = "seen" if scored[0][population, task].seen else "unseen"
        counted.setdefault(f"transfer to {population}, {kind} tasks", set()).add((population, task))
    return counted


def _enough(score: results.TaskScore) -> bool:
    positives = score.n_test_positive or 0
    return min(positives, score.n_test - positives) >= FEWEST_POSITIVES


def _notes(records: Sequence[results.RunRecord]) -> Iterator[str]:
    yield "SL losses are in nats, SSL losses in squared normalised signal: compare within a paradigm, or on transfer."
    counted = _counted_tasks(records)
    for target, tasks in counted.items():
        yield f"{target}: mean over {', '.join(sorted(task for _, task in tasks))} (nats)"
    declared = {(s.population, s.task) for r in records for s in r.transfer if s.kind == "binary"}
    left_out = declared - set().union(*counted.values()) if counted else declared
    if left_out:
        names = ", ".join(f"{task} on {population}" for population, task in sorted(left_out))
        yield f"not averaged, fewer than {FEWEST_POSITIVES} positive or negative test records: {names}"


def _laws_of(group: str, target: str, rows: pd.DataFrame, bootstrap: int, seed: int) -> Iterator[Fitted]:
    points = rows[["n", "d", target]].rename(columns={target: "loss"}).dropna()
    largest_d = points[points["d"] == points["d"].max()]
    largest_n = points[points["n"] == points["n"].max()]
    yield _fitted(group, target, JOINT, "chinchilla", points, ["n", "d"], bootstrap, seed)
    for kind, variable, line in ((IN_N, "n", largest_d), (IN_D, "d", largest_n)):
        yield _fitted(group, target, kind, "power", line, [variable], bootstrap, seed)
        if line[variable].nunique() >= LEVELS_FOR_A_FLOOR:
            yield _fitted(group, target, kind, "power_floor", line, [variable], bootstrap, seed)


def _fitted(
    group: str, target: str, kind: str, law: str, points: pd.DataFrame, variables: list[str], bootstrap: int, seed: int
) -> Fitted:
    columns = [points[v].to_numpy(dtype=float) for v in [*variables, "loss"]]
    try:
        return Fitted(group, target, kind, law, points, fit(law, *columns, bootstrap=bootstrap, seed=seed))
    except FitError as error:
        return Fitted(group, target, kind, law, points, None, str(error))


def _pair(group: str, rows: pd.DataFrame, target: str, bootstrap: int, seed: int) -> FittedPair:
    points = rows[["n", "d", ID_TARGET, target]].rename(columns={ID_TARGET: "x", target: "y"}).dropna()
    n, d, x, y = (points[c].to_numpy(dtype=float) for c in ("n", "d", "x", "y"))
    try:
        pair, _, _ = fit_pair_with_floors("chinchilla", n, d, loss_x=x, loss_y=y, bootstrap=bootstrap, seed=seed)
        return FittedPair(group, ID_TARGET, target, points, pair)
    except FitError as error:
        return FittedPair(group, ID_TARGET, target, points, None, str(error))


# --- any table -----------------------------------------------------------------------------------------------------


def table_study(
    path: Path, *, n: str, d: str, loss: str, by: Sequence[str] = (), bootstrap: int = 1000, seed: int = 0
) -> Study:
    """The laws of a CSV or parquet table of runs, one group per combination of the `by` columns.

    Raises:
        EcgscaleError: the file can't be read, or a column does not exist.
    """
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise EcgscaleError(f"{path}: can't be read as a table ({error})") from None
    for column in (n, d, loss, *by):
        if column not in table:
            raise EcgscaleError(f"{path}: has no column {column!r}; it has {', '.join(map(str, table.columns))}")
    points = table.rename(columns={n: "n", d: "d", loss: "loss"})
    laws: list[Fitted] = []
    for name, rows in points.groupby(list(by)) if by else [("all", points)]:
        group = " ".join(str(part) for part in name) if isinstance(name, tuple) else str(name)
        law = _fitted(group, loss, JOINT, "chinchilla", rows[["n", "d", "loss"]], ["n", "d"], bootstrap, seed)
        laws.append(law)
    return Study(path.stem, None, tuple(laws), ())
