"""Importers: public ECG collections in their own formats become a folder in CODE format, with labels and provenance.

A record that cannot be used is refused with its name and the reason, counted, and the rest goes on. Labels are mapped
to the six of CODE; what else a source says about a record stays in extra columns.
"""

import hashlib
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.code_format import CodeWriter, Signal, Unit, bad_records, open_code
from ecgscale.data.exams_table import TABLE_NAMES, some
from ecgscale.data.standard_form import in_standard_order, to_code_length, to_code_rate
from ecgscale.data.wfdb_records import read_record
from ecgscale.errors import DataError

Progress = Callable[[int], None]
"""Called with the number of records done since the last call."""

# SNOMED CT codes of the six CODE abnormalities, as in the CinC 2021 mapping (physionetchallenges/evaluation-2021):
# the bundle branch blocks have a general and a "complete" code; incomplete blocks are not CODE's classes.
SNOMED = {
    "1dAVb": ("270492004",),
    "RBBB": ("59118001", "713427006"),
    "LBBB": ("164909002", "733534002"),
    "SB": ("426177001",),
    "AF": ("164889003",),
    "ST": ("427084000",),
}

# LUDB's words: the column of its table and the entry in it.
LUDB_TERMS = {
    "1dAVb": ("conduction", "i degree av block"),
    "RBBB": ("conduction", "complete right bundle branch block"),
    "LBBB": ("conduction", "complete left bundle branch block"),
    "SB": ("rhythm", "sinus bradycardia"),
    "AF": ("rhythm", "atrial fibrillation"),
    "ST": ("rhythm", "sinus tachycardia"),
}

LUDB_DIGITAL_PER_MV = 1000.0
"""LUDB stores µV. Its header gains differ per lead and squeeze each to ±1; without them III = II - I holds exactly."""

# "Over 89" is written as 300 (PTB-XL) or >89 (LUDB). 90 is the smallest age that it can mean: our assumption.
_OVER_89, _AGE_OVER_89 = ("300", ">89"), 90.0
_BATCH = 256


@dataclass(frozen=True)
class Refused:
    """A record that was not imported, and why."""

    record: str
    reason: str


@dataclass(frozen=True)
class ImportSummary:
    """What `import_source` did. `labels` counts the positives of each CODE label."""

    kind: str
    out: Path
    n_records: int
    refused: tuple[Refused, ...]
    labels: Mapping[str, int]
    changed: tuple[str, ...]

    def describe(self) -> str:
        """A few lines for people; the refusals, grouped by reason, with up to five records each."""
        counts = ", ".join(f"{label} {n}" for label, n in self.labels.items())
        lines = [f"{self.out}: {self.n_records} records imported from {self.kind}, {len(self.refused)} refused"]
        lines += [f"  positives: {counts}", *(f"  changed: {change}" for change in self.changed)]
        by_reason: dict[str, list[str]] = {}
        for refused in self.refused:
            by_reason.setdefault(refused.reason, []).append(refused.record)
        lines += [f"  refused: {some(records)}: {reason}" for reason, records in by_reason.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True, eq=False)
class Recording:
    """One record of a source: `signal` (time, signal) in the source's unit, and its row of the exam table."""

    record: str
    signal: NDArray[np.float32]
    leads: Sequence[str]
    fs_hz: float
    row: Mapping[str, Any]


@dataclass(frozen=True)
class SourceRecords:
    """A source ready to be read: one function per record, called in its turn; a DataError refuses the record."""

    readers: Mapping[str, Callable[[], Recording]]
    changed: tuple[str, ...]
    unit: Unit = "mV"


@dataclass
class _Tally:
    """The running counts of one import."""

    refused: list[Refused] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CODE_LABELS, 0))
    seen: dict[bytes, str] = field(default_factory=dict)
    n_records: int = 0


def import_source(
    source: Path,
    out: Path,
    *,
    kind: str = "auto",
    records: str = "*",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportSummary:
    """Converts a source to CODE format: 400 Hz, 4096 samples, standard lead order, mV where the source has them.

    Args:
        source: The downloaded folder.
        out: The new folder.
        kind: One of `KINDS`, or "auto" to recognise it.
        records: Only records whose name matches this pattern, for example `E*` for the Georgia part of CinC 2021.
        overwrite: Replace `out` if it is a CODE-format folder already.
        progress: Told after every record.

    Returns:
        Counts and refusals, which are also in `out/provenance.json`.

    Raises:
        DataError: The source is not recognised, or no record of it can be used. Nothing is written then.
    """
    kind = _recognise(source) if kind == "auto" else kind
    if kind == "code":
        n = len(open_code(source, partial=True).exams)
        raise DataError(f"{source}: is in CODE format already ({n} exams); use it as it is, there is nothing to import")
    if kind not in KINDS:
        raise DataError(f"unknown kind of source {kind!r}; known: auto, code, {', '.join(KINDS)}")
    opened = KINDS[kind](source, records)
    if not opened.readers:
        raise DataError(f"{source}: no {kind} record matches {records!r}")
    tally = _Tally()
    with CodeWriter(out, unit=opened.unit, overwrite=overwrite) as writer:
        usable = _usable(opened, tally, progress or (lambda n: None))
        for batch in iter(lambda: list(itertools.islice(usable, _BATCH)), []):
            writer.append(pd.DataFrame([row for row, _ in batch]), np.stack([signal for _, signal in batch]))
        if tally.n_records == 0:
            first = tally.refused[0]
            raise DataError(f"{source}: all {len(tally.refused)} records were refused; {first.record}: {first.reason}")
        writer.provenance.update(_provenance(kind, source, records, opened, tally))
    return ImportSummary(kind, out, tally.n_records, tuple(tally.refused), tally.labels, opened.changed)


def clean_age(text: object) -> float:
    """An age in years from what sources write: `56`; `>89` and `300` are 90; `-1`, `Unknown` and nothing are NaN."""
    word = str(text).strip().removesuffix(".0")
    if word in _OVER_89:
        return _AGE_OVER_89
    try:
        age = float(word)
    except ValueError:
        return float("nan")
    return age if 0 <= age <= 120 else float("nan")


def clean_sex(text: object) -> bool | None:
    """True for male, False for female, None for unknown."""
    return {"m": True, "male": True, "f": False, "female": False}.get(str(text).strip().lower())


def _usable(opened: SourceRecords, tally: _Tally, progress: Progress) -> Iterator[tuple[dict[str, Any], Signal]]:
    """Table row and signal (4096, 12) of every record that can be used; counts and refuses on the way."""
    for name, read in opened.readers.items():
        try:
            recording = read()
            signal = _code_signal(recording, opened.unit)
            _refuse_repeated(signal, name, tally.seen)
        except DataError as error:
            tally.refused.append(Refused(name, str(error).removeprefix(f"{name}: ")))
        else:
            tally.n_records += 1
            for label in CODE_LABELS:
                tally.labels[label] += bool(recording.row[label])
            yield dict(recording.row), signal
        progress(1)


def _code_signal(recording: Recording, unit: Unit) -> Signal:
    signal = in_standard_order(recording.signal, recording.leads, derive=unit == "mV")
    signal = to_code_length(to_code_rate(signal, recording.fs_hz))
    if reason := bad_records(signal[None])[0]:
        raise DataError(f"signal is {reason}")
    return signal


def _refuse_repeated(signal: Signal, name: str, seen: dict[bytes, str]) -> None:
    first = seen.setdefault(hashlib.blake2b(signal.tobytes(), digest_size=16).digest(), name)
    if first != name:
        raise DataError(f"its signal is identical to that of {first}")


def _provenance(kind: str, source: Path, records: str, opened: SourceRecords, tally: _Tally) -> dict[str, Any]:
    return {
        "source": {"kind": kind, "folder": source.resolve().name, "records": records},
        "n_records_in_source": len(opened.readers),
        "n_imported": tally.n_records,
        "n_refused": len(tally.refused),
        "labels": tally.labels,
        "changed": [*opened.changed, "resampled to 400 Hz (polyphase); 4096 samples by central crop or zero padding"],
        "refused": [{"record": x.record, "reason": x.reason} for x in tally.refused],
    }


def _recognise(source: Path) -> str:
    """The kind of a source folder, by the files that only this kind has."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    parts = [*source.glob("*.hdf5"), *source.glob("*.h5")]
    if parts and any((source / name).is_file() for name in TABLE_NAMES):
        return "code"
    if parts and (source / "labels.csv").is_file():
        return "ptbxl-zscored"
    if (source / "labels_tidy.csv").is_file() and (source / "data").is_dir():
        return "ludb"
    if next(source.rglob("*.hea"), None) is not None:
        return "cinc"
    raise DataError(f"{source}: not recognised as any of code, {', '.join(KINDS)}; name the kind")


def _ptbxl_zscored(source: Path, records: str) -> SourceRecords:
    """PTB-XL, 0.5-40 Hz, z-scored per lead, int16 HDF5 beside `labels.csv`; folds 1-8 train, fold 9 held out."""
    labels = _read_labels(source / "labels.csv", ("ecg_id", "split", "strat_fold", "age", "is_male", *CODE_LABELS))
    file = next(iter(sorted([*source.glob("*.h5"), *source.glob("*.hdf5")])), None)
    if file is None:
        raise DataError(f"{source}: no *.h5 beside labels.csv")
    try:
        with h5py.File(file) as stored:
            traces, ids = stored["tracings"], stored["exam_id"][:]
            scale, fs_hz = float(traces.attrs["scale"]), float(traces.attrs["fs"])
            leads = [str(lead) for lead in traces.attrs["leads"]]
            digital = traces[:]  # 98 MB
    except (OSError, KeyError) as error:
        raise DataError(f"{file}: not the HDF5 of the z-scored PTB-XL set ({error}); get it again") from error
    row_of = {int(exam_id): row for row, exam_id in enumerate(ids)}

    def read(line: Mapping[Hashable, Any]) -> Recording:
        exam_id = int(line["ecg_id"])
        if exam_id not in row_of:
            raise DataError(f"no trace with exam_id {exam_id} in {file.name}")
        row = {
            "exam_id": exam_id,
            "patient_id": exam_id,
            "age": clean_age(line["age"]),
            "is_male": bool(line["is_male"]),
            **{label: bool(line[label]) for label in CODE_LABELS},
            "split": "train" if line["split"] == "train" else "test",
            "strat_fold": line["strat_fold"],
            "dx": line.get("dx"),
        }
        signal = digital[row_of[exam_id]] * np.float32(scale)
        return Recording(str(exam_id), signal, leads, fs_hz, row)

    readers = {
        str(line["ecg_id"]): partial(read, line)
        for line in labels.to_dict("records")
        if fnmatchcase(str(line["ecg_id"]), records)
    }
    changed = (
        "patient unknown: every record counts as its own patient (the folds keep patients apart)",
        "split: folds 1-8 are train, fold 9 (val) is the held-out test",
    )
    return SourceRecords(readers, changed, unit="zscore")


def _ludb(source: Path, records: str) -> SourceRecords:
    """LUDB: one record per person, WFDB with gains that must be ignored, labels in `labels_tidy.csv`."""
    labels = _read_labels(source / "labels_tidy.csv", ("id", "sex", "age", "rhythm", "conduction"))

    def read(line: Mapping[Hashable, Any]) -> Recording:
        path = source / "data" / f"{line['id']}.hea"
        if not path.is_file():
            raise DataError(f"no data/{path.name}")
        record = read_record(path, digital_per_mv=LUDB_DIGITAL_PER_MV)
        row = {
            "exam_id": int(line["id"]),
            "patient_id": int(line["id"]),
            "age": clean_age(line["age"]),
            "is_male": clean_sex(line["sex"]),
            **{label: term in _terms(line[column]) for label, (column, term) in LUDB_TERMS.items()},
            "rhythm": line["rhythm"],
            "conduction": line["conduction"],
        }
        return Recording(str(line["id"]), record.signal_mv, record.leads, record.header.fs_hz, row)

    readers = {
        str(line["id"]): partial(read, line)
        for line in labels.to_dict("records")
        if fnmatchcase(str(line["id"]), records)
    }
    changed = ("header gains ignored: digital samples are µV", "age '>89' set to 90")
    return SourceRecords(readers, changed)


def _cinc(source: Path, records: str) -> SourceRecords:
    """PhysioNet/CinC Challenge 2020 and 2021: WFDB in any subfolder; age, sex and SNOMED codes in the headers."""
    paths = {path.stem: path for path in sorted(source.rglob("*.hea")) if fnmatchcase(path.stem, records)}
    exam_ids = _numbers(list(paths))

    def read(name: str, path: Path) -> Recording:
        record = read_record(path)
        header = record.header
        codes = header.comment("Dx")
        if codes is None:
            raise DataError("its header has no '#Dx:' line with SNOMED codes")
        dx = [code.strip() for code in codes.split(",")]
        row = {
            "exam_id": exam_ids[name],
            "patient_id": exam_ids[name],
            "age": clean_age(header.comment("Age")),
            "is_male": clean_sex(header.comment("Sex")),
            **{label: any(code in dx for code in snomed) for label, snomed in SNOMED.items()},
            "record": name,
            "dx": ";".join(dx),
        }
        return Recording(name, record.signal_mv, record.leads, header.fs_hz, row)

    changed = (
        "patient unknown: every record counts as its own patient",
        "age 300 set to 90, ages below 0 or unknown left empty",
    )
    return SourceRecords({name: partial(read, name, path) for name, path in paths.items()}, changed)


KINDS: dict[str, Callable[[Path, str], SourceRecords]] = {
    "ptbxl-zscored": _ptbxl_zscored,
    "ludb": _ludb,
    "cinc": _cinc,
}
"""The kinds of source that can be imported. A new one is a function (folder, record pattern) -> SourceRecords."""


def _read_labels(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a csv: {error}") from error
    if missing := [name for name in columns if name not in table.columns]:
        raise DataError(f"{path}: no column {', '.join(missing)}")
    return table


def _terms(cell: object) -> set[str]:
    """The entries of a LUDB cell, which separates several by ' ; '."""
    return {term.strip().lower() for term in str(cell).split(";")}


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """A whole number for each record name: its digits where they tell all names apart, else its place in the order."""
    digits = ["".join(c for c in name if c.isdigit()) for name in names]
    if all(digits) and len({int(x) for x in digits}) == len(names):
        return {name: int(x) for name, x in zip(names, digits, strict=True)}
    return {name: k for k, name in enumerate(sorted(names), start=1)}
