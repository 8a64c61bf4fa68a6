"""CODE-15 % and full CODE as downloaded: joined on ids, in mV, read within zips; damage costs its own exams only."""

import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.code_format import CodeWriter
from ecgscale.data.sources import stored_rows
from ecgscale.data.sources.code_releases import looks_like_code, open_code_release
from ecgscale.data.sources.source import Recording, Refused, Source, SourceOptions
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)
N_MUTATIONS = 12
SINE_MV = np.sin(2 * np.pi * np.arange(4096) / 400)[:, None] * np.array(
    [1, 0.5, -0.5, -0.75, 0.75, 0, 1, 2, 1, 1, 1, 1]
)


def write_part(path: Path, ids: list[int], dtype: str = "f4", **storage: object) -> None:
    """A part as in the release: 2 × mV, one all-zero row with exam_id 0 at the end; exam i is the sine plus i µV."""
    stored = np.stack([2 * (SINE_MV + 1e-3 * (i % 1000)) for i in ids] + [np.zeros((4096, 12))])
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=stored.astype(dtype), **storage)
        file["exam_id"] = np.array([*ids, 0])


def write_table(folder: Path, exams: dict[int, str]) -> None:
    """`exams.csv` in the order given, which is not that of the files."""
    table = pd.DataFrame({"exam_id": list(exams), "age": 50, "is_male": [k % 2 == 0 for k in exams]})
    table = table.assign(**dict.fromkeys(CODE_LABELS, False), patient_id=1, death="", trace_file=exams.values())
    table["AF"] = table["exam_id"] % 3 == 0
    table.to_csv(folder / "exams.csv", index=False)


def zip_it(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    path.unlink()
    return path.with_suffix(".zip")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three parts of four exams: plain, float64 and compressed, zipped."""
    write_part(tmp_path / "exams_part0.hdf5", [4, 2, 3, 1])
    write_part(tmp_path / "exams_part1.hdf5", [12, 14, 11, 13], "f8", chunks=(3, 1024, 4), compression="gzip")
    write_part(tmp_path / "exams_part2.hdf5", [21, 24, 23, 22])
    zip_it(tmp_path / "exams_part2.hdf5")
    write_table(tmp_path, {k: f"exams_part{k // 10}.hdf5" for k in (24, 1, 2, 13, 12, 21, 3, 4, 11, 14, 22, 23)})
    return tmp_path


def recordings(source: Source, start: int = 0, stop: int | None = None) -> list[Recording]:
    found = list(source.read(start, len(source.names) if stop is None else stop))
    assert all(isinstance(x, Recording) for x in found), found
    return found  # type: ignore[return-value]


def reasons(source: Source) -> dict[str, str]:
    return {x.record: x.reason for x in source.refused}


def test_a_release_in_plain_and_zipped_parts(release: Path) -> None:
    assert looks_like_code(release)
    source = pickle.loads(pickle.dumps(open_code_release(release, SourceOptions())))
    order = [4, 2, 3, 1, 12, 14, 11, 13, 21, 24, 23, 22]
    assert list(source.names) == [str(k) for k in order] and source.refused == ()
    assert source.changed == ("stored amplitudes × 0.5 are mV", "3 all-zero rows with exam_id 0 left out")
    for exam_id, found in zip(order, recordings(source), strict=True):
        assert (found.record, found.fs_hz, tuple(found.leads)) == (str(exam_id), 400, LEADS)
        assert found.signal.dtype == np.float32
        np.testing.assert_allclose(found.signal, SINE_MV + 1e-3 * exam_id, atol=1e-6)
        row = found.row
        assert (row["exam_id"], row["patient_id"], row["age"], row["AF"]) == (exam_id, 1, 50.0, exam_id % 3 == 0)
        assert row["is_male"] is (exam_id % 2 == 0) and "trace_file" not in row


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (2, 3), (3, 9), (5, 12), (11, 12)])
def test_any_range_gives_the_same_records(release: Path, start: int, stop: int) -> None:
    source = open_code_release(release, SourceOptions())
    assert [x.record for x in recordings(source, start, stop)] == list(source.names)[start:stop]
    for a, b in zip(recordings(source, start, stop), recordings(source)[start:stop], strict=True):
        np.testing.assert_array_equal(a.signal, b.signal)


def test_the_unit_can_be_declared(release: Path) -> None:
    for options, factor in (
        (SourceOptions(as_declared=True), 2.0),
        (SourceOptions(mv_per_unit=0.25), 0.5),
        (SourceOptions(mv_per_unit=0.25, as_declared=True), 0.5),
    ):
        signal = recordings(open_code_release(release, options), 3, 4)[0].signal
        np.testing.assert_allclose(signal, factor * (SINE_MV + 1e-3), atol=1e-6)


def test_what_our_own_writer_wrote_comes_back(tmp_path: Path) -> None:
    signal = np.random.default_rng(0).normal(0, 0.2, (3, 4096, 12)).astype(np.float32)
    for unit in ("mV", "zscore"):
        with CodeWriter(tmp_path / unit, unit=unit) as writer:
            writer.append(pd.DataFrame({"exam_id": [7, 8, 9]}), signal)
        source = open_code_release(tmp_path / unit, SourceOptions(as_declared=True))
        assert source.unit == unit
        np.testing.assert_allclose([x.signal for x in recordings(source)], signal, atol=1e-3)


def test_full_code_as_hdf5_has_other_names_and_no_trace_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "code.h5", "w") as file:
        file["signal"] = np.stack([2 * SINE_MV, 4 * SINE_MV]).astype("f4")
        file["id_exam"] = np.array([9, 8])
    lines = {
        "id_exam": [7, 8, 9],
        "id_patient": [1, 1, 2],
        "age": [40, 50, 60],
        "sex": ["M", "F", "M"],
        "AF": [0, 1, 0],
    }
    pd.DataFrame(lines).to_csv(tmp_path / "annotations.csv", index=False)
    source = open_code_release(tmp_path, SourceOptions())
    first, second = recordings(source)
    assert (first.row["exam_id"], first.row["patient_id"], first.row["is_male"]) == (9, 2, True)
    assert (second.row["exam_id"], second.row["AF"], second.row["is_male"]) == (8, True, False)
    np.testing.assert_allclose(second.signal, 2 * SINE_MV, atol=1e-6)
    assert reasons(source) == {"7": "no part has a trace with its exam_id"}


def test_a_missing_or_damaged_part_costs_its_own_exams(release: Path) -> None:
    truncated = (release / "exams_part1.hdf5").read_bytes()[:200_000]
    (release / "exams_part1.hdf5").write_bytes(truncated)
    (release / "exams_part2.zip").unlink()
    write_part(release / "exams_part3.hdf5", [31])
    damaged = bytearray(zip_it(release / "exams_part3.hdf5").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (release / "exams_part3.zip").write_bytes(damaged)
    write_part(release / "exams_part4.hdf5", [41])
    (release / "exams_part4.hdf5").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    write_part(release / "exams_part5.hdf5", [51])
    half = zip_it(release / "exams_part5.hdf5").read_bytes()
    (release / "exams_part5.zip").write_bytes(half[: len(half) // 2])
    with h5py.File(release / "exams_part6.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = np.zeros((1, 12, 4096)), np.array([61])
    with h5py.File(release / "exams_part7.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = np.zeros((1, 4096, 12)), np.array(["71"], dtype="S2")
    ids = [1, 2, 5, 11, 21, 31, 41, 51, 61, 71, 81]
    write_table(release, {k: f"exams_part{k // 10}.hdf5" for k in ids})
    source = open_code_release(release, SourceOptions())
    assert [x.record for x in recordings(source)] == ["2", "1"]
    assert "2 traces that the table does not list left out" in source.changed
    found = reasons(source)
    for record, words in {
        "5": "no trace with its exam_id in exams_part0.hdf5",
        "11": "exams_part1.hdf5: cannot be read, it is damaged or not completely downloaded",
        "21": "exams_part2.hdf5 is not there, nor its zip",
        "31": "exams_part3.zip: exams_part3.hdf5 is damaged in the zip",
        "41": "exams_part4.hdf5: is a Git LFS pointer",
        "51": "exams_part5.zip: cannot be read as a zip",
        "61": "shape (1, 12, 4096)",
        "71": "expected whole numbers",
        "81": "exams_part8.hdf5 is not there",
    }.items():
        assert words in found.pop(record), record
    assert not found


def test_repeated_exams_are_refused_and_the_others_read(release: Path) -> None:
    with h5py.File(release / "exams_part0.hdf5", "r+") as file:
        file["exam_id"][0] = 3
    table = pd.read_csv(release / "exams.csv")
    pd.concat([table, table[table["exam_id"] == 12]]).to_csv(release / "exams.csv", index=False)
    source = open_code_release(release, SourceOptions())
    assert reasons(source) == {
        "12": "exam_id stands on lines 6, 14 of exams.csv",
        "3": "has several traces",
        "4": "no trace with its exam_id in exams_part0.hdf5",
    }
    assert len(recordings(source)) == 9


def test_damage_within_a_part_costs_only_the_records_it_touches(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored_rows.StoredArray.rows

    def rows(array: stored_rows.StoredArray, start: int, stop: int) -> np.ndarray:
        if array.path.name == "exams_part0.hdf5" and start <= 2 < stop:
            raise DataError("exams_part0.hdf5: cannot be read, it is damaged")
        return whole(array, start, stop)

    monkeypatch.setattr(stored_rows.StoredArray, "rows", rows)
    found = list(open_code_release(release, SourceOptions()).read(0, 12))
    assert [x.record for x in found if isinstance(x, Refused)] == ["3"] and len(found) == 12


def test_folders_that_cannot_be_used(release: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="matches 'x\\*'"):
        open_code_release(release, SourceOptions(records="x*"))
    assert list(open_code_release(release, SourceOptions(records="1?")).names) == ["12", "14", "11", "13"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no exams\.csv"):
        open_code_release(empty, SourceOptions())
    write_table(empty, {1: "exams_part0.hdf5"})
    assert not looks_like_code(empty)
    (empty / "exams_part0.hdf5").write_bytes(b"")
    with pytest.raises(DataError, match=r"no part can be read; exams_part0.hdf5: cannot be read"):
        open_code_release(empty, SourceOptions())
    with h5py.File(empty / "exams_part0.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = np.zeros((1, 4096, 12), dtype=complex), np.array([1])
    with pytest.raises(DataError, match="type complex128"):
        open_code_release(empty, SourceOptions())
    (empty / "exams.csv").write_text("exam_id,age\nfirst,50\n")
    with pytest.raises(DataError, match="exam_id must be a whole number; line 2 has 'first'"):
        open_code_release(empty, SourceOptions())


def test_mutated_parts_are_refused_or_read_never_a_traceback(release: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("exams_part0.hdf5", "exams_part1.hdf5", "exams_part2.zip"):
        whole = (release / name).read_bytes()
        for k in range(N_MUTATIONS):
            changed = bytearray(whole)
            if k % 4 == 0:
                changed = changed[: rng.integers(len(whole))]
            for place in rng.integers(0, 4096 if k % 2 else len(whole), 8):
                if place < len(changed):
                    changed[place] ^= int(rng.integers(1, 256))
            (release / name).write_bytes(changed)
            source = open_code_release(release, SourceOptions())
            found = list(source.read(0, len(source.names)))
            assert [x.record for x in found] == list(source.names)
            assert len(found) + len(source.refused) == 12
        (release / name).write_bytes(whole)


@needs_real
@pytest.mark.parametrize("folder", ["code15-sample", "code15-sample/mini"])
def test_real_code15_sample(folder: str) -> None:
    source = open_code_release(REAL / folder, SourceOptions())
    found = {x.record: x for x in recordings(source)}
    assert len(found) == 10 and source.refused == ()
    table = pd.read_csv(REAL / "code15-sample" / "meta.csv").set_index("exam_id")
    for exam_id, line in table.iterrows():
        row, signal = found[str(exam_id)].row, found[str(exam_id)].signal
        assert all(row[name] == line[name] for name in ("age", "is_male", "patient_id", *CODE_LABELS))
        inner = signal[signal.any(axis=1)]
        np.testing.assert_allclose(
            inner.std(axis=0) * 2, line[[f"std_{k}" for k in range(12)]].astype(float), rtol=2e-3
        )
    as_declared = recordings(open_code_release(REAL / folder, SourceOptions(as_declared=True)))
    levels = [x.signal[:, 1] - np.median(x.signal[:, 1]) for x in as_declared]
    amplitude = np.median([np.quantile(np.abs(level), 0.998) for level in levels])
    assert amplitude == pytest.approx(1.57, abs=0.01)  # lead II; collections in mV have 0.7 to 0.95
