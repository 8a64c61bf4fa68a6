"""The check finds what is planted, names the exams, and stays silent about sound records."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgscale.data.code_format import CodeWriter, open_code
from ecgscale.data.quality import CheckReport, check, einthoven_residual, lead_amplitude, recorded_part
from ecgscale.data.sources import import_source
from ecgscale.data.standard_form import in_standard_order, to_code_length, to_code_rate
from ecgscale.data.wfdb_records import read_record

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)


def make_ecg(n: int, seed: int = 0) -> np.ndarray:
    """Spiky twelve-lead signals with R waves of about 1 mV that obey Einthoven's law; 10 s between zeros."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(4000) / 400
    beat = np.exp(-(((time_s % 0.9) - 0.4) ** 2) / (2 * 0.02**2))
    sizes = rng.uniform(0.8, 1.2, (n, 1, 12))
    signal = beat[None, :, None] * sizes + rng.normal(0, 0.01, (n, 4000, 12))
    one, two = signal[..., 0], signal[..., 1]
    signal[..., 2], signal[..., 3] = two - one, -(one + two) / 2
    signal[..., 4], signal[..., 5] = one - two / 2, two - one / 2
    return np.pad(signal, ((0, 0), (48, 48), (0, 0))).astype(np.float32)


def check_planted(folder: Path, signal: np.ndarray, unit: str = "mV", **columns: object) -> CheckReport:
    n = len(signal)
    exams = pd.DataFrame({"exam_id": np.arange(1, n + 1), "patient_id": np.arange(101, n + 101), "age": 50.0})
    with CodeWriter(folder, unit=unit) as writer:
        writer.append(exams.assign(AF=False, **columns), signal)
    seen: list[int] = []
    report = check(open_code(folder), progress=seen.append)
    assert sum(seen) == n
    return report


def found(report: CheckReport) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {finding.what: (finding.severity, finding.exam_ids) for finding in report.findings}


def test_sound_records_raise_nothing(tmp_path: Path) -> None:
    report = check_planted(tmp_path / "x", make_ecg(6), is_male=True)
    assert report.findings == () and report.worst is None
    assert (report.n_exams, report.n_patients, report.labels) == (6, 6, {"AF": 0})
    assert report.length_s == (10.0, 10.0, 10.0)
    assert report.amplitude_mv == pytest.approx(1.0, abs=0.2)
    assert report.einthoven is not None and report.einthoven[1] < 0.01
    json.dumps(report.to_dict())


@pytest.mark.parametrize(
    ("factor", "severity"), [(2.0, "warning"), (0.5, "warning"), (1000.0, "error"), (0.001, "error")]
)
def test_wrong_units_are_found(tmp_path: Path, factor: float, severity: str) -> None:
    report = check_planted(tmp_path / "x", make_ecg(6) * np.float32(factor))
    assert found(report)["amplitude is not that of millivolts"][0] == severity
    assert f"mv_per_unit={0.5 / factor:g}" in report.findings[0].detail


@pytest.mark.parametrize(
    ("order", "name"),
    [((0, 1, 2, 4, 5, 3), "CODE-test"), ((0, 1, 2, 3, 5, 4), "MIMIC"), ((1, 0, 2, 3, 4, 5), "wrong")],
)
def test_wrong_lead_order_is_found_and_known_ones_are_named(tmp_path: Path, order: tuple[int, ...], name: str) -> None:
    report = check_planted(tmp_path / "x", make_ecg(6)[..., [*order, *range(6, 12)]])
    severity, ids = found(report)["limb leads contradict each other"]
    assert severity == "error" and ids == (1, 2, 3, 4, 5, 6)
    assert name in next(x.detail for x in report.findings if "limb" in x.what)


def test_zscored_input_that_claims_millivolts_is_found(tmp_path: Path) -> None:
    signal = make_ecg(6)
    part = signal[:, 48:-48]
    signal[:, 48:-48] = (part - part.mean(axis=1, keepdims=True)) / part.std(axis=1, keepdims=True)
    report = check_planted(tmp_path / "mv", signal)
    assert found(report)["z-scored signals"][0] == "error"
    assert report.amplitude_mv is None and report.einthoven is None
    assert check_planted(tmp_path / "z", signal, unit="zscore").worst == "info"
    assert found(check_planted(tmp_path / "no", make_ecg(3), unit="zscore"))["unit is not z-score"][0] == "error"


def test_bad_records_are_named(tmp_path: Path) -> None:
    signal = make_ecg(6)
    signal[1] = 0
    signal[2, 500, 7] = np.nan
    signal[3, 48:-48, 9] = 0.25
    signal[5] = signal[4]
    age = [50, -1, 300, np.nan, 60, 70]
    report = check_planted(tmp_path / "x", signal, age=age)
    assert found(report) == {
        "records are all zero": ("warning", (2,)),
        "records are NaN": ("warning", (3,)),
        "flat leads": ("warning", (4,)),
        "identical signals of different patients": ("warning", (5, 6)),
        "ages that are codes": ("warning", (2, 3)),
        "age is missing": ("info", (4,)),
    }
    assert "V4" in next(x.detail for x in report.findings if x.what == "flat leads")
    assert report.age == (50.0, 60.0, 70.0)


def test_leakage_and_unknown_patients_are_found(tmp_path: Path) -> None:
    split, patient = ["train", "train", "val", "test"], [7, 8, 8, 9]
    report = check_planted(tmp_path / "x", make_ecg(4), split=split, patient_id=patient)
    assert found(report)["patients in more than one split"] == ("error", (2, 3))
    assert report.worst == "error" and report.n_patients == 3
    assert "patients are not known" in found(check_planted(tmp_path / "y", make_ecg(2), patient_id=[1, 2]))


def test_nothing_usable_is_still_a_report(tmp_path: Path) -> None:
    report = check_planted(tmp_path / "x", np.zeros((2, 4096, 12), np.float32))
    assert found(report)["records are all zero"] == ("warning", (1, 2))
    assert report.amplitude_mv is None


def test_measures_on_known_signals() -> None:
    signal = make_ecg(1)[0]
    assert recorded_part(signal) == slice(48, 4048)
    assert recorded_part(np.zeros((10, 12), np.float32)) == slice(0, 0)
    assert einthoven_residual(signal) < 1e-6
    assert einthoven_residual(np.ones((100, 12), np.float32)) == pytest.approx(np.sqrt((1 + 4 + 0.25 + 0.25) / 4))
    sine = np.sin(np.arange(4000) * 2 * np.pi / 400).astype(np.float32)
    assert lead_amplitude(sine + 5) == pytest.approx(1.0, abs=1e-3)


@needs_real
def test_real_code15_factor_two_is_found() -> None:
    assert check(open_code(REAL / "code15-sample" / "mini")).findings == ()
    report = check(open_code(REAL / "code15-sample" / "mini", mv_per_unit=1))
    assert found(report).keys() == {"amplitude is not that of millivolts"}
    assert "mv_per_unit=0.5" in report.findings[0].detail


@needs_real
def test_real_ludb_with_its_header_gains_is_found(tmp_path: Path) -> None:
    signals = []
    for k in range(1, 31):
        record = read_record(REAL / "ludb" / "data" / f"{k}.hea")  # as any WFDB reader would
        signals.append(to_code_length(to_code_rate(in_standard_order(record.signal_mv, record.leads), 500.0)))
    report = check_planted(tmp_path / "x", np.stack(signals))
    assert found(report)["limb leads contradict each other"][0] == "error"
    assert report.einthoven is not None and report.einthoven[0] > 0.3


@needs_real
def test_real_ptbxl_zscores_are_found_when_called_millivolts(tmp_path: Path) -> None:
    import_source(REAL / "ptbxl-zscored", tmp_path / "z", records="2??")
    folder = open_code(tmp_path / "z")
    assert check(folder).worst == "info"
    with CodeWriter(tmp_path / "mv") as writer:
        for rows, signal in folder.batches():
            writer.append(folder.exams.iloc[rows], signal)
    assert found(check(open_code(tmp_path / "mv")))["z-scored signals"][0] == "error"
