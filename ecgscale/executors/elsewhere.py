"""What becomes of a sweep's trials while others, on this machine or another, run some of them."""

from __future__ import annotations

from collections.abc import Iterable

from ecgscale import results
from ecgscale.execution import Execution
from ecgscale.executors import Ended, lost
from ecgscale.hangs import where_it_hung
from ecgscale.leases import Leases
from ecgscale.results import RunRecord
from ecgscale.specs import TrialSpec

LEASED_ELSEWHERE = "leased elsewhere"
"""What executors report of a trial that somebody else runs. No row has this status."""


class Elsewhere:
    """Watches the folder from now on."""

    def __init__(self, execution: Execution) -> None:
        self.leases = Leases(execution.results, execution.lease_s)
        self._rows = results.NewRows(execution.results)

    def look(self, specs: Iterable[TrialSpec]) -> tuple[list[Ended], list[TrialSpec]]:
        """(ends of trials since the last look, whoever ran them; trials that nobody runs, in the given order)."""
        wanted = {spec.trial_id: spec for spec in specs}
        ended = {row.trial_id: of_row(row) for row in self._rows.look() if row.trial_id in wanted}
        left = [trial_id for trial_id in wanted if trial_id not in ended]
        return list(ended.values()), [wanted[trial_id] for trial_id in self.leases.free(left)]


def of_row(row: RunRecord) -> Ended:
    return Ended(row.trial_id, row.label, row.status, row.wall_s, row.id_loss, row.reason, row.failure, row.bug)


def left_out(spec: TrialSpec, status: str) -> Ended:
    """A trial that was not run, or not to its end, through no fault of anybody."""
    return Ended(spec.trial_id, spec.label, status, 0.0, None, None)


def worker_died(spec: TrialSpec, execution: Execution, n_workers: int = 1, *, given_up: bool = False) -> Ended:
    """A trial whose process is gone: it hung, and says where, or nobody knows why."""
    who = f"{n_workers} workers died while they ran it" if n_workers > 1 else "its worker died"
    hung = where_it_hung(execution.results, spec.trial_id)
    if hung is not None:
        reason = f"{who}; the last that hung made no progress for {execution.hang_s:g} s in {hung}"
    else:
        reason = f"{who} (killed, or the machine ran out of memory)"
    return lost(spec, reason, given_up=given_up)
