"""CPSC 2018's MATLAB structs: millivolts, the nine classes of REFERENCE.csv, damaged files by name."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from wfdb_folders import read_all, sine_mv

from ecgscale.conventions import LEADS
from ecgscale.data.sources.cpsc import looks_like_cpsc, open_cpsc
from ecgscale.data.sources.source import SourceOptions
from ecgscale.errors import DataError


def write_mat(path: Path, signal_mv: np.ndarray, sex: object = "Male", age: object = 74.0, **other: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"ECG": {"sex": sex, "age": age, "data": signal_mv.T, **other}}, do_compression=True)


def write_folder(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header = "Recording,First_label,Second_label,Third_label"
    (folder / "REFERENCE.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_a_one_millivolt_sine_and_the_nine_classes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cpsc", ["A0001,5,,", "A0002,1,,", "A0003,2,5,8"])
    write_mat(folder / "TrainingSet1/A0001.mat", sine_mv(7500))
    write_mat(folder / "TrainingSet1/A0002.mat", sine_mv(3000), "Female", np.array([]))
    write_mat(folder / "TrainingSet2/A0003.mat", sine_mv(72_000), "Unknown", 47)
    assert looks_like_cpsc(folder)
    source = pickle.loads(pickle.dumps(open_cpsc(folder, SourceOptions())))
    recordings, reasons = read_all(source)
    assert (source.kind, source.unit, reasons) == ("cpsc", "mV", {})
    for recording, n in zip(recordings.values(), (7500, 3000, 72_000), strict=True):
        np.testing.assert_allclose(recording.signal, sine_mv(n), atol=1e-6)
        assert (recording.fs_hz, tuple(recording.leads), recording.signal.dtype) == (500, LEADS, np.float32)
    rows = [x.row for x in recordings.values()]
    positives = [[name for name, value in row.items() if value is True and name != "is_male"] for row in rows]
    assert positives == [["RBBB"], ["NSR"], ["AF", "RBBB", "STD"]]
    assert [row["is_male"] for row in rows] == [True, False, None]
    assert [row["exam_id"] for row in rows] == [1, 2, 3]
    assert rows[0]["age"] == 74 and np.isnan(rows[1]["age"]) and rows[2]["age"] == 47
    assert "SB" not in rows[0] and "ST" not in rows[0]  # what CPSC 2018 does not know is not a negative


def test_unusable_records_by_name(tmp_path: Path) -> None:
    lines = [
        "A01,5,,",
        "A02,,,",
        "A03,10,,",
        "A04,1,,",
        "A05,1,,",
        "A05,2,,",
        "A06,1,,",
        "A07,1,,",
        "A08,1,,",
        "A09,1,,",
    ]
    folder = write_folder(tmp_path / "cpsc", [*lines, "A10,1,,", "A01,5,,"])
    for k in (1, 2, 3, 5, 6, 7, 8, 10, 11):
        write_mat(folder / f"A{k:02}.mat", sine_mv(600))
    (folder / "A06.mat").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 120024\n")
    (folder / "A07.mat").write_bytes((folder / "A07.mat").read_bytes()[:5000])
    write_mat(folder / "A08.mat", sine_mv(600)[:, :9])
    scipy.io.savemat(folder / "A09.mat", {"val": np.zeros((12, 600))})
    write_mat(folder / "A10.mat", np.zeros((0, 12)))
    recordings, reasons = read_all(open_cpsc(folder, SourceOptions()))
    assert list(recordings) == ["A01"]
    for record, words in {
        "A02": "no class from 1 to 9: empty",
        "A03": "no class from 1 to 9: 10",
        "A04": "no A04.mat",
        "A05": "stands on 2 different lines",
        "A06": "A06.mat is a Git LFS pointer",
        "A07": "A07.mat is not the MATLAB file of a record (",
        "A08": "its data is 9 × 600, not 12 leads × samples",
        "A09": "A09.mat is not the MATLAB file of a record (holds no struct ECG)",
        "A10": "its data is 12 × 0, not",
        "A11": "REFERENCE.csv has no line for it",
    }.items():
        assert words in reasons.pop(record), record
    assert not reasons
    assert read_all(open_cpsc(folder, SourceOptions(records="A0[12]")))[1].keys() == {"A02"}


def test_folders_that_are_not_cpsc(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no REFERENCE.csv; get it from"):
        open_cpsc(tmp_path, SourceOptions())
    (tmp_path / "REFERENCE.csv").write_text("a,1\nb,2\n")
    assert not looks_like_cpsc(tmp_path) and not looks_like_cpsc(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no column Recording"):
        open_cpsc(tmp_path, SourceOptions())


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_mutated_structs_refuse_or_read(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    folder = write_folder(tmp_path_factory.mktemp("fuzz"), ["A1,1,,"])
    path = folder / "A1.mat"
    signal = sine_mv(20)
    fields = {"sex": "Male", "age": 74.0, "data": signal.T}
    scipy.io.savemat(path, {"ECG": fields}, do_compression=data.draw(st.booleans()))
    stored = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, max(len(stored) - 1, 0)))
        if data.draw(st.booleans()) and stored:
            stored[place] = data.draw(st.integers(0, 255))
        else:
            del stored[place : place + data.draw(st.integers(1, 99))]
    path.write_bytes(stored)
    recordings, reasons = read_all(open_cpsc(folder, SourceOptions()))
    assert len(recordings) + len(reasons) == 1
    assert all(x.signal.shape[1] == 12 and x.signal.dtype == np.float32 for x in recordings.values())
