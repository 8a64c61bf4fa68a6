"""From rows to laws: which points of a results folder go into which fit.

Per arm and target: L(N) at the largest D and L(D) at the largest N, with and without a floor, the joint L(N, D), and
between every two of the in-distribution loss and the transfer targets the loss-to-loss law. Per arm and single task
the joint law alone. Where supervised arms were trained on several label sets, L(k) in their number. What can't be
fitted is kept with its reason, not dropped.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale import results
from ecgscale.data.splits import TEST
from ecgscale.errors import EcgscaleError, FitError
from ecgscale.fitted import Cost, Fitted, FittedPair, Method, fit_pair_points, fit_points
from ecgscale.laws import LawFit, fit
from ecgscale.laws.arrays import FloatArray
from ecgscale.prediction_files import CLEAN
from ecgscale.study import (
    ID_TARGET,
    IN_D,
    IN_K,
    IN_N,
    JOINT,
    SHARED_ERROR,
    Arm,
    Study,
    TransferTarget,
    choices,
    comparisons,
    pooled,
)

LEVELS_FOR_A_FLOOR = 4
"""Levels of one axis below which only the floor-free line is fitted: a floor makes three parameters of it."""

FLOORS_FROM = "chinchilla"
"""The law of N and D whose floors a loss-to-loss law takes, and the one that is fitted to single tasks."""

TASK_DRAWS = 300
"""Resamples for single tasks, of which there may be dozens: they are counted, and decide nothing by themselves."""

MAE, CRPS, EXP_NLL = "MAE", "CRPS", "exp NLL"
"""Losses of a network that was trained on a target, in its unit."""

DEFAULT = Method()

Progress = Callable[[int, int], None]
"""Called with how many of how many arms have been fitted."""


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
    return records_study(folder.name, folder, results.read(folder), method, joint)


def records_study(
    name: str,
    folder: Path | None,
    attempts: Sequence[results.RunRecord],
    method: Method = DEFAULT,
    joint: Sequence[str] = ("chinchilla",),
    progress: Progress = lambda _done, _of: None,
) -> Study:
    """The laws of the rows of one sweep, be they read from its folder or simulated.

    Raises:
        EcgscaleError: no completed trial.
    """
    completed = [r for r in results.latest(attempts).values() if r.status == results.Status.COMPLETED]
    if not completed:
        where = folder or name
        raise EcgscaleError(f"{where}: no completed trial; `ecgscale status {where}` says why")
    records = _of_one_data_set(completed)
    points = trial_points(records)
    of_tasks = replace(method, bootstrap=min(method.bootstrap, TASK_DRAWS))
    transfers = _transfer_targets(records)
    means = [t.name for t in transfers if not t.one_task]
    laws: list[Fitted] = []
    pairs: list[FittedPair] = []
    task_laws: list[Fitted] = []
    task_pairs: list[FittedPair] = []
    groups = sorted(points["group"].unique())
    for n_done, group in enumerate(groups):
        progress(n_done, len(groups))
        rows = points[points["group"] == group]
        if predicted := [column for column in rows if _is_of_predictions(column) and rows[column].notna().any()]:
            if len(rows[["n", "d"]].drop_duplicates()) > 1:
                for target in predicted:
                    laws.extend(_laws_of(group, target, rows, method, joint))
            continue
        targets = [ID_TARGET, *means]
        for target in targets:
            laws.extend(_laws_of(group, target, rows, method, joint))
        floors_of = {f.target: f.fit for f in laws if (f.group, f.kind, f.law) == (group, JOINT, FLOORS_FROM)}
        for x, y in combinations(targets, 2):
            pairs.append(_pair(group, rows, x, y, method, (floors_of.get(x), floors_of.get(y))))
        for task in (t for t in transfers if t.one_task):
            law = _task_law(group, task.name, rows, of_tasks)
            task_laws.append(law)
            if not task.seen:
                floors = _first_draws(floors_of.get(ID_TARGET)), law.fit
                task_pairs.append(_pair(group, rows, ID_TARGET, task.name, of_tasks, floors))
    progress(len(groups), len(groups))
    return Study(
        name,
        folder,
        tuple(laws),
        tuple(pairs),
        choices=tuple(choices(laws, method)),
        comparisons=tuple(comparisons(laws, pairs, _same_unit)),
        pooled=tuple(pooled(pairs, _same_unit)),
        notes=tuple(_notes(completed, records)),
        arms=_arms(records),
        transfers=transfers,
        task_laws=tuple(task_laws),
        task_pairs=tuple(task_pairs),
        label_laws=tuple(_label_laws(records, points, transfers, method)),
    )


def _of_one_data_set(records: Sequence[results.RunRecord]) -> list[results.RunRecord]:
    """The trials on the data that most of them have, the newest of several such sets.

    Losses on other data, or on data that was mended in between, are points of another law. Not simply the newest set:
    a sweep that has just begun anew holds too few trials for a law, and `_notes` names what was left out. A population
    that only some encoders have been read out on by now says nothing of the others.
    """
    known = {text: json.loads(text) for text in {r.data_fingerprint for r in records}}
    everywhere = set.intersection(*map(set, known.values())) if known else set()
    data = {text: tuple(sorted((name, found[name]) for name in everywhere)) for text, found in known.items()}
    trials = Counter(data[r.data_fingerprint] for r in records)
    newest = {data[r.data_fingerprint]: r.started_at for r in results.oldest_first(records)}
    kept = max(trials, key=lambda fingerprints: (trials[fingerprints], newest[fingerprints]))
    return [r for r in records if data[r.data_fingerprint] == kept]


def _same_unit(a: str, b: str, target: str) -> bool:
    """SL and SSL losses have different units in distribution; read-outs on another population are all in nats."""
    return target != ID_TARGET or ("ssl" in a) == ("ssl" in b)


def trial_points(records: Sequence[results.RunRecord]) -> pd.DataFrame:
    """One row per trial: group, n, d, labels k, training FLOPs, wall time and one loss column per target.

    Targets: the in-distribution test loss, per population the mean loss over seen and over unseen binary tasks, and
    every task by itself. A task counts in a mean when it could be scored in every trial and has enough positives.
    """
    counted = _counted_tasks(records)
    scored = [{s.label for s in r.id_auroc if s.auroc is not None} for r in records if r.paradigm == "sl"]
    shared = set.intersection(*scored) if scored else set()
    rows = []
    for record in records:
        row: dict[str, Any] = {"group": _group(record, records), "n": record.n_params, "d": record.n_records}
        row |= {"k": record.n_labels, "flops": record.train_flops, "wall_s": record.wall_s}
        row |= _prediction_losses(record) if record.paradigm == "target" else {ID_TARGET: record.id_loss}
        areas = [s.auroc for s in record.id_auroc if s.label in shared and s.auroc is not None]
        row[SHARED_ERROR] = 1 - np.mean(areas) if areas else None
        losses = {(s.population, s.task): s.loss for s in record.transfer if s.kind == "binary" and _enough(s)}
        row |= {_task_name(*task): loss for task, loss in losses.items()}
        row |= {target: np.mean([losses[task] for task in sorted(tasks)]) for target, tasks in counted.items()}
        rows.append(row)
    points = pd.DataFrame(rows)
    return points.astype({c: float for c in points.columns if c != "group"})


def _prediction_losses(record: results.RunRecord) -> dict[str, float | None]:
    """Of a network trained on a target, on the test patients of its own population.

    The negative log-likelihood of a concentration may be negative, and laws are fitted to logarithms: its exponential,
    the inverse of the geometric mean density, is a loss in the target's unit.
    """
    spec = json.loads(record.spec)
    for score in record.predicted:
        if (score.population, score.part, score.condition) == (spec["train_on"], TEST, CLEAN):
            perplexity = math.exp(score.nll) if score.nll is not None else None
            found = {MAE: score.mae, CRPS: score.crps, EXP_NLL: perplexity}
            return {f"{spec['target']['name']}: {name}": value for name, value in found.items()}
    return {}


def _is_of_predictions(column: str) -> bool:
    return column.endswith(tuple(f": {name}" for name in (MAE, CRPS, EXP_NLL)))


def _group(record: results.RunRecord, records: Sequence[results.RunRecord]) -> str:
    """The arm; with its number of labels where supervised trials differ in it."""
    several_label_sets = len({r.n_labels for r in records if r.paradigm == "sl"}) > 1
    return f"{record.arm} k={record.n_labels}" if several_label_sets and record.n_labels else record.arm


def _arms(records: Sequence[results.RunRecord]) -> tuple[Arm, ...]:
    found = {Arm(_group(r, records), r.family, r.paradigm, r.n_labels) for r in records}
    return tuple(sorted(found, key=lambda arm: arm.group))


def _task_name(population: str, task: str) -> str:
    return f"{population}: {task}"


def _transfer_targets(records: Sequence[results.RunRecord]) -> tuple[TransferTarget, ...]:
    """The means over seen and over unseen tasks, then every task that has enough positives anywhere."""
    seen = {(s.population, s.task): s.seen for r in records for s in r.transfer if s.kind == "binary" and _enough(s)}
    means = []
    for name, tasks in _counted_tasks(records).items():
        population, task = min(tasks)
        means.append(TransferTarget(name, population, seen[population, task], False))
    return *means, *(TransferTarget(_task_name(*task), task[0], seen[task], True) for task in sorted(seen))


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
    """The read-out that laws are fitted to, with enough test records of both classes."""
    return score.is_main and score.loss is not None and not score.few_positives


def _notes(completed: Sequence[results.RunRecord], records: Sequence[results.RunRecord]) -> Iterator[str]:
    """What a reader must know; `records` are those of `completed` that are fitted."""
    if others := len(completed) - len(records):
        yield (
            f"{others} completed trials were trained or tested on other data (their fingerprints differ) and are left "
            f"out; the {len(records)} that are fitted share one"
        )
    if any(r.paradigm != "target" for r in records):
        yield (
            "SL losses are in nats, SSL losses in squared normalised signal: compare within a paradigm, or on transfer."
        )
    heads = [r for r in records if r.paradigm == "target"]
    if heads:
        yield "Losses of targets are of the test patients, in the unit of the target; exp NLL is 1 / geometric density."
    one_cell = [
        arm for arm in {r.arm for r in heads} if len({(r.n_params, r.n_records) for r in heads if r.arm == arm}) == 1
    ]
    if one_cell:
        yield f"{len(one_cell)} heads have one size and one amount of data: no law can be fitted to them"
    counted = _counted_tasks(records)
    for target, tasks in counted.items():
        yield f"{target}: mean over {', '.join(sorted(task for _, task in tasks))} (nats)"
    declared = {(s.population, s.task) for r in records for s in r.transfer if s.kind == "binary" and s.is_main}
    left_out = declared - set().union(*counted.values()) if counted else declared
    if left_out:
        names = ", ".join(f"{task} on {population}" for population, task in sorted(left_out))
        fewest = results.FEWEST_POSITIVES
        yield f"not averaged, not fitted or fewer than {fewest} positive or negative test records: {names}"


def _points(rows: pd.DataFrame, target: str) -> pd.DataFrame:
    columns = rows.reindex(columns=["n", "d", "flops", "wall_s", target])
    return columns.rename(columns={target: "loss"}).dropna()


def _laws_of(group: str, target: str, rows: pd.DataFrame, method: Method, joint: Sequence[str]) -> Iterator[Fitted]:
    points = _points(rows, target)
    largest_d = points[points["d"] == points["d"].max()]
    largest_n = points[points["n"] == points["n"].max()]
    for law in joint:
        yield fit_points(group, target, JOINT, law, points, ["n", "d"], method, cost=_counted_cost(points))
    for kind, variable, line in ((IN_N, "n", largest_d), (IN_D, "d", largest_n)):
        yield fit_points(group, target, kind, "power", line, [variable], method)
        if line[variable].nunique() >= LEVELS_FOR_A_FLOOR:
            yield fit_points(group, target, kind, "power_floor", line, [variable], method)


def _first_draws(law: LawFit | None) -> LawFit | None:
    """A law as if it had been fitted with the draws of a single task: resamples of one seed begin alike."""
    return None if law is None or law.draws is None else replace(law, draws=law.draws[:TASK_DRAWS])


def _task_law(group: str, task: str, rows: pd.DataFrame, method: Method) -> Fitted:
    """The joint law alone: with ten tasks and more, hold-outs and frontiers of each would be read by nobody."""
    points = _points(rows, task)
    try:
        found = fit(FLOORS_FROM, points["n"], points["d"], points["loss"], **method.options())
    except FitError as error:
        return Fitted(group, task, JOINT, FLOORS_FROM, points, None, str(error))
    return Fitted(group, task, JOINT, FLOORS_FROM, points, found)


def _label_laws(
    records: Sequence[results.RunRecord], points: pd.DataFrame, transfers: Sequence[TransferTarget], method: Method
) -> Iterator[Fitted]:
    """Per family, at its largest N and D: no floor, since a handful of label sets can't hold one."""
    for family in sorted({r.family for r in records}):
        supervised = points[[r.family == family and r.paradigm == "sl" for r in records]]
        largest = supervised[(supervised["n"] == supervised["n"].max()) & (supervised["d"] == supervised["d"].max())]
        if largest["k"].nunique() < 2:
            continue
        for target in (SHARED_ERROR, *(t.name for t in transfers)):
            if target in largest:
                line = largest[["k", "n", "d", "flops", "wall_s", target]].rename(columns={target: "loss"}).dropna()
                yield fit_points(f"{family}-sl", target, IN_K, "power", line, ["k"], method)


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
    points = rows.reindex(columns=["n", "d", x, y]).rename(columns={x: "x", y: "y"}).dropna()
    one, other = fits
    stages = None
    if one is not None and other is not None and one.n_points == other.n_points == len(points):
        stages = one, other
    return fit_pair_points(group, x, y, points, method, floors_from=FLOORS_FROM, stages=stages)
