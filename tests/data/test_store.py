"""A store is opened whole or not at all, without reading its signals, and hands out copies of any records."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from code_folders import QUARTER, noise_mv, signals, write_folder

from ecgscale.data.code_format import open_code
from ecgscale.data.packing import pack
from ecgscale.data.store import HEADER, INDEX, PackedStore, open_store, verify
from ecgscale.errors import DataError

N, PER_SHARD = 23, 5
RECORD_BYTES = 2 * 12 * 1024


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store of 23 records in shards of 5."""
    folder = write_folder(tmp_path_factory.mktemp("store") / "P", noise_mv(N))
    path = folder / "packed" / "100hz-1024"
    shard_bytes = PER_SHARD * RECORD_BYTES
    pack(open_code(folder), QUARTER, path, skip_bad=False, fingerprint="f", jobs=1, shard_bytes=shard_bytes)
    return path


@pytest.fixture
def path(whole, tmp_path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "100hz-1024"))


def changed(file: Path, position: int) -> None:
    """One byte of a file is another."""
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


# --- reading -------------------------------------------------------------------------------------------------------


def test_records_are_read_in_any_order_over_all_shards(whole):
    store = open_store(whole)
    everything = np.concatenate([np.load(whole / f"signals-{k:05d}.npy") for k in range(5)])
    rows = np.random.default_rng(0).integers(0, N, 100)
    np.testing.assert_array_equal(store.read(rows), everything[store.index["slot"].to_numpy()[rows]])
    assert store.read(np.array([], np.int64)).shape == (0, 12, 1024)
    assert len(store) == N


def test_what_is_read_is_a_copy(whole):
    store = open_store(whole)
    store.read(np.arange(3))[:] = 7
    assert not (store.read(np.arange(3)) == 7).all()


def test_letting_pages_go_changes_nothing_that_is_read(whole):
    store = open_store(whole)
    expected = signals(store)
    store.shards.mapped_limit_bytes = 3 * RECORD_BYTES
    for first in range(0, N, 4):
        rows = np.arange(first, min(first + 4, N))
        store.shards.announce(rows)
        np.testing.assert_array_equal(store.read(rows), expected[rows])


def test_opening_reads_no_more_than_a_sample(whole, monkeypatch):
    read: list[int] = []
    real = PackedStore.read
    monkeypatch.setattr(PackedStore, "read", lambda self, rows: read.extend(rows) or real(self, rows))
    started = time.perf_counter()
    open_store(whole)
    assert len(read) == len(set(read)) == 16 and {0, N - 1} <= set(read)
    assert time.perf_counter() - started < 1
    once = list(read)
    open_store(whole)
    assert read == once * 2  # the same records every time


def test_an_open_store_outlives_its_files(path):
    store = open_store(path)
    expected = signals(store)
    shutil.rmtree(path)
    np.testing.assert_array_equal(signals(store), expected)


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_refused_with_the_way_to_make_it(tmp_path):
    with pytest.raises(DataError, match=r"nothing: not a packed store .*`ecgscale data pack` makes it"):
        open_store(tmp_path / "nothing")


@pytest.mark.parametrize(
    "header", ["{", "", "{}", "[1]", "null", "\xff", '{"format_version": 2, "surprise": 2}', '{"scale": 3}']
)
def test_a_damaged_header_is_refused_with_the_folder(path, header):
    (path / HEADER).write_bytes(header.encode("latin-1"))
    with pytest.raises(DataError, match=r"100hz-1024: not a packed store"):
        open_store(path)


def test_a_store_of_another_version_is_refused_with_the_way_out(path):
    header = json.loads((path / HEADER).read_text())
    for version in (1, 99, "x"):
        (path / HEADER).write_text(json.dumps(header | {"format_version": version}))
        with pytest.raises(DataError, match=rf"store version {version}, this program reads 2; delete it and pack"):
            open_store(path)


@pytest.mark.parametrize("change", [{"n_records": 22}, {"scale": [0.002] * 12}, {"shard_records": 4}, {"fs_hz": 400}])
def test_a_changed_number_of_the_header_is_noticed(path, change):
    header = json.loads((path / HEADER).read_text())
    (path / HEADER).write_text(json.dumps(header | change))
    with pytest.raises(DataError, match=r"100hz-1024: is damaged: header\.json is not the file that was written"):
        open_store(path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda p: (p / "signals-00003.npy").unlink(), "shard signals-00003.npy can't be read"),
        (lambda p: os.truncate(p / "signals-00001.npy", 9999), "shard signals-00001.npy has 9,999 bytes, the header"),
        (lambda p: np.save(p / "signals-00004.npy", np.zeros((3, 12, 1024))), "shard signals-00004.npy has"),
        (lambda p: np.save(p / "signals-00004.npy", np.zeros((3, 1024, 12), "<i2")), "signals-00004.npy is int16"),
        (lambda p: (p / "signals-00000.npy").write_bytes(bytes(5 * RECORD_BYTES + 128)), "signals-00000.npy can't be"),
        (lambda p: shutil.copy(p / "signals-00001.npy", p / "signals-00002.npy"), "signals-00002.npy: the samples of"),
        (lambda p: changed(p / "signals-00000.npy", 30), "shard signals-00000.npy"),
        (lambda p: (p / INDEX).unlink(), "index.parquet can't be read"),
        (lambda p: (p / INDEX).write_bytes(b"PAR1"), "index.parquet is not the file that was written"),
        (lambda p: changed(p / INDEX, 3000), "index.parquet is not the file that was written"),
    ],
    ids=["missing", "cut", "type", "axes", "zeros", "swapped", "array header", "no index", "cut index", "index"],
)
def test_damage_is_named_with_the_way_out(path, damage, named):
    damage(path)
    with pytest.raises(DataError) as caught:
        open_store(path)
    message = str(caught.value)
    assert "100hz-1024: is damaged: " in message and named in message
    assert "delete it and pack again" in message


def test_every_byte_of_the_headers_and_the_index_counts(path):
    """One changed byte anywhere outside the samples: refused in words, whatever it hits."""
    rng = np.random.default_rng(0)
    for name, n_bytes in ((HEADER, None), (INDEX, None), ("signals-00002.npy", 128)):
        original = (path / name).read_bytes()
        for position in rng.integers(0, n_bytes or len(original), 60).tolist():
            changed(path / name, position)
            try:
                store = open_store(path)
            except DataError:
                pass
            else:  # blanks between the words of a header
                assert original[position : position + 1].isspace()
                assert len(store) == N
            (path / name).write_bytes(original)


def test_verifying_finds_one_changed_sample(path):
    told: list[int] = []
    verify(open_store(path), progress=told.append)
    assert sum(told) == N
    unsampled = sorted(set(range(N)) - set(np.linspace(0, N - 1, 16).astype(int).tolist()))[0]
    changed(path / "signals-00000.npy", 128 + unsampled * RECORD_BYTES + 77)
    store = open_store(path)  # a sample is no proof
    with pytest.raises(DataError, match=rf"signals-00000\.npy: the samples of exam_id {100 + unsampled} have changed"):
        verify(store)


def test_a_header_keeps_its_values(whole):
    header = open_store(whole).header
    assert header.scale == (0.001,) * 12 and header.unit == "mV" and header.fs_hz == 100
    assert (header.n_records, header.n_leads, header.n_samples, header.shard_records) == (N, 12, 1024, PER_SHARD)
    assert header.refused == {} and header.format_version == 2 and header.program_version
    assert replace(header) == header and len(header.shard_bytes) == 5
    assert isinstance(open_store(whole).index, pd.DataFrame)
