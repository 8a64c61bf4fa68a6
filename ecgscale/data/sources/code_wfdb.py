"""Full CODE as it is handed out (SciLifeLab 15169716): WFDB records `S0120000/TNMG123456_N1` beside `annotations.csv`.

An exam has up to several records, taken in quick succession; as in the published work only the first is read. The
headers carry gains, so signals are in mV without the factor 2 of the HDF5 releases.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ecgscale.data.exams_table import normal_table, read_csv
from ecgscale.data.sources.source import Refused, SourceOptions
from ecgscale.data.sources.stored_rows import Numbered, matching, refuse_repeated
from ecgscale.data.sources.wfdb_table import Rows, WfdbTable
from ecgscale.errors import DataError

_TABLE, _SAMI_TROP = "annotations.csv", "samitrop_patients.txt"

# From the release's README: S(XXX)0000.tar.gz holds the exams (XXX)0000 to (XXX)9999; entries are TNMG(id)_N(record).
_EXAMS_PER_FOLDER = 10_000
_FOLDERS = "S[0-9][0-9][0-9][0-9][0-9][0-9][0-9]"


def looks_like_code_wfdb(folder: Path) -> bool:
    """`annotations.csv` beside at least one unpacked archive."""
    return (folder / _TABLE).is_file() and _traces(folder) is not None


def open_code_wfdb(folder: Path, options: SourceOptions) -> WfdbTable:
    """Opens full CODE, or as much of it as is unpacked. A record's name is its exam's id.

    Args:
        folder: Holds `annotations.csv` and the unpacked archives, directly or in `ecg-traces`.
        options: Only `records` matters: units are in the headers.

    Raises:
        DataError: The table can't be understood, or no archive is unpacked.
    """
    traces = _traces(folder)
    if traces is None:
        raise DataError(f"{folder}: no folder such as S0120000; unpack the archives, `tar xzf S0120000.tar.gz`")
    path = folder / _TABLE
    table = normal_table(read_csv(path), path, repeated=True)
    if (table["exam_id"] < 0).any():
        raise DataError(f"{path}: id_exam is below 0 on line {int((table['exam_id'] < 0).argmax()) + 2}")
    exams, refused = refuse_repeated(table[matching(Numbered(table["exam_id"].to_numpy()), options.records)], path)
    parts = (exams["exam_id"] // _EXAMS_PER_FOLDER * _EXAMS_PER_FOLDER).map("S{:07d}".format)
    unpacked = parts.isin([part for part in parts.unique() if (folder / traces / part).is_dir()])
    refused += [
        Refused(str(exam_id), f"{part}.tar.gz is not unpacked here")
        for exam_id, part in zip(exams["exam_id"][~unpacked], parts[~unpacked], strict=True)
    ]
    exams, parts = exams[unpacked], parts[unpacked]
    return WfdbTable(
        kind="code-wfdb",
        folder=folder,
        names=Numbered(exams["exam_id"].to_numpy()),
        paths=[f"{traces / part}/TNMG{x}_N1" for part, x in zip(parts, exams["exam_id"], strict=True)],
        rows=Rows(exams),
        changed=("of every exam only the first record (N1) is read",),
        refused=tuple(refused),
        advice=_overlap(folder / _SAMI_TROP, exams),
    )


def _traces(folder: Path) -> Path | None:
    """Where the unpacked archives are, below the folder."""
    places = (Path(), Path("ecg-traces"))
    return next((x for x in places if any(path.is_dir() for path in (folder / x).glob(_FOLDERS))), None)


def _overlap(path: Path, exams: pd.DataFrame) -> tuple[str, ...]:
    """The release lists the patients that are in SaMi-Trop too."""
    try:
        patients = np.array(path.read_text("utf-8", errors="replace").split())
    except OSError:
        return ()
    n = int(exams["patient_id"].astype(str).isin(patients).sum())
    return (
        (f"{n} exams are of patients of SaMi-Trop ({_SAMI_TROP}): leave them out if you test on SaMi-Trop",)
        if n
        else ()
    )
