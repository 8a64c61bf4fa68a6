"""CODE format in and out: `*.hdf5` parts of (exam, 4096 samples, 12 leads) at 400 Hz beside an `exams.csv`.

Reading joins table and traces on `exam_id`, never on row numbers, and hands out signals in millivolts (or z-scores).
Writing makes a folder that other CODE-15 % programs read, or nothing: a half-written folder never carries the name.
Every other source is converted to this format first (`ecgscale.data.sources`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import h5py
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgscale.conventions import CODE_FS_HZ, CODE_MV_PER_UNIT, CODE_N_SAMPLES, LEADS
from ecgscale.data.exams_table import find_table, in_release_order, read_table, some
from ecgscale.errors import DataError

Unit = Literal["mV", "zscore"]
Signal = NDArray[np.float32]
"""(exam, sample, lead), `CODE_N_SAMPLES` × 12, leads in the order of `ecgscale.conventions.LEADS`."""

N_LEADS = len(LEADS)
_TRACE_NAMES, _ID_NAMES = ("tracings", "signal"), ("exam_id", "id_exam")

# Rows per read when a chunk holds many records (h5py's automatic chunks span 125): a chunk is decompressed once per
# read that touches it, so reads cover whole chunks. 1,024 float32 records are 200 MB, our limit for one read.
_MAX_ROWS_PER_READ = 1024
_FINGERPRINT_ROWS = 8

# What h5py raises on damaged files, depending on where the damage is.
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, UnicodeDecodeError)

_NO_EXAM = -1
"""The id of a row that holds no exam: every part of CODE-15 % has one all-zero row with exam_id 0 too many."""


@dataclass(frozen=True, eq=False)
class TracePart:
    """One HDF5 file of a folder. Row i is exam `ids[i]`; `to_unit` turns stored numbers into the folder's unit."""

    path: Path
    trace_name: str
    ids: NDArray[np.int64]
    chunk_rows: int
    to_unit: float

    def slice(self, start: int, stop: int) -> Signal:
        """Rows start to stop as (exam, sample, lead) float32 in the folder's unit."""
        try:
            with h5py.File(self.path) as file:
                stored = file[self.trace_name][start:stop]
        except _HDF5_ERRORS as error:
            raise _unreadable(self.path, f"rows {start}-{stop - 1}: {error}") from error
        signal: Signal = stored.astype(np.float32, copy=False)
        if self.to_unit != 1.0:
            signal *= np.float32(self.to_unit)
        return signal


@dataclass(frozen=True, eq=False)
class CodeFolder:
    """An opened CODE-format folder: the exams that have a trace, and how to read their signals.

    Attributes:
        path: The folder.
        exams: One row per exam that has a trace, by ascending exam_id: exam_id, patient_id, age (years), is_male
            (nullable boolean), the CODE labels (bool), every other column of the csv, trace_file and trace_row.
        unit: "mV", or "zscore" when every lead was scaled to standard deviation 1 and millivolts are lost.
        mv_per_unit: What one stored unit is in mV (0.5 in the CODE releases, 1 for z-scores). Already applied.
        fs_hz: Sampling rate.
        parts: The HDF5 files, by name.
        n_without_trace: Exams of the csv without a trace (only with `partial=True`).
        n_unlisted: Traces that the csv does not mention; they are not read.
    """

    path: Path
    exams: pd.DataFrame
    unit: Unit
    mv_per_unit: float
    fs_hz: float
    parts: tuple[TracePart, ...]
    n_without_trace: int = 0
    n_unlisted: int = 0

    def batches(self, size: int = 256) -> Iterator[tuple[NDArray[np.int64], Signal]]:
        """All signals, in the order in which they lie in the files.

        Args:
            size: Largest number of exams per batch.

        Yields:
            Row numbers into `exams`, and their signals (exam, sample, lead) in `unit`.
        """
        for part in self.parts:
            rows = np.flatnonzero(self.exams["trace_file"].to_numpy() == part.path.name)
            wanted = np.full(len(part.ids), -1, dtype=np.int64)  # trace row -> row of exams
            wanted[self.exams["trace_row"].to_numpy()[rows]] = rows
            for start, stop in _whole_chunks(part, size):
                here = wanted[start:stop]
                if (here < 0).all():
                    continue
                signal = part.slice(start, stop)
                if (here < 0).any():
                    here, signal = here[here >= 0], signal[here >= 0]
                for k in range(0, len(here), size):
                    yield here[k : k + size], signal[k : k + size]

    def read(self, rows: ArrayLike) -> Signal:
        """The signals of some rows of `exams`, in the order asked for: (exam, sample, lead) in `unit`.

        For a look at single records; `batches` reads everything many times faster.
        """
        wanted = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        by_name = {part.path.name: part for part in self.parts}
        where = self.exams[["trace_file", "trace_row"]].iloc[wanted]
        signal = np.empty((len(wanted), CODE_N_SAMPLES, N_LEADS), dtype=np.float32)
        for k, (name, row) in enumerate(where.itertuples(index=False, name=None)):
            signal[k] = by_name[name].slice(row, row + 1)[0]
        return signal

    def fingerprint(self) -> str:
        """12 hex characters that stand for the content: table, ids, shapes, unit and a few traces of every part.

        Two copies of a folder have the same fingerprint, wherever and whenever they were written; only a handful of
        traces per part is read, so 66 GB cost seconds.
        """
        digest = hashlib.sha256(json.dumps([self.unit, self.mv_per_unit, self.fs_hz]).encode())
        digest.update(find_table(self.path).read_bytes())
        for part in self.parts:
            digest.update(f"{part.path.name} {len(part.ids)}".encode())
            digest.update(part.ids.astype("<i8").tobytes())
            for row in np.unique(np.linspace(0, len(part.ids) - 1, _FINGERPRINT_ROWS).astype(int)):
                digest.update(part.slice(row, row + 1).astype("<f4", copy=False).tobytes())
        return digest.hexdigest()[:12]


def open_code(folder: Path, *, mv_per_unit: float | None = None, partial: bool = False) -> CodeFolder:
    """Opens a folder in CODE format: CODE-15 %, full CODE as HDF5, or what `CodeWriter` wrote.

    Args:
        folder: Holds `exams.csv` (or `annotations.csv`) and the HDF5 parts.
        mv_per_unit: Millivolts per stored unit. By default what the files say (attribute `mv_per_unit`), else the
            0.5 of the CODE releases.
        partial: Allow exams without a trace, for example when only some parts were downloaded; they are left out.

    Returns:
        The folder; nothing but ids and shapes has been read.
    """
    table_path = find_table(folder)
    table = read_table(table_path)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".hdf5", ".h5") and path.is_file())
    if not files:
        zips = " (unzip its *.zip files first)" if any(folder.glob("*.zip")) else ""
        raise DataError(f"{folder}: no *.hdf5 part beside {table_path.name}{zips}")
    opened = [_open_part(path, mv_per_unit) for path in files]
    formats = {form for _, form in opened}
    if len(formats) > 1:
        raise DataError(f"{folder}: its parts differ in unit or mv_per_unit ({some(sorted(map(str, formats)))})")
    parts = tuple(part for part, _ in opened)
    found = _join(table, parts, table_path)
    without = len(table) - len(found)
    if without and not partial:
        missing = table["exam_id"][~table["exam_id"].isin(found["exam_id"])]
        raise DataError(
            f"{table_path}: {without} of {len(table)} exams have no trace in the HDF5 parts, for example exam_id "
            f"{some(missing)}. Add the missing parts, or open the folder with partial=True to use the other exams"
        )
    if found.empty:
        raise DataError(f"{folder}: no exam of {table_path.name} has a trace in its HDF5 parts")
    unit, factor = opened[0][1]
    n_unlisted = sum(int((part.ids != _NO_EXAM).sum()) for part in parts) - len(found)
    return CodeFolder(folder, found, unit, factor, CODE_FS_HZ, parts, without, n_unlisted)


def bad_records(signal: Signal) -> NDArray[np.str_]:
    """Why a record of (exam, sample, lead) cannot be used: "NaN" (or infinite), "all zero", or "" if it can be."""
    # The sum of a record is finite exactly when no sample is NaN or infinite: one pass, no temporary of that size.
    with np.errstate(invalid="ignore"):  # inf - inf
        finite = np.isfinite(signal.sum(axis=(1, 2), dtype=np.float64))
    reasons = np.where(signal.any(axis=(1, 2)), "", "all zero")
    return np.where(finite, reasons, "NaN")


class CodeWriter:
    """Writes a CODE-format folder; a context manager.

    Everything goes to a hidden folder beside the target and is renamed at the end. After an exception nothing is left.

    Signals are stored as float32 in the releases' unit (2 × mV), rounded to 2^-10 of it (0.49 µV, so the error is at
    most 0.25 µV) and compressed with shuffle + lzf, one record per chunk. Measured on 280 real records, one core:
    about 900 records/s and 77 kB per record, against 480/s and 65 kB with gzip, 4,000/s and 197 kB uncompressed, and
    13,000/s and 98 kB as int16 with a scale, which other CODE programs would read as numbers 1,000 times too large.

    Args:
        folder: The target; must not exist unless `overwrite`.
        unit: Unit of the signals that will be appended.
        records_per_part: Exams per HDF5 file; 20,000 in CODE-15 %.
        overwrite: Replace an existing folder, once the new one is complete.
        provenance: Where the data come from; written to `provenance.json` with the counts. May be filled until the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        unit: Unit = "mV",
        records_per_part: int = 20_000,
        overwrite: bool = False,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.unit = unit
        self.mv_per_unit = CODE_MV_PER_UNIT if unit == "mV" else 1.0
        self.records_per_part = records_per_part
        self.overwrite = overwrite
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._building = folder.parent / f".{folder.name}.writing-{os.getpid()}"
        self._tables: list[pd.DataFrame] = []
        self._ids: set[int] = set()
        self._file: h5py.File | None = None
        self._n_parts = 0

    def __enter__(self) -> Self:
        if self.folder.exists() and not self.overwrite:
            raise DataError(f"{self.folder}: exists already; delete it, choose another folder, or ask to overwrite it")
        if self.folder.exists() and not (self.folder / "exams.csv").is_file():
            raise DataError(f"{self.folder}: is not in CODE format, so it is not overwritten; choose another folder")
        if self._building.exists():  # an earlier process with our id was killed
            shutil.rmtree(self._building)
        self._building.mkdir(parents=True)
        return self

    def append(self, exams: pd.DataFrame, signal: Signal) -> None:
        """Adds exams.

        Args:
            exams: One row per exam, with `exam_id` and any other columns.
            signal: (exam, sample, lead) in the writer's unit, one row per row of `exams`.
        """
        if signal.shape != (len(exams), CODE_N_SAMPLES, N_LEADS):
            raise DataError(
                f"{self.folder}: signal has shape {signal.shape}, expected {(len(exams), CODE_N_SAMPLES, N_LEADS)}"
            )
        ids = exams["exam_id"].to_numpy(dtype=np.int64)
        repeated = [int(x) for x in ids if x in self._ids] or list(ids[pd.Series(ids).duplicated()])
        if repeated:
            raise DataError(f"{self.folder}: exam_id written twice: {some(repeated)}")
        self._ids.update(int(x) for x in ids)
        start = 0
        try:
            while start < len(ids):
                start += self._append_to_part(exams.iloc[start:], ids[start:], signal[start:])
        except OSError as error:
            raise DataError(f"{self.folder}: writing failed ({error}). Is the disk full? Nothing was kept") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
            if kind is None:
                self._finish()
        except OSError as problem:
            if kind is None:
                raise DataError(f"{self.folder}: writing failed ({problem}). Nothing was kept") from problem
        finally:
            shutil.rmtree(self._building, ignore_errors=True)

    def _append_to_part(self, exams: pd.DataFrame, ids: NDArray[np.int64], signal: Signal) -> int:
        """Writes as many exams as the current part takes; returns how many."""
        if self._file is None or len(self._file["exam_id"]) >= self.records_per_part:
            self._start_part()
        assert self._file is not None
        before = len(self._file["exam_id"])
        n = min(len(ids), self.records_per_part - before)
        for name in ("exam_id", "tracings"):
            self._file[name].resize(before + n, axis=0)
        self._file["exam_id"][before:] = ids[:n]
        self._file["tracings"][before:] = self._stored(signal[:n])
        table = exams.iloc[:n].drop(columns=["trace_row"], errors="ignore")
        self._tables.append(table.assign(trace_file=Path(self._file.filename).name))
        return n

    def _stored(self, signal: Signal) -> Signal:
        """Millivolts (or z-scores) on the grid of the stored unit; a power of two keeps the mantissas short."""
        steps = signal * np.float32(2.0**10 / self.mv_per_unit)
        np.rint(steps, out=steps)
        steps *= np.float32(2.0**-10)
        return steps

    def _start_part(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = h5py.File(self._building / f"exams_part{self._n_parts}.hdf5", "w")
        self._n_parts += 1
        self._file.create_dataset("exam_id", shape=(0,), maxshape=(None,), chunks=(4096,), dtype="<i8")
        shape = (CODE_N_SAMPLES, N_LEADS)
        tracings = self._file.create_dataset(
            "tracings",
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape),
            dtype="<f4",
            compression="lzf",
            shuffle=True,
        )
        tracings.attrs.update(unit=self.unit, mv_per_unit=self.mv_per_unit, fs_hz=CODE_FS_HZ, leads=list(LEADS))

    def _finish(self) -> None:
        if not self._tables:
            raise DataError(f"{self.folder}: no record to write")
        exams = in_release_order(pd.concat(self._tables, ignore_index=True))
        exams.to_csv(self._building / "exams.csv", index=False)
        form = {"unit": self.unit, "mv_per_unit": self.mv_per_unit, "fs_hz": CODE_FS_HZ, "leads": LEADS}
        facts = {"n_exams": len(exams), "n_parts": self._n_parts, **form, **self.provenance}
        (self._building / "provenance.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")
        replaced = self._building.with_name(f"{self._building.name}-replaced")
        if self.folder.exists():
            os.rename(self.folder, replaced)
        os.rename(self._building, self.folder)
        shutil.rmtree(replaced, ignore_errors=True)


def _open_part(path: Path, mv_per_unit: float | None) -> tuple[TracePart, tuple[Unit, float]]:
    """Ids, storage and unit of one HDF5 file; refuses what is not CODE format."""
    try:
        with h5py.File(path) as file:
            traces, ids = _dataset(file, _TRACE_NAMES), _dataset(file, _ID_NAMES)
            if traces is None:
                raise DataError(
                    f"{path}: no data set 'tracings' (or 'signal'); it has {some(sorted(file)) or 'nothing'}"
                )
            if traces.ndim != 3 or traces.shape[1:] != (CODE_N_SAMPLES, N_LEADS):
                raise DataError(
                    f"{path}: {traces.name} has shape {traces.shape}, expected (exams, {CODE_N_SAMPLES}, {N_LEADS}); "
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
            return TracePart(path, traces.name[1:], _exam_ids(ids, traces), chunk_rows, to_unit), form
    except _HDF5_ERRORS as error:
        raise _unreadable(path, str(error)) from error


def _dataset(file: h5py.File, names: Sequence[str]) -> h5py.Dataset | None:
    return next((file[name] for name in names if isinstance(file.get(name), h5py.Dataset)), None)


def _exam_ids(ids: h5py.Dataset, traces: h5py.Dataset) -> NDArray[np.int64]:
    exam_ids: NDArray[np.int64] = ids[:].astype(np.int64)
    for row in np.flatnonzero(exam_ids == 0):
        if not traces[row].any():
            exam_ids[row] = _NO_EXAM
    return exam_ids


def _form(traces: h5py.Dataset, mv_per_unit: float | None, path: Path) -> tuple[Unit, float]:
    """Unit and millivolts per stored unit: what the caller says, else what the file says, else CODE's 0.5."""
    fs_hz = float(traces.attrs.get("fs_hz", CODE_FS_HZ))
    if fs_hz != CODE_FS_HZ:
        raise DataError(f"{path}: sampled at {fs_hz:g} Hz, CODE format has {CODE_FS_HZ:g}; import it to resample")
    leads = tuple(str(lead) for lead in traces.attrs.get("leads", LEADS))
    if leads != LEADS:
        raise DataError(f"{path}: leads are {', '.join(leads)}; CODE format has {', '.join(LEADS)}")
    named = traces.attrs.get("unit", "mV")
    if named not in ("mV", "zscore"):
        raise DataError(f"{path}: attribute unit is {named!r}, expected 'mV' or 'zscore'")
    unit: Unit = "zscore" if named == "zscore" else "mV"
    if mv_per_unit is None:
        mv_per_unit = float(traces.attrs.get("mv_per_unit", 1.0 if unit == "zscore" else CODE_MV_PER_UNIT))
    return unit, mv_per_unit


def _stored_scale(traces: h5py.Dataset, path: Path) -> float:
    """Integers carry a scale to stored units; floats are stored units already."""
    if np.issubdtype(traces.dtype, np.floating):
        return 1.0
    if not np.issubdtype(traces.dtype, np.integer):
        raise DataError(f"{path}: {traces.name} has type {traces.dtype}, expected floating point or integers")
    if "scale" not in traces.attrs:
        raise DataError(f"{path}: {traces.name} has type {traces.dtype} but no attribute 'scale'; its unit is unknown")
    return float(traces.attrs["scale"])


def _join(table: pd.DataFrame, parts: Sequence[TracePart], table_path: Path) -> pd.DataFrame:
    """The exams that have a trace, with trace_file and trace_row, by ascending exam_id."""
    traces = pd.concat(
        [
            pd.DataFrame({"exam_id": part.ids, "trace_file": part.path.name, "trace_row": np.arange(len(part.ids))})
            for part in parts
        ],
        ignore_index=True,
    )
    keys = ["exam_id", "trace_file"] if "trace_file" in table.columns else ["exam_id"]
    traces = traces[traces["exam_id"].isin(table["exam_id"])]
    repeated = traces[traces.duplicated(keys)]
    if len(repeated):
        where = ", ".join(sorted(set(repeated["trace_file"])))
        raise DataError(
            f"{table_path.parent}: exam_id {some(repeated['exam_id'].unique())} has several traces ({where})"
        )
    found = table.merge(traces, on=keys, how="inner", validate="one_to_one")
    return found.sort_values("exam_id", ignore_index=True)


def _whole_chunks(part: TracePart, size: int) -> Iterator[tuple[int, int]]:
    """Row ranges that cover whole chunks, about `size` rows each."""
    step = min(-(-size // part.chunk_rows) * part.chunk_rows, max(size, _MAX_ROWS_PER_READ))
    for start in range(0, len(part.ids), step):
        yield start, min(start + step, len(part.ids))


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: cannot be read as HDF5, it is damaged or not completely downloaded ({why}). Get it again"
    )
