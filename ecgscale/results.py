"""What happened: one row per attempt, one parquet file per row, published by rename and never rewritten.

The store is the truth about a sweep; no scheduler's state is. A results folder is

    results/X/sweep.yaml            the sweep as it was last run
    results/X/rows/TRIAL-ATTEMPT.parquet
    results/X/transfer/…            what was read off the encoders; see `transfer_files`
    results/X/predictions/…         what networks said of a target; see `prediction_files`
    results/X/encoders/TRIAL.ckpt   the weights that were scored; without them, another read-out trains again
    results/X/retries/TRIAL-ATTEMPT  that attempt failed, and somebody asked for another; empty
    results/X/leases/…              who runs which trial; see `leases`
    results/X/quarantine/…          files that were found among these and are none, each with a note
    results/X/rows.cache            the rows once more, of large sweeps; see `row_cache`; safe to delete
    results/X/figures/ …            made from the rows, safe to delete
    results/X/learning_rates/…      the small trials of `tune-lr`: a results folder of its own
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import uuid
from collections.abc import Callable, Container, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from ecgscale import transfer_files
from ecgscale.errors import EcgscaleError
from ecgscale.failures import FailureClass
from ecgscale.record_files import publish, read_all, read_record
from ecgscale.record_files import quarantined as quarantined  # this module is the store's face to others
from ecgscale.records import FEWEST_POSITIVES as FEWEST_POSITIVES
from ecgscale.records import ROW_SCHEMA, ReadOutOutcome, TransferRecord
from ecgscale.records import SCHEMA_VERSION as SCHEMA_VERSION
from ecgscale.records import LabelScore as LabelScore
from ecgscale.records import Outcome as Outcome
from ecgscale.records import RunRecord as RunRecord
from ecgscale.records import Status as Status
from ecgscale.records import TaskScore as TaskScore
from ecgscale.row_cache import CACHE_FILE, WORTH_A_CACHE, RowCache
from ecgscale.spec_base import hashed, no_garbage_collection
from ecgscale.specs import ReadOutSpec, TrialSpec

RETRIES = "retries"
ENCODERS = "encoders"

Row = TypeVar("Row", bound=Outcome)


def new_attempt() -> str:
    """An id no other attempt has, on any machine; attempts of one trial sort by time."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%S}{uuid.uuid4().hex[:6]}"


def append(folder: Path, record: RunRecord, may_publish: Callable[[], bool] = lambda: True) -> Path | None:
    """Publishes one row.

    Args:
        may_publish: asked right before the row is renamed.

    Returns:
        The row's file; None if it was not to be published, and then nothing is left of it.
    """
    path = folder / "rows" / f"{record.trial_id}-{record.attempt}.parquet"
    return path if publish(path, record, ROW_SCHEMA, may_publish) else None


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
    cache, columns = RowCache(folder / CACHE_FILE, _cache_schema()), list(model.model_fields)
    with no_garbage_collection():
        rows = read_all(folder / "rows", cache, columns, lambda path: read_row(path), WORTH_A_CACHE)
        return oldest_first(with_read_outs(folder, [model.model_validate(row) for row in rows]))


def with_read_outs(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows, and in them what was read off their encoders by now."""
    in_full = any(isinstance(row, RunRecord) for row in rows)
    found = transfer_files.of_folder(folder, TransferRecord if in_full else ReadOutOutcome, WORTH_A_CACHE)
    return [transfer_files.filled(row, found.get(row.trial_id, ())) for row in rows]


@lru_cache(maxsize=1)
def _cache_schema() -> pa.Schema:
    """With the declaration of a row as metadata: rows that were checked against another one are checked again."""
    return ROW_SCHEMA.with_metadata({"declared": json.dumps(RunRecord.model_json_schema())})


class NewRows:
    """The rows that appear in a folder from now on, each read once, without what was read off its encoder."""

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
                return with_its_read_outs(folder, row)
    return None


def with_its_read_outs(folder: Path, row: RunRecord) -> RunRecord:
    """One row; see `with_read_outs`."""
    return transfer_files.filled(row, transfer_files.of_trial(folder, row.trial_id))


def lacking(spec: TrialSpec, row: Outcome) -> tuple[ReadOutSpec, ...]:
    """What is still to be read off the encoder of a completed trial."""
    return tuple(read_out for read_out in spec.read_outs if read_out.read_out_id not in row.read_outs)


def _files(folder: Path) -> list[str]:
    rows = folder / "rows"
    return [file for file in os.listdir(rows) if file.endswith(".parquet")] if rows.is_dir() else []


def oldest_first(records: Iterable[Row]) -> list[Row]:
    return sorted(records, key=lambda r: (r.started_at, r.trial_id, r.attempt))


def read_row(path: Path) -> RunRecord | None:
    """One attempt as its file says; see `read_record` for what is none."""
    return read_record(path, RunRecord, _of_version_1)


def _of_version_1(found: dict[str, Any]) -> dict[str, Any]:
    """A row whose trial was identified by its read-outs, too, gets the id of its training: it is done as it was.

    Rows of specs that are no longer understood keep what they have.
    """
    try:
        stored = json.loads(found.get("spec") or "")
        spec = TrialSpec.model_validate(stored)
    except ValueError:
        return found
    if hashed(stored) != found.get("trial_id"):
        return found
    return found | {"trial_id": spec.trial_id, "read_outs": [r.read_out_id for r in spec.read_outs]}


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
            with contextlib.suppress(OSError):  # another command has begun to write there
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
    """Planned minus completed and read out. A failed trial is missing: running the sweep again tries it again.

    A diverged one is not: the same seed diverges again.

    Args:
        retries: attempts that were asked to be tried again whatever they ended with; see `asked_retries`.
    """
    rows = latest(records)
    settled = {trial_id for trial_id, r in rows.items() if r.status == Status.DIVERGED and r.attempt not in retries}
    return tuple(t for t in trials if t.trial_id not in settled and not is_done(t, rows.get(t.trial_id)))


def is_done(trial: TrialSpec, row: Outcome | None) -> bool:
    """Completed, and everything read off its encoder.

    Args:
        row: of the attempt that counts, None if there is none.
    """
    return row is not None and row.status == Status.COMPLETED and not lacking(trial, row)


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
    nested = {"id_auroc", "transfer", "predicted", "read_outs", "failed_read_outs", "read_out_specs"}
    nested |= {"spec", "versions", "argv"}
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
