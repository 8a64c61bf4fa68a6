"""The packed store: the same signal, at the input's rate and place, made again only when the source has changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgscale.conventions import CODE_FS_HZ, CODE_LABELS, CODE_N_SAMPLES, LEADS
from ecgscale.data.code_format import CodeWriter, open_code
from ecgscale.data.store import SCALE, PackedStore, open_store, packed, store_name
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

FULL = InputSpec(fs_hz=400, n_samples=4096, patch_samples=64)
QUARTER = InputSpec(fs_hz=100, n_samples=1024, patch_samples=16)


def sine_mv(hz: float, amplitude_mv: float = 1.0) -> np.ndarray:
    """(sample, lead) of a record without padding."""
    wave = amplitude_mv * np.sin(2 * np.pi * hz * (np.arange(CODE_N_SAMPLES) + 0.5) / CODE_FS_HZ)
    return np.repeat(wave[:, None], len(LEADS), axis=1).astype(np.float32)


def padded(record: np.ndarray, n_recorded: int) -> np.ndarray:
    """The record's first samples, in the middle of zeros as the CODE format wants it."""
    out = np.zeros_like(record)
    begin = (len(record) - n_recorded) // 2
    out[begin : begin + n_recorded] = record[:n_recorded]
    return out


def write_folder(folder: Path, records: list[np.ndarray], **columns) -> Path:
    ids = [100 + k for k in range(len(records))]
    exams = pd.DataFrame({"exam_id": ids, "patient_id": ids, "age": 50.0, "is_male": True, **columns})
    for label in CODE_LABELS:
        exams[label] = False
    with CodeWriter(folder, overwrite=True) as writer:
        writer.append(exams, np.stack(records).astype(np.float32))
    return folder


def millivolts(store: PackedStore) -> np.ndarray:
    return np.asarray(store.signals) * store.header.scale


# --- the signal ----------------------------------------------------------------------------------------------------


def test_at_the_same_rate_the_signal_comes_back_within_half_a_step(tmp_path):
    rng = np.random.default_rng(0)
    folder = write_folder(tmp_path / "P", list(rng.normal(size=(3, CODE_N_SAMPLES, 12))))
    store = packed(folder, FULL)
    source = open_code(folder).read([0, 1, 2])
    assert store.signals.dtype == np.int16 and store.signals.shape == (3, 12, 4096)
    assert SCALE == store.header.scale == 0.001 and store.header.unit == "mV"
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


def test_millivolts_beyond_int16_are_clipped_and_do_not_wrap_around(tmp_path):
    store = packed(write_folder(tmp_path / "P", [sine_mv(5, 40.0)]), FULL)
    assert millivolts(store).max() == pytest.approx(32.767)
    assert millivolts(store).min() == pytest.approx(-32.767)


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
    signal = np.asarray(store.signals)[0]
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
    assert not np.asarray(store.signals)[0, 3, :1000].any()


def test_the_index_has_every_column_of_the_table(tmp_path):
    folder = write_folder(tmp_path / "P", [sine_mv(5)] * 3, potassium_mmol_l=[4.0, np.nan, 5.5])
    index = packed(folder, QUARTER).index
    assert {"exam_id", "patient_id", "age", "is_male", *CODE_LABELS, "start", "stop"} <= set(index)
    np.testing.assert_array_equal(index["potassium_mmol_l"], [4.0, np.nan, 5.5])


# --- records that can't be used ------------------------------------------------------------------------------------


def folder_with_bad_records(folder: Path) -> Path:
    nan, infinite = sine_mv(5), sine_mv(5)
    nan[2000, 7], infinite[5, 0] = np.nan, np.inf
    return write_folder(folder, [sine_mv(5, 1.0), 0 * nan[:1].repeat(4096, 0), sine_mv(5, 2.0), nan, infinite])


def test_records_that_can_not_be_used_are_refused_by_name_and_nothing_is_left(tmp_path):
    folder = folder_with_bad_records(tmp_path / "P")
    with pytest.raises(DataError) as caught:
        packed(folder, QUARTER)
    message = str(caught.value)
    assert "3 of 5 records can't be used" in message
    for exam, reason in ((101, "all zero"), (103, "NaN"), (104, "NaN")):
        assert f"exam_id {exam}: {reason}" in message
    assert "exams.csv" in message and "--skip-bad" in message
    assert not list((folder / "packed").iterdir())


def test_many_bad_records_are_counted_and_the_first_named(tmp_path):
    folder = write_folder(tmp_path / "P", [np.zeros((CODE_N_SAMPLES, 12))] * 8 + [sine_mv(5)])
    with pytest.raises(DataError, match=r"8 of 9 records.*exam_id 104: all zero and 3 more"):
        packed(folder, QUARTER)


def test_bad_records_can_be_left_out_with_their_reasons(tmp_path):
    store = packed(folder_with_bad_records(tmp_path / "P"), QUARTER, skip_bad=True)
    assert list(store.index["exam_id"]) == [100, 102]
    assert store.signals.shape == (2, 12, 1024) and len(store) == 2
    np.testing.assert_allclose(np.abs(millivolts(store)).max(axis=(1, 2)), [1.0, 2.0], rtol=0.02)
    assert store.header.refused == {"101": "all zero", "103": "NaN", "104": "NaN"}


def test_a_folder_without_one_usable_record_is_refused(tmp_path):
    folder = write_folder(tmp_path / "P", [np.zeros((CODE_N_SAMPLES, 12))])
    with pytest.raises(DataError, match="no usable record"):
        packed(folder, QUARTER, skip_bad=True)


# --- made once -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "P", [sine_mv(5)] * 4)


def test_an_unchanged_source_is_not_packed_again(folder):
    counted: list[int] = []
    first = packed(folder, QUARTER, progress=counted.append)
    written = (first.path / "signals.npy").stat().st_mtime_ns
    again = packed(folder, QUARTER, progress=counted.append)
    assert sum(counted) == 4  # the second time nothing was done
    assert (again.path / "signals.npy").stat().st_mtime_ns == written
    assert again.header == first.header


@pytest.mark.parametrize("change", ["signal", "table"])
def test_a_changed_source_is_packed_again(folder, change):
    before = packed(folder, QUARTER)
    # what is packed stays where it is while the records beside it change
    if change == "signal":
        other = write_folder(folder.parent / "other", [sine_mv(5, 2.0)] * 4)
        shutil.copy(other / "exams_part0.hdf5", folder)
    else:
        table = pd.read_csv(folder / "exams.csv")
        table.assign(age=70).to_csv(folder / "exams.csv", index=False)
    after = packed(folder, QUARTER)
    assert after.header.fingerprint != before.header.fingerprint
    if change == "signal":
        assert np.abs(millivolts(after)).max() == pytest.approx(2.0, rel=0.02)
    else:
        assert set(after.index["age"]) == {70}


def test_every_input_has_a_store_of_its_own(folder):
    inputs = [
        FULL,
        QUARTER,
        QUARTER.model_copy(update={"n_samples": 512}),
        QUARTER.model_copy(update={"bandpass_hz": (0.5, 40.0)}),
        QUARTER.model_copy(update={"bandpass_hz": (0.5, 30.0)}),
    ]
    assert len({store_name(spec) for spec in inputs}) == len(inputs)
    # how the signal is normalised and patched is decided later
    assert store_name(QUARTER) == store_name(QUARTER.model_copy(update={"normalise": "fixed", "patch_samples": 32}))
    for spec in inputs[:3]:
        assert packed(folder, spec).signals.shape[-1] == spec.n_samples


def test_a_store_that_was_interrupted_is_never_opened(folder, monkeypatch):
    def interrupted(self, *arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packed(folder, QUARTER)
    path = folder / "packed" / store_name(QUARTER)
    assert not path.exists()
    with pytest.raises(DataError, match="not a packed store"):
        open_store(path)
    monkeypatch.undo()
    assert len(packed(folder, QUARTER)) == 4  # the leftovers are no obstacle
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "header", ["{", "", "{}", "[1]", "null", '{"format_version": 1, "surprise": 2}'], ids=["cut", "empty", *"abcd"]
)
def test_a_damaged_header_is_refused_with_the_file(folder, header):
    path = packed(folder, QUARTER).path
    (path / "header.json").write_text(header)
    with pytest.raises(DataError, match=r"100hz-1024: not a packed store"):
        open_store(path)


def test_a_store_of_another_version_is_refused_with_the_way_out(folder):
    path = packed(folder, QUARTER).path
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(json.dumps(header | {"format_version": 99}))
    with pytest.raises(DataError, match=r"store version 99, this program reads 1; delete it"):
        open_store(path)


@pytest.mark.parametrize("damage", ["signals of another shape", "signals cut", "no index", "index cut"])
def test_files_that_do_not_belong_together_are_refused(folder, damage):
    path = packed(folder, QUARTER).path
    if damage == "signals of another shape":
        np.save(path / "signals.npy", np.zeros((3, 12, 1024), np.int16))
    elif damage == "signals cut":
        (path / "signals.npy").write_bytes((path / "signals.npy").read_bytes()[:-1000])
    elif damage == "no index":
        (path / "index.parquet").unlink()
    else:
        (path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"100hz-1024: .*delete it"):
        open_store(path)
