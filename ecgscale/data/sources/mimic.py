"""MIMIC-IV-ECG (https://physionet.org/content/mimic-iv-ecg/): `record_list.csv`, `files/`, the machine's measurements.

Brings no labels, only what the recorder measured and wrote. Ages and sexes are in MIMIC-IV's `patients.csv`, which is
used when a copy lies beside `record_list.csv`. Leads come in another order than elsewhere and are matched by name.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ecgscale.data.sources.source import Refused, SourceOptions
from ecgscale.data.sources.vocabulary import clean_sex
from ecgscale.data.sources.wfdb_table import (
    Rows,
    WfdbTable,
    asked_for,
    iso_times,
    one_line_per_record,
    read_csv,
    refused_of,
    release_of,
)

RECORD_LIST, MEASUREMENTS = "record_list.csv", "machine_measurements.csv"
PATIENTS = ("patients.csv", "patients.csv.gz")

# Times in ms, axes in degrees (machine_measurements_data_dictionary.csv).
_MEASURED = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")
_NOT_MEASURABLE = (29999, 32767)
_REPORT = tuple(f"report_{k}" for k in range(18))


def looks_like_mimic(folder: Path) -> bool:
    """Whether there is a `record_list.csv` with the columns of MIMIC-IV-ECG."""
    try:
        with (folder / RECORD_LIST).open("rb") as file:
            first = file.read(200)
    except OSError:
        return False
    return b"subject_id" in first and b"study_id" in first


def open_mimic(folder: Path, options: SourceOptions) -> WfdbTable:
    """Opens MIMIC-IV-ECG or a part of it. A record's name is its study_id.

    Raises:
        DataError: `record_list.csv` is missing or lacks columns.
    """
    table = read_csv(folder / RECORD_LIST, ("subject_id", "study_id", "ecg_time", "path"))
    table, refused = one_line_per_record(table, "study_id", RECORD_LIST)
    table = asked_for(table, "study_id", options.records)
    subjects = pd.to_numeric(table["subject_id"], errors="coerce")
    refused += [Refused(str(x), "subject_id is not a number") for x in table["study_id"][subjects.isna()]]
    table = table.assign(subject_id=subjects)[subjects.notna()].reset_index(drop=True)
    rows = pd.DataFrame({"exam_id": table["study_id"], "patient_id": table["subject_id"].astype(np.int64)})
    rows = rows.assign(age=np.nan, is_male=None, ecg_time=iso_times(table["ecg_time"]))
    patients = next((folder / name for name in PATIENTS if (folder / name).is_file()), None)
    if patients is not None:
        rows = _with_patients(rows, patients)
    measured = (folder / MEASUREMENTS).is_file()
    if measured:
        rows = _with_measurements(rows, folder / MEASUREMENTS)
    return WfdbTable(
        kind="mimic",
        folder=folder,
        names=[str(x) for x in table["study_id"]],
        paths=[str(x).removesuffix(".hea") for x in table["path"]],
        rows=Rows(rows),
        version=release_of(folder),
        changed=("measurements of 29999 and 32767 (not measurable) left empty",) if measured else (),
        refused=refused_of(refused, options.records),
        advice=()
        if patients
        else ("age and sex are not here: copy patients.csv.gz of MIMIC-IV beside record_list.csv to have them",),
    )


def _with_patients(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Age at the recording and sex, as MIMIC-IV defines them: anchor_age + (year of the recording - anchor_year)."""
    needed = ("subject_id", "gender", "anchor_age", "anchor_year")
    patients = read_csv(path, needed, only=needed).drop_duplicates("subject_id").set_index("subject_id")
    found = patients.reindex(rows["patient_id"]).reset_index(drop=True)
    year = pd.to_numeric(rows["ecg_time"].str[:4], errors="coerce")
    anchor_age, anchor_year = (pd.to_numeric(found[x], errors="coerce") for x in ("anchor_age", "anchor_year"))
    return rows.assign(
        age=(anchor_age + year - anchor_year).astype(np.float64),
        is_male=pd.Series([clean_sex(x) for x in found["gender"]], dtype=object),
    )


def _with_measurements(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    table = read_csv(path, ("study_id",), only=("study_id", *_MEASURED, *_REPORT))
    table = table.drop_duplicates("study_id").set_index("study_id").reindex(rows["exam_id"]).reset_index(drop=True)
    numbers = {
        name: pd.to_numeric(table[name], errors="coerce").astype(np.float64) for name in _MEASURED if name in table
    }
    rows = rows.assign(**{name: x.mask(x.isin(_NOT_MEASURABLE)) for name, x in numbers.items()})
    report = pd.Series("", index=table.index, dtype=object)
    for name in (x for x in _REPORT if x in table):
        words = table[name].astype("string").fillna("").str.strip().astype(object)
        report = report.where(words == "", report + " | " + words)
    return rows.assign(report=report.str.removeprefix(" | "))
