"""The check finds what is planted, names the exams and the cause, and stays silent about sound records."""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.code_format import CodeWriter, open_code
from ecgscale.data.importing import import_source
from ecgscale.data.limb_leads import LIMB, probable_cause, residuals
from ecgscale.data.measurement import clipped_leads, einthoven_residual, lead_amplitude, measure, recorded_part
from ecgscale.data.quality import CheckReport, Finding, check, check_path
from ecgscale.data.sources.source import Recording, Refused, Source, SourceOptions
from ecgscale.data.synthetic import POPULATIONS, synthesize_block
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)

N = 24
FIRST, LAST = 48, 4048
"""Ten seconds between zeros."""

Signal = np.ndarray
Sound = tuple[pd.DataFrame, Signal]


@pytest.fixture(scope="session")
def sound() -> Sound:
    """Synthetic ECGs of 10 s, one per patient, AF on half; exam 5 has the most upright aVL: its arms' swap shows."""
    exams, signal = synthesize_block(POPULATIONS["A"], 0, 3)
    of_ten_s = exams.index[signal[:, FIRST].any(axis=1) & ~exams["patient_id"].duplicated()][:N]
    table = exams.loc[of_ten_s, ["age", "is_male"]].reset_index(drop=True)
    table = table.assign(exam_id=np.arange(1, N + 1), patient_id=np.arange(101, N + 101), AF=np.arange(N) % 2 == 0)
    avl = signal[of_ten_s, :, LEADS.index("aVL")]
    by_avl = np.argsort(-avl.max(axis=1) / avl.min(axis=1))
    return table, signal[of_ten_s][np.roll(by_avl, 5)]


def write(folder: Path, exams: pd.DataFrame, signal: Signal, unit: Any = "mV") -> Path:
    with CodeWriter(folder, unit=unit) as writer:
        writer.append(exams, np.asarray(signal, dtype=np.float32))
    return folder


def check_planted(folder: Path, exams: pd.DataFrame, signal: Signal, unit: Any = "mV") -> CheckReport:
    seen: list[int] = []
    report = check(open_code(write(folder, exams, signal, unit), partial=True), progress=seen.append)
    assert sum(seen) == len(signal)
    json.dumps(report.to_dict(), allow_nan=False)
    return report


def found(report: CheckReport) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {finding.what: (finding.severity, finding.exam_ids) for finding in report.findings}


def the(report: CheckReport, what: str) -> Finding:
    return next(finding for finding in report.findings if finding.what == what)


def test_sound_records_raise_nothing(tmp_path: Path, sound: Sound) -> None:
    report = check_planted(tmp_path / "x", *sound)
    assert report.findings == () and report.worst is None
    assert (report.kind, report.n_exams, report.n_refused, report.n_patients) == ("code", N, 0, N)
    assert report.labels == {"AF": N // 2}
    assert report.length_s == (10.0, 10.0, 10.0) and report.fs_hz == {400.0: N}
    assert report.padding == {"both": N, "before": 0, "after": 0, "none": 0}
    assert report.amplitude_mv == pytest.approx(0.9, abs=0.3)
    assert report.amplitude_stored == pytest.approx(2 * report.amplitude_mv)
    assert report.einthoven is not None and report.einthoven[1] < 0.01
    assert sum(report.sex.values()) == N and report.age is not None and report.age["n"] == N
    assert {"records", "length", "lead II", "age", "labels"} <= {name for name, _ in report.facts()}


# --- faults of single records --------------------------------------------------------------------------------------


def one_sided(signal: Signal) -> None:
    signal[4, : LAST - FIRST], signal[4, LAST - FIRST :] = signal[4, FIRST:LAST].copy(), 0


def clip(signal: Signal) -> None:
    for lead in ("V3", "V4", "V5"):
        samples = signal[4, :, LEADS.index(lead)]
        np.clip(samples, -0.3 * np.ptp(samples), 0.3 * np.ptp(samples), out=samples)


def zero(*where: Any) -> Callable[[Signal], None]:
    def change(signal: Signal) -> None:
        signal[where] = 0

    return change


def swap_arms(*records: int) -> Callable[[Signal], None]:
    """I turns over, II and III change places, aVR and aVL too: the relations between the leads stay as they were."""

    def change(signal: Signal) -> None:
        for k in records:
            signal[k] = signal[k][:, [0, 2, 1, 4, 3, *range(5, 12)]]
            signal[k, :, 0] *= -1

    return change


def put(place: Any, value: float) -> Callable[[Signal], None]:
    def change(signal: Signal) -> None:
        signal[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "what", "severity"),
    [
        (zero(4), "records are all zero", "warning"),
        (put((4, 500, 7), np.nan), "records hold NaN", "warning"),
        (put((4, 500, 7), np.inf), "records hold NaN", "warning"),
        (zero(4, slice(300, None)), "records are shorter than 1 s", "warning"),
        (put((4, slice(FIRST, LAST), 9), 0.25), "flat leads", "warning"),
        (clip, "clipped leads", "warning"),
        (zero(4, slice(1000, 1400)), "gaps in the recording", "warning"),
        (one_sided, "padded on one side", "info"),
        (swap_arms(4), "limb cables perhaps swapped", "info"),
    ],
)
def test_a_fault_of_one_record_is_found_alone_and_named(
    tmp_path: Path, sound: Sound, change: Callable[[Signal], None], what: str, severity: str
) -> None:
    signal = sound[1].copy()
    change(signal)
    assert found(check_planted(tmp_path / "x", sound[0], signal)) == {what: (severity, (5,))}


def test_short_records_are_found(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1].copy()
    signal[4, : FIRST + 1200] = signal[4, LAST - 1200 :] = 0
    report = check_planted(tmp_path / "x", sound[0], signal)
    assert found(report) == {"short recordings": ("warning", (5,))}
    assert report.length_s == (4.0, 10.0, 10.0)


def test_leads_at_fault_are_named(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1].copy()
    clip(signal)
    signal[6, FIRST:LAST, 9] = 0.25
    report = check_planted(tmp_path / "x", sound[0], signal)
    assert "V4 in 1" in the(report, "flat leads").detail
    assert "V3 in 1, V4 in 1, V5 in 1" in the(report, "clipped leads").detail


def test_repeated_signals_are_found(tmp_path: Path, sound: Sound) -> None:
    exams, signal = sound[0].copy(), sound[1].copy()
    signal[5], signal[9] = signal[4], signal[8]
    exams.loc[9, "patient_id"] = exams.loc[8, "patient_id"]
    report = check_planted(tmp_path / "x", exams, signal)
    assert found(report) == {
        "identical signals of different patients": ("warning", (5, 6)),
        "identical signals of one patient": ("info", (9, 10)),
    }
    assert "5 = 6" in the(report, "identical signals of different patients").detail


# --- faults of a collection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "severity", "cause"),
    [
        (2.0, "warning", "about 2 × mV"),
        (0.5, "warning", "mV already"),
        (1000.0, "error", "are µV"),
        (0.001, "error", "are V"),
    ],
)
def test_wrong_units_are_found(tmp_path: Path, sound: Sound, factor: float, severity: str, cause: str) -> None:
    report = check_planted(tmp_path / "x", sound[0], sound[1] * np.float32(factor))
    finding = the(report, "amplitude is not that of millivolts")
    assert finding.severity == severity
    assert f"mv_per_unit={0.5 / factor:g}" in finding.detail and cause in finding.detail


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        ((0, 1, 2, 4, 5, 3), "I, II, III, aVL, aVF, aVR (as in CODE-test)"),
        ((0, 1, 2, 3, 5, 4), "I, II, III, aVR, aVF, aVL (as in MIMIC-IV-ECG)"),
        ((1, 0, 2, 3, 4, 5), "II, I, III, aVR, aVL, aVF"),
    ],
)
def test_wrong_lead_orders_are_found_and_named(
    tmp_path: Path, sound: Sound, order: tuple[int, ...], cause: str
) -> None:
    (finding, *_) = check_planted(tmp_path / "x", sound[0], sound[1][..., [*order, *range(6, 12)]]).findings
    assert (finding.what, finding.severity) == ("limb leads contradict each other", "error")
    assert finding.n_exams == N and finding.exam_ids == tuple(range(1, 11))
    assert f"In all of them the leads fit the order {cause}" in finding.detail


def test_an_inverted_lead_is_found_and_named(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1].copy()
    signal[:3, :, LEADS.index("aVF")] *= -1
    report = check_planted(tmp_path / "x", sound[0], signal)
    assert found(report) == {"limb leads contradict each other": ("warning", (1, 2, 3))}
    assert "aVF is upside down" in report.findings[0].detail


def test_gains_per_lead_are_told_from_a_lead_order(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1] / np.ptp(sound[1], axis=1, keepdims=True)
    report = check_planted(tmp_path / "x", sound[0], signal)
    detail = the(report, "limb leads contradict each other").detail
    assert "a gain of its own for each lead" in detail and "spans the same range" in detail


def test_leads_of_different_recordings_have_no_cause(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1].copy()
    signal[..., 2:6] = np.roll(signal[..., 2:6], 1, axis=0)
    assert "No other order" in the(check_planted(tmp_path / "x", sound[0], signal), BAD_LIMBS).detail


BAD_LIMBS = "limb leads contradict each other"


def test_arms_swapped_everywhere_are_an_error(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1].copy()
    swap_arms(*range(N))(signal)
    report = check_planted(tmp_path / "x", sound[0], signal)
    assert report.worst == "error" and found(report).keys() == {"limb cables perhaps swapped"}
    assert report.einthoven is not None and report.einthoven[1] < 0.01


@pytest.mark.parametrize(("flat", "cables"), [("II", "RA-RL"), ("III", "LA-RL")])
def test_an_arm_on_the_right_leg_is_found(sound: Sound, flat: str, cables: str) -> None:
    """Whatever the third electrode of the triangle sees, the flat lead is between the legs."""
    one, two = sound[1][0, :, 0], sound[1][0, :, 1]
    signal = sound[1][0].copy()
    one, two = (-two, 0.02 * two) if flat == "II" else (two, two + 0.02 * one)
    signal[:, :6] = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=1)
    assert measure(signal, 400.0).cables == cables


def test_exchanged_chest_leads_are_found(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1][..., [*range(6), 6, 8, 7, 9, 10, 11]]
    report = check_planted(tmp_path / "x", sound[0], signal)
    assert found(report).keys() == {"chest leads in another order"}
    assert "V1, V3, V2, V4, V5, V6" in report.findings[0].detail


def test_reversed_chest_leads_are_found(tmp_path: Path, sound: Sound) -> None:
    signal = sound[1][..., [*range(6), *range(11, 5, -1)]]
    assert "chest leads in another order" in found(check_planted(tmp_path / "x", sound[0], signal))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_zscored_input_that_claims_millivolts_is_found(tmp_path: Path, sound: Sound, factor: float) -> None:
    """Also when the releases' factor was applied to it."""
    signal = zscored(sound[1]) * factor
    report = check_planted(tmp_path / "mv", sound[0], signal)
    assert found(report).keys() == {"z-scored signals"} and report.worst == "error"
    assert report.amplitude_mv is None and report.einthoven is None
    json.dumps(report.to_dict())


def test_zscores_are_told_from_what_only_says_so(tmp_path: Path, sound: Sound) -> None:
    assert check_planted(tmp_path / "z", sound[0], zscored(sound[1]), unit="zscore").worst == "info"
    assert found(check_planted(tmp_path / "no", *sound, unit="zscore"))["unit is not z-score"][0] == "error"


def zscored(signal: Signal) -> Signal:
    part = signal[:, FIRST:LAST].astype(float)
    part = (part - part.mean(axis=1, keepdims=True)) / part.std(axis=1, keepdims=True)
    return np.pad(part, ((0, 0), (FIRST, 4096 - LAST), (0, 0)))


def test_nothing_usable_is_still_a_report(tmp_path: Path, sound: Sound) -> None:
    report = check_planted(tmp_path / "x", sound[0], np.zeros_like(sound[1]))
    assert found(report).keys() == {"records are all zero", "no record is usable"} and report.worst == "error"
    assert report.amplitude_mv is None and report.length_s == (0.0, 0.0, 0.0)


# --- faults of the table and the files -----------------------------------------------------------------------------


def test_ages_that_are_codes_are_found(tmp_path: Path, sound: Sound) -> None:
    exams = sound[0].assign(age=[50.0, -1.0, 300.0, np.nan, *[60.0] * (N - 4)])
    report = check_planted(tmp_path / "x", exams, sound[1])
    assert found(report) == {"ages that are codes": ("warning", (2, 3)), "age is missing": ("info", (4,))}
    assert report.age is not None and (report.age["min"], report.age["n"]) == (50.0, N - 3)


@pytest.mark.parametrize("column", ["split", "strat_fold"])
def test_patients_on_both_sides_of_a_split_are_found(tmp_path: Path, sound: Sound, column: str) -> None:
    sides = ["train", "train", "val", *["test"] * (N - 3)] if column == "split" else [1, 1, 2, *[3] * (N - 3)]
    patients = [7, 8, 8, *range(109, 106 + N)]
    report = check_planted(tmp_path / "x", sound[0].assign(patient_id=patients, **{column: sides}), sound[1])
    ((what, outcome),) = found(report).items()
    assert what.startswith("patients in more than one") and outcome == ("error", (2, 3))
    assert report.n_patients == N - 1


def test_unknown_patients_and_rare_labels_are_told(tmp_path: Path, sound: Sound) -> None:
    exams = sound[0].assign(patient_id=sound[0]["exam_id"], ST=[True] * 3 + [False] * (N - 3))
    report = check_planted(tmp_path / "x", exams, sound[1])
    assert found(report).keys() == {"patients are not known", "rare labels"} and report.worst == "info"
    assert "ST 3." in the(report, "rare labels").detail


def test_halves_of_exams_are_counted(tmp_path: Path, sound: Sound) -> None:
    folder = write(tmp_path / "x", *sound)
    lines = (folder / "exams.csv").read_text().splitlines()
    without = lines[-1].replace(f"{N},", "999,", 1)
    (folder / "exams.csv").write_text("\n".join([*lines[:-1], without]) + "\n")
    report, _ = check_path(folder)
    assert the(report, "exams without a trace").n_exams == 1
    assert the(report, "traces without an exam").n_exams == 1
    assert report.n_exams == N - 1 and report.worst == "warning"


def test_a_release_that_names_no_unit_is_told_and_the_factor_shown(tmp_path: Path, sound: Sound) -> None:
    folder = write(tmp_path / "x", *sound)
    with h5py.File(folder / "exams_part0.hdf5", "r+") as file:
        del file["tracings"].attrs["mv_per_unit"]
    report, _ = check_path(folder)
    assert found(report).keys() == {"factor 2"} and report.worst == "info"
    assert report.amplitude_mv is not None
    assert f"{2 * report.amplitude_mv:.2f} as stored, {report.amplitude_mv:.2f} mV" in report.findings[0].detail
    said, _ = check_path(folder, mv_per_unit=1.0)
    assert found(said).keys() == {"factor 2", "amplitude is not that of millivolts"}


def test_compressed_chunks_of_many_records_are_told(tmp_path: Path, sound: Sound) -> None:
    folder = write(tmp_path / "x", *sound)
    with h5py.File(folder / "exams_part0.hdf5", "r+") as file:
        attributes, stored = dict(file["tracings"].attrs), file["tracings"][:]
        del file["tracings"]
        chunked = file.create_dataset("tracings", data=stored, chunks=(8, 4096, 12), compression="gzip")
        chunked.attrs.update(attributes)
    report, _ = check_path(folder)
    assert found(report).keys() == {"slow to read in random order"}
    assert "chunks of 8 records" in report.findings[0].detail and "data pack" in report.findings[0].detail


def test_a_damaged_part_costs_its_own_exams_only(tmp_path: Path, sound: Sound) -> None:
    exams, signal = sound
    with CodeWriter(tmp_path / "x", records_per_part=N // 2) as writer:
        writer.append(exams, signal)
    part = tmp_path / "x" / "exams_part1.hdf5"
    part.write_bytes(part.read_bytes()[:-5000])
    report, _ = check_path(tmp_path / "x")
    assert (report.n_exams, report.n_refused) == (N // 2, N // 2)
    assert "exams_part1.hdf5" in the(report, "records that cannot be read").detail


def test_damage_that_shows_only_while_reading_costs_its_part(
    tmp_path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgscale.data.trace_part import TracePart

    exams, signal = sound
    with CodeWriter(tmp_path / "x", records_per_part=N // 2) as writer:
        writer.append(exams, signal)
    whole = TracePart.slice

    def slice_(part: TracePart, start: int, stop: int) -> Signal:
        if part.path.name == "exams_part0.hdf5":
            raise DataError("exams_part0.hdf5: cannot be read as HDF5")
        return whole(part, start, stop)

    monkeypatch.setattr(TracePart, "slice", slice_)
    report = check(open_code(tmp_path / "x"))
    assert the(report, "records that cannot be read").n_exams == N // 2 == report.n_exams


@pytest.mark.parametrize("value", ["", "abc"])
def test_a_table_that_cannot_be_used_is_a_finding(tmp_path: Path, sound: Sound, value: str) -> None:
    """An age in words, a patient that is missing."""
    folder = write(tmp_path / "x", *sound)
    table = pd.read_csv(folder / "exams.csv", dtype=str)
    table.loc[2, "age" if value else "patient_id"] = value
    table.to_csv(folder / "exams.csv", index=False)
    report, _ = check_path(folder)
    assert report.worst == "error" and report.n_exams == 0
    assert ("age" if value else "patient_id") in the(report, "the folder cannot be used").detail
    json.dumps(report.to_dict())


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        check_path(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not recognised"):
        check_path(tmp_path)
    with pytest.raises(DataError, match="unknown kind"):
        check_path(tmp_path, kind="edf")


# --- sources -------------------------------------------------------------------------------------------------------


class MadeUp(Source):
    """Records in memory, as a source would hand them out."""

    def __init__(self, records: list[Recording | Refused]) -> None:
        self.kind, self.records = "made-up", records
        self.names = [item.record for item in records]
        self.advice = ("patients repeat",)
        self.refused = (Refused("X9", "its file is not there"),)

    def read(self, start: int, stop: int) -> Iterator[Recording | Refused]:
        yield from self.records[start:stop]


def recordings(sound: Sound, leads: tuple[str, ...] = LEADS, fs_hz: float = 500.0) -> list[Recording | Refused]:
    """Records named A1 … and B1 …, with these leads only, without padding."""
    columns = [LEADS.index(lead) for lead in leads]
    return [
        Recording(
            f"{'A' if k < N // 2 else 'B'}{k}",
            sound[1][k][FIRST:LAST, columns],
            leads,
            fs_hz,
            {"exam_id": k, "patient_id": f"p{k}", "age": 50.0, "is_male": None if k % 2 else True, "AF": k % 2 == 0},
        )
        for k in range(N)
    ]


def test_a_source_is_checked_as_it_is(sound: Sound) -> None:
    """Leads by name in whatever order, missing ones computed, its own rate; refusals grouped by reason."""
    mixed = ("V1", "V2", "V3", "V4", "V5", "V6", "II", "I")
    items = recordings(sound, mixed)
    items[3] = Refused("A3", "has no gain")
    items[4] = Refused("A4", "has no gain")
    report = check(MadeUp(items))
    assert found(report).keys() == {"known about this collection", "records that cannot be read"}
    refused = [finding for finding in report.findings if finding.what == "records that cannot be read"]
    assert [(x.n_exams, x.records) for x in refused] == [(2, ("A3", "A4")), (1, ("X9",))]
    assert (report.n_exams, report.n_refused, report.fs_hz) == (N - 2, 3, {500.0: N - 2})
    assert report.length_s == (8.0, 8.0, 8.0) and report.padding["none"] == N - 2
    assert [(group.name, group.n_exams) for group in report.groups] == [("A", N // 2 - 2), ("B", N // 2)]
    assert report.sex["unknown"] == N // 2 - 1
    json.dumps(report.to_dict())


def test_code_test_has_its_own_lead_order_and_the_releases_unit(tmp_path: Path, sound: Sound) -> None:
    """Traces without ids in the order of CODE-test, twice as large as mV."""
    (tmp_path / "annotations").mkdir()
    gold = pd.DataFrame({label: np.arange(N) % 2 for label in CODE_LABELS})
    gold.to_csv(tmp_path / "annotations" / "gold_standard.csv", index=False)
    pd.DataFrame({"age": 50, "sex": ["M", "F"] * (N // 2)}).to_csv(tmp_path / "attributes.csv", index=False)
    without, _ = check_path(tmp_path)
    assert found(without).keys() == {"annotations without signals"} and without.worst == "error"
    with h5py.File(tmp_path / "ecg_tracings.hdf5", "w") as file:
        file["tracings"] = 2 * sound[1][..., [0, 1, 2, 4, 5, 3, *range(6, 12)]]
    report, _ = check_path(tmp_path)
    assert (report.kind, report.worst) == ("code-test", "error")
    assert "(as in CODE-test)" in the(report, "limb leads contradict each other").detail
    assert "factor 2" in found(report) and "amplitude is not that of millivolts" not in found(report)


def test_a_release_still_in_its_zips_is_checked(tmp_path: Path, sound: Sound) -> None:
    folder = write(tmp_path / "x", *sound)
    part = folder / "exams_part0.hdf5"
    with h5py.File(part, "r+") as file:
        del file["tracings"].attrs["mv_per_unit"]
    with zipfile.ZipFile(folder / "exams_part0.zip", "w") as archive:
        archive.write(part, part.name)
    part.unlink()
    report, _ = check_path(folder)
    assert report.n_exams == N and report.worst == "info" and "factor 2" in found(report)
    assert report.amplitude_stored == pytest.approx(2 * (report.amplitude_mv or 0))


def test_refusals_that_differ_in_numbers_only_are_one_finding() -> None:
    items: list[Recording | Refused] = [
        Refused(f"A{k}", f"A{k}.dat is truncated, {k} of 120000 bytes") for k in range(9)
    ]
    items += [Refused(f"B{'x' * k}", f"reason {'x' * k}") for k in range(20)]
    report = check(MadeUp(items))
    refused = [finding for finding in report.findings if finding.what == "records that cannot be read"]
    assert refused[0].n_exams == 9 and "A0.dat is truncated" in refused[0].detail
    assert len(refused) == 13 and sum(finding.n_exams for finding in refused) == 30 == report.n_refused
    assert report.worst == "error"  # nothing is left


def test_a_lead_that_a_source_lacks_or_has_as_nan_is_told(sound: Sound) -> None:
    items = recordings(sound)
    broken = items[0]
    assert isinstance(broken, Recording)
    broken.signal[5, 2] = np.nan  # not computed from I and II behind the user's back
    (lacking,) = recordings((sound[0], sound[1]), LEADS[:-1])[1:2]
    items[1] = lacking
    report = check(MadeUp(items))
    assert the(report, "records hold NaN").records == ("A0",)
    assert "V6" in next(x.detail for x in report.findings if x.records == ("A1",))


# --- measures ------------------------------------------------------------------------------------------------------


def test_measures_on_known_signals(sound: Sound) -> None:
    signal = sound[1][0]
    assert recorded_part(signal) == slice(FIRST, LAST)
    assert recorded_part(np.zeros((10, 12), np.float32)) == slice(0, 0)
    assert einthoven_residual(signal) < 0.01
    beats = np.exp(-(((np.arange(4000) % 360) - 180) ** 2) / (2 * 8.0**2)).astype(np.float32)
    drift = np.linspace(0, 5, 4000, dtype=np.float32)
    for baseline in (0, 5, drift):
        assert lead_amplitude(beats + baseline, 400.0) == pytest.approx(0.9, abs=0.1)


def test_offsets_are_no_contradiction(sound: Sound) -> None:
    """Recorders couple each lead by itself: a constant added to one lead says nothing."""
    shifted = sound[1][0, FIRST:LAST] + np.arange(12, dtype=np.float32)
    assert einthoven_residual(shifted) < 0.01


def test_clipping_needs_a_plateau_away_from_the_baseline() -> None:
    beat = np.exp(-(((np.arange(4000) % 360) - 180) ** 2) / (2 * 8.0**2))
    signal = np.stack([beat, np.minimum(beat, 0.6), -np.minimum(beat, 0.6), np.zeros(4000)], axis=1).astype(np.float32)
    assert clipped_leads(np.pad(signal, ((0, 0), (0, 8))), 400.0) == ["II", "III"]


def derived(one: Signal, two: Signal) -> Signal:
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=1)


def covariance_of_limb_leads(seed: int) -> Signal:
    rng = np.random.default_rng(seed)
    return np.cov(derived(*rng.normal(size=(2, 500)) * rng.uniform(0.3, 3, (2, 1))).T)


@given(st.integers(0, 1000), st.permutations(range(6)))
def test_any_lead_order_is_recognised(seed: int, order: list[int]) -> None:
    """Or an equivalent inverted lead: a swap of two electrodes is both a change of order and a change of sign."""
    stored = covariance_of_limb_leads(seed)[np.ix_(order, order)]
    if residuals(stored).together > 0.1:
        cause = probable_cause(stored)
        assert cause.residual < 0.1
        if cause.kind == "order" and cause.residual < 1e-6:
            assert cause.leads == ", ".join(LIMB[k] for k in order)


@given(st.integers(0, 1000), st.lists(st.floats(0.2, 5.0), min_size=6, max_size=6))
def test_any_gains_per_lead_are_recognised(seed: int, gains: list[float]) -> None:
    stored = covariance_of_limb_leads(seed) * np.outer(gains, gains)
    if residuals(stored).together > 0.1:
        cause = probable_cause(stored)
        assert cause.residual < 0.1 and (cause.kind != "gains" or cause.residual < 1e-6)


# --- real records --------------------------------------------------------------------------------------------------


@needs_real
def test_real_code15_factor_two_is_found() -> None:
    report, _ = check_path(REAL / "code15-sample" / "mini")
    assert report.worst == "info" and report.amplitude_stored == pytest.approx(1.57, abs=0.006)
    assert "1.57 as stored, 0.78 mV" in the(report, "factor 2").detail
    assert found(report).keys() == {"factor 2", "rare labels", "slow to read in random order"}
    said, _ = check_path(REAL / "code15-sample" / "mini", mv_per_unit=1)
    assert "mv_per_unit=0.5 it would fit" in the(said, "amplitude is not that of millivolts").detail


@needs_real
def test_real_ludb_with_its_header_gains_is_found() -> None:
    report, _ = check_path(REAL / "ludb")
    assert report.worst == "error" and report.n_exams == 200
    finding = the(report, "limb leads contradict each other")
    assert finding.n_exams == 200 and "a gain of its own for each lead" in finding.detail
    assert report.einthoven is not None and report.einthoven[0] == pytest.approx(0.55, abs=0.01)


@needs_real
def test_real_ludb_in_its_true_unit_has_the_known_amplitude() -> None:
    from ecgscale.data.sources import open_source

    report = check(open_source(REAL / "ludb", "ludb", SourceOptions()))
    assert report.amplitude_mv == pytest.approx(0.94, abs=0.005) and report.worst == "warning"
    assert report.einthoven is not None and report.einthoven[1] < 1e-5


@needs_real
def test_real_georgia_and_ptbxl_have_the_known_amplitudes_and_twins() -> None:
    report, _ = check_path(REAL / "cinc2021-sample")
    medians = {group.name: (group.n_exams, round(group.amplitude or 0, 2)) for group in report.groups}
    assert medians == {"E": (60, 0.72), "HR": (27, 0.86)}
    assert the(report, "identical signals of different patients").records == ("E07509", "E07510")
    assert report.worst == "warning"


@needs_real
def test_real_ptbxl_zscores_are_told_and_found_when_called_millivolts(tmp_path: Path) -> None:
    report, _ = check_path(REAL / "ptbxl-zscored")
    assert report.worst == "info" and "z-scored signals" in found(report)
    assert report.labels == {"1dAVb": 66, "RBBB": 47, "LBBB": 52, "SB": 35, "AF": 106, "ST": 59}
    assert report.age is not None and report.sex["male"] == 799
    assert (round(report.age["mean"], 1), round(report.age["sd"], 1), report.age["n"]) == (58.8, 17.2, 1620)
    import_source(REAL / "ptbxl-zscored", tmp_path / "z", options=SourceOptions(records="2??"))
    folder = open_code(tmp_path / "z")
    with CodeWriter(tmp_path / "mv") as writer:
        for rows, signal in folder.batches():
            writer.append(folder.exams.iloc[rows], signal)
    assert found(check(open_code(tmp_path / "mv")))["z-scored signals"][0] == "error"


@needs_real
def test_real_annotations_without_signals_are_found() -> None:
    report, _ = check_path(REAL / "code-test-annotations")
    assert (report.worst, report.n_exams) == ("error", 0)
    detail = the(report, "annotations without signals").detail
    assert "827" in detail and "1dAVb 28, RBBB 34, LBBB 30, SB 16, AF 13, ST 37" in detail
