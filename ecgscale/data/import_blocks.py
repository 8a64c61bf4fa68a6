"""A block of a source's records, converted and put on disk whole or not at all: what a worker of an import does.

A finished block is two files: the converted signals as an HDF5 part, and a journal that says of every record of the
block either its table row or why it was refused. The journal is written last, so a block with a journal is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.data.code_format import bad_records
from ecgscale.data.sources.source import Recording, Refused, Source
from ecgscale.data.standard_form import LengthRule, in_standard_order, to_code_length, to_code_rate
from ecgscale.data.trace_part import Chunk, PartWriter, Signal, compressed, read_chunks, to_stored
from ecgscale.errors import DataError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Conversion:
    """Everything that a process needs to convert a block.

    Attributes:
        source: Where records come from.
        length: How they get their 4096 samples.
        strict: Raise at the first record that is refused.
        out: The folder that is made of the blocks in the end.
        folder: Where blocks are put.
        size: Records per block.
    """

    source: Source
    length: LengthRule
    strict: bool
    out: Path
    folder: Path
    size: int

    @property
    def n_blocks(self) -> int:
        return -(-len(self.source.names) // self.size)

    def records(self, block: int) -> range:
        """The numbers of the block's records."""
        return range(block * self.size, min((block + 1) * self.size, len(self.source.names)))


@dataclass(frozen=True)
class Entry:
    """What became of record `k`: its table row and the digest of its signal, or the reason of its refusal."""

    k: int
    row: dict[str, Any] | None = None
    digest: str = ""
    reason: str = ""


def convert_block(conversion: Conversion, block: int) -> None:
    """Reads, converts and stores one block.

    Raises:
        DataError: The disk is full; or, if the conversion is strict, a record is refused.
    """
    signals, journal = _paths(conversion.folder, block)
    entries, ids, chunks = [], [], []
    records = conversion.records(block)
    for k, item in zip(records, _items(conversion.source, records), strict=True):
        try:
            if isinstance(item, Refused):
                raise DataError(item.reason)
            chunk = compressed(_stored(item, conversion))
        except DataError as error:
            if conversion.strict:
                raise strict_error(item.record, str(error)) from error
            entries.append(Entry(k, reason=str(error)))
        else:
            entries.append(Entry(k, dict(item.row), hashlib.sha256(chunk).hexdigest()[:32]))
            ids.append(int(item.row["exam_id"]))
            chunks.append(chunk)
    try:
        part = PartWriter(building_name(signals), conversion.source.unit)
        try:
            part.append(ids, chunks)
            part.close()
        except BaseException:
            part.abandon()
            raise
        os.replace(part.path, signals)
        write_journal(journal, entries)
    except OSError as error:
        raise disk_error(conversion.out, error) from error


def is_finished(folder: Path, block: int) -> bool:
    return all(path.is_file() for path in _paths(folder, block))


def read_block(folder: Path, block: int) -> tuple[list[Entry], list[Chunk]]:
    """Journal and compressed signals of a finished block; one signal for every entry that has a row.

    Raises:
        DataError: They do not belong together, as after a power failure. The block is deleted.
    """
    signals, journal = _paths(folder, block)
    found = read_journal(journal)
    try:
        chunks = read_chunks(signals)
    except DataError:
        chunks = []
    if found is None or len(chunks) != sum(entry.row is not None for entry in found[0]):
        delete_block(folder, block)
        raise DataError(
            f"{signals}: this piece of an interrupted import is damaged; the same command converts it again"
        )
    return found[0], chunks


def delete_block(folder: Path, block: int) -> None:
    for path in reversed(_paths(folder, block)):
        path.unlink(missing_ok=True)


def building_name(path: Path) -> Path:
    """The name of a file until it is complete; two processes never share one."""
    return path.with_name(f"{path.name}.building-{os.getpid()}")


def write_journal(path: Path, entries: Sequence[Entry], next_k: int = 0) -> None:
    """Writes entries, whole or not at all."""
    building = building_name(path)
    lines = [[entry.k, entry.row, entry.digest, entry.reason] for entry in entries]
    building.write_text(json.dumps({"next_k": next_k, "entries": lines}, default=_plain), "utf-8")
    os.replace(building, path)


def read_journal(path: Path) -> tuple[list[Entry], int] | None:
    """The entries and `next_k` that `write_journal` wrote; None if there is no whole journal."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return [Entry(*line) for line in found["entries"]], found["next_k"]


def working_name(out: Path) -> Path:
    """The hidden folder beside the target that holds what is finished."""
    return out.parent / f".{out.name}.importing"


def disk_error(out: Path, error: OSError) -> DataError:
    """An error of writing, in words."""
    why = "the disk is full" if error.errno in _NO_SPACE else f"writing failed ({error.strerror or error})"
    kept = f"What was finished is kept in {working_name(out).name} beside it"
    return DataError(f"{out}: {why}. {kept}: the same command goes on from there")


def strict_error(record: str, reason: str) -> DataError:
    return DataError(f"{record}: {reason}. A strict import stops here; one that is not leaves the record out")


def _items(source: Source, records: range) -> Iterator[Recording | Refused]:
    """The records in turn; an error of the operating system refuses one record, not all that come after it."""
    k = records.start
    while k < records.stop:
        try:
            for item in source.read(k, records.stop):
                k += 1
                yield item
            assert k == records.stop, f"{source.kind}: read({records.start}, {records.stop}) ended at {k}"
        except OSError as error:
            yield Refused(source.names[k], f"cannot be read ({error.strerror or error})")
            k += 1


def _stored(recording: Recording, conversion: Conversion) -> Signal:
    """The record as it is stored: (sample, lead) in CODE's unit."""
    unit = conversion.source.unit
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers become infinite, and are refused for that
        signal = in_standard_order(recording.signal, recording.leads, derive=unit == "mV")
        signal = to_code_length(to_code_rate(signal, recording.fs_hz), conversion.length)
        stored = to_stored(signal, unit)
    if reason := bad_records(stored[None])[0]:
        raise DataError(f"signal is {reason}")
    return stored


def _paths(folder: Path, block: int) -> tuple[Path, Path]:
    return folder / f"{block:06d}.hdf5", folder / f"{block:06d}.json"


def _plain(value: object) -> object:
    """What JSON does not know, as numpy and pandas hand it out."""
    if isinstance(value, np.generic):
        return value.item()
    return None if value is pd.NA or value is pd.NaT else str(value)
