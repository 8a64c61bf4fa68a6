"""A store is made once, the same with any number of processes, after any interruption; bad records are named."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from code_folders import FULL, QUARTER, millivolts, noise_mv, signals, sine_mv, write_folder

from ecgscale.conventions import CODE_LABELS, CODE_N_SAMPLES
from ecgscale.data import packing, shard_writer
from ecgscale.data.code_format import open_code
from ecgscale.data.compact_table import compact
from ecgscale.data.packing import pack, packed
from ecgscale.data.store import HEADER, INDEX, open_store, store_name, verify
from ecgscale.errors import DataError


def pack_small(folder: Path, *, jobs: int = 1, records_per_shard: int = 5, name: str = "small", **options):
    """A store of several shards of a few records, and the numbers its progress was told."""
    told: list[int] = []
    pack(
        open_code(folder),
        QUARTER,
        folder / "packed" / name,
        skip_bad=options.pop("skip_bad", False),
        fingerprint=options.pop("fingerprint", "f"),
        jobs=jobs,
        shard_bytes=records_per_shard * 2 * 12 * QUARTER.n_samples,
        progress=told.append,
        **options,
    )
    return open_store(folder / "packed" / name), told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "P", [sine_mv(5)] * 4)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """23 records in parts of 9."""
    return write_folder(tmp_path / "M", noise_mv(23), records_per_part=9)


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


# --- made once -----------------------------------------------------------------------------------------------------


def test_an_unchanged_source_is_not_packed_again(folder):
    counted: list[int] = []
    first = packed(folder, QUARTER, progress=counted.append)
    written = (first.path / "signals-00000.npy").stat().st_mtime_ns
    again = packed(folder, QUARTER, progress=counted.append)
    assert sum(counted) == 4  # the second time nothing was done
    assert (again.path / "signals-00000.npy").stat().st_mtime_ns == written
    assert again.header == first.header


@pytest.mark.parametrize("change", ["signal", "table"])
def test_a_changed_source_is_packed_again(folder, change):
    before = packed(folder, QUARTER)
    # what is packed stays where it is while the records beside it change
    if change == "signal":
        other = write_folder(folder.parent / "other", [sine_mv(5, 2.0)] * 4)
        shutil.copy(other / "exams_part0.hdf5", folder)
    else:
        table = pd.read_csv(folder / "exams.csv")
        table.assign(age=70).to_csv(folder / "exams.csv", index=False)
    after = packed(folder, QUARTER)
    assert after.header.fingerprint != before.header.fingerprint
    if change == "signal":
        assert np.abs(millivolts(after)).max() == pytest.approx(2.0, rel=0.02)
    else:
        assert set(after.index["age"]) == {70}


def test_a_store_of_the_former_version_is_packed_again(folder):
    path = packed(folder, QUARTER).path
    former = {"format_version": 1, "fingerprint": open_code(folder).fingerprint(), "scale": 0.001}
    (path / HEADER).write_text(json.dumps(former))
    assert packed(folder, QUARTER).header.format_version == 2


def test_every_input_has_a_store_of_its_own(folder):
    inputs = [
        FULL,
        QUARTER,
        QUARTER.model_copy(update={"n_samples": 512}),
        QUARTER.model_copy(update={"bandpass_hz": (0.5, 40.0)}),
        QUARTER.model_copy(update={"bandpass_hz": (0.5, 30.0)}),
    ]
    assert len({store_name(spec) for spec in inputs}) == len(inputs)
    # how the signal is normalised, patched and cropped is decided later
    for later in ({"normalise": "fixed", "patch_samples": 32}, {"n_samples": 512, "store_samples": 1024}):
        assert store_name(QUARTER) == store_name(QUARTER.model_copy(update=later))
    for spec in inputs[:3]:
        assert signals(packed(folder, spec)).shape[-1] == spec.n_samples


def test_a_store_may_hold_more_than_the_encoder_sees(folder):
    spec = FULL.model_copy(update={"n_samples": 2048, "store_samples": 4096})
    np.testing.assert_array_equal(signals(packed(folder, spec)), signals(packed(folder, FULL)))


# --- the index -----------------------------------------------------------------------------------------------------


def test_the_index_has_every_column_of_the_table(tmp_path):
    folder = write_folder(tmp_path / "P", [sine_mv(5)] * 3, potassium_mmol_l=[4.0, np.nan, 5.3], site=["x", "y", None])
    index = packed(folder, QUARTER).index
    assert {"exam_id", "patient_id", "age", "is_male", *CODE_LABELS, "start", "stop"} <= set(index)
    np.testing.assert_array_equal(index["potassium_mmol_l"], [4.0, np.nan, 5.3])
    assert (index["potassium_mmol_l"] > 5.3).sum() == 0  # not 5.30000019
    assert index["site"].tolist()[:2] == ["x", "y"] and index["site"].isna()[2]


def test_rows_follow_exam_ids_and_signals_follow_their_rows(tmp_path):
    """Traces lie in the files in any order, and the csv is in yet another."""
    records, ids = noise_mv(7), [30, 10, 50, 20, 70, 60, 40]
    folder = write_folder(tmp_path / "P", records, exam_id=ids, records_per_part=3)
    table = pd.read_csv(folder / "exams.csv").sample(frac=1, random_state=0)
    table.to_csv(folder / "exams.csv", index=False)
    store, _ = pack_small(folder, records_per_shard=2)
    assert store.index["exam_id"].tolist() == sorted(ids)
    assert sorted(store.index["slot"]) == list(range(7))
    reference = packed(folder, QUARTER)
    for row, exam in enumerate(sorted(ids)):
        alone = write_folder(tmp_path / f"{exam}", [records[ids.index(exam)]])
        np.testing.assert_array_equal(signals(store)[row], signals(packed(alone, QUARTER))[0])
    np.testing.assert_array_equal(signals(reference), signals(store))
    lines = dict(zip(table["exam_id"], range(7), strict=True))
    assert store.index["line"].tolist() == [lines[exam] for exam in sorted(ids)]


def test_a_column_with_a_name_of_the_store_is_refused(tmp_path):
    folder = write_folder(tmp_path / "P", [sine_mv(5)], start=[3])
    with pytest.raises(DataError, match=r"P: exams\.csv has a column 'start', a name the store needs; rename it"):
        packed(folder, QUARTER)


def test_the_index_of_two_million_exams_fits_into_300_mb():
    n = 20_000
    table = pd.DataFrame({"exam_id": np.arange(n) + 4_000_000, "patient_id": np.arange(n) // 2 + 1_000_000})
    table["age"] = np.arange(n) % 90 + 0.0
    table["is_male"] = pd.array([True, None] * (n // 2), dtype="boolean")
    table = table.assign(**dict.fromkeys(CODE_LABELS, False), nn_predicted_age=np.arange(n) / 7, timey=np.arange(n) / 9)
    table["death"] = pd.Series([True, None, False, None] * (n // 4), dtype=object)
    table["trace_file"] = [f"exams_part{k % 18}.hdf5" for k in range(n)]
    table = table.assign(trace_row=np.arange(n), slot=np.arange(n), start=48, stop=4048, line=np.arange(n))
    table["crc32"] = np.arange(n, dtype=np.uint32)
    index = compact(table)
    same = table.drop(columns="death")
    pd.testing.assert_frame_equal(index[list(same)].astype(same.dtypes.to_dict()), same)
    per_row = index.memory_usage(deep=True).sum() / n
    assert per_row * 2_300_000 < 300e6, f"{per_row:.0f} bytes per row"


def test_compact_columns_keep_every_value():
    table = pd.DataFrame(
        {
            "third": [1 / 3, np.nan, 2.0],
            "half": [0.5, np.nan, 2.0],
            "large": [2**40, 1, 2],
            "mixed": ["1", 2.5, None],
            "flag": pd.Series([True, None, False], dtype=object),
            "huge": [1e300, 1.0, np.inf],
        }
    )
    found = compact(table)
    assert found["third"].tolist()[0] == 1 / 3 and found["half"].dtype == np.float32
    assert found["large"].tolist() == [2**40, 1, 2] and found["huge"].tolist() == [1e300, 1.0, np.inf]
    assert found["mixed"].tolist()[:2] == ["1", "2.5"] and found["mixed"].isna()[2]
    assert found["flag"].dtype == "boolean" and found["flag"].isna().tolist() == [False, True, False]


# --- records that can't be used ------------------------------------------------------------------------------------


def folder_with_bad_records(folder: Path) -> Path:
    nan, infinite = sine_mv(5), sine_mv(5)
    nan[2000, 7], infinite[5, 0] = np.nan, np.inf
    return write_folder(
        folder, [sine_mv(5, 1.0), 0 * nan[:1].repeat(4096, 0), sine_mv(5, 2.0), nan, infinite, sine_mv(5, 50.0)]
    )


def test_records_that_can_not_be_used_are_refused_by_name_and_there_is_no_store(tmp_path):
    folder = folder_with_bad_records(tmp_path / "P")
    with pytest.raises(DataError) as caught:
        packed(folder, QUARTER)
    message = str(caught.value)
    assert "4 of 6 records can't be used" in message
    for exam, reason in ((101, "all zero"), (103, "NaN"), (104, "NaN"), (105, "lead I reaches 50")):
        assert f"exam_id {exam}: {reason}" in message
    assert "exams.csv" in message and "--skip-bad" in message
    with pytest.raises(DataError, match="not a packed store"):
        open_store(folder / "packed" / store_name(QUARTER))


def test_leaving_bad_records_out_goes_on_with_what_is_packed(tmp_path, monkeypatch):
    folder = folder_with_bad_records(tmp_path / "P")
    with pytest.raises(DataError):
        packed(folder, QUARTER)
    monkeypatch.setattr(shard_writer, "digitise", None)  # not needed any more
    store = packed(folder, QUARTER, skip_bad=True)
    assert list(store.index["exam_id"]) == [100, 102] and len(store) == 2
    np.testing.assert_allclose(np.abs(millivolts(store)).max(axis=(1, 2)), [1.0, 2.0], rtol=0.02)
    assert list(store.header.refused) == ["101", "103", "104", "105"]
    assert [p.name for p in store.path.parent.iterdir()] == [store.path.name]


def test_many_bad_records_are_counted_and_the_first_named(tmp_path):
    folder = write_folder(tmp_path / "P", [np.zeros((CODE_N_SAMPLES, 12))] * 8 + [sine_mv(5)])
    with pytest.raises(DataError, match=r"8 of 9 records.*exam_id 104: all zero and 3 more"):
        packed(folder, QUARTER)


def test_a_folder_without_one_usable_record_is_refused(tmp_path):
    folder = write_folder(tmp_path / "P", [np.zeros((CODE_N_SAMPLES, 12))])
    with pytest.raises(DataError, match="no usable record"):
        packed(folder, QUARTER, skip_bad=True)


# --- shards, processes, interruptions ------------------------------------------------------------------------------


def test_shards_are_no_larger_than_asked_for_and_hold_the_same_records(many):
    store, told = pack_small(many)
    assert len(store.header.shard_bytes) == 5
    assert max(store.header.shard_bytes) <= 5 * 24 * 1024 + 256
    assert sum(told) == 23
    np.testing.assert_array_equal(signals(store), signals(packed(many, QUARTER)))
    verify(store)


def test_the_bytes_do_not_depend_on_the_number_of_processes(many):
    alone, _ = pack_small(many, name="alone")
    together, told = pack_small(many, name="together", jobs=2)
    assert files_of(alone.path) == files_of(together.path)
    assert sum(told) == 23


def test_an_interrupted_pack_goes_on_with_the_shards_that_are_missing(many, monkeypatch):
    reference, _ = pack_small(many, name="reference")
    monkeypatch.setattr(shard_writer, "digitise", interrupted_after(13, shard_writer.digitise))
    with pytest.raises(KeyboardInterrupt):
        pack_small(many)
    assert not (many / "packed" / "small").exists()
    unfinished = many / "packed" / "small.unfinished"
    assert len(list(unfinished.glob("signals-*.npy"))) == 2
    begun = {file.name: file.stat().st_mtime_ns for file in unfinished.glob("signals-*.npy")}
    monkeypatch.undo()
    store, told = pack_small(many)
    assert told[0] == 10 and sum(told) == 23
    assert files_of(store.path) == files_of(reference.path)
    assert all((store.path / name).stat().st_mtime_ns == when for name, when in begun.items())
    assert not unfinished.exists()


def interrupted_after(n_records: int, real):
    left = n_records

    def digitise(signal, *arguments):
        nonlocal left
        left -= len(signal)
        if left < 0:
            raise KeyboardInterrupt
        return real(signal, *arguments)

    return digitise


@pytest.mark.parametrize("change", ["fingerprint", "scale", "version"])
def test_shards_of_other_records_inputs_or_programs_are_not_gone_on_with(many, monkeypatch, change):
    monkeypatch.setattr(shard_writer, "digitise", interrupted_after(13, shard_writer.digitise))
    with pytest.raises(KeyboardInterrupt):
        pack_small(many)
    monkeypatch.undo()
    if change == "version":
        monkeypatch.setattr(shard_writer, "version", lambda name: "99")
    options = {"fingerprint": {"fingerprint": "other"}, "scale": {"scale": 0.0005}, "version": {}}[change]
    _, told = pack_small(many, **options)
    assert told[0] == 0 and sum(told) == 23


def test_a_pack_interrupted_at_its_end_is_never_opened(folder, monkeypatch):
    def interrupted(self, *arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packed(folder, QUARTER)
    path = folder / "packed" / store_name(QUARTER)
    assert not path.exists()
    with pytest.raises(DataError, match="not a packed store"):
        open_store(path)
    monkeypatch.undo()
    assert len(packed(folder, QUARTER)) == 4  # the leftovers are no obstacle
    assert [p.name for p in path.parent.iterdir()] == [path.name]


KILLED = """
import sys
from pathlib import Path
from ecgscale.data.code_format import open_code
from ecgscale.data.packing import pack
from ecgscale.specs import InputSpec

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    spec = InputSpec(fs_hz=100, n_samples=1024, patch_samples=16)
    said = lambda n: print(n, flush=True)
    pack(open_code(folder), spec, folder / "packed" / "small", skip_bad=False, fingerprint="f", jobs=2,
         shard_bytes=5 * 24 * 1024, progress=said)
"""


def test_a_killed_pack_leaves_no_process_and_goes_on(tmp_path):
    folder = write_folder(tmp_path / "K", noise_mv(300))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    running = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "0\n"
    assert running.stdout.readline() == "5\n"  # the first shard of the pool
    workers = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    children = [int(pid) for pid in workers.read_text().split()] if workers.exists() else []
    running.send_signal(signal.SIGKILL)
    running.stdout.close()
    assert running.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children):
        assert time.monotonic() < deadline, "a worker outlived the pack"
        time.sleep(0.05)
    store, told = pack_small(folder)
    assert told[0] >= 5 and sum(told) == 300
    verify(store)


def test_a_full_disk_is_said_and_the_same_command_goes_on(many):
    """The limit of a file's size stands for the end of the disk: writing fails in the same place."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
    try:
        with pytest.raises(DataError, match=r"small\.unfinished: the disk is full\. What was finished is kept"):
            pack_small(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not (many / "packed" / "small").exists()
    store, _ = pack_small(many)
    verify(store)


def test_a_full_disk_is_said_by_other_processes_too(many, monkeypatch):
    def broken(job, jobs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packing, "_write_shards", broken)
    with pytest.raises(DataError, match=r"small\.unfinished: the disk is full"):
        pack_small(many)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(many, monkeypatch):
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(DataError, match=r"0\.0 GB are still to be written, 0\.0 GB are free; make room"):
        pack_small(many)
    assert not list((many / "packed" / "small.unfinished").glob("signals*"))


def hold_lock(folder: Path, held, release) -> None:
    with packing._folder_of_its_own(folder, {}):
        held.set()
        release.wait(30)


def test_two_processes_do_not_pack_the_same_store(many):
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold_lock, args=(many / "packed" / "small.unfinished", held, release))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(DataError, match="another process is packing this store; wait for it"):
            pack_small(many)
    finally:
        release.set()
        other.join()
    assert len(pack_small(many)[0]) == 23  # its lock went with it


def test_a_damaged_part_is_named_from_a_process_of_the_pool(many):
    part = many / "exams_part1.hdf5"
    source = open_code(many)
    part.write_bytes(part.read_bytes()[:100_000])
    path = many / "packed" / "small"
    with pytest.raises(DataError, match=r"exams_part1\.hdf5: cannot be read as HDF5"):
        pack(source, QUARTER, path, skip_bad=False, fingerprint="f", jobs=2, shard_bytes=5 * 24 * 1024)
    assert not path.exists()


def test_the_only_files_of_a_store_are_its_header_index_and_shards(many):
    store, _ = pack_small(many)
    assert set(files_of(store.path)) == {HEADER, INDEX, *(f"signals-{k:05d}.npy" for k in range(5))}
    first = np.load(store.path / "signals-00000.npy")
    np.testing.assert_array_equal(first, store.shards.read(np.arange(5)))
