"""A sweep is the same function applied to planned minus completed: safe to run twice, after any crash."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ecgscale import results
from ecgscale.budget import Gate
from ecgscale.calibration import Calibration
from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, Elsewhere
from ecgscale.failures import BugWatch, FailureClass
from ecgscale.plan import Plan
from ecgscale.preemption import PREEMPTED
from ecgscale.spec_changes import Standing, standings
from ecgscale.specs import TrialSpec, load_grid

ExecutorName = Literal["ray", "inprocess", "worker"]

SWEEP_FILE = "sweep.yaml"

LOOK_S = 1.0
"""Between two looks at trials that others run. Our choice."""

PAUSES_S = (10.0, 60.0)
"""Before the second and the third try of what failed because of the machine. Our choice."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backlog:
    """What is left of a plan. Without the data nobody knows: `n_done` is None then, and everything is to do."""

    plan: Plan
    todo: tuple[TrialSpec, ...]
    n_done: int | None
    standings: Mapping[str, Standing] = field(default_factory=dict)
    """Trial id → new, done, failed or changed; empty without the data."""
    spent_s: float = 0.0
    """Wall seconds of all attempts in the results folder, failed ones included."""
    diverged: frozenset[str] = frozenset()
    """Trials that are neither done nor to do: they diverge again, unless somebody asks for a retry."""


def backlog(plan: Plan, folder: Path | None, calibration: Calibration | None = None) -> Backlog:
    """The trials of a plan that the results folder has no completed row of, in starting order.

    Args:
        folder: None for a plan made without the data, whose trial ids are those of no real run.
        calibration: measured times; the rows of the folder correct it.
    """
    known = calibration or Calibration()
    if folder is None:
        plan = known.applied(plan)
        return Backlog(plan, smoke_first(plan.specs), None)
    records = results.read(folder) if results.is_results_folder(folder) else []
    plan = (known + Calibration.from_rows(records)).applied(plan)
    todo = smoke_first(results.missing(plan.specs, records, results.asked_retries(folder)))
    undone = {spec.trial_id for spec in results.without_row(plan.specs, records)}
    diverged = undone - {spec.trial_id for spec in todo}
    return Backlog(
        plan,
        todo,
        len(plan.specs) - len(undone),
        standings=standings(plan.specs, records),
        spent_s=sum(record.wall_s for record in records),
        diverged=frozenset(diverged),
    )


def smoke_first(specs: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
    """The cheapest trial of each arm first, so that a broken arm shows within seconds; then costliest first."""
    cheapest: dict[str, TrialSpec] = {spec.arm: spec for spec in specs}  # specs come costliest first: the last one wins
    smoke = tuple(cheapest.values())
    chosen = {id(spec) for spec in smoke}
    return smoke + tuple(spec for spec in specs if id(spec) not in chosen)


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
        unfinished = kept.with_suffix(f".{uuid.uuid4().hex}.tmp")  # others may start the same sweep at this moment
        try:
            shutil.copyfile(sweep_file, unfinished)
            unfinished.replace(kept)
        finally:
            unfinished.unlink(missing_ok=True)


def execute(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    executor: ExecutorName,
    trials_per_gpu: int = 1,
    processes: int = 1,
    gate: Gate | None = None,
) -> str | None:
    """Runs trials with the named executor; Ray must have been started.

    Trials that others run are waited for, and taken over when their owners are gone.

    What failed because of the machine is tried again after a pause, and reported only when it has failed for good. A
    bug that several trials share stops the launching; what runs by then ends.

    Returns:
        Why trials were left out, None if it was not our decision.
    """
    watch = BugWatch()

    def run(specs: Sequence[TrialSpec], report: Report, stop: Stop) -> None:
        if executor == "inprocess":
            from ecgscale.executors import inprocess

            inprocess.run(specs, execution, report, stop=stop, gate=gate)
        elif executor == "worker":
            from ecgscale.executors import worker

            worker.run(specs, execution, report, processes=processes, stop=stop, gate=gate)
        else:
            from ecgscale.executors import ray

            ray.run(specs, execution, report, trials_per_gpu=trials_per_gpu, stop=stop, gate=gate)

    def stopped() -> bool:
        return watch.stopped or (gate is not None and gate.over())

    todo = tuple(specs)
    for pause_s in (*PAUSES_S, None):
        ended = _one_pass(todo, run, Elsewhere(execution), report, watch, stopped, last=pause_s is None)
        failed = tuple(spec for spec in todo if spec.trial_id in ended.postponed)
        if ended.n < len(todo) or watch.stopped:  # no second try after Ctrl-C
            for end in ended.postponed.values():
                report(end)
            break
        if pause_s is None or not failed:
            break
        log.warning("%d of %d trials failed because of the machine; again in %g s", len(failed), len(todo), pause_s)
        time.sleep(pause_s)
        todo = failed
    return watch.verdict() or (gate.closed if gate is not None else None)


@dataclass
class _Pass:
    """How many trials have ended, and those whose end is not reported since they are tried again."""

    n: int = 0
    postponed: dict[str, Ended] = field(default_factory=dict)


def _one_pass(
    specs: Sequence[TrialSpec],
    run: Callable[[Sequence[TrialSpec], Report, Stop], None],
    elsewhere: Elsewhere,
    report: Report,
    watch: BugWatch,
    stop: Stop,
    *,
    last: bool,
) -> _Pass:
    made = _Pass()
    todo: dict[str, TrialSpec] = {spec.trial_id: spec for spec in specs}
    heard = 0

    def note(end: Ended) -> None:
        nonlocal heard
        heard += 1
        if end.status in (LEASED_ELSEWHERE, PREEMPTED):
            return
        del todo[end.trial_id]
        made.n += 1
        if end.bug is not None:
            watch.saw(end.bug, end.trial_id, end.reason)
        if end.failure == FailureClass.INFRASTRUCTURE and not last:
            made.postponed[end.trial_id] = end
        else:
            report(end)

    free = list(specs)
    while todo and not stop():
        heard, n_started = 0, len(free)
        run(free, note, stop)
        if heard < n_started:  # interrupted
            break
        free = []
        while todo and not free and not stop():
            ends, free = elsewhere.look(todo.values())
            for end in ends:
                note(end)
            if not free and todo:
                time.sleep(LOOK_S)
        for spec in free:
            elsewhere.leases.clear(spec.trial_id)  # the processes that run trials have not watched it
    return made
