"""What happened: one row per attempt, one parquet file per row, published by rename and never rewritten.

The store is the truth about a sweep; no scheduler's state is. A results folder is

    results/X/sweep.yaml            the sweep as it was last run
    results/X/rows/TRIAL-ATTEMPT.parquet
    results/X/retries/TRIAL-ATTEMPT  that attempt failed, and somebody asked for another; empty
    results/X/leases/…              who runs which trial; see `leases`
    results/X/quarantine/…          files that were found among the rows and are none, each with a note
    results/X/figures/ …            made from the rows, safe to delete
"""

from __future__ import annotations

import datetime
import logging
import os
import types
import typing
import uuid
from collections.abc import Callable, Container, Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from ecgscale.errors import EcgscaleError
from ecgscale.failures import FailureClass
from ecgscale.specs import Spec, TrialSpec

SCHEMA_VERSION = 1
RETRIES = "retries"
QUARANTINE = "quarantine"

log = logging.getLogger(__name__)


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
    failure: str | None = Field(
        default=None,
        description="out_of_memory, diverged, data, infrastructure or bug; null when completed, and in older rows",
    )
    bug: str | None = Field(default=None, description="failures with the same number went wrong at the same place")
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
    wall_s: float = Field(description="of all parts, when training was continued from a checkpoint")
    train_s: float | None = Field(default=None, description="training steps alone, without evaluation")
    n_resumes: int | None = Field(
        default=None, description="how often training was continued from a checkpoint; null in older rows"
    )
    peak_memory_bytes: int | None = Field(default=None, description="of the device; of the process on a CPU")
    # provenance
    device: str
    threads: int
    git_commit: str | None = None
    git_dirty: bool | None = None
    git_diff: str | None = Field(
        default=None, description="SHA-256 of `git diff --no-ext-diff --no-color --full-index HEAD`; null when clean"
    )
    versions: str = Field(description="JSON: package → version")
    cuda_version: str | None = Field(default=None, description="that torch was built with; null on a CPU")
    driver_version: str | None = Field(default=None, description="of the NVIDIA kernel module; null on a CPU")
    host: str | None = Field(default=None, description="hash of the host name: the same machine or another one")
    argv: str | None = Field(default=None, description="JSON: the command, without folders, addresses and secrets")
    config_hash: str | None = Field(default=None, description="of the sweep file as it was understood")
    data_fingerprint: str = Field(description="JSON: population → fingerprint")
    spec: str = Field(description="JSON of the whole TrialSpec")
    started_at: datetime.datetime
    ended_at: datetime.datetime | None = None

    @property
    def failure_class(self) -> FailureClass | None:
        """None when the trial completed, or failed before classes were written."""
        if self.failure is not None:
            return FailureClass(self.failure)
        return FailureClass(self.status) if self.status in set(FailureClass) else None


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


def append(folder: Path, record: RunRecord, may_publish: Callable[[], bool] = lambda: True) -> Path | None:
    """Publishes one row: written beside its place, synced, then renamed. The last step of a trial.

    Args:
        may_publish: asked right before the row is renamed.

    Returns:
        The row's file; None if it was not to be published, and then nothing is left of it.
    """
    rows = folder / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    path = rows / f"{record.trial_id}-{record.attempt}.parquet"
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as sink:
            pq.write_table(pa.Table.from_pylist([record.model_dump()], schema=ROW_SCHEMA), sink)
            sink.flush()
            os.fsync(sink.fileno())
        if not may_publish():
            return None
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
    """Every attempt in a results folder, oldest first; see `read_row` for those that can't be read."""
    return oldest_first(row for path in row_files(folder) if (row := read_row(path)) is not None)


class NewRows:
    """The rows that appear in a folder from now on, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known = set(row_files(folder))

    def look(self) -> list[RunRecord]:
        """Those that have appeared since the last look."""
        new = [path for path in row_files(self.folder) if path not in self._known]
        self._known.update(new)
        return [row for path in new if (row := read_row(path)) is not None]


def completed_row(folder: Path, trial_id: str) -> RunRecord | None:
    """The completed attempt of one trial, if there is any."""
    for path in (folder / "rows").glob(f"{trial_id}-*.parquet"):
        row = read_row(path)
        if row is not None and row.status == Status.COMPLETED:
            return row
    return None


def row_files(folder: Path) -> list[Path]:
    return sorted((folder / "rows").glob("*.parquet"))


def oldest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    return sorted(records, key=lambda r: r.started_at)


def read_row(path: Path) -> RunRecord | None:
    """One attempt. A file that is no row is moved to the folder's quarantine, and its trial counts as not run.

    Returns:
        None if it was moved, by us or by another reader.

    Raises:
        EcgscaleError: the file can't be opened, can't be moved, or was written by a newer version; it is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EcgscaleError(f"{path}: can't be read ({error.strerror})") from error
    try:
        row = pq.read_table(pa.BufferReader(content), schema=ROW_SCHEMA).to_pylist()[0]
    except Exception as error:
        _quarantine(path, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    try:
        if (version := row["schema_version"]) is not None and version > SCHEMA_VERSION:
            raise EcgscaleError(f"{path}: a row of version {version}, this ecgscale knows {SCHEMA_VERSION}; update it")
        return RunRecord.model_validate(row)
    except ValidationError as error:
        _quarantine(path, "no usable " + ", ".join(str(e["loc"][0]) for e in error.errors()[:3]))
        return None


def _quarantine(path: Path, why: str) -> None:
    """Moves a file that is no row out of the way, with a note beside it."""
    place = path.parent.parent / QUARANTINE
    try:
        place.mkdir(exist_ok=True)
        (place / f"{path.name}.txt").write_text(f"{why}\n", encoding="utf-8")
        path.replace(place / path.name)
    except FileNotFoundError:  # another reader was faster
        return
    except OSError as error:
        raise EcgscaleError(
            f"{path}: not a readable row ({why}), and it can't be moved to {place.name} ({error.strerror}); "
            "move it away and its trial runs again"
        ) from error
    log.warning("%s: not a readable row (%s); moved to %s, its trial runs again", path, why, place)


def quarantined(folder: Path) -> dict[str, str]:
    """File → why it is no row."""
    notes = sorted((folder / QUARANTINE).glob("*.txt"))
    return {note.name.removesuffix(".txt"): note.read_text(encoding="utf-8").strip() for note in notes}


def require_writable(folder: Path) -> None:
    """Tries to write to the results folder, before anything costly starts; one that was not there is not left there.

    Raises:
        EcgscaleError: rows could not be published there.
    """
    trial, was_there = folder / "rows" / f".{uuid.uuid4().hex}.tmp", folder.exists()
    try:
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(bytes(4096))
        trial.unlink()
        if not was_there:  # what comes next may still refuse the request
            trial.parent.rmdir()
            folder.rmdir()
    except OSError as error:
        raise EcgscaleError(
            f"{folder}: results can't be written there ({error.strerror}); choose another --out, or mend the folder"
        ) from None


def latest(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Trial id → the attempt that counts: the completed one if there is any, else the last."""
    best: dict[str, RunRecord] = {}
    for record in records:
        known = best.get(record.trial_id)
        if known is None or known.status != Status.COMPLETED:
            best[record.trial_id] = record
    return best


def attempts_at(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """All attempts at one trial, oldest first, the one that counts last.

    Args:
        name: its label, or its id or the beginning of it.

    Raises:
        EcgscaleError: no trial or several are called that.
    """
    found = {r.trial_id: r.label for r in records if name == r.label or (name and r.trial_id.startswith(name))}
    if not found:
        labels = sorted({r.label for r in records})
        listed = f"; there are {', '.join(labels[:5])}{' …' if len(labels) > 5 else ''}" if labels else ""
        raise EcgscaleError(f"{name!r}: no row of a trial with that label or id{listed}")
    if len(found) > 1:
        raise EcgscaleError(f"{name!r}: several trials are called that, say which id: {', '.join(sorted(found))}")
    attempts = [r for r in records if r.trial_id in found]
    (counts,) = latest(attempts).values()
    return [r for r in attempts if r is not counts] + [counts]


def missing(
    trials: Sequence[TrialSpec], records: Iterable[RunRecord], retries: Container[str] = ()
) -> tuple[TrialSpec, ...]:
    """Planned minus completed. A failed trial is missing: running the sweep again tries it again.

    A diverged one is not: the same seed diverges again.

    Args:
        retries: attempts that were asked to be tried again whatever they ended with; see `asked_retries`.
    """
    settled = {
        trial_id
        for trial_id, r in latest(records).items()
        if r.status == Status.COMPLETED or (r.status == Status.DIVERGED and r.attempt not in retries)
    }
    return tuple(t for t in trials if t.trial_id not in settled)


def without_row(trials: Sequence[TrialSpec], records: Iterable[RunRecord]) -> tuple[TrialSpec, ...]:
    """Planned minus completed, diverged trials included."""
    done = {r.trial_id for r in records if r.status == Status.COMPLETED}
    return tuple(t for t in trials if t.trial_id not in done)


def ask_retry(folder: Path, record: RunRecord) -> None:
    """Marks a failed attempt to be followed by another. The mark is spent by the next row of that trial."""
    marks = folder / RETRIES
    marks.mkdir(exist_ok=True)
    (marks / f"{record.trial_id}-{record.attempt}").touch()


def ask_retries(
    folder: Path, records: Iterable[RunRecord], classes: Container[FailureClass | None], label: str = "*"
) -> list[RunRecord]:
    """Marks the last attempts of trials that failed in one of `classes` and whose label fits; returns them."""
    wanted = [
        record
        for record in latest(records).values()
        if record.status != Status.COMPLETED and record.failure_class in classes and fnmatchcase(record.label, label)
    ]
    for record in wanted:
        ask_retry(folder, record)
    return wanted


def asked_retries(folder: Path) -> set[str]:
    """The attempts that `ask_retry` has marked."""
    return {mark.name.rpartition("-")[2] for mark in (folder / RETRIES).glob("*-*")}


def table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per trial, nested columns and provenance left out; the transfer scores are `transfer_table`."""
    nested = {"id_auroc", "transfer", "spec", "versions", "argv"}
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
