"""From rows to laws: which points of a results folder go into which fit.

Per arm and target: L(N) at the largest D and L(D) at the largest N, with and without a floor, the joint L(N, D), and
between every two of the in-distribution loss and the transfer targets the loss-to-loss law. What can't be fitted is
kept with its reason, not dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale import results
from ecgscale.errors import EcgscaleError
from ecgscale.fitted import Cost, Fitted, FittedPair, Method, fit_pair_points, fit_points
from ecgscale.laws import LawFit
from ecgscale.laws.arrays import FloatArray
from ecgscale.study import IN_D, IN_N, JOINT, Study, choices, comparisons, pooled

FEWEST_POSITIVES = 5
"""A transfer task with fewer positive test records is not averaged: its loss is mostly the draw of those few."""

LEVELS_FOR_A_FLOOR = 4
"""Levels of one axis below which only the floor-free line is fitted: a floor makes three parameters of it."""

ID_TARGET = "in distribution"

FLOORS_FROM = "chinchilla"
"""The law of N and D whose floors a loss-to-loss law takes."""

DEFAULT = Method()


def studies(folder: Path, method: Method = DEFAULT, joint: Sequence[str] = ("chinchilla",)) -> Iterator[Study]:
    """One study per sweep found in `folder`.

    Args:
        joint: The forms of L(N, D) to fit.

    Raises:
        EcgscaleError: no results, or no completed trial among them.
    """
    for sweep_folder in results.sweep_folders(folder):
        yield sweep_study(sweep_folder, method, joint)


def sweep_study(folder: Path, method: Method = DEFAULT, joint: Sequence[str] = ("chinchilla",)) -> Study:
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
            laws.extend(_laws_of(group, target, rows, method, joint))
        floors_of = {f.target: f.fit for f in laws if (f.group, f.kind, f.law) == (group, JOINT, FLOORS_FROM)}
        for x, y in combinations(targets, 2):
            pairs.append(_pair(group, rows, x, y, method, (floors_of.get(x), floors_of.get(y))))
    return Study(
        folder.name,
        folder,
        tuple(laws),
        tuple(pairs),
        choices=tuple(choices(laws, method)),
        comparisons=tuple(comparisons(laws, pairs, _same_unit)),
        pooled=tuple(pooled(pairs, _same_unit)),
        notes=tuple(_notes(records)),
    )


def _same_unit(a: str, b: str, target: str) -> bool:
    """SL and SSL losses have different units in distribution; read-outs on another population are all in nats."""
    return target != ID_TARGET or ("ssl" in a) == ("ssl" in b)


def trial_points(records: Sequence[results.RunRecord]) -> pd.DataFrame:
    """One row per trial: group, n, d, training FLOPs and one loss column per target.

    Targets: the in-distribution test loss, and per population the mean loss over seen and over unseen binary tasks.
    A task counts when it could be scored in every trial and has enough positives.
    """
    several_label_sets = len({r.n_labels for r in records if r.paradigm == "sl"}) > 1
    counted = _counted_tasks(records)
    rows = []
    for record in records:
        group = f"{record.arm} k={record.n_labels}" if several_label_sets and record.n_labels else record.arm
        row: dict[str, Any] = {"group": group, "n": record.n_params, "d": record.n_records}
        row |= {"flops": record.train_flops, ID_TARGET: record.id_loss}
        for target, tasks in counted.items():
            losses = [s.loss for s in record.transfer if s.loss is not None and (s.population, s.task) in tasks]
            row[target] = np.mean(losses)
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
    """Enough test records of both classes, and a read-out that could be fitted."""
    positives = score.n_test_positive or 0
    return score.loss is not None and min(positives, score.n_test - positives) >= FEWEST_POSITIVES


def _notes(records: Sequence[results.RunRecord]) -> Iterator[str]:
    yield "SL losses are in nats, SSL losses in squared normalised signal: compare within a paradigm, or on transfer."
    counted = _counted_tasks(records)
    for target, tasks in counted.items():
        yield f"{target}: mean over {', '.join(sorted(task for _, task in tasks))} (nats)"
    declared = {(s.population, s.task) for r in records for s in r.transfer if s.kind == "binary"}
    left_out = declared - set().union(*counted.values()) if counted else declared
    if left_out:
        names = ", ".join(f"{task} on {population}" for population, task in sorted(left_out))
        yield f"not averaged, not fitted or fewer than {FEWEST_POSITIVES} positive or negative test records: {names}"


def _laws_of(group: str, target: str, rows: pd.DataFrame, method: Method, joint: Sequence[str]) -> Iterator[Fitted]:
    points = rows[["n", "d", "flops", target]].rename(columns={target: "loss"}).dropna()
    largest_d = points[points["d"] == points["d"].max()]
    largest_n = points[points["n"] == points["n"].max()]
    for law in joint:
        yield fit_points(group, target, JOINT, law, points, ["n", "d"], method, cost=_counted_cost(points))
    for kind, variable, line in ((IN_N, "n", largest_d), (IN_D, "d", largest_n)):
        yield fit_points(group, target, kind, "power", line, [variable], method)
        if line[variable].nunique() >= LEVELS_FOR_A_FLOOR:
            yield fit_points(group, target, kind, "power_floor", line, [variable], method)


SAME_COST = 1.05
"""FLOPs per record of one size may differ this much, by rounding to whole steps, and still grow with D."""


def _counted_cost(points: pd.DataFrame) -> Cost | None:
    """Counted training FLOPs of (n, d), interpolated in log N; None where they don't grow with D.

    6ND is wrong by about 1000 × for convolutional networks, so a frontier needs the counted FLOPs.
    """
    per_record = (points["flops"] / points["d"]).groupby(points["n"])
    if points["n"].nunique() < 2 or (per_record.max() > SAME_COST * per_record.min()).any():
        return None
    log_n, log_c = np.log(per_record.median().index.to_numpy(dtype=float)), np.log(per_record.median().to_numpy())
    slopes = np.diff(log_c) / np.diff(log_n)

    def cost(n: FloatArray, d: FloatArray) -> FloatArray:
        at = np.log(n)
        beyond = np.minimum(at - log_n[0], 0) * slopes[0] + np.maximum(at - log_n[-1], 0) * slopes[-1]
        return np.asarray(np.exp(np.interp(at, log_n, log_c) + beyond) * d)

    return cost


def _pair(
    group: str, rows: pd.DataFrame, x: str, y: str, method: Method, fits: tuple[LawFit | None, LawFit | None]
) -> FittedPair:
    """Train-to-test from the in-distribution loss, test-to-test between two transfer targets.

    Args:
        fits: Laws of x and y that are there already; of use if both were fitted to all of these points.
    """
    points = rows[["n", "d", x, y]].rename(columns={x: "x", y: "y"}).dropna()
    one, other = fits
    stages = None
    if one is not None and other is not None and one.n_points == other.n_points == len(points):
        stages = one, other
    return fit_pair_points(group, x, y, points, method, floors_from=FLOORS_FROM, stages=stages)
