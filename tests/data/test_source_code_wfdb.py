"""Full CODE in WFDB: the first record of every annotated exam, in mV by its header; archives may be missing."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from ecgscale.conventions import LEADS
from ecgscale.data.sources.code_releases import looks_like_code
from ecgscale.data.sources.code_wfdb import looks_like_code_wfdb, open_code_wfdb
from ecgscale.data.sources.source import Recording, Refused, SourceOptions
from ecgscale.errors import DataError

CODE_SPELLING = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def write_record(folder: Path, exam_id: int, record: int, signal_mv: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"TNMG{exam_id}_N{record}"
    digital = np.round(signal_mv * 200).astype("<i2")
    (folder / f"{name}.mat").write_bytes(b"\0" * 24 + digital.tobytes())
    lines = [f"{name} 12 300 {len(digital)} 10:12:13 01/02/2012"]
    checks = digital.astype(np.int64).sum(axis=0)
    checks = (checks + 2**15) % 2**16 - 2**15
    lines += [
        f"{name}.mat 16+24 200/mV 16 0 {x} {check} 0 {lead}"
        for x, check, lead in zip(digital[0], checks, CODE_SPELLING, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("below", ["", "ecg-traces"])
def test_first_records_of_annotated_exams(tmp_path: Path, below: str) -> None:
    sine_mv = np.sin(2 * np.pi * np.arange(2100) / 300)[:, None] * np.linspace(1, 2, 12)
    for exam_id, folder in ((1, "S0000000"), (120007, "S0120000"), (129999, "S0120000")):
        write_record(tmp_path / below / folder, exam_id, 1, sine_mv + exam_id % 10 / 10)
        write_record(tmp_path / below / folder, exam_id, 2, -sine_mv)
    (tmp_path / "samitrop_patients.txt").write_text("55\n56\n")
    (tmp_path / "annotations.csv").write_text(
        "id_exam,id_patient,age,sex,date_exam,1dAVb,RBBB,LBBB,SB,AF,ST\n"
        "129999,55,70,F,2015-01-01,0,0,0,0,1,0\n1,54,50,M,2011-02-03,0,0,0,0,0,0\n"
        "120008,53,50,M,2011-02-03,0,0,0,0,0,0\n2000000,53,50,M,2011-02-03,0,0,0,0,0,0\n"
        "7,53,50,M,2011-02-03,0,0,0,0,0,0\n7,53,50,M,2011-02-03,0,0,0,0,0,1\n"
    )
    assert looks_like_code_wfdb(tmp_path) and not looks_like_code(tmp_path)
    source = pickle.loads(pickle.dumps(open_code_wfdb(tmp_path, SourceOptions())))
    first, second, lost = source.read(0, 3)
    assert isinstance(first, Recording) and isinstance(second, Recording) and isinstance(lost, Refused)
    assert (first.record, second.record, first.fs_hz) == ("129999", "1", 300) and tuple(first.leads) == CODE_SPELLING
    np.testing.assert_allclose(second.signal, sine_mv + 0.1, atol=0.0026)
    row = first.row
    assert (row["exam_id"], row["patient_id"], row["is_male"], row["AF"]) == (129999, 55, False, True)
    assert row["date_exam"] == "2015-01-01" and len(LEADS) == len(first.leads)
    assert lost.record == "120008" and "TNMG120008_N1.hea" in lost.reason
    assert {x.record: x.reason for x in source.refused} == {
        "7": "exam_id stands on lines 6, 7 of annotations.csv",
        "2000000": "S2000000.tar.gz is not unpacked here",
    }
    assert source.advice == (
        "1 exams are of patients of SaMi-Trop (samitrop_patients.txt): leave them out if you test on SaMi-Trop",
    )


def test_nothing_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "annotations.csv").write_text("id_exam,age\n1,50\n")
    assert not looks_like_code_wfdb(tmp_path)
    with pytest.raises(DataError, match="unpack the archives"):
        open_code_wfdb(tmp_path, SourceOptions())
