"""What a physician measures on an ECG, one number per record: the classical baseline's view of it.

Rate and its variability, intervals, axes, heights of the waves, and the shape of T, where potassium and calcium show.
All of the median beat (`ecgscale.concentrations.delineation`); what can't be measured is NaN, never 0. The second set,
`ecgscale.data.handmade`, has 271 features of the same beat at fixed times, without asking where its waves are: harder
to read and better for age (PTB-XL, gradient boosting: 8.0 years against 9.9).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.concentrations.delineation import MS, Beat, Floats, median_beat
from ecgscale.conventions import LEADS
from ecgscale.data.handmade import (
    LOWEST_FS_HZ,
    RHYTHM,
    SHORTEST_S,
    feature_names,
    handmade_features,
    rhythm_features,
)
from ecgscale.data.store import PackedStore, open_store
from ecgscale.data.worker_process import end_with_parent
from ecgscale.hangs import progressed

VERSION = 1
"""Raise it when a feature changes: kept ones are then measured again."""

FeatureSet = Literal["waves", "beat"]
"""What a physician measures; the median beat at fixed times."""

BLOCK = 256
"""Records that are read at once."""

FROM_RHYTHM = {
    "rate_bpm": "rate_bpm",
    "rr_sd": "rr deviation",
    "rr_successive": "rr successive",
    "rr_jumps": "rr jumps",
}
"""Ours → its name in `handmade.RHYTHM`; the last three relative to the median RR interval."""

R_LEADS = ("I", "II", "aVL", "V1", "V2", "V5", "V6")
S_LEADS = ("III", "V1", "V2", "V3", "V5")
ST_LEADS = ("II", "V2", "V5")
T_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
ST_AFTER_MS = 60.0
"""After the end of QRS; the usual J + 60."""
U_FROM_MS, U_TO_MS = 20.0, 180.0
"""After the end of T."""

UNITS = {
    "rate_bpm": "1/min",
    "rr_sd": "share",
    "rr_successive": "share",
    "rr_jumps": "share",
    "p_ms": "ms",
    "pr_ms": "ms",
    "qrs_ms": "ms",
    "qt_ms": "ms",
    "qtc_ms": "ms",  # Fridericia 1920
    "jt_peak_ms": "ms",
    "t_peak_end_ms": "ms",
    "qrs_axis_deg": "deg",
    "t_axis_deg": "deg",
    "qrs_t_angle_deg": "deg",
    "p_II_mv": "mV",
    "p_V1_mv": "mV",
    **{f"r_{lead}_mv": "mV" for lead in R_LEADS},
    **{f"s_{lead}_mv": "mV" for lead in S_LEADS},
    **{f"st_{lead}_mv": "mV" for lead in ST_LEADS},
    **{f"t_{lead}_mv": "mV" for lead in T_LEADS},
    "t_size_mv": "mV",  # of the root mean square over the leads; so all that follow
    "t_width_ms": "ms",
    "t_asymmetry": "ratio",
    "t_rise_mv_s": "mV/s",
    "t_fall_mv_s": "mV/s",
    "t_area_mv_ms": "mV ms",
    "t_to_qrs": "ratio",
    "u_size_mv": "mV",
    "spread_mv": "mV",
}
"""Every feature and its unit, in the order of the columns. Records in another unit have their heights in that."""

NAMES = tuple(UNITS)


def ecg_features(
    signals: npt.NDArray[np.floating], fs_hz: float, start: npt.NDArray[np.integer], stop: npt.NDArray[np.integer]
) -> pd.DataFrame:
    """One row per record, one column per feature.

    Args:
        signals: `(record, lead, time)` in mV, leads in standard order.
        start: first recorded sample of each record; outside it is padding.
        stop: one past the last.
    """
    found = [_of_record(record[:, a:b], fs_hz) for record, a, b in zip(signals, start, stop, strict=True)]
    return pd.DataFrame(found, columns=list(NAMES), dtype=np.float32)


def stored_features(store: PackedStore, which: FeatureSet = "waves", *, jobs: int = 1) -> pd.DataFrame:
    """The features of a packed store, one row per row of its index; measured once and kept beside its signals.

    About 7 ms per record and process.

    Args:
        jobs: processes that measure.
    """
    # the index holds a checksum of every record, so its own stands for all signals
    path = store.path / f"features-{which}-{VERSION}-{store.header.index_crc32:08x}.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):  # not there yet, or damaged
        found = pd.concat(_measured(store, which, jobs), ignore_index=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        found.to_parquet(unfinished)
        os.replace(unfinished, path)
        return pd.read_parquet(path)  # laid out in memory as for all who come later: sums of a regression depend on it
    except OSError:  # a full or read-only disk costs the next one some time, not this one its features
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return found


def _measured(store: PackedStore, which: FeatureSet, jobs: int) -> Iterator[pd.DataFrame]:
    blocks = np.array_split(np.arange(len(store)), -(-len(store) // BLOCK))
    if jobs == 1:
        for rows in blocks:
            progressed()
            yield _of_rows(store, which, rows)
        return
    # spawned, not forked: the caller may hold threads
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (store.path, which)) as pool:
        for found in pool.map(_work, blocks):
            progressed()
            yield found


_task: tuple[PackedStore, FeatureSet] | None = None
"""Of this worker process."""


def _start_worker(path: Path, which: FeatureSet) -> None:
    global _task
    end_with_parent()
    _task = open_store(path), which


def _work(rows: npt.NDArray[np.intp]) -> pd.DataFrame:
    assert _task is not None
    return _of_rows(*_task, rows)


def _of_rows(store: PackedStore, which: FeatureSet, rows: npt.NDArray[np.intp]) -> pd.DataFrame:
    signals = store.read(rows) * np.asarray(store.header.scale, np.float32)[:, None]
    start, stop = (store.index[name].to_numpy()[rows] for name in ("start", "stop"))
    if which == "waves":
        return ecg_features(signals, store.header.fs_hz, start, stop)
    found = handmade_features(signals, store.header.fs_hz, start, stop)
    return pd.DataFrame(found, columns=list(feature_names()), dtype=np.float32)


# --- one record ----------------------------------------------------------------------------------------------------


def _of_record(signal: npt.NDArray[np.floating], fs_hz: float) -> dict[str, float]:
    if signal.shape[1] < SHORTEST_S * fs_hz or fs_hz < LOWEST_FS_HZ:
        return {}
    beat = median_beat(np.where(np.isfinite(signal), signal, 0.0).astype(np.float64), fs_hz)
    if beat is None:
        return {}
    return _rhythm(beat) | _intervals(beat) | _heights(beat) | _axes(beat) | _repolarisation(beat)


def _rhythm(beat: Beat) -> dict[str, float]:
    measured = dict(zip(RHYTHM, rhythm_features(beat.rr_s, beat.n_beats), strict=True))
    return {ours: float(measured[theirs]) for ours, theirs in FROM_RHYTHM.items()}


def _intervals(beat: Beat) -> dict[str, float]:
    qt_ms = (beat.t_end - beat.qrs_onset) / MS
    return {
        "p_ms": (beat.p_end - beat.p_onset) / MS,
        "pr_ms": (beat.qrs_onset - beat.p_onset) / MS,
        "qrs_ms": (beat.qrs_end - beat.qrs_onset) / MS,
        "qt_ms": qt_ms,
        "qtc_ms": qt_ms / float(np.cbrt(np.median(beat.rr_s))),
        "jt_peak_ms": (beat.t_peak - beat.qrs_end) / MS,
        "t_peak_end_ms": (beat.t_end - beat.t_peak) / MS,
    }


def _heights(beat: Beat) -> dict[str, float]:
    """Above the level just before QRS."""
    qrs = beat.mv[:, int(beat.qrs_onset) : int(beat.qrs_end) + 1]
    found = {f"r_{lead}_mv": float(qrs[LEADS.index(lead)].max()) for lead in R_LEADS}
    found |= {f"s_{lead}_mv": float(qrs[LEADS.index(lead)].min()) for lead in S_LEADS}
    found |= {f"st_{lead}_mv": _at(beat, lead, beat.qrs_end + ST_AFTER_MS * MS) for lead in ST_LEADS}
    found |= {f"t_{lead}_mv": _at(beat, lead, beat.t_peak) for lead in T_LEADS}
    return found | {f"p_{lead}_mv": _at(beat, lead, beat.p_peak) for lead in ("II", "V1")} | {"spread_mv": beat.spread}


def _at(beat: Beat, lead: str, place: float) -> float:
    """The mean of 20 ms."""
    if not np.isfinite(place):
        return np.nan
    around = slice(max(0, round(place - 10 * MS)), round(place + 10 * MS) + 1)
    return float(beat.mv[LEADS.index(lead), around].mean())


def _axes(beat: Beat) -> dict[str, float]:
    """Directions of the areas of QRS and T in the frontal plane, from I and aVF, and the angle between them."""
    qrs = _frontal(beat, beat.qrs_onset, beat.qrs_end)
    t = _frontal(beat, beat.qrs_end, beat.t_end) if np.isfinite(beat.t_end) else np.full(2, np.nan)
    qrs_deg, t_deg = (float(np.degrees(np.arctan2(vector[1], vector[0]))) for vector in (qrs, t))
    angle = abs((qrs_deg - t_deg + 180) % 360 - 180)
    return {"qrs_axis_deg": qrs_deg, "t_axis_deg": t_deg, "qrs_t_angle_deg": angle}


def _frontal(beat: Beat, begin: float, end: float) -> Floats:
    """`(2,)`: leftwards and downwards; aVF is 2/√3 too small beside I."""
    area = beat.mv[:, round(begin) : round(end) + 1].sum(axis=1)
    return np.array([area[LEADS.index("I")], area[LEADS.index("aVF")] * 2 / np.sqrt(3)])


def _repolarisation(beat: Beat) -> dict[str, float]:
    """The shape of T, and of what follows it, in the root mean square over the leads."""
    if not np.isfinite(beat.t_end):
        return {}
    size, peak, last = beat.size, int(beat.t_peak), min(len(beat.size) - 1, round(beat.t_end))
    first, slope = round(beat.qrs_end), np.gradient(beat.size) * MS * 1000
    half = size >= size[peak] / 2
    rise_ms = _run(half[first : peak + 1][::-1]) / MS
    fall_ms = _run(half[peak:]) / MS
    u = size[round(beat.t_end + U_FROM_MS * MS) : round(beat.t_end + U_TO_MS * MS)]
    return {
        "t_size_mv": float(size[peak]),
        "t_width_ms": rise_ms + fall_ms,
        "t_asymmetry": rise_ms / fall_ms,
        "t_rise_mv_s": float(slope[first + round(40 * MS) : peak + 1].max(initial=0.0)),
        "t_fall_mv_s": float(-slope[peak : last + 1].min(initial=0.0)),
        "t_area_mv_ms": float(size[first : last + 1].sum() / MS),
        "t_to_qrs": float(size[peak] / size[int(beat.qrs_onset) : first + 1].max()),
        "u_size_mv": float(u.max()) if len(u) else np.nan,
    }


def _run(inside: npt.NDArray[np.bool_]) -> int:
    """How many of the first are true."""
    return len(inside) if inside.all() else int(inside.argmin())
