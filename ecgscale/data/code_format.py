"""CODE format in and out: `*.hdf5` parts of (exam, 4096 samples, 12 leads) at 400 Hz beside an `exams.csv`.

Reading joins table and traces on `exam_id`, never on row numbers, and hands out signals in millivolts (or z-scores).
Writing makes a folder that other CODE-15 % programs read, or nothing: a half-written folder never carries the name.
Every other source is converted to this format first (`ecgscale.data.importing`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgscale.conventions import CODE_FS_HZ, LEADS
from ecgscale.data.exams_table import find_table, in_release_order, read_table, some
from ecgscale.data.trace_part import (
    NO_EXAM,
    SHAPE,
    PartWriter,
    Signal,
    TracePart,
    Unit,
    compressed,
    mv_per_stored_unit,
    open_part,
    to_stored,
)
from ecgscale.errors import DataError

__all__ = [
    "RECORDS_PER_PART",
    "CodeFolder",
    "CodeWriter",
    "Signal",
    "TracePart",
    "Unit",
    "bad_records",
    "open_code",
    "publish",
    "require_free",
]

RECORDS_PER_PART = 20_000
"""Exams per HDF5 file, as in CODE-15 %."""

# Rows per read when a chunk holds many records (h5py's automatic chunks span 125): a chunk is decompressed once per
# read that touches it, so reads cover whole chunks. 1,024 float32 records are 200 MB, our limit for one read.
_MAX_ROWS_PER_READ = 1024
_FINGERPRINT_ROWS = 8


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

    @property
    def slow_random_access(self) -> str:
        """Why nobody should train from these files directly (see `TracePart`); empty if nothing is against it."""
        return next((part.slow_random_access for part in self.parts if part.slow_random_access), "")

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
        signal = np.empty((len(wanted), *SHAPE), dtype=np.float32)
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
    opened = [open_part(path, mv_per_unit) for path in files]
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
    n_unlisted = sum(int((part.ids != NO_EXAM).sum()) for part in parts) - len(found)
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
    Signals are rounded by at most 0.25 µV and compressed (see `trace_part.compressed`).

    Args:
        folder: The target; must not exist unless `overwrite`.
        unit: Unit of the signals that will be appended.
        records_per_part: Exams per HDF5 file.
        overwrite: Replace an existing folder, once the new one is complete.
        provenance: Where the data come from; written to `provenance.json` with the counts. May be filled until the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        unit: Unit = "mV",
        records_per_part: int = RECORDS_PER_PART,
        overwrite: bool = False,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.unit = unit
        self.records_per_part = records_per_part
        self.overwrite = overwrite
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._building = folder.parent / f".{folder.name}.writing-{os.getpid()}"
        self._tables: list[pd.DataFrame] = []
        self._ids: set[int] = set()
        self._part: PartWriter | None = None
        self._n_parts = 0

    def __enter__(self) -> Self:
        require_free(self.folder, overwrite=self.overwrite)
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
        if signal.shape != (len(exams), *SHAPE):
            raise DataError(f"{self.folder}: signal has shape {signal.shape}, expected {(len(exams), *SHAPE)}")
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
            if self._part is not None and kind is not None:
                self._part.abandon()
            elif self._part is not None:
                self._part.close()
            if kind is None:
                self._finish()
        except OSError as problem:
            if kind is None:
                raise DataError(f"{self.folder}: writing failed ({problem}). Nothing was kept") from problem
        finally:
            shutil.rmtree(self._building, ignore_errors=True)

    def _append_to_part(self, exams: pd.DataFrame, ids: NDArray[np.int64], signal: Signal) -> int:
        """Writes as many exams as the current part takes; returns how many."""
        if self._part is None or len(self._part) >= self.records_per_part:
            if self._part is not None:
                self._part.close()
            self._part = PartWriter(self._building / f"exams_part{self._n_parts}.hdf5", self.unit)
            self._n_parts += 1
        n = min(len(ids), self.records_per_part - len(self._part))
        self._part.append(ids[:n], [compressed(stored) for stored in to_stored(signal[:n], self.unit)])
        table = exams.iloc[:n].drop(columns=["trace_row"], errors="ignore")
        self._tables.append(table.assign(trace_file=self._part.path.name))
        return n

    def _finish(self) -> None:
        if not self._tables:
            raise DataError(f"{self.folder}: no record to write")
        exams = pd.concat(self._tables, ignore_index=True)
        publish(self._building, self.folder, exams, unit=self.unit, provenance=self.provenance)


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raises DataError unless `folder` can be written: it does not exist, or is one of ours and may be replaced."""
    if folder.exists() and not overwrite:
        raise DataError(f"{folder}: exists already; delete it, choose another folder, or ask to overwrite it")
    if folder.exists() and not (folder / "exams.csv").is_file():
        raise DataError(f"{folder}: is not in CODE format, so it is not overwritten; choose another folder")


def publish(building: Path, folder: Path, exams: pd.DataFrame, *, unit: Unit, provenance: Mapping[str, Any]) -> None:
    """Gives a folder of finished parts its table, its provenance and, last, its name.

    Args:
        building: Holds the parts, on the same disk as `folder`; is renamed to it.
        folder: The target; an existing one is replaced.
        exams: One row per trace, with `trace_file`.
        unit: Unit of the signals.
        provenance: Where the data come from.
    """
    exams = in_release_order(exams)
    exams.to_csv(building / "exams.csv", index=False)
    n_parts = exams["trace_file"].nunique()
    form = {"unit": unit, "mv_per_unit": mv_per_stored_unit(unit), "fs_hz": CODE_FS_HZ, "leads": LEADS}
    facts = {"n_exams": len(exams), "n_parts": n_parts, **form, **provenance}
    (building / "provenance.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")
    replaced = folder.parent / f".{folder.name}.replaced-{os.getpid()}"
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(folder, replaced)
    os.rename(building, folder)
    for former in folder.parent.glob(f".{escape(folder.name)}.replaced-*"):  # also of a process that was killed here
        shutil.rmtree(former, ignore_errors=True)


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
