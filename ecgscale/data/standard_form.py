"""One recording in whatever leads, rate and length it came: (4096, 12) at 400 Hz, as the CODE format wants it.

Leads are matched by name, never by position; missing limb leads are computed from two others; a record that cannot be
brought to this form is refused with the reason. Units are not touched here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly

from ecgscale.conventions import CODE_FS_HZ, CODE_N_SAMPLES, LEADS
from ecgscale.errors import DataError

# Einthoven's and Goldberger's relations: each derived lead as a × I + b × II.
DERIVED_LEADS = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}

# The six limb leads span a plane and no two of them are parallel, so any two give the other four.
_LIMB_LEADS = {"I": (1.0, 0.0), "II": (0.0, 1.0), **DERIVED_LEADS}

_BY_SPELLING = {lead.upper(): lead for lead in LEADS} | {"1": "I", "2": "II", "3": "III"}

Crop = Literal["center", "start", "refuse"]
Pad = Literal["both", "end", "refuse"]


@dataclass(frozen=True)
class LengthRule:
    """How a record gets its 4096 samples (10.24 s). The defaults are what the CODE releases do.

    Attributes:
        crop: Which part of a longer record is kept: its middle, its start, or none (it is refused).
        pad: Where a shorter record is filled with zeros: on both sides, at its end, or nowhere (it is refused).
    """

    crop: Crop = "center"
    pad: Pad = "both"

    def __post_init__(self) -> None:
        for name, value, known in (("crop", self.crop, get_args(Crop)), ("pad", self.pad, get_args(Pad))):
            if value not in known:
                raise DataError(f"{name} must be one of {', '.join(known)}, not {value!r}")

    def describe(self) -> str:
        """In words, for the provenance."""
        crop = {"center": "longer records cropped to their middle", "start": "longer records cropped to their start"}
        pad = {"both": "shorter ones between zeros", "end": "zeros after shorter ones"}
        return f"4096 samples: {crop.get(self.crop, 'longer records refused')}, {pad.get(self.pad, 'shorter refused')}"


CODE_LENGTH = LengthRule()


def lead_name(spelling: str) -> str | None:
    """The standard name of a lead written `aVR`, `AVR`, `i`, `DI`, `D1`, `Lead II`, `V1`; None for any other signal."""
    name = re.sub(r"^LEAD[\s_-]*", "", spelling.strip().upper())
    return _BY_SPELLING.get(name) or _BY_SPELLING.get(name.removeprefix("D"))


def in_standard_order(
    signal: NDArray[np.floating], leads: Sequence[str], *, derive: bool = True
) -> NDArray[np.float32]:
    """Twelve leads in the standard order.

    Args:
        signal: (time, signal).
        leads: The name of each signal in any spelling; signals that are no standard lead are dropped.
        derive: Compute limb leads that are missing or hold NaN from two others. Only for signals that are all in one
            unit, which z-scored leads are not.

    Returns:
        (time, lead), finite.

    Raises:
        DataError: Leads are missing, appear twice, or hold NaN, and cannot be computed. Names the leads.
    """
    names = [lead_name(name) for name in leads]
    twice = sorted({name for name in names if name is not None and names.count(name) > 1})
    if twice:
        raise DataError(f"lead {', '.join(twice)} appears more than once")
    by_signal = np.ascontiguousarray(signal.T)  # (signal, time): it is resampled along time
    finite = np.asarray(np.isfinite(by_signal).all(axis=1))
    columns = {name: k for k, name in enumerate(names) if name is not None}
    usable = [lead for lead in LEADS if lead in columns and finite[columns[lead]]]
    recipes = {lead: _recipe(lead, usable) for lead in LEADS if derive and lead not in usable}
    lost = [lead for lead in LEADS if lead not in usable and not recipes.get(lead)]
    if missing := [lead for lead in lost if lead not in columns]:
        raise DataError(f"lead {', '.join(missing)} is missing and cannot be computed; found {', '.join(leads)}")
    if lost:
        raise DataError(f"lead {', '.join(lost)} holds NaN (samples marked as invalid)")
    ordered = np.empty((len(LEADS), len(signal)), dtype=np.float32)
    for row, lead in enumerate(LEADS):
        if lead in usable:
            ordered[row] = by_signal[columns[lead]]
        else:
            (one, a), (other, b) = recipes[lead].items()
            ordered[row] = a * by_signal[columns[one]] + b * by_signal[columns[other]]
    return ordered.T


def to_code_rate(signal: NDArray[np.float32], fs_hz: float) -> NDArray[np.float32]:
    """Polyphase resampling of (time, lead) to 400 Hz, the method of the CODE releases.

    The signal is continued along the line through its ends: continued with zeros, a baseline offset would ring.
    """
    if not 50 <= fs_hz <= 10_000:  # our assumption: nobody records a diagnostic ECG outside this range
        raise DataError(f"sampling rate {fs_hz:g} Hz is not that of an ECG")
    if len(signal) < 2:
        raise DataError(f"has {len(signal) or 'no'} sample")
    if fs_hz == CODE_FS_HZ:
        return signal
    ratio = Fraction(CODE_FS_HZ / fs_hz).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    by_lead = np.ascontiguousarray(signal.T)
    window = _low_pass(up, down)
    resampled = resample_poly(by_lead, up, down, 1, window, "line")  # type: ignore[call-overload]  # its stubs know no array
    return np.asarray(resampled, dtype=np.float32).T


def to_code_length(signal: NDArray[np.float32], rule: LengthRule = CODE_LENGTH) -> NDArray[np.float32]:
    """4096 samples of (time, lead) at 400 Hz: a part of a longer signal, a shorter one with zeros added."""
    n = len(signal)
    if n == CODE_N_SAMPLES:
        return signal
    what = rule.crop if n > CODE_N_SAMPLES else rule.pad
    if what == "refuse":
        long = "longer" if n > CODE_N_SAMPLES else "shorter"
        raise DataError(f"{n / CODE_FS_HZ:g} s is {long} than {CODE_N_SAMPLES / CODE_FS_HZ:g} s")
    spare = abs(CODE_N_SAMPLES - n)
    before = spare // 2 if what in ("center", "both") else 0
    if n > CODE_N_SAMPLES:
        return signal[before : before + CODE_N_SAMPLES]
    padded = np.zeros((CODE_N_SAMPLES, signal.shape[1]), dtype=signal.dtype)
    padded[before : before + n] = signal
    return padded


def _recipe(lead: str, usable: Sequence[str]) -> Mapping[str, float]:
    """A limb lead as a sum of the first two limb leads at hand, each times a factor; empty if it can't be computed."""
    known = [name for name in usable if name in _LIMB_LEADS][:2]
    if lead not in _LIMB_LEADS or len(known) < 2:
        return {}
    (a1, b1), (a2, b2) = (_LIMB_LEADS[name] for name in known)
    a, b = _LIMB_LEADS[lead]
    determinant = a1 * b2 - a2 * b1
    return {known[0]: (a * b2 - b * a2) / determinant, known[1]: (b * a1 - a * b1) / determinant}


@lru_cache(maxsize=32)
def _low_pass(up: int, down: int) -> NDArray[np.float32]:
    """The filter that `scipy.signal.resample_poly` designs by default, once per ratio instead of once per record."""
    widest = max(up, down)
    taps = firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0))
    return np.asarray(taps, dtype=np.float32)
