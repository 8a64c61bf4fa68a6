"""The simulated ECGs behave like ECGs: leads agree, labels and blood values can be measured back from the signal."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import signal, stats

from ecgscale.conventions import CODE_FS_HZ, CODE_LABELS, CODE_N_SAMPLES, LEADS
from ecgscale.data.synthetic import ELECTROLYTES, POPULATIONS, synthesize, synthesize_block
from ecgscale.errors import DataError

N_RECORDS = 700
BEFORE, AFTER = round(0.32 * CODE_FS_HZ), round(0.5 * CODE_FS_HZ)


def _drawn(name, n_records, seed=5):
    blocks = list(synthesize(POPULATIONS[name], n_records=n_records, seed=seed))
    return pd.concat([e for e, _ in blocks], ignore_index=True), np.concatenate([x for _, x in blocks])


@pytest.fixture(scope="module")
def drawn():
    return _drawn("A", N_RECORDS)


@pytest.fixture(scope="module")
def exams(drawn):
    return drawn[0]


@pytest.fixture(scope="module")
def beats(drawn):
    """Per record: times of the QRS complexes in s, and the median beat `(time, lead)` in mV around them."""
    return [_measured(x) for x in drawn[1]]


def _measured(record_mv):
    high_pass = signal.butter(2, [0.7, 40], "bandpass", fs=CODE_FS_HZ, output="sos")
    valid = np.flatnonzero(np.any(record_mv, axis=1))
    x = signal.sosfiltfilt(high_pass, record_mv[valid[0] : valid[-1] + 1].astype(float), axis=0)
    slope = signal.sosfiltfilt(signal.butter(2, [8, 25], "bandpass", fs=CODE_FS_HZ, output="sos"), x, axis=0)
    energy = np.convolve(np.sum(slope**2, axis=1), np.ones(41) / 41, "same")
    peaks, _ = signal.find_peaks(energy, height=0.25 * np.percentile(energy, 98), distance=round(0.28 * CODE_FS_HZ))
    inside = peaks[(peaks > BEFORE) & (peaks < len(x) - AFTER)]
    windows = np.stack([x[p - BEFORE : p + AFTER] for p in inside])
    return peaks / CODE_FS_HZ, np.median(windows, axis=0)


def _lead(beat, name):
    return beat[:, LEADS.index(name)]


def test_derived_leads_follow_einthoven_and_goldberger(drawn):
    lead = {name: drawn[1][:, :, i] for i, name in enumerate(LEADS)}
    one, two = lead["I"], lead["II"]
    for name, expected in {
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }.items():
        np.testing.assert_allclose(lead[name], expected, atol=1e-6)


def test_form_of_a_block(drawn):
    exams, signal_mv = drawn
    assert signal_mv.shape == (N_RECORDS, CODE_N_SAMPLES, 12)
    assert signal_mv.dtype == np.float32
    assert np.isfinite(signal_mv).all()
    assert len(exams) == N_RECORDS
    assert all(exams[name].dtype == bool for name in (*CODE_LABELS, "is_male", "normal_ecg", "LVH", "long_qt"))
    assert exams["age"].between(18, 95).all()


def test_records_are_7_or_10_s_long_in_the_middle_of_zeros(drawn):
    some = np.any(drawn[1], axis=2)
    first, last = some.argmax(axis=1), CODE_N_SAMPLES - some[:, ::-1].argmax(axis=1)
    assert set(np.unique(np.round((last - first) / CODE_FS_HZ, 1))) == {7.0, 10.0}
    np.testing.assert_allclose(first, CODE_N_SAMPLES - last, atol=2)


def test_same_seed_same_bytes_and_blocks_stand_alone():
    population = POPULATIONS["B"]
    exams, signal_mv = synthesize_block(population, 3, seed=9)
    again, again_mv = synthesize_block(population, 3, seed=9)
    other, other_mv = synthesize_block(population, 3, seed=10)
    pd.testing.assert_frame_equal(exams, again)
    assert signal_mv.tobytes() == again_mv.tobytes()
    assert len(other) != len(exams) or signal_mv.tobytes() != other_mv.tobytes()


def test_fewer_records_are_a_prefix_of_more(drawn):
    exams, signal_mv = _drawn("A", 130)
    pd.testing.assert_frame_equal(exams, drawn[0].iloc[:130])
    assert signal_mv.tobytes() == drawn[1][:130].tobytes()


def test_ids_are_unique_and_populations_share_none(exams):
    other, _ = _drawn("B", 150)
    assert exams["exam_id"].is_unique and other["exam_id"].is_unique
    assert not set(exams["exam_id"]) & set(other["exam_id"])
    assert not set(exams["patient_id"]) & set(other["patient_id"])
    per_patient = exams.groupby("patient_id")
    assert 1.3 < per_patient.size().mean() < 1.7
    assert (per_patient["is_male"].nunique() == 1).all()


def test_dates_follow_the_patient_and_fill_the_years(exams):
    day = pd.to_datetime(exams["exam_date"], format="%Y-%m-%d")
    first = day.groupby(exams["patient_id"]).min()
    assert np.bincount(first.dt.year - 2007, minlength=10) == pytest.approx(len(first) / 10, abs=3)
    again = exams[exams["patient_id"].duplicated()]
    years_older = again["age"] - exams.groupby("patient_id")["age"].transform("min")[again.index]
    years_later = (day[again.index] - again["patient_id"].map(first)).dt.days / 365.25
    assert (years_later >= 0).all() and years_later.max() > 1
    assert (years_later - years_older).abs().max() < 1.01  # ages are whole years


def test_a_block_outside_the_ids_is_refused():
    with pytest.raises(DataError, match="block 10000000"):
        synthesize_block(POPULATIONS["A"], 10_000_000, seed=1)


def test_labels_are_frequent_enough_and_exclude_each_other(exams):
    frequency = exams[[*CODE_LABELS, "LVH", "long_qt"]].mean()
    assert frequency.between(0.02, 0.2).all(), frequency
    for a, b in [("AF", "1dAVb"), ("AF", "SB"), ("AF", "ST"), ("SB", "ST"), ("RBBB", "LBBB")]:
        assert not (exams[a] & exams[b]).any()
    assert not (exams["normal_ecg"] & exams[list(CODE_LABELS)].any(axis=1)).any()


def test_every_threshold_has_cases_close_by_on_both_sides(exams):
    sinus = ~exams["AF"]
    for column, threshold, width in [("true_pr_ms", 200, 15), ("true_hr_bpm", 60, 5), ("true_qrs_ms", 120, 10)]:
        distance = exams.loc[sinus, column] - threshold
        assert distance.between(0, width).sum() >= 5
        assert distance.between(-width, 0).sum() >= 5


def test_blood_values_are_plausible(exams):
    median = exams[list(ELECTROLYTES)].median()
    assert median["potassium_mmol_l"] == pytest.approx(4.2, abs=0.15)
    assert median["calcium_mmol_l"] == pytest.approx(2.35, abs=0.03)
    assert median["sodium_mmol_l"] == pytest.approx(139.5, abs=1)
    assert median["creatinine_umol_l"] == pytest.approx(85, abs=8)
    assert exams["potassium_mmol_l"].min() < 3.3 and exams["potassium_mmol_l"].max() > 5.5


def test_measured_rate_is_the_drawn_rate(exams, beats):
    rate = np.array([60 / np.median(np.diff(times)) for times, _ in beats])
    regular = exams["normal_ecg"] | exams["SB"] | exams["ST"]
    deviation = np.abs(rate - exams["true_hr_bpm"])[regular] / exams["true_hr_bpm"][regular]
    assert deviation.quantile(0.8) < 0.05
    assert np.median(rate[exams["SB"]]) < 60 < np.median(rate[exams["normal_ecg"]]) < 100 < np.median(rate[exams["ST"]])


def test_fibrillation_is_irregular_and_has_no_p_wave(exams, beats):
    irregularity = np.array([np.std(np.diff(times)) / np.mean(np.diff(times)) for times, _ in beats])
    assert np.median(irregularity[exams["AF"]]) > 2.5 * np.median(irregularity[exams["normal_ecg"]])
    narrow = (exams["true_qrs_ms"] < 115) & (exams["true_hr_bpm"] < 90)
    # P is the highest of lead II between T and QRS: measured against the line from TP to PQ.
    p_mv = np.array([_lead(beat, "II")[20:105].max() - np.median(_lead(beat, "II")[20:105]) for _, beat in beats])
    assert np.median(p_mv[exams["normal_ecg"] & narrow]) > 1.7 * np.median(p_mv[exams["AF"] & narrow])


def test_bundle_branch_blocks_widen_qrs_and_turn_its_end(exams, beats):
    qrs = slice(BEFORE - 50, BEFORE + 50)
    width = np.array([_duration_ms(beat[qrs]) for _, beat in beats])
    late = slice(BEFORE + 8, BEFORE + 32)
    late_mv = {v: np.array([_lead(beat, v)[late].mean() for _, beat in beats]) for v in ("V1", "V6")}
    area = {v: np.array([_lead(beat, v)[qrs].mean() for _, beat in beats]) for v in ("V1", "V6")}
    normal = exams["normal_ecg"]
    for name in ("RBBB", "LBBB"):
        assert np.median(width[exams[name]]) > 1.25 * np.median(width[normal])
    assert np.median(late_mv["V1"][exams["RBBB"]]) > 0.2 > np.median(late_mv["V1"][normal])
    assert np.median(late_mv["V6"][exams["RBBB"]]) < -0.05
    assert np.median(area["V1"][exams["LBBB"]]) < -0.2
    assert np.median(area["V6"][exams["LBBB"]]) > 0.2


def _duration_ms(qrs_mv):
    """Time that holds the middle 95 % of the energy of the slopes."""
    energy = np.cumsum(np.sum(np.diff(qrs_mv, axis=0) ** 2, axis=1))
    first, last = np.searchsorted(energy / energy[-1], [0.025, 0.975])
    return (last - first) / CODE_FS_HZ * 1000


def test_pr_interval_is_longer_in_first_degree_block(exams, beats):
    lead_two = np.array([_lead(beat, "II")[: BEFORE - 16] for _, beat in beats])
    plain = (exams["true_hr_bpm"] < 90) & (exams["true_qrs_ms"] < 115)
    p_to_r_ms = (BEFORE - lead_two[:, 20:].argmax(axis=1) - 20) / CODE_FS_HZ * 1000
    blocked, normal = p_to_r_ms[exams["1dAVb"] & plain], p_to_r_ms[exams["normal_ecg"] & plain]
    assert np.median(blocked) > np.median(normal) + 30


def test_potassium_raises_t_and_hypertrophy_the_voltage(exams, beats):
    plain = ~exams[["RBBB", "LBBB", "LVH"]].any(axis=1) & (exams["true_hr_bpm"] < 95)
    t_mv = np.array([np.ptp(beat[BEFORE + 50 :, 6:], axis=0).max() for _, beat in beats])
    r_mv = np.array([np.ptp(beat[BEFORE - 40 : BEFORE + 40, 6:], axis=0).max() for _, beat in beats])
    correlation = stats.spearmanr((t_mv / r_mv)[plain], exams.loc[plain, "potassium_mmol_l"])
    assert correlation.statistic > 0.15 and correlation.pvalue < 1e-3
    high, low = exams["potassium_mmol_l"] > 5.2, exams["potassium_mmol_l"] < 3.5
    assert np.median((t_mv / r_mv)[high & plain]) > 1.5 * np.median((t_mv / r_mv)[low & plain])
    assert np.median(r_mv[exams["LVH"]]) > 1.3 * np.median(r_mv[exams["normal_ecg"]])


def test_amplitudes_are_those_of_ecgs(exams, beats, drawn):
    two_mv = np.percentile(np.abs(drawn[1][:, :, LEADS.index("II")]), 99.8, axis=1)
    assert 0.5 < np.median(two_mv) < 2.5
    normal = [beat for (_, beat), is_normal in zip(beats, exams["normal_ecg"], strict=True) if is_normal]
    r_mv = np.median([beat.max(axis=0) for beat in normal], axis=0)
    s_mv = np.median([beat.min(axis=0) for beat in normal], axis=0)
    chest = r_mv[6:] / -s_mv[6:]
    assert all(a < b for a, b in itertools.pairwise(chest))  # R grows against S from V1 to V6
    assert -s_mv[LEADS.index("aVR")] > 2 * r_mv[LEADS.index("aVR")]


def test_exams_of_one_patient_resemble_each_other(exams, beats):
    qrs = np.array([beat[BEFORE - 30 : BEFORE + 40].ravel() for _, beat in beats])
    qrs = qrs[exams["normal_ecg"]]
    patient = exams.loc[exams["normal_ecg"], "patient_id"].to_numpy()
    distance = np.linalg.norm(qrs[1:] - qrs[:-1], axis=1)
    same = patient[1:] == patient[:-1]
    assert np.median(distance[same]) < 0.6 * np.median(distance[~same])


def test_mains_hum_has_the_frequency_of_the_country(drawn):
    noisy = replace(POPULATIONS["A"].recorder, hum_mv=0.05, low_pass_hz=150)
    for mains_hz in (50, 60):
        population = replace(POPULATIONS["A"], recorder=replace(noisy, mains_hz=mains_hz))
        _, signal_mv = synthesize_block(population, 0, seed=1)
        frequency_hz, power = signal.welch(signal_mv[:, 700:3300, 0], CODE_FS_HZ, nperseg=800)
        band = (frequency_hz > 45) & (frequency_hz < 65)
        assert frequency_hz[band][power[:, band].mean(axis=0).argmax()] == mains_hz
