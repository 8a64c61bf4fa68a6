"""A small folder of every kind of source, with signals that are known: sines of 1 Hz, of 1 mV in lead I.

`FOLDERS` writes them. Every entry says what its records are and which files belong to one record alone, so that a test
can tell whom a damaged file may concern.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
from sources.wfdb_folders import UPPER_CASE_LEADS, write_record

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.sources.code_positional import CODE_TEST_LEADS
from ecgscale.data.sources.source import ArrayLayout, SourceOptions

N_RECORDS = 3
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", *LEADS[6:])
CODE_SPELLING = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", *LEADS[6:])

STATEMENTS = """\
,description,diagnostic,form,rhythm,diagnostic_class
NORM,normal ECG,1.0,,,NORM
1AVB,first degree AV block,1.0,,,CD
CRBBB,complete right bundle branch block,1.0,,,CD
CLBBB,complete left bundle branch block,1.0,,,CD
SR,sinus rhythm,,,1.0,
AFIB,atrial fibrillation,,,1.0,
STACH,sinus tachycardia,,,1.0,
SBRAD,sinus bradycardia,,,1.0,
"""


@dataclass(frozen=True)
class Written:
    """A folder of `N_RECORDS` records.

    Attributes:
        kind: Of the source, as `KINDS` calls it.
        ids: The exam_id of record k, whose signal is `signal(k)`.
        names: The name of record k in messages.
        fs_hz: Sampling rate.
        n: Samples per record.
        coarse_mv: Rounding step of the stored signal.
        own: For record k, the files that hold nothing else, relative to the folder.
        by_line: Which signal an exam_id has depends on the table: on a line's place or path, on all its names.
        options: What a user says about such a folder.
    """

    kind: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    fs_hz: float
    n: int
    coarse_mv: float = 1e-3
    own: tuple[tuple[str, ...], ...] = ((),) * N_RECORDS
    by_line: bool = False
    options: SourceOptions = field(default_factory=SourceOptions)

    def signal(self, k: int) -> np.ndarray:
        """(time, lead) in mV (or z-scores), leads in the standard order."""
        return np.sin(2 * np.pi * np.arange(self.n) / self.fs_hz)[:, None] * self.sizes(k)

    def sizes(self, k: int) -> np.ndarray:
        """The amplitude of every lead: 1 mV in I, 0.75 mV in II, and what follows from them."""
        return np.array([1, 0.75, -0.25, -0.875, 0.625, 0.25, *np.random.default_rng(k).uniform(0.2, 2.0, 6)])


def write_ptbxl(folder: Path) -> Written:
    folder.mkdir()
    (folder / "scp_statements.csv").write_text(STATEMENTS, encoding="utf-8")
    stems = tuple(f"records500/00000/{k:05}_hr" for k in (1, 2, 3))
    lines = ["ecg_id,patient_id,age,sex,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"]
    for k, stem in enumerate(stems, start=1):
        codes = "\"{'NORM': 100.0, 'SR': 0.0}\""
        lines.append(f"{k},10{k}.0,5{k}.0,1,1984-11-0{k} 09:17:34,sinusrhythmus,{codes},{k},,{stem}")
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = Written("ptbxl", (1, 2, 3), ("1", "2", "3"), 500, 2111, own=pairs(stems, "dat"), by_line=True)
    for k, stem in enumerate(stems):
        write_record(folder / stem, found.signal(k), leads=UPPER_CASE_LEADS)
    return found


def write_mimic(folder: Path) -> Written:
    folder.mkdir()
    studies = (40689238, 44458630, 45090959)
    stems = tuple(f"files/p1000/p1000003{k}/s{x}/{x}" for k, x in enumerate(studies))
    found = Written("mimic", studies, tuple(map(str, studies)), 500, 2111, 1 / 200, pairs(stems, "dat"), True)
    lines = ["subject_id,study_id,file_name,ecg_time,path"]
    order = [LEADS.index(lead) for lead in MIMIC_LEADS]
    for k, stem in enumerate(stems):
        lines.append(f"1000003{k},{studies[k]},{studies[k]},2180-07-2{k} 08:44:00,{stem}")
        signal = found.signal(k)[:, order]
        write_record(folder / stem, signal, leads=MIMIC_LEADS, gain="200.0(0)/mV", per_mv=200.0)
    (folder / "record_list.csv").write_text("\n".join(lines) + "\n")
    return found


def write_ludb(folder: Path) -> Written:
    stems = tuple(f"data/{k}" for k in (1, 2, 3))
    found = Written("ludb", (1, 2, 3), ("1", "2", "3"), 500, 2111, own=pairs(stems, "dat"))
    for k, stem in enumerate(stems):
        gain = f"{1716 + k}(6)/mV"  # wrong, and to be ignored
        write_record(folder / stem, found.signal(k), gain=gain, leads=[lead.lower() for lead in LEADS])
    lines = ["id,sex,age,rhythm,conduction", "1,F,51,Sinus bradycardia,", "2,M,>89,Atrial fibrillation,", "3,M,40,,"]
    (folder / "labels_tidy.csv").write_text("\n".join(lines) + "\n")
    return found


def write_cpsc(folder: Path) -> Written:
    folder.mkdir()
    names = ("A0001", "A0002", "A0003")
    files = tuple((f"{name}.mat",) for name in names)
    found = Written("cpsc", (1, 2, 3), names, 500, 3000, 0.0, files, True)
    lines = ["Recording,First_label,Second_label,Third_label", "A0001,5,,", "A0002,1,,", "A0003,2,5,8"]
    (folder / "REFERENCE.csv").write_text("\n".join(lines) + "\n")
    for k, name in enumerate(names):
        struct = {"sex": ("Male", "Female", "Unknown")[k], "age": 50.0 + k, "data": found.signal(k).T}
        scipy.io.savemat(folder / f"{name}.mat", {"ECG": struct}, do_compression=k < 2)
    return found


def write_cinc(folder: Path) -> Written:
    stems = ("g1/E00271", "g1/E00272", "WFDBRecords/01/JS00003")
    names = tuple(stem.rpartition("/")[2] for stem in stems)
    found = Written("cinc", (271, 272, 3), names, 500, 2111, own=pairs(stems, "mat"))
    for k, stem in enumerate(stems):
        comments = f"#Age: {60 + k}\n#Sex: Male\n#Dx: 426177001,164889003\n"
        form, gain = ("16+24", "1000/mV") if k < 2 else ("16x1+24", "1000.0(0)/mV")
        write_record(folder / stem, found.signal(k), form=form, gain=gain, comments=comments)
    return found


def write_code_wfdb(folder: Path) -> Written:
    ids = (120001, 120002, 120003)
    stems = tuple(f"S0120000/TNMG{x}_N1" for x in ids)
    found = Written("code-wfdb", ids, tuple(map(str, ids)), 300, 1111, 1 / 200, pairs(stems, "mat"))
    for k, stem in enumerate(stems):
        write_record(
            folder / stem,
            found.signal(k),
            fs_hz=300,
            leads=CODE_SPELLING,
            form="16+24",
            gain="200/mV",
            per_mv=200.0,
        )
    lines = ["id_exam,id_patient,age,sex,date_exam,1dAVb,RBBB,LBBB,SB,AF,ST"]
    lines += [f"{x},{50 + k},{60 + k},{'MFM'[k]},2015-01-0{k + 1},0,0,0,0,{k % 2},0" for k, x in enumerate(ids)]
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    return found


def write_code(folder: Path) -> Written:
    """CODE-15 %: two exams in a plain part, one in a part that is compressed exam by exam."""
    return _write_release(folder, zipped=False)


def write_code_zip(folder: Path) -> Written:
    """CODE-15 % with its second part still in its zip."""
    return _write_release(folder, zipped=True)


def _write_release(folder: Path, *, zipped: bool) -> Written:
    folder.mkdir()
    found = Written("code", (11, 12, 13), ("11", "12", "13"), 400, 4000, 0.0)
    write_part(folder / "exams_part0.hdf5", [found.signal(0), found.signal(1)], [11, 12])
    second = folder / "exams_part1.hdf5"
    write_part(second, [found.signal(2)], [13], chunks=(1, 4096, 12), compression="gzip")
    if zipped:
        with zipfile.ZipFile(second.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(second, second.name)
        second.unlink()
    table = exam_table(found.ids)
    table.assign(trace_file=["exams_part0.hdf5"] * 2 + ["exams_part1.hdf5"]).to_csv(folder / "exams.csv", index=False)
    return found


def write_sami_trop(folder: Path) -> Written:
    folder.mkdir()
    found = Written("sami-trop", (9, 3, 7), ("9", "3", "7"), 400, 4000, 0.0, by_line=True)
    write_part(folder / "exams.hdf5", [found.signal(k) for k in range(N_RECORDS)])
    exam_table(found.ids).drop(columns=list(CODE_LABELS)).to_csv(folder / "exams.csv", index=False)
    return found


def write_code_test(folder: Path) -> Written:
    (folder / "data" / "annotations").mkdir(parents=True)
    found = Written("code-test", (0, 1, 2), ("0", "1", "2"), 400, 4000, 0.0, by_line=True)
    order = [LEADS.index(lead) for lead in CODE_TEST_LEADS]
    tracings = [found.signal(k)[:, order] for k in range(N_RECORDS)]
    write_part(folder / "data" / "ecg_tracings.hdf5", tracings, dtype="f8")
    table = pd.DataFrame({"age": [30, 40, 50], "sex": ["M", "F", "M"]})
    table.to_csv(folder / "data" / "attributes.csv", index=False)
    gold = pd.DataFrame(0, index=range(N_RECORDS), columns=list(CODE_LABELS)).assign(AF=[0, 1, 0])
    gold.to_csv(folder / "data" / "annotations" / "gold_standard.csv", index=False)
    gold.to_csv(folder / "data" / "annotations" / "dnn.csv")
    return found


def write_zscored(folder: Path) -> Written:
    folder.mkdir()
    found = Written("ptbxl-zscored", (24, 43, 77), ("24", "43", "77"), 250, 2500)
    table = pd.DataFrame({"row": range(3), "ecg_id": found.ids, "split": ["train", "val", "train"]})
    table = table.assign(strat_fold=["1-8", "9", "1-8"], age=[41, 50, 60], is_male=[1, 0, 0], dx="NSR")
    table.assign(**dict.fromkeys(CODE_LABELS, 0)).to_csv(folder / "labels.csv", index=False)
    with h5py.File(folder / "set.h5", "w") as file:
        digital = np.stack([np.round(1000 * found.signal(k)) for k in range(N_RECORDS)]).astype("i2")
        traces = file.create_dataset("tracings", data=digital, chunks=(1, 2500, 12), compression="gzip")
        traces.attrs.update(scale=0.001, fs=250, leads=list(LEADS))
        file["exam_id"] = np.array(found.ids)
    return found


def write_npy(folder: Path) -> Written:
    """One npy array (record, time, lead) in µV and a table, line by line."""
    folder.mkdir()
    options = SourceOptions(layout=ArrayLayout(250, unit="uV"))
    found = Written("arrays", (5, 6, 7), ("5", "6", "7"), 250, 1000, by_line=True, options=options)
    np.save(folder / "x.npy", np.stack([np.round(1e3 * found.signal(k)) for k in range(N_RECORDS)]).astype("i2"))
    exam_table(found.ids).to_csv(folder / "table.csv", index=False)
    return found


def write_hdf5(folder: Path) -> Written:
    """One HDF5 array (lead, time, record) in V with ids."""
    folder.mkdir()
    layout = ArrayLayout(360, axes="lead,time,record", unit="V", dataset="ecg", ids="study")
    found = Written("arrays", (5, 6, 7), ("5", "6", "7"), 360, 1440, 0.0, options=SourceOptions(layout=layout))
    with h5py.File(folder / "x.h5", "w") as file:
        array = np.stack([found.signal(k) for k in range(N_RECORDS)]).transpose(2, 1, 0)
        file.create_dataset("ecg", data=1e-3 * array, chunks=(12, 1440, 1), compression="gzip")
        file["study"] = np.array(found.ids)
    exam_table(found.ids).to_csv(folder / "table.csv", index=False)
    return found


def write_npy_files(folder: Path) -> Written:
    """An npy file (lead, 1, time) for every record, 1000 Hz, 0.5 µV per step, limb leads I and II only."""
    folder.mkdir()
    leads = ("V6", "V5", "V4", "V3", "V2", "V1", "dII", "i")
    layout = ArrayLayout(1000, axes="lead,1,time", unit="digital", scale=0.0005, leads=leads)
    files = tuple((f"x{k}.npy",) for k in range(N_RECORDS))
    options = SourceOptions(layout=layout)
    names = tuple(f"x{k}" for k in range(N_RECORDS))
    found = Written("arrays", (5, 6, 7), names, 1000, 3000, 0.5e-3, files, options=options)
    order = [LEADS.index(x) for x in ("V6", "V5", "V4", "V3", "V2", "V1", "II", "I")]
    for k, (name,) in enumerate(files):
        np.save(folder / name, np.round(2000 * found.signal(k)[:, order].T[:, None]).astype("i4"))
    exam_table(found.ids).assign(record=names).to_csv(folder / "table.csv", index=False)
    return found


FOLDERS: dict[str, Callable[[Path], Written]] = {
    "ptbxl": write_ptbxl,
    "mimic": write_mimic,
    "ludb": write_ludb,
    "cpsc": write_cpsc,
    "ptbxl-zscored": write_zscored,
    "code-test": write_code_test,
    "sami-trop": write_sami_trop,
    "code": write_code,
    "code-zip": write_code_zip,
    "code-wfdb": write_code_wfdb,
    "cinc": write_cinc,
    "arrays-npy": write_npy,
    "arrays-hdf5": write_hdf5,
    "arrays-files": write_npy_files,
}


def pairs(stems: tuple[str, ...], ending: str) -> tuple[tuple[str, ...], ...]:
    """The header and the signal file of every WFDB record."""
    return tuple((f"{stem}.hea", f"{stem}.{ending}") for stem in stems)


def exam_table(ids: tuple[int, ...]) -> pd.DataFrame:
    table = pd.DataFrame({"exam_id": ids, "patient_id": [x + 100 for x in ids], "age": [50, 60, 70]})
    table = table.assign(is_male=[True, False, True], **dict.fromkeys(CODE_LABELS, False))
    return table.assign(AF=[False, True, False], death=[False, True, False], timey=[1.5, 2.5, 3.5])


def write_part(
    path: Path, signals: list[np.ndarray], ids: list[int] | None = None, dtype: str = "f4", **storage: object
) -> None:
    """An HDF5 part of the CODE family: 4096 samples, 2 × mV; with ids also the release's all-zero row too many."""
    stored = np.zeros((len(signals) + (ids is not None), 4096, 12))
    for k, signal in enumerate(signals):
        before = (4096 - len(signal)) // 2
        stored[k, before : before + len(signal)] = 2 * signal
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=stored.astype(dtype), **storage)
        if ids is not None:
            file["exam_id"] = np.array([*ids, 0])
