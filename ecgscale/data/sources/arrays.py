"""Plain HDF5 and npy arrays: what such files don't say (axes, rate, unit, leads) the user declares in an `ArrayLayout`.

Nothing is guessed. Arrays that can't be what was declared (another number of leads, whole numbers called millivolts,
as many rows as the table has no lines) are refused before anything is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import LEADS
from ecgscale.data.exams_table import normal_table, read_csv, some
from ecgscale.data.sources.source import ArrayLayout, Refused, Source, SourceOptions
from ecgscale.data.sources.stored_rows import (
    Numbered,
    StoredArray,
    StoredRows,
    dataset_array,
    matching,
    open_hdf5,
    open_npy,
    refuse_repeated,
    row_sizes,
)
from ecgscale.data.sources.vocabulary import exam_ids
from ecgscale.errors import DataError

_ENDINGS = (".hdf5", ".h5", ".npy")
_MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "µV": 1e-3, "V": 1e3, "digital": 1.0, "zscore": 1.0}
_Ids = NDArray[np.int64]


def looks_like_arrays(folder: Path) -> bool:
    """An HDF5 or npy file, or a folder of them; whether a layout fits them is not asked."""
    return bool(_files(folder))


def open_arrays(source: Path, options: SourceOptions) -> Source:
    """Opens plain arrays.

    Several files are read in the order of their names (2 before 10) as if they were one array. Without a record axis
    every file is a record, named like the file.

    With `layout.ids` exams and table are joined on exam_id. Without, row i is line i of the table, so the numbers must
    agree; a file that is a record is matched to the table's column `record`, or to exam_id if its name is a number.

    Args:
        source: The folder, or a single file.
        options: `layout` is required; `records` is matched with exam ids or file names.

    Raises:
        DataError: The layout contradicts itself or the files, or nothing can be read.
    """
    layout = options.layout
    files = _files(source)
    if layout is None or not files:
        what = "no *.hdf5, *.h5 or *.npy file" if not files else "arrays don't say what they hold"
        raise DataError(f"{source}: {what}; declare at least a sampling rate, and axes, unit and leads where needed")
    axes, to_unit = _declared(layout)
    arrays, ids, damaged = _open_all(files, layout, axes, to_unit)
    table = _table(source if source.is_dir() else source.parent, layout)
    array_of = np.repeat(np.arange(len(arrays)), [array.n_rows for array in arrays])
    row_of = np.concatenate([np.arange(array.n_rows) for array in arrays])
    if "record" not in axes:
        stems = [array.path.stem for array in arrays]
        if twice := sorted({x for x, y in pairwise(sorted(stems)) if x == y}):
            raise DataError(f"{source}: several files are called {some(twice)}; every file is one record here")
        exams, refused = _exams_of_files(stems, table)
        names: Sequence[str] = list(exams["record"])
    else:
        exams, refused = _exams_by_line(len(row_of), table) if ids is None else _exams_by_id(ids, table)
        names = Numbered(exams["exam_id"].to_numpy())
    wanted = np.flatnonzero(matching(names, options.records))
    if len(wanted) == 0:
        raise DataError(f"{source}: no record that can be used matches {options.records!r}")
    place = exams.index.to_numpy(dtype=np.int64)[wanted]
    return StoredRows(
        kind="arrays",
        names=[names[int(k)] for k in wanted],
        arrays=tuple(arrays),
        array_of=array_of[place],
        row_of=row_of[place],
        exams=exams.iloc[wanted],
        leads=layout.leads or LEADS,
        fs_hz=layout.fs_hz,
        unit="zscore" if layout.unit == "zscore" else "mV",
        changed=(f"declared: axes {layout.axes}, {layout.fs_hz:g} Hz, unit {layout.unit}, scale {layout.scale:g}",),
        refused=(*damaged, *refused),
    )


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix in _ENDINGS else []
    found = (path for path in source.glob("*") if path.suffix in _ENDINGS and path.is_file())
    return sorted(found, key=lambda path: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)])


def _declared(layout: ArrayLayout) -> tuple[tuple[str, ...], float]:
    """The axes, and the factor from stored numbers to mV (or z-scores)."""
    axes = tuple(axis.strip() for axis in layout.axes.split(","))
    named = [axis for axis in axes if axis != "1"]
    if sorted(named) not in (["lead", "record", "time"], ["lead", "time"]):
        raise DataError(
            f"layout: axes are {layout.axes!r}; expected time and lead, record unless every file is one, and a 1 for "
            "every axis of length 1, for example 'record,1,time,lead'"
        )
    if not (math.isfinite(layout.fs_hz) and layout.fs_hz > 0):
        raise DataError(f"layout: sampling rate is {layout.fs_hz:g} Hz; expected a number above 0")
    if layout.unit not in _MV_PER_UNIT:
        raise DataError(f"layout: unit is {layout.unit!r}; expected one of {', '.join(_MV_PER_UNIT)}")
    if not (math.isfinite(layout.scale) and layout.scale != 0):
        raise DataError(f"layout: scale is {layout.scale}; expected a number other than 0")
    if layout.unit == "digital" and layout.scale == 1.0:
        raise DataError("layout: unit is digital; say with scale how many mV one step is, for example 0.001")
    return axes, layout.scale * _MV_PER_UNIT[layout.unit]


def _open_all(
    files: Sequence[Path], layout: ArrayLayout, axes: tuple[str, ...], to_unit: float
) -> tuple[list[StoredArray], _Ids | None, list[Refused]]:
    """The arrays and their ids. A damaged file is refused, unless that would shift the rows of the next ones."""
    arrays, ids, damaged = [], [], []
    for path in files:
        try:
            array, own_ids = _open_array(path, layout, axes, to_unit)
        except DataError as error:
            if "record" in axes and layout.ids is None:
                raise
            damaged.append(Refused(path.stem, str(error).removeprefix(f"{path.parent}/")))
        else:
            arrays.append(array)
            ids.append(own_ids)
    if not arrays:
        raise DataError(f"{files[0].parent}: no file can be used; {damaged[0].reason}")
    return arrays, None if layout.ids is None else np.concatenate(ids), damaged


def _open_array(path: Path, layout: ArrayLayout, axes: tuple[str, ...], to_unit: float) -> tuple[StoredArray, _Ids]:
    """An array and its exam ids, which are empty if none are declared."""
    if path.suffix == ".npy":
        if layout.ids is not None:
            raise DataError(f"{path}: layout names an array of ids ({layout.ids}), which only HDF5 files can have")
        array = open_npy(path)
        _require_fit(array, layout, axes, path)
        return StoredArray(path, axes, *row_sizes(array, axes), 1, to_unit), np.empty(0, np.int64)
    with open_hdf5(path) as file:
        name = layout.dataset or _only_dataset(file, len(axes), path)
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"{path}: no array {name!r}; it has {some(sorted(file)) or 'nothing'}")
        _require_fit(dataset, layout, axes, path)
        stored = dataset_array(file, name, path, None, axes, to_unit)
        return stored, np.empty(0, np.int64) if layout.ids is None else _own_ids(file, layout.ids, stored.n_rows, path)


def _only_dataset(file: h5py.File, n_axes: int, path: Path) -> str:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.ndim == n_axes else None
    )
    if len(names) != 1:
        found = f"{some(sorted(names))}; name the right one" if names else "none"
        raise DataError(f"{path}: expected one array with {n_axes} axes, found {found}")
    return names[0]


def _require_fit(array: h5py.Dataset | NDArray[Any], layout: ArrayLayout, axes: tuple[str, ...], path: Path) -> None:
    """Refuses an array that can't be what was declared."""
    leads = layout.leads or LEADS
    if array.ndim != len(axes):
        raise DataError(f"{path}: has shape {array.shape}, but {len(axes)} axes are declared ({layout.axes})")
    for n, axis in zip(array.shape, axes, strict=True):
        if axis == "1" and n != 1:
            raise DataError(f"{path}: has shape {array.shape}; the axis declared as 1 has length {n} ({layout.axes})")
        if axis == "lead" and n != len(leads):
            raise DataError(f"{path}: has shape {array.shape}; the lead axis has length {n}, not {len(leads)}")
        if n == 0:
            raise DataError(f"{path}: has shape {array.shape}, no {axis}")
    if array.dtype.kind in "iu":
        if layout.unit in ("mV", "V") and layout.scale == 1.0:
            raise DataError(
                f"{path}: holds whole numbers ({array.dtype}), which can't be {layout.unit}; "
                "declare the unit digital and its scale, or uV"
            )
    elif array.dtype.kind != "f":
        raise DataError(f"{path}: has type {array.dtype}, expected numbers")


def _own_ids(file: h5py.File, name: str, n_rows: int, path: Path) -> _Ids:
    ids = file.get(name)
    if not isinstance(ids, h5py.Dataset) or ids.shape != (n_rows,) or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"{path}: expected {n_rows} whole numbers in the array of ids {name!r}")
    return np.asarray(ids[:], dtype=np.int64)


_Table = tuple[Path, pd.DataFrame]


def _table(folder: Path, layout: ArrayLayout) -> _Table | None:
    """The csv that is named, or else the only one."""
    found = [folder / layout.table] if layout.table else sorted(folder.glob("*.csv"))
    if len(found) > 1:
        raise DataError(f"{folder}: has several tables ({some([path.name for path in found])}); name one in the layout")
    return (found[0], read_csv(found[0]).rename(columns={"id_exam": "exam_id"})) if found else None


def _exams_by_line(n: int, table: _Table | None) -> tuple[pd.DataFrame, list[Refused]]:
    """Row i is line i; the index of the exams is the row."""
    if table is None:
        return _without_table(np.arange(n)), []
    path, lines = table
    if len(lines) != n:
        raise DataError(
            f"{path}: has {len(lines)} lines for {n} recordings. Without ids row i must be line i, so the numbers must "
            "agree; declare an array of ids, or another table"
        )
    if "exam_id" not in lines.columns:
        lines = lines.assign(exam_id=np.arange(n))
    return refuse_repeated(normal_table(lines, path, repeated=True), path)


def _exams_by_id(ids: _Ids, table: _Table | None) -> tuple[pd.DataFrame, list[Refused]]:
    if table is None:
        several = pd.Series(ids).duplicated(keep=False).to_numpy()
        refused = [Refused(str(x), "has several recordings") for x in np.unique(ids[several])]
        return _without_table(ids)[~several], refused
    path, lines = table
    return _joined(pd.Series(ids), "exam_id", normal_table(lines, path, repeated=True), path)


def _exams_of_files(names: list[str], table: _Table | None) -> tuple[pd.DataFrame, list[Refused]]:
    if table is None:
        return _without_table(np.array(exam_ids(names))).assign(record=names), []
    path, lines = table
    if "record" in lines.columns:
        lines = lines.astype({"record": str})
        if "exam_id" not in lines.columns:
            lines = lines.assign(exam_id=exam_ids(list(lines["record"])))
        return _joined(pd.Series(names), "record", normal_table(lines, path, repeated=True), path)
    if "exam_id" not in lines.columns or not all(re.fullmatch(r"\d{1,15}", name) for name in names):
        raise DataError(
            f"{path}: which line belongs to which file? Add a column record with the file names without their ending, "
            "or call the files like their exam_id"
        )
    numbers = pd.Series([int(name) for name in names])
    exams, refused = _joined(numbers, "exam_id", normal_table(lines, path, repeated=True), path)
    return exams.assign(record=[names[k] for k in exams.index]), refused


def _without_table(ids: _Ids) -> pd.DataFrame:
    return pd.DataFrame({"exam_id": ids, "patient_id": ids, "age": np.nan, "is_male": None})


def _joined(keys: pd.Series, column: str, lines: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[Refused]]:
    """The lines of the recordings with these keys, by recording; what is there twice or on one side only is refused."""
    in_table, in_arrays = lines[column].value_counts(), keys.value_counts()

    def why_not(key: object) -> str:
        n_lines, n_recordings = int(in_table.get(key, 0)), int(in_arrays.get(key, 0))
        if n_lines == 1 and n_recordings == 1:
            return ""
        if n_lines > 1:
            return f"{column} stands on {n_lines} lines of {path.name}"
        return (
            "has several recordings"
            if n_recordings > 1
            else f"no line in {path.name}"
            if not n_lines
            else "no recording"
        )

    reasons = {key: why_not(key) for key in dict.fromkeys([*keys, *lines[column]])}
    refused = [Refused(str(key), why) for key, why in reasons.items() if why]
    good = keys[[not reasons[key] for key in keys]]
    exams, repeated = refuse_repeated(lines[lines[column].isin(good)], path)
    found = good.rename(column).to_frame().join(exams.set_index(column), on=column, how="inner")
    return found, refused + repeated
