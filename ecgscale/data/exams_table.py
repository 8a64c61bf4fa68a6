"""The table beside the signals: reads `exams.csv` (CODE-15 %) or `annotations.csv` (full CODE) into one set of columns.

Every table that leaves this module has `exam_id`, `patient_id`, `age` and `is_male`, boolean labels and one row per
exam; what else the file holds is passed through. It knows nothing about signals.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.conventions import CODE_LABELS
from ecgscale.errors import DataError

TABLE_NAMES = ("exams.csv", "annotations.csv")

# The full CODE release and the group's older exports call the same things by other names.
_OTHER_NAMES = {"id_exam": "exam_id", "id_patient": "patient_id"}

# The column order of the CODE-15 % release; files in the wild are sometimes read by position.
RELEASE_ORDER = (
    *("exam_id", "age", "is_male", "nn_predicted_age", "1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"),
    *("patient_id", "death", "timey", "normal_ecg", "trace_file"),
)

_LARGEST_ID = 2**53
"""Above this a number with a decimal point, which pandas makes of a column with gaps, is not exact any more."""

_TRUE, _FALSE = {"true", "1", "1.0", "t"}, {"false", "0", "0.0", "f"}
_MALE, _FEMALE = {"m", "male", "1", "1.0"}, {"f", "female", "0", "0.0"}


def find_table(folder: Path) -> Path:
    """The exam table of a CODE-format folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for name in TABLE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder}: no exams.csv (or annotations.csv); a CODE-format folder has one beside its *.hdf5 parts"
    )


def read_table(path: Path) -> pd.DataFrame:
    """Reads and normalises an exam table.

    Args:
        path: `exams.csv` or `annotations.csv`.

    Returns:
        One row per exam in the order of the file: `exam_id` (int64, unique), `patient_id`, `age` (float, years, NaN
        where empty; codes such as 300 are kept), `is_male` (nullable boolean), the CODE labels that the file has
        (bool), and every other column as it is. Without a `patient_id` column every exam is its own patient.
    """
    return normal_table(read_csv(path), path)


def read_csv(path: Path) -> pd.DataFrame:
    """A csv as it is."""
    try:
        return parsed_csv(path)
    except (OSError, ValueError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise DataError(f"{path}: cannot be read as a csv: {str(error).strip()}") from error


def parsed_csv(path: Path, **how: Any) -> pd.DataFrame:
    """A csv by `pandas.read_csv`, which by itself moves the names by a column where lines are longer than the header.

    Raises:
        DataError: Lines have more fields than the header; commas at their ends do not count.
        OSError: It can't be read.
        ValueError: It is no csv.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table: pd.DataFrame = pd.read_csv(path, low_memory=False, index_col=False, **how)
        except pd.errors.ParserWarning as error:
            raise DataError(f"{path}: its lines have more fields than its header; is a comma missing there?") from error
    return table


def normal_table(table: pd.DataFrame, path: Path, *, repeated: bool = False) -> pd.DataFrame:
    """The columns of `read_table` from a csv that was read already.

    Args:
        table: What `read_csv` gave, perhaps with columns added.
        path: The csv, for messages.
        repeated: Allow an exam_id on several lines, for a reader that refuses just these exams.
    """
    table = table.rename(columns={old: new for old, new in _OTHER_NAMES.items() if new not in table.columns})
    if "exam_id" not in table.columns:
        raise DataError(f"{path}: no column exam_id (or id_exam); it has {', '.join(map(str, table.columns[:12]))}")
    if table.empty:
        raise DataError(f"{path}: has a header but no exams")
    table["exam_id"] = _exam_ids(table["exam_id"], path)
    if not repeated:
        _refuse_repeated(table["exam_id"], path)
    table["patient_id"] = _patient_ids(table, path)
    table["age"] = _ages(table, path)
    table["is_male"] = _is_male(table, path)
    for label in CODE_LABELS:
        if label in table.columns:
            table[label] = _labels(table, label, path)
    if "trace_file" in table.columns:  # an empty column would be one of numbers
        table["trace_file"] = table["trace_file"].astype("string")
    first = ["exam_id", "patient_id", "age", "is_male", *(x for x in CODE_LABELS if x in table.columns)]
    return table[first + [x for x in table.columns if x not in first and x != "sex"]]


def in_release_order(exams: pd.DataFrame) -> pd.DataFrame:
    """The same table with the release's columns first, in the release's order, and its own columns after them."""
    first = [name for name in RELEASE_ORDER if name in exams.columns]
    return exams[first + [name for name in exams.columns if name not in first]]


def some(values: object, limit: int = 5) -> str:
    """The first few values for an error message: `3, 7, 12, … (40 in all)`."""
    items = [str(value) for value in np.atleast_1d(np.asarray(values))]
    return ", ".join(items) if len(items) <= limit else f"{', '.join(items[:limit])}, … ({len(items)} in all)"


def _exam_ids(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() | (numbers % 1 != 0) | ~numbers.between(-_LARGEST_ID, _LARGEST_ID)
    if bad.any():
        raise DataError(f"{path}: exam_id must be a whole number; line {_line(bad)} has {_shown(column[bad])}")
    return numbers.astype(np.int64)


def _refuse_repeated(ids: pd.Series, path: Path) -> None:
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        raise DataError(f"{path}: exam_id must be unique; repeated: {some(repeated)}. Delete the second lines")


def _patient_ids(table: pd.DataFrame, path: Path) -> pd.Series:
    if "patient_id" not in table.columns:
        return table["exam_id"]
    missing = table["patient_id"].isna()
    if missing.any():
        raise DataError(
            f"{path}: patient_id is empty for exam_id {some(table['exam_id'][missing])}. Splits are made by patient: "
            "fill it, or delete the whole column to count every exam as its own patient"
        )
    return table["patient_id"]


def _ages(table: pd.DataFrame, path: Path) -> pd.Series:
    if "age" not in table.columns:
        return pd.Series(np.nan, index=table.index)
    ages = pd.to_numeric(table["age"], errors="coerce").astype(np.float64)
    text = ages.isna() & table["age"].notna()
    if text.any():
        raise DataError(f"{path}: age must be a number of years; line {_line(text)} has {_shown(table['age'][text])}")
    return ages


def _is_male(table: pd.DataFrame, path: Path) -> pd.Series:
    if "is_male" in table.columns:
        return _booleans(table, "is_male", _TRUE | _MALE, _FALSE | _FEMALE, path)
    if "sex" in table.columns:
        return _booleans(table, "sex", _MALE, _FEMALE, path)
    return pd.Series(pd.NA, index=table.index, dtype="boolean")


def _labels(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    flags = _booleans(table, name, _TRUE, _FALSE, path)
    if flags.isna().any():
        raise DataError(
            f"{path}: label {name} is empty for exam_id {some(table['exam_id'][flags.isna()])}. "
            "An empty label is not a negative one: fill it or delete these lines"
        )
    return flags.astype(bool)


def _booleans(table: pd.DataFrame, name: str, true: set[str], false: set[str], path: Path) -> pd.Series:
    """True, False and missing from whatever a csv writes for them."""
    column = table[name]
    if column.dtype == bool:
        return column.astype("boolean")
    text = column.astype("string").str.strip().str.lower()
    flags = pd.Series(pd.NA, index=table.index, dtype="boolean")
    flags[text.isin(true).fillna(False)] = True
    flags[text.isin(false).fillna(False)] = False
    unknown = flags.isna() & text.notna()
    if unknown.any():
        raise DataError(
            f"{path}: {name} must be True/False or 1/0; line {_line(unknown)} has {_shown(column[unknown])}"
        )
    return flags


def _shown(column: pd.Series) -> str:
    """The first value, cut short: damaged files hold very long ones."""
    return repr(column.iloc[0])[:60]


def _line(mask: pd.Series) -> int:
    """The line of the csv on which the first marked row stands (the header is line 1)."""
    return int(np.flatnonzero(mask.to_numpy())[0]) + 2
