"""When a heart beats: QRS onsets of many ECGs at once in sinus rhythm, in atrial fibrillation, with premature beats.

Times only; what one beat looks like is `cardiac_dipole`. All records of a block are laid out as one flat list of beats.
"""

from dataclasses import dataclass

import numpy as np

from ecgscale.conventions import CODE_FS_HZ, CODE_N_SAMPLES
from ecgscale.data.cardiac_dipole import Bools, Floats, Ints

DURATION_S = CODE_N_SAMPLES / CODE_FS_HZ
MAX_BEATS = 40
"""Drawn per record: enough for 12.5 s at 180 per minute."""

MAYER_WAVE_HZ = 0.1
"""The low-frequency oscillation of heart rate (Task Force of ESC and NASPE, Circulation 1996;93:1043)."""


@dataclass(frozen=True, eq=False)
class Rhythm:
    """How each heart is paced; every field has shape `(record,)`."""

    rr_s: Floats
    """Mean time between beats."""
    variability: Floats
    """Relative size of the respiratory and of the Mayer oscillation of RR (sinus rhythm)."""
    fibrillation: Bools
    """Atrial fibrillation: independent intervals instead of oscillations."""
    irregularity: Floats
    """Coefficient of variation of RR in fibrillation."""
    respiration_hz: Floats
    respiration_phase: Floats
    premature_rate: Floats
    """Probability that a beat comes early."""
    ventricular: Bools
    """Premature beats arise in the ventricles: another QRS, no P wave, a compensatory pause."""


@dataclass(frozen=True, eq=False)
class Beats:
    """Every beat of every record, flat; fields have shape `(beat,)`."""

    record: Ints
    onset_s: Floats
    """Start of the QRS complex; 0 is the first of the 4096 samples. Beats that begin just outside are included."""
    rr_s: Floats
    """Interval since the beat before."""
    ventricular: Bools


def draw_beats(rng: np.random.Generator, rhythm: Rhythm) -> Beats:
    """Draws the beats that touch a record of 4096 samples."""
    shape = (rhythm.rr_s.size, MAX_BEATS)
    relative = np.where(rhythm.fibrillation[:, None], _fibrillating(rng, rhythm, shape), _sinus(rng, rhythm, shape))
    premature = (rng.random(shape) < rhythm.premature_rate[:, None]) & ~rhythm.fibrillation[:, None]
    ventricular = premature & rhythm.ventricular[:, None]
    pause = np.where(rhythm.ventricular, 1.35, 1.05)[:, None]  # a ventricular beat leaves the sinus clock unreset
    after = np.roll(premature, 1, axis=1)
    relative *= np.where(premature, rng.uniform(0.6, 0.78, shape), 1.0) * np.where(after & ~premature, pause, 1.0)
    rr_s = np.maximum(relative * rhythm.rr_s[:, None], 0.3)  # refractory: no two beats within 0.3 s (our assumption)
    onset_s = np.cumsum(rr_s, axis=1) - rr_s[:, :1] * (1 + rng.random((shape[0], 1))) - 0.5
    record, index = np.nonzero((onset_s > -0.75) & (onset_s < DURATION_S + 0.3))
    return Beats(record, onset_s[record, index], rr_s[record, index], ventricular[record, index])


def _sinus(rng: np.random.Generator, rhythm: Rhythm, shape: tuple[int, int]) -> Floats:
    """RR relative to its mean: two oscillations, Mayer's and the breath's, and noise, as in McSharry et al. 2003."""
    time_s = np.arange(shape[1]) * rhythm.rr_s[:, None]
    breath = np.sin(2 * np.pi * rhythm.respiration_hz[:, None] * time_s + rhythm.respiration_phase[:, None])
    mayer = np.sin(2 * np.pi * MAYER_WAVE_HZ * time_s + rng.uniform(0, 2 * np.pi, (shape[0], 1)))
    noise = rng.normal(0, 0.25, shape)
    return 1 + rhythm.variability[:, None] * (breath + 0.7 * mayer + noise)


def _fibrillating(rng: np.random.Generator, rhythm: Rhythm, shape: tuple[int, int]) -> Floats:
    """RR relative to its mean: independent gamma intervals, the usual description of conduction in fibrillation."""
    gamma_shape = 1 / rhythm.irregularity[:, None] ** 2
    return rng.gamma(np.broadcast_to(gamma_shape, shape)) / gamma_shape
