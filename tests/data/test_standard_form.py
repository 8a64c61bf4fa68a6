"""One recording: any leads, rate and length become (4096, 12) at 400 Hz; what cannot is refused with the reason."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgscale.conventions import LEADS
from ecgscale.data.standard_form import LengthRule, in_standard_order, lead_name, to_code_length, to_code_rate
from ecgscale.errors import DataError

LIMB_LEADS = LEADS[:6]


def sine_leads(n: int, fs_hz: float, seed: int = 0) -> np.ndarray:
    """(time, lead) in mV: a 1 Hz sine of 1 mV in I, half of it in II, other sizes elsewhere; obeys Einthoven's law."""
    sizes = np.random.default_rng(seed).uniform(0.2, 2.0, 12)
    sizes[:6] = 1.0, 0.5, -0.5, -0.75, 0.75, 0.0
    return np.sin(2 * np.pi * np.arange(n) / fs_hz)[:, None] * sizes


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("i", "I"),
        ("AVR", "aVR"),
        ("avf", "aVF"),
        ("DIII", "III"),
        ("D2", "II"),
        ("Lead I", "I"),
        ("v6", "V6"),
        ("vx", None),
    ],
)
def test_lead_spellings(spelling: str, name: str | None) -> None:
    assert lead_name(spelling) == name


@settings(deadline=None, max_examples=60)
@given(
    st.permutations(range(12)),
    st.dictionaries(st.sampled_from(LIMB_LEADS), st.sampled_from(["missing", "NaN"]), max_size=4),
    st.sampled_from([str.upper, str.lower, str]),
)
def test_any_order_any_spelling_and_any_two_limb_leads(order, unusable, spell) -> None:
    signal = sine_leads(50, 50)
    damaged = signal.copy()
    damaged[3, [LEADS.index(lead) for lead, how in unusable.items() if how == "NaN"]] = np.nan
    kept = [k for k in order if unusable.get(LEADS[k]) != "missing"]
    extra = np.full((50, 1), np.nan)
    standard = in_standard_order(np.hstack([extra, damaged[:, kept]]), ["VX", *(spell(LEADS[k]) for k in kept)])
    assert (standard.dtype, standard.shape) == (np.float32, (50, 12))
    np.testing.assert_allclose(standard, signal, atol=2e-6)


@pytest.mark.parametrize(
    ("leads", "nan", "message"),
    [
        (LEADS[:9], (), "lead V4, V5, V6 is missing and cannot be computed; found I, II"),
        (("I", *LEADS[6:]), (), "lead II, III, aVR, aVL, aVF is missing"),
        ((*LEADS, "v5"), (), "lead V5 appears more than once"),
        (LEADS, (7,), "lead V2 holds NaN"),
        (LEADS, (0, 1, 2, 3, 4), "lead I, II, III, aVR, aVL holds NaN"),
    ],
)
def test_what_cannot_be_computed_is_refused(leads, nan, message) -> None:
    signal = np.ones((5, len(leads)), np.float32)
    signal[2, list(nan)] = np.nan
    with pytest.raises(DataError, match=message):
        in_standard_order(signal, leads)


def test_zscored_leads_are_never_computed_from_each_other() -> None:
    with pytest.raises(DataError, match="aVF is missing"):
        in_standard_order(np.ones((5, 11)), [lead for lead in LEADS if lead != "aVF"], derive=False)


@settings(deadline=None, max_examples=25)
@given(st.integers(100, 1000), st.floats(-5, 5))
def test_resampling_keeps_amplitude_baseline_and_limb_leads(fs_hz: int, baseline_mv: float) -> None:
    offset = baseline_mv * np.array([1, 1, 0, -1, 0.5, 0.5] + [1] * 6)
    signal = to_code_rate((sine_leads(4 * fs_hz, fs_hz) + offset).astype(np.float32), fs_hz)
    assert abs(len(signal) - 1600) <= 1
    assert abs(signal[50:-50] - (sine_leads(len(signal), 400) + offset)[50:-50]).max() < 0.02
    np.testing.assert_allclose(signal[:, 2], signal[:, 1] - signal[:, 0], atol=1e-4)


@pytest.mark.parametrize("fs_hz", [100, 250, 257, 360, 500, 1000])
def test_resampling_is_scipys(fs_hz: int) -> None:
    signal = np.random.default_rng(0).normal(size=(999, 12)).cumsum(axis=0).astype(np.float32)
    divisor = np.gcd(400, fs_hz)
    expected = scipy.signal.resample_poly(signal, 400 // divisor, fs_hz // divisor, axis=0, padtype="line")
    np.testing.assert_array_equal(to_code_rate(signal, fs_hz), expected)


def test_rates_and_lengths_that_no_ecg_has() -> None:
    for fs_hz in (0, 20, 1e6, float("nan")):
        with pytest.raises(DataError, match="is not that of an ECG"):
            to_code_rate(np.ones((5, 12), np.float32), fs_hz)
    for n in (0, 1):
        with pytest.raises(DataError, match=r"has (no|1) sample"):
            to_code_rate(np.ones((n, 12), np.float32), 500)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9000), st.sampled_from(["center", "start"]), st.sampled_from(["both", "end"]))
def test_any_length_becomes_4096(n: int, crop, pad) -> None:
    signal = np.repeat(np.arange(1, n + 1, dtype=np.float32)[:, None], 12, axis=1)
    out = to_code_length(signal, LengthRule(crop=crop, pad=pad))
    assert out.shape == (4096, 12) and out.dtype == np.float32
    kept = out[out[:, 0] > 0, 0]
    assert len(kept) == min(n, 4096) and (np.diff(kept) == 1).all()
    left, right = (kept[0] - 1, n - kept[-1]) if n > 4096 else (out[:, 0].argmax() - n + 1, 4095 - out[:, 0].argmax())
    if (crop if n > 4096 else pad) in ("center", "both"):
        assert abs(left - right) <= 1
    else:
        assert left == 0


def test_lengths_can_be_refused() -> None:
    rule = LengthRule(crop="refuse", pad="refuse")
    with pytest.raises(DataError, match=r"12\.5 s is longer than 10\.24 s"):
        to_code_length(np.ones((5000, 12), np.float32), rule)
    with pytest.raises(DataError, match=r"10 s is shorter than 10\.24 s"):
        to_code_length(np.ones((4000, 12), np.float32), rule)
    assert to_code_length(np.ones((4096, 12), np.float32), rule).shape == (4096, 12)
    with pytest.raises(DataError, match="pad must be one of both, end, refuse, not 'left'"):
        LengthRule(pad="left")  # type: ignore[arg-type]
    assert LengthRule().describe() == "4096 samples: longer records cropped to their middle, shorter ones between zeros"
    assert rule.describe() == "4096 samples: longer records refused, shorter refused"
