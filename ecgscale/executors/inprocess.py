"""One trial after the other in this process: for tests, for a debugger, for a machine without Ray."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from ecgscale.budget import Gate
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop, lost, never
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, left_out, of_row
from ecgscale.hangs import watched, where_it_hung
from ecgscale.leases import Leases
from ecgscale.preemption import PREEMPTED, Preempted, StopRequest
from ecgscale.specs import TrialSpec
from ecgscale.trial import run_trial

log = logging.getLogger(__name__)


def ended(
    spec: TrialSpec, execution: Execution, leases: Leases | None = None, asked: StopRequest | None = None
) -> Ended:
    """Runs one trial, unless others do or have, and returns what its row says in a form that travels.

    Args:
        leases: of this process, if it keeps them from trial to trial.
        asked: is told when this process was asked to stop meanwhile, however the trial ended.
    """
    leases = leases or Leases(execution.results, execution.lease_s)
    lease = None
    with StopRequest().listening() as stop:
        try:
            lease = leases.acquire(spec.trial_id, spec.label, on_lost=stop.request)
            if lease is None:
                return left_out(spec, LEASED_ELSEWHERE)
            if lease.generation > 1 and (hung := where_it_hung(execution.results, spec.trial_id)) is not None:
                log.warning("%s: an earlier worker made no progress in %s", spec.label, hung)
            with lease, watched(execution.results, spec.trial_id, lease.generation, execution.hang_s):
                began, started = datetime.datetime.now(datetime.UTC), time.monotonic()
                row = run_trial(spec, execution, stop, lease.held)
                end = of_row(row, spec)
                if row.started_at < began:  # trained before: what that took has been counted
                    end = replace(end, wall_s=time.monotonic() - started)
                return end
        except Preempted:
            if lease is not None and lease.lost:
                return left_out(spec, LEASED_ELSEWHERE)
            if stop.reason is not None:
                return left_out(spec, PREEMPTED)
            return lost(spec, "the results folder could not be reached when its row was to be published")
        except OSError as error:  # what the trial itself meets is in its row: here nothing could be written
            return lost(spec, f"its row could not be written ({error.strerror or error})")
        finally:
            if asked is not None and stop.reason is not None and not (lease is not None and lease.lost):
                asked.request(stop.reason)


def run(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    stop: Stop = never,
    gate: Gate | None = None,
) -> None:
    """Runs trials in the given order; those that others hold are reported as leased elsewhere."""
    with StopRequest().listening() as asked:
        for spec in specs:
            if stop() or asked.reason is not None or (gate is not None and gate.refuses(spec.trial_id)):
                return
            end = ended(spec, execution, asked=asked)
            if gate is not None:
                gate.ended(spec.trial_id, end.wall_s)
            if end.status == PREEMPTED:
                return
            report(end)
