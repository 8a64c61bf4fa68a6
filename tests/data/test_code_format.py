"""CODE format: what is read is what the release means; what is written is whole, readable by others, and exact."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.code_format import CodeWriter, bad_records, open_code
from ecgscale.data.trace_part import PartWriter, compressed, read_chunks, to_stored
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg" / "code15-sample"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)


def make_signal(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4096, 12)).astype(np.float32)


def make_exams(ids: list[int]) -> pd.DataFrame:
    columns = {label: [(k + j) % 3 == 0 for k in range(len(ids))] for j, label in enumerate(CODE_LABELS)}
    return pd.DataFrame({"exam_id": ids, "age": 50.0, "is_male": True, **columns, "patient_id": [i // 2 for i in ids]})


def write_part(
    path: Path, ids: list[int], signal: np.ndarray, names: tuple[str, str] = ("exam_id", "tracings")
) -> None:
    with h5py.File(path, "w") as file:
        file[names[0]], file[names[1]] = np.array(ids), signal


def make_release(folder: Path, *, dtype: str = "f4", names: tuple[str, str] = ("exam_id", "tracings")) -> np.ndarray:
    """Two parts as CODE-15 % has them: file order is not csv order, each part ends with an all-zero row of exam 0.

    Returns the signals of exams 11, 12, 13, 14 in stored units."""
    signal = make_signal(4).astype(dtype)
    zero = np.zeros((1, 4096, 12), dtype)
    write_part(folder / "exams_part0.hdf5", [13, 11, 0], np.concatenate([signal[[2, 0]], zero]), names)
    write_part(folder / "exams_part1.hdf5", [14, 12, 0], np.concatenate([signal[[3, 1]], zero]), names)
    exams = make_exams([14, 11, 12, 13])
    exams["trace_file"] = [f"exams_part{k}.hdf5" for k in (1, 0, 1, 0)]
    exams.to_csv(folder / "exams.csv", index=False)
    return signal


@needs_real
def test_real_code15_exams_are_joined_by_id() -> None:
    folder = open_code(REAL / "mini")
    meta = pd.read_csv(REAL / "meta.csv").set_index("exam_id")
    assert len(folder.exams) == 10 and folder.unit == "mV" and folder.mv_per_unit == 0.5
    assert list(folder.exams["exam_id"]) == sorted(meta.index)
    for row, signal in zip(range(10), folder.read(range(10)), strict=True):
        exam = folder.exams.iloc[row]
        original = scipy.io.loadmat(REAL / "org" / meta.loc[exam["exam_id"], "save_file"])["feats"].T
        before = (4096 - len(original)) // 2
        np.testing.assert_array_equal(signal[before : before + len(original)], original * 0.5)
        assert not signal[:before].any() and not signal[before + len(original) :].any()
        assert all(exam[label] == meta.loc[exam["exam_id"], label] for label in CODE_LABELS)


@pytest.mark.parametrize(
    ("dtype", "names"),
    [("f4", ("exam_id", "tracings")), ("f8", ("exam_id", "tracings")), ("f4", ("id_exam", "signal"))],
)
def test_release_layouts_are_read(tmp_path: Path, dtype: str, names: tuple[str, str]) -> None:
    stored = make_release(tmp_path, dtype=dtype, names=names)
    folder = open_code(tmp_path)
    assert list(folder.exams["exam_id"]) == [11, 12, 13, 14]
    assert folder.n_unlisted == 0
    read = folder.read([3, 0, 2])
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, stored[[3, 0, 2]] * 0.5, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 256])
@pytest.mark.parametrize("chunks", [None, (3, 512, 1)])
def test_batches_give_every_exam_once_whatever_the_chunks(
    tmp_path: Path, size: int, chunks: tuple[int, int, int] | None
) -> None:
    signal = make_signal(8)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["exam_id"] = np.arange(20, 12, -1)
        file.create_dataset("tracings", data=signal, chunks=chunks)
    make_exams([20, 19, 15, 16, 13]).to_csv(tmp_path / "exams.csv", index=False)
    folder = open_code(tmp_path, mv_per_unit=1)
    seen = [(rows, block) for rows, block in folder.batches(size)]
    rows = np.concatenate([r for r, _ in seen])
    assert max(len(r) for r, _ in seen) <= size
    assert sorted(rows) == list(range(5))
    blocks = np.concatenate([block for _, block in seen])
    np.testing.assert_array_equal(blocks, signal[20 - folder.exams["exam_id"].to_numpy()[rows]])
    assert folder.n_unlisted == 3


def test_without_trace_file_all_parts_are_searched(tmp_path: Path) -> None:
    stored = make_release(tmp_path)
    table = pd.read_csv(tmp_path / "exams.csv").drop(columns="trace_file")
    table.to_csv(tmp_path / "exams.csv", index=False)
    np.testing.assert_allclose(open_code(tmp_path).read([0, 1, 2, 3]), stored * 0.5, rtol=1e-6)


def test_annotations_of_the_full_release_are_understood(tmp_path: Path) -> None:
    make_release(tmp_path, names=("id_exam", "signal"))
    (tmp_path / "exams.csv").unlink()
    lines = ["id_exam,id_patient,age,sex,date_exam,1dAVb,RBBB,LBBB,SB,AF,ST"]
    lines += [f"{i},{i + 100},60,{'MF'[i % 2]},2015-01-01,0,1,0,0,0,1" for i in (14, 11, 12, 13)]
    (tmp_path / "annotations.csv").write_text("\n".join(lines))
    exams = open_code(tmp_path).exams
    assert list(exams["patient_id"]) == [111, 112, 113, 114]
    assert list(exams["is_male"]) == [False, True, False, True]
    assert exams["RBBB"].all() and not exams["AF"].any() and exams["ST"].dtype == bool
    assert "date_exam" in exams.columns


def test_labels_are_taken_by_name_and_written_in_any_way(tmp_path: Path) -> None:
    make_release(tmp_path)
    (tmp_path / "exams.csv").write_text(
        "AF,exam_id,ST,split\nTrue,11,0,train\nFALSE,12,1,val\n1,13,0.0,test\n0,14,1,test\n"
    )
    exams = open_code(tmp_path).exams
    assert list(exams["AF"]) == [True, False, True, False]
    assert list(exams["ST"]) == [False, True, False, True]
    assert list(exams["split"]) == ["train", "val", "test", "test"]
    assert exams["age"].isna().all() and exams["is_male"].isna().all()


def test_integers_need_a_scale(tmp_path: Path) -> None:
    signal = np.full((1, 4096, 12), 1500, np.int16)
    write_part(tmp_path / "p.hdf5", [1], signal)
    make_exams([1]).to_csv(tmp_path / "exams.csv", index=False)
    with pytest.raises(DataError, match=r"p\.hdf5.*int16.*scale"):
        open_code(tmp_path)
    with h5py.File(tmp_path / "p.hdf5", "a") as file:
        file["tracings"].attrs["scale"] = 0.001
    assert open_code(tmp_path).read([0])[0, 0, 0] == pytest.approx(0.75)
    assert open_code(tmp_path, mv_per_unit=1).read([0])[0, 0, 0] == pytest.approx(1.5)


def test_mv_per_unit_argument_beats_attribute_beats_default(tmp_path: Path) -> None:
    write_part(tmp_path / "p.hdf5", [1], np.ones((1, 4096, 12), np.float32))
    make_exams([1]).to_csv(tmp_path / "exams.csv", index=False)
    assert open_code(tmp_path).read([0]).max() == 0.5
    with h5py.File(tmp_path / "p.hdf5", "a") as file:
        file["tracings"].attrs["mv_per_unit"] = 0.25
    assert open_code(tmp_path).read([0]).max() == 0.25
    assert open_code(tmp_path, mv_per_unit=2).read([0]).max() == 2.0


def break_trace_file(folder: Path) -> None:
    with h5py.File(folder / "exams_part1.hdf5", "a") as file:
        file["exam_id"][:2] = [98, 99]


def break_tracings(folder: Path) -> None:
    with h5py.File(folder / "exams_part0.hdf5", "a") as file:
        file.move("tracings", "ecg")


def break_shape(folder: Path) -> None:
    write_part(folder / "exams_part0.hdf5", [13, 11], np.zeros((2, 12, 4096), np.float32))


def break_ids(folder: Path) -> None:
    write_part(folder / "exams_part0.hdf5", [13, 11, 5], np.zeros((2, 4096, 12), np.float32))


def break_csv_ids(folder: Path) -> None:
    table = pd.read_csv(folder / "exams.csv")
    pd.concat([table, table.iloc[:1]]).to_csv(folder / "exams.csv", index=False)


def break_file(folder: Path) -> None:
    path = folder / "exams_part1.hdf5"
    path.write_bytes(path.read_bytes()[:1_000])


def break_patient(folder: Path) -> None:
    table = pd.read_csv(folder / "exams.csv").astype({"patient_id": float})
    table.loc[1, "patient_id"] = np.nan
    table.to_csv(folder / "exams.csv", index=False)


def break_label(folder: Path) -> None:
    pd.read_csv(folder / "exams.csv").assign(AF=["yes", 0, 1, 0]).to_csv(folder / "exams.csv", index=False)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "exams.csv").unlink(), r"no exams\.csv"),
        (lambda folder: (folder / "exams.csv").write_text("exam_id,age\n"), r"exams\.csv.*no exams"),
        (lambda folder: (folder / "exams.csv").write_text("age\n3\n"), r"no column exam_id"),
        (lambda folder: [path.unlink() for path in folder.glob("*.hdf5")], r"no \*\.hdf5"),
        (break_trace_file, r"2 of 4 exams have no trace.*exam_id 14, 12.*partial=True"),
        (break_tracings, r"exams_part0\.hdf5: no data set 'tracings'.*ecg"),
        (break_shape, r"exams_part0\.hdf5.*shape \(2, 12, 4096\)"),
        (break_ids, r"exams_part0\.hdf5.*same length"),
        (break_csv_ids, r"repeated: 14"),
        (break_file, r"exams_part1\.hdf5.*damaged or not completely downloaded"),
        (break_patient, r"patient_id is empty for exam_id 11"),
        (break_label, r"AF must be True/False or 1/0; line 2 has 'yes'"),
    ],
)
def test_broken_folders_are_refused_with_the_place_and_the_way_out(tmp_path: Path, break_it, message: str) -> None:
    make_release(tmp_path)
    break_it(tmp_path)
    with pytest.raises(DataError, match=message):
        open_code(tmp_path)


def test_a_download_of_some_parts_can_be_used_when_asked_for(tmp_path: Path) -> None:
    stored = make_release(tmp_path)
    (tmp_path / "exams_part1.hdf5").unlink()
    folder = open_code(tmp_path, partial=True)
    assert list(folder.exams["exam_id"]) == [11, 13] and folder.n_without_trace == 2
    np.testing.assert_allclose(folder.read([0, 1]), stored[[0, 2]] * 0.5, rtol=1e-6)


def test_damaged_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with CodeWriter(tmp_path / "code") as writer:
        writer.append(make_exams([1, 2]), make_signal(2))
    part = tmp_path / "code" / "exams_part0.hdf5"
    whole = part.read_bytes()
    for _ in range(30):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, min(len(damaged), 8192), 4):
            damaged[place] = rng.integers(256)
        part.write_bytes(damaged)
        try:
            for _, signal in open_code(tmp_path / "code").batches():
                assert signal.shape[1:] == (4096, 12)
        except DataError:
            pass


def test_written_folder_reads_back_within_a_quarter_microvolt(tmp_path: Path) -> None:
    signal_mv, exams = make_signal(5) * 3, make_exams([5, 3, 9, 1, 7]).assign(split="train", potassium=4.1)
    with CodeWriter(tmp_path / "code", records_per_part=2, provenance={"source": "a test"}) as writer:
        writer.append(exams.iloc[:3], signal_mv[:3])
        writer.append(exams.iloc[3:], signal_mv[3:])
    folder = open_code(tmp_path / "code")
    assert [len(part.ids) for part in folder.parts] == [2, 2, 1]
    assert list(folder.exams["exam_id"]) == [1, 3, 5, 7, 9]
    assert np.abs(folder.read(range(5)) - signal_mv[[3, 1, 0, 4, 2]]).max() < 0.25e-3
    assert folder.exams["potassium"].eq(4.1).all() and folder.exams["split"].eq("train").all()
    header = (tmp_path / "code" / "exams.csv").read_text().splitlines()[0]
    assert header == "exam_id,age,is_male,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,trace_file,split,potassium"
    provenance = json.loads((tmp_path / "code" / "provenance.json").read_text("utf-8"))
    assert provenance["source"] == "a test" and provenance["n_exams"] == 5
    with h5py.File(tmp_path / "code" / "exams_part0.hdf5") as file:  # what another CODE-15 % program sees: 2 × mV
        assert file["tracings"].dtype == np.float32
        assert np.abs(file["tracings"][0] - 2 * signal_mv[0]).max() < 0.5e-3
        attributes = dict(file["tracings"].attrs)
    assert (attributes["mv_per_unit"], attributes["unit"], attributes["fs_hz"]) == (0.5, b"mV", 400.0)
    assert tuple(lead.decode() for lead in attributes["leads"]) == LEADS


def test_zscored_signals_stay_zscored(tmp_path: Path) -> None:
    with CodeWriter(tmp_path / "z", unit="zscore") as writer:
        writer.append(make_exams([1]), make_signal(1))
    folder = open_code(tmp_path / "z")
    assert (folder.unit, folder.mv_per_unit) == ("zscore", 1.0)
    np.testing.assert_allclose(folder.read([0]), make_signal(1), atol=0.5e-3)


def test_after_an_exception_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="planted"), CodeWriter(tmp_path / "code") as writer:
        writer.append(make_exams([1]), make_signal(1))
        raise RuntimeError("planted")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no record"), CodeWriter(tmp_path / "code"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_existing_folders_are_replaced_only_when_asked_and_complete(tmp_path: Path) -> None:
    def write(value: float, *, overwrite: bool, fail: bool = False) -> None:
        with CodeWriter(tmp_path / "code", overwrite=overwrite) as writer:
            writer.append(make_exams([1]), np.full((1, 4096, 12), value, np.float32))
            if fail:
                raise RuntimeError("planted")

    write(1.0, overwrite=False)
    with pytest.raises(DataError, match="exists already"):
        write(2.0, overwrite=False)
    with pytest.raises(RuntimeError):
        write(2.0, overwrite=True, fail=True)
    assert open_code(tmp_path / "code").read([0]).max() == 1.0
    write(2.0, overwrite=True)
    assert open_code(tmp_path / "code").read([0]).max() == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["code"]
    (tmp_path / "home").mkdir()
    with pytest.raises(DataError, match="not in CODE format"), CodeWriter(tmp_path / "home", overwrite=True):
        pass


def test_writer_refuses_wrong_shapes_and_repeated_exams(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(1, 12, 4096\)"), CodeWriter(tmp_path / "a") as writer:
        writer.append(make_exams([1]), make_signal(1).transpose(0, 2, 1))
    with pytest.raises(DataError, match="exam_id written twice: 1"), CodeWriter(tmp_path / "b") as writer:
        writer.append(make_exams([1]), make_signal(1))
        writer.append(make_exams([2, 1]), make_signal(2))


def test_chunks_that_span_many_records_are_warned_about(tmp_path: Path) -> None:
    def said(**storage: object) -> str:
        with h5py.File(tmp_path / "p.hdf5", "w") as file:
            file["exam_id"] = np.arange(1, 5)
            file.create_dataset("tracings", data=make_signal(4), **storage)
        return open_code(tmp_path).slow_random_access

    make_exams([1, 2, 3, 4]).to_csv(tmp_path / "exams.csv", index=False)
    assert said() == ""
    assert said(chunks=(1, 4096, 12), compression="gzip") == ""
    assert said(chunks=(4, 64, 1)) == ""
    assert "p.hdf5 is compressed (deflate) in chunks of 4 records" in said(chunks=(4, 64, 1), compression="gzip")
    assert "(shuffle, lzf)" in said(chunks=(2, 4096, 12), compression="lzf", shuffle=True)


def test_compressed_records_are_copied_as_they_are(tmp_path: Path) -> None:
    stored = np.concatenate([to_stored(make_signal(2), "mV"), np.zeros((1, 4096, 12), np.float32)])
    stored[1] = np.frombuffer(np.random.default_rng(1).bytes(stored[1].nbytes), "<f4").reshape(4096, 12)
    first = PartWriter(tmp_path / "first.hdf5", "mV")
    first.append([3, 1, 2], [compressed(record) for record in stored])  # the second gets longer by it
    first.close()
    chunks = read_chunks(first.path)
    second = PartWriter(tmp_path / "second.hdf5", "mV")
    second.append([1, 2], chunks[1:])
    second.append([3], chunks[:1])
    second.close()
    with h5py.File(second.path) as file:
        assert list(file["exam_id"]) == [1, 2, 3]
        assert file["tracings"][:].tobytes() == stored[[1, 2, 0]].tobytes()
    first.path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"first\.hdf5"):
        read_chunks(first.path)


def test_fingerprint_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    def write(name: str, signal: np.ndarray, exams: pd.DataFrame) -> str:
        with CodeWriter(tmp_path / name) as writer:
            writer.append(exams, signal)
        return open_code(tmp_path / name).fingerprint()

    exams, signal = make_exams([1, 2]), make_signal(2)
    first = write("a", signal, exams)
    assert len(first) == 12 and int(first, 16) >= 0
    assert write("b", signal, exams) == first
    assert write("c", signal + 0.1, exams) != first
    assert write("d", signal, exams.assign(age=51.0)) != first
    assert open_code(tmp_path / "a", mv_per_unit=1).fingerprint() != first


def test_bad_records_have_reasons() -> None:
    signal = make_signal(4)
    signal[1] = 0
    signal[2, 100, 3] = np.nan
    signal[3, 0, 0], signal[3, 1, 0] = np.inf, -np.inf
    assert list(bad_records(signal)) == ["", "all zero", "NaN", "NaN"]
