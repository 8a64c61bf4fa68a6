"""Signals of a CODE folder as the store keeps them: band-passed, at the input's rate and length, as int16 steps.

Pure arithmetic on one block of records. The rounding error is checked, and what int16 can't hold is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy import signal as dsp

from ecgscale.conventions import LEADS
from ecgscale.data.code_format import bad_records
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

SCALE = 0.001
"""Unit per digital step: 1 µV for millivolts, so int16 spans ±32.767 mV; a thousandth for z-scored records."""

LARGEST_ERROR = 0.001
"""In the records' unit (1 µV): what a stored sample may differ from the signal. Half a step is 0.5 µV."""

LARGEST_STEP = 32_767

BANDPASS_ORDER = 4

Signal = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Block:
    """Attributes:
    digital: `(record, lead, time)` int16; zero outside the recorded part and in a refused record.
    start: first recorded sample of each record.
    stop: one past the last.
    reasons: why a record can't be used, "" if it can.
    """

    digital: npt.NDArray[np.int16]
    start: npt.NDArray[np.int32]
    stop: npt.NDArray[np.int32]
    reasons: list[str]


def digitise(signal: Signal, fs_hz: float, unit: str, input_spec: InputSpec, scale: tuple[float, ...]) -> Block:
    """`(record, time, lead)` at `fs_hz` as int16 at the input's rate, with its recorded part.

    Records are filtered and resampled without their zero padding, which would ring into the signal; then cropped
    centrally or padded on both sides.

    Args:
        scale: unit per digital step of each lead.

    Raises:
        DataError: `scale` is too coarse for these records.
    """
    n_out = input_spec.stored_samples
    out = np.zeros((len(signal), signal.shape[2], n_out), np.int16)
    start, stop = np.zeros(len(signal), np.int32), np.zeros(len(signal), np.int32)
    reasons = [str(reason) for reason in bad_records(signal)]
    extents = [_recorded_extent(record) if not bad else None for record, bad in zip(signal, reasons, strict=True)]
    for extent in {e for e in extents if e is not None}:
        members = np.array([i for i, e in enumerate(extents) if e == extent])
        recorded = signal[members, extent[0] : extent[1]].transpose(0, 2, 1)
        resampled = _resampled(recorded, fs_hz, input_spec)
        length = resampled.shape[-1]
        if length >= n_out:
            cut = (length - n_out) // 2
            resampled, begin, length = resampled[..., cut : cut + n_out], 0, n_out
        else:
            begin = (n_out - length) // 2
        digital, too_large = _steps(resampled, unit, scale)
        out[members, :, begin : begin + length] = digital
        start[members], stop[members] = begin, begin + length
        for member, reason in zip(members, too_large, strict=True):
            reasons[member] = reason
    return Block(out, start, stop, reasons)


def _steps(
    signal: npt.NDArray[np.floating], unit: str, scale: tuple[float, ...]
) -> tuple[npt.NDArray[np.int16], list[str]]:
    """`(record, lead, time)` in steps, and per record why it can't be held ("" if it can; else its steps are zero)."""
    per_lead = np.array(scale, np.float32)[:, None]
    with np.errstate(over="ignore"):  # absurd numbers become infinite, and are refused for that
        steps = np.rint(signal / per_lead)
    within = np.abs(steps).max(axis=-1) <= LARGEST_STEP
    reasons = []
    for record, fits in enumerate(within):
        lead = int(np.argmin(fits))
        reach = float(np.abs(signal[record, lead]).max())
        limit = f"{LARGEST_STEP * scale[lead]:g} {unit} is the most that is kept"
        reasons.append("" if fits.all() else f"lead {LEADS[lead]} reaches {reach:.4g} {unit}, {limit}")
        if not fits.all():
            steps[record] = 0
    digital = steps.astype(np.int16)
    kept = within.all(axis=1)
    errors = np.abs(digital[kept] * per_lead - signal[kept])
    if errors.size and errors.max() >= LARGEST_ERROR:
        raise DataError(f"scale {max(scale):g} {unit} per step is too coarse: {errors.max():.2g} {unit} would be lost")
    return digital, reasons


def _recorded_extent(record: Signal) -> tuple[int, int]:
    """First and one past the last sample where any lead is not exactly zero."""
    nonzero = np.flatnonzero(record.any(axis=1))
    return int(nonzero[0]), int(nonzero[-1]) + 1


def _resampled(recorded: Signal, fs_hz: float, input_spec: InputSpec) -> npt.NDArray[np.floating]:
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
