"""The same signal, at the input's rate and place, within a microvolt."""

import numpy as np
import pytest
from code_folders import FULL, QUARTER, millivolts, padded, signals, sine_mv, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from ecgscale.conventions import CODE_FS_HZ, CODE_N_SAMPLES
from ecgscale.data.code_format import open_code
from ecgscale.data.digitise import SCALE, digitise
from ecgscale.data.packing import pack, packed
from ecgscale.data.store import open_store
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

# --- the signal ----------------------------------------------------------------------------------------------------


def test_at_the_same_rate_the_signal_comes_back_within_half_a_step(tmp_path):
    rng = np.random.default_rng(0)
    folder = write_folder(tmp_path / "P", list(rng.normal(size=(3, CODE_N_SAMPLES, 12))))
    store = packed(folder, FULL)
    source = open_code(folder).read([0, 1, 2])
    assert signals(store).dtype == np.int16 and signals(store).shape == (3, 12, 4096)
    assert store.header.scale == (SCALE,) * 12 == (0.001,) * 12 and store.header.unit == "mV"
    np.testing.assert_allclose(millivolts(store), source.transpose(0, 2, 1), atol=SCALE / 2 * 1.001)


def test_leads_and_records_are_not_mixed_up(tmp_path):
    """Every lead of every record has an amplitude of its own."""
    records = [sine_mv(5) * (0.1 + 0.1 * np.arange(12) + 1.5 * k) for k in range(3)]
    store = packed(write_folder(tmp_path / "P", records), QUARTER)
    amplitude = np.abs(millivolts(store)).max(axis=-1)
    np.testing.assert_allclose(amplitude, 0.1 + 0.1 * np.arange(12) + 1.5 * np.arange(3)[:, None], rtol=0.02)
    assert list(store.index["exam_id"]) == [100, 101, 102]


def test_a_slow_wave_keeps_its_amplitude_and_phase_at_a_quarter_of_the_rate(tmp_path):
    store = packed(write_folder(tmp_path / "P", [sine_mv(5)]), QUARTER)
    # sample k of 100 Hz stands where sample 4k of 400 Hz stood
    expected = sine_mv(5)[::4, 0]
    np.testing.assert_allclose(millivolts(store)[0, 0, 10:-10], expected[10:-10], atol=0.01)
    np.testing.assert_allclose(millivolts(store)[0, 0], expected, atol=0.05)
    middle = millivolts(store)[0, 0, 100:-100]
    assert middle.std() * np.sqrt(2) == pytest.approx(1.0, rel=0.01)


def test_what_the_new_rate_can_not_hold_is_filtered_out_and_not_folded_back(tmp_path):
    store = packed(write_folder(tmp_path / "P", [sine_mv(80) + sine_mv(5, 1e-2)]), QUARTER)
    assert np.abs(millivolts(store)[0, 0, 50:-50]).max() < 0.03


def test_an_offset_stays_an_offset_up_to_both_ends(tmp_path):
    """Padding with zeros before resampling would turn it into a step that rings."""
    store = packed(write_folder(tmp_path / "P", [padded(sine_mv(1, 0.1) + 2, 3000)]), QUARTER)
    start, stop = store.index.loc[0, ["start", "stop"]].astype(int)
    recorded = millivolts(store)[0, 0, start:stop]
    assert recorded.min() > 1.85 and recorded.max() < 2.15


def test_a_band_keeps_what_is_inside_it(tmp_path):
    band = QUARTER.model_copy(update={"bandpass_hz": (1.0, 20.0)})
    folder = write_folder(tmp_path / "P", [sine_mv(5) + 3, sine_mv(0.1), sine_mv(40)])
    inside = millivolts(packed(folder, band))[:, 0, 200:-200]
    assert inside[0].std() * np.sqrt(2) == pytest.approx(1.0, rel=0.03)
    assert abs(inside[0].mean()) < 0.02
    assert np.abs(inside[1:]).max() < 0.06


def test_a_band_can_be_taken_of_a_record_of_a_few_samples(tmp_path):
    band = QUARTER.model_copy(update={"bandpass_hz": (1.0, 20.0)})
    store = packed(write_folder(tmp_path / "P", [padded(sine_mv(5), 12), sine_mv(5)]), band)
    assert len(store) == 2


def test_values_are_bit_identical_to_the_first_format(tmp_path, data_dir):
    """The formula of stores of version 1: results of trials must not depend on the version of the store."""
    source = open_code(data_dir / "A")
    expected = []
    for record in source.read(np.arange(len(source.exams))):
        nonzero = np.flatnonzero(record.any(axis=1))
        recorded = record[nonzero[0] : nonzero[-1] + 1].T
        resampled = resample_poly(recorded, 1, 4, axis=-1, padtype="line")
        out, begin = np.zeros((12, 1024), np.int16), (1024 - resampled.shape[-1]) // 2
        out[:, begin : begin + resampled.shape[-1]] = np.clip(np.rint(resampled / 0.001), -32767, 32767)
        expected.append(out)
    pack(source, QUARTER, tmp_path / "store", skip_bad=False, fingerprint="f")
    np.testing.assert_array_equal(signals(open_store(tmp_path / "store")), expected)


@settings(max_examples=25, deadline=None)
@given(
    amplitude_mv=st.floats(1e-4, 32.0),
    n_recorded=st.integers(2, CODE_N_SAMPLES),
    seed=st.integers(0, 2**20),
    spec=st.sampled_from([FULL, QUARTER, InputSpec(fs_hz=500, n_samples=2048, patch_samples=64)]),
)
def test_whatever_is_stored_lies_within_a_microvolt_of_the_signal(amplitude_mv, n_recorded, seed, spec):
    """`digitise` raises if it does not; at the same rate the signal is known."""
    noise = np.random.default_rng(seed).uniform(-1, 1, (1, CODE_N_SAMPLES, 12)).astype(np.float32)
    signal = np.stack([padded(amplitude_mv * record, n_recorded) for record in noise]).astype(np.float32)
    block = digitise(signal, CODE_FS_HZ, "mV", spec, (SCALE,) * 12)
    if spec is FULL and block.reasons == [""]:
        assert np.abs(block.digital * SCALE - signal.transpose(0, 2, 1)).max() < 1e-3 * 0.51
    assert not block.digital[..., : block.start[0]].any() and not block.digital[..., block.stop[0] :].any()


def test_every_lead_has_a_scale_of_its_own():
    scale = tuple(0.0001 * (1 + k % 5) for k in range(12))
    block = digitise(sine_mv(5)[None], CODE_FS_HZ, "mV", FULL, scale)
    assert block.reasons == [""]
    np.testing.assert_allclose(block.digital[0] * np.array(scale)[:, None], sine_mv(5).T, atol=0.00026)


def test_a_scale_that_loses_more_than_a_microvolt_is_refused():
    with pytest.raises(DataError, match=r"scale 0\.01 mV per step is too coarse: 0\.00\d+ mV would be lost"):
        digitise(sine_mv(5)[None], CODE_FS_HZ, "mV", FULL, (0.01,) * 12)


def test_millivolts_beyond_int16_are_refused_by_lead_and_do_not_wrap_around():
    large, huge = sine_mv(5), sine_mv(5)
    large[1000, 7], huge[:, 11] = 32.767, 40.0
    block = digitise(np.stack([large, huge]), CODE_FS_HZ, "mV", FULL, (SCALE,) * 12)
    assert block.reasons == ["", "lead V6 reaches 40 mV, 32.767 mV is the most that is kept"]
    assert block.digital[0].max() == 32767
    assert not block.digital[1].any()


# --- its place -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_recorded", "fs_hz", "n_samples", "start", "stop"),
    [
        (4096, 400, 4096, 0, 4096),
        (4000, 400, 4096, 48, 4048),  # CODE's own padding
        (2800, 400, 4096, 648, 3448),  # 7 s
        (4096, 100, 1024, 0, 1024),
        (4000, 100, 1024, 12, 1012),
        (2800, 100, 1024, 162, 862),
        (4096, 400, 2048, 0, 2048),  # cut on both sides
        (2800, 400, 2048, 0, 2048),
        (1000, 400, 2048, 524, 1524),
        (4096, 100, 2048, 512, 1536),  # a longer input than there is signal
    ],
)
def test_the_recorded_part_lies_in_the_middle_and_is_known(tmp_path, n_recorded, fs_hz, n_samples, start, stop):
    record = padded(np.ones((CODE_N_SAMPLES, 12), np.float32), n_recorded)
    spec = InputSpec(fs_hz=fs_hz, n_samples=n_samples, patch_samples=16)
    store = packed(write_folder(tmp_path / "P", [record]), spec)
    assert store.index.loc[0, ["start", "stop"]].tolist() == [start, stop]
    signal = signals(store)[0]
    assert (signal[:, start:stop] != 0).all()
    assert not signal[:, :start].any() and not signal[:, stop:].any()


def test_a_long_record_is_cut_to_its_middle(tmp_path):
    ramp = np.repeat(np.linspace(0.001, 4.096, CODE_N_SAMPLES)[:, None], 12, axis=1)
    store = packed(write_folder(tmp_path / "P", [ramp]), InputSpec(fs_hz=400, n_samples=2048, patch_samples=64))
    np.testing.assert_allclose(millivolts(store)[0, 0], ramp[1024:3072, 0], atol=0.001)


def test_a_lead_that_starts_later_does_not_shorten_the_record(tmp_path):
    record = padded(np.ones((CODE_N_SAMPLES, 12), np.float32), 4000)
    record[:1000, 3] = 0
    store = packed(write_folder(tmp_path / "P", [record]), FULL)
    assert store.index.loc[0, ["start", "stop"]].tolist() == [48, 4048]
    assert not signals(store)[0, 3, :1000].any()
