"""One shard of a packed store: which records it holds, where they lie in the CODE folder, and how it is written.

A shard counts as done when its journal is there, and the journal is written last. Any process can write any shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.conventions import LEADS
from ecgscale.data.code_format import CodeFolder, Signal, TracePart
from ecgscale.data.digitise import Block, digitise
from ecgscale.data.store import FORMAT_VERSION, record_sums, shard_path
from ecgscale.specs import InputSpec

SHARD_RECORDS = 8192
"""Most records of a shard: 0.8 GB of ten seconds at 400 Hz; of shorter ones still enough shards for every core."""

_BLOCK_RECORDS = 256
_READ_RECORDS = 1024
"""Records converted at once (50 MB as float32), and the most that are read at once where chunks hold many records."""

_Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Job:
    """Everything a process needs to pack any shard of a store. Slot k holds row `trace_row[k]` of part `part[k]`."""

    folder: Path
    parts: tuple[TracePart, ...]
    part: _Rows
    trace_row: _Rows
    fs_hz: float
    unit: str
    input_spec: InputSpec
    scale: tuple[float, ...]
    shard_records: int

    @property
    def plan(self) -> dict[str, Any]:
        """What has to be the same for shards to belong together."""
        return {
            "format_version": FORMAT_VERSION,
            "program_version": version("ecgscale"),
            "input": [self.input_spec.fs_hz, self.input_spec.stored_samples, self.input_spec.bandpass_hz],
            "scale": self.scale,
            "n_slots": len(self.part),
            "shard_records": self.shard_records,
        }

    @property
    def record_bytes(self) -> int:
        return _record_bytes(self.input_spec)

    @property
    def n_shards(self) -> int:
        return -(-len(self.part) // self.shard_records)

    def slots(self, shard: int) -> range:
        return range(shard * self.shard_records, min((shard + 1) * self.shard_records, len(self.part)))

    def journal(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.json"

    def done(self, shard: int) -> bool:
        return self.journal(shard).exists() and shard_path(self.folder, shard).exists()


def plan_job(
    source: CodeFolder, input_spec: InputSpec, folder: Path, scale: tuple[float, ...], shard_bytes: int
) -> Job:
    """Slots in the order in which records lie in the files, so that every shard is read front to back."""
    part, trace_row, order = _file_order(source)
    shard_records = max(1, min(SHARD_RECORDS, shard_bytes // _record_bytes(input_spec)))
    where = part[order], trace_row[order]
    return Job(folder, source.parts, *where, source.fs_hz, source.unit, input_spec, scale, shard_records)


def slots_of_exams(source: CodeFolder) -> npt.NDArray[np.int64]:
    """The slot of each row of `source.exams`."""
    return np.argsort(_file_order(source)[2]).astype(np.int64)


def write_shard(job: Job, shard: int) -> Iterator[int]:
    """Writes the signals, then the journal; yields the number of records after each block.

    Raises:
        DataError: a part can't be read.
        OSError: the shard can't be written.
    """
    building, path = job.folder / f"building-{shard:05d}", shard_path(job.folder, shard)
    journal: dict[str, list[Any]] = {"start": [], "stop": [], "crc32": [], "reason": []}
    shape = (len(job.slots(shard)), len(LEADS), job.input_spec.stored_samples)
    with building.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": shape})
        for block in _blocks(job, shard):
            file.write(block.digital.astype(np.dtype("<i2"), copy=False).data)
            journal["start"] += block.start.tolist()
            journal["stop"] += block.stop.tolist()
            journal["crc32"] += record_sums(block.digital).tolist()
            journal["reason"] += block.reasons
            yield len(block.digital)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)
    building.write_text(json.dumps(journal))
    building.replace(job.journal(shard))


def journals(job: Job) -> pd.DataFrame:
    """What is known of every slot: start, stop, crc32, and reason, which is "" if the record can be used."""
    of_shards = [pd.DataFrame(json.loads(job.journal(shard).read_text())) for shard in range(job.n_shards)]
    return pd.concat(of_shards, ignore_index=True)


def _blocks(job: Job, shard: int) -> Iterator[Block]:
    slots = job.slots(shard)
    part, trace_row = job.part[slots.start : slots.stop], job.trace_row[slots.start : slots.stop]
    for number in np.unique(part):
        for signal in _signals(job.parts[number], trace_row[part == number]):
            for k in range(0, len(signal), _BLOCK_RECORDS):
                yield digitise(signal[k : k + _BLOCK_RECORDS], job.fs_hz, job.unit, job.input_spec, job.scale)


def _signals(part: TracePart, rows: _Rows) -> Iterator[Signal]:
    """Ascending rows of a part. A chunk of many records is decompressed whole for every read that touches it."""
    step = min(-(-_BLOCK_RECORDS // part.chunk_rows) * part.chunk_rows, _READ_RECORDS)
    for here in np.split(rows, np.flatnonzero(np.diff(rows // step)) + 1):
        signal = part.slice(int(here[0]), int(here[-1]) + 1)
        yield signal if len(signal) == len(here) else signal[here - here[0]]


def _file_order(source: CodeFolder) -> tuple[_Rows, _Rows, npt.NDArray[np.intp]]:
    """Part and row of the trace of each exam, and the exams in the order in which their traces lie in the files."""
    numbers = {part.path.name: number for number, part in enumerate(source.parts)}
    part = source.exams["trace_file"].map(numbers).to_numpy().astype(np.int32)
    trace_row = source.exams["trace_row"].to_numpy().astype(np.int32)
    return part, trace_row, np.lexsort((trace_row, part))


def _record_bytes(input_spec: InputSpec) -> int:
    return 2 * len(LEADS) * input_spec.stored_samples
