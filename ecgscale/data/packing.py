"""Makes packed stores: every record of a CODE folder once, in parallel, shard by shard, named when it is whole.

A pack that was killed or ran into a full disk goes on with the shards that are missing, if records, input and program
are the same. Nothing here reads a finished store but to hand it out.
"""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.conventions import LEADS
from ecgscale.data.code_format import CodeFolder, open_code
from ecgscale.data.compact_table import compact
from ecgscale.data.digitise import SCALE
from ecgscale.data.exams_table import find_table, read_table
from ecgscale.data.shard_writer import Job, journals, plan_job, slots_of_exams, write_shard
from ecgscale.data.store import (
    FORMAT_VERSION,
    HEADER,
    INDEX,
    Header,
    PackedStore,
    Progress,
    open_store,
    shard_path,
    store_name,
    stored_header,
)
from ecgscale.data.worker_process import end_with_parent, n_cores
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

SHARD_BYTES = 2**30

_PLAN = "plan.json"
_OWN_COLUMNS = ("slot", "start", "stop", "line", "crc32")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def packed(
    folder: Path,
    input_spec: InputSpec,
    *,
    source: CodeFolder | None = None,
    skip_bad: bool = False,
    jobs: int = 0,
    progress: Progress | None = None,
) -> PackedStore:
    """The store of a CODE folder for one input, made first if it is not there or the records have changed.

    Args:
        source: the opened folder, when the caller has it already.
        skip_bad: leave bad records out, with their reasons in the header, instead of refusing the folder.
        jobs: processes that pack, 0 for one per core; the bytes do not depend on it.
        progress: called with a number of records whenever they are packed.

    Raises:
        DataError: see `pack`; or the store is damaged.
    """
    path = folder / "packed" / store_name(input_spec)
    source = source or open_code(folder)
    fingerprint = source.fingerprint()
    found = stored_header(path)
    if found is not None:
        former = found.get("format_version") in range(1, FORMAT_VERSION)
        if not former and found.get("fingerprint", fingerprint) == fingerprint:
            return open_store(path)
    if path.exists():  # of other records or a former version, or what a process left that was killed while deleting it
        shutil.rmtree(path)
    pack(source, input_spec, path, skip_bad=skip_bad, fingerprint=fingerprint, jobs=jobs, progress=progress)
    return open_store(path)


def pack(
    source: CodeFolder,
    input_spec: InputSpec,
    path: Path,
    *,
    skip_bad: bool,
    fingerprint: str,
    jobs: int = 0,
    progress: Progress | None = None,
    scale: float = SCALE,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a store, or goes on with one that was begun.

    Args:
        scale: unit per digital step, of every lead.
        shard_bytes: largest size of one file of signals.

    Raises:
        DataError: records can't be used (named, up to five), nothing is left, the disk is full, or another process
            is packing the same store.
    """
    clashing = [name for name in _OWN_COLUMNS if name in source.exams]
    if clashing:
        raise DataError(f"{source.path}: exams.csv has a column {clashing[0]!r}, a name the store needs; rename it")
    job = plan_job(source, input_spec, path.with_name(path.name + ".unfinished"), (scale,) * len(LEADS), shard_bytes)
    try:
        with _folder_of_its_own(job.folder, job.plan | {"fingerprint": fingerprint}):
            _require_space(job)
            for n_done in _write_shards(job, jobs or n_cores()):
                if progress is not None:
                    progress(n_done)
            _finish(job, source, fingerprint, skip_bad=skip_bad)
            job.folder.replace(path)
    except OSError as error:
        raise _not_written(job.folder, error) from None
    for leftover in (path / _PLAN, *path.glob("shard-*.json")):
        leftover.unlink(missing_ok=True)


# --- shards --------------------------------------------------------------------------------------------------------


def _write_shards(job: Job, jobs: int) -> Iterator[int]:
    """Writes those that are missing; yields numbers of records, at once for those that are there."""
    missing = [shard for shard in range(job.n_shards) if not job.done(shard)]
    yield len(job.part) - sum(len(job.slots(shard)) for shard in missing)
    if min(jobs, len(missing)) <= 1:
        for shard in missing:
            yield from write_shard(job, shard)
        return
    # spawned, not forked: the caller may hold threads
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(missing)), spawn, _start_worker, (job,)) as pool:
        try:
            for ended in as_completed([pool.submit(_work, shard) for shard in missing]):
                yield ended.result()
        except BrokenProcessPool:
            raise DataError(
                f"{job.folder}: a packing process died, most often because memory ran out. What was finished is kept: "
                f"the same command goes on from there; fewer than {jobs} jobs need less memory"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_job: Job | None = None
"""Of this worker process."""


def _start_worker(job: Job) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without its traceback
    end_with_parent()


def _work(shard: int) -> int:
    assert _job is not None
    return sum(write_shard(_job, shard))


# --- the folder ----------------------------------------------------------------------------------------------------


@contextmanager
def _folder_of_its_own(folder: Path, plan: dict[str, Any]) -> Iterator[None]:
    """The unfinished folder, locked, with only those shards that belong to this plan."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another process is packing this store; wait for it") from None
        begun, wanted = folder / _PLAN, json.dumps(plan)
        if not begun.exists() or begun.read_text() != wanted:
            for file in folder.iterdir():
                file.unlink()
            begun.write_text(wanted)
        yield
    finally:
        os.close(held)


def _require_space(job: Job) -> None:
    missing = sum(len(job.slots(shard)) for shard in range(job.n_shards) if not job.done(shard)) * job.record_bytes
    free = shutil.disk_usage(job.folder).free
    if missing > free:
        raise DataError(
            f"{job.folder}: {missing / 1e9:.1f} GB are still to be written, {free / 1e9:.1f} GB are free; make room, "
            "then the same command goes on from there"
        )


def _finish(job: Job, source: CodeFolder, fingerprint: str, *, skip_bad: bool) -> None:
    """Index and header from the journals."""
    slots = slots_of_exams(source)
    found = journals(job).iloc[slots].reset_index(drop=True)
    bad = found["reason"] != ""
    if bad.all():
        raise DataError(f"{source.path}: no usable record; the first: {found['reason'].iloc[0]}")
    if bad.any() and not skip_bad:
        raise DataError(_refusal(source, found["reason"], np.flatnonzero(bad)))
    index = source.exams.assign(
        slot=slots,
        start=found["start"],
        stop=found["stop"],
        line=_lines(source),
        crc32=found["crc32"].astype(np.uint32),
    )
    compact(index[~bad].reset_index(drop=True)).to_parquet(job.folder / INDEX)
    header = Header(
        format_version=FORMAT_VERSION,
        program_version=version("ecgscale"),
        fingerprint=fingerprint,
        unit=source.unit,
        scale=job.scale,
        fs_hz=job.input_spec.fs_hz,
        n_records=int((~bad).sum()),
        n_leads=len(LEADS),
        n_samples=job.input_spec.stored_samples,
        shard_records=job.shard_records,
        shard_bytes=tuple(shard_path(job.folder, shard).stat().st_size for shard in range(job.n_shards)),
        index_crc32=zlib.crc32((job.folder / INDEX).read_bytes()),
        refused=dict(zip(source.exams["exam_id"][bad].astype(str), found["reason"][bad], strict=True)),
    )
    (job.folder / HEADER).write_text(header.to_json())


def _lines(source: CodeFolder) -> Any:
    """The line of each exam in the csv, from 0: exams are sorted, and who was appended last is known by its line."""
    in_file = pd.Index(read_table(find_table(source.path))["exam_id"])
    return in_file.get_indexer(pd.Index(source.exams["exam_id"]))


def _refusal(source: CodeFolder, reasons: pd.Series, rows: Any) -> str:
    ids = source.exams["exam_id"]
    named = [f"exam_id {ids.iloc[row]}: {reasons.iloc[row]}" for row in rows[:5]]
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return (
        f"{source.path}: {len(rows)} of {len(ids)} records can't be used: {'; '.join(named)}{more}. "
        "Remove them from exams.csv, or leave them out with --skip-bad, which goes on with what is packed already"
    )


def _not_written(folder: Path, error: OSError) -> DataError:
    why = "the disk is full" if error.errno in _DISK_FULL else f"writing failed ({error.strerror or error})"
    return DataError(f"{folder}: {why}. What was finished is kept: the same command goes on from there")
