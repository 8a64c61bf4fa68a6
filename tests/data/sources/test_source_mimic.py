"""MIMIC-IV-ECG: leads in their own order, missing samples, measurements, and patients where their table is there."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from wfdb_folders import read_all, sine_mv, write_record

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.sources.mimic import looks_like_mimic, open_mimic
from ecgscale.data.sources.source import SourceOptions
from ecgscale.data.standard_form import in_standard_order
from ecgscale.errors import DataError

MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", *LEADS[6:])
COMMENTS = "# <subject_id>: 10000032\n"
# The published columns, and the first record as published.
MEASUREMENT_COLUMNS = (
    "subject_id,study_id,cart_id,ecg_time,report_0,report_1,report_2,report_3,report_4,report_5,report_6,report_7,"
    "report_8,report_9,report_10,report_11,report_12,report_13,report_14,report_15,report_16,report_17,bandwidth,"
    "filtering,rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis"
)
MEASUREMENTS = (
    f"{MEASUREMENT_COLUMNS}\n"
    "10000032,40689238,6848296,2180-07-23 08:44:00,Sinus rhythm,Possible right atrial abnormality,,Borderline ECG"
    ",,,,,,,,,,,,,,,0.005-150 Hz,60 Hz notch Baseline filter,659,40,128,170,258,518,81,77,79\n"
    "10000032,44458630,6848296,2180-07-23 09:54:00,Atrial fibrillation,,,"
    ",,,,,,,,,,,,,,,,,659,29999,29999,170,258,32767,29999,77,79\n"
)


def write_folder(folder: Path) -> Path:
    lines = ["subject_id,study_id,file_name,ecg_time,path"]
    order = [LEADS.index(x) for x in MIMIC_LEADS]
    for subject, study, time in (
        (10000032, 40689238, "2180-07-23 08:44:00"),
        (10000032, 44458630, "2180-07-23 09:54:00"),
        (10000117, 45090959, "2181-03-04 17:14:00"),
    ):
        path = f"files/p1000/p{subject}/s{study}/{study}"
        lines.append(f"{subject},{study},{study},{time},{path}")
        signal = sine_mv(5000)[:, order]
        if study == 44458630:
            signal[100:200, 4] = np.nan
        first = f"{study} 12 500 5000 08:44:00 23/07/2180"
        gains = {"gain": "200.0(0)/mV", "per_mv": 200.0}
        write_record(folder / path, signal, leads=MIMIC_LEADS, first=first, comments=COMMENTS, **gains)
    (folder / "record_list.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_one_millivolt_sine_by_lead_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mimic-iv-ecg-diagnostic-electrocardiogram-matched-subset-1.0")
    assert looks_like_mimic(folder)
    source = pickle.loads(pickle.dumps(open_mimic(folder, SourceOptions())))
    recordings, reasons = read_all(source)
    assert (source.kind, source.version, reasons) == ("mimic", "1.0", {})
    for recording in recordings.values():
        signal = in_standard_order(recording.signal, recording.leads)  # aVF with gaps is derived
        np.testing.assert_allclose(
            signal, sine_mv(5000), atol=0.5 / 200 + 1e-5 + (recording.record == "44458630") * 0.005
        )
        assert recording.fs_hz == 500
    assert np.isnan(recordings["44458630"].signal).sum() == 100
    row = recordings["45090959"].row
    assert (row["exam_id"], row["patient_id"], row["ecg_time"]) == (45090959, 10000117, "2181-03-04T17:14:00")
    assert np.isnan(row["age"]) and row["is_male"] is None
    assert not set(row) & set(CODE_LABELS) and "rr_interval" not in row
    assert "patients.csv.gz" in source.advice[0]


def test_measurements_and_patients(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x")
    (folder / "machine_measurements.csv").write_text(MEASUREMENTS)
    with gzip.open(folder / "patients.csv.gz", "wt") as file:
        file.write("subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n10000032,F,52,2179,2014 - 2016,\n")
    source = open_mimic(folder, SourceOptions())
    first, second, third = (x.row for x in read_all(source)[0].values())
    assert not source.advice
    assert (first["age"], first["is_male"], second["is_male"]) == (53.0, False, False)
    assert np.isnan(third["age"]) and third["is_male"] is None
    assert first["report"] == "Sinus rhythm | Possible right atrial abnormality | Borderline ECG"
    assert (first["rr_interval"], first["p_onset"], first["t_axis"]) == (659, 40, 79)
    assert (second["report"], second["qrs_onset"], third["report"]) == ("Atrial fibrillation", 170, "")
    assert all(np.isnan(second[x]) for x in ("p_onset", "p_end", "t_end", "p_axis"))
    assert np.isnan(third["rr_interval"])


def test_bad_lines_and_records(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x")
    path = folder / "record_list.csv"
    path.write_text(path.read_text() + "10000117,45090959,1,,files/other\nnobody,7,7,,files/7\n10000117,8,8,,files/8\n")
    (folder / "files/p1000/p10000032/s40689238/40689238.dat").write_bytes(bytes(99))
    recordings, reasons = read_all(open_mimic(folder, SourceOptions()))
    assert list(recordings) == ["44458630"]
    assert reasons == {
        "45090959": "study_id stands on 2 lines of record_list.csv; delete all but the right one",
        "7": "subject_id is not a number",
        "8": "its header 8.hea is not there",
        "40689238": "40689238.dat is truncated, 99 of 120000 bytes; get it again",
    }
    assert open_mimic(folder, SourceOptions(records="4445*")).names == ["44458630"]
    assert open_mimic(folder, SourceOptions(records="none")).names == []
    path.write_text("subject_id,study_id\n1,2\n")
    with pytest.raises(DataError, match="no column ecg_time, path"):
        open_mimic(folder, SourceOptions())
    path.unlink()
    assert not looks_like_mimic(folder)
    with pytest.raises(DataError, match=r"record_list.csv: cannot be read"):
        open_mimic(folder, SourceOptions())
