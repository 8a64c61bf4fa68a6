"""CODE-test and SaMi-Trop: row i is line i, CODE-test's lead order is its own, annotations alone are recognised."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.sources.code_positional import (
    CODE_TEST_LEADS,
    annotations_without_signals,
    looks_like_code_test,
    looks_like_sami_trop,
    open_code_test,
    open_sami_trop,
)
from ecgscale.data.sources.code_releases import looks_like_code
from ecgscale.data.sources.source import Recording, Source, SourceOptions
from ecgscale.data.standard_form import in_standard_order
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)
SIZES = dict(zip(LEADS, (1, 0.5, -0.5, -0.75, 0.75, 0, 1, 2, 3, 4, 5, 6), strict=True))
N = 5


def sine_mv(leads: tuple[str, ...], exam: int = 0) -> np.ndarray:
    """(time, lead): a 1 Hz sine of 1 mV in I, Einthoven's law elsewhere, plus `exam` µV."""
    sizes = np.array([SIZES[lead] for lead in leads])
    return np.sin(2 * np.pi * np.arange(4096) / 400)[:, None] * sizes + exam * 1e-3


def write_tracings(path: Path, leads: tuple[str, ...], n: int = N, dtype: str = "f8") -> None:
    with h5py.File(path, "w") as file:
        file["tracings"] = np.stack([2 * sine_mv(leads, k) for k in range(n)]).astype(dtype)


@pytest.fixture
def code_test(tmp_path: Path) -> Path:
    """The download with all its quirks: dnn.csv has an index column, the annotators' columns another order."""
    folder = tmp_path / "data" / "annotations"
    folder.mkdir(parents=True)
    pd.DataFrame({"age": range(30, 30 + N), "sex": ["M", "F", "M", "F", "M"]}).to_csv(
        tmp_path / "data" / "attributes.csv", index=False
    )
    gold = pd.DataFrame(0, index=range(N), columns=list(CODE_LABELS))
    gold.loc[2, "AF"] = gold.loc[3, "ST"] = 1
    gold.to_csv(folder / "gold_standard.csv", index=False)
    gold[list(reversed(CODE_LABELS))].to_csv(folder / "cardiologist1.csv", index=False)
    (1 - gold).to_csv(folder / "dnn.csv", index=True)
    write_tracings(tmp_path / "data" / "ecg_tracings.hdf5", CODE_TEST_LEADS)
    return tmp_path


@pytest.fixture
def sami_trop(tmp_path: Path) -> Path:
    table = {"exam_id": [9, 3, 7, 1, 5], "age": 60, "is_male": [True, False] * 2 + [True], "normal_ecg": False}
    pd.DataFrame(table).assign(death=True, timey=1.5).to_csv(tmp_path / "exams.csv", index=False)
    write_tracings(tmp_path / "exams.hdf5", LEADS, dtype="f4")
    return tmp_path


def recordings(source: Source) -> list[Recording]:
    found = list(pickle.loads(pickle.dumps(source)).read(0, len(source.names)))
    assert all(isinstance(x, Recording) for x in found), found
    return found


def test_code_test_rows_are_lines_and_its_leads_are_named(code_test: Path) -> None:
    for folder in (code_test, code_test / "data"):
        assert looks_like_code_test(folder) and annotations_without_signals(folder) is None
        source = open_code_test(folder, SourceOptions())
        assert list(source.names) == ["0", "1", "2", "3", "4"]
    for k, found in enumerate(recordings(source)):
        in_order = in_standard_order(found.signal, found.leads)
        np.testing.assert_allclose(in_order, sine_mv(LEADS, k), atol=1e-6)
        row = found.row
        assert (row["exam_id"], row["patient_id"], row["age"], row["is_male"]) == (k, k, 30 + k, k % 2 == 0)
        assert [row[label] for label in CODE_LABELS] == [False] * 4 + [k == 2, k == 3]
        assert bool(row["cardiologist1_AF"]) == (k == 2) and bool(row["dnn_AF"]) == (k != 2)
        assert not any("Unnamed" in name or name == "sex" for name in row)


def test_code_test_as_declared_breaks_einthovens_law(code_test: Path) -> None:
    source = open_code_test(code_test, SourceOptions(as_declared=True))
    found = recordings(source)[0]
    assert tuple(found.leads) == LEADS
    np.testing.assert_allclose(found.signal, 2 * sine_mv(CODE_TEST_LEADS), atol=1e-6)
    a_vr = found.signal[:, LEADS.index("aVR")]
    assert np.abs(a_vr + (found.signal[:, 0] + found.signal[:, 1]) / 2).max() > 1


def test_code_test_without_tracings_says_what_is_missing(code_test: Path) -> None:
    (code_test / "data" / "ecg_tracings.hdf5").unlink()
    assert annotations_without_signals(code_test) == dict.fromkeys(CODE_LABELS, 0) | {"n_exams": 5, "AF": 1, "ST": 1}
    with pytest.raises(DataError, match=r"5 annotated exams .* no signals; data/ecg_tracings.hdf5 belongs there"):
        open_code_test(code_test, SourceOptions())
    write_tracings(code_test / "ecg_tracings.hdf5", CODE_TEST_LEADS)
    assert len(open_code_test(code_test, SourceOptions()).names) == 5


def test_counts_that_disagree_refuse_the_folder(code_test: Path) -> None:
    tracings = code_test / "data" / "ecg_tracings.hdf5"
    write_tracings(tracings, CODE_TEST_LEADS, n=4)
    with pytest.raises(DataError, match=r"has 4 tracings, but gold_standard.csv has 5 exams"):
        open_code_test(code_test, SourceOptions())
    (code_test / "data" / "annotations" / "dnn.csv").write_text(",1dAVb,RBBB,LBBB,SB,AF,ST\n0,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match=r"dnn.csv: has 1 lines, but attributes.csv has 5"):
        open_code_test(code_test, SourceOptions())
    (code_test / "data" / "annotations" / "dnn.csv").write_text("1dAVb,RBBB\n0,0\n")
    with pytest.raises(DataError, match=r"dnn.csv: no column LBBB, SB, AF, ST"):
        open_code_test(code_test, SourceOptions())


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((5, 12, 4096), "f4", "found \\(5, 12, 4096\\)"),
        ((5, 4096, 12), "i2", "type int16"),
        ((5,), "f4", "found \\(5,\\)"),
    ],
)
def test_other_shapes_and_types_are_refused(code_test: Path, shape: tuple[int, ...], dtype: str, words: str) -> None:
    with h5py.File(code_test / "data" / "ecg_tracings.hdf5", "w") as file:
        file["tracings"] = np.zeros(shape, dtype)
    with pytest.raises(DataError, match=words):
        open_code_test(code_test, SourceOptions())


def test_damaged_files_are_named(code_test: Path) -> None:
    path = code_test / "data" / "ecg_tracings.hdf5"
    whole = path.read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "ecg_tracings.hdf5: cannot be read, it is damaged or not completely downloaded"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 120024\n", "Git LFS pointer"),
        (b"", "ecg_tracings.hdf5: cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            open_code_test(code_test, SourceOptions())
    with h5py.File(path, "w") as file:
        file.create_group("tracings")
    with pytest.raises(DataError, match="expected an array tracings"):
        open_code_test(code_test, SourceOptions())


def test_sami_trop(sami_trop: Path) -> None:
    assert looks_like_sami_trop(sami_trop) and not looks_like_code(sami_trop)
    source = open_sami_trop(sami_trop, SourceOptions())
    assert list(source.names) == ["9", "3", "7", "1", "5"] and tuple(source.changed[:1]) == (
        "stored amplitudes × 0.5 are mV",
    )
    for k, found in enumerate(recordings(source)):
        assert tuple(found.leads) == LEADS and found.row["is_male"] is (k % 2 == 0) and "AF" not in found.row
        np.testing.assert_allclose(found.signal, sine_mv(LEADS, k), atol=1e-6)
    third = open_sami_trop(sami_trop, SourceOptions(records="7", mv_per_unit=1.0))
    np.testing.assert_allclose(recordings(third)[0].signal, 2 * sine_mv(LEADS, 2), atol=1e-6)


def test_sami_trop_with_a_repeated_exam_or_other_counts(sami_trop: Path) -> None:
    table = pd.read_csv(sami_trop / "exams.csv")
    table.replace({"exam_id": {1: 9}}).to_csv(sami_trop / "exams.csv", index=False)
    source = open_sami_trop(sami_trop, SourceOptions())
    assert [(x.record, x.reason) for x in source.refused] == [("9", "exam_id stands on lines 2, 5 of exams.csv")]
    assert [x.row["exam_id"] for x in recordings(source)] == [3, 7, 5]
    np.testing.assert_allclose(recordings(source)[2].signal, sine_mv(LEADS, 4), atol=1e-6)
    table[:3].to_csv(sami_trop / "exams.csv", index=False)
    with pytest.raises(DataError, match=r"exams.hdf5: has 5 tracings, but exams.csv has 3 exams"):
        open_sami_trop(sami_trop, SourceOptions())


@needs_real
def test_real_annotations_of_code_test() -> None:
    folder = REAL / "code-test-annotations"
    counts = dict(zip(CODE_LABELS, (28, 34, 30, 16, 13, 37), strict=True)) | {"n_exams": 827}
    assert looks_like_code_test(folder) and annotations_without_signals(folder) == counts
    with pytest.raises(DataError, match=r"827 annotated exams .positives 1dAVb 28, RBBB 34, .*Zenodo 3765780"):
        open_code_test(folder, SourceOptions())
    assert annotations_without_signals(REAL / "ludb") is None
