"""One HDF5 part of a CODE-format folder: where its traces and ids lie, what its numbers mean, how a new one is written.

A part is (exam, 4096 samples, 12 leads) at 400 Hz beside one id per exam. This module knows nothing about tables,
patients or labels; `ecgscale.data.code_format` joins them.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ecgscale.conventions import CODE_FS_HZ, CODE_MV_PER_UNIT, CODE_N_SAMPLES, LEADS
from ecgscale.data.exams_table import some
from ecgscale.errors import DataError

Unit = Literal["mV", "zscore"]
Signal = NDArray[np.float32]
"""(exam, sample, lead), `CODE_N_SAMPLES` × 12, leads in the order of `ecgscale.conventions.LEADS`."""

Chunk = bytes
"""One compressed record, see `compressed`."""

SHAPE = (CODE_N_SAMPLES, len(LEADS))
NO_EXAM = -1
"""The id of a row that holds no exam: every part of CODE-15 % has one all-zero row with exam_id 0 too many."""

_TRACE_NAMES, _ID_NAMES = ("tracings", "signal"), ("exam_id", "id_exam")

HDF5_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, MemoryError),
)
"""What h5py, zlib and numpy raise on damaged files, depending on where the damage is: a wrong size in a header ends as
MemoryError, a wrong type as TypeError."""

# Signals are stored on a grid of 2^-10 of the stored unit (0.49 µV): a power of two keeps the mantissas short.
_STEPS_PER_UNIT = 2.0**10

_DEFLATE_LEVEL = 1  # without a search for repetitions all levels give the same bytes


@dataclass(frozen=True, eq=False)
class TracePart:
    """One HDF5 file of a folder.

    Attributes:
        path: The file.
        trace_name: Its array of signals.
        ids: Row i is exam `ids[i]`.
        chunk_rows: Records that share a chunk.
        filters: What every chunk went through (`shuffle`, `deflate`, `lzf`, …); empty if it is stored as it is.
        to_unit: Turns stored numbers into the folder's unit.
    """

    path: Path
    trace_name: str
    ids: NDArray[np.int64]
    chunk_rows: int
    filters: tuple[str, ...]
    to_unit: float

    @property
    def slow_random_access(self) -> str:
        """Why reading single records from this file is slow; empty if it is not.

        h5py's automatic chunks span many records, and each is decompressed whole for every record read from it.
        Measured on such a gzip file: 11 records/s, where the packed store gives 12,400.
        """
        if self.chunk_rows == 1 or not self.filters:
            return ""
        return (
            f"{self.path.name} is compressed ({', '.join(self.filters)}) in chunks of {self.chunk_rows} records: "
            "reading one of them decompresses them all"
        )

    def slice(self, start: int, stop: int) -> Signal:
        """Rows start to stop as (exam, sample, lead) float32 in the folder's unit."""
        try:
            with h5py.File(self.path) as file:
                stored = file[self.trace_name][start:stop]
        except HDF5_DAMAGE as error:
            raise _unreadable(self.path, f"rows {start}-{stop - 1}: {error}") from error
        signal: Signal = stored.astype(np.float32, copy=False)
        if self.to_unit != 1.0:
            with np.errstate(over="ignore", invalid="ignore"):  # what damage makes of numbers is found by who uses them
                signal *= np.float32(self.to_unit)
        return signal


def open_part(path: Path, mv_per_unit: float | None) -> tuple[TracePart, tuple[Unit, float]]:
    """Ids, storage and (unit, mV per stored unit) of one HDF5 file; refuses what is not CODE format."""
    try:
        with h5py.File(path) as file:
            return part_in(file, path, mv_per_unit)
    except HDF5_DAMAGE as error:
        raise _unreadable(path, str(error)) from error


def part_in(file: h5py.File, path: Path, mv_per_unit: float | None) -> tuple[TracePart, tuple[Unit, float]]:
    """What `open_part` returns, for a file that is open already, perhaps within a zip at `path`."""
    traces, ids = _dataset(file, _TRACE_NAMES), _dataset(file, _ID_NAMES)
    if traces is None:
        raise DataError(f"{path}: no data set 'tracings' (or 'signal'); it has {some(sorted(file)) or 'nothing'}")
    if traces.ndim != 3 or traces.shape[1:] != SHAPE:
        raise DataError(
            f"{path}: {traces.name} has shape {traces.shape}, expected (exams, {SHAPE[0]}, {SHAPE[1]}); "
            "import the source instead of opening it"
        )
    if ids is None or ids.shape != traces.shape[:1]:
        raise DataError(
            f"{path}: {len(traces)} traces need a data set 'exam_id' of the same length, "
            f"found {'none' if ids is None else ids.shape}. Traces are never matched by row number"
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"{path}: {ids.name} has type {ids.dtype}, expected whole numbers")
    form = _form(traces, mv_per_unit, path)
    chunk_rows = 1 if traces.chunks is None else int(traces.chunks[0])
    to_unit = _stored_scale(traces, path) * form[1]
    part = TracePart(path, traces.name[1:], _exam_ids(ids, traces), chunk_rows, _filters(traces), to_unit)
    return part, form


def mv_per_stored_unit(unit: Unit) -> float:
    """What one stored unit of a part that we write is in the signals' unit: the releases' 2 × mV, or z-scores."""
    return CODE_MV_PER_UNIT if unit == "mV" else 1.0


def to_stored(signal: Signal, unit: Unit) -> Signal:
    """Millivolts (or z-scores) in the stored unit, rounded to its grid; at most 0.25 µV off."""
    steps = np.multiply(signal, np.float32(_STEPS_PER_UNIT / mv_per_stored_unit(unit)), order="C", dtype=np.float32)
    np.rint(steps, out=steps)
    steps *= np.float32(1 / _STEPS_PER_UNIT)
    return steps


def compressed(stored: Signal) -> Chunk:
    """One record (sample, lead) as HDF5 stores it in a part: bytes of equal rank side by side, then deflate.

    Deflate looks for runs only (Z_RLE), which suits a signal on a grid: the low bytes are zeros, the others do not
    repeat. Any HDF5 program reads it as gzip. Measured on 187 real records, one busy core: 1.2 ms and 71 kB per
    record, against 1.9 ms and 64 kB with a full search (gzip 1), 1.4-2.1 ms and 75 kB with lzf, whose bytes moreover
    change from run to run, and 197 kB uncompressed. Reading takes 0.6 ms with any of them.
    """
    planes = np.ascontiguousarray(stored, dtype="<f4").view(np.uint8).reshape(-1, 4).T
    deflate = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return deflate.compress(np.ascontiguousarray(planes).data) + deflate.flush()


class PartWriter:
    """Writes one part: float32, shuffle + gzip, one record per chunk. Every failure of it is an `OSError`.

    Args:
        path: The new file.
        unit: Unit of the signals.
    """

    def __init__(self, path: Path, unit: Unit) -> None:
        self.path = path
        self._disk = _Disk(path)
        self._file = h5py.File(self._disk, "w")
        self._ids = self._file.create_dataset("exam_id", (0,), "<i8", maxshape=(None,), chunks=(4096,))
        self._traces = self._file.create_dataset(
            "tracings",
            (0, *SHAPE),
            "<f4",
            maxshape=(None, *SHAPE),
            chunks=(1, *SHAPE),
            compression="gzip",
            compression_opts=_DEFLATE_LEVEL,
            shuffle=True,
        )
        # bytes of fixed length: text of any length is kept in a heap, and when that is damaged HDF5 reads for ever
        form = {"unit": np.bytes_(unit), "leads": np.array(LEADS, dtype="S")}
        self._traces.attrs.update(form, mv_per_unit=mv_per_stored_unit(unit), fs_hz=CODE_FS_HZ)

    def __len__(self) -> int:
        return int(self._ids.shape[0])

    def append(self, ids: Sequence[int] | NDArray[np.int64], chunks: Sequence[Chunk]) -> None:
        """Adds exams; their signals are what `to_stored` and then `compressed` made of them."""
        with self._disk.checked():
            before = len(self)
            for dataset in (self._ids, self._traces):
                dataset.resize(before + len(ids), axis=0)
            self._ids[before:] = ids
            for row, chunk in enumerate(chunks, start=before):
                self._traces.id.write_direct_chunk((row, 0, 0), chunk)

    def close(self) -> None:
        """Only after this the file is whole."""
        with self._disk.checked():
            self._file.close()
            self._disk.close()

    def abandon(self) -> None:
        """Closes and deletes the file."""
        self._file.close()
        self._disk.close()
        self.path.unlink(missing_ok=True)


class _Disk(io.FileIO):
    """A new file that HDF5 writes to. On a full disk it loses what does not fit, and says so when asked.

    The HDF5 library does not survive a write that fails: what it can't flush makes it crash when the file is closed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Raises what went wrong within, or before."""
        yield
        if self._error is not None:
            raise self._error

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0


def read_chunks(path: Path) -> list[Chunk]:
    """All records of a part that `PartWriter` wrote, compressed, in order."""
    try:
        with h5py.File(path) as file:
            traces = file["tracings"].id
            return [traces.read_direct_chunk((row, 0, 0))[1] for row in range(traces.shape[0])]
    except HDF5_DAMAGE as error:
        raise _unreadable(path, str(error)) from error


def _dataset(file: h5py.File, names: Sequence[str]) -> h5py.Dataset | None:
    return next((file[name] for name in names if isinstance(file.get(name), h5py.Dataset)), None)


def _exam_ids(ids: h5py.Dataset, traces: h5py.Dataset) -> NDArray[np.int64]:
    exam_ids: NDArray[np.int64] = ids[:].astype(np.int64)
    for row in np.flatnonzero(exam_ids == 0):
        # flipped bits can be signalling NaNs; a row that can't be read costs no other: it stays exam 0
        with suppress(*HDF5_DAMAGE), np.errstate(invalid="ignore"):
            if not traces[row].any():
                exam_ids[row] = NO_EXAM
    return exam_ids


def _filters(traces: h5py.Dataset) -> tuple[str, ...]:
    pipeline = traces.id.get_create_plist()
    return tuple(pipeline.get_filter(k)[3].decode() for k in range(pipeline.get_nfilters()))


def _form(traces: h5py.Dataset, mv_per_unit: float | None, path: Path) -> tuple[Unit, float]:
    """Unit and millivolts per stored unit: what the caller says, else what the file says, else CODE's 0.5."""
    fs_hz = float(traces.attrs.get("fs_hz", CODE_FS_HZ))
    if fs_hz != CODE_FS_HZ:
        raise DataError(f"{path}: sampled at {fs_hz:g} Hz, CODE format has {CODE_FS_HZ:g}; import it to resample")
    leads = tuple(_text(lead) for lead in traces.attrs.get("leads", LEADS))
    if leads != LEADS:
        raise DataError(f"{path}: leads are {', '.join(leads)}; CODE format has {', '.join(LEADS)}")
    named = _text(traces.attrs.get("unit", "mV"))
    if named not in ("mV", "zscore"):
        raise DataError(f"{path}: attribute unit is {named!r}, expected 'mV' or 'zscore'")
    unit: Unit = "zscore" if named == "zscore" else "mV"
    if mv_per_unit is None:
        mv_per_unit = float(traces.attrs.get("mv_per_unit", 1.0 if unit == "zscore" else CODE_MV_PER_UNIT))
    if not 0 < mv_per_unit < math.inf:
        raise DataError(f"{path}: mv_per_unit is {mv_per_unit:g}, expected a number above 0")
    return unit, mv_per_unit


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _stored_scale(traces: h5py.Dataset, path: Path) -> float:
    """Integers carry a scale to stored units; floats are stored units already."""
    if np.issubdtype(traces.dtype, np.floating):
        return 1.0
    if not np.issubdtype(traces.dtype, np.integer):
        raise DataError(f"{path}: {traces.name} has type {traces.dtype}, expected floating point or integers")
    if "scale" not in traces.attrs:
        raise DataError(f"{path}: {traces.name} has type {traces.dtype} but no attribute 'scale'; its unit is unknown")
    return float(traces.attrs["scale"])


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: cannot be read as HDF5, it is damaged or not completely downloaded ({why}). Get it again"
    )
