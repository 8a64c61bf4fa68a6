"""How far a sweep is, from its results folder alone: every trial's state, what it has cost, and when it will end.

Works from any machine that sees the folder, while others write to it. Running trials are known from their leases,
`leases/*.json`; a folder without leases has none that we know of.
"""

from __future__ import annotations

import datetime
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ecgscale import results
from ecgscale.failures import FailureClass
from ecgscale.plan import PlannedTrial, makespan_s, plan
from ecgscale.records import FailedReadOut
from ecgscale.results import NewRows, Outcome
from ecgscale.spec_base import no_garbage_collection
from ecgscale.specs import ReadOutSpec, load_grid
from ecgscale.sweep import SWEEP_FILE

LEASES = "leases"
HEARTBEAT_LOST_S = 120.0
"""A lease that was not renewed for so long is nobody's: its worker is dead or cut off. Our choice."""

RECENT = 20
"""So many of the last attempts tell how many run at once."""


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    TO_DO = "to do"


@dataclass(frozen=True)
class Trial:
    """One trial, planned or found; what has not happened yet is None."""

    label: str
    arm: str
    rung: str
    data_fraction: float
    state: State
    record: Outcome | None = None
    expected_s: float | None = None
    running_s: float = 0.0
    to_read_out: tuple[ReadOutSpec, ...] = ()
    """Of a trial that is done: what is still to be read off its encoder, as planned without the data."""

    @property
    def loss(self) -> float | None:
        return self.record.id_loss if self.record is not None and self.state is State.DONE else None

    @property
    def failure(self) -> FailureClass | None:
        return self.record.failure_class if self.record is not None and self.state is State.FAILED else None

    @property
    def failed_read_outs(self) -> tuple[FailedReadOut, ...]:
        """Those of what is still to be read out that were tried."""
        wanted = tuple(read_out.protocol_id for read_out in self.to_read_out)
        tried = self.record.failed_read_outs if self.record is not None else ()
        return tuple(failed for failed in tried if failed.read_out.startswith(wanted))


@dataclass(frozen=True)
class Progress:
    """Attributes:
    trials: those of the kept sweep file, then those that have rows but are no longer in it.
    planned: there is a sweep file, so that `trials` holds what is to do, too.
    spent_s: device → seconds over all attempts, failed ones included. Of CPUs it counts cores; trials that share a
        GPU count as if each had it alone.
    eta_s: seconds until what runs and what is to do has ended, None when nothing is left or nothing has finished.
    at_once: how many trials run at the same time, as far as the store tells.
    last: the last few attempts with a loss, newest first.
    retries: trials that somebody asked to be tried again, and that were not yet.
    quarantined: file → why it is no row.
    """

    folder: Path
    trials: tuple[Trial, ...]
    planned: bool
    n_attempts: int
    spent_s: Mapping[str, float]
    eta_s: float | None
    at_once: int
    last: tuple[Outcome, ...]
    retries: int
    quarantined: Mapping[str, str]

    @property
    def counts(self) -> Counter[State]:
        return Counter(trial.state for trial in self.trials)

    @property
    def finished(self) -> bool:
        left = self.counts[State.TO_DO] or self.counts[State.RUNNING]
        return not left and all(len(t.failed_read_outs) == len(t.to_read_out) for t in self.to_read_out)

    @property
    def to_read_out(self) -> tuple[Trial, ...]:
        """Those that are done but for what is to be read off their encoders."""
        return tuple(trial for trial in self.trials if trial.to_read_out)

    def in_state(self, state: State) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state is state)


class Watched:
    """A results folder that is read again and again: rows are never rewritten, so each is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new: NewRows | None = None
        self._rows: dict[str, Outcome] = {}
        self._plan: tuple[int, tuple[PlannedTrial, ...]] | None = None

    def progress(self, now: datetime.datetime | None = None) -> Progress:
        """The state at this moment.

        Raises:
            EcgscaleError: a row or the sweep file can't be read.
        """
        moment = now or datetime.datetime.now(datetime.UTC)
        with no_garbage_collection():
            records = results.with_read_outs(self.folder, results.oldest_first(self._all_rows()))
            return progress(self.folder, records, self._planned(), _running(self.folder, moment))

    def _all_rows(self) -> Iterable[Outcome]:
        if self._new is None:
            self._new = NewRows(self.folder)  # before the others are read, so that none is missed in between
            rows: Sequence[Outcome] = results.outcomes(self.folder)
        else:
            rows = self._new.look()
        self._rows |= {row.attempt: row for row in rows}
        return self._rows.values()

    def _planned(self) -> tuple[PlannedTrial, ...] | None:
        file = self.folder / SWEEP_FILE
        if not file.exists():
            return None
        written = file.stat().st_mtime_ns
        if self._plan is None or self._plan[0] != written:
            self._plan = written, plan(load_grid(file)).trials
        return self._plan[1]


def progress(
    folder: Path,
    records: Sequence[Outcome],
    planned: Sequence[PlannedTrial] | None,
    running_s: Mapping[str, float],
) -> Progress:
    """What rows, plan and leases say together. Labels are compared, since trial ids need the data.

    Args:
        records: oldest first.
        running_s: label → seconds since a trial that is running was started.
    """
    latest = sorted(results.latest(records).values(), key=lambda r: r.started_at)
    newest = {record.label: record for record in latest}  # the same cell, trained on other records before
    on_gpu = bool(records) and records[-1].device != "cpu"
    trials = [_trial(cell, newest.get(cell.spec.label), running_s, on_gpu) for cell in planned or ()]
    known = {trial.label for trial in trials}
    trials += [_found(record, running_s) for record in latest if record.label not in known]
    at_once = max(len(running_s), _most_at_once(records[-RECENT:]), 1)
    return Progress(
        folder,
        tuple(trials),
        planned=planned is not None,
        n_attempts=len(records),
        spent_s=_spent_s(records),
        eta_s=_eta_s(trials, at_once),
        at_once=at_once,
        last=tuple(r for r in sorted(records, key=_ended_at, reverse=True) if r.id_loss is not None)[:5],
        retries=_open_retries(folder, latest),
        quarantined=results.quarantined(folder),
    )


def _trial(cell: PlannedTrial, record: Outcome | None, running_s: Mapping[str, float], on_gpu: bool) -> Trial:
    spec, label = cell.spec, cell.spec.label
    state = _state(label, record, running_s)
    expected_s = cell.gpu_s if on_gpu else cell.cpu_s
    elapsed_s = running_s.get(label, 0.0)
    left: tuple[ReadOutSpec, ...] = ()
    if state is State.DONE and record is not None:
        left = tuple(r for r in spec.read_outs if not any(done.startswith(r.protocol_id) for done in record.read_outs))
    return Trial(label, spec.arm, spec.rung, spec.data_fraction, state, record, expected_s, elapsed_s, left)


def _found(record: Outcome, running_s: Mapping[str, float]) -> Trial:
    state = _state(record.label, record, running_s)
    return Trial(record.label, record.arm, record.rung, record.data_fraction, state, record)


def _state(label: str, record: Outcome | None, running_s: Mapping[str, float]) -> State:
    if record is not None and record.status == results.Status.COMPLETED:
        return State.DONE
    if label in running_s:
        return State.RUNNING
    return State.TO_DO if record is None else State.FAILED


def _eta_s(trials: Iterable[Trial], at_once: int) -> float | None:
    """What is left, longest first, by the plan's estimates scaled to what finished trials have really taken."""
    trials = list(trials)
    left = [t for t in trials if t.state in (State.RUNNING, State.TO_DO) and t.expected_s is not None]
    ratios = [
        t.record.wall_s / t.expected_s
        for t in trials
        if t.state is State.DONE and t.record is not None and t.expected_s
    ]
    if not left or not ratios:
        return None
    scale = statistics.median(ratios)
    return makespan_s([max(scale * (t.expected_s or 0.0) - t.running_s, 0.0) for t in left], at_once)


def _ended_at(record: Outcome) -> datetime.datetime:
    return record.ended_at or record.started_at + datetime.timedelta(seconds=record.wall_s)


def _most_at_once(records: Sequence[Outcome]) -> int:
    """The most attempts whose times overlap."""
    edges = [(record.started_at, 1) for record in records] + [(_ended_at(record), -1) for record in records]
    running = most = 0
    for _, change in sorted(edges):  # at the same moment an end comes before a start
        running += change
        most = max(most, running)
    return most


def _spent_s(records: Sequence[Outcome]) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    for record in records:
        spent[record.device] += record.wall_s * (record.threads if record.device == "cpu" else 1)
    for record in results.latest(records).values():
        spent[record.device] += (record.read_outs_s or 0.0) * (record.threads if record.device == "cpu" else 1)
    return dict(spent)


def _open_retries(folder: Path, latest: Iterable[Outcome]) -> int:
    asked = results.asked_retries(folder)
    return sum(r.attempt in asked for r in latest if r.status != results.Status.COMPLETED)


# --- leases --------------------------------------------------------------------------------------------------------


def _running(folder: Path, now: datetime.datetime) -> dict[str, float]:
    """Label → seconds since its attempt was started, for the leases that are still renewed.

    Good enough to be looked at; what is decided about leases is decided in `leases`, without comparing clocks.
    """
    running = {}
    for path in (folder / LEASES).glob("*.json"):
        try:
            lease = json.loads(path.read_text(encoding="utf-8"))
            label, beat = lease["label"], path.stat().st_mtime
            started = datetime.datetime.fromisoformat(lease["started_at"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError):
            continue  # given back at this moment, or half of it seen
        if now.timestamp() - beat < HEARTBEAT_LOST_S:
            running[label] = max(now.timestamp() - started, 0.0)
    return running
