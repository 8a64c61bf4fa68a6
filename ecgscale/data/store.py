"""The packed store: one population as an uncompressed int16 memory map with its index, ready for shuffled reading.

Gzip HDF5 gives 11 to 3,100 shuffled records/s where this gives over ten thousand, so training never reads HDF5. A
store is resampled, band-passed and cropped once for one `InputSpec`; it is written beside its place and renamed, so a
store that can be opened is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import signal as dsp

from ecgscale.conventions import LEADS
from ecgscale.data.code_format import CodeFolder, bad_records, open_code
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

FORMAT_VERSION = 1

SCALE = 0.001
"""Unit per digital step: 1 µV for millivolts, so int16 spans ±32.767 mV; a thousandth for z-scored records."""

BANDPASS_ORDER = 4

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Header:
    format_version: int
    fingerprint: str
    """Of the CODE folder it was made from."""
    unit: str
    scale: float
    fs_hz: float
    n_records: int
    n_leads: int
    n_samples: int
    refused: dict[str, str]
    """exam_id → reason."""


@dataclass(frozen=True)
class PackedStore:
    """Attributes:
    signals: memory map `(record, lead, time)` int16.
    index: one row per record: exam_id, patient_id, start, stop (recorded samples), every column of exams.csv.
    """

    path: Path
    header: Header
    signals: npt.NDArray[np.int16]
    index: pd.DataFrame

    def __len__(self) -> int:
        return self.header.n_records


def store_name(input_spec: InputSpec) -> str:
    """The folder name of a store; normalisation happens on the device and does not count."""
    band = "" if input_spec.bandpass_hz is None else "-band{:g}-{:g}".format(*input_spec.bandpass_hz)
    return f"{input_spec.fs_hz:g}hz-{input_spec.n_samples}{band}"


def open_store(path: Path) -> PackedStore:
    """Opens a packed store.

    Raises:
        DataError: it is not there, of another version, or its files do not belong together.
    """
    try:
        header = Header(**json.loads((path / "header.json").read_text()))
    except (OSError, TypeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a packed store ({error}); `ecgscale sweep` makes it before it starts") from None
    if header.format_version != FORMAT_VERSION:
        raise DataError(
            f"{path}: store version {header.format_version}, this program reads {FORMAT_VERSION}; delete it"
        )
    try:
        index = pd.read_parquet(path / "index.parquet")
        signals = np.load(path / "signals.npy", mmap_mode="r")
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{path}: is damaged ({error}); delete it") from None
    if signals.shape != (header.n_records, header.n_leads, header.n_samples) or len(index) != header.n_records:
        raise DataError(f"{path}: signals {signals.shape}, index {len(index)} and header disagree; delete it")
    return PackedStore(path, header, signals, index)


def packed(
    folder: Path,
    input_spec: InputSpec,
    *,
    source: CodeFolder | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> PackedStore:
    """The store of a CODE folder for one input, made first if it is not there or the records have changed.

    Args:
        skip_bad: leave bad records out, with their reasons in the header, instead of refusing the folder.
        source: the opened folder, when the caller has it already.

    Raises:
        DataError: see `pack`.
    """
    path = folder / "packed" / store_name(input_spec)
    source = source or open_code(folder)
    fingerprint = source.fingerprint()
    if (path / "header.json").exists():
        store = open_store(path)
        if store.header.fingerprint == fingerprint:
            return store
        shutil.rmtree(path)
    pack(source, input_spec, path, skip_bad=skip_bad, fingerprint=fingerprint, progress=progress)
    return open_store(path)


def pack(
    source: CodeFolder,
    input_spec: InputSpec,
    path: Path,
    *,
    skip_bad: bool,
    fingerprint: str,
    progress: Progress | None = None,
) -> None:
    """Writes a store.

    Raises:
        DataError: a record is all zero or not a number (named, up to five), or nothing is left.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    n = len(source.exams)
    signals = np.lib.format.open_memmap(
        unfinished / "signals.npy", mode="w+", dtype=np.int16, shape=(n, len(LEADS), input_spec.n_samples)
    )
    start, stop = np.zeros(n, np.int32), np.zeros(n, np.int32)
    reasons: dict[int, str] = {}
    for rows, block in source.batches():
        for row, reason in zip(rows, bad_records(block), strict=True):
            if reason:
                reasons[int(row)] = str(reason)
        digital, first, last = _digitise(block, source.fs_hz, input_spec)
        signals[rows], start[rows], stop[rows] = digital, first, last
        if progress is not None:
            progress(len(rows))
    if reasons and not skip_bad:
        shutil.rmtree(unfinished)
        raise DataError(_refusal(source, reasons))
    kept = np.array([row for row in range(n) if row not in reasons])
    if not len(kept):
        shutil.rmtree(unfinished)
        raise DataError(f"{source.path}: no usable record")
    if reasons:
        good = signals[kept]
        del signals
        np.save(unfinished / "signals.npy", good)
    else:
        signals.flush()
    index = source.exams.assign(start=start, stop=stop).iloc[kept].reset_index(drop=True)
    index.to_parquet(unfinished / "index.parquet")
    header = Header(
        FORMAT_VERSION,
        fingerprint,
        source.unit,
        SCALE,
        input_spec.fs_hz,
        len(kept),
        len(LEADS),
        input_spec.n_samples,
        {str(source.exams["exam_id"].iloc[row]): reason for row, reason in reasons.items()},
    )
    (unfinished / "header.json").write_text(json.dumps(asdict(header), indent=1))
    unfinished.replace(path)


def _refusal(source: CodeFolder, reasons: dict[int, str]) -> str:
    named = [f"exam_id {source.exams['exam_id'].iloc[row]}: {reason}" for row, reason in list(reasons.items())[:5]]
    more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return (
        f"{source.path}: {len(reasons)} of {len(source.exams)} records can't be used: {'; '.join(named)}{more}. "
        "Remove them from exams.csv, or leave them out with --skip-bad"
    )


def _digitise(
    block: npt.NDArray[np.float32], fs_hz: float, input_spec: InputSpec
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """`(record, time, lead)` at `fs_hz` → int16 `(record, lead, time)` at the input's rate, with its recorded part.

    Records are filtered and resampled without their zero padding, which would ring into the signal; then cropped
    centrally or padded on both sides.
    """
    n_out = input_spec.n_samples
    out = np.zeros((len(block), block.shape[2], n_out), np.int16)
    first, last = np.zeros(len(block), np.int32), np.zeros(len(block), np.int32)
    extents = [_recorded_extent(record) for record in block]
    for extent in set(extents):
        members = np.array([i for i, e in enumerate(extents) if e == extent])
        # a bad record is left out later; as zeros it gets that far
        recorded = np.nan_to_num(block[members, extent[0] : extent[1]].transpose(0, 2, 1), posinf=0.0, neginf=0.0)
        resampled = _resample(recorded, fs_hz, input_spec)
        length = resampled.shape[-1]
        if length >= n_out:
            cut = (length - n_out) // 2
            resampled, begin, length = resampled[..., cut : cut + n_out], 0, n_out
        else:
            begin = (n_out - length) // 2
        steps = np.rint(resampled / SCALE)
        out[members, :, begin : begin + length] = np.clip(steps, -32767, 32767).astype(np.int16)
        first[members], last[members] = begin, begin + length
    return out, first, last


def _recorded_extent(record: npt.NDArray[np.float32]) -> tuple[int, int]:
    """First and one past the last sample where any lead is not exactly zero."""
    nonzero = np.flatnonzero(record.any(axis=1))
    return (int(nonzero[0]), int(nonzero[-1]) + 1) if len(nonzero) else (0, len(record))


def _resample(recorded: npt.NDArray[np.float32], fs_hz: float, input_spec: InputSpec) -> npt.NDArray[np.floating]:
    if input_spec.bandpass_hz is not None:
        sos = dsp.butter(BANDPASS_ORDER, input_spec.bandpass_hz, "bandpass", fs=fs_hz, output="sos")
        # scipy's own choice of padding, which it refuses for a record that is not longer
        padding = min(3 * (2 * len(sos) + 1), recorded.shape[-1] - 1)
        recorded = dsp.sosfiltfilt(sos, recorded, axis=-1, padlen=padding).astype(np.float32)
    ratio = Fraction(input_spec.fs_hz / fs_hz).limit_denominator(1000)
    if ratio == 1:
        return recorded
    # "line" keeps a lead's offset from becoming a step at both ends
    resampled: npt.NDArray[np.floating] = dsp.resample_poly(
        recorded, ratio.numerator, ratio.denominator, axis=-1, padtype="line"
    )
    return resampled
