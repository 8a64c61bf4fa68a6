"""One recording in whatever leads, rate and length it came: (4096, 12) at 400 Hz, as the CODE format wants it.

Leads are matched by name, never by position; missing limb leads are computed from I and II; a record that cannot be
brought to this form is refused with the reason. Units are not touched here.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ecgscale.conventions import CODE_FS_HZ, CODE_N_SAMPLES, LEADS
from ecgscale.errors import DataError

# Einthoven's and Goldberger's relations: each derived lead as a × I + b × II.
DERIVED_LEADS = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}

_BY_SPELLING = {lead.upper(): lead for lead in LEADS} | {"1": "I", "2": "II", "3": "III"}


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
        derive: Compute III, aVR, aVL and aVF from I and II where they are missing or hold NaN. Only for signals that
            are all in one unit, which z-scored leads are not.

    Returns:
        (time, lead), finite.

    Raises:
        DataError: Leads are missing, appear twice, or hold NaN, and cannot be computed. Names the leads.
    """
    names = [lead_name(name) for name in leads]
    twice = sorted({name for name in names if name is not None and names.count(name) > 1})
    if twice:
        raise DataError(f"lead {', '.join(twice)} appears more than once")
    columns = {name: signal[:, k] for k, name in enumerate(names) if name is not None}
    missing = [lead for lead in LEADS if lead not in columns]
    with_nan = [lead for lead in LEADS if lead in columns and not np.isfinite(columns[lead]).all()]
    usable = columns.keys() - set(with_nan)
    computed = [x for x in [*missing, *with_nan] if derive and x in DERIVED_LEADS and {"I", "II"} <= usable]
    if lost := [lead for lead in missing if lead not in computed]:
        raise DataError(f"lead {', '.join(lost)} is missing and cannot be computed; found {', '.join(leads)}")
    if lost := [lead for lead in with_nan if lead not in computed]:
        raise DataError(f"lead {', '.join(lost)} holds NaN (samples marked as invalid)")
    for lead in computed:
        a, b = DERIVED_LEADS[lead]
        columns[lead] = a * columns["I"] + b * columns["II"]
    return np.stack([columns[lead] for lead in LEADS], axis=1).astype(np.float32)


def to_code_rate(signal: NDArray[np.float32], fs_hz: float) -> NDArray[np.float32]:
    """Polyphase resampling of (time, lead) to 400 Hz, the method of the CODE releases.

    The signal is continued along the line through its ends: continued with zeros, a baseline offset would ring.
    """
    if not 50 <= fs_hz <= 10_000:  # our assumption: nobody records a diagnostic ECG outside this range
        raise DataError(f"sampling rate {fs_hz:g} Hz is not that of an ECG")
    if fs_hz == CODE_FS_HZ:
        return signal
    ratio = Fraction(CODE_FS_HZ / fs_hz).limit_denominator(1000)
    resampled = resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")
    return np.asarray(resampled, dtype=np.float32)


def to_code_length(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """4096 samples of (time, lead), as in the CODE releases: a longer signal's middle, a shorter one between zeros."""
    n = len(signal)
    if n >= CODE_N_SAMPLES:
        start = (n - CODE_N_SAMPLES) // 2
        return signal[start : start + CODE_N_SAMPLES]
    before = (CODE_N_SAMPLES - n) // 2
    return np.pad(signal, ((before, CODE_N_SAMPLES - n - before), (0, 0)))
