"""`ecgscale data import`: a collection of ECGs becomes a folder in CODE format, on every core.

Records that cannot be used are refused by name and the rest goes on. What is finished is kept in a hidden folder beside
the target, so an import that was killed goes on where it stopped; the target appears when all of it is there.
Which collections there are is known to `ecgscale.data.sources`.
"""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd

from ecgscale.data.code_format import RECORDS_PER_PART, publish, require_free
from ecgscale.data.exams_table import some
from ecgscale.data.import_blocks import Conversion, convert_block, disk_error, is_finished, strict_error, working_name
from ecgscale.data.import_parts import Parts, RepeatedRecord
from ecgscale.data.sources import open_source
from ecgscale.data.sources.source import Refused, Source, SourceOptions
from ecgscale.data.standard_form import CODE_LENGTH, LengthRule
from ecgscale.data.worker_process import end_with_parent, n_cores
from ecgscale.errors import DataError

Progress = Callable[[int], None]
"""Called with the number of records done since the last call."""

BLOCK = 500
"""Records per block: about 35 MB on disk and 2 s of one core, which an interruption loses per process."""

_WORTH_A_POOL = 1_000
"""Records from which on processes pay: starting one costs the time of about 400 records (measured, 2 cores)."""

_BLOCKS_AHEAD_PER_JOB = 3
"""Blocks that may wait on disk for the part they belong to."""

# Files that hold many records, or what is said about them: another size or time of one makes it another source.
_TABLES = (".csv", ".gz", ".h5", ".hdf5", ".npy", ".npz", ".zip")


@dataclass(frozen=True)
class ImportSummary:
    """What `import_source` did.

    Attributes:
        kind: Of the source.
        version: Its release, where its files tell.
        out: The new folder.
        n_records: Records in it.
        n_continued: Records that an interrupted import had done already.
        refused: What was left out, and why.
        labels: The positives of every yes-or-no column but `is_male`.
        changed: What was done to the records.
    """

    kind: str
    version: str | None
    out: Path
    n_records: int
    n_continued: int
    refused: tuple[Refused, ...]
    labels: Mapping[str, int]
    changed: tuple[str, ...]

    def describe(self) -> str:
        """A few lines for people; the refusals, grouped by reason, with up to five records each."""
        name = f"{self.kind} {self.version}" if self.version else self.kind
        lines = [f"{self.out}: {self.n_records} records imported from {name}, {len(self.refused)} refused"]
        if self.n_continued:
            lines.append(f"  continued: {self.n_continued} records were done before the import was interrupted")
        if self.labels:
            lines.append("  positives: " + ", ".join(f"{label} {n}" for label, n in self.labels.items()))
        lines += [f"  changed: {change}" for change in self.changed]
        by_reason: dict[str, list[str]] = {}
        for refused in self.refused:
            by_reason.setdefault(refused.reason, []).append(refused.record)
        lines += [f"  refused: {some(records)}: {reason}" for reason, records in by_reason.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "out": str(self.out)}


def import_source(
    source: Path,
    out: Path,
    *,
    kind: str = "auto",
    options: SourceOptions = SourceOptions(),  # noqa: B008  # frozen
    length: LengthRule = CODE_LENGTH,
    jobs: int = 0,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    start: Callable[[int], None] | None = None,
) -> ImportSummary:
    """Converts a source to CODE format: 400 Hz, 4096 samples, standard lead order, mV where the source has them.

    Killed or stopped by a full disk, the same call goes on where it was: same source (record names, and size and time
    of the tables at the top of its folder), options and version of this program. Otherwise it starts afresh.

    Args:
        source: The downloaded folder.
        out: The new folder.
        kind: One of `KINDS`, or "auto" to recognise it.
        options: What the user says about the source.
        length: What happens to records of another length than 10.24 s.
        jobs: Processes, 0 for one per core; the result does not depend on it. More than one needs the usual
            `if __name__ == "__main__":` in a script that calls this.
        strict: Stop at the first record that is refused.
        overwrite: Replace `out` if it is a CODE-format folder already.
        progress: Told about every finished block.
        start: Told the number of records.

    Returns:
        Counts and refusals, which are also in `out/provenance.json`.

    Raises:
        DataError: The source is not recognised, no record of it can be used, the disk is full, a process died; in a
            strict import, a record was refused. `out` is as it was.
    """
    require_free(out, overwrite=overwrite)
    opened = open_source(source, kind, options)
    if not opened.names and not opened.refused:
        raise DataError(f"{source}: no {opened.kind} record matches {options.records!r}")
    if strict and opened.refused:
        raise strict_error(opened.refused[0].record, opened.refused[0].reason)
    if start is not None:
        start(len(opened.names))
    with _working_folder(out, _identity(source, opened, options, length, strict)) as working:
        conversion = Conversion(opened, length, strict, out, working / "blocks", BLOCK)
        parts = Parts(conversion, working / "folder", working / "journals")
        try:
            n_continued = _convert(conversion, parts, jobs or n_cores(), progress or (lambda n: None))
        except RepeatedRecord:  # either of the two may be the wrong one: both are to be read again
            shutil.rmtree(working.parent)
            raise
        refused = _without_folder((*opened.refused, *parts.refused), source)
        if not parts.tables:
            shutil.rmtree(working.parent)
            first = refused[0]
            raise DataError(f"{source}: all {len(refused)} records were refused; {first.record}: {first.reason}")
        exams = pd.concat(parts.tables, ignore_index=True)
        changed = (*opened.changed, "other rates than 400 Hz resampled (polyphase)", length.describe())
        counts = (len(exams), n_continued, refused, _positives(exams))
        summary = ImportSummary(opened.kind, opened.version, out, *counts, changed)
        provenance = _provenance(source, options, length, summary)
        try:
            publish(working / "folder", out, exams, unit=opened.unit, provenance=provenance)
        except OSError as error:
            raise disk_error(out, error) from error
    shutil.rmtree(working.parent, ignore_errors=True)
    return summary


def _convert(conversion: Conversion, parts: Parts, jobs: int, progress: Progress) -> int:
    """Converts what is missing and completes the parts; returns how many records an earlier import had done."""
    parts.resume()
    next_k = parts.next_k
    left = {
        block: sum(k >= next_k for k in conversion.records(block))
        for block in range(next_k // conversion.size, conversion.n_blocks)
    }
    missing = dict.fromkeys(block for block in left if not is_finished(conversion.folder, block))
    n_continued = len(conversion.source.names) - sum(left[block] for block in missing)
    progress(n_continued)
    few = sum(left[block] for block in missing) < _WORTH_A_POOL
    alone = jobs == 1 or few
    converted = _in_turn(conversion, [*missing]) if alone else _on_all_cores(conversion, [*missing], jobs)
    try:
        for block in left:
            if block in missing:
                next(converted)
                progress(left[block])
            parts.add(block)
        parts.finish()
    finally:
        converted.close()
        parts.abandon()
    return n_continued


def _in_turn(conversion: Conversion, blocks: Sequence[int]) -> Generator[int]:
    """Converts blocks in this process; yields each when it is on disk."""
    for block in blocks:
        convert_block(conversion, block)
        yield block


def _on_all_cores(conversion: Conversion, blocks: Sequence[int], jobs: int) -> Generator[int]:
    """Converts blocks in several processes; yields them in order, each when it is on disk."""
    # spawned, not forked: the caller may hold threads
    jobs, spawn = min(jobs, len(blocks)), multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start_worker, initargs=(conversion,))
    try:
        waiting = iter(blocks)
        running = deque(pool.submit(_work, block) for block in islice(waiting, jobs * _BLOCKS_AHEAD_PER_JOB))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(_work, block) for block in islice(waiting, 1))
    except BrokenProcessPool as error:
        raise DataError(
            "a process of the import died, most often because memory ran out. What was finished is kept: the same "
            f"command goes on from there; fewer than {jobs} jobs need less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_conversion: Conversion | None = None
"""Of this worker process; kept between blocks, so that a source may keep its place in a file."""


def _start_worker(conversion: Conversion) -> None:
    global _conversion
    _conversion = conversion
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the main process ends the workers in order
    end_with_parent()


def _work(block: int) -> int:
    assert _conversion is not None
    convert_block(_conversion, block)
    return block


@contextmanager
def _working_folder(out: Path, identity: str) -> Iterator[Path]:
    """The hidden folder of this very import, locked; what other imports into `out` left behind is deleted."""
    base = working_name(out)
    working = base / identity
    try:
        base.mkdir(parents=True, exist_ok=True)
        with (base / "lock").open("w") as lock:
            _lock(lock, out)
            for other in base.iterdir():
                if other.is_dir() and other != working:
                    shutil.rmtree(other)
            for name in ("blocks", "journals", "folder"):
                (working / name).mkdir(parents=True, exist_ok=True)
            for leftover in working.glob("*/*.building-*"):
                leftover.unlink()
            try:
                yield working
            finally:
                if not any(working.glob("*/*.json")):  # nothing is finished, so there is nothing to keep
                    shutil.rmtree(base, ignore_errors=True)
    except OSError as error:
        raise disk_error(out, error) from error


def _lock(file: IO[str], out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"{out}: another process is importing into it; wait for it, or choose another folder"
        ) from error
    except OSError:  # some network disks know no locks
        pass


def _identity(source: Path, opened: Source, options: SourceOptions, length: LengthRule, strict: bool) -> str:
    """16 hex characters; equal for two imports of which the second may go on where the first stopped."""
    tables = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(source.iterdir() if source.is_dir() else [source])
        if path.suffix in _TABLES and path.is_file()
    ]
    what = (version("ecgscale"), BLOCK, RECORDS_PER_PART, str(source.resolve()), opened.kind, opened.version)
    how = (options, length, strict, opened.unit, tuple(opened.changed))
    digest = hashlib.sha256(repr((what, how, tables, [asdict(x) for x in opened.refused])).encode())
    for name in opened.names:
        digest.update(name.encode() + b"\n")
    return digest.hexdigest()[:16]


def _without_folder(refused: Sequence[Refused], source: Path) -> tuple[Refused, ...]:
    """The same with files named within the source: where it lies is nobody's business."""
    return tuple(replace(x, reason=x.reason.replace(f"{source}{os.sep}", "")) for x in refused)


def _positives(exams: pd.DataFrame) -> dict[str, int]:
    flags = [name for name in exams.columns if exams[name].dtype == bool and name != "is_male"]
    return {name: int(exams[name].sum()) for name in flags}


def _provenance(source: Path, options: SourceOptions, length: LengthRule, summary: ImportSummary) -> dict[str, Any]:
    said = {name: value for name, value in asdict(options).items() if value is not None}
    return {
        "source": {"kind": summary.kind, "version": summary.version, "folder": source.resolve().name},
        "options": {**said, **asdict(length)},
        "program": {"name": "ecgscale", "version": version("ecgscale")},
        "n_records_in_source": summary.n_records + len(summary.refused),
        "n_imported": summary.n_records,
        "n_refused": len(summary.refused),
        "labels": summary.labels,
        "changed": summary.changed,
        "refused": [asdict(refused) for refused in summary.refused],
    }
