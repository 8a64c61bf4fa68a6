"""A user's own laboratory values: one csv per target, checked line by line, in one unit, one value per ECG.

    exam_id,potassium,unit[,minutes]

`minutes` from the ECG to the blood sample, negative before it, chooses among several samples. Units are converted for
the analytes below, and for nothing else: another target is taken as it is, in the one unit that its file names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.data.exams_table import parsed_csv, some
from ecgscale.errors import DataError

WINDOW_MINUTES = 60.0
"""Samples farther from the ECG are not of it, as in the electrolyte study (von Bachmann et al. 2024)."""


@dataclass(frozen=True)
class Analyte:
    """Attributes:
    unit: the one that values are kept in.
    factors: unit → what its values are multiplied by.
    possible: beyond this nobody lives, or something else was measured; in `unit` (our choice, wide).
    """

    unit: str
    factors: Mapping[str, float]
    possible: tuple[float, float]


def _ion(g_per_mol: float, valence: int, possible: tuple[float, float]) -> Analyte:
    return Analyte("mmol/L", {"mmol/L": 1.0, "mEq/L": 1 / valence, "mg/dL": 10 / g_per_mol, "umol/L": 1e-3}, possible)


ANALYTES = {
    "potassium": _ion(39.098, 1, (1.0, 12.0)),
    "sodium": _ion(22.990, 1, (90.0, 200.0)),
    "calcium": _ion(40.078, 2, (0.5, 5.0)),
    "magnesium": _ion(24.305, 2, (0.1, 6.0)),
    "creatinine": Analyte("umol/L", {"umol/L": 1.0, "mmol/L": 1e3, "mg/dL": 1e4 / 113.12}, (10.0, 3000.0)),
}

_OWN_COLUMNS = ("exam_id", "unit", "minutes")


@dataclass(frozen=True)
class Measured:
    """One value per exam of a population.

    Attributes:
        column: the target with its unit, as a column name: `potassium_mmol_l`.
        exam_ids: `(n,)`, ascending.
        values: `(n,)` in `unit`.
        left_out: reason → lines of the file that were not used, for a person to read.
    """

    column: str
    unit: str
    exam_ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    left_out: Mapping[str, int]


def read_measured(path: Path, exams: pd.DataFrame, *, skip_bad: bool = False) -> Measured:
    """Reads and checks a csv of measurements.

    Args:
        path: the file.
        exams: what exams.csv of the population says.
        skip_bad: leave out values that nobody can have, instead of refusing the file.

    Raises:
        DataError: with file and line: what is no number, no known unit or no possible value; two values of one exam;
            no exam of the population; a column that exams.csv has.
    """
    table = _read(path)
    name = _target(table, path)
    minutes = _numbers(table, "minutes", path) if "minutes" in table else np.zeros(len(table))
    rows = pd.DataFrame(
        {"exam_id": _exam_ids(table, path), "value": _numbers(table, name, path), "minutes": minutes},
        index=table.index,
    )
    left_out = {"empty": int(rows["value"].isna().sum())}
    rows = rows[rows["value"].notna()]
    if rows.empty:
        raise DataError(f"{path}: {name} is empty in every line")
    analyte = ANALYTES.get(name.lower())
    unit = analyte.unit if analyte else _only_unit(table.loc[rows.index], path)
    column = f"{name}_{re.sub(r'[^0-9A-Za-z]+', '_', unit).strip('_')}".lower()
    if column in exams:
        raise DataError(f"{path}: exams.csv has a column {column!r} already; rename one of them")
    if analyte:
        rows["value"] *= _factors(table.loc[rows.index], name, analyte, path)
        impossible = ~rows["value"].between(*analyte.possible)
        if impossible.any() and not skip_bad:
            raise DataError(_impossible(table, rows[impossible], name, analyte, path))
        left_out["impossible value"] = int(impossible.sum())
        rows = rows[~impossible]
    unheard = ~rows["exam_id"].isin(exams["exam_id"])
    if unheard.all():
        raise DataError(
            f"{path}: none of its {len(rows)} values is of an exam of this population; its exam_ids are "
            f"{some(rows['exam_id'].unique())}, those of the population {some(exams['exam_id'].iloc[:3])}, …"
        )
    left_out["exam of no record"] = int(unheard.sum())
    rows = rows[~unheard]
    far = ~(rows["minutes"].abs() <= WINDOW_MINUTES)  # a time that is not known is far, too
    if far.all():
        raise DataError(f"{path}: no sample was taken within {WINDOW_MINUTES:g} minutes of its ECG")
    left_out[f"more than {WINDOW_MINUTES:g} minutes from the ECG"] = int(far.sum())
    rows = _nearest(rows[~far], path)
    left_out["farther from the ECG than another"] = int((~far).sum()) - len(rows)
    return Measured(
        column,
        unit,
        rows["exam_id"].to_numpy(np.int64),
        rows["value"].to_numpy(np.float64),
        {reason: n for reason, n in left_out.items() if n},
    )


def _read(path: Path) -> pd.DataFrame:
    """The csv as text, its rows numbered by line; a spreadsheet's byte order mark and blank lines are passed over."""
    try:
        table = parsed_csv(path, dtype="string", skip_blank_lines=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a csv: {str(error).strip()}") from None
    table.columns = [str(name).strip() for name in table.columns]
    table.index = pd.RangeIndex(2, len(table) + 2)  # the header is line 1
    filled = table.dropna(how="all")
    return filled.assign(**{str(name): filled[name].str.strip().replace({"": pd.NA}) for name in filled})


def _target(table: pd.DataFrame, path: Path) -> str:
    there = [str(name) for name in table]
    for name in ("exam_id", "unit"):
        if name not in there:
            raise DataError(f"{path}: no column {name}; it has {', '.join(there)}. Wanted: exam_id, a target, unit")
    others = [name for name in there if name not in _OWN_COLUMNS]
    if len(others) != 1:
        raise DataError(
            f"{path}: one column beside {', '.join(_OWN_COLUMNS)} is the target, named as such (potassium, …); "
            f"it has {', '.join(others) or 'none'}"
        )
    if table.empty:
        raise DataError(f"{path}: has a header but no values")
    return others[0]


def _exam_ids(table: pd.DataFrame, path: Path) -> pd.Series:
    ids = pd.to_numeric(table["exam_id"], errors="coerce")
    bad = ids.isna() | (ids % 1 != 0)
    if bad.any():
        raise DataError(f"{_line(path, bad)}: exam_id must be a whole number, not {_shown(table['exam_id'], bad)}")
    return ids.astype(np.int64)


def _numbers(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    """Floats, NaN where the cell is empty."""
    numbers = pd.to_numeric(table[name], errors="coerce").astype("Float64").to_numpy(np.float64, na_value=np.nan)
    found = pd.Series(numbers, index=table.index)
    bad = (found.isna() & table[name].notna()) | found.abs().eq(np.inf)
    if bad.any():
        raise DataError(f"{_line(path, bad)}: {name} must be a number, not {_shown(table[name], bad)}")
    return found


def _only_unit(table: pd.DataFrame, path: Path) -> str:
    """Of a target whose units nobody can convert here."""
    units = table["unit"].dropna().unique()
    bad = table["unit"].isna() | (table["unit"] != units[0] if len(units) else True)
    if bad.any():
        raise DataError(
            f"{_line(path, bad)}: unit is {_shown(table['unit'], bad)}; only {', '.join(ANALYTES)} are converted, any "
            "other target has the same unit in every line"
        )
    return str(units[0])


def _factors(table: pd.DataFrame, name: str, analyte: Analyte, path: Path) -> pd.Series:
    known = {_plain(unit): factor for unit, factor in analyte.factors.items()}
    factors = table["unit"].fillna("").map(lambda unit: known.get(_plain(unit), np.nan)).astype(np.float64)
    bad = factors.isna()
    if bad.any():
        raise DataError(
            f"{_line(path, bad)}: {name} in {_shown(table['unit'], bad)} can't be converted; known are "
            f"{', '.join(analyte.factors)}"
        )
    return factors


def _plain(unit: str) -> str:
    """`µmol/l` is umol/L, whichever of its two mu's is written."""
    return unit.lower().replace("µ", "u").replace("μ", "u")


def _impossible(table: pd.DataFrame, rows: pd.DataFrame, name: str, analyte: Analyte, path: Path) -> str:
    line = rows.index[0]
    low, high = analyte.possible
    as_written = f"{table.loc[line, name]} {table.loc[line, 'unit']}"
    return (
        f"{path}:{line}: {name} {as_written} is {rows['value'].iloc[0]:.4g} {analyte.unit}, possible are {low:g} to "
        f"{high:g}; {len(rows)} such values. Is the unit right? Correct or empty them, or leave them out by --skip-bad"
    )


def _nearest(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """One row per exam: the sample nearest in time, of two as near the one before the ECG."""
    ordered = rows.assign(distance=rows["minutes"].abs()).sort_values(["exam_id", "distance", "minutes"], kind="stable")
    same = ordered.duplicated(["exam_id", "minutes"], keep=False)
    torn = ordered[same].groupby(["exam_id", "minutes"])["value"].transform("nunique") > 1
    nearest = ordered.drop_duplicates("exam_id")
    clash = torn.index[torn].intersection(nearest.index)
    if len(clash):
        exam = ordered.loc[clash[0], "exam_id"]
        lines = ordered.index[(ordered["exam_id"] == exam) & same]
        raise DataError(
            f"{path}:{lines[1]}: exam_id {exam} has another value on line {lines[0]}, as near in time; delete one of "
            "them, or say by a column minutes when each sample was taken"
        )
    return nearest


def _line(path: Path, bad: pd.Series) -> str:
    return f"{path}:{bad.index[bad][0]}"


def _shown(column: pd.Series, bad: pd.Series) -> str:
    value = column[bad].iloc[0]
    return "nothing" if pd.isna(value) else repr(str(value))[:60]
