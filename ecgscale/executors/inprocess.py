"""One trial after the other in this process: for tests, for a debugger, for a machine without Ray."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from ecgscale.budget import Gate
from ecgscale.checkpoint import random_state, restore_random
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop, lost, never
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, left_out, of_row
from ecgscale.hangs import watched, where_it_hung
from ecgscale.leases import Leases
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
        return _ended(spec, execution, leases or Leases(execution.results, execution.lease_s), stop)


def ends(
    specs: Sequence[TrialSpec],
    execution: Execution,
    leases: Leases | None = None,
    asked: StopRequest | None = None,
) -> Generator[Ended, None, None]:
    """The same of one trial, or of several that share a stream of records, side by side; each end as it comes."""
    if len(specs) == 1:
        yield ended(specs[0], execution, leases, asked)
        return
    leases = leases or Leases(execution.results, execution.lease_s)
    with _listening(asked) as stop:
        trials = [partial(_ended, spec, execution, leases, stop) for spec in specs]
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


def _ended(spec: TrialSpec, execution: Execution, leases: Leases, asked: StopRequest) -> Ended:
    stop = StopRequest(also=asked)
    lease = None
    try:
        lease = leases.acquire(spec.trial_id, spec.label, on_lost=stop.request)
        if lease is None:
            return left_out(spec, LEASED_ELSEWHERE)
        if lease.generation > 1 and (hung := where_it_hung(execution.results, spec.trial_id)) is not None:
            log.warning("%s: an earlier worker made no progress in %s", spec.label, hung)
        with lease, watched(execution.results, spec.trial_id, lease.generation, execution.hang_s):
            began, started = datetime.datetime.now(datetime.UTC), clock()
            row = run_trial(spec, execution, stop, lease.held)
            end = of_row(row, spec)
            if row.started_at < began:  # trained before: what that took has been counted
                end = replace(end, wall_s=clock() - started)
            return end
    except Preempted:
        if lease is not None and lease.lost:
            return left_out(spec, LEASED_ELSEWHERE)
        if stop.reason is not None:
            return left_out(spec, PREEMPTED)
        return lost(spec, "the results folder could not be reached when its row was to be published")
    except OSError as error:  # what the trial itself meets is in its row: here nothing could be written
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
