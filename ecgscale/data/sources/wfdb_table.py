"""Collections in two halves, one csv with a line for every record and one file per record beside it.

Reads the csv so that a bad line costs that line only, and hands out rows of plain values. What the columns mean is the
business of each collection's own module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.data.exams_table import parsed_csv
from ecgscale.data.sources.source import RecordFiles, Recording, Refused
from ecgscale.data.wfdb_records import GIT_LFS, read_record
from ecgscale.errors import DataError

_LARGEST_ID = 2**53  # beyond it a float, which a csv column with gaps is read as, no longer tells integers apart


class Rows:
    """The rows of a table as dictionaries of plain values; held by column, so that worker processes get little."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._columns = {str(name): _plain(table[name]) for name in table.columns}

    def __getitem__(self, k: int) -> dict[str, Any]:
        values = {name: column[k] for name, column in self._columns.items()}
        return {name: x.item() if isinstance(x, np.generic) else x for name, x in values.items()}


@dataclass(kw_only=True, eq=False)
class WfdbTable(RecordFiles):
    """Records in WFDB form below a folder, with what is known about each in a table.

    Attributes:
        folder: Where the collection is.
        paths: For each record its header below the folder, without `.hea`.
        rows: For each record its row of the exam table.
        digital_per_mv: Ignore the headers' gains and divide by this.
    """

    kind: str
    folder: Path
    names: Sequence[str]
    paths: Sequence[str]
    rows: Rows
    digital_per_mv: float | None = None
    version: str | None = None
    changed: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    advice: Sequence[str] = ()

    def recording(self, k: int) -> Recording:
        try:
            record = read_record(self.folder / f"{self.paths[k]}.hea", digital_per_mv=self.digital_per_mv)
        except DataError as error:  # named by its file, which a collection may name otherwise
            raise DataError(str(error).removeprefix(f"{Path(self.paths[k]).name}: ")) from error
        return Recording(self.names[k], record.signal_mv, record.leads, record.header.fs_hz, self.rows[k])


def read_csv(path: Path, columns: Sequence[str], *, only: Sequence[str] | None = None) -> pd.DataFrame:
    """A csv with at least these columns.

    Args:
        path: The file.
        columns: Columns that it must have.
        only: Read only these of its columns, those of them that it has.

    Raises:
        DataError: There is no such file, it is no csv, or it lacks columns.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(GIT_LFS)) == GIT_LFS:
                raise DataError(f"{path}: is a Git LFS pointer, not the table; run `git lfs pull`")
        keep = None if only is None else (lambda name: str(name).strip() in only)
        table = parsed_csv(path, encoding_errors="replace", usecols=keep)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as a csv: {str(error).strip()}") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if missing := [name for name in columns if name not in table.columns]:
        found = ", ".join(table.columns[:12])
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {found}")
    return table


def one_line_per_record(table: pd.DataFrame, column: str, file_name: str) -> tuple[pd.DataFrame, list[Refused]]:
    """The lines whose number in `column` is whole and stands on no other line; the others, refused.

    Returns:
        The lines in their order with `column` as int64 and a fresh index; one refusal for each number or line left out.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    whole = (numbers % 1 == 0) & (numbers.abs() < _LARGEST_ID)
    refused = [
        Refused(f"{file_name} line {k + 2}", f"{column} must be a whole number, not {repr(table[column].iloc[k])[:60]}")
        for k in np.flatnonzero(~whole.to_numpy())
    ]
    repeated = whole & numbers.duplicated(keep=False).to_numpy()
    refused += [
        Refused(f"{number:.0f}", f"{column} stands on {n} lines of {file_name}; delete all but the right one")
        for number, n in Counter(numbers[repeated]).items()
    ]
    kept = table[whole & ~repeated].reset_index(drop=True)
    return kept.assign(**{column: numbers[whole & ~repeated].to_numpy(np.int64)}), refused


def asked_for(table: pd.DataFrame, column: str, pattern: str) -> pd.DataFrame:
    """The lines whose record name, the number in `column`, matches; with a fresh index."""
    asked = np.array([fnmatchcase(str(x), pattern) for x in table[column]], dtype=bool)
    return table[asked].reset_index(drop=True)


def refused_of(refused: Sequence[Refused], pattern: str) -> tuple[Refused, ...]:
    """The refusals of records whose name matches."""
    return tuple(x for x in refused if fnmatchcase(x.record, pattern))


def lines(table: pd.DataFrame) -> list[Mapping[Hashable, Any]]:
    """The lines of a table as dictionaries."""
    return [dict(line) for line in table.to_dict("records")]


def iso_times(column: pd.Series) -> pd.Series:
    """Dates and times as ISO text, `1984-11-09T09:17:34`; missing where a cell is none."""
    times = pd.to_datetime(column.astype("string"), errors="coerce", format="ISO8601")
    return times.dt.strftime("%Y-%m-%dT%H:%M:%S")


def release_of(folder: Path) -> str | None:
    """The release number at the end of a folder's name, where PhysioNet's zips and mirrors have it."""
    found = re.search(r"(?:^|-)(\d+(?:\.\d+){1,2})$", folder.resolve().name)
    return found[1] if found else None


def _plain(column: pd.Series) -> np.ndarray[Any, Any]:
    """Numbers and booleans as they are; anything else as objects, None where it is missing."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return np.asarray(column)
    values = column.astype(object)
    return np.asarray(values.where(column.notna(), None), dtype=object)
