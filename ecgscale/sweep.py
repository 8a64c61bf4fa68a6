"""A sweep is the same function applied to planned minus completed: safe to run twice, after any crash."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecgscale import results
from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.executors import Report
from ecgscale.plan import Plan
from ecgscale.specs import TrialSpec, load_grid

ExecutorName = Literal["ray", "inprocess"]

SWEEP_FILE = "sweep.yaml"


@dataclass(frozen=True)
class Backlog:
    """What is left of a plan. Without the data nobody knows: `n_done` is None then, and everything is to do."""

    plan: Plan
    todo: tuple[TrialSpec, ...]
    n_done: int | None


def backlog(plan: Plan, folder: Path | None) -> Backlog:
    """The trials of a plan that the results folder has no completed row of, in starting order.

    Args:
        folder: None for a plan made without the data, whose trial ids are those of no real run.
    """
    if folder is None:
        return Backlog(plan, smoke_first(plan.specs), None)
    records = results.read(folder) if results.is_results_folder(folder) else []
    todo = smoke_first(results.missing(plan.specs, records))
    return Backlog(plan, todo, len(plan.specs) - len(todo))


def smoke_first(specs: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
    """The cheapest trial of each arm first, so that a broken arm shows within seconds; then costliest first."""
    cheapest: dict[str, TrialSpec] = {spec.arm: spec for spec in specs}  # specs come costliest first: the last one wins
    smoke = tuple(cheapest.values())
    return smoke + tuple(spec for spec in specs if spec not in smoke)


def keep_sweep_file(sweep_file: Path, folder: Path) -> None:
    """Copies the sweep into its results folder.

    Raises:
        EcgscaleError: the folder belongs to a sweep of another name.
    """
    kept = folder / SWEEP_FILE
    if kept.exists() and kept.resolve() != sweep_file.resolve():
        other = load_grid(kept).name
        if other != load_grid(sweep_file).name:
            raise EcgscaleError(f"{folder}: holds the results of sweep {other!r}; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if kept.resolve() != sweep_file.resolve():
        shutil.copyfile(sweep_file, kept)


def execute(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    executor: ExecutorName,
    trials_per_gpu: int = 1,
) -> None:
    """Runs trials with the named executor; Ray must have been started."""
    if executor == "inprocess":
        from ecgscale.executors import inprocess

        inprocess.run(specs, execution, report)
    else:
        from ecgscale.executors import ray

        ray.run(specs, execution, report, trials_per_gpu=trials_per_gpu)
