"""The packed store: one population as uncompressed int16 shards with an index, ready for shuffled reading.

Gzip HDF5 gives 11 to 3,100 shuffled records/s where this gives tens of thousands, so training never reads HDF5. A store
that can be opened is whole: sizes and a sample of checksums are looked at first. `ecgscale.data.packing` writes it;
nothing here knows where the records came from.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import tokenize
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow

from ecgscale.data.targets import with_targets
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

FORMAT_VERSION = 2

HEADER, INDEX = "header.json", "index.parquet"

N_SAMPLED = 16
"""Records whose checksum is looked at whenever a store is opened: a few milliseconds, and a shard that was overwritten,
copied badly or belongs to another store does not pass."""

MAPPED_LIMIT_BYTES = 4 * 2**30
"""How much of the system's cache a process keeps mapped when it reads a store that is larger than this. The pages are
not its own, but their table is, and costs up to 8 bytes per 4 kB: 450 MB for 226 GB."""

Progress = Callable[[int], None]
Rows = npt.NDArray[np.integer]
Digital = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Header:
    format_version: int
    program_version: str
    fingerprint: str
    """Of the CODE folder it was made from; of an opened store, of the targets beside that as well."""
    unit: str
    scale: tuple[float, ...]
    """Unit per digital step, one number per lead."""
    fs_hz: float
    n_records: int
    """Rows of the index: the records that can be used."""
    n_leads: int
    n_samples: int
    shard_records: int
    """Slots per shard; the last one may have fewer. A refused record's slot is zero and in no row of the index."""
    shard_bytes: tuple[int, ...]
    """File size of each shard."""
    index_crc32: int
    """Of the index's file."""
    refused: dict[str, str]
    """exam_id → reason."""

    def to_json(self) -> str:
        """With a checksum of its own, so that a changed digit of a scale is noticed."""
        fields = asdict(self)
        return json.dumps(fields | {"crc32": _header_sum(fields)}, indent=1)


class Shards:
    """The signals of a store, mapped into memory; nothing is read before it is asked for.

    Args:
        folder: the store.
        header: its header; every file is compared with it.

    Raises:
        DataError: a shard is missing, of another size, or no array of the header's shape.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.shape = (header.n_leads, header.n_samples)
        self.shard_records = header.shard_records
        self.record_bytes = 2 * header.n_leads * header.n_samples
        self.mapped_limit_bytes = MAPPED_LIMIT_BYTES
        self._total_bytes = sum(header.shard_bytes)
        self._n_reads = 0
        self._maps: list[mmap.mmap] = []
        self._first_byte: list[int] = []
        for number, size in enumerate(header.shard_bytes):
            mapped, first_byte = _map_shard(shard_path(folder, number), size, self.shape, header.shard_records)
            self._maps.append(mapped)
            self._first_byte.append(first_byte)
        self._views = [
            memoryview(mapped)[first_byte:] for mapped, first_byte in zip(self._maps, self._first_byte, strict=True)
        ]

    def read(self, slots: Rows) -> Digital:
        """A copy of some records, `(record, lead, time)`, in the order asked for."""
        n, views = self.record_bytes, self._views
        shard, record = np.divmod(slots.astype(np.int64), self.shard_records)
        # one join is the cheapest gather over many files that Python has: 0.95 of the fancy indexing of one array
        copied = bytearray().join(
            [views[s][first : first + n] for s, first in zip(shard.tolist(), (record * n).tolist(), strict=True)]
        )
        self._let_go()
        return np.frombuffer(copied, np.dtype("<i2")).reshape(len(slots), *self.shape)

    def announce(self, slots: Rows) -> None:
        """Asks the system to fetch records from disk, without waiting for them."""
        shard, record = np.divmod(slots.astype(np.int64), self.shard_records)
        for s, first in zip(shard.tolist(), (record * self.record_bytes).tolist(), strict=True):
            first += self._first_byte[s]
            page = first - first % mmap.PAGESIZE
            self._maps[s].madvise(mmap.MADV_WILLNEED, page, first + self.record_bytes - page)

    def _let_go(self) -> None:
        """Looks every few reads, since the system maps more than what is read."""
        self._n_reads += 1
        if self._n_reads % 4 == 0 and self._total_bytes > self.mapped_limit_bytes < _mapped_bytes():
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)  # read-only pages: they stay in the system's cache


@dataclass(frozen=True)
class PackedStore:
    """Attributes:
    shards: the signals.
    index: one row per usable record: exam_id, patient_id, every other column of exams.csv, and of our own
        slot (its place in the shards), start and stop (recorded samples), line (of exams.csv, from 0), crc32 (of its
        bytes); after these the targets of `data.targets`.
    """

    path: Path
    header: Header
    shards: Shards
    index: pd.DataFrame

    def __len__(self) -> int:
        return self.header.n_records

    def read(self, rows: Rows) -> Digital:
        """Signals `(record, lead, time)` int16 of some rows of the index, copied."""
        return self.shards.read(self.index["slot"].to_numpy()[rows])


def store_name(input_spec: InputSpec) -> str:
    """The folder name of a store; normalisation and cropping happen on the device and do not count."""
    band = "" if input_spec.bandpass_hz is None else "-band{:g}-{:g}".format(*input_spec.bandpass_hz)
    return f"{input_spec.fs_hz:g}hz-{input_spec.stored_samples}{band}"


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"signals-{number:05d}.npy"


def open_store(path: Path) -> PackedStore:
    """Opens a packed store; of the signals only a sample is read.

    Raises:
        DataError: it is not there, of another version, damaged, or its files do not belong together; its population's
            targets are damaged.
    """
    header = _header(path)
    try:
        stored = (path / INDEX).read_bytes()
        if zlib.crc32(stored) != header.index_crc32:
            raise _damaged(path, f"{INDEX} is not the file that was written")
        index = pd.read_parquet(io.BytesIO(stored))
        pyarrow.default_memory_pool().release_unused()  # else twice the index stays with the process
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise _damaged(path, f"{INDEX} can't be read ({error})") from None
    index, fingerprint = with_targets(index, header.fingerprint, path.parent.parent)
    store = PackedStore(path, replace(header, fingerprint=fingerprint), Shards(path, header), index)
    _check_sums(store, np.unique(np.linspace(0, len(store) - 1, N_SAMPLED).astype(np.int64)))
    return store


def verify(store: PackedStore, progress: Progress | None = None) -> None:
    """Reads every record and compares its checksum.

    Raises:
        DataError: a record has changed; names its shard.
    """
    for rows in np.array_split(np.argsort(store.index["slot"].to_numpy()), -(-len(store) // 256)):
        _check_sums(store, rows)
        if progress is not None:
            progress(len(rows))


def stored_header(path: Path) -> dict[str, Any] | None:
    """What the header of a store says, of any version; None where there is no store."""
    try:
        found = json.loads((path / HEADER).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a packed store ({error}); delete it") from None
    return found if isinstance(found, dict) else {}


def record_sums(digital: Digital) -> npt.NDArray[np.uint32]:
    """CRC-32 of every record's bytes."""
    little = np.ascontiguousarray(digital, dtype=np.dtype("<i2"))
    return np.array([zlib.crc32(record) for record in little], np.uint32)


def _header(path: Path) -> Header:
    found = stored_header(path)
    if found is None:
        raise DataError(f"{path}: not a packed store (no {HEADER}); `ecgscale data pack` makes it")
    if found.get("format_version") not in (None, FORMAT_VERSION):
        raise DataError(
            f"{path}: store version {found['format_version']}, this program reads {FORMAT_VERSION}; "
            "delete it and pack again"
        )
    try:
        kept_sum = found.pop("crc32")
        header = Header(**found | {name: tuple(found[name]) for name in ("scale", "shard_bytes")})
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: not a packed store ({HEADER}: {error}); delete it and pack again") from None
    if kept_sum != _header_sum(asdict(header)):
        raise _damaged(path, f"{HEADER} is not the file that was written")
    return header


def _header_sum(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def _map_shard(path: Path, size: int, shape: tuple[int, int], most_records: int) -> tuple[mmap.mmap, int]:
    """The mapped file and where its first sample lies."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise _damaged(path.parent, f"shard {path.name} has {found:,} bytes, the header says {size:,}")
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the npy format")
            (n, *record), fortran, dtype = np.lib.format.read_array_header_1_0(file)
            first_byte = file.tell()
            if (tuple(record), dtype, fortran) != (shape, np.dtype("<i2"), False) or n > most_records:
                raise _damaged(
                    path.parent, f"shard {path.name} is {dtype} {(n, *record)}, expected int16 (n, *{shape})"
                )
            if first_byte + 2 * n * shape[0] * shape[1] != size:
                raise _damaged(path.parent, f"shard {path.name} does not hold the {n} records it says")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), first_byte
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:  # the last two from numpy's headers
        raise _damaged(path.parent, f"shard {path.name} can't be read ({error})") from None


def _mapped_bytes() -> int:
    """Of all files that this process has mapped, what is in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def _check_sums(store: PackedStore, rows: Rows) -> None:
    found, expected = record_sums(store.read(rows)), store.index["crc32"].to_numpy()[rows]
    if wrong := np.flatnonzero(found != expected).tolist():
        row = store.index.iloc[rows[wrong[0]]]
        shard = shard_path(store.path, int(row["slot"]) // store.header.shard_records)
        raise _damaged(store.path, f"shard {shard.name}: the samples of exam_id {row['exam_id']} have changed")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: is damaged: {what}; delete it and pack again (`ecgscale data pack`, or the sweep does)")
