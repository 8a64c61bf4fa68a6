"""Reading records for training, against the usual ways in the same run: `make bench-data`. Prints medians and ratios.

20,000 records of ten seconds at 400 Hz (2 GB as int16) in shuffled batches of 64, as the training loop receives them.
Baselines: fancy indexing of one `np.memmap` with the same records; h5py, record by record, on a gzip file with one
record per chunk and on one with h5py's automatic chunks. Repeats are interleaved.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow
import torch

from ecgscale.conventions import CODE_LABELS, CODE_N_SAMPLES
from ecgscale.data.code_format import CodeWriter, open_code
from ecgscale.data.compact_table import compact
from ecgscale.data.digitise import SCALE
from ecgscale.data.packing import pack
from ecgscale.data.store import HEADER, INDEX, Header, open_store, record_sums, shard_path
from ecgscale.data.stream import RecordSource, TrainingStream
from ecgscale.data.synthetic import POPULATIONS, synthesize_block
from ecgscale.specs import InputSpec

N_RECORDS, SHARD_RECORDS, BATCH = 20_000, 8192, 64
N_STEPS = N_RECORDS // BATCH
FULL_CODE = 2_300_000
BURST = 24
"""Batches between two changes of reader: short against the machine's other work."""


# --- data ----------------------------------------------------------------------------------------------------------


def ecg_mv(n_records):
    """`(record, time, lead)` float32, on the grid of the CODE releases."""
    blocks, number = [], 0
    while sum(map(len, blocks)) < n_records:
        blocks.append(synthesize_block(POPULATIONS["A"], number, 0)[1])
        number += 1
    return np.round(np.concatenate(blocks)[:n_records] * 2**11) / np.float32(2**11)


def write_store(folder, one_file, signal_mv):
    """The same records as a store and as one array; every record differs from every other."""
    folder.mkdir()
    base = np.rint(signal_mv.transpose(0, 2, 1) / SCALE).astype(np.int16)
    whole = np.lib.format.open_memmap(one_file, "w+", np.int16, (N_RECORDS, *base.shape[1:]))
    sums = []
    for first in range(0, N_RECORDS, len(base)):
        block = (base + np.int16(first // len(base)))[: N_RECORDS - first]
        whole[first : first + len(block)] = block
        sums.append(record_sums(block))
    for number, first in enumerate(range(0, N_RECORDS, SHARD_RECORDS)):
        np.save(shard_path(folder, number), whole[first : first + SHARD_RECORDS])
    whole.flush()
    table = code_like_table(N_RECORDS).assign(crc32=np.concatenate(sums))
    compact(table).to_parquet(folder / INDEX)
    shards = range(-(-N_RECORDS // SHARD_RECORDS))
    header = Header(
        *(2, "0", "f", "mV", (SCALE,) * 12, 400.0, N_RECORDS, 12, CODE_N_SAMPLES, SHARD_RECORDS),
        tuple(shard_path(folder, number).stat().st_size for number in shards),
        zlib.crc32((folder / INDEX).read_bytes()),
        {},
    )
    (folder / HEADER).write_text(header.to_json())
    for number in shards:  # so that the cold runs can drop them
        synced(shard_path(folder, number))
    synced(one_file)


def synced(file):
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def code_like_table(n):
    """The columns of CODE-15 % with those of the store."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"exam_id": rng.permutation(n) + 10_000, "patient_id": rng.integers(0, n, n)})
    table["age"] = rng.integers(17, 100, n).astype(float)
    table["is_male"] = pd.array(rng.random(n) < 0.4, dtype="boolean")
    for label in CODE_LABELS:
        table[label] = rng.random(n) < 0.02
    table = table.assign(nn_predicted_age=rng.normal(50, 15, n), timey=rng.random(n) * 8)
    table["death"] = pd.Series(rng.choice(np.array([True, False, None], object), n))
    table["normal_ecg"] = rng.random(n) < 0.4
    table["trace_file"] = pd.Categorical.from_codes(
        rng.integers(0, 115, n), [f"exams_part{k}.hdf5" for k in range(115)]
    )
    row = np.arange(n)
    return table.assign(trace_row=row, slot=row, start=48, stop=4048, line=row, crc32=row.astype(np.uint32))


# --- readers: each yields batches in the order of the same training stream -------------------------------------------


def stream_of(store, n_steps=10 * N_STEPS):
    source = RecordSource(store, np.arange(N_RECORDS), CODE_LABELS)
    return TrainingStream(source, batch_size=BATCH, n_steps=n_steps, seed=0)


def raw(whole, stream):
    for step in range(len(stream)):
        yield torch.from_numpy(whole[stream.members(step)])


def rate_of_hdf5(file, rows):
    """Records/s, one `dataset[i]` each."""
    with h5py.File(file) as opened:
        dataset = opened["tracings"]
        started = time.perf_counter()
        for row in rows:
            dataset[row]
        return len(rows) / (time.perf_counter() - started)


def warm_rates(store_folder, one_file):
    """Records/s of both readers over three epochs, after one in which every page was mapped."""
    stream = stream_of(open_store(store_folder))
    readers = {"raw": raw(np.load(one_file, mmap_mode="r"), stream), "ours": iter(stream)}
    for batches in readers.values():
        for _ in range(N_STEPS):
            next(batches)
    seconds = {name: [] for name in readers}
    for burst in range(3 * N_STEPS // BURST):
        for name in sorted(readers, reverse=bool(burst % 2)):
            started = time.perf_counter()
            for _ in range(BURST):
                next(readers[name])
            seconds[name].append(time.perf_counter() - started)
    return {name: BURST * BATCH / statistics.median(times) for name, times in seconds.items()}


# --- what needs a process of its own -------------------------------------------------------------------------------


def memory_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "Rss"))}
    return {"total": found["VmRSS"], "private": found["RssAnon"]}


def cold_rate(store_folder, one_file, which):
    """Records/s of the first 48 batches when none of them is in memory; no process may have the files mapped."""
    for file in (*store_folder.glob("signals-*"), one_file):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    stream = stream_of(open_store(store_folder), 48)
    batches = iter(stream) if which == "ours" else raw(np.load(one_file, mmap_mode="r"), stream)
    started = time.perf_counter()
    n_read = sum(BATCH for _ in batches)
    return n_read / (time.perf_counter() - started)


def epoch_memory(store_folder, limit):
    """Memory after ten batches and at the end of two epochs."""
    store = open_store(store_folder)
    store.shards.mapped_limit_bytes = limit
    found = []
    for step, _ in enumerate(stream_of(store, 2 * N_STEPS)):
        if step in (9, 2 * N_STEPS - 1):
            found.append(memory_mb())
    return found


def index_memory(file):
    """Of reading an index: bytes of its columns, and what the process grew by."""
    pd.read_parquet(file.with_name("small.parquet"))  # loads the libraries
    before = memory_mb()["private"]
    index = pd.read_parquet(file)
    pyarrow.default_memory_pool().release_unused()  # as `open_store` does
    return [index.memory_usage(deep=True).sum() / 1e6, memory_mb()["private"] - before]


def in_process(function, *arguments):
    call = f"import json, sys; from pathlib import Path; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    call += "import bench_data as b; " + f"print(json.dumps(b.{function.__name__}({', '.join(map(_code, arguments))})))"
    return json.loads(subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout)


def _code(argument):
    return f"Path({str(argument)!r})" if isinstance(argument, Path) else repr(argument)


# --- the table -----------------------------------------------------------------------------------------------------


def line(what, baseline, ours, unit="records/s"):
    print(f"| {what} | {baseline:,.0f} | {ours:,.0f} | {unit} | {ours / baseline:.3g} × |", flush=True)


def measure_reading(folder, signal_mv):
    store_folder, one_file = folder / "store", folder / "whole.npy"
    write_store(store_folder, one_file, signal_mv)
    warm = warm_rates(store_folder, one_file)
    line("np.memmap, in memory", warm["raw"], warm["ours"])
    cold = {"raw": [], "ours": []}
    for _ in range(3):
        for which, found in cold.items():
            found.append(in_process(cold_rate, store_folder, one_file, which))
    line("np.memmap, on disk", *(statistics.median(cold[which]) for which in ("raw", "ours")))

    one_per_chunk, automatic = folder / "gzip.hdf5", folder / "auto.hdf5"
    with h5py.File(one_per_chunk, "w") as file:
        shape = (1, CODE_N_SAMPLES, 12)
        file.create_dataset("tracings", data=2 * signal_mv, chunks=shape, compression="gzip", compression_opts=4)
    with h5py.File(automatic, "w") as file:
        # the chunks of a file of 20,000 records; only as many as are read are written
        shape = (N_RECORDS, CODE_N_SAMPLES, 12)
        traces = file.create_dataset("tracings", shape, "f4", chunks=True, compression="gzip", compression_opts=4)
        traces[: len(signal_mv)] = 2 * signal_mv
        chunks = traces.chunks
    order = np.random.default_rng(0).permutation(len(signal_mv))
    slow = {one_per_chunk: [], automatic: []}
    for repeat in range(3):
        slow[one_per_chunk].append(rate_of_hdf5(one_per_chunk, order))
        slow[automatic].append(rate_of_hdf5(automatic, order[20 * repeat : 20 * repeat + 20]))
    line("h5py, gzip 4, one record per chunk", statistics.median(slow[one_per_chunk]), warm["ours"])
    line(f"h5py, gzip 4, automatic chunks {chunks}", statistics.median(slow[automatic]), warm["ours"])

    start, end = in_process(epoch_memory, store_folder, 2**30)
    print(
        f"memory from batch 10 to the end of epoch 2: private {start['private']:.0f} → {end['private']:.0f} MB, ",
        end="",
    )
    print(f"with mapped cache (at most 1 GiB of the store's 2) {start['total']:.0f} → {end['total']:.0f} MB")


def measure_index(folder):
    code_like_table(100).to_parquet(folder / "small.parquet")
    compact(code_like_table(FULL_CODE)).to_parquet(folder / "index.parquet")
    columns, grown = in_process(index_memory, folder / "index.parquet")
    print(f"index of {FULL_CODE:,} records: {columns:.0f} MB, reading it grew the process by {grown:.0f} MB")


def measure_packing(folder, signal_mv):
    """From a folder in CODE format (lzf, as the importer writes it), one process."""
    ids = np.arange(len(signal_mv)) + 1
    exams = pd.DataFrame({"exam_id": ids, "patient_id": ids, "age": 50.0, "is_male": True})
    with CodeWriter(folder / "code") as writer:
        writer.append(exams.assign(**dict.fromkeys(CODE_LABELS, False)), signal_mv)
    source = open_code(folder / "code")
    for spec in (
        InputSpec(fs_hz=400, n_samples=4096, patch_samples=64),
        InputSpec(fs_hz=100, n_samples=1024, patch_samples=16),
    ):
        seconds = []
        for repeat in range(3):
            started = time.perf_counter()
            pack(source, spec, folder / f"{repeat}-{spec.fs_hz:g}", skip_bad=False, fingerprint="f", jobs=1)
            seconds.append(time.perf_counter() - started)
        rate = len(signal_mv) / statistics.median(seconds)
        print(f"packing {spec.fs_hz:g} Hz × {spec.n_samples:,}: {rate:.0f} records/s per process")


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        signal_mv = ecg_mv(500)
        print("| against | baseline | ecgscale | | ratio |\n|---|---|---|---|---|")
        measure_reading(Path(folder), signal_mv)
        measure_index(Path(folder))
        measure_packing(Path(folder), signal_mv)


if __name__ == "__main__":
    main()
