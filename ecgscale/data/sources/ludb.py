"""LUDB (https://physionet.org/content/ludb/): 200 records of 200 people, WFDB with header gains that must be ignored.

Reads the original `ludb.csv`, which has line breaks within its cells, or a tidied copy `labels_tidy.csv`. Knows nothing
about the wave marks.
"""

import re
from pathlib import Path

import pandas as pd

from ecgscale.data.sources.source import SourceOptions
from ecgscale.data.sources.vocabulary import LUDB_TERMS, clean_age, clean_sex
from ecgscale.data.sources.wfdb_table import (
    Rows,
    WfdbTable,
    asked_for,
    one_line_per_record,
    read_csv,
    refused_of,
    release_of,
)
from ecgscale.errors import DataError

DIGITAL_PER_MV = 1000.0
"""LUDB stores µV. Its header gains differ per lead and squeeze each to ±1; without them III = II - I holds exactly."""

# ludb.csv's columns by the tidied copy's names.
_TIDY_NAMES = {
    "ID": "id",
    "Sex": "sex",
    "Age": "age",
    "Rhythms": "rhythm",
    "Electric axis of the heart": "axis",
    "Conduction abnormalities": "conduction",
    "Extrasystolies": "extrasystole",
    "Hypertrophies": "hypertrophy",
    "Cardiac pacing": "pacing",
    "Ischemia": "ischemia",
    "Non-specific repolarization abnormalities": "repol",
    "Other states": "other",
}
_NEEDED = ("id", "sex", "age", "rhythm", "conduction")


def looks_like_ludb(folder: Path) -> bool:
    """Whether one of the tables is beside a folder `data`."""
    return _table_of(folder) is not None and (folder / "data").is_dir()


def open_ludb(folder: Path, options: SourceOptions) -> WfdbTable:
    """Opens LUDB in µV; with `options.as_declared` in what its headers declare to be mV, and is not.

    Raises:
        DataError: There is no table, or it lacks columns.
    """
    path = _table_of(folder)
    if path is None:
        raise DataError(f"{folder}: no ludb.csv (or labels_tidy.csv) beside data/")
    original = path.name == "ludb.csv"
    table = read_csv(path, [name for name in _TIDY_NAMES if _TIDY_NAMES[name] in _NEEDED] if original else _NEEDED)
    table, refused = one_line_per_record(table.rename(columns=_TIDY_NAMES), "id", path.name)
    table = asked_for(table, "id", options.records)
    names = [str(x) for x in table["id"]]
    return WfdbTable(
        kind="ludb",
        folder=folder,
        names=names,
        paths=[f"data/{name}" for name in names],
        rows=Rows(_rows(table)),
        digital_per_mv=None if options.as_declared else DIGITAL_PER_MV,
        version=release_of(folder),
        changed=() if options.as_declared else ("header gains ignored: digital samples are µV", "age '>89' set to 90"),
        refused=refused_of(refused, options.records),
        advice=("the header gains differ per lead and are not those of mV; the import ignores them: samples are µV",),
    )


def _table_of(folder: Path) -> Path | None:
    return next((folder / x for x in ("ludb.csv", "labels_tidy.csv") if (folder / x).is_file()), None)


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    terms = {column: [_terms(cell) for cell in table[column]] for column in ("rhythm", "conduction")}
    words = [name for name in _TIDY_NAMES.values() if name not in ("id", "sex", "age") and name in table.columns]
    return pd.DataFrame(
        {
            "exam_id": table["id"],
            "patient_id": table["id"],
            "age": [clean_age(x) for x in table["age"]],
            "is_male": pd.Series([clean_sex(x) for x in table["sex"]], dtype=object),
            **{
                label: [term in found for found in (set(map(str.lower, x)) for x in terms[column])]
                for label, (column, term) in LUDB_TERMS.items()
            },
            **{name: ["; ".join(_terms(cell)) for cell in table[name]] for name in words},
        }
    )


def _terms(cell: object) -> list[str]:
    """The entries of a cell, which separates several by line breaks (original) or by ' ; ' (tidied)."""
    return [] if pd.isna(cell) else [x for x in re.split(r"\s*[;\n]\s*", str(cell).strip()) if x]  # type: ignore[call-overload]
