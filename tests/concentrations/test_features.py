"""Features mean what their names say: intervals of simulated hearts are measured back, in mV, ms and degrees."""

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import signal as dsp

from ecgscale.concentrations import features
from ecgscale.concentrations.features import NAMES, UNITS, ecg_features, stored_features
from ecgscale.conventions import CODE_FS_HZ, LEADS
from ecgscale.data.handmade import feature_names
from ecgscale.data.packing import packed
from ecgscale.data.synthetic import POPULATIONS, synthesize_block
from ecgscale.specs import InputSpec

INPUT = InputSpec(fs_hz=100, n_samples=1024, patch_samples=16)
FREE_OF_UNIT = [name for name, unit in UNITS.items() if "mV" not in unit]


@pytest.fixture(scope="module")
def drawn():
    """Exams, signals `(record, lead, time)` in mV, and where they are recorded."""
    exams, signal_mv = zip(*(synthesize_block(POPULATIONS[name], 2, seed=3) for name in "AB"), strict=True)
    leads = np.moveaxis(np.concatenate(signal_mv), 2, 1)
    recorded = leads.any(axis=1)
    stop = recorded.shape[1] - recorded[:, ::-1].argmax(axis=1)
    return pd.concat(exams, ignore_index=True), leads, recorded.argmax(axis=1), stop


@pytest.fixture(scope="module")
def measured(drawn):
    _, leads, start, stop = drawn
    return ecg_features(leads, CODE_FS_HZ, start, stop)


def truth(exams):
    rr_s = 60 / exams["true_hr_bpm"]
    return {
        "rate_bpm": exams["true_hr_bpm"].where(~exams["AF"]),
        "pr_ms": exams["true_pr_ms"],
        "qrs_ms": exams["true_qrs_ms"],
        "qt_ms": exams["true_qtc_ms"] * np.cbrt(rr_s),
        "qtc_ms": exams["true_qtc_ms"],
    }


@pytest.mark.parametrize("fs_hz", [400, 100])
def test_intervals_are_those_of_the_heart_whatever_the_rate_of_the_store(drawn, measured, fs_hz):
    exams, leads, start, stop = drawn
    found = measured
    if fs_hz == 100:
        slow = dsp.resample_poly(leads, 1, 4, axis=2)
        found = ecg_features(slow, 100.0, -(-start // 4), stop // 4)
    for name, bias, spread in (
        ("pr_ms", 6, 5),
        ("qrs_ms", 13, 5),
        ("qt_ms", 5, 6),
        ("qtc_ms", 8, 9),
        ("rate_bpm", 1, 2),
    ):
        expected = truth(exams)[name]
        error = (found[name] - expected)[expected.notna()]
        assert error.isna().mean() < 0.15, name
        assert abs(error.median()) < bias and (error - error.median()).abs().median() < spread, name
        assert found[name].corr(expected, method="spearman") > 0.85, name


def test_no_p_wave_is_measured_in_fibrillation(drawn, measured):
    exams = drawn[0]
    assert measured["pr_ms"][exams["AF"]].isna().mean() > 0.85
    assert measured["rr_jumps"][exams["AF"]].median() > 0.4 > 0.1 > measured["rr_jumps"][exams["normal_ecg"]].median()


def test_potassium_shows_in_t_and_calcium_in_qt(drawn, measured):
    """What the baselines are to learn: tall and narrow T waves of a high potassium, short QT of a high calcium."""
    exams = drawn[0]
    for name, column, sign in (
        ("t_size_mv", "potassium_mmol_l", 1),
        ("t_fall_mv_s", "potassium_mmol_l", 1),
        ("t_width_ms", "potassium_mmol_l", -1),
        ("t_peak_end_ms", "potassium_mmol_l", -1),
        ("qtc_ms", "calcium_mmol_l", -1),
    ):
        assert sign * measured[name].corr(exams[column], method="spearman") > 0.2, name


def known_ecg(fs_hz=500.0, seconds=10.0, rate_bpm=60.0):
    """(lead, time): Gaussian waves of known heights and places in every lead; mV."""
    time = np.arange(round(seconds * fs_hz)) / fs_hz
    since = (time + 0.4) % (60 / rate_bpm) - 0.4

    def wave(at_s, sd_s):
        return np.exp(-0.5 * ((since - at_s) / sd_s) ** 2)

    r = np.array([1.0 if lead != "V1" else 0.2 for lead in LEADS])
    t = np.array([0.3 if lead != "aVR" else -0.3 for lead in LEADS])
    ecg = r[:, None] * wave(0, 0.012) + t[:, None] * wave(0.28, 0.03) + 0.12 * wave(-0.16, 0.018)
    return ecg - 0.8 * np.array([lead == "V1" for lead in LEADS])[:, None] * wave(0.03, 0.01)


def of_one(ecg, fs_hz=500.0):
    (row,) = ecg_features(ecg[None], fs_hz, np.array([0]), np.array([ecg.shape[1]])).to_dict("records")
    return row


def test_a_known_wave_has_its_heights_places_and_axis():
    found = of_one(known_ecg())
    assert found["rate_bpm"] == pytest.approx(60, rel=0.01)
    assert found["r_V6_mv"] == pytest.approx(1.0, abs=0.05) and found["s_V1_mv"] == pytest.approx(-0.75, abs=0.1)
    assert found["t_V5_mv"] == pytest.approx(0.3, abs=0.03) and found["t_size_mv"] == pytest.approx(0.3, abs=0.03)
    assert found["p_II_mv"] == pytest.approx(0.12, abs=0.02) and abs(found["st_V5_mv"]) < 0.03
    assert found["jt_peak_ms"] + found["qrs_ms"] == pytest.approx(280 + 30, abs=25)  # QRS begins 30 ms before R
    assert found["t_width_ms"] == pytest.approx(2.355 * 30, abs=6)
    assert found["t_asymmetry"] == pytest.approx(1, abs=0.15)
    # in I as large as in aVF, which is √3/2 of a lead of the limbs
    assert found["qrs_axis_deg"] == pytest.approx(np.degrees(np.arctan(2 / np.sqrt(3))), abs=3)
    assert found["qrs_t_angle_deg"] < 5


def test_heights_follow_the_unit_and_nothing_else_does():
    once, twice = of_one(known_ecg()), of_one(2 * known_ecg())
    for name in NAMES:
        assert twice[name] == pytest.approx(once[name] * (1 if name in FREE_OF_UNIT else 2), rel=1e-3, abs=1e-5), name


def test_a_missing_lead_lacks_its_own_features_only():
    ecg = known_ecg()
    ecg[LEADS.index("V2")] = 0
    found = of_one(ecg)
    assert {name for name, value in found.items() if np.isnan(value)} == {"r_V2_mv", "s_V2_mv", "st_V2_mv", "t_V2_mv"}


@pytest.mark.parametrize(
    "ecg", [np.zeros((12, 5000)), np.ones((12, 5000)), known_ecg()[:, :700], np.full((12, 5000), np.nan)]
)
def test_what_can_not_be_measured_is_nan(ecg):
    assert np.isnan(list(of_one(ecg).values())).all()


def test_noise_alone_gives_numbers_or_nan_but_no_error():
    rng = np.random.default_rng(0)
    for n in (1000, 5000):
        for ecg in rng.normal(size=(8, 12, n)):
            assert not np.isinf(list(of_one(ecg).values())).any()


# --- of a store ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(data_dir, tmp_path):
    shutil.copytree(data_dir / "B", tmp_path / "B", ignore=shutil.ignore_patterns("packed"))
    return packed(tmp_path / "B", INPUT, jobs=1)


def test_features_of_a_store_are_measured_once(store, monkeypatch):
    found = stored_features(store)
    assert list(found) == list(NAMES) and len(found) == len(store)
    assert found["rate_bpm"].corr(store.index["true_hr_bpm"], method="spearman") > 0.9
    signals = store.read(np.array([5])) * np.float32(store.header.scale[0])
    row = ecg_features(signals, 100.0, *(store.index[name].to_numpy()[[5]] for name in ("start", "stop")))
    pd.testing.assert_frame_equal(row, found.iloc[[5]].reset_index(drop=True))
    monkeypatch.setattr(features, "ecg_features", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(stored_features(store), found)


def test_the_beat_at_fixed_times_is_the_other_set(store):
    found = stored_features(store, "beat")
    assert list(found) == list(feature_names()) and len(found) == len(store)
    waves = stored_features(store)
    np.testing.assert_allclose(found["rate_bpm"], waves["rate_bpm"], rtol=0.05)


def test_damaged_ones_are_measured_again_and_processes_change_nothing(store):
    found = stored_features(store)
    (kept,) = store.path.glob("features-waves-*")
    kept.write_bytes(b"damaged")
    pd.testing.assert_frame_equal(stored_features(store, jobs=2), found)
    assert [file.name for file in store.path.glob("*features*")] == [kept.name]
