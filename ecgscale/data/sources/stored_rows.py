"""Collections that keep many recordings in one array: HDF5 (plain or within a zip) and npy, read row by row.

`open_hdf5` turns every way in which such a file can be damaged into a `DataError`; `StoredRows` is a `Source` over
arrays and a table. What the rows mean (unit, leads, labels) is decided by the modules beside this one.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.data.sources.source import Recording, Refused, Source, Unit
from ecgscale.data.sources.zip_member import ZipMember
from ecgscale.data.trace_part import HDF5_DAMAGE
from ecgscale.errors import DataError

_GIT_LFS = b"version https://git-lfs"

# Rows are read in runs of about this size: large enough that opening the file does not count, small enough that every
# worker process can hold a few. A chunk that spans more records is always read whole.
_RUN_BYTES = 16 << 20


@contextmanager
def open_hdf5(path: Path, member: str | None = None) -> Iterator[h5py.File]:
    """An HDF5 file for reading.

    Args:
        path: The file, or a zip.
        member: The name of the HDF5 file within the zip.

    Raises:
        DataError: It is not there, no HDF5 file, or damaged; also for what goes wrong in the `with` block.
    """
    _require_file(path)
    try:
        if member is None:
            with h5py.File(path, "r") as file:
                yield file
        else:
            yield _member(path, member, path.stat().st_mtime_ns)
    except HDF5_DAMAGE as error:
        raise DataError(
            f"{path}: cannot be read, it is damaged or not completely downloaded ({error}). Get it again"
        ) from error


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array of recordings in a file.

    Attributes:
        path: The HDF5, npy or zip file.
        axes: Its axes, some order of "record", "time" and "lead" and any number of "1"; without "record" it is one.
        n_rows: Number of recordings.
        row_bytes: Size of one.
        chunk_rows: Recordings that are compressed together.
        to_unit: Turns stored numbers into the source's unit.
        dataset: HDF5: the name of the array; None for npy.
        member: The name of the HDF5 file within the zip.
    """

    path: Path
    axes: tuple[str, ...]
    n_rows: int
    row_bytes: int
    chunk_rows: int
    to_unit: float
    dataset: str | None = None
    member: str | None = None

    @property
    def run_rows(self) -> int:
        """How many rows are read together: whole chunks, about `_RUN_BYTES`."""
        return self.chunk_rows * max(1, _RUN_BYTES // (self.row_bytes * self.chunk_rows))

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Recordings start to stop as (record, time, lead) in the source's unit."""
        here = tuple(slice(start, stop) if axis == "record" else slice(None) for axis in self.axes)
        if self.dataset is None:
            stored = np.asarray(open_npy(self.path)[here])
        else:
            with open_hdf5(self.path, self.member) as file:
                stored = file[self.dataset][here]
        named = [axis for axis in self.axes if axis != "1"]
        stored = stored.reshape([n for n, axis in zip(stored.shape, self.axes, strict=True) if axis != "1"])
        if "record" not in named:
            stored, named = stored[None], ["record", *named]
        stored = stored.transpose([named.index(axis) for axis in ("record", "time", "lead")])
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that no ECG has become infinite and are refused
            signal = np.multiply(stored, self.to_unit, dtype=np.float32, casting="same_kind", order="C")
        return np.asarray(signal)


def open_npy(path: Path) -> NDArray[Any]:
    """An npy file as a memory map."""
    _require_file(path)
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy evaluates the header as Python: a damaged one raises whatever Python can
        why = " ".join(str(error).split())  # numpy's advice has several lines
        raise DataError(f"{path}: cannot be read as npy, it is damaged or truncated ({why}). Get it again") from error
    return array


class Numbered(Sequence[str]):
    """Record names that are numbers, written out when asked for: 2.3 million of them take 18 MB."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, k: int) -> str: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[str]: ...
    def __getitem__(self, k: int | slice) -> str | Sequence[str]:
        return Numbered(self._numbers[k]) if isinstance(k, slice) else str(self._numbers[k])


@dataclass(frozen=True, eq=False)
class StoredRows(Source):
    """Recordings in arrays, with a table.

    Attributes:
        arrays: The arrays.
        array_of: For every record, its array.
        row_of: For every record, its row there; ascending within an array.
        exams: One line per record: the columns of its `Recording.row`.
        leads: Of every recording.
        fs_hz: Of every recording.
    """

    kind: str
    names: Sequence[str]
    arrays: tuple[StoredArray, ...]
    array_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    exams: pd.DataFrame
    leads: tuple[str, ...]
    fs_hz: float
    unit: Unit = "mV"
    changed: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    advice: tuple[str, ...] = ()

    def read(self, start: int, stop: int) -> Iterator[Recording | Refused]:
        while start < stop:
            end = self._end_of_run(start, stop)
            yield from self._run(start, end)
            start = end

    def _end_of_run(self, start: int, stop: int) -> int:
        """Records from `start` on that lie in the same array and the same stretch of whole chunks."""
        array = self.array_of[start]
        step = self.arrays[array].run_rows
        limit = (self.row_of[start] // step + 1) * step
        same = (self.array_of[start:stop] == array) & (self.row_of[start:stop] < limit)
        return start + int(np.argmin(same)) if not same.all() else stop

    def _run(self, start: int, stop: int) -> Iterator[Recording | Refused]:
        array, rows = self.arrays[self.array_of[start]], self.row_of[start:stop]
        first, last = int(rows[0]), int(rows[-1]) + 1
        try:
            signal = array.rows(first, last)
        except DataError as error:
            if last - first <= array.chunk_rows:
                yield from (Refused(self.names[k], str(error)) for k in range(start, stop))
            else:  # damage in one place: halve until only what it touches is lost
                middle = (start + stop) // 2
                yield from self._run(start, middle)
                yield from self._run(middle, stop)
            return
        for k, row, line in zip(range(start, stop), rows, self._lines(start, stop), strict=True):
            yield Recording(self.names[k], signal[row - first], self.leads, self.fs_hz, line)

    def _lines(self, start: int, stop: int) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self.exams.iloc[start:stop].to_dict("records")  # type: ignore[assignment]
        for line in lines:
            line["is_male"] = None if pd.isna(line["is_male"]) else bool(line["is_male"])
        return lines


def dataset_array(
    file: h5py.File, dataset: str, path: Path, member: str | None, axes: tuple[str, ...], to_unit: float
) -> StoredArray:
    """How an array of an open HDF5 file is read later."""
    if to_unit == 0 or not math.isfinite(to_unit):
        raise DataError(f"{path}: the scale of {dataset} is {to_unit:g}; expected a number other than 0")
    array = file[dataset]
    chunks = dict(zip(axes, array.chunks, strict=True)) if array.chunks else {}
    n_rows, row_bytes = row_sizes(array, axes)
    return StoredArray(path, axes, n_rows, row_bytes, int(chunks.get("record", 1)), to_unit, dataset, member)


def row_sizes(array: h5py.Dataset | NDArray[Any], axes: tuple[str, ...]) -> tuple[int, int]:
    """Number of recordings in an array, and the bytes of one."""
    n_rows = int(dict(zip(axes, array.shape, strict=True)).get("record", 1))
    others = (n for n, axis in zip(array.shape, axes, strict=True) if axis != "record")
    return n_rows, max(1, int(np.prod([array.dtype.itemsize, *others])))


def matching(names: Sequence[str], pattern: str) -> NDArray[np.bool_]:
    """Which names match a pattern of `fnmatch`."""
    return np.array([pattern == "*" or fnmatchcase(name, pattern) for name in names], dtype=bool)


def refuse_repeated(exams: pd.DataFrame, table: Path) -> tuple[pd.DataFrame, list[Refused]]:
    """Leaves out every exam whose exam_id stands on several lines: nobody knows which line is right."""
    repeated = exams["exam_id"].duplicated(keep=False)
    lines = exams.index[repeated].to_series().groupby(exams["exam_id"][repeated]).agg(list)
    refused = [
        Refused(str(exam_id), f"exam_id stands on lines {', '.join(str(k + 2) for k in found)} of {table.name}")
        for exam_id, found in lines.items()
    ]
    return exams[~repeated], refused


@lru_cache(maxsize=1)
def _member(path: Path, member: str, _modified: int) -> h5py.File:
    """Stays open: what a process has inflated need not be inflated again for its next block."""
    return h5py.File(ZipMember(path, member), "r")


# Files that read through Python must be closed while Python still runs.
atexit.register(_member.cache_clear)


def _require_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_GIT_LFS))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error})") from error
    if start == _GIT_LFS:
        raise DataError(f"{path}: is a Git LFS pointer, not the data; run `git lfs pull`")
