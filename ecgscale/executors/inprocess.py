"""One trial after the other in this process: for tests, for a debugger, for a machine without Ray."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ecgscale.budget import Gate
from ecgscale.checkpoint import random_state, restore_random
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop, lost, never
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, left_out, of_row
from ecgscale.hangs import watched, where_it_hung
from ecgscale.leases import Lease, Leases
from ecgscale.preemption import PREEMPTED, Preempted, StopRequest
from ecgscale.side_by_side import SideBySide
from ecgscale.specs import TrialSpec
from ecgscale.trial import run_trial
from ecgscale.turns import clock, side_by_side

log = logging.getLogger(__name__)


def ended(
    spec: TrialSpec, execution: Execution, leases: Leases | None = None, asked: StopRequest | None = None
) -> Ended:
    """Runs one trial, unless others do or have, and returns what its row says in a form that travels.

    Args:
        leases: of this process, if it keeps them from trial to trial.
        asked: is told when this process was asked to stop meanwhile, however the trial ended.
    """
    with _listening(asked) as stop:
        held = _taken(spec, leases or Leases(execution.results, execution.lease_s), stop)
        return held if isinstance(held, Ended) else held.ended(execution)


def ends(
    specs: Sequence[TrialSpec],
    execution: Execution,
    leases: Leases | None = None,
    asked: StopRequest | None = None,
) -> Generator[Ended, None, None]:
    """The same of one trial, or of several that share a stream of records or their steps, side by side; each end as it
    comes.

    Nobody else begins with one of these while it waits for its first turn: all leases are taken before.
    """
    if len(specs) == 1:
        yield ended(specs[0], execution, leases, asked)
        return
    leases = leases or Leases(execution.results, execution.lease_s)
    with _listening(asked) as stop, ExitStack() as held_until_all_ended:
        trials = []
        for spec in specs:
            held = _taken(spec, leases, stop)
            if isinstance(held, Ended):
                yield held
            else:
                held_until_all_ended.enter_context(held.lease)  # unless it ends, and gives its lease back, before
                trials.append(partial(held.ended, execution))
        if not trials:
            return
        with closing(side_by_side(trials, stop.request, (random_state, restore_random))) as found:
            for end in found:
                yield replace(end, shared=True)


@contextmanager
def _listening(asked: StopRequest | None) -> Iterator[StopRequest]:
    """Signals ask for a stop within the block, and `asked` is told of them after it."""
    with StopRequest().listening() as stop:
        try:
            yield stop
        finally:
            if asked is not None and stop.reason is not None:
                asked.request(stop.reason)


def _taken(spec: TrialSpec, leases: Leases, asked: StopRequest) -> _Held | Ended:
    """The trial with its lease, or why it has none."""
    stop = StopRequest(also=asked)
    try:
        lease = leases.acquire(spec.trial_id, spec.label, on_lost=stop.request)
    except OSError as error:
        return _not_written(spec, error)
    return _Held(spec, lease, stop) if lease is not None else left_out(spec, LEASED_ELSEWHERE)


@dataclass(frozen=True)
class _Held:
    """A trial that nobody else runs, as long as its lease stands."""

    spec: TrialSpec
    lease: Lease
    stop: StopRequest

    def ended(self, execution: Execution) -> Ended:
        spec, lease = self.spec, self.lease
        try:
            with lease, watched(execution.results, spec.trial_id, lease.generation, execution.hang_s):
                if lease.generation > 1 and (hung := where_it_hung(execution.results, spec.trial_id)) is not None:
                    log.warning("%s: an earlier worker made no progress in %s", spec.label, hung)
                began, started = datetime.datetime.now(datetime.UTC), clock()
                row = run_trial(spec, execution, self.stop, lease.held)
                end = of_row(row, spec)
                if row.started_at < began:  # trained before: what that took has been counted
                    end = replace(end, wall_s=clock() - started)
                return end
        except Preempted:
            if lease.lost:
                return left_out(spec, LEASED_ELSEWHERE)
            if self.stop.reason is not None:
                return left_out(spec, PREEMPTED)
            return lost(spec, "the results folder could not be reached when its row was to be published")
        except OSError as error:
            return _not_written(spec, error)


def _not_written(spec: TrialSpec, error: OSError) -> Ended:
    """What the trial itself meets is in its row: here there could be none."""
    return lost(spec, f"its row could not be written ({error.strerror or error})")


def run(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    stop: Stop = never,
    gate: Gate | None = None,
    together: SideBySide | None = None,
) -> None:
    """Runs trials in the given order; those that others hold are reported as leased elsewhere.

    Args:
        together: which of them train side by side; by default none.
    """
    with StopRequest().listening() as asked:
        for group in (together or SideBySide()).groups(specs):
            if stop() or asked.reason is not None:
                return
            group = tuple(spec for spec in group if gate is None or not gate.refuses(spec.trial_id))
            if not group:
                return
            preempted = False
            for end in ends(group, execution, asked=asked):
                if gate is not None:
                    gate.ended(end.trial_id, end.wall_s)
                preempted = preempted or end.status == PREEMPTED
                if end.status != PREEMPTED:
                    report(end)
            if preempted:
                return
