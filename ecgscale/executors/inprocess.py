"""One trial after the other in this process: for tests, for a debugger, for a machine without Ray."""

from __future__ import annotations

from collections.abc import Sequence

from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report
from ecgscale.specs import TrialSpec
from ecgscale.trial import run_trial


def ended(spec: TrialSpec, execution: Execution) -> Ended:
    """Runs one trial and returns what its row says, in a form that travels between processes."""
    record = run_trial(spec, execution)
    return Ended(record.trial_id, record.label, record.status, record.wall_s, record.id_loss, record.reason)


def run(specs: Sequence[TrialSpec], execution: Execution, report: Report) -> None:
    for spec in specs:
        report(ended(spec, execution))
