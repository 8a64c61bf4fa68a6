"""Whose ECGs are simulated: two populations, their patients and exams, and what a perfect examiner would find.

A patient keeps a constitution and diseases over all exams; an exam adds its own state. Blood values and diseases act on
rate, intervals and mass here, on waves in `synthetic`. Sizes of effects are our assumptions unless a source is given.
"""

from dataclasses import dataclass

import numpy as np

from ecgscale.data.cardiac_dipole import Bools, Floats, Ints
from ecgscale.data.electrodes import Recorder

PATIENTS_PER_BLOCK = 64
EXAMS_PER_PATIENT_MAX = 8
ID_RANGE = 4_000_000
"""Exam ids of a population lie in `first_id … first_id + ID_RANGE − 1`."""
MEAN_EXAMS = 1.5  # CODE-15 %: 345,779 exams of 233,770 patients


@dataclass(frozen=True)
class Prevalence:
    """Share of patients, at the population's mean age, whose heart has a condition.

    The share of records that carry a label differs: a mild condition can stay under its threshold, a normal heart can
    cross it, and fibrillation hides the PR interval and the sinus rate.
    """

    first_degree_block: float
    right_block: float
    left_block: float
    unspecific_delay: float
    bradycardia: float
    fibrillation: float
    tachycardia: float
    hypertrophy: float
    long_qt: float
    premature_beats: float
    kidney_disease: float


@dataclass(frozen=True)
class Population:
    """Whose ECGs are recorded, and with what."""

    name: str
    stream: int
    """Second word of every random seed: no two populations share a patient."""
    first_id: int
    """Smallest exam and patient id."""
    age_beta: tuple[float, float]
    """Age at the first exam is 18 + 72 × Beta(a, b) years."""
    share_male: float
    share_7_s: float
    """Share of exams with 2800 samples instead of 4000, as in CODE."""
    potassium_mmol_l: float
    """Mean of patients without a disorder."""
    prevalence: Prevalence
    recorder: Recorder

    @property
    def mean_age(self) -> float:
        a, b = self.age_beta
        return 18 + 72 * a / (a + b)


POPULATIONS = {
    population.name: population
    for population in (
        # Primary care by telephone, as in CODE: middle-aged, unfiltered, 60 Hz mains.
        Population(
            name="A",
            stream=0,
            first_id=1_000_001,
            age_beta=(2.2, 2.6),
            share_male=0.42,
            share_7_s=0.35,
            potassium_mmol_l=4.15,
            prevalence=Prevalence(
                first_degree_block=0.08,
                right_block=0.11,
                left_block=0.07,
                unspecific_delay=0.04,
                bradycardia=0.08,
                fibrillation=0.07,
                tachycardia=0.08,
                hypertrophy=0.13,
                long_qt=0.08,
                premature_beats=0.10,
                kidney_disease=0.06,
            ),
            recorder=Recorder(
                mains_hz=60,
                high_pass_hz=0.05,
                low_pass_hz=100,
                quantum_mv=0.00488,
                gain_error=0.02,
                wander_mv=0.11,
                hum_mv=0.006,
                muscle_mv=0.013,
                chest_misplaced=0.0,
            ),
        ),
        # A hospital's wards: older, sicker, more noise, diagnostic filters set to 40 Hz, V1 and V2 often too high.
        Population(
            name="B",
            stream=1,
            first_id=5_000_001,
            age_beta=(3.2, 2.0),
            share_male=0.54,
            share_7_s=0.0,
            potassium_mmol_l=4.25,
            prevalence=Prevalence(
                first_degree_block=0.12,
                right_block=0.11,
                left_block=0.09,
                unspecific_delay=0.06,
                bradycardia=0.06,
                fibrillation=0.14,
                tachycardia=0.11,
                hypertrophy=0.17,
                long_qt=0.11,
                premature_beats=0.15,
                kidney_disease=0.14,
            ),
            recorder=Recorder(
                mains_hz=50,
                high_pass_hz=0.3,
                low_pass_hz=40,
                quantum_mv=0.001,
                gain_error=0.05,
                wander_mv=0.15,
                hum_mv=0.010,
                muscle_mv=0.020,
                chest_misplaced=0.25,
            ),
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Cohort:
    """The exams of a block and whose they are; arrays have shape `(record,)`."""

    rng: np.random.Generator
    population: Population
    patient: Ints
    exam_number: Ints
    age: Floats
    is_male: Bools

    @property
    def n(self) -> int:
        return self.patient.size

    def vary(self, between: float, within: float, *shape: int) -> Floats:
        """Normal deviations `(record, *shape)`: one part belongs to the patient, one to the exam."""
        person = self.rng.normal(0, between, (PATIENTS_PER_BLOCK, *shape))
        return person[self.patient] + self.rng.normal(0, within, (self.n, *shape))

    def has(self, prevalence: float, age_power: float = 0.0) -> Bools:
        """Which records belong to patients with a condition; its frequency grows with a power of age."""
        risk = prevalence * (self.age / self.population.mean_age) ** age_power
        return self.rng.random(PATIENTS_PER_BLOCK)[self.patient] < risk


def draw_cohort(rng: np.random.Generator, population: Population) -> Cohort:
    """Draws 64 patients with one or more exams each (geometric), about 1.2 years apart."""
    n = PATIENTS_PER_BLOCK
    n_exams = np.minimum(rng.geometric(1 / MEAN_EXAMS, n), EXAMS_PER_PATIENT_MAX)
    patient = np.repeat(np.arange(n), n_exams)
    exam_number = np.arange(patient.size) - np.repeat(np.cumsum(n_exams) - n_exams, n_exams)
    first_age = 18 + 72 * rng.beta(*population.age_beta, n)
    age = np.clip(first_age[patient] + exam_number * rng.exponential(1.2, n)[patient], 18, 95)
    return Cohort(rng, population, patient, exam_number, age, (rng.random(n) < population.share_male)[patient])


@dataclass(frozen=True, eq=False)
class Blood:
    """Laboratory values on the day of the exam: mmol/L, creatinine in µmol/L; shape `(record,)`."""

    potassium: Floats
    calcium: Floats
    sodium: Floats
    creatinine: Floats


def draw_blood(cohort: Cohort) -> Blood:
    """Plausible laboratory values: centred on the reference ranges, with the tails of a hospital laboratory."""
    rng, n = cohort.rng, cohort.n
    kidney = cohort.has(cohort.population.prevalence.kidney_disease, 1.5)
    creatinine = np.exp(np.log(76) + 0.17 * cohort.is_male + 0.003 * (cohort.age - 50) + cohort.vary(0.18, 0.08))
    creatinine *= np.where(kidney, np.exp(0.4 + rng.exponential(0.45, n)), 1.0)
    potassium = cohort.population.potassium_mmol_l + cohort.vary(0.2, 0.3) + 0.3 * np.log(creatinine / 85)
    tail = rng.random(n)
    high = tail < 0.06 + 0.1 * kidney
    low = tail > 0.94
    potassium += np.where(high, 0.4 + rng.exponential(0.6, n), 0) - np.where(low, 0.4 + rng.exponential(0.35, n), 0)
    calcium_tail = rng.choice([-1.0, 0.0, 1.0], n, p=[0.04, 0.93, 0.03])
    calcium = 2.35 + cohort.vary(0.06, 0.08) + calcium_tail * rng.exponential(0.25, n)
    sodium = 139.5 + cohort.vary(1.6, 2.4) - np.where(rng.random(n) < 0.08, rng.exponential(5.0, n), 0)
    return Blood(
        np.clip(potassium, 2.2, 7.8),
        np.clip(calcium, 1.5, 3.4),
        np.clip(sodium, 115, 160),
        np.clip(creatinine, 30, 1200),
    )


@dataclass(frozen=True, eq=False)
class Conduction:
    """How the ventricles are activated; shape `(record,)`."""

    right: Bools
    """Right bundle branch block, complete or not."""
    left: Bools
    native_qrs_ms: Floats
    """Without the block."""
    qrs_ms: Floats


@dataclass(frozen=True, eq=False)
class Physiology:
    """What an examiner with perfect callipers would find; shape `(record,)`."""

    fibrillation: Bools
    hr_bpm: Floats
    pr_ms: Floats
    """Drawn also in fibrillation, where nobody can see it."""
    conduction: Conduction
    qtc_ms: Floats
    """QT × (RR / 1 s)^(−1/3), Fridericia 1920."""
    t_ms: Floats
    """Peak to end of T at 60 per minute."""
    mass_ratio: Floats
    """Left ventricular mass over the normal one."""
    premature: Bools
    """The record may hold premature beats."""


def draw_physiology(cohort: Cohort, blood: Blood) -> Physiology:
    """Draws rate, intervals and mass, from patient, disease and blood; labels are read off these."""
    rng, share = cohort.rng, cohort.population.prevalence
    # One exam in seven of a patient with fibrillation shows sinus rhythm (paroxysmal).
    fibrillation = cohort.has(share.fibrillation, 2.5) & (rng.random(cohort.n) < 0.86)
    hr_bpm = _draw_rate(cohort, fibrillation)
    block_ms = cohort.has(share.first_degree_block, 1.5) * (68 + cohort.vary(24, 6))
    pr_ms = 156 + 0.35 * (cohort.age - 50) - 0.2 * (hr_bpm - 72) + cohort.vary(15, 4) + block_ms
    pr_ms += 6 * np.maximum(blood.potassium - 5.2, 0)
    mass_ratio = np.exp(cohort.vary(0.10, 0.02) + cohort.has(share.hypertrophy, 1.0) * (0.44 + cohort.vary(0.13, 0.02)))
    conduction = _draw_conduction(cohort, blood, mass_ratio)
    qtc_ms, t_ms = _draw_repolarisation(cohort, blood, conduction)
    return Physiology(
        fibrillation=fibrillation,
        hr_bpm=hr_bpm,
        pr_ms=np.clip(pr_ms, 105, 340),
        conduction=conduction,
        qtc_ms=qtc_ms,
        t_ms=t_ms,
        mass_ratio=mass_ratio,
        premature=cohort.has(share.premature_beats, 1.5) & (rng.random(cohort.n) < 0.7),
    )


def _draw_conduction(cohort: Cohort, blood: Blood, mass_ratio: Floats) -> Conduction:
    """At most one bundle branch is blocked, often incompletely; potassium and lack of sodium slow all conduction."""
    share = cohort.population.prevalence
    ageing = (cohort.age / cohort.population.mean_age) ** 1.5
    side = cohort.rng.random(PATIENTS_PER_BLOCK)[cohort.patient]
    right = side < share.right_block * ageing
    left = (side > 1 - share.left_block * ageing) & ~right
    native_ms = 87 + 6 * cohort.is_male + cohort.vary(7, 1.5) + 10 * np.maximum(mass_ratio - 1, 0)
    native_ms += cohort.has(share.unspecific_delay, 1.0) * np.maximum(28 + cohort.vary(10, 2), 0)
    native_ms += 9 * np.maximum(blood.potassium - 5.2, 0) + 0.3 * np.maximum(137 - blood.sodium, 0)
    delay_ms = np.where(right, 40 + cohort.vary(14, 3), 51 + cohort.vary(16, 3))
    qrs_ms = native_ms + np.where(right | left, np.maximum(delay_ms, 6), 0)
    return Conduction(right, left, np.clip(native_ms, 70, 150), np.clip(qrs_ms, 70, 200))


def _draw_repolarisation(cohort: Cohort, blood: Blood, conduction: Conduction) -> tuple[Floats, Floats]:
    """QTc and the width of T, both in ms."""
    prolonged_ms = cohort.has(cohort.population.prevalence.long_qt, 0.5) * (72 + cohort.vary(22, 6))
    cell_ms = 403 + 13 * ~cohort.is_male + 0.3 * (cohort.age - 50) + cohort.vary(14, 5) + prolonged_ms
    # Low calcium lengthens the plateau of the action potential: the ST segment, not the T wave.
    plateau_ms = np.clip(-90 * (blood.calcium - 2.35), -60, 90)
    qtc_ms = cell_ms + plateau_ms + 0.5 * np.maximum(conduction.qrs_ms - 100, 0)  # half of the delay of QRS
    qtc_ms += 10 * np.maximum(3.6 - blood.potassium, 0)
    t_ms = 82 * (cell_ms / 410) ** 1.3 * np.exp(cohort.vary(0.07, 0.03))
    t_ms *= np.clip(1 - 0.13 * (blood.potassium - 4.2), 0.65, 1.25)
    return np.clip(qtc_ms, 330, 620), t_ms


def _draw_rate(cohort: Cohort, fibrillation: Bools) -> Floats:
    """Heart rate per minute: a normal bulk with slow and fast sub-groups that overlap it; broad in fibrillation."""
    share = cohort.population.prevalence
    rate = 74 * np.exp(cohort.vary(0.10, 0.07) - 0.04 * cohort.is_male)
    slow, fast = cohort.has(share.bradycardia), cohort.has(share.tachycardia)
    rate = np.where(fast, 112 * np.exp(cohort.vary(0.08, 0.06)), rate)
    rate = np.where(slow & ~fast, 53 * np.exp(cohort.vary(0.07, 0.05)), rate)
    rate = np.where(fibrillation, 84 * np.exp(cohort.vary(0.18, 0.10)), rate)
    clipped: Floats = np.clip(rate, 36, 170)
    return clipped
