"""What a trial leaves in its rows: how it ended, what it measured, and where that comes from."""

from __future__ import annotations

import datetime
import json
import re
import resource
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ecgscale.checkpoint import Checkpoint
from ecgscale.concentrations.heads import HEADS
from ecgscale.execution import Execution
from ecgscale.failures import FailureClass, classify, fingerprint
from ecgscale.plan import planned
from ecgscale.pretraining import Measured
from ecgscale.provenance import driver_version, git_diff, git_state, host, versions
from ecgscale.records import RunRecord, Status, TargetScore, TaskScore, TransferRecord
from ecgscale.results import new_attempt
from ecgscale.specs import ReadOutSpec, TrialSpec
from ecgscale.turns import n_beside


@dataclass(frozen=True)
class Ending:
    """What a row says of how the trial, or a read-out, ended; all null but the status when it completed."""

    status: Status = Status.COMPLETED
    reason: str | None = None
    failure: FailureClass | None = None
    bug: str | None = None


def _without_folders(message: str, execution: Execution) -> str:
    """The message with paths below the data directory, and names alone of files elsewhere: no row holds a path."""
    for folder in (execution.data, execution.results):
        message = message.replace(f"{folder}/", "")
    return re.sub(r"(?<![\w:/.])/(?:[^/\s'\"]+/)+", "", message)


def ended_with(error: Exception, execution: Execution) -> Ending:
    """How something ended that raised."""
    failure = classify(error)
    reason = _without_folders(f"{type(error).__name__}: {error}", execution)
    if failure is FailureClass.DIVERGED:
        return Ending(Status.DIVERGED, str(error), failure)
    if failure is FailureClass.OUT_OF_MEMORY:
        return Ending(Status.OUT_OF_MEMORY, reason, failure)
    place = f"{reason}\n{_inner_frames(error)}"
    return Ending(Status.FAILED, place, failure, fingerprint(error) if failure is FailureClass.BUG else None)


def _inner_frames(error: Exception) -> str:
    """Where it happened: the last frames, files by name only, since no row holds a path."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return "\n".join(f"  {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames)


@dataclass(frozen=True)
class ReadOut:
    """What was found on one population: scores of tasks, or of a target's predictions."""

    scores: tuple[TaskScore, ...] = ()
    predicted: tuple[TargetScore, ...] = ()


def run_record(
    spec: TrialSpec,
    execution: Execution,
    device: torch.device,
    ending: Ending,
    measured: Measured | None,
    started_at: datetime.datetime,
    checkpoint: Checkpoint,
) -> RunRecord:
    """The row of an attempt.

    Args:
        measured: None if it has not completed.
    """
    cost = planned(spec)
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return RunRecord(
        sweep=execution.sweep,
        trial_id=spec.trial_id,
        attempt=new_attempt(),
        label=spec.label,
        family=spec.family,
        paradigm=spec.paradigm,
        rung=spec.rung,
        arm=spec.arm,
        data_fraction=spec.data_fraction,
        n_labels=len(spec.labels),
        seed=spec.seed,
        n_params=cost.n_params,
        n_params_head=cost.n_params_head,
        n_records=spec.n_records,
        n_samples_seen=spec.n_samples_seen,
        train_flops=cost.train_flops,
        **asdict(ending),
        loss_unit=_loss_unit(spec),
        **(vars(measured) if measured is not None else {}),
        read_outs_s=0.0,
        wall_s=checkpoint.wall_s,
        n_resumes=checkpoint.n_resumes,
        microbatch=checkpoint.microbatch,
        compiled=checkpoint.way == "compiled",
        stacked=checkpoint.way == "stacked",
        n_beside=n_beside(),
        peak_memory_bytes=int(peak),
        **_origin(execution, device),
        cuda_version=torch.version.cuda if on_gpu else None,
        driver_version=driver_version() if on_gpu else None,
        argv=execution.argv,
        config_hash=execution.config_hash,
        data_fingerprint=json.dumps(spec.data_fingerprint, sort_keys=True),
        spec=spec.model_dump_json(),
        started_at=started_at,
        ended_at=datetime.datetime.now(datetime.UTC),
    )


def transfer_record(
    spec: TrialSpec,
    read_out: ReadOutSpec,
    execution: Execution,
    device: torch.device,
    ending: Ending,
    found: ReadOut,
    wall_s: float,
    microbatch: int | None,
) -> TransferRecord:
    """What was read off the encoder of a trial on one population."""
    now = datetime.datetime.now(datetime.UTC)
    return TransferRecord(
        sweep=execution.sweep,
        trial_id=spec.trial_id,
        label=spec.label,
        population=read_out.population,
        read_out=read_out.read_out_id,
        **asdict(ending),
        scores=found.scores,
        predicted=found.predicted,
        wall_s=wall_s,
        microbatch=microbatch,
        **_origin(execution, device),
        spec=read_out.model_dump_json(),
        computed_at=now,
        published_at=now,
    )


def _loss_unit(spec: TrialSpec) -> str:
    if spec.head is not None:
        return HEADS[spec.head.kind].unit
    return "nats" if spec.paradigm == "sl" else "mse"


def _origin(execution: Execution, device: torch.device) -> dict[str, Any]:
    commit, dirty = git_state()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": execution.threads,
        "git_commit": commit,
        "git_dirty": dirty,
        "git_diff": git_diff(),
        "versions": versions(),
        "host": host(),
    }
