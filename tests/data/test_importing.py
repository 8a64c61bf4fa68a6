"""Importing: the same bytes on any number of cores, after any interruption; refusals by name; never half a folder."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data import import_parts, importing, sources
from ecgscale.data.code_format import CodeWriter, open_code
from ecgscale.data.importing import ImportSummary, import_source
from ecgscale.data.sources import KINDS, Kind, open_source, recognise
from ecgscale.data.sources.source import RecordFiles, Recording, Refused, SourceOptions
from ecgscale.data.standard_form import LengthRule
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)


@dataclass(kw_only=True)
class Planted(RecordFiles):
    """Records made on the spot, each another; what `folder/plan.json` says of one befalls it when it is read."""

    folder: Path
    names: list[str]
    fs_hz: float = 400.0
    n_samples: int = 700
    refused: tuple[Refused, ...] = ()
    changed: tuple[str, ...] = ("planted",)
    kind: str = "planted"
    version: str | None = "7"
    leads: tuple[str, ...] = LEADS
    extra: dict[str, object] = field(default_factory=dict)

    def recording(self, k: int) -> Recording:
        name = self.names[k]
        with (self.folder / "reads.log").open("a") as log:
            log.write(f"{name} {os.getpid()}\n")
        plan = json.loads((self.folder / "plan.json").read_text()) if (self.folder / "plan.json").exists() else {}
        what = plan.get(name, "")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "wait":
            time.sleep(60)
        if what == "refuse":
            raise DataError(f"{name}: has a broken {self.folder}/header")
        if what == "permission":
            raise PermissionError(13, "Permission denied", "/root/secret")
        same = plan.get(name) if what.startswith("P") else name
        number = int(same[1:])
        row = {
            "exam_id": 7 if what == "seven" else int(name[1:]),
            "patient_id": np.int64(k // 2),
            "age": float("nan") if k % 3 == 0 else 50.5,
            "is_male": [True, False, None][k % 3],
            **{label: (k + j) % 4 == 0 for j, label in enumerate(CODE_LABELS)},
            "note": None if k % 5 == 0 else f"K={k}, µ",
            **self.extra,
        }
        t = np.arange(self.n_samples) / self.fs_hz
        wave = np.sin(2 * np.pi * t)[:, None] * np.linspace(1, 2, len(self.leads))
        wave += 0.01 * np.random.default_rng(number).normal(size=wave.shape)
        return Recording(name, (wave * (what != "zero")).astype(np.float32), self.leads, self.fs_hz, row)


Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Makes a source folder of the kind "planted"; blocks hold 4 records, parts 10, and any number pays for a pool."""
    monkeypatch.setattr(importing, "BLOCK", 4)
    monkeypatch.setattr(importing, "RECORDS_PER_PART", 10)
    monkeypatch.setattr(import_parts, "RECORDS_PER_PART", 10)
    monkeypatch.setattr(importing, "_WORTH_A_POOL", 2)

    def make(n: int = 33, name: str = "in", plan: dict[str, str] | None = None, **other: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan or {}))

        def opened(folder: Path, options: SourceOptions) -> Planted:
            return Planted(folder=folder, names=[f"P{k:03d}" for k in range(1, n + 1)], **other)

        monkeypatch.setitem(KINDS, "planted", Kind(opened, lambda folder: True, "nothing"))
        return folder

    return make


def run(source: Path, out: Path, **how: object) -> ImportSummary:
    return import_source(source, out, **{"kind": "planted", "jobs": 1, **how})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def n_reads(source: Path) -> int:
    log = source / "reads.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


# The result


def test_every_core_gives_the_same_bytes(plant: Plant, tmp_path: Path) -> None:
    source = plant(plan={"P004": "refuse", "P017": "zero", "P020": "P018", "P031": "permission"})
    started, told = [], []
    one = run(source, tmp_path / "one", start=started.append, progress=told.append)
    two = run(source, tmp_path / "two", jobs=2, progress=told.append)
    assert (one.n_records, one.n_continued, started, sum(told)) == (29, 0, [33], 66)
    assert [(x.record, x.reason) for x in one.refused] == [
        ("P004", "has a broken header"),
        ("P017", "signal is all zero"),
        ("P020", "its signal is identical to that of P018"),
        ("P031", "cannot be read (Permission denied)"),
    ]
    assert (one.refused, one.labels, one.changed) == (two.refused, two.labels, two.changed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["in", "one", "two"]
    folder = open_code(tmp_path / "one")
    assert [len(part.ids) for part in folder.parts] == [10, 10, 9]
    assert list(folder.exams["exam_id"]) == [k for k in range(1, 34) if k not in (4, 17, 20, 31)]
    assert one.labels == {label: int(folder.exams[label].sum()) for label in CODE_LABELS}
    assert list(folder.exams["is_male"][:3]) == [True, False, pd.NA]
    assert folder.exams["age"].isna().sum() == 9 and folder.exams["note"].dropna().iloc[0] == "K=1, µ"
    provenance = json.loads((tmp_path / "one" / "provenance.json").read_text("utf-8"))
    assert provenance["source"] == {"kind": "planted", "version": "7", "folder": "in"}
    assert provenance["options"] == {"records": "*", "as_declared": False, "crop": "center", "pad": "both"}
    assert (provenance["n_records_in_source"], provenance["n_imported"], provenance["n_refused"]) == (33, 29, 4)
    assert provenance["refused"][0] == {"record": "P004", "reason": "has a broken header"}
    assert provenance["program"]["name"] == "ecgscale" and provenance["labels"] == one.labels
    assert "planted" in provenance["changed"] and str(tmp_path) not in json.dumps(provenance)
    assert "29 records imported from planted 7, 4 refused" in one.describe()
    assert "refused: P017: signal is all zero" in one.describe()
    assert json.loads(json.dumps(one.to_dict()))["refused"][0]["record"] == "P004"


@pytest.mark.parametrize("n", [1, 9, 10, 20])
def test_parts_are_cut_where_they_are_full(plant: Plant, tmp_path: Path, n: int) -> None:
    run(plant(n + 2, plan={f"P{n + 1:03d}": "refuse", f"P{n + 2:03d}": "zero"}), tmp_path / "out")
    folder = open_code(tmp_path / "out")
    assert [len(part.ids) for part in folder.parts] == [min(10, n - k) for k in range(0, n, 10)]
    assert list(folder.exams["exam_id"]) == list(range(1, n + 1))


@pytest.mark.parametrize("fs_hz", [100, 257, 400, 500, 1000])
def test_a_one_millivolt_sine_survives(plant: Plant, tmp_path: Path, fs_hz: int) -> None:
    run(plant(2, fs_hz=fs_hz, n_samples=8 * fs_hz), tmp_path / "out")
    signal = open_code(tmp_path / "out").read([0])[0]
    lead_i = signal[448 + 100 : 448 + 3100, 0]
    expected = np.sin(2 * np.pi * np.arange(100, 3100) / 400)
    assert np.abs(np.polyfit(expected, lead_i, 1) - [1, 0]).max() < 1e-3
    assert not signal[:440].any() and not signal[448 + 3210 :].any()


def test_lengths_are_handled_as_declared(plant: Plant, tmp_path: Path) -> None:
    source = plant(2, n_samples=5000)
    run(source, tmp_path / "start", length=LengthRule(crop="start"))
    run(source, tmp_path / "center")
    start, center = (open_code(tmp_path / name).read([0])[0] for name in ("start", "center"))
    np.testing.assert_array_equal(start[452:], center[:-452])
    with pytest.raises(DataError, match=r"all 2 records were refused; P001: 12\.5 s is longer than 10\.24 s"):
        run(source, tmp_path / "none", length=LengthRule(crop="refuse"))
    provenance = json.loads((tmp_path / "start" / "provenance.json").read_text("utf-8"))
    assert provenance["options"]["crop"] == "start"


def test_two_records_never_share_an_exam_id(plant: Plant, tmp_path: Path) -> None:
    summary = run(plant(12, plan={"P009": "seven", "P011": "P009"}), tmp_path / "out")
    assert summary.refused == (Refused("P009", "its exam_id 7 is that of P007 as well"),)
    assert list(open_code(tmp_path / "out").exams["exam_id"]) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]


def test_what_the_source_refuses_is_listed_first(plant: Plant, tmp_path: Path) -> None:
    source = plant(3, plan={"P002": "refuse"}, refused=(Refused("Q1", "has no file"),))
    summary = run(source, tmp_path / "out")
    assert [x.record for x in summary.refused] == ["Q1", "P002"] and summary.n_records == 2
    with pytest.raises(DataError, match="Q1: has no file"):
        run(source, tmp_path / "strict", strict=True)


def test_absurd_numbers_are_refused(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = plant(3, fs_hz=500.0)
    honest = Planted.recording

    def absurd(self: Planted, k: int) -> Recording:
        found = honest(self, k)
        return Recording(found.record, found.signal * np.float32(1e38 if k else 1), LEADS, found.fs_hz, found.row)

    monkeypatch.setattr(Planted, "recording", absurd)
    summary = run(source, tmp_path / "out")
    assert summary.n_records == 1 and {x.reason for x in summary.refused} == {"signal is NaN"}


# Interruptions


def test_a_killed_import_goes_on_and_gives_the_same_bytes(plant: Plant, tmp_path: Path) -> None:
    n = 61
    whole = plant(n)
    run(whole, tmp_path / "whole")
    source = plant(n, plan={"P048": "wait", "P049": "wait"})
    (source / "reads.log").unlink()
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_importing as t\n"
        "if __name__ == '__main__':\n"
        "    t.importing.BLOCK, t.importing.RECORDS_PER_PART, t.import_parts.RECORDS_PER_PART = 4, 10, 10\n"
        "    t.importing._WORTH_A_POOL = 2\n"
        f"    names = [f'P{{k:03d}}' for k in range(1, {n} + 1)]\n"
        "    opened = lambda folder, options: t.Planted(folder=folder, names=names)\n"
        "    t.KINDS['planted'] = t.Kind(opened, bool, '')\n"
        f"    t.run(Path({str(source)!r}), Path({str(tmp_path / 'out')!r}), jobs=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    journals = list[Path]()
    for _ in range(600):
        time.sleep(0.05)
        journals = list(tmp_path.glob(".out.importing/*/journals/*.json"))
        if len(journals) == 4 and "P049" in (source / "reads.log").read_text():
            break
    process.kill()
    process.wait()
    assert len(journals) == 4  # 40 records; the blocks up to 44 wait for the rest of the fifth part
    pids = {int(line.split()[1]) for line in (source / "reads.log").read_text().splitlines()}
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids), "workers outlive the import"
    assert not (tmp_path / "out").exists()

    plant(n)
    (source / "reads.log").unlink()
    told: list[int] = []
    summary = run(source, tmp_path / "out", progress=told.append)
    assert summary.n_continued == 44 and n_reads(source) == n - 44
    assert (told[0], sum(told)) == (44, n)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def interrupted(source: Path, out: Path, at: int, **how: object) -> None:
    """An import that Ctrl-C ends while record `at` is on its way."""

    def progress(n: int) -> None:
        nonlocal at
        at -= n
        if at <= 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, out, progress=progress, **how)


@pytest.mark.parametrize(("at", "jobs"), [(1, 1), (12, 1), (21, 1), (33, 1), (12, 2)])
def test_interrupted_anywhere(plant: Plant, tmp_path: Path, at: int, jobs: int) -> None:
    source = plant(plan={"P004": "refuse", "P012": "zero", "P020": "P003", "P033": "P001"})
    run(source, tmp_path / "whole")
    interrupted(source, tmp_path / "out", at, jobs=jobs)
    (source / "reads.log").unlink()
    summary = run(source, tmp_path / "out")
    assert summary.n_continued >= at // 4 * 4 and n_reads(source) == 33 - summary.n_continued
    assert f"continued: {summary.n_continued} records" in summary.describe()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        lambda plant, source: ({"length": LengthRule(pad="end")}, plant()),
        lambda plant, source: ({"options": SourceOptions(mv_per_unit=1.0)}, plant()),
        lambda plant, source: ({"strict": True}, plant()),
        lambda plant, source: ({}, plant(34)),
        lambda plant, source: ({}, plant(version="8")),
        lambda plant, source: ({}, [plant(), (source / "labels.csv").write_text("another")][0]),
    ],
)
def test_another_import_starts_afresh(plant: Plant, tmp_path: Path, change) -> None:
    source = plant()
    (source / "labels.csv").write_text("label")
    interrupted(source, tmp_path / "out", 20)
    how, _ = change(plant, source)
    assert run(source, tmp_path / "out", **how).n_continued == 0
    assert not list(tmp_path.glob(".*"))


def test_a_dying_worker_is_an_error_that_says_so(plant: Plant, tmp_path: Path) -> None:
    source = plant(plan={"P030": "die"})
    with pytest.raises(DataError, match=r"a process of the import died.*memory.*goes on from there; fewer than 2 jobs"):
        run(source, tmp_path / "out", jobs=2)
    assert not (tmp_path / "out").exists()
    plant()
    assert run(source, tmp_path / "out").n_continued > 0


@pytest.mark.parametrize("limit_kb", [60, 180])
def test_a_full_disk_keeps_what_is_finished(plant: Plant, tmp_path: Path, limit_kb: int) -> None:
    """A limit on the size of files, which a block or the part made of several exceeds, fails as a full disk does."""
    source = plant()
    run(source, tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb * 1000, before[1]))
    try:
        with pytest.raises(DataError, match=r"out: the disk is full\. What was finished is kept in \.out\.importing"):
            run(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*.building-*"))
    summary = run(source, tmp_path / "out")
    assert (summary.n_continued > 0) == (limit_kb == 180)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_block_is_converted_again(plant: Plant, tmp_path: Path) -> None:
    source = plant()
    interrupted(source, tmp_path / "out", 30)
    block = max(tmp_path.glob(".out.importing/*/blocks/*.hdf5"))
    block.write_bytes(b"\0" * 1000)
    with pytest.raises(DataError, match="damaged; the same command converts it again"):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out").n_records == 33


def test_only_one_process_imports_into_a_folder(plant: Plant, tmp_path: Path) -> None:
    source = plant()

    def second(n: int) -> None:
        with pytest.raises(DataError, match="another process is importing into it"):
            run(source, tmp_path / "out")

    assert run(source, tmp_path / "out", progress=second).n_records == 33


# Strict


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_strict_import_stops_at_the_first_refusal(plant: Plant, tmp_path: Path, jobs: int) -> None:
    source = plant(plan={"P014": "zero", "P029": "refuse"})
    with pytest.raises(DataError, match=r"^P014: signal is all zero\. A strict import stops here"):
        run(source, tmp_path / "out", strict=True, jobs=jobs)
    assert not (tmp_path / "out").exists()
    plant()
    (source / "reads.log").unlink()
    assert run(source, tmp_path / "out", strict=True).n_continued >= 12
    assert len(open_code(tmp_path / "out").exams) == 33


def test_a_strict_import_stops_at_a_repeated_record(plant: Plant, tmp_path: Path) -> None:
    source = plant(plan={"P014": "P002"})
    with pytest.raises(DataError, match=r"^P014: its signal is identical to that of P002"):
        run(source, tmp_path / "out", strict=True)
    assert [x.name for x in tmp_path.iterdir()] == ["in"]
    plant()  # either of the two may have been the wrong one: both are read again
    assert run(source, tmp_path / "out", strict=True).n_continued == 0


# Nothing to write, something in the way


def test_nothing_is_written_when_no_record_is_usable(plant: Plant, tmp_path: Path) -> None:
    source = plant(2, plan={"P001": "zero", "P002": "zero"})
    with pytest.raises(DataError, match="all 2 records were refused; P001: signal is all zero"):
        run(source, tmp_path / "out")
    plant(0)
    with pytest.raises(DataError, match="no planted record matches 'Z\\*'"):
        run(source, tmp_path / "out", options=SourceOptions(records="Z*"))
    with pytest.raises(DataError, match="unknown kind of source 'xml'; known: auto, ptbxl,"):
        run(source, tmp_path / "out", kind="xml")
    with pytest.raises(DataError, match="no such folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_existing_output_is_kept_unless_overwriting(plant: Plant, tmp_path: Path) -> None:
    source = plant(2)
    with CodeWriter(tmp_path / "out") as writer:
        writer.append(pd.DataFrame({"exam_id": [77]}), np.ones((1, 4096, 12), np.float32))
    with pytest.raises(DataError, match="exists already"):
        run(source, tmp_path / "out")
    interrupted(source, tmp_path / "out", 1, overwrite=True)
    assert list(open_code(tmp_path / "out").exams["exam_id"]) == [77]
    run(source, tmp_path / "out", overwrite=True)
    assert list(open_code(tmp_path / "out").exams["exam_id"]) == [1, 2]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["in", "out"]


def test_a_folder_that_cannot_be_written_to(plant: Plant, tmp_path: Path) -> None:
    source = plant(2)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="writing failed"):
        run(source, tmp_path / "file" / "out")


# Recognition


def test_the_most_specific_kind_is_tried_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(KINDS)[-2:] == ["cinc", "arrays"]  # any folder with headers; any folder with arrays
    monkeypatch.setattr(
        sources,
        "KINDS",
        {
            "a": Kind(lambda folder, options: Planted(folder=folder, names=[]), lambda folder: False, "an a"),
            "b": Kind(lambda folder, options: Planted(folder=folder, names=["b"]), lambda folder: True, "a b"),
            "c": Kind(lambda folder, options: Planted(folder=folder, names=["c"]), lambda folder: True, "a c"),
        },
    )
    assert recognise(tmp_path) == "b" and open_source(tmp_path).names == ["b"]
    assert open_source(tmp_path, "c").names == ["c"]
    del sources.KINDS["b"], sources.KINDS["c"]
    with pytest.raises(DataError, match=r"not recognised; name its --kind\. What each kind needs:\n  a: an a"):
        recognise(tmp_path)


# Real collections


@needs_real
@pytest.mark.parametrize(
    ("folder", "kind", "n_records", "positives"),
    [
        ("ptbxl-zscored", "ptbxl-zscored", 1625, {"1dAVb": 66, "RBBB": 47, "LBBB": 52, "SB": 35, "AF": 106, "ST": 59}),
        ("ludb", "ludb", 200, {"1dAVb": 10, "RBBB": 4, "LBBB": 4, "SB": 25, "AF": 15, "ST": 4}),
        ("cinc2021-sample", "cinc", 86, {"1dAVb": 3, "RBBB": 3, "LBBB": 0, "SB": 14, "AF": 2, "ST": 11}),
        ("code15-sample/mini", "code", 10, {"1dAVb": 3, "RBBB": 3, "LBBB": 0, "SB": 2, "AF": 0, "ST": 2}),
    ],
)
def test_real_collections(folder: str, kind: str, n_records: int, positives: dict[str, int], tmp_path: Path) -> None:
    summary = import_source(REAL / folder, tmp_path / "code", jobs=1)
    assert (summary.kind, summary.n_records) == (kind, n_records)
    assert {label: summary.labels[label] for label in CODE_LABELS} == positives
    reasons = [(x.record, x.reason) for x in summary.refused]
    assert reasons == ([("E07510", "its signal is identical to that of E07509")] if kind == "cinc" else [])
    code = open_code(tmp_path / "code")
    assert len(code.exams) == n_records and code.unit == ("zscore" if kind == "ptbxl-zscored" else "mV")
    for k in range(n_records if kind == "ludb" else 0):  # its samples are µV: exact but for three roundings
        lead_i, lead_ii, lead_iii = code.read([k])[0, :, :3].astype(np.float64).T
        assert np.abs(lead_iii - (lead_ii - lead_i)).max() < 0.8e-3


@needs_real
def test_real_code_in_is_code_out(tmp_path: Path) -> None:
    import_source(REAL / "code15-sample" / "mini", tmp_path / "code")
    before, after = open_code(REAL / "code15-sample" / "mini"), open_code(tmp_path / "code")
    np.testing.assert_allclose(after.read(range(10)), before.read(range(10)), atol=0.25e-3)
    columns = ["exam_id", "patient_id", "age", "is_male", *CODE_LABELS, "death", "timey", "normal_ecg"]
    pd.testing.assert_frame_equal(after.exams[columns], before.exams[columns], check_dtype=False)


@needs_real
def test_real_ptbxl_copies_agree_after_import(tmp_path: Path) -> None:
    import_source(REAL / "ptbxl-zscored", tmp_path / "z", options=SourceOptions(records="6005"))
    import_source(REAL / "cinc2021-sample", tmp_path / "mv", options=SourceOptions(records="HR06005"))
    zscored, signal_mv = (open_code(tmp_path / name).read([0])[0, 48:4048] for name in ("z", "mv"))
    band = scipy.signal.butter(4, (0.5, 40), "bandpass", fs=400, output="sos")  # what was done to the z-scored set
    filtered = scipy.signal.sosfiltfilt(band, signal_mv, axis=0)
    for k in range(12):
        assert np.corrcoef(zscored[:, k], filtered[:, k])[0, 1] > 0.999


@needs_real
def test_real_annotations_without_signals_are_not_imported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"827 annotated exams.*but no signals"):
        import_source(REAL / "code-test-annotations", tmp_path / "code")
    assert not list(tmp_path.iterdir())
