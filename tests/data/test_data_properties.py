"""The whole way of a signal: files of a source, import, CODE format, packed store, millivolts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from code_folders import FULL, write_folder
from hypothesis import example, given, settings
from hypothesis import strategies as st
from source_folders import FOLDERS, N_RECORDS
from sources.wfdb_folders import write_record

from ecgscale.conventions import CODE_N_SAMPLES, LEADS
from ecgscale.data.code_format import open_code
from ecgscale.data.importing import import_source
from ecgscale.data.packing import packed
from ecgscale.data.sources import KINDS, recognise
from ecgscale.data.sources.source import ArrayLayout, SourceOptions
from ecgscale.data.standard_form import LengthRule
from ecgscale.data.store import PackedStore, verify
from ecgscale.errors import DataError

CODE_ROUNDING_MV = 0.25e-3
PACK_ROUNDING_MV = 0.5e-3
FILTER_RIPPLE = 0.003  # of the amplitude: that of the low-pass scipy designs (Kaiser window, beta 5)


def stored_mv(store: PackedStore, row: int) -> np.ndarray:
    """(time, lead)."""
    return (store.read(np.array([row]))[0] * np.array(store.header.scale)[:, None]).T


# Units


@pytest.mark.parametrize("folder", [*FOLDERS, *(kind for kind in KINDS if kind not in FOLDERS and kind != "arrays")])
def test_a_one_millivolt_sine_survives_every_source(folder: str, tmp_path: Path) -> None:
    """A kind of source without a folder in `FOLDERS` fails here: nobody has shown that its units are right."""
    written = FOLDERS[folder](tmp_path / "in")
    assert recognise(tmp_path / "in") == written.kind
    summary = import_source(tmp_path / "in", tmp_path / "out", options=written.options, jobs=1)
    assert (summary.n_records, summary.refused) == (N_RECORDS, ())
    code = open_code(tmp_path / "out")
    store = packed(tmp_path / "out", FULL, source=code, jobs=1)
    assert store.header.unit == ("zscore" if folder == "ptbxl-zscored" else "mV")
    edge = 10 * max(1, -(-400 // round(written.fs_hz))) + 1
    for k, exam_id in enumerate(written.ids):
        row = int(np.flatnonzero(store.index["exam_id"] == exam_id)[0])
        start, stop = (int(store.index[name].iloc[row]) for name in ("start", "stop"))
        signal = stored_mv(store, row)[start:stop]
        # a sine begins with zeros in every lead, which count as padding
        recorded = np.flatnonzero(code.read([row])[0].any(axis=1))
        first = int(recorded[0]) - (CODE_N_SAMPLES - round(written.n * 400 / written.fs_hz)) // 2
        expected = np.sin(2 * np.pi * (first + np.arange(stop - start)) / 400)[:, None]
        fitted = np.linalg.lstsq(expected[edge:-edge], signal[edge:-edge], rcond=None)[0][0]
        assert abs(fitted[0] - 1) < FILTER_RIPPLE, f"lead I has {fitted[0]:.4f} mV"
        error = np.abs(signal - expected * written.sizes(k))[edge:-edge]
        ripple = 0.0 if written.fs_hz == 400 else 2 * FILTER_RIPPLE
        assert error.max() < CODE_ROUNDING_MV + PACK_ROUNDING_MV + 2 * written.coarse_mv + ripple


# Any record


@dataclass(frozen=True)
class Case:
    """A record as a user may have it. `unusable` says of some leads that they are "missing" or hold "NaN"."""

    form: str
    fs_hz: int
    n: int
    order: Sequence[str]
    spelling: str
    unusable: dict[str, str]
    rule: LengthRule
    age: float | None
    sex: str | None
    seed: int

    @property
    def stored(self) -> list[str]:
        """The signals in the order of the file; Frank's are none of the twelve."""
        return [lead for lead in self.order if self.unusable.get(lead) != "missing"]

    @property
    def n_at_400(self) -> int:
        return -(-self.n * 400 // self.fs_hz)

    @property
    def refusal(self) -> str:
        """What the import has to say, "" if it has to import the record."""
        limb_leads = [lead for lead in LEADS[:6] if lead not in self.unusable]
        lost = [x for x in LEADS if x in self.unusable and (x not in LEADS[:6] or len(limb_leads) < 2)]
        missing = [x for x in lost if self.unusable[x] == "missing"]
        if missing:
            return f"lead {', '.join(missing)} is missing and cannot be computed"
        if lost:
            return f"lead {', '.join(lost)} holds NaN"
        if self.n_at_400 > CODE_N_SAMPLES and self.rule.crop == "refuse":
            return "s is longer than 10.24 s"
        if self.n_at_400 < CODE_N_SAMPLES and self.rule.pad == "refuse":
            return "s is shorter than 10.24 s"
        return ""

    def spelled(self, lead: str) -> str:
        if self.spelling == "D" and lead in ("I", "II", "III"):
            return f"D{lead}"
        return {"upper": lead.upper(), "lower": lead.lower(), "lead": f"Lead {lead}"}.get(self.spelling, lead)

    def signal(self, t: np.ndarray) -> np.ndarray:
        """(time, lead) in mV: two slow sines per lead, limb leads after Einthoven and Goldberger."""
        rng = np.random.default_rng(self.seed)
        size, hz, phase = rng.uniform(0.2, 1.5, (2, 12)), rng.uniform(0.4, 6.0, (2, 12)), rng.uniform(0, 6, (2, 12))
        mv = sum(size[k] * np.sin(2 * np.pi * hz[k] * t[:, None] + phase[k]) for k in range(2))
        i, ii = mv[:, 0].copy(), mv[:, 1].copy()
        mv[:, 2:6] = np.stack([ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], axis=1)
        return mv


@st.composite
def cases(draw: st.DrawFn) -> Case:
    fs_hz = draw(st.sampled_from([100, 128, 250, 257, 360, 400, 500, 1000]))
    seconds = draw(st.one_of(st.floats(0.5, 10.24), st.floats(9, 12), st.floats(10.24, 144), st.just(10.24)))
    extra = draw(st.lists(st.sampled_from(["Vx", "Vy", "Vz"]), unique=True))
    likely = st.sampled_from([*LEADS[:6] * 4, *LEADS[6:]])
    return Case(
        form=draw(st.sampled_from(["wfdb", "npy", "hdf5"])),
        fs_hz=fs_hz,
        n=max(2, round(seconds * fs_hz)),
        order=draw(st.permutations([*LEADS, *extra])),
        spelling=draw(st.sampled_from(["", "upper", "lower", "lead", "D"])),
        unusable=draw(st.dictionaries(likely, st.sampled_from(["missing", "NaN"]), max_size=5)),
        rule=LengthRule(
            draw(st.sampled_from(["center", "start", "refuse"])), draw(st.sampled_from(["both", "end", "refuse"]))
        ),
        age=draw(st.one_of(st.none(), st.integers(0, 110).map(float))),
        sex=draw(st.sampled_from([None, "Male", "Female", "Unknown"])),
        seed=draw(st.integers(0, 2**20)),
    )


PER_MV = 4000
"""Steps of the integer form: ±8.2 mV."""


def write_case(case: Case, folder: Path) -> SourceOptions:
    """Writes the record, E00007, and says what a user would."""
    of_lead = dict(zip(LEADS, case.signal(np.arange(case.n) / case.fs_hz).T, strict=True))
    frank = np.sin(np.arange(case.n))
    signal = np.stack([of_lead.get(lead, frank) for lead in case.stored], axis=1)
    for k, lead in enumerate(case.stored):
        if case.unusable.get(lead) == "NaN":
            signal[case.n // 3 : case.n // 3 + 1, k] = np.nan
    leads = [case.spelled(lead) for lead in case.stored]
    folder.mkdir()
    if case.form == "wfdb":
        told = {"Age": None if case.age is None else f"{case.age:g}", "Sex": case.sex, "Dx": "426177001"}
        comments = "".join(f"# {name}: {value}\n" for name, value in told.items() if value is not None)
        gain = {"gain": f"{PER_MV}/mV", "per_mv": PER_MV, "form": "16+24"}
        write_record(folder / "E00007", signal, fs_hz=case.fs_hz, leads=leads, comments=comments, **gain)
        return SourceOptions()
    table = {"record": ["E00007"], "exam_id": [7], "age": [case.age], "sex": [case.sex]}
    known = {name: value for name, value in table.items() if value != [None] and value != ["Unknown"]}
    pd.DataFrame(known).to_csv(folder / "t.csv", index=False)
    if case.form == "npy":
        np.save(folder / "E00007.npy", signal.astype("f4"))
        return SourceOptions(layout=ArrayLayout(case.fs_hz, "time,lead", tuple(leads)))
    with h5py.File(folder / "E00007.hdf5", "w") as file:
        file["x"] = 1e3 * signal.T[:, None]
    return SourceOptions(layout=ArrayLayout(case.fs_hz, "lead,1,time", tuple(leads), "uV"))


def case_of(**changes: object) -> Case:
    whole = {"form": "wfdb", "fs_hz": 500, "n": 5000, "order": LEADS, "spelling": "", "unusable": {}}
    return Case(**{**whole, "rule": LengthRule(), "age": None, "sex": None, "seed": 1, **changes})  # type: ignore[arg-type]


@settings(deadline=None, max_examples=120, derandomize=True)
@given(case=cases())
@example(case=case_of(n=72_000))
@example(case=case_of(fs_hz=1000, n=144_000, rule=LengthRule(crop="start")))
@example(case=case_of(fs_hz=400, n=4096, rule=LengthRule("refuse", "refuse")))
@example(case=case_of(fs_hz=400, n=4097, rule=LengthRule("refuse", "refuse")))
@example(case=case_of(fs_hz=100, n=50, form="npy"))
@example(case=case_of(unusable=dict.fromkeys(("I", "III", "aVL", "aVF"), "missing"), form="hdf5"))
@example(case=case_of(unusable=dict.fromkeys(("I", "II", "III", "aVR", "aVF"), "NaN")))
def test_what_comes_out_is_the_signal_that_went_in(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("case")
    options = write_case(case, tmp_path / "in")
    if case.refusal:
        with pytest.raises(DataError) as caught:
            import_source(tmp_path / "in", tmp_path / "out", options=options, length=case.rule, jobs=1)
        assert "E00007: " in str(caught.value) and case.refusal in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]
        return
    import_source(tmp_path / "in", tmp_path / "out", options=options, length=case.rule, jobs=1)
    folder = open_code(tmp_path / "out")
    store = packed(tmp_path / "out", FULL, source=folder, jobs=1)
    compare_metadata(case, folder.exams)

    n = min(case.n_at_400, CODE_N_SAMPLES)
    spare = abs(CODE_N_SAMPLES - case.n_at_400)
    cut = spare // 2 if case.n_at_400 > CODE_N_SAMPLES and case.rule.crop == "center" else 0
    before = spare // 2 if case.n_at_400 < CODE_N_SAMPLES and case.rule.pad == "both" else 0
    code = folder.read([0])[0]
    expected = case.signal((np.arange(n) + cut) / 400)
    assert not code[:before].any() and not code[before + n :].any()
    start = (CODE_N_SAMPLES - n) // 2  # the store has every record in its middle
    assert store.index.loc[0, ["start", "stop"]].tolist() == [start, start + n]
    stored = stored_mv(store, 0)
    assert not stored[:start].any() and not stored[start + n :].any()

    ends = 10 * max(1, -(-400 // case.fs_hz)) + 1 if case.fs_hz != 400 else 0
    inner = slice(max(0, ends - cut), n - max(0, ends - (case.n_at_400 - cut - n)))
    file_rounding = 4 * 0.5 / PER_MV if case.form == "wfdb" else 1e-6 * 4  # a computed lead sums up to 4 of them
    ripple = 0 if case.fs_hz == 400 else FILTER_RIPPLE * 2 * 3.0  # two sines of up to 1.5 mV; limb leads are sums
    for found, rounding in (
        (code[before : before + n], CODE_ROUNDING_MV),
        (stored[start : start + n], CODE_ROUNDING_MV + PACK_ROUNDING_MV),
    ):
        error = np.abs(found - expected)[inner]
        assert error.max(initial=0) < rounding + file_rounding + ripple + 1e-6
    assert np.abs(stored[start : start + n] - code[before : before + n]).max() < 1e-3


def compare_metadata(case: Case, exams: pd.DataFrame) -> None:
    exam = exams.iloc[0]
    assert (len(exams), exam["exam_id"], exam["patient_id"]) == (1, 7, 7)
    assert np.isnan(exam["age"]) if case.age is None else exam["age"] == case.age
    known = {"Male": True, "Female": False}.get(case.sex or "")
    assert exam["is_male"] is pd.NA if known is None else exam["is_male"] == known


# mV in, pack, read


@st.composite
def signals_mv(draw: st.DrawFn) -> np.ndarray:
    """(4096, 12), finite, up to ±16 mV; its first and last samples are not zero, so all of it is the recorded part."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    what = draw(st.sampled_from(["noise", "walk", "extremes", "constant", "tiny"]))
    shape = (CODE_N_SAMPLES, 12)
    if what == "noise":
        signal = rng.uniform(-16, 16, shape)
    elif what == "walk":
        signal = rng.normal(size=shape).cumsum(axis=0)
        signal *= 16 / np.abs(signal).max()
    elif what == "extremes":
        signal = rng.choice([-16.0, 16.0], shape)
    elif what == "constant":
        signal = np.full(shape, rng.uniform(-16, 16, 12))
    else:
        signal = 1e-3 * rng.normal(size=shape)
    special = draw(st.lists(st.floats(-16, 16, width=32), max_size=20))
    signal[rng.integers(1, CODE_N_SAMPLES - 1, len(special)), rng.integers(0, 12, len(special))] = special
    signal[[0, -1], rng.integers(0, 12)] = draw(st.sampled_from([0.001, -16, 0.5, 16]))
    return signal.astype(np.float32)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(records=st.lists(signals_mv(), min_size=1, max_size=4))
def test_millivolts_in_are_millivolts_out(records: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_folder(tmp_path_factory.mktemp("round") / "P", records)
    store = packed(folder, FULL, jobs=1)
    verify(store)
    for k, record in enumerate(records):
        assert store.index.loc[k, ["start", "stop"]].tolist() == [0, CODE_N_SAMPLES]
        assert np.abs(stored_mv(store, k) - record.astype(np.float64)).max() < 1e-3
