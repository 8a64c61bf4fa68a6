"""What happened: one row per attempt, one parquet file per row, published by rename and never rewritten.

The store is the truth about a sweep; no scheduler's state is. A results folder is

    results/X/sweep.yaml            the sweep as it was last run
    results/X/rows/TRIAL-ATTEMPT.parquet
    results/X/retries/TRIAL-ATTEMPT  that attempt failed, and somebody asked for another; empty
    results/X/leases/…              who runs which trial; see `leases`
    results/X/quarantine/…          files that were found among the rows and are none, each with a note
    results/X/rows.cache            the rows once more, of large sweeps; see `row_cache`; safe to delete
    results/X/figures/ …            made from the rows, safe to delete
"""

from __future__ import annotations

import datetime
import gc
import json
import logging
import os
import types
import typing
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from ecgscale.errors import EcgscaleError
from ecgscale.failures import FailureClass
from ecgscale.row_cache import WORTH_A_CACHE, RowCache, row_stamps
from ecgscale.spec_base import Spec
from ecgscale.specs import TrialSpec

SCHEMA_VERSION = 1
RETRIES = "retries"
QUARANTINE = "quarantine"

log = logging.getLogger(__name__)


class Status(StrEnum):
    COMPLETED = "completed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


FEWEST_POSITIVES = 5
"""A class with fewer test records than this is marked, and its task not averaged: the loss is mostly the draw of those
few (our choice)."""


class TaskScore(Spec):
    """How well one read-out of an encoder does one task on one population; no loss without a fit.

    Intervals are 95 % of resampled test patients.
    """

    population: str
    task: str = Field(description="`task:column` for a column of a multilabel task")
    kind: str = Field(description="binary (a column of a multilabel task, too), multiclass or regression")
    read_out: str = Field(
        default="linear", description="linear or attentive (encoder frozen), fine_tuned, zero_shot (supervised head)"
    )
    label_fraction: float = Field(
        default=1.0, description="share of the training patients whose labels the read-out was fitted to; 0 if none"
    )
    seen: bool = Field(description="the task is one of the six pre-training labels")
    trained_on: bool | None = Field(
        default=None, description="the task is a label this encoder was trained on; null in older rows"
    )
    loss: float | None = Field(description="test loss: mean squared error over the variance if regression, else nats")
    loss_low: float | None = None
    loss_high: float | None = None
    constant_loss: float | None = Field(description="test loss of the constant predictor of the training patients")
    random_loss: float | None = Field(
        default=None, description="test loss of the same read-out of the untrained encoder of that rung and seed"
    )
    handmade_loss: float | None = Field(
        default=None, description="test loss of the linear read-out of hand-made features"
    )
    auroc: float | None = Field(description="mean of one against the rest if multiclass; null for regression")
    auroc_low: float | None = None
    auroc_high: float | None = None
    random_auroc: float | None = None
    handmade_auroc: float | None = None
    auprc: float | None = Field(
        default=None, description="average precision; as for auroc; by chance it is the share of positives"
    )
    auprc_low: float | None = None
    auprc_high: float | None = None
    mae: float | None = Field(default=None, description="mean absolute error in `unit`; null unless regression")
    unit: str | None = Field(default=None, description="as the task declares it")
    l2: float | None = Field(description="the penalty chosen on validation patients; null unless linear")
    converged: bool | None = Field(
        default=None, description="a linear read-out has reached its optimum; null otherwise, and in older rows"
    )
    n_train: int = Field(description="records the read-out was fitted to")
    n_test: int
    n_test_positive: int | None = Field(description="null unless binary")
    reason: str | None = Field(default=None, description="why nothing could be fitted; null when there is a loss")

    @property
    def few_positives(self) -> bool:
        """A binary task with too few test records of one class to be averaged with others."""
        positives = self.n_test_positive
        return positives is not None and min(positives, self.n_test - positives) < FEWEST_POSITIVES

    @property
    def is_main(self) -> bool:
        """The frozen encoder, read out linearly with every label there is: what laws are fitted to."""
        return self.read_out == "linear" and self.label_fraction == 1


class LabelScore(Spec):
    """AUROC of one pre-training label on the in-distribution test patients."""

    label: str
    auroc: float | None = Field(description="null when the test set has one class only")
    n_test_positive: int


class Outcome(Spec):
    """What the progress of a sweep needs to know of one attempt; a missing number is null, never 0."""

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
    # how it went
    status: str
    reason: str | None = None
    failure: str | None = Field(
        default=None,
        description="out_of_memory, diverged, data, infrastructure or bug; null when completed, and in older rows",
    )
    bug: str | None = Field(default=None, description="failures with the same number went wrong at the same place")
    loss_unit: str = Field(description="nats (SL) or mse (SSL, squared normalised signal)")
    id_loss: float | None = Field(default=None, description="test patients, weights of the best validation loss")
    # where, and what it took
    device: str
    threads: int
    wall_s: float = Field(description="of all parts, when training was continued from a checkpoint")
    started_at: datetime.datetime
    ended_at: datetime.datetime | None = None

    @property
    def failure_class(self) -> FailureClass | None:
        """None when the trial completed, or failed before classes were written."""
        if self.failure is not None:
            return FailureClass(self.failure)
        return FailureClass(self.status) if self.status in set(FailureClass) else None


class RunRecord(Outcome):
    """One attempt at one trial: the outcome, and all else that is known. The reason for missing numbers is `reason`."""

    schema_version: int = SCHEMA_VERSION
    # size
    n_params: int = Field(description="N: parameters of the encoder, without head or decoder")
    n_params_head: int
    n_records: int = Field(description="D: unique training records")
    n_samples_seen: int
    train_flops: float = Field(description="C: counted operator by operator, forward and backward")
    # losses
    val_loss_best: float | None = None
    val_loss_last: float | None = None
    best_step: int | None = None
    id_loss_last: float | None = Field(default=None, description="test patients, last weights")
    id_constant_loss: float | None = Field(default=None, description="of the constant predictor on the test patients")
    id_auroc: tuple[LabelScore, ...] = ()
    transfer: tuple[TaskScore, ...] = ()
    # cost
    train_s: float | None = Field(default=None, description="training steps alone, without evaluation")
    n_resumes: int | None = Field(
        default=None, description="how often training was continued from a checkpoint; null in older rows"
    )
    microbatch: int | None = Field(
        default=None, description="records of a batch in memory at a time; null for all of them"
    )
    peak_memory_bytes: int | None = Field(default=None, description="of the device; of the process on a CPU")
    # provenance
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


Row = TypeVar("Row", bound=Outcome)


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

_FILE_OPTIONS: dict[str, Any] = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
"""None of these pays in a file of one row: without them it has a third of the bytes and is read in half the time."""


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
            pq.write_table(pa.Table.from_pylist([record.model_dump()], schema=ROW_SCHEMA), sink, **_FILE_OPTIONS)
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
    return _read(folder, RunRecord)


def outcomes(folder: Path) -> list[Outcome]:
    """As `read`, without what only laws and provenance need: a fifth of the time."""
    return _read(folder, Outcome)


def _read(folder: Path, model: type[Row]) -> list[Row]:
    """What the cache holds from there, the rest from the rows themselves; many of these make a new cache."""
    stamps = row_stamps(folder)
    cache = RowCache(folder, _cache_schema())
    columns = list(model.model_fields)
    cached = cache.load(stamps, columns)
    unknown = stamps.keys() - set(cached.column("file").to_pylist())
    with _no_garbage_collection():
        opened = {file: row.model_dump() for file in unknown if (row := read_row(folder / "rows" / file)) is not None}
        if len(opened) >= WORTH_A_CACHE:
            cache.add(opened, stamps)
        known = (row for batch in cached.select(columns).to_batches(max_chunksize=1000) for row in batch.to_pylist())
        new = ({name: row[name] for name in columns} for row in opened.values())
        return oldest_first(model.model_validate(row) for row in chain(known, new))


@lru_cache(maxsize=1)
def _cache_schema() -> pa.Schema:
    """With the declaration of a row as metadata: rows that were checked against another one are checked again."""
    return ROW_SCHEMA.with_metadata({"declared": json.dumps(RunRecord.model_json_schema())})


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Looking for cycles among 100,000 new objects that hold none takes four times as long as making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class NewRows:
    """The rows that appear in a folder from now on, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = set(_files(folder))

    def look(self) -> list[RunRecord]:
        """Those that have appeared since the last look."""
        new = set(_files(self._folder)) - self._known
        self._known |= new
        return [row for file in sorted(new) if (row := read_row(self._folder / "rows" / file)) is not None]


def completed_row(folder: Path, trial_id: str) -> RunRecord | None:
    """The completed attempt of one trial, if there is any."""
    for file in _files(folder):
        if file.startswith(f"{trial_id}-"):
            row = read_row(folder / "rows" / file)
            if row is not None and row.status == Status.COMPLETED:
                return row
    return None


def _files(folder: Path) -> list[str]:
    rows = folder / "rows"
    return [file for file in os.listdir(rows) if file.endswith(".parquet")] if rows.is_dir() else []


def oldest_first(records: Iterable[Row]) -> list[Row]:
    return sorted(records, key=lambda r: (r.started_at, r.trial_id, r.attempt))


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
        found = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False).to_pylist()[0]
    except Exception as error:
        _quarantine(path, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    try:
        if isinstance(version := found.get("schema_version"), int) and version > SCHEMA_VERSION:
            raise EcgscaleError(f"{path}: a row of version {version}, this ecgscale knows {SCHEMA_VERSION}; update it")
        return RunRecord.model_validate({name: found[name] for name in RunRecord.model_fields if name in found})
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


def latest(records: Iterable[Row]) -> dict[str, Row]:
    """Trial id → the attempt that counts: the completed one if there is any, else the last."""
    best: dict[str, Row] = {}
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
    trials: Sequence[TrialSpec], records: Iterable[Outcome], retries: Container[str] = ()
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


def without_row(trials: Sequence[TrialSpec], records: Iterable[Outcome]) -> tuple[TrialSpec, ...]:
    """Planned minus completed, diverged trials included."""
    done = {r.trial_id for r in records if r.status == Status.COMPLETED}
    return tuple(t for t in trials if t.trial_id not in done)


def ask_retry(folder: Path, record: Outcome) -> None:
    """Marks a failed attempt to be followed by another. The mark is spent by the next row of that trial."""
    marks = folder / RETRIES
    marks.mkdir(exist_ok=True)
    (marks / f"{record.trial_id}-{record.attempt}").touch()


def ask_retries(
    folder: Path, records: Iterable[Row], classes: Container[FailureClass | None], label: str = "*"
) -> list[Row]:
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
        {name: getattr(record, name) for name in size} | score.model_dump() | {"few_positives": score.few_positives}
        for record in latest(records).values()
        for score in record.transfer
    ]
    # null in every row is still a number that is missing
    numbers = [name for name, field in TaskScore.model_fields.items() if field.annotation == float | None]
    columns = [*size, *TaskScore.model_fields, "few_positives"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numbers, "float64"))
