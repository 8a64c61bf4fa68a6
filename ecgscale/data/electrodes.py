"""From the heart to the twelve leads: Dower's lead field, nine noisy electrodes, an imperfect recorder.

Noise arises on electrodes, gain errors on the eight measured leads; III, aVR, aVL and aVF are computed from I and II:
the Einthoven and Goldberger relations hold exactly, as they do in real recorders.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from ecgscale.conventions import CODE_FS_HZ, CODE_N_SAMPLES, INDEPENDENT_LEADS, LEADS
from ecgscale.data.cardiac_dipole import Floats, Ints

DOWER = np.array(
    [
        (0.632, -0.235, 0.059),  # I
        (0.235, 1.066, -0.132),  # II
        (-0.515, 0.157, -0.917),  # V1
        (0.044, 0.164, -1.387),  # V2
        (0.882, 0.098, -1.277),  # V3
        (1.213, 0.127, -0.601),  # V4
        (1.125, 0.127, -0.086),  # V5
        (0.831, 0.076, 0.230),  # V6
    ]
)
"""Leads from Frank's x, y, z (Dower, Machado, Osborne, Clin Cardiol 1980;3:87), rows as INDEPENDENT_LEADS."""

# Columns of everything per electrode: RA, LA, LL, V1 to V6.


def _leads_from_electrodes() -> Floats:
    mix = np.zeros((8, 9))
    mix[0, [1, 0]] = 1, -1  # I = LA − RA
    mix[1, [2, 0]] = 1, -1  # II = LL − RA
    mix[2:, :3] = -1 / 3  # Wilson's central terminal
    mix[2:, 3:] = np.eye(6)
    return mix


LEADS_FROM_ELECTRODES = _leads_from_electrodes()

N_WANDER = 16
"""Cosines at multiples of 1 / 20.48 s: baseline wander up to 0.78 Hz."""


@dataclass(frozen=True)
class Recorder:
    """An ECG machine and the room it stands in. Noise levels are medians over records of the standard deviation."""

    mains_hz: float
    high_pass_hz: float
    low_pass_hz: float
    """−3 dB point."""
    quantum_mv: float
    gain_error: float
    """Relative standard deviation of the gain, of a record and of a lead each."""
    wander_mv: float
    hum_mv: float
    muscle_mv: float
    chest_misplaced: float
    """How far V1 and V2 sit too high, as a share of the distance to V3's field; 0 = where they belong."""

    @property
    def smoothing_s(self) -> float:
        """Standard deviation of the Gaussian impulse response: |H(f)| = exp(−(2πfσ)²/2) is 1/√2 at `low_pass_hz`."""
        return float(np.sqrt(np.log(2)) / (2 * np.pi * self.low_pass_hz))


def draw_lead_field(variation: Floats, recorder: Recorder) -> Floats:
    """Dower's matrix for one chest each.

    Args:
        variation: `(record, 8, 3)` relative deviations of body and electrode placement.
        recorder: supplies the systematic misplacement of V1 and V2.

    Returns:
        `(record, 8, 3)`.
    """
    mean = DOWER.copy()
    # Too high, V1 and V2 look down on the septum: the vertical component turns negative and the front one shrinks.
    mean[2:4, 1] -= recorder.chest_misplaced
    mean[2:4, 2] *= 1 - 0.5 * recorder.chest_misplaced
    field: Floats = mean + variation * np.linalg.norm(mean, axis=1, keepdims=True)
    return field


def record_leads(
    rng: np.random.Generator, dipole_mv: Floats, field: Floats, breath: Floats, n_valid: Ints, recorder: Recorder
) -> Floats:
    """Records twelve leads.

    Args:
        rng: for noise and gains.
        dipole_mv: `(record, 3, time)`.
        field: `(record, 8, 3)`.
        breath: `(record, time)`, −1 … 1; moves the electrodes too.
        n_valid: `(record,)` samples that are recorded; the rest is zero, half before and half after.
        recorder: the machine.

    Returns:
        `(record, time, lead)` float32 in mV, in the order of LEADS.
    """
    n = dipole_mv.shape[0]
    sources = np.empty((n, 13, CODE_N_SAMPLES), np.float32)
    sources[:, :3] = dipole_mv
    sources[:, 3] = breath
    _fill_electrode_noise(rng, recorder, sources[:, 4:])
    breathing = LEADS_FROM_ELECTRODES @ (rng.normal(0, 1, (n, 9, 1)) * recorder.wander_mv * 0.4)
    gain = (1 + rng.normal(0, recorder.gain_error, (n, 1, 1))) * (1 + rng.normal(0, recorder.gain_error, (n, 8, 1)))
    noise_mix = np.broadcast_to(LEADS_FROM_ELECTRODES, (n, 8, 9))
    mix = np.concatenate([field, breathing, noise_mix], axis=2) * gain
    measured = mix.astype(np.float32) @ sources
    measured *= np.float32(1 / recorder.quantum_mv)
    np.rint(measured, out=measured)
    measured *= np.float32(recorder.quantum_mv)
    start = (CODE_N_SAMPLES - n_valid) // 2
    for row in range(n):
        measured[row, :, : start[row]] = 0
        measured[row, :, start[row] + n_valid[row] :] = 0
    return twelve_leads(measured)


def twelve_leads(measured_mv: Floats) -> Floats:
    """`(record, 8, time)` in the order of INDEPENDENT_LEADS to `(record, time, 12)` in the order of LEADS."""
    lead = {name: measured_mv[:, i] for i, name in enumerate(INDEPENDENT_LEADS)}
    one, two = lead["I"], lead["II"]
    lead["III"] = two - one
    lead["aVR"] = (one + two) * np.float32(-0.5)
    lead["aVL"] = one - two * np.float32(0.5)
    lead["aVF"] = two - one * np.float32(0.5)
    out = np.empty((measured_mv.shape[0], measured_mv.shape[2], 12), np.float32)
    for i, name in enumerate(LEADS):
        out[:, :, i] = lead[name]
    return out


def _fill_electrode_noise(rng: np.random.Generator, recorder: Recorder, out: Floats) -> None:
    """Fills `(record, 9, time)` with muscle noise, baseline wander and mains hum in mV."""
    n = out.shape[0]
    basis, size_mv = _slow_and_hum_basis(recorder)
    weight = rng.normal(0, 1, (n, 9, size_mv.size)) * size_mv
    weight[..., :N_WANDER] *= np.exp(rng.normal(0, 0.7, (n, 1, 1)))
    weight[..., N_WANDER:] *= np.exp(rng.normal(0, 1.0, (n, 1, 1)))
    np.matmul(weight.astype(np.float32), basis, out=out)
    muscle_mv = recorder.muscle_mv * np.exp(rng.normal(0, 0.7, (n, 1, 1)) + rng.normal(0, 0.5, (n, 9, 1)))
    # Muscles tense and relax within a record: a smooth envelope from the slowest cosines (our assumption).
    envelope = np.exp(rng.normal(0, 0.25, (n, 1, 5)).astype(np.float32) @ basis[:5])
    spectrum = _muscle_spectrum(recorder)
    for row in range(n):  # one record fits the processor's cache, a block does not
        white = rng.standard_normal((9, 2 * spectrum.size), dtype=np.float32).view(np.complex64)
        white *= spectrum * muscle_mv[row].astype(np.float32)
        muscle = scipy.fft.irfft(white, CODE_N_SAMPLES, axis=-1, workers=1, overwrite_x=True)
        muscle *= envelope[row]
        out[row] += muscle


def _muscle_spectrum(recorder: Recorder) -> Floats:
    """Size of each Fourier coefficient of muscle noise behind the low-pass, 1 mV before it; `(bin,)`."""
    frequency_hz = np.fft.rfftfreq(CODE_N_SAMPLES, 1 / CODE_FS_HZ)
    muscle = frequency_hz / np.hypot(frequency_hz, 20.0)  # little below 20 Hz (our assumption)
    spectrum = muscle * np.exp(-0.5 * (2 * np.pi * frequency_hz * recorder.smoothing_s) ** 2)
    spectrum *= 0.5 * CODE_N_SAMPLES / np.sqrt(np.sum(muscle**2))  # so that the sum of all lines has unit variance
    n_bins = int(np.flatnonzero(spectrum > 1e-3 * spectrum.max())[-1]) + 1
    kept: Floats = spectrum[:n_bins].astype(np.float32)
    return kept


def _slow_and_hum_basis(recorder: Recorder) -> tuple[Floats, Floats]:
    """Time courses `(wave, time)` of wander and hum, and the standard deviation of each course's weight in mV."""
    time_s = np.arange(CODE_N_SAMPLES) / CODE_FS_HZ
    order = np.arange(1, N_WANDER + 1)
    wander_hz = order / (2 * CODE_N_SAMPLES / CODE_FS_HZ)
    # Brownian-like: amplitude falls as 1/f (our assumption); the high-pass is first order.
    wander = recorder.wander_mv / order * wander_hz / np.hypot(wander_hz, recorder.high_pass_hz)
    hum_hz = recorder.mains_hz * np.array([1, 1, 2, 2, 3, 3])
    hum = recorder.hum_mv * np.array([1, 1, 0.15, 0.15, 0.3, 0.3])
    hum = hum * np.exp(-0.5 * (2 * np.pi * hum_hz * recorder.smoothing_s) ** 2)
    phase = np.tile([0, np.pi / 2], 3)
    slow = np.cos(2 * np.pi * wander_hz[:, None] * time_s)
    mains = np.cos(2 * np.pi * hum_hz[:, None] * time_s + phase[:, None])
    return np.concatenate([slow, mains]).astype(np.float32), np.concatenate([wander, hum])
