"""What was read off encoders: one file per trial, population and read-out, beside the rows and as immutable.

    results/X/transfer/TRIAL-POPULATION-READOUT.parquet          its scores
    results/X/transfer/TRIAL-POPULATION-READOUT.failed.parquet   why there are none; gone when there are
    results/X/transfer.cache                                     all of them once more; see `row_cache`; safe to delete

A row says of each population what was published last; of what was read out before, the files stay.
"""

from __future__ import annotations

import datetime
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from ecgscale.record_files import publish, read_all, read_record
from ecgscale.records import TRANSFER_SCHEMA, FailedReadOut, Outcome, ReadOutOutcome, RunRecord, Status, TransferRecord
from ecgscale.row_cache import RowCache

TRANSFER = "transfer"
CACHE_FILE = "transfer.cache"
FAILED = ".failed.parquet"

Row = TypeVar("Row", bound=Outcome)
Read = TypeVar("Read", bound=ReadOutOutcome)


def publish_read_out(folder: Path, record: TransferRecord, may_publish: Callable[[], bool] = lambda: True) -> bool:
    """Publishes scores, or why there are none, as the newest of that trial and population, whatever the clock says.

    Returns:
        False if it was not to be published.
    """
    earlier = [r.published_at for r in of_trial(folder, record.trial_id) if r.population == record.population]
    just_after = max(earlier, default=record.published_at) + datetime.timedelta(microseconds=1)
    record = record.model_copy(update={"published_at": max(record.published_at, just_after)})
    stem = f"{record.trial_id}-{record.population}-{record.read_out}"
    completed, failed = (folder / TRANSFER / f"{stem}{ending}" for ending in (".parquet", FAILED))
    if record.status != Status.COMPLETED:
        return publish(failed, record, TRANSFER_SCHEMA, may_publish)
    published = publish(completed, record, TRANSFER_SCHEMA, may_publish)
    if published:
        failed.unlink(missing_ok=True)
    return published


def of_trial(folder: Path, trial_id: str) -> list[TransferRecord]:
    """Everything that was read off one encoder, opened file by file."""
    files = (name for name in _files(folder) if name.startswith(f"{trial_id}-"))
    return [record for name in files if (record := read_record(folder / TRANSFER / name, TransferRecord)) is not None]


def of_folder(folder: Path, model: type[Read], worth_a_cache: int) -> dict[str, list[Read]]:
    """Trial id → everything that was read off its encoder."""
    cache = RowCache(folder / CACHE_FILE, _cache_schema())
    found: defaultdict[str, list[Read]] = defaultdict(list)
    for fields in read_all(
        folder / TRANSFER, cache, list(model.model_fields), lambda p: read_record(p, TransferRecord), worth_a_cache
    ):
        found[fields["trial_id"]].append(model.model_validate(fields))
    return found


def filled(row: Row, found: Sequence[ReadOutOutcome]) -> Row:
    """A completed row with the newest of every population that was read off its encoder."""
    if not found or row.status != Status.COMPLETED:
        return row
    newest: dict[str, ReadOutOutcome] = {}
    failed: dict[str, ReadOutOutcome] = {}
    for record in sorted(found, key=lambda r: r.published_at):
        if record.status == Status.COMPLETED:
            newest[record.population] = record
            failed.pop(record.population, None)
        else:
            failed[record.population] = record
    read = [newest[population] for population in sorted(newest)]
    fields: dict[str, Any] = {"failed_read_outs": tuple(_failure(failed[population]) for population in sorted(failed))}
    if read:
        fields |= {"read_outs": tuple(r.read_out for r in read), "read_outs_s": sum(r.wall_s for r in read)}
    if isinstance(row, RunRecord):
        in_full = [r for r in read if isinstance(r, TransferRecord)]
        own = tuple(score for score in row.transfer if score.population not in newest)
        fields["transfer"] = (*own, *(score for r in in_full for score in r.scores))
        fields["predicted"] = tuple(score for r in in_full for score in r.predicted)
        fields["read_out_specs"] = tuple(r.spec for r in in_full)
        fields["data_fingerprint"] = _fingerprints(row.data_fingerprint, fields["read_out_specs"])
    return row.model_copy(update=fields)


def failures(folder: Path) -> Mapping[str, int]:
    """File → time of its last change in ns, of what can't be read out."""
    found = {}
    for name in _files(folder):
        if name.endswith(FAILED):
            try:
                found[name] = (folder / TRANSFER / name).stat().st_mtime_ns
            except FileNotFoundError:  # somebody has succeeded at this moment
                continue
    return found


def _failure(record: ReadOutOutcome) -> FailedReadOut:
    return FailedReadOut(
        population=record.population,
        read_out=record.read_out,
        status=record.status,
        reason=record.reason or record.status,
        failure=record.failure or record.status,
        bug=record.bug,
    )


@lru_cache(maxsize=4096)
def _fingerprints(of_row: str, specs: Iterable[str]) -> str:
    """A row's, with those of what was read out since. Most rows of a sweep have the same."""
    known = json.loads(of_row)
    for spec in specs:
        known |= json.loads(spec)["data_fingerprint"]
    return json.dumps(known, sort_keys=True)


@lru_cache(maxsize=1)
def _cache_schema() -> pa.Schema:
    """As that of the rows."""
    return TRANSFER_SCHEMA.with_metadata({"declared": json.dumps(TransferRecord.model_json_schema())})


def _files(folder: Path) -> list[str]:
    there = folder / TRANSFER
    return [name for name in os.listdir(there) if name.endswith(".parquet")] if there.is_dir() else []
