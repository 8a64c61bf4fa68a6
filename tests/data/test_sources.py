"""Importers: any source arrives in millivolts, in order, at 400 Hz; a bad record is refused by name, not the rest."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.code_format import CodeWriter, open_code
from ecgscale.data.quality import check, einthoven_residual
from ecgscale.data.sources import clean_age, clean_sex, import_source
from ecgscale.data.standard_form import in_standard_order, lead_name, to_code_length, to_code_rate
from ecgscale.data.wfdb_records import read_header, read_record
from ecgscale.errors import DataError

with warnings.catch_warnings():  # wfdb 4.3.1 uses what pandas 3.1 deprecates
    warnings.simplefilter("ignore")
    import wfdb

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)
COMMENTS = "#Age: 63\n#Sex: Male\n#Dx: 426177001,164889003\n"


def sine_leads(n: int, fs_hz: float, seed: int = 0) -> np.ndarray:
    """(time, lead) in mV: a 1 Hz sine of 1 mV in I, half of it in II, other sizes elsewhere; obeys Einthoven's law."""
    sizes = np.random.default_rng(seed).uniform(0.2, 2.0, 12)
    sizes[0], sizes[1] = 1.0, 0.5
    sizes[2:6] = -0.5, -0.75, 0.75, 0.0
    return np.sin(2 * np.pi * np.arange(n) / fs_hz)[:, None] * sizes


def write_wfdb(
    folder: Path,
    name: str,
    signal_mv: np.ndarray,
    *,
    fs_hz: float = 500,
    gain: str = "1000/mV",
    per_mv: float = 1000.0,
    leads: tuple[str, ...] = LEADS,
    first: str | None = None,
    comments: str = COMMENTS,
) -> None:
    """A record as CinC 2021 has it: MATLAB v4 file with a 24-byte header, text header with comments."""
    folder.mkdir(exist_ok=True)
    digital = np.round(np.nan_to_num(signal_mv * per_mv, nan=-32768)).astype("<i2")
    (folder / f"{name}.mat").write_bytes(b"\0" * 24 + digital.tobytes())
    lines = [first or f"{name} {len(leads)} {fs_hz:g} {len(digital)}"]
    lines += [f"{name}.mat 16+24 {gain} 16 0 {digital[0, k]} 0 0 {lead}" for k, lead in enumerate(leads)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n" + comments)


# Real collections


@needs_real
def test_real_ptbxl_zscored(tmp_path: Path) -> None:
    summary = import_source(REAL / "ptbxl-zscored", tmp_path / "code")
    assert (summary.kind, summary.n_records, summary.refused) == ("ptbxl-zscored", 1625, ())
    folder = open_code(tmp_path / "code")
    train = folder.exams[folder.exams["split"] == "train"]
    test = folder.exams[folder.exams["split"] == "test"]
    assert (len(train), len(test)) == (1442, 183)
    assert list(train[list(CODE_LABELS)].sum()) == [60, 37, 48, 29, 98, 52]
    assert list(test[list(CODE_LABELS)].sum()) == [6, 10, 4, 6, 8, 7]
    assert set(test["strat_fold"].astype(str)) == {"9"}
    assert folder.exams["age"].isna().sum() == 5 and folder.exams["is_male"].sum() == 799
    assert (folder.unit, folder.mv_per_unit) == ("zscore", 1.0)
    signal = folder.read([0])[0, 48:4048]
    np.testing.assert_allclose(signal.std(axis=0), 1, atol=0.05)


@needs_real
def test_real_ludb(tmp_path: Path) -> None:
    summary = import_source(REAL / "ludb", tmp_path / "code")
    assert (summary.kind, summary.n_records, summary.refused) == ("ludb", 200, ())
    assert summary.labels == {"1dAVb": 10, "RBBB": 4, "LBBB": 4, "SB": 25, "AF": 15, "ST": 4}
    folder = open_code(tmp_path / "code")
    assert folder.exams["is_male"].sum() == 115 and folder.exams["age"].max() == 90.0
    signal = folder.read(range(200)).astype(np.float64)
    limb_error_mv = signal[..., 2] - (signal[..., 1] - signal[..., 0])
    assert np.abs(limb_error_mv).max() < 0.8e-3  # exact, but for three roundings of a quarter microvolt
    report = check(folder)
    assert report.worst == "info" and report.amplitude_mv == pytest.approx(0.96, abs=0.02)


@needs_real
def test_real_georgia(tmp_path: Path) -> None:
    summary = import_source(REAL / "cinc2021-sample", tmp_path / "code", records="E*")
    assert (summary.kind, summary.n_records) == ("cinc", 59)
    assert [(x.record, x.reason) for x in summary.refused] == [
        ("E07510", "its signal is identical to that of E07509"),
    ]
    folder = open_code(tmp_path / "code")
    assert list(folder.exams["exam_id"][:2]) == [271, 1137] and folder.exams["record"].iloc[0] == "E00271"
    table = pd.read_csv(REAL / "cinc2021-sample" / "labels.csv").set_index("record")
    table = table.loc[folder.exams["record"]]
    assert list(folder.exams["age"]) == list(table["age"])
    assert list(folder.exams["is_male"]) == list(table["sex"] == "Male")
    names = {"1dAVb": "IAVB", "RBBB": "RBBB", "SB": "SB", "AF": "AF", "ST": "STach"}
    for label, name in names.items():
        assert list(folder.exams[label]) == [name in x.split(";") for x in table["dx_abbrev"]], label
    assert max(einthoven_residual(record) for record in folder.read(range(59))) < 0.025
    provenance = json.loads((tmp_path / "code" / "provenance.json").read_text("utf-8"))
    assert (provenance["n_imported"], provenance["n_refused"]) == (59, 1)
    assert provenance["refused"][0]["record"] == "E07510"


@needs_real
@pytest.mark.parametrize("name", ["E00271", "HR06005"])
def test_real_records_read_as_wfdb_reads_them(name: str) -> None:
    path = REAL / "cinc2021-sample" / "records" / name
    ours, theirs = read_record(path.with_suffix(".hea")), wfdb.rdrecord(str(path))
    np.testing.assert_allclose(ours.signal_mv, theirs.p_signal, atol=1e-6)
    assert (list(ours.leads), ours.header.fs_hz) == (theirs.sig_name, theirs.fs)


@needs_real
def test_real_ptbxl_copies_agree_after_import(tmp_path: Path) -> None:
    import_source(REAL / "ptbxl-zscored", tmp_path / "z", records="6005")
    import_source(REAL / "cinc2021-sample", tmp_path / "mv", records="HR06005")
    zscored, signal_mv = (open_code(tmp_path / name).read([0])[0, 48:4048] for name in ("z", "mv"))
    band = scipy.signal.butter(4, (0.5, 40), "bandpass", fs=400, output="sos")  # what was done to the z-scored set
    filtered = scipy.signal.sosfiltfilt(band, signal_mv, axis=0)
    for k in range(12):
        assert np.corrcoef(zscored[:, k], filtered[:, k])[0, 1] > 0.999


@needs_real
def test_real_code_format_needs_no_import(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CODE format already"):
        import_source(REAL / "code15-sample" / "mini", tmp_path / "code")
    with pytest.raises(DataError, match="not recognised"):
        import_source(REAL / "code-test-annotations", tmp_path / "code")
    assert not (tmp_path / "code").exists()


# Planted records


@pytest.mark.parametrize(
    ("gain", "per_mv"),
    [
        ("1000/mV", 1000),
        ("1000.0(0)/mv", 1000),
        ("1/uV", 1000),
        ("2.5(100)/µV", 2500),
        ("200000/V", 200),
        ("1000", 1000),
    ],
)
@pytest.mark.parametrize("fs_hz", [250, 257, 400, 500, 1000])
def test_a_one_millivolt_sine_survives_units_and_rates(tmp_path: Path, gain: str, per_mv: float, fs_hz: int) -> None:
    signal_mv = sine_leads(8 * fs_hz, fs_hz)
    offset = 100 / per_mv if "(100)" in gain else 0.0
    write_wfdb(tmp_path / "in", "A0001", signal_mv + offset, fs_hz=fs_hz, gain=gain, per_mv=per_mv)
    import_source(tmp_path / "in", tmp_path / "code")
    signal = open_code(tmp_path / "code").read([0])[0]
    n = 8 * 400
    start = (4096 - n) // 2
    expected = sine_leads(n, 400)
    inner = slice(100, n - 100)
    np.testing.assert_allclose(signal[start : start + n][inner], expected[inner], atol=0.005)
    assert not signal[: start - 1].any() and not signal[start + n + 1 :].any()


def test_headers_that_wfdb_refuses_are_read(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "in", "E00271", sine_leads(5000, 500), first="E00271.mat 12 500 5000 05-May-2020 14:50:55")
    with pytest.raises(ValueError, match="record line"):
        wfdb.rdheader(str(tmp_path / "in" / "E00271"))
    comments = "# Age: 300\n# Sex: F\n# Dx: 59118001\n"
    first = "JS00001 12 500 5000 12-May-2020 12:33:59"
    write_wfdb(tmp_path / "in", "JS00001", sine_leads(5000, 500, seed=1), first=first, comments=comments)
    text = (tmp_path / "in" / "JS00001.hea").read_text().replace("16+24", "16x1+24")
    (tmp_path / "in" / "JS00001.hea").write_text(text)
    assert import_source(tmp_path / "in", tmp_path / "code").n_records == 2
    exams = open_code(tmp_path / "code").exams.set_index("record")
    assert list(exams.loc["JS00001", ["age", "is_male", "RBBB", "AF"]]) == [90.0, False, True, False]
    assert list(exams.loc["E00271", ["age", "is_male", "SB", "AF"]]) == [63.0, True, True, True]


def test_unusable_records_are_refused_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    source, good = tmp_path / "in", sine_leads(5000, 500)
    write_wfdb(source, "A01", good)
    with_nan = good.copy()
    with_nan[10, 7] = np.nan
    write_wfdb(source, "A02", with_nan)
    write_wfdb(source, "A03", good[:, :9], leads=LEADS[:9])
    write_wfdb(source, "A04", good)
    (source / "A04.mat").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 120024\n")
    write_wfdb(source, "A05", good)
    (source / "A05.mat").write_bytes((source / "A05.mat").read_bytes()[:50_000])
    write_wfdb(source, "A06", good, gain="0")
    write_wfdb(source, "A07", good * 0)
    write_wfdb(source, "A08", good)
    write_wfdb(source, "A09", sine_leads(5000, 500, seed=2), comments="#Age: 3\n")
    write_wfdb(source, "A10", good)
    (source / "A10.mat").unlink()
    (source / "A11.hea").write_text("")
    write_wfdb(source, "A12", good, leads=(*LEADS[:11], "v5"))
    write_wfdb(source, "A13", sine_leads(5000, 500, seed=3))
    seen: list[int] = []
    summary = import_source(source, tmp_path / "code", progress=seen.append)
    reasons = {x.record: x.reason for x in summary.refused}
    assert summary.n_records == 2 and sum(seen) == 13
    for record, words in {
        "A02": "lead V2 holds NaN",
        "A03": "lead V4, V5, V6 is missing",
        "A04": "Git LFS pointer",
        "A05": "A05.mat is truncated, 50000 of 120024 bytes",
        "A06": "no gain",
        "A07": "all zero",
        "A08": "identical to that of A01",
        "A09": "#Dx",
        "A10": "A10.mat is not there",
        "A11": "not a WFDB header",
        "A12": "lead V5 appears more than once",
    }.items():
        assert words in reasons.pop(record), record
    assert not reasons
    assert "2 records imported from cinc, 11 refused" in summary.describe()
    assert "refused: A10: its signal file A10.mat is not there" in summary.describe()
    assert json.loads(json.dumps(summary.to_dict()))["refused"][0]["record"] == "A02"
    assert list(open_code(tmp_path / "code").exams["record"]) == ["A01", "A13"]


def test_nothing_is_written_when_no_record_is_usable(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "in", "A01", np.zeros((5000, 12)))
    with pytest.raises(DataError, match="all 1 records were refused; A01: signal is all zero"):
        import_source(tmp_path / "in", tmp_path / "code")
    with pytest.raises(DataError, match="no cinc record matches 'Z\\*'"):
        import_source(tmp_path / "in", tmp_path / "code", records="Z*")
    with pytest.raises(DataError, match="unknown kind"):
        import_source(tmp_path / "in", tmp_path / "code", kind="xml")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_existing_output_is_kept_unless_overwriting(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "in", "A01", sine_leads(5000, 500))
    with CodeWriter(tmp_path / "code") as writer:
        writer.append(pd.DataFrame({"exam_id": [77]}), np.ones((1, 4096, 12), np.float32))
    with pytest.raises(DataError, match="exists already"):
        import_source(tmp_path / "in", tmp_path / "code")
    assert list(open_code(tmp_path / "code").exams["exam_id"]) == [77]
    import_source(tmp_path / "in", tmp_path / "code", overwrite=True)
    assert list(open_code(tmp_path / "code").exams["exam_id"]) == [1]


def test_record_names_that_share_digits_get_different_ids(tmp_path: Path) -> None:
    for k, name in enumerate(["E0001", "HR0001", "S2"]):
        write_wfdb(tmp_path / "in", name, sine_leads(5000, 500, seed=k))
    import_source(tmp_path / "in", tmp_path / "code")
    exams = open_code(tmp_path / "code").exams
    assert list(exams["exam_id"]) == [1, 2, 3] and list(exams["record"]) == ["E0001", "HR0001", "S2"]


def test_ages_and_sexes_in_every_spelling() -> None:
    assert [clean_age(x) for x in ("56", 56.0, ">89", "300", 300.0)] == [56, 56, 90, 90, 90]
    assert all(np.isnan(clean_age(x)) for x in ("-1", "NaN", "Unknown", None, float("nan"), "999"))
    assert [clean_sex(x) for x in ("M", "female", "Male", "Unknown", None)] == [True, False, True, None, None]


# One recording


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


@settings(deadline=None, max_examples=40)
@given(
    st.permutations(range(12)),
    st.sets(st.sampled_from(["III", "aVR", "aVL", "aVF"])),
    st.sets(st.sampled_from(["III", "aVR", "aVL", "aVF"])),
    st.sampled_from([str.upper, str.lower, str]),
)
def test_any_order_any_spelling_and_missing_derived_leads(order, missing, with_nan, spell) -> None:
    signal = sine_leads(50, 50)
    damaged = signal.copy()
    damaged[3, [LEADS.index(lead) for lead in with_nan]] = np.nan
    kept = [k for k in order if LEADS[k] not in missing]
    extra = np.full((50, 1), np.nan)
    standard = in_standard_order(np.hstack([extra, damaged[:, kept]]), ["VX", *(spell(LEADS[k]) for k in kept)])
    np.testing.assert_allclose(standard, signal, atol=1e-6)


def test_zscored_leads_are_never_computed_from_each_other() -> None:
    with pytest.raises(DataError, match="aVF is missing"):
        in_standard_order(np.ones((5, 11)), [lead for lead in LEADS if lead != "aVF"], derive=False)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9000))
def test_any_length_becomes_4096_with_its_middle_in_the_middle(n: int) -> None:
    signal = np.repeat(np.arange(1, n + 1, dtype=np.float32)[:, None], 12, axis=1)
    out = to_code_length(signal)
    assert out.shape == (4096, 12)
    kept = out[out[:, 0] > 0, 0]
    assert len(kept) == min(n, 4096) and (np.diff(kept) == 1).all()
    left, right = (kept[0] - 1, n - kept[-1]) if n > 4096 else (out[:, 0].argmax() - n + 1, 4095 - out[:, 0].argmax())
    assert abs(left - right) <= 1


@settings(deadline=None, max_examples=25)
@given(st.integers(100, 1000), st.floats(-5, 5))
def test_resampling_keeps_amplitude_baseline_and_limb_leads(fs_hz: int, baseline_mv: float) -> None:
    offset = baseline_mv * np.array([1, 1, 0, -1, 0.5, 0.5] + [1] * 6)
    signal = to_code_rate((sine_leads(4 * fs_hz, fs_hz) + offset).astype(np.float32), fs_hz)
    assert abs(len(signal) - 1600) <= 1
    assert abs(signal[50:-50] - (sine_leads(len(signal), 400) + offset)[50:-50]).max() < 0.02
    assert einthoven_residual(signal) < 1e-4


def test_header_of_another_make(tmp_path: Path) -> None:
    text = "rec/1 12 500/100(0) 5000\n"
    (tmp_path / "x.hea").write_text(text)
    with pytest.raises(DataError, match="x: has several segments"):
        read_header(tmp_path / "x.hea")
    (tmp_path / "x.hea").write_text("x 12 fast 5000\n")
    with pytest.raises(DataError, match="first line"):
        read_header(tmp_path / "x.hea")
    write_wfdb(tmp_path, "y", sine_leads(10, 500))
    (tmp_path / "y.hea").write_text((tmp_path / "y.hea").read_text().replace("16+24", "212"))
    with pytest.raises(DataError, match="y: stored in a WFDB format other than 16"):
        read_record(tmp_path / "y.hea")
