"""The heart as one moving electric dipole: P, QRS, ST, T and U waves as sums of asymmetric Gaussians in Frank's axes.

After McSharry et al. (IEEE TBME 2003;50:289) and Sameni et al. (EURASIP J Adv Signal Process 2007:43407): each wave has
a centre, a rise, a fall and a vector. The mean vectors below are ours, set so that the projected leads have textbook
shapes and the amplitudes of LUDB 1.0.1. Knows no age, no blood, no electrode: only hearts, one entry per record.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgscale.conventions import CODE_FS_HZ, CODE_N_SAMPLES

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

SIDE_S = 1.3
"""Margin on both sides of a record into which beats at the edges may reach."""

# Frank's axes: x to the left, y to the feet, z to the back. All vectors in mV.
P_RIGHT_ATRIUM, P_LEFT_ATRIUM = (0.035, 0.085, -0.045), (0.050, 0.045, 0.040)
QRS_NORMAL = np.array(
    [
        (-0.12, 0.02, -0.32),  # septum: r in V1, q in I and V6
        (1.18, 0.60, 0.06),  # free wall of the left ventricle: R in I, II, V4–V6
        (0.28, 0.06, 0.80),  # posterobasal wall: S in V1–V3
        (-0.18, -0.17, 0.26),  # last basal parts: s in II, V5, V6
    ]
)
QRS_NORMAL_CENTRE = np.array([0.18, 0.45, 0.64, 0.82])  # in parts of the QRS duration
QRS_NORMAL_WIDTH = np.array([0.075, 0.095, 0.095, 0.085])
RIGHT_LATE = (-0.50, -0.03, -0.60)  # unopposed right ventricle: R' in V1, wide S in I and V6
LEFT_EARLY, LEFT_LATE = (0.70, 0.25, 0.75), (0.80, 0.05, 0.60)  # through the septum, then around: notched R in I, V6
T_NORMAL = (0.31, 0.19, -0.17)
T_STRAIN = (-0.45, -0.16, 0.22)  # added in hypertrophy: T inverted in I, aVL, V5, V6
T_RIGHT, T_LEFT = (0.06, 0.00, 0.20), (-0.34, -0.06, -0.42)  # secondary to block: against the late QRS
ST_STRAIN, ST_LEFT = (-0.09, -0.05, 0.05), (-0.06, 0.00, -0.14)
U_NORMAL = (0.45, 0.35, -0.65)
F_WAVE = (-0.30, 0.45, -0.75)  # best seen in V1 and the inferior leads


@dataclass(frozen=True, eq=False)
class Heart:
    """Electrical state of each heart during one recording; shape `(record,)` unless said otherwise."""

    rr_s: Floats
    pr_s: Floats
    p_s: Floats
    """Duration of the P wave."""
    native_qrs_s: Floats
    """QRS duration without bundle branch block."""
    qrs_s: Floats
    right_block: Floats
    """Severity 0 … 1 of right bundle branch block."""
    left_block: Floats
    qtc_s: Floats
    """QT at 60 per minute; QT grows with the cube root of RR (Fridericia 1920)."""
    t_s: Floats
    """Width of the T wave: peak to end at 60 per minute."""
    p_gain: Floats
    qrs_gain: Floats
    t_gain: Floats
    u_mv: Floats
    strain: Floats
    """0 … 1, secondary ST-T changes of hypertrophy."""
    axis_rad: Floats
    """Turn of the QRS in the frontal plane, positive towards the feet."""
    turn_rad: Floats
    """Turn of the QRS in the horizontal plane, positive towards the back."""
    t_axis_rad: Floats
    t_turn_rad: Floats
    qrs_jitter: Floats
    """`(record, 7, 3)` in mV: what makes one person's QRS vectors differ from the mean ones."""
    fragment_centre: Floats
    """`(record, 2)` in parts of the QRS duration."""
    fragment_mv: Floats
    """`(record, 2, 3)`: small notches."""
    st_mv: Floats
    """`(record, 3)`: early repolarisation, unspecific ST shift."""
    ectopic_mv: Floats
    """`(record, 3)`: main vector of ventricular premature beats."""
    f_wave_mv: Floats
    """0 without atrial fibrillation."""
    f_wave_hz: Floats

    @property
    def t_peak_60_s(self) -> Floats:
        """QRS onset to the peak of T at 60 per minute: QT less the fall of T."""
        return self.qtc_s - self.t_s


@dataclass(frozen=True, eq=False)
class Waves:
    """Asymmetric Gaussians around an anchor in every beat; arrays `(record, wave)`, vectors `(record, wave, 3)`."""

    centre_s: Floats
    rise_s: Floats
    fall_s: Floats
    vector_mv: Floats
    window_s: tuple[float, float]
    """Start and end of what is computed, relative to the anchor; outside the Gaussians are below one per cent."""

    def smoothed(self, sigma_s: float) -> "Waves":
        """The same waves behind a Gaussian low-pass filter: widths add in quadrature, areas stay."""
        rise, fall = np.hypot(self.rise_s, sigma_s), np.hypot(self.fall_s, sigma_s)
        kept = (self.rise_s + self.fall_s) / (rise + fall)
        return Waves(self.centre_s, rise, fall, self.vector_mv * kept[..., None], self.window_s)


def atrial_waves(heart: Heart) -> Waves:
    """P: right, then left atrium; anchored at the onset of P. Fibrillating atria have none."""
    width = 0.22 * heart.p_s
    centre = np.stack([0.40 * heart.p_s, 0.62 * heart.p_s], axis=1)
    vector = np.array([P_RIGHT_ATRIUM, P_LEFT_ATRIUM]) * heart.p_gain[:, None, None]
    vector = _turned(vector, 0.5 * heart.axis_rad, np.zeros_like(heart.axis_rad))
    width = np.stack([width, width], axis=1)
    return Waves(centre, width, width, np.where(heart.f_wave_mv[:, None, None] > 0, 0.0, vector), (-0.04, 0.18))


def ventricular_waves(heart: Heart) -> Waves:
    """QRS: four native phases, the late forces of either bundle branch block, two fragments; anchored at QRS onset."""
    native, total = heart.native_qrs_s[:, None], heart.qrs_s[:, None]
    right, left = heart.right_block[:, None], heart.left_block[:, None]
    n = native.shape[0]
    centre = np.concatenate(
        [QRS_NORMAL_CENTRE * native, 0.76 * total, 0.33 * total, 0.66 * total, heart.fragment_centre * total], axis=1
    )
    width = np.concatenate(
        [QRS_NORMAL_WIDTH * native, 0.11 * total, 0.13 * total, 0.135 * total, np.full((n, 2), 0.05) * total], axis=1
    )
    mean = np.concatenate([QRS_NORMAL, [RIGHT_LATE, LEFT_EARLY, LEFT_LATE]])
    fading = np.array([0, 0, 0.65, 0.8])  # the right ventricle's late forces hide the left's
    share = np.concatenate([(1 - left) * (1 - right * fading), right, left, left], axis=1)
    vector = (mean + heart.qrs_jitter) * share[..., None]
    vector = np.concatenate([vector, heart.fragment_mv], axis=1) * heart.qrs_gain[:, None, None]
    return Waves(centre, width, width, _turned(vector, heart.axis_rad, heart.turn_rad), (-0.02, 0.25))


def repolarisation_waves(heart: Heart) -> Waves:
    """ST, T and U; anchored at the peak of T. The rise of T is the slower side."""
    fall = 0.5 * heart.t_s * np.cbrt(heart.rr_s)  # the tangent at the inflection of a Gaussian ends 2 σ after its peak
    strain, right, left = heart.strain[:, None], heart.right_block[:, None], heart.left_block[:, None]
    with_qrs = heart.qrs_gain[:, None]
    primary = np.array(T_NORMAL) * heart.t_gain[:, None] * (1 - 0.9 * left)
    secondary = (np.array(T_STRAIN) * strain + np.array(T_RIGHT) * right + np.array(T_LEFT) * left) * with_qrs
    t_mv = _turned(primary[:, None], heart.t_axis_rad, heart.t_turn_rad)[:, 0] + secondary
    st_mv = heart.st_mv + (np.array(ST_STRAIN) * strain + np.array(ST_LEFT) * left) * with_qrs
    st_centre = heart.qrs_s + 0.05 - heart.t_peak_60_s * np.cbrt(heart.rr_s)
    centre = np.stack([st_centre, np.zeros_like(fall), 2 * fall + 0.09], axis=1)
    rise = np.stack([np.full_like(fall, 0.03), 1.55 * fall, np.full_like(fall, 0.03)], axis=1)
    falls = np.stack([np.full_like(fall, 0.05), fall, np.full_like(fall, 0.04)], axis=1)
    vector = np.stack([st_mv, t_mv, np.array(U_NORMAL) * heart.u_mv[:, None]], axis=1)
    return Waves(centre, rise, falls, vector, (-0.32, 0.30))


def ectopic_waves(heart: Heart) -> Waves:
    """A ventricular premature beat: slow QRS, opposite T; anchored at QRS onset."""
    n = heart.rr_s.size
    centre = np.tile([0.055, 0.095, 0.32], (n, 1))
    rise = np.tile([0.022, 0.024, 0.065], (n, 1))
    main = heart.ectopic_mv * heart.qrs_gain[:, None]
    vector = np.stack([main, 0.6 * np.roll(main, 1, axis=1), -0.35 * main], axis=1)
    return Waves(centre, rise, rise, vector, (-0.02, 0.5))


def add_up(waves: Waves, record: Ints, anchor_s: Floats, n_records: int) -> Floats:
    """Lays the waves at their anchors.

    Args:
        waves: one table per record.
        record: `(beat,)` which record a beat belongs to.
        anchor_s: `(beat,)` where its waves are anchored; 0 is the first sample.
        n_records: how many records there are.

    Returns:
        `(record, 3, time)` in mV with 4096 samples.
    """
    n_side = round(SIDE_S * CODE_FS_HZ)
    n_buffer = CODE_N_SAMPLES + 2 * n_side
    start, stop = (round(edge * CODE_FS_HZ) for edge in waves.window_s)
    first = np.floor(anchor_s * CODE_FS_HZ).astype(np.int64) + start
    offset_s = (first / CODE_FS_HZ - anchor_s).astype(np.float32)
    time_s = offset_s[:, None] + np.arange(stop - start, dtype=np.float32) / np.float32(CODE_FS_HZ)
    centre, rise, fall = (a.astype(np.float32)[record][..., None] for a in (waves.centre_s, waves.rise_s, waves.fall_s))
    z = time_s[:, None, :] - centre  # (beat, wave, window)
    z /= rise if waves.rise_s is waves.fall_s else np.where(z < 0, rise, fall)
    np.square(z, out=z)
    z *= np.float32(-0.5)
    np.exp(z, out=z)
    vector = np.ascontiguousarray(waves.vector_mv.astype(np.float32).transpose(0, 2, 1))[record]
    pieces = vector @ z  # (beat, 3, window)
    row = (record * 3)[:, None] + np.arange(3)
    target = (row * n_buffer + (first + n_side)[:, None])[..., None] + np.arange(stop - start)
    total = np.bincount(target.ravel(), pieces.ravel().astype(np.float64), minlength=n_records * 3 * n_buffer)
    return total.astype(np.float32).reshape(n_records, 3, n_buffer)[:, :, n_side : n_side + CODE_N_SAMPLES]


def add_fibrillation(dipole_mv: Floats, rng: np.random.Generator, heart: Heart) -> None:
    """Adds f waves in place: a sawtooth-like oscillation of 4–9 Hz whose rate and size wander slowly.

    The form (fundamental plus one harmonic, both modulated) follows Stridh and Sörnmo, IEEE TBME 2001;48:105.
    """
    rows = np.flatnonzero(heart.f_wave_mv > 0)
    if rows.size == 0:
        return
    time_s = np.arange(CODE_N_SAMPLES) / CODE_FS_HZ
    slow = 2 * np.pi * rng.uniform(0.1, 0.5, (rows.size, 2, 1)) * time_s + rng.uniform(0, 6.28, (rows.size, 2, 1))
    phase = 2 * np.pi * heart.f_wave_hz[rows, None] * time_s + 1.5 * np.sin(slow[:, 0])
    size_mv = heart.f_wave_mv[rows, None] * (1 + 0.3 * np.sin(slow[:, 1]))
    direction = np.array(F_WAVE) + rng.normal(0, 0.2, (rows.size, 3))
    wave_mv = size_mv * (np.sin(phase) + 0.35 * np.sin(2 * phase + 0.8))
    dipole_mv[rows] += direction[:, :, None] * wave_mv[:, None, :]


def _turned(vector: Floats, axis_rad: Floats, turn_rad: Floats) -> Floats:
    """Turns `(record, wave, 3)` first in the frontal plane (x towards y), then in the horizontal one (x towards z)."""
    x, y, z = np.moveaxis(vector, -1, 0)
    cos, sin = np.cos(axis_rad)[:, None], np.sin(axis_rad)[:, None]
    x, y = cos * x - sin * y, sin * x + cos * y
    cos, sin = np.cos(turn_rad)[:, None], np.sin(turn_rad)[:, None]
    return np.stack([cos * x - sin * z, y, sin * x + cos * z], axis=-1)
