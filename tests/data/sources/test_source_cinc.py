"""The CinC challenges: both years' headers, every collection's names, labels from SNOMED codes, Frank leads by name."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from wfdb_folders import read_all, sine_mv, write_record

from ecgscale.conventions import LEADS
from ecgscale.data.sources.cinc import collection_of, looks_like_cinc, open_cinc
from ecgscale.data.sources.source import SourceOptions
from ecgscale.data.standard_form import in_standard_order

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)
OLD = {"form": "16+24", "gain": "1000/mV", "comments": "#Age: 63\n#Sex: Male\n#Dx: 426177001,164889003\n#Rx: Unknown\n"}
NEW = {"form": "16x1+24", "gain": "1000.0(0)/mV", "comments": "# Age: 300\n# Sex: Female\n# Dx: 713427006,164884008\n"}


def test_a_one_millivolt_sine_in_both_dialects(tmp_path: Path) -> None:
    folder = tmp_path / "challenge-2021-1.0.3"
    signal = sine_mv(2500)
    first = "E00271.mat 12 500 2500 05-May-2020 14:50:55"
    write_record(folder / "training/georgia/g1/E00271", signal, first=first, **OLD)
    first = "JS00001 12 500 2500 12-May-2020 12:33:59"
    write_record(folder / "WFDBRecords/01/010/JS00001", signal, first=first, **NEW)
    assert looks_like_cinc(folder)
    source = pickle.loads(pickle.dumps(open_cinc(folder, SourceOptions())))
    recordings, reasons = read_all(source)
    assert (source.kind, source.version, reasons, list(recordings)) == ("cinc", "1.0.3", {}, ["JS00001", "E00271"])
    for recording in recordings.values():
        np.testing.assert_allclose(recording.signal, signal, atol=0.501e-3)
        assert (tuple(recording.leads), recording.fs_hz) == (LEADS, 500)
    new, old = (x.row for x in recordings.values())
    assert (old["exam_id"], old["patient_id"], old["age"], old["is_male"]) == (271, 271, 63.0, True)
    assert (new["exam_id"], new["age"], new["is_male"]) == (1, 90.0, False)
    assert [x for x in old if old[x] is True and x != "is_male"] == ["SB", "AF"]
    assert [x for x in new if new[x] is True and x != "is_male"] == ["RBBB", "PVC"]
    assert (old["dx"], old["collection"], new["collection"]) == ("426177001;164889003", "georgia", "chapman-shaoxing")


def test_collections_by_the_names_of_their_records() -> None:
    names = ("A0001", "Q3581", "I0001", "S0001", "HR00001", "g1/E00001", "JS10646", "JS10647", "mine", "X1")
    assert [collection_of(x) for x in names] == [
        *("cpsc", "cpsc-extra", "incart", "ptb", "ptbxl", "georgia", "chapman-shaoxing", "ningbo", "", "")
    ]


def test_frank_leads_and_other_rates(tmp_path: Path) -> None:
    """PTB has 15 signals at 1000 Hz with lower-case names, INCART 30 minutes at 257 Hz."""
    frank = np.random.default_rng(0).normal(size=(3000, 3))
    leads = [*(x.lower() for x in LEADS), "vx", "vy", "vz"]
    write_record(tmp_path / "ptb/S0001", np.hstack([sine_mv(3000, 1000), frank]), fs_hz=1000, leads=leads, **OLD)
    write_record(tmp_path / "incart/I0001", sine_mv(2570, 257), fs_hz=257, **OLD)
    source = open_cinc(tmp_path, SourceOptions())
    recordings, _ = read_all(source)
    assert {name: x.fs_hz for name, x in recordings.items()} == {"I0001": 257, "S0001": 1000}
    ptb = recordings["S0001"]
    np.testing.assert_allclose(in_standard_order(ptb.signal, ptb.leads), sine_mv(3000, 1000), atol=0.501e-3)
    assert "several records in incart, ptb" in source.advice[0]


def test_records_that_cannot_be_used(tmp_path: Path) -> None:
    write_record(tmp_path / "A0001", sine_mv(), **OLD)
    for name, comments in {"A0002": "#Age: 3\n", "A0003": "#Dx: Unknown\n", "A0004": "#Dx:\n"}.items():
        write_record(tmp_path / name, sine_mv(), **(OLD | {"comments": comments}))
    write_record(tmp_path / "A0005", sine_mv(), **OLD)
    (tmp_path / "A0005.mat").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 120024\n")
    (tmp_path / "A0006.hea").write_bytes(bytes(range(256)))
    recordings, reasons = read_all(open_cinc(tmp_path, SourceOptions()))
    assert list(recordings) == ["A0001"]
    assert reasons.keys() == {"A0002", "A0003", "A0004", "A0005", "A0006"}
    assert reasons["A0002"] == "its header has no '#Dx:' line with SNOMED codes"
    assert reasons["A0003"] == "its '#Dx:' line holds no SNOMED code: 'Unknown'"
    assert "A0005.mat is a Git LFS pointer" in reasons["A0005"]


def test_names_and_ids_do_not_depend_on_what_is_asked_for(tmp_path: Path) -> None:
    for path in ("2020/E0001", "2020/HR0002", "2021/HR0001"):
        write_record(tmp_path / path, sine_mv(), **OLD)
    everything = open_cinc(tmp_path, SourceOptions())
    some = open_cinc(tmp_path, SourceOptions(records="HR*"))
    assert (everything.names, everything.ids) == (["E0001", "HR0002", "HR0001"], [1, 3, 2])  # E0001 and HR0001 clash
    assert (some.names, some.ids) == (["HR0002", "HR0001"], [3, 2])
    write_record(tmp_path / "copy/E0001", sine_mv(), **OLD)
    both = open_cinc(tmp_path, SourceOptions())
    assert both.names == ["2020/E0001", "2020/HR0002", "2021/HR0001", "copy/E0001"]
    assert len(read_all(both)[0]) == 4
    assert not looks_like_cinc(tmp_path / "nowhere")


@needs_real
def test_real_sample() -> None:
    source = open_cinc(REAL / "cinc2021-sample", SourceOptions())
    recordings, reasons = read_all(source)
    assert (len(recordings), reasons) == (87, {})
    rows = [x.row for x in recordings.values()]
    assert sorted({row["collection"] for row in rows}) == ["georgia", "ptbxl"]
    assert [sum(row["collection"] == x for row in rows) for x in ("georgia", "ptbxl")] == [60, 27]
    assert sum(row["is_male"] for row in rows) == 39
    assert (min(row["age"] for row in rows), max(row["age"] for row in rows)) == (9, 88)
    assert recordings["E00271"].row["exam_id"] == 271 and recordings["E00271"].row["RBBB"]
    assert all(x.signal.shape == (5000, 12) for x in recordings.values())
