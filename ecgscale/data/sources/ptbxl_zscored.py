"""PTB-XL in z-scores: one int16 HDF5 array beside `labels.csv`, 0.5-40 Hz, every lead scaled to standard deviation 1.

Millivolts and the relations between leads are lost, so nothing is ever derived from this set. Folds 1-8 are the
training set, fold 9 the held-out test set; PTB-XL's folds keep a patient together.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.exams_table import normal_table, read_csv, some
from ecgscale.data.sources.source import Refused, Source, SourceOptions
from ecgscale.data.sources.stored_rows import (
    Numbered,
    StoredArray,
    StoredRows,
    dataset_array,
    matching,
    open_hdf5,
    refuse_repeated,
)
from ecgscale.errors import DataError

_TABLE = "labels.csv"
_COLUMNS = ("ecg_id", "split", "strat_fold", "age", "is_male", *CODE_LABELS)
_AXES = ("record", "time", "lead")


def looks_like_ptbxl_zscored(folder: Path) -> bool:
    """`labels.csv` beside an HDF5 file."""
    return (folder / _TABLE).is_file() and _array_file(folder) is not None


def open_ptbxl_zscored(folder: Path, options: SourceOptions) -> Source:
    """Opens the set.

    Args:
        folder: Holds `labels.csv` and the HDF5 file.
        options: Only `records` matters.

    Raises:
        DataError: The table or the array is missing, damaged, or has no scale, rate or leads.
    """
    path = _array_file(folder)
    if path is None:
        raise DataError(f"{folder}: no *.h5 beside {_TABLE}")
    exams, repeated = refuse_repeated(_exams(folder / _TABLE), folder / _TABLE)
    array, ids, leads, fs_hz = _open_array(path)
    exams = exams[matching(Numbered(exams["exam_id"].to_numpy()), options.records)]
    if exams.empty:
        raise DataError(f"{folder / _TABLE}: no ecg_id matches {options.records!r}")
    rows = exams["exam_id"].map(pd.Series(np.arange(len(ids)), index=ids))
    lost = [Refused(str(x), f"no trace with its ecg_id in {path.name}") for x in exams["exam_id"][rows.isna()]]
    exams = exams.assign(row=rows).dropna(subset="row").sort_values("row", ignore_index=True)
    return StoredRows(
        kind="ptbxl-zscored",
        names=Numbered(exams["exam_id"].to_numpy()),
        arrays=(array,),
        array_of=np.zeros(len(exams), dtype=np.int64),
        row_of=exams.pop("row").to_numpy(dtype=np.int64),
        exams=exams,
        leads=leads,
        fs_hz=fs_hz,
        unit="zscore",
        changed=(
            "patient unknown: every record counts as its own patient (the folds keep patients apart)",
            "split: folds 1-8 are train, fold 9 (val) is the held-out test",
        ),
        refused=(*repeated, *lost),
    )


def _array_file(folder: Path) -> Path | None:
    return next(iter(sorted([*folder.glob("*.h5"), *folder.glob("*.hdf5")])), None)


def _exams(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise DataError(f"{path}: no column {some(missing)}")
    split = np.where(table["split"] == "train", "train", "test")
    wanted = [*_COLUMNS, *(name for name in ("dx",) if name in table.columns)]
    return normal_table(table[wanted].assign(split=split).rename(columns={"ecg_id": "exam_id"}), path, repeated=True)


def _open_array(path: Path) -> tuple[StoredArray, NDArray[np.int64], tuple[str, ...], float]:
    """The array, its ids, its leads and its rate."""
    with open_hdf5(path) as file:
        traces, ids = file["tracings"], file["exam_id"][:]
        if (
            not isinstance(traces, h5py.Dataset)
            or traces.ndim != 3
            or ids.shape != traces.shape[:1]
            or not np.issubdtype(ids.dtype, np.integer)
        ):
            raise DataError(f"{path}: tracings must be (records, time, lead) with as many whole numbers in exam_id")
        if pd.Series(ids).duplicated().any():
            raise DataError(f"{path}: exam_id holds {some(ids[pd.Series(ids).duplicated()])} more than once")
        leads = tuple(str(lead) for lead in traces.attrs["leads"])
        if len(leads) != traces.shape[2]:
            raise DataError(f"{path}: names {len(leads)} leads for {traces.shape[2]} columns")
        array = dataset_array(file, "tracings", path, None, _AXES, float(traces.attrs["scale"]))
        return array, ids, leads, float(traces.attrs["fs"])
