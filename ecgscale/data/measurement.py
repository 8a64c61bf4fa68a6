"""A few numbers about one recording that tell whether it is sound: length, padding, dead leads, amplitude, limb leads.

One function per number and `measure` for all of them, about a millisecond per record. Signals are (time, lead) in
standard order in whatever unit; nothing here knows files, tables or what is normal.
"""

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from ecgscale.conventions import LEADS
from ecgscale.data import limb_leads

Signal = NDArray[np.float32]
"""(time, lead), leads in standard order."""
Leads = NDArray[np.float32]
"""(lead, time), contiguous: each lead is read in one go, which is several times faster."""
Floats = NDArray[np.float64]

SHORTEST_S = 1.0
"""A recording below this has no numbers: it may not even hold one beat (our assumption)."""

_AMPLITUDE_QUANTILE = 0.998
_BASELINE_HZ = 0.5
_SLOPE_S = 0.01
_EQUAL_SPREADS, _EQUAL_RANGES = 0.15, 0.01
_PLATEAU_S, _PLATEAU_RUN = 0.04, 4
_PLATEAU_DISTANCE = 0.25


class Numbers(NamedTuple):
    """What `measure` finds; one row of the table of records.

    `reason` says why there are no other numbers; NaN and empty text stand for what could not be measured.
    """

    reason: str = ""
    """ "", "all zero", "NaN" or "shorter than 1 s"."""
    n_samples: int = 0
    """Without padding."""
    n_before: int = 0
    """Padding, samples in which all leads are zero, before the recording and after it."""
    n_after: int = 0
    gap_s: float = 0.0
    """Time inside the recording in which all leads are zero."""
    flat: int = 0
    """Leads that are constant: bit k stands for LEADS[k]."""
    clipped: int = 0
    amplitude: float = float("nan")
    einthoven: float = float("nan")
    goldberger: float = float("nan")
    limb_residual: float = float("nan")
    cause: str = ""
    cause_leads: str = ""
    explained: float = float("nan")
    """Residual of the limb leads after the change that `cause` names."""
    cables: str = ""
    scaled: str = ""
    """How every lead was scaled by itself: "zscore", "range" or ""."""
    digest: int = 0
    """Equal for equal signals."""


class Slopes:
    """The mean correlation of the leads' slopes over all records; a sum, so it takes no memory."""

    def __init__(self) -> None:
        self.n_records = 0
        self._sum: Floats = np.zeros((len(LEADS), len(LEADS)))

    def add(self, products: Floats) -> None:
        """Adds a record by the mean products of its leads' slopes; one with a flat lead does not count."""
        size = np.sqrt(products.diagonal())
        if (size > 0).all():
            self._sum += products / np.outer(size, size)
            self.n_records += 1

    @property
    def correlation(self) -> Floats:
        """(lead, lead), in standard order; zero before the first record."""
        average: Floats = self._sum / max(self.n_records, 1)
        return average


def measure(signal: Signal, fs_hz: float, slopes: Slopes | None = None) -> Numbers:
    """All numbers of a record.

    Args:
        signal: (time, lead) with or without padding.
        fs_hz: Its sampling rate.
        slopes: Where the correlation of this record's leads is added.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        total = signal.sum(dtype=np.float64)
    if not np.isfinite(total):  # finite exactly when no sample is NaN or infinite
        return Numbers(reason="NaN")
    whole: Leads = np.ascontiguousarray(signal.T)
    filled = np.asarray(whole.any(axis=0))
    part = _between_padding(filled)
    leads: Leads = np.ascontiguousarray(whole[:, part])
    n_samples = leads.shape[1]
    size = {"n_samples": n_samples, "n_before": part.start, "n_after": len(signal) - part.stop}
    if n_samples == 0:
        return Numbers(reason="all zero")
    if n_samples < SHORTEST_S * fs_hz:
        return Numbers(reason=f"shorter than {SHORTEST_S:g} s", **size)
    mean, covariance = _moments(leads)
    low, high = leads.min(axis=1), leads.max(axis=1)
    limb = limb_leads.residuals(covariance)
    cause = limb_leads.Cause("")
    if limb.together > limb_leads.CONTRADICTION:
        cause = limb_leads.probable_cause(covariance)
    slope = _slope_products(leads, fs_hz)
    if slopes is not None:
        slopes.add(slope)
    return Numbers(
        **size,
        gap_s=float((~filled[part]).sum() / fs_hz),
        flat=_as_bits(low == high),
        clipped=_as_bits(_clipped(leads, low, high, fs_hz)),
        amplitude=lead_amplitude(leads[LEADS.index("II")], fs_hz),
        einthoven=limb.einthoven,
        goldberger=limb.goldberger,
        limb_residual=limb.together,
        cause=cause.kind,
        cause_leads=cause.leads,
        explained=cause.residual,
        cables=limb_leads.swapped_cables(leads, slope),
        scaled=_own_scale(mean, np.sqrt(np.maximum(covariance.diagonal(), 0.0)), high - low),
        digest=_digest(leads),
    )


def recorded_part(signal: Signal) -> slice:
    """The samples of (time, lead) between the zero padding on both sides; empty if all are zero."""
    return _between_padding(np.asarray(signal.any(axis=1)))


def einthoven_residual(signal: Signal) -> float:
    """How badly III, aVR, aVL and aVF of (time, lead) disagree with I and II: 0 if not at all, about 1 if mixed up."""
    return limb_leads.residuals(_moments(signal.T)[1]).together


def lead_amplitude(lead: NDArray[np.float32], fs_hz: float) -> float:
    """The 99.8 % quantile of |x| after a high-pass: about the height of the R wave, whatever the baseline does.

    The high-pass (Butterworth, second order, 0.5 Hz, forwards and backwards) is the usual one against baseline wander.
    Medians of lead II that we measured with it: LUDB 0.94, PTB-XL 0.86, Georgia 0.72 mV, CODE-15 % 1.57 as stored.
    """
    level = scipy.signal.filtfilt(*_high_pass(fs_hz), lead.astype(np.float64))
    return float(np.quantile(np.abs(level), _AMPLITUDE_QUANTILE))


def clipped_leads(signal: Signal, fs_hz: float) -> list[str]:
    """Leads of (time, lead) that are cut off at a ceiling or a floor, or stuck there.

    Clipped is a lead that stays at its own extreme for 40 ms altogether, in runs of four samples or more, if that
    extreme is a quarter of the lead's range away from its median (a flat baseline is none). Our definition: of 297 real
    records it names four, with plateaus that one sees. Resampling rounds plateaus off: look before it.
    """
    leads = np.ascontiguousarray(signal.T)
    return leads_of(_as_bits(_clipped(leads, leads.min(axis=1), leads.max(axis=1), fs_hz)))


def leads_of(bits: int) -> list[str]:
    """The names of the leads whose bits are set, as in `Numbers.flat`."""
    return [lead for k, lead in enumerate(LEADS) if bits >> k & 1]


def _between_padding(filled: NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(filled)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


@cache
def _high_pass(fs_hz: float) -> tuple[Floats, Floats]:
    numerator, denominator = scipy.signal.butter(2, _BASELINE_HZ, "highpass", fs=fs_hz)
    return numerator, denominator


def _moments(leads: Leads) -> tuple[Floats, Floats]:
    """Mean and covariance of the leads, exact where a large baseline offset would swallow the digits of float32."""
    exact = leads.astype(np.float64)
    mean: Floats = exact.mean(axis=1)
    exact -= mean[:, None]
    return mean, exact @ exact.T / exact.shape[1]


def _slope_products(leads: Leads, fs_hz: float) -> Floats:
    """Mean products of the leads' slopes over 10 ms, (lead, lead). Slopes are QRS; baselines drop out."""
    step = max(1, round(_SLOPE_S * fs_hz))
    exact = leads.astype(np.float64)  # squares of absurd numbers do not fit into float32
    slope = exact[:, step:] - exact[:, :-step]
    products: Floats = slope @ slope.T / slope.shape[1]
    return products


def _clipped(leads: Leads, low: Leads, high: Leads, fs_hz: float) -> NDArray[np.bool_]:
    span = high - low
    near = 1e-4 * span
    clipped = np.zeros(len(leads), dtype=bool)
    for at_extreme, sign in ((leads >= (high - near)[:, None], 1.0), (leads <= (low + near)[:, None], -1.0)):
        enough = np.count_nonzero(at_extreme, axis=1) >= _PLATEAU_S * fs_hz
        for k in np.flatnonzero(enough & (span > 0)):
            edges = np.flatnonzero(np.diff(at_extreme[k], prepend=False, append=False))
            lengths = edges[1::2] - edges[::2]
            distance = (high[k] if sign > 0 else -low[k]) - sign * np.median(leads[k])
            long_enough = lengths[lengths >= _PLATEAU_RUN].sum() >= _PLATEAU_S * fs_hz
            clipped[k] |= bool(long_enough and distance > _PLATEAU_DISTANCE * span[k])
    return clipped


def _own_scale(mean: Floats, spread: Floats, span: Signal) -> str:
    """Whether each lead was scaled by itself. No twelve leads of a heart have equal spreads, or equal ranges.

    A factor that all leads share changes nothing, so z-scores that were taken for millivolts are found in any unit.
    """
    alive = span > 0
    if alive.sum() < 2:
        return ""
    mean, spread, span = mean[alive], spread[alive], span[alive]
    if span.max() < (1 + _EQUAL_RANGES) * span.min():
        return "range"
    equal = spread.max() < (1 + _EQUAL_SPREADS) * spread.min()
    return "zscore" if equal and np.abs(mean).max() < _EQUAL_SPREADS * spread.min() else ""


def _as_bits(leads: NDArray[np.bool_]) -> int:
    return sum(1 << int(k) for k in np.flatnonzero(leads))


def _digest(leads: Leads) -> int:
    positive = leads + np.float32(0)  # no negative zeros: they are equal but have other bytes
    # SHA-256 has instructions of its own in most processors: 0.1 ms per record, blake2b 0.3
    return int.from_bytes(hashlib.sha256(positive.data).digest()[:8], "little", signed=True)
