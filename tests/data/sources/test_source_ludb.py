"""LUDB: its samples are microvolts whatever its headers say; both of its tables tell the same."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from wfdb_folders import read_all, sine_mv, write_record

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.sources.ludb import looks_like_ludb, open_ludb
from ecgscale.data.sources.source import SourceOptions
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)

# The published form: line breaks within the cells.
LUDB_CSV = """\
ID,Sex,Age,Rhythms,Electric axis of the heart,Conduction abnormalities,Extrasystolies,Hypertrophies,Cardiac pacing,Ischemia,Non-specific repolarization abnormalities,Other states
1,"F
","51
",Sinus bradycardia,Electric axis of the heart: left axis deviation,"I degree AV block
Incomplete right bundle branch block",,"Left ventricular overload
Left ventricular hypertrophy",,,Non-specific repolarization abnormalities: posterior wall,
2,"M
",">89
",Atrial fibrillation,,Complete left bundle branch block,,,,,,
"""  # noqa: E501


def write_folder(folder: Path) -> Path:
    for name in ("1", "2"):
        path = folder / "data" / name
        write_record(path, sine_mv(5000), gain="1716(6)/mV", leads=[x.lower() for x in LEADS])
    (folder / "ludb.csv").write_text(LUDB_CSV, encoding="utf-8")
    return folder


def test_a_one_millivolt_sine_and_both_ways_of_reading_the_gain(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "lobachevsky-university-electrocardiography-database-1.0.1")
    assert looks_like_ludb(folder)
    source = pickle.loads(pickle.dumps(open_ludb(folder, SourceOptions())))
    recordings, reasons = read_all(source)
    assert (source.kind, source.version, reasons) == ("ludb", "1.0.1", {})
    for recording in recordings.values():
        np.testing.assert_allclose(recording.signal, sine_mv(5000), atol=0.501e-3)
        assert recording.leads[3] == "avr" and recording.fs_hz == 500
    declared = open_ludb(folder, SourceOptions(as_declared=True))
    np.testing.assert_allclose(next(declared.read(0, 1)).signal, (1000 * sine_mv(5000) - 6) / 1716, atol=0.001)
    assert any("gains ignored" in x for x in source.changed) and not declared.changed
    one, two = (x.row for x in recordings.values())
    assert [x for x in one if one[x] is True] == ["1dAVb", "SB"]
    assert [x for x in two if two[x] is True] == ["is_male", "LBBB", "AF"]
    assert (one["age"], one["is_male"], two["age"], two["exam_id"], two["patient_id"]) == (51.0, False, 90.0, 2, 2)
    assert one["hypertrophy"] == "Left ventricular overload; Left ventricular hypertrophy"
    assert one["conduction"] == "I degree AV block; Incomplete right bundle branch block"


def test_unusable(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x")
    (folder / "data/2.hea").unlink()
    assert read_all(open_ludb(folder, SourceOptions()))[1] == {"2": "its header 2.hea is not there"}
    assert open_ludb(folder, SourceOptions(records="1")).names == ["1"]
    assert open_ludb(folder, SourceOptions(records="7")).names == []
    (folder / "ludb.csv").write_text("ID,Sex\n1,M\n")
    with pytest.raises(DataError, match=r"ludb.csv: no column Age, Rhythms, Conduction abnormalities"):
        open_ludb(folder, SourceOptions())
    (folder / "ludb.csv").unlink()
    assert not looks_like_ludb(folder)
    with pytest.raises(DataError, match=r"no ludb.csv \(or labels_tidy.csv\) beside data/"):
        open_ludb(folder, SourceOptions())


@needs_real
def test_real_counts_and_laws() -> None:
    recordings, reasons = read_all(open_ludb(REAL / "ludb", SourceOptions()))
    assert (len(recordings), reasons) == (200, {})
    rows = [x.row for x in recordings.values()]
    assert {x: sum(row[x] for row in rows) for x in CODE_LABELS} == {
        "1dAVb": 10,
        "RBBB": 4,
        "LBBB": 4,
        "SB": 25,
        "AF": 15,
        "ST": 4,
    }
    assert sum(row["is_male"] for row in rows) == 115 and max(row["age"] for row in rows) == 90
    leads_ii = []
    for recording in recordings.values():
        i, ii, iii = recording.signal[:, :3].T.astype(np.float64)
        assert np.abs(iii - (ii - i)).max() < 1e-6
        leads_ii.append(np.quantile(np.abs(ii - np.median(ii)), 0.998))
    assert np.median(leads_ii) == pytest.approx(0.94, abs=0.03)


@needs_real
def test_real_tables_tell_the_same(tmp_path: Path) -> None:
    """The original table and the tidied one, without signals."""
    (tmp_path / "data").mkdir()
    shutil.copy(REAL / "ludb" / "labels_tidy.csv", tmp_path)
    original = open_ludb(REAL / "ludb", SourceOptions())
    tidy = open_ludb(tmp_path, SourceOptions())
    assert original.names == tidy.names
    assert [original.rows[k] for k in range(200)] == [tidy.rows[k] for k in range(200)]
