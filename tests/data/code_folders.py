"""Small CODE-format folders whose signals are known, and what a store of them holds in millivolts."""

from pathlib import Path

import numpy as np
import pandas as pd

from ecgscale.conventions import CODE_FS_HZ, CODE_LABELS, CODE_N_SAMPLES, LEADS
from ecgscale.data.code_format import CodeWriter
from ecgscale.data.store import PackedStore
from ecgscale.specs import InputSpec

FULL = InputSpec(fs_hz=400, n_samples=4096, patch_samples=64)
QUARTER = InputSpec(fs_hz=100, n_samples=1024, patch_samples=16)


def sine_mv(hz: float, amplitude_mv: float = 1.0) -> np.ndarray:
    """(sample, lead) of a record without padding."""
    wave = amplitude_mv * np.sin(2 * np.pi * hz * (np.arange(CODE_N_SAMPLES) + 0.5) / CODE_FS_HZ)
    return np.repeat(wave[:, None], len(LEADS), axis=1).astype(np.float32)


def padded(record: np.ndarray, n_recorded: int) -> np.ndarray:
    """The record's first samples, in the middle of zeros as the CODE format wants it."""
    out = np.zeros_like(record)
    begin = (len(record) - n_recorded) // 2
    out[begin : begin + n_recorded] = record[:n_recorded]
    return out


def noise_mv(n_records: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(n_records, CODE_N_SAMPLES, 12)).astype(np.float32))


def write_folder(folder: Path, records: list[np.ndarray], *, records_per_part: int = 20_000, **columns) -> Path:
    """Exams 100, 101, …, each of a patient of its own, with no label."""
    ids = [100 + k for k in range(len(records))]
    exams = pd.DataFrame({"exam_id": ids, "patient_id": ids, "age": 50.0, "is_male": True})
    exams = exams.assign(**dict.fromkeys(CODE_LABELS, False)).assign(**columns)
    with CodeWriter(folder, overwrite=True, records_per_part=records_per_part) as writer:
        writer.append(exams, np.stack(records).astype(np.float32))
    return folder


def signals(store: PackedStore) -> np.ndarray:
    """(record, lead, time) int16 of every row of the index."""
    return store.read(np.arange(len(store)))


def millivolts(store: PackedStore) -> np.ndarray:
    return signals(store) * np.array(store.header.scale)[:, None]
