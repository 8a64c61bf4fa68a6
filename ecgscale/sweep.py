"""A sweep is the same function applied to planned minus completed and read out: safe to run twice, after any crash."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ecgscale import results
from ecgscale.budget import Gate
from ecgscale.calibration import Calibration
from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, Elsewhere
from ecgscale.executors.slots import Slots
from ecgscale.failures import BugWatch, FailureClass
from ecgscale.plan import Device, Plan, starting_order
from ecgscale.preemption import PREEMPTED
from ecgscale.side_by_side import SideBySide
from ecgscale.spec_changes import Standing, standings
from ecgscale.specs import TrialSpec, load_grid

ExecutorName = Literal["ray", "inprocess", "worker"]

SWEEP_FILE = "sweep.yaml"

LOOK_S = 1.0
"""Between two looks at trials that others run. Our choice."""

Run = Callable[[Sequence[TrialSpec], Report, Stop], None]
"""One call of an executor."""

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
    """Trial id → new, done, failed, changed, or completed and to be read out; empty without the data."""
    spent_s: Mapping[str, float] = field(default_factory=dict)
    """Trial id → wall seconds of all its attempts in the results folder, failed ones included."""
    diverged: frozenset[str] = frozenset()
    """Trials that are neither done nor to do: they diverge again, unless somebody asks for a retry."""

    @property
    def settled(self) -> frozenset[str]:
        """Trials that are not to do."""
        return frozenset(spec.trial_id for spec in self.plan.specs) - {spec.trial_id for spec in self.todo}


def backlog(
    plan: Plan, folder: Path | None, calibration: Calibration | None = None, device: Device | None = None
) -> Backlog:
    """The trials of a plan that are not completed in the results folder, or not read out as planned, in starting order.

    Args:
        folder: None for a plan made without the data, whose trial ids are those of no real run.
        calibration: measured times; the rows of the folder correct it.
        device: what the trials will run on, if that is known.
    """
    known = calibration or Calibration()
    if folder is None:
        plan = known.applied(plan, device)
        return Backlog(plan, starting_order(plan.specs, plan.order), None)
    records = results.read(folder) if results.is_results_folder(folder) else []
    plan = (known + Calibration.from_rows(records)).applied(plan, device)
    todo = starting_order(results.missing(plan.specs, records, results.asked_retries(folder)), plan.order)
    rows = results.latest(records)
    undone = {spec.trial_id for spec in plan.specs if not results.is_done(spec, rows.get(spec.trial_id))}
    diverged = undone - {spec.trial_id for spec in todo}
    return Backlog(
        plan,
        todo,
        len(plan.specs) - len(undone),
        standings=standings(plan.specs, records),
        spent_s=_spent_s(records),
        diverged=frozenset(diverged),
    )


def _spent_s(records: Sequence[results.RunRecord]) -> Mapping[str, float]:
    spent: defaultdict[str, float] = defaultdict(float)
    for record in records:
        spent[record.trial_id] += record.wall_s
    for record in results.latest(records).values():
        spent[record.trial_id] += record.read_outs_s or 0.0
    return spent


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
    slots: Slots | None = None,
    processes: int = 1,
    gate: Gate | None = None,
    together: SideBySide | None = None,
) -> str | None:
    """Runs trials with the named executor; Ray must have been started.

    Trials that others run are waited for, and taken over when their owners are gone.

    What failed because of the machine is tried again after a pause, and what ran out of memory beside other trials once
    more alone; both are reported only when they have failed for good. A bug that several trials share stops the
    launching; what runs by then ends.

    Args:
        together: which trials train side by side; by default none.

    Returns:
        Why trials were left out, None if it was not our decision.
    """
    watch = BugWatch()

    def run(
        specs: Sequence[TrialSpec],
        report: Report,
        stop: Stop,
        *,
        alone: bool = False,
        beside: SideBySide | None = None,
    ) -> None:
        if executor == "inprocess":
            from ecgscale.executors import inprocess

            inprocess.run(specs, execution, report, stop=stop, gate=gate, together=beside)
        elif executor == "worker":
            from ecgscale.executors import worker

            n = 1 if alone else processes
            worker.run(specs, execution, report, processes=n, stop=stop, gate=gate, together=beside)
        else:
            from ecgscale.executors import ray

            held = replace(slots or Slots(), alone=alone)
            ray.run(specs, execution, report, slots=held, stop=stop, gate=gate, together=beside)

    def stopped() -> bool:
        return watch.stopped or (gate is not None and gate.over())

    todo = tuple(specs)
    crowded: dict[str, Ended] = {}
    attempt: Run = partial(run, beside=together)
    for pause_s in (*PAUSES_S, None):
        made = _one_pass(todo, attempt, Elsewhere(execution), report, watch, stopped, last=pause_s is None)
        crowded |= made.crowded
        failed = tuple(spec for spec in todo if spec.trial_id in made.postponed)
        interrupted = bool(made.left) or watch.stopped  # no second try after Ctrl-C
        if interrupted:
            for end in made.postponed.values():
                report(end)
        if interrupted or pause_s is None or not failed:
            break
        log.warning("%d of %d trials failed because of the machine; again in %g s", len(failed), len(todo), pause_s)
        time.sleep(pause_s)
        todo, attempt = failed, run  # nothing beside what may have cost a worker
    if crowded and not interrupted:
        log.warning("%d trials ran out of memory beside others; again, each alone", len(crowded))
        todo = tuple(spec for spec in specs if spec.trial_id in crowded)
        made = _one_pass(todo, partial(run, alone=True), Elsewhere(execution), report, watch, stopped, last=True)
        crowded = {trial_id: crowded[trial_id] for trial_id in made.left} | made.crowded
    for end in crowded.values():
        report(end)
    return watch.verdict() or (gate.closed if gate is not None else None)


@dataclass
class _Pass:
    """Attributes:
    left: trials that have not ended.
    postponed: ends that are not reported, since the machine was to blame and they are tried again.
    crowded: likewise, of what ran out of memory beside other trials.
    """

    left: dict[str, TrialSpec]
    postponed: dict[str, Ended] = field(default_factory=dict)
    crowded: dict[str, Ended] = field(default_factory=dict)


def _one_pass(
    specs: Sequence[TrialSpec],
    run: Run,
    elsewhere: Elsewhere,
    report: Report,
    watch: BugWatch,
    stop: Stop,
    *,
    last: bool,
) -> _Pass:
    todo: dict[str, TrialSpec] = {spec.trial_id: spec for spec in specs}
    made = _Pass(todo)
    heard = 0

    def note(end: Ended) -> None:
        nonlocal heard
        heard += 1
        if end.status in (LEASED_ELSEWHERE, PREEMPTED):
            return
        del todo[end.trial_id]
        if end.bug is not None:
            watch.saw(end.bug, end.trial_id, end.reason)
        if end.failure == FailureClass.INFRASTRUCTURE and not last and not end.given_up:
            made.postponed[end.trial_id] = end
        elif end.failure == FailureClass.OUT_OF_MEMORY and end.shared:
            made.crowded[end.trial_id] = end
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
