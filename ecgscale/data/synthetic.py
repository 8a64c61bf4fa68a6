"""Simulated 12-lead ECGs of two populations in the CODE format: the data set that needs no download.

Labels and targets act on the physiology, and a label is what the drawn physiology says (PR > 200 ms, rate < 60 …), so
there are borderline cases on both sides of every threshold. Same population, seed and block: same bytes, however many
records are asked for and however many processes ask.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.conventions import CODE_FS_HZ, CODE_LABELS, CODE_N_SAMPLES
from ecgscale.data.cardiac_dipole import (
    Floats,
    Heart,
    Ints,
    add_fibrillation,
    add_up,
    atrial_waves,
    ectopic_waves,
    repolarisation_waves,
    ventricular_waves,
)
from ecgscale.data.electrodes import draw_lead_field, record_leads
from ecgscale.data.heart_rhythm import Rhythm, draw_beats
from ecgscale.data.patients import (
    EXAMS_PER_PATIENT_MAX,
    ID_RANGE,
    PATIENTS_PER_BLOCK,
    POPULATIONS,
    Blood,
    Cohort,
    Physiology,
    Population,
    draw_blood,
    draw_cohort,
    draw_physiology,
)
from ecgscale.errors import DataError

__all__ = ["ELECTROLYTES", "POPULATIONS", "Population", "synthesize", "synthesize_block"]

ELECTROLYTES = ("potassium_mmol_l", "calcium_mmol_l", "sodium_mmol_l", "creatinine_umol_l")

FIRST_DAY, N_DAYS = np.datetime64("2007-01-01"), 3653
"""Patients are first seen within ten years, as those of the electrolyte study (von Bachmann et al. 2024)."""

LVH_MASS_RATIO = 1.35
"""Left ventricular mass relative to the normal one above which a record is labelled LVH."""
LONG_QTC_MS = (480.0, 470.0)
"""Women, men: 99th percentiles (Drew et al., Circulation 2010;121:1047)."""


def synthesize(population: Population, *, n_records: int, seed: int) -> Iterator[tuple[pd.DataFrame, Floats]]:
    """Draws the first `n_records` records of a population, block by block.

    Args:
        population: one of POPULATIONS, or your own.
        n_records: records over all blocks; the patients of a smaller number are the first ones of a larger.
        seed: the same seed gives the same bytes.

    Yields:
        The exams, one row per record, and the signal `(record, 4096, lead)` float32 in mV, zero padded on both sides.
    """
    n_drawn = block = 0
    while n_drawn < n_records:
        exams, signal_mv = synthesize_block(population, block, seed)
        n_take = min(len(exams), n_records - n_drawn)
        yield exams.iloc[:n_take], signal_mv[:n_take]
        n_drawn += n_take
        block += 1


def synthesize_block(population: Population, block: int, seed: int) -> tuple[pd.DataFrame, Floats]:
    """Draws one block of 64 patients with all their exams, about 96 records; blocks can be drawn in any process.

    Args:
        population: one of POPULATIONS, or your own.
        block: 0, 1, 2 …
        seed: the same for all blocks of a set.

    Returns:
        As one item of `synthesize`.
    """
    first_patient = block * PATIENTS_PER_BLOCK
    if block < 0 or (first_patient + PATIENTS_PER_BLOCK) * EXAMS_PER_PATIENT_MAX > ID_RANGE:
        raise DataError(f"Population {population.name}: block {block} is outside its id range; draw fewer records.")
    # The stream belongs to the block, not to the caller: any process may draw any block.
    rng = np.random.default_rng([seed, population.stream, block])
    cohort = draw_cohort(rng, population)
    blood = draw_blood(cohort)
    physiology = draw_physiology(cohort, blood)
    exams = _exam_table(cohort, blood, physiology, first_patient)
    heart = _draw_heart(cohort, blood, physiology)
    return exams, _draw_signal(cohort, physiology, heart)


def _exam_table(cohort: Cohort, blood: Blood, physiology: Physiology, first_patient: int) -> pd.DataFrame:
    """One row per record: ids, labels read off the drawn physiology, targets, and the physiology itself as `true_…`."""
    conduction, sinus = physiology.conduction, ~physiology.fibrillation
    wide = conduction.qrs_ms >= 120
    labels = {
        "1dAVb": sinus & (physiology.pr_ms > 200),
        "RBBB": conduction.right & wide,
        "LBBB": conduction.left & wide,
        "SB": sinus & (physiology.hr_bpm < 60),
        "AF": physiology.fibrillation,
        "ST": sinus & (physiology.hr_bpm > 100),
    }
    hypertrophy = physiology.mass_ratio > LVH_MASS_RATIO
    long_qt = physiology.qtc_ms > np.where(cohort.is_male, LONG_QTC_MS[1], LONG_QTC_MS[0])
    abnormal = np.any(list(labels.values()), axis=0) | hypertrophy | long_qt | physiology.premature
    abnormal |= wide | conduction.right | conduction.left  # unspecific delay, incomplete block
    number = first_patient + cohort.patient
    blood_values = (blood.potassium, blood.calcium, blood.sodium, blood.creatinine)
    return pd.DataFrame(
        {
            "exam_id": cohort.population.first_id + number * EXAMS_PER_PATIENT_MAX + cohort.exam_number,
            "patient_id": cohort.population.first_id + number,
            "age": np.floor(cohort.age).astype(np.int64),
            "is_male": cohort.is_male,
            **{name: labels[name] for name in CODE_LABELS},
            "normal_ecg": ~abnormal,
            "LVH": hypertrophy,
            "long_qt": long_qt,
            **dict(zip(ELECTROLYTES, blood_values, strict=True)),
            "exam_date": _exam_dates(cohort, number),
            "true_hr_bpm": physiology.hr_bpm,
            "true_pr_ms": np.where(sinus, physiology.pr_ms, np.nan),
            "true_qrs_ms": conduction.qrs_ms,
            "true_qtc_ms": physiology.qtc_ms,
        }
    )


def _exam_dates(cohort: Cohort, number: Ints) -> npt.NDArray[np.str_]:
    """Days as 2015-03-01: patients arrive evenly over the years, and come back when they are as much older.

    Nothing is drawn, so that dates change no other column: multiples of the golden ratio fill any interval evenly
    (Weyl 1916).
    """
    arrival = np.floor(N_DAYS * (number * ((np.sqrt(5) - 1) / 2) % 1))
    first_exam = np.arange(cohort.n) - cohort.exam_number
    days = arrival + np.round(365.25 * (cohort.age - cohort.age[first_exam]))
    return np.asarray(np.datetime_as_string(FIRST_DAY + days.astype("timedelta64[D]")))


def _draw_heart(cohort: Cohort, blood: Blood, physiology: Physiology) -> Heart:
    """Sizes and directions of the waves: by age, sex, mass and potassium, and a person's own shape."""
    vary, uniform = cohort.vary, cohort.rng.uniform
    conduction, years = physiology.conduction, cohort.age - 50
    thick = np.maximum(physiology.mass_ratio - 1.1, 0)
    male = np.where(cohort.is_male, 1.0, -1.0)
    potassium = blood.potassium - 4.2
    axis_deg = 5 - 0.6 * years + vary(18, 3) - 15 * thick
    turn_deg = -0.1 * years + vary(11, 3) + 12 * thick
    p_gain = np.exp(vary(0.30, 0.10)) * np.clip(1 - 0.3 * np.maximum(blood.potassium - 5.2, 0), 0.2, 1)
    qrs_gain = np.exp(vary(0.22, 0.05) + 0.07 * male - 0.005 * years) * physiology.mass_ratio**0.9
    # Tall, narrow T waves in hyperkalaemia, flat ones with a U wave in hypokalaemia.
    t_gain = np.exp(vary(0.20, 0.08) + 0.08 * male - 0.008 * years + np.clip(0.38 * potassium, -0.8, 0.8))
    u_mv = np.maximum(0.02 + vary(0.012, 0.006) + 0.07 * np.maximum(-0.5 - potassium, 0), 0)
    early_repolarisation = np.maximum(vary(0.6, 0.2) + 0.4 * male - 0.01 * years, 0)
    severity = np.clip((conduction.qrs_ms - 92) / 38, 0.15, 1)
    return Heart(
        rr_s=60 / physiology.hr_bpm,
        pr_s=physiology.pr_ms / 1000,
        p_s=np.clip(104 + 0.3 * years + vary(9, 3), 75, 140) / 1000,
        native_qrs_s=conduction.native_qrs_ms / 1000,
        qrs_s=conduction.qrs_ms / 1000,
        right_block=conduction.right * severity * np.exp(vary(0.15, 0.03)),
        left_block=conduction.left * severity,
        qtc_s=physiology.qtc_ms / 1000,
        t_s=physiology.t_ms / 1000,
        p_gain=p_gain,
        qrs_gain=qrs_gain,
        t_gain=t_gain,
        u_mv=u_mv,
        strain=np.clip((physiology.mass_ratio - 1.25) / 0.4, 0, 1) * np.clip(0.6 + vary(0.35, 0.08), 0, 1),
        axis_rad=np.deg2rad(axis_deg),
        turn_rad=np.deg2rad(turn_deg),
        t_axis_rad=np.deg2rad(0.4 * axis_deg + vary(10, 4)),
        t_turn_rad=np.deg2rad(0.4 * turn_deg + vary(14, 5)),
        qrs_jitter=vary(0.075, 0.015, 7, 3),
        fragment_centre=0.55 + 0.35 * np.tanh(vary(0.8, 0.05, 2)),
        fragment_mv=vary(0.07, 0.015, 2, 3),
        st_mv=vary(0.012, 0.006, 3) + early_repolarisation[:, None] * np.array([0.02, 0.015, -0.045]),
        ectopic_mv=vary(0.9, 0.1, 3),
        f_wave_mv=physiology.fibrillation * 0.045 * np.exp(vary(0.4, 0.15)),
        f_wave_hz=np.clip(6.3 + vary(0.9, 0.4) + uniform(-0.3, 0.3, cohort.n), 4, 9),
    )


def _draw_signal(cohort: Cohort, physiology: Physiology, heart: Heart) -> Floats:
    """Beats, dipole, breathing, leads; `(record, 4096, lead)` float32 in mV."""
    rng, recorder = cohort.rng, cohort.population.recorder
    rhythm = _draw_rhythm(cohort, physiology, heart)
    beats = draw_beats(rng, rhythm)
    of, onset_s, ordinary = beats.record, beats.onset_s, ~beats.ventricular
    rr_effective_s = 0.75 * heart.rr_s[of] + 0.25 * beats.rr_s  # QT follows the rate with a lag
    t_peak_s = heart.t_peak_60_s[of] * np.cbrt(rr_effective_s)
    parts = (
        (atrial_waves(heart), ordinary, onset_s - heart.pr_s[of]),
        (ventricular_waves(heart), ordinary, onset_s),
        (repolarisation_waves(heart), ordinary, onset_s + t_peak_s),
        (ectopic_waves(heart), beats.ventricular, onset_s),
    )
    dipole_mv = np.zeros((cohort.n, 3, CODE_N_SAMPLES), np.float32)
    for waves, chosen, anchor_s in parts:
        dipole_mv += add_up(waves.smoothed(recorder.smoothing_s), of[chosen], anchor_s[chosen], cohort.n)
    add_fibrillation(dipole_mv, rng, heart)
    breath = _breath(rhythm)
    # Breathing moves and turns the heart: a few per cent in size and a few degrees (our assumption).
    swing = 0.03 * (np.eye(3) + cohort.vary(0.5, 0.5, 3, 3)).astype(np.float32)
    dipole_mv += breath[:, None, :] * (swing @ dipole_mv)
    field = draw_lead_field(cohort.vary(0.08, 0.025, 8, 3), recorder)
    short = rng.random(cohort.n) < cohort.population.share_7_s
    n_valid = np.where(short, round(7 * CODE_FS_HZ), round(10 * CODE_FS_HZ))
    return record_leads(rng, dipole_mv, field, breath, n_valid, recorder)


def _draw_rhythm(cohort: Cohort, physiology: Physiology, heart: Heart) -> Rhythm:
    """Pacing of each heart; respiratory variability of RR fades with age and with rate."""
    rng, n = cohort.rng, cohort.n
    variability = 0.035 * np.exp(cohort.vary(0.45, 0.2) - 0.015 * (cohort.age - 50)) * (72 / physiology.hr_bpm) ** 1.5
    return Rhythm(
        rr_s=heart.rr_s,
        variability=np.minimum(variability, 0.15),
        fibrillation=physiology.fibrillation,
        irregularity=np.clip(0.18 + cohort.vary(0.04, 0.02), 0.08, 0.35),
        respiration_hz=np.clip(0.25 + cohort.vary(0.04, 0.03), 0.12, 0.45),
        respiration_phase=rng.uniform(0, 2 * np.pi, n),
        premature_rate=physiology.premature * rng.uniform(0.03, 0.25, n),
        ventricular=rng.random(n) < 0.5,
    )


def _breath(rhythm: Rhythm) -> Floats:
    """The breathing that also modulates RR, `(record, time)`, −1 … 1."""
    time_s = np.arange(CODE_N_SAMPLES, dtype=np.float32) / np.float32(CODE_FS_HZ)
    omega, phase = 2 * np.pi * rhythm.respiration_hz, rhythm.respiration_phase
    return np.sin(omega.astype(np.float32)[:, None] * time_s + phase.astype(np.float32)[:, None])
