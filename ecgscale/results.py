"""What happened: one row per attempt, one parquet file per row, published by rename and never rewritten.

The store is the truth about a sweep; no scheduler's state is. A results folder is

    results/X/sweep.yaml            the sweep as it was last run
    results/X/rows/TRIAL-ATTEMPT.parquet
    results/X/figures/ …            made from the rows, safe to delete
"""

from __future__ import annotations

import datetime
import os
import types
import typing
import uuid
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from ecgscale.errors import EcgscaleError
from ecgscale.specs import Spec, TrialSpec

SCHEMA_VERSION = 1


class Status(StrEnum):
    COMPLETED = "completed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


class TaskScore(Spec):
    """How well a linear read-out of the frozen encoder does one task on one population; no loss without a fit."""

    population: str
    task: str = Field(description="`task:column` for a column of a multilabel task")
    kind: str = Field(description="binary (a column of a multilabel task, too), multiclass or regression")
    seen: bool = Field(description="the task is one of the six pre-training labels")
    loss: float | None = Field(description="test loss: mean squared error over the variance if regression, else nats")
    constant_loss: float | None = Field(description="test loss of the constant predictor of the training patients")
    auroc: float | None = Field(description="mean of one against the rest if multiclass; null for regression")
    mae: float | None = Field(default=None, description="mean absolute error in `unit`; null unless regression")
    unit: str | None = Field(default=None, description="as the task declares it")
    l2: float | None = Field(description="the penalty chosen on validation patients")
    n_train: int
    n_test: int
    n_test_positive: int | None = Field(description="null unless binary")
    reason: str | None = Field(default=None, description="why nothing could be fitted; null when there is a loss")


class LabelScore(Spec):
    """AUROC of one pre-training label on the in-distribution test patients."""

    label: str
    auroc: float | None = Field(description="null when the test set has one class only")
    n_test_positive: int


class RunRecord(Spec):
    """One attempt at one trial. A missing number is null, never 0; the reason is in `reason`."""

    schema_version: int = SCHEMA_VERSION
    # who
    sweep: str
    trial_id: str = Field(description="hash of the fields that change the answer")
    attempt: str
    label: str
    family: str
    paradigm: str
    rung: str
    arm: str = Field(description="family-paradigm")
    data_fraction: float
    n_labels: int = Field(description="labels SL was trained on; 0 for SSL")
    seed: int
    # size
    n_params: int = Field(description="N: parameters of the encoder, without head or decoder")
    n_params_head: int
    n_records: int = Field(description="D: unique training records")
    n_samples_seen: int
    train_flops: float = Field(description="C: counted operator by operator, forward and backward")
    # outcome
    status: str
    reason: str | None = None
    loss_unit: str = Field(description="nats (SL) or mse (SSL, squared normalised signal)")
    val_loss_best: float | None = None
    val_loss_last: float | None = None
    best_step: int | None = None
    id_loss: float | None = Field(default=None, description="test patients, weights of the best validation loss")
    id_loss_last: float | None = Field(default=None, description="test patients, last weights")
    id_constant_loss: float | None = Field(default=None, description="of the constant predictor on the test patients")
    id_auroc: tuple[LabelScore, ...] = ()
    transfer: tuple[TaskScore, ...] = ()
    # cost
    wall_s: float
    train_s: float | None = Field(default=None, description="training steps alone, without evaluation")
    peak_memory_bytes: int | None = Field(default=None, description="of the device; of the process on a CPU")
    # provenance
    device: str
    threads: int
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: str = Field(description="JSON: package → version")
    data_fingerprint: str = Field(description="JSON: population → fingerprint")
    spec: str = Field(description="JSON of the whole TrialSpec")
    started_at: datetime.datetime


def _arrow_type(annotation: Any) -> pa.DataType:
    """The arrow type of a field of `RunRecord`: schemas come from the declaration, never from the values."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return pa.struct([(name, _arrow_type(f.annotation)) for name, f in annotation.model_fields.items()])
    return {
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        bool: pa.bool_(),
        datetime.datetime: pa.timestamp("us", tz="UTC"),
    }[annotation]


ROW_SCHEMA = pa.schema([(name, _arrow_type(f.annotation)) for name, f in RunRecord.model_fields.items()])


def new_attempt() -> str:
    """An id no other attempt has, on any machine; attempts of one trial sort by time."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%S}{uuid.uuid4().hex[:6]}"


def append(folder: Path, record: RunRecord) -> Path:
    """Publishes one row: written beside its place, synced, then renamed. The last step of a trial."""
    rows = folder / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    path = rows / f"{record.trial_id}-{record.attempt}.parquet"
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as sink:
            pq.write_table(pa.Table.from_pylist([record.model_dump()], schema=ROW_SCHEMA), sink)
            sink.flush()
            os.fsync(sink.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def is_results_folder(folder: Path) -> bool:
    return (folder / "rows").is_dir()


def sweep_folders(folder: Path) -> list[Path]:
    """`folder` itself if it holds rows, else its sub-folders that do.

    Raises:
        EcgscaleError: there are none.
    """
    found = [folder] if is_results_folder(folder) else sorted(p.parent for p in folder.glob("*/rows"))
    if not found:
        raise EcgscaleError(
            f"{folder}: no results here; a results folder has rows/*.parquet (see `ecgscale sweep --help`)"
        )
    return found


def read(folder: Path) -> list[RunRecord]:
    """Every attempt in a results folder, oldest first.

    Raises:
        EcgscaleError: a row can't be read; it names the file.
    """
    records = []
    for path in sorted((folder / "rows").glob("*.parquet")):
        try:
            row = pq.read_table(path, schema=ROW_SCHEMA).to_pylist()[0]
            records.append(RunRecord.model_validate(row))
        except Exception as error:
            why = ", ".join(str(e["loc"][0]) for e in error.errors()) if isinstance(error, ValidationError) else error
            raise EcgscaleError(f"{path}: not a readable row ({why}); move it away and its trial runs again") from error
    return sorted(records, key=lambda r: r.started_at)


def latest(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Trial id → the attempt that counts: the completed one if there is any, else the last."""
    best: dict[str, RunRecord] = {}
    for record in records:
        known = best.get(record.trial_id)
        if known is None or known.status != Status.COMPLETED:
            best[record.trial_id] = record
    return best


def missing(trials: Sequence[TrialSpec], records: Iterable[RunRecord]) -> tuple[TrialSpec, ...]:
    """Planned minus completed. A failed trial is missing: running the sweep again tries it again."""
    done = {r.trial_id for r in records if r.status == Status.COMPLETED}
    return tuple(t for t in trials if t.trial_id not in done)


def table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per trial, nested columns and provenance left out; the transfer scores are `transfer_table`."""
    nested = {"id_auroc", "transfer", "spec", "versions"}
    columns = [name for name in RunRecord.model_fields if name not in nested]
    rows = [record.model_dump(exclude=nested) for record in latest(records).values()]
    return pd.DataFrame(rows, columns=columns)


def transfer_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per trial, population and task, with the trial's size beside the score."""
    size = ["sweep", "trial_id", "arm", "family", "paradigm", "rung", "n_params", "n_records", "n_labels", "seed"]
    size += ["data_fraction", "id_loss"]
    rows = [
        {name: getattr(record, name) for name in size} | score.model_dump()
        for record in latest(records).values()
        for score in record.transfer
    ]
    numbers = ("loss", "constant_loss", "auroc", "mae", "l2")  # null in every row is still a number that is missing
    return pd.DataFrame(rows, columns=size + list(TaskScore.model_fields)).astype(dict.fromkeys(numbers, "float64"))
