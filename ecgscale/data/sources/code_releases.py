"""The CODE family as it is downloaded: CODE-15 % (HDF5 parts or their zips beside `exams.csv`) and full CODE as HDF5.

Table and traces are joined on `exam_id` and, where the table names it, on the trace file. A part that is missing or
damaged costs its own exams only, each refused with that reason.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import CODE_FS_HZ, LEADS
from ecgscale.data.exams_table import TABLE_NAMES, find_table, normal_table, read_csv, some
from ecgscale.data.sources.code_positional import looks_like_sami_trop
from ecgscale.data.sources.source import Refused, Source, SourceOptions, Unit
from ecgscale.data.sources.stored_rows import (
    Numbered,
    StoredArray,
    StoredRows,
    dataset_array,
    matching,
    open_hdf5,
    refuse_repeated,
)
from ecgscale.data.sources.zip_member import ZipMember
from ecgscale.data.trace_part import HDF5_DAMAGE, NO_EXAM, part_in
from ecgscale.errors import DataError

_HDF5_ENDINGS = (".hdf5", ".h5")

# Checking a zip is inflating it, about 250 MB/s per thread; more threads than this would wait for the disk.
_MOST_THREADS = 8


@dataclass(frozen=True, eq=False)
class _Part:
    """A part that can be read. `trace_file` is the HDF5 file's name, which the table uses, also for a zipped part."""

    trace_file: str
    array: StoredArray
    ids: NDArray[np.int64]
    unit: Unit
    mv_per_unit: float
    advice: str


def looks_like_code(folder: Path) -> bool:
    """A table beside HDF5 files or their zips, here or in the only subfolder that has them; SaMi-Trop has neither."""
    return bool(_code_folders(folder))


def open_code_release(folder: Path, options: SourceOptions) -> Source:
    """Opens CODE-15 %, full CODE as HDF5, or any folder in CODE format.

    Zipped parts are read within their zips. Opening inflates each once to check it, at about 250 MB/s per thread: some
    16 s for a part of 4 GB.

    Args:
        folder: Holds `exams.csv` (or `annotations.csv`) and the parts, or has one subfolder that does.
        options: `mv_per_unit` replaces what the files say or, where they say nothing, the releases' 0.5;
            `as_declared` takes the READMEs' word that releases are in mV.

    Raises:
        DataError: There is no table, it can't be understood, or no part can be read.
    """
    folders = _code_folders(folder)
    if len(folders) > 1:
        raise DataError(f"{folder}: holds several CODE folders ({some([x.name for x in folders])}); name one of them")
    folder = folders[0] if folders else folder
    table_path = find_table(folder)
    table = normal_table(read_csv(table_path), table_path, repeated=True)
    parts, damaged = _open_parts(folder, options)
    if not parts:
        raise DataError(f"{folder}: no part can be read; {next(iter(damaged.values()), 'there is none')}")
    forms = {(part.unit, part.mv_per_unit) for part in parts}
    if len(forms) > 1:
        raise DataError(f"{folder}: its parts differ in unit or mv_per_unit ({some(sorted(map(str, forms)))})")
    unit, mv_per_unit = forms.pop()
    changed = _changed(unit, mv_per_unit, parts, table)
    table = table[matching(Numbered(table["exam_id"].to_numpy()), options.records)]
    if table.empty:
        raise DataError(f"{table_path}: no exam_id matches {options.records!r}")
    once, repeated = refuse_repeated(table, table_path)
    exams, lost = _join(once, parts, damaged)
    return StoredRows(
        kind="code",
        names=Numbered(exams["exam_id"].to_numpy()),
        arrays=tuple(part.array for part in parts),
        array_of=exams.pop("array").to_numpy(dtype=np.int64),
        row_of=exams.pop("row").to_numpy(dtype=np.int64),
        exams=exams.drop(columns="trace_file", errors="ignore"),
        leads=LEADS,
        fs_hz=CODE_FS_HZ,
        unit=unit,
        changed=changed,
        refused=(*repeated, *lost),
        advice=tuple(part.advice for part in parts if part.advice)[:1],
    )


def _code_folders(folder: Path) -> list[Path]:
    """The folder itself, or else those of its subfolders that are in CODE format."""

    def is_one(folder: Path) -> bool:
        has_table = any((folder / name).is_file() for name in TABLE_NAMES)
        return has_table and bool(_part_files(folder)) and not looks_like_sami_trop(folder)

    if not folder.is_dir():
        return []
    below = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    return [folder] if is_one(folder) else [path for path in below if is_one(path)]


def _part_files(folder: Path) -> list[Path]:
    """HDF5 files and zips in the order of their numbers; a zip is left out where its HDF5 file is there too."""
    files = [path for path in folder.iterdir() if path.suffix in (*_HDF5_ENDINGS, ".zip") and path.is_file()]
    unzipped = {path.stem for path in files if path.suffix != ".zip"}
    files = [path for path in files if path.suffix != ".zip" or path.stem not in unzipped]
    return sorted(files, key=lambda path: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)])


def _open_parts(folder: Path, options: SourceOptions) -> tuple[list[_Part], dict[str, str]]:
    """The parts that can be read, and for every one that can't be, why; by the trace file's name."""
    found: list[tuple[Path, str | None]] = []
    damaged: dict[str, str] = {}
    for path in _part_files(folder):
        try:
            found += [(path, member) for member in _hdf5_members(path)] if path.suffix == ".zip" else [(path, None)]
        except DataError as error:
            damaged[path.with_suffix(".hdf5").name] = str(error)

    def opened(found: tuple[Path, str | None]) -> _Part | DataError:
        try:
            return _open_part(*found, options)
        except DataError as error:
            return error

    with ThreadPoolExecutor(min(_MOST_THREADS, max(1, len(found)))) as pool:
        results = list(zip(found, pool.map(opened, found), strict=True))
    parts = [part for _, part in results if isinstance(part, _Part)]
    damaged |= {_trace_file(*where): str(error) for where, error in results if isinstance(error, DataError)}
    return parts, {name: why.removeprefix(f"{folder}/") for name, why in damaged.items()}


def _hdf5_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a zip, it is damaged or not completely downloaded ({error}). Get it again"
        ) from error
    return [x for x in names if x.endswith(_HDF5_ENDINGS) and not x.startswith("__MACOSX/")]


def _open_part(path: Path, member: str | None, options: SourceOptions) -> _Part:
    if member is None:
        with open_hdf5(path) as file:
            return _part(file, path, None, options)
    try:
        with ZipMember(path, member) as packed:
            packed.check()
            with h5py.File(packed, "r") as file:
                return _part(file, path, member, options)
    except HDF5_DAMAGE as error:
        raise DataError(f"{path}: {error}. Get it again") from error


def _part(file: h5py.File, path: Path, member: str | None, options: SourceOptions) -> _Part:
    part, (unit, mv_per_unit) = part_in(file, path, options.mv_per_unit)
    to_unit = part.to_unit
    silent = unit == "mV" and "mv_per_unit" not in file[part.trace_name].attrs
    if options.as_declared and options.mv_per_unit is None and silent:
        to_unit, mv_per_unit = to_unit / mv_per_unit, 1.0
    array = dataset_array(file, part.trace_name, path, member, ("record", "time", "lead"), to_unit)
    return _Part(_trace_file(path, member), array, part.ids, unit, mv_per_unit, part.slow_random_access)


def _trace_file(path: Path, member: str | None) -> str:
    return path.name if member is None else PurePosixPath(member).name


def _changed(unit: Unit, mv_per_unit: float, parts: Sequence[_Part], table: pd.DataFrame) -> tuple[str, ...]:
    ids = np.concatenate([part.ids for part in parts])
    empty = int((ids == NO_EXAM).sum())
    unlisted = int((~np.isin(ids[ids != NO_EXAM], table["exam_id"].to_numpy())).sum())
    said = {
        f"stored amplitudes × {mv_per_unit:g} are mV": unit == "mV",
        f"{empty} all-zero rows with exam_id 0 left out": empty > 0,
        f"{unlisted} traces that the table does not list left out": unlisted > 0,
    }
    return tuple(words for words, true in said.items() if true)


def _join(exams: pd.DataFrame, parts: Sequence[_Part], damaged: dict[str, str]) -> tuple[pd.DataFrame, list[Refused]]:
    """The exams that have one trace, with `array` and `row`, in reading order; the others are refused."""
    of_parts = [
        pd.DataFrame({"exam_id": part.ids, "trace_file": part.trace_file, "array": k, "row": np.arange(len(part.ids))})
        for k, part in enumerate(parts)
    ]
    traces = pd.concat(of_parts, ignore_index=True)
    traces = traces[traces["exam_id"].isin(exams["exam_id"]) & (traces["exam_id"] != NO_EXAM)]
    keys = ["exam_id", "trace_file"] if "trace_file" in exams.columns else ["exam_id"]
    twice = traces.duplicated(keys, keep=False)
    several = set(traces["exam_id"][twice])
    found = exams.merge(traces.loc[~twice, [*keys, "array", "row"]], on=keys, how="left")
    found = found.sort_values(["array", "row"], ignore_index=True)
    lost = found[found["array"].isna()]
    files = lost["trace_file"] if "trace_file" in lost.columns else [None] * len(lost)
    readable = {part.trace_file for part in parts}
    refused = [
        Refused(str(exam_id), "has several traces" if exam_id in several else _why_lost(file, readable, damaged))
        for exam_id, file in zip(lost["exam_id"], files, strict=True)
    ]
    return found[found["array"].notna()].reset_index(drop=True), refused


def _why_lost(file: object, readable: set[str], damaged: dict[str, str]) -> str:
    if file is None:
        lost = f" (and {some(sorted(damaged))} can't be read)" if damaged else ""
        return f"no part has a trace with its exam_id{lost}"
    if not isinstance(file, str):
        return "its line names no trace_file"
    if file in damaged:
        return damaged[file]
    return f"no trace with its exam_id in {file}" if file in readable else f"{file} is not there, nor its zip"
