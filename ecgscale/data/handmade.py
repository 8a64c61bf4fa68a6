"""Features of an ECG that a person can name: the floor that a trained encoder has to beat.

Rate and irregularity, the widths and times of the waves, and per lead the heights of the median beat, its ST level and
band powers. Signals are (lead, time) in any unit, even with every lead scaled by itself; only numpy and scipy. What
can't be measured (no beat, an empty lead) is NaN, never 0.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.signal

from ecgscale.conventions import LEADS

Floats = npt.NDArray[np.float64]
Signal = npt.NDArray[np.floating]

QRS_BAND_HZ = (5.0, 20.0)
"""Where QRS complexes stand out most against P and T waves and muscle noise (Elgendi et al. 2010: 8-20 Hz; wider for
broad complexes)."""
BASELINE_HZ = 0.5
"""The usual high-pass against baseline wander."""
REFRACTORY_S = 0.24
"""No two beats are closer: 250 per minute."""
THRESHOLD = 0.3
"""Of the usual height of a QRS in the slope energy."""

BEFORE_S, AFTER_S = 0.30, 0.50
"""The median beat reaches from here before the R peak to there after it."""
STEEP = 0.15
"""Share of the steepest slope from which on the QRS complex is taken to last."""
MIN_BEATS = 2
"""Whole ones, for a median beat."""

BANDS_HZ = ((0.5, 4.0), (4.0, 10.0), (10.0, 20.0), (20.0, 40.0))
"""Roughly: T wave and baseline; P and flutter waves; QRS; noise and sharp QRS."""

SHORTEST_S, LOWEST_FS_HZ = 2.0, 50.0
"""A recording that is shorter or sampled less often has no features."""

WINDOWS_MS = (
    *((-240, -200), (-200, -160), (-160, -120), (-120, -80)),  # P
    *((-50, -30), (-30, -10), (-10, 10), (10, 30), (30, 50), (50, 70)),  # QRS
    *((70, 100), (100, 140)),  # ST
    *((140, 200), (200, 260), (260, 320), (320, 380), (380, 460)),  # T
)
"""Time from the R peak over which the median beat is averaged."""

RHYTHM = ("beats", "rate_bpm", "rr_s", "rr deviation", "rr successive", "rr shortest", "rr longest", "rr jumps")
"""Of the intervals between beats; deviations are relative to the median interval, jumps the share that change by more
than a tenth."""
SHAPE = ("qrs_ms", "p_ms", "t_ms", "p size", "t size", "p disorder", "qrs disorder")
"""Of all leads together: how long the slope is steep, when P and T are largest and how large beside the QRS, and how
much the beats differ there. P waves are in disorder when there are none."""
HEIGHTS = ("QRS max", "QRS min", "T range", "deviation")
"""Of each lead's median beat."""


def feature_names() -> tuple[str, ...]:
    """In the order of the columns."""
    bands = [f"log power {low:g}..{high:g} Hz" for low, high in BANDS_HZ]
    windows = [f"{lead} {start}..{stop} ms" for lead in LEADS for start, stop in WINDOWS_MS]
    heights = [f"{lead} {what}" for lead in LEADS for what in HEIGHTS]
    return (*RHYTHM, *bands, *SHAPE, *windows, *heights)


def handmade_features(
    signals: Signal, fs_hz: float, start: npt.NDArray[np.integer], stop: npt.NDArray[np.integer]
) -> Floats:
    """`(record, feature)`, NaN for what can't be measured; about 4 ms per record of 10 s.

    Args:
        signals: `(record, lead, time)`, leads in standard order.
        start: first recorded sample of each record; outside it is padding.
        stop: one past the last.
    """
    found = [features(s[:, a:b], fs_hz) for s, a, b in zip(signals, start, stop, strict=True)]
    return np.array(found).reshape(len(found), len(feature_names()))


def features(signal: Signal, fs_hz: float) -> Floats:
    """The features of one recording `(lead, time)` without padding, in the order of `feature_names`."""
    leads = np.where(np.isfinite(signal), signal, 0.0).astype(np.float64)
    alive = np.ptp(leads, axis=1) > 0
    if leads.shape[1] < SHORTEST_S * fs_hz or fs_hz < LOWEST_FS_HZ or not alive.any():
        return np.full(len(feature_names()), np.nan)
    leads = scipy.signal.sosfiltfilt(butterworth("highpass", BASELINE_HZ, fs_hz), leads)
    leads[~alive] = np.nan
    places = beats(leads[alive], fs_hz)
    rhythm = rhythm_features(np.diff(places) / fs_hz, len(places))
    return np.concatenate(
        [rhythm, _bands(leads[alive], fs_hz), _of_beats(cut_beats(leads, places, fs_hz, BEFORE_S, AFTER_S), fs_hz)]
    )


def beats(leads: Floats, fs_hz: float) -> npt.NDArray[np.intp]:
    """Samples at which a QRS complex is largest, in (lead, time) of living leads.

    The slopes of all leads within the QRS band are squared, summed and smoothed over 100 ms; beats are peaks above a
    share of the usual height (the median of the highest in stretches of 1.5 s, which one artefact does not move).
    """
    narrow = scipy.signal.sosfiltfilt(butterworth("bandpass", QRS_BAND_HZ, fs_hz), leads)
    narrow /= np.maximum(narrow.std(axis=1, keepdims=True), 1e-12)
    slope = np.gradient(narrow, axis=1)
    energy = scipy.ndimage.uniform_filter1d((slope**2).sum(axis=0), max(1, round(0.1 * fs_hz)))
    stretches = np.array_split(energy, max(1, round(len(energy) / (1.5 * fs_hz))))
    usual = np.median([stretch.max() for stretch in stretches])
    peaks, _ = scipy.signal.find_peaks(energy, height=THRESHOLD * usual, distance=max(1, round(REFRACTORY_S * fs_hz)))
    size = np.sqrt((narrow**2).sum(axis=0))
    around = np.arange(-round(0.06 * fs_hz), round(0.06 * fs_hz) + 1)
    nearby = np.clip(peaks[:, None] + around, 0, len(size) - 1)
    return np.unique(nearby[np.arange(len(peaks)), size[nearby].argmax(axis=1)]) if len(peaks) else peaks


def rhythm_features(rr_s: Floats, n_beats: int) -> Floats:
    """In the order of `RHYTHM`, from the intervals between beats."""
    if len(rr_s) < 2:
        return np.array([n_beats, *[np.nan] * (len(RHYTHM) - 1)])
    typical = np.median(rr_s)
    relative = rr_s / typical
    jumps = np.abs(np.diff(relative))
    return np.array(
        [
            n_beats,
            60.0 / typical,
            typical,
            relative.std(),
            np.sqrt((jumps**2).mean()),
            relative.min(),
            relative.max(),
            (jumps > 0.1).mean(),
        ]
    )


def cut_beats(leads: Floats, places: npt.NDArray[np.intp], fs_hz: float, before_s: float, after_s: float) -> Floats:
    """`(beat, lead, time)` around the beats that lie wholly in the recording."""
    before, after = round(before_s * fs_hz), round(after_s * fs_hz)
    whole = places[(places >= before) & (places + after < leads.shape[1])]
    time = whole[:, None] + np.arange(-before, after + 1)
    return leads[:, time].swapaxes(0, 1)


def _of_beats(cut: Floats, fs_hz: float) -> Floats:
    """Widths, times and disorder over all leads; then of each lead the heights of its median beat."""
    if len(cut) < MIN_BEATS:
        return np.full(len(SHAPE) + len(LEADS) * (len(WINDOWS_MS) + len(HEIGHTS)), np.nan)
    beat: Floats = np.median(cut, axis=0)  # (lead, time)
    beat -= np.median(beat, axis=1, keepdims=True)  # the high-pass has moved the line between the waves away from zero
    ms = np.arange(beat.shape[1], dtype=np.float64)
    ms = (ms - round(BEFORE_S * fs_hz)) * 1000.0 / fs_hz
    p, qrs, t, near = (_between(ms, *part) for part in ((-260, -80), (-60, 60), (140, 460), (-120, 120)))
    size = np.sqrt(np.nanmean(beat**2, axis=0))
    slope = np.sqrt(np.nanmean(np.gradient(beat, axis=1) ** 2, axis=0))
    spread = np.sqrt(np.nanmean(np.var(cut, axis=0), axis=0))
    largest = max(size.max(), 1e-12)
    shape = [
        np.ptp(ms[near & (slope > STEEP * slope[near].max())]) if slope[near].max() > 0 else np.nan,
        ms[p][size[p].argmax()],
        ms[t][size[t].argmax()],
        size[p].max() / largest,
        size[t].max() / largest,
        spread[p].mean() / max(size[p].mean(), 1e-12),
        spread[qrs].mean() / largest,
    ]
    windows = [beat[:, _between(ms, low, high - 1e-6)].mean(axis=1) for low, high in WINDOWS_MS]
    heights = [beat[:, qrs].max(axis=1), beat[:, qrs].min(axis=1), np.ptp(beat[:, t], axis=1), beat.std(axis=1)]
    return np.concatenate([shape, np.stack(windows, axis=1).ravel(), np.stack(heights, axis=1).ravel()])


def _between(ms: Floats, low: float, high: float) -> npt.NDArray[np.bool_]:
    return (ms >= low) & (ms <= high)


def _bands(leads: Floats, fs_hz: float) -> Floats:
    """Log share of each band in the power of all leads; NaN for a band beyond what the rate can hold."""
    frequency, power = scipy.signal.welch(leads, fs_hz, nperseg=min(leads.shape[1], round(2.5 * fs_hz)))
    total = np.maximum(power.sum(axis=1), 1e-300)
    share = [
        np.log(np.maximum(power[:, (frequency >= low) & (frequency < high)].sum(axis=1) / total, 1e-9)).mean()
        if high <= fs_hz / 2
        else np.nan
        for low, high in BANDS_HZ
    ]
    return np.array(share)


@cache
def butterworth(kind: Literal["highpass", "bandpass"], hz: float | tuple[float, float], fs_hz: float) -> Floats:
    """Butterworth, second order; run forwards and backwards."""
    sos: Floats = scipy.signal.butter(2, np.asarray(hz), kind, fs=fs_hz, output="sos")
    return sos
