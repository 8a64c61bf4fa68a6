"""What becomes of a sweep's trials while others, on this machine or another, run some of them."""

from __future__ import annotations

from collections.abc import Iterable

from ecgscale import results, transfer_files
from ecgscale.execution import Execution
from ecgscale.executors import Ended, lost
from ecgscale.hangs import where_it_hung
from ecgscale.leases import Leases
from ecgscale.results import RunRecord, Status
from ecgscale.specs import TrialSpec

LEASED_ELSEWHERE = "leased elsewhere"
"""What executors report of a trial that somebody else runs. No row has this status."""


class Elsewhere:
    """Watches the folder from now on."""

    def __init__(self, execution: Execution) -> None:
        self.leases = Leases(execution.results, execution.lease_s)
        self._folder = execution.results
        self._rows = results.NewRows(execution.results)
        self._trained: dict[str, RunRecord] = {}
        self._failures = transfer_files.failures(execution.results)

    def look(self, specs: Iterable[TrialSpec]) -> tuple[list[Ended], list[TrialSpec]]:
        """(ends of trials since the last look, whoever ran them; trials that nobody runs, in the given order).

        A trial with a completed row has not ended before it is read out, too; whoever takes it then does only that.
        """
        wanted = {spec.trial_id: spec for spec in specs}
        ended = {}
        for row in self._rows.look():
            if row.status == Status.COMPLETED:
                self._trained[row.trial_id] = row
            elif row.trial_id in wanted:
                ended[row.trial_id] = of_row(row, wanted[row.trial_id])
        for trial_id in self._trained.keys() & wanted.keys():
            spec, row = wanted[trial_id], results.with_its_read_outs(self._folder, self._trained[trial_id])
            if not results.lacking(spec, row):
                ended[trial_id] = of_row(row, spec)
        failures = transfer_files.failures(self._folder)
        new = {name.partition("-")[0] for name, time in failures.items() if self._failures.get(name) != time}
        free = self.leases.free([trial_id for trial_id in wanted if trial_id not in ended])
        for trial_id in new.intersection(free):
            row_of_it = results.completed_row(self._folder, trial_id)
            if row_of_it is not None:
                ended[trial_id] = of_row(row_of_it, wanted[trial_id])
        return list(ended.values()), [wanted[trial_id] for trial_id in free if trial_id not in ended]


def of_row(row: RunRecord, spec: TrialSpec) -> Ended:
    """How a trial ended: failed, too, when its training completed and its encoder could not be read out."""
    wanted = {read_out.read_out_id for read_out in spec.read_outs}
    for failed in row.failed_read_outs:
        if failed.read_out in wanted:
            reason = f"trained, but not read out on {failed.population}: {failed.reason}"
            status, failure, bug = failed.status, failed.failure, failed.bug
            return Ended(row.trial_id, row.label, status, row.wall_s, row.id_loss, reason, failure, bug)
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
