"""CPSC 2018 as its organisers distribute it: one MATLAB struct `ECG` per record, classes 1 to 9 in `REFERENCE.csv`.

http://2018.icbeb.org/Challenge.html: 6,877 records of 6 to 144 s, 12 leads, 500 Hz, mV. The copy in WFDB form belongs
to the CinC challenges.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.conventions import LEADS
from ecgscale.data.sources.matlab_struct import Value, read_struct
from ecgscale.data.sources.source import RecordFiles, Recording, Refused, SourceOptions
from ecgscale.data.sources.vocabulary import CPSC_CLASSES, clean_age, clean_sex, exam_ids
from ecgscale.data.sources.wfdb_table import lines, read_csv
from ecgscale.data.wfdb_records import GIT_LFS
from ecgscale.errors import DataError

REFERENCE = "REFERENCE.csv"
_LABELS = ("First_label", "Second_label", "Third_label")
_FS_HZ = 500.0


@dataclass(kw_only=True, eq=False)
class Cpsc(RecordFiles):
    """The records of `REFERENCE.csv`; `labels` holds the classes (1 to 9) of each."""

    folder: Path
    names: Sequence[str]
    paths: Sequence[str]
    ids: Sequence[int]
    labels: Sequence[frozenset[int]]
    refused: Sequence[Refused] = ()
    kind: str = "cpsc"
    changed: Sequence[str] = ("patient unknown: every record counts as its own patient",)

    def recording(self, k: int) -> Recording:
        fields = _fields(self.folder / self.paths[k])
        signal = np.asarray(fields["data"])
        if signal.ndim != 2 or signal.shape[0] != len(LEADS) or signal.shape[1] == 0 or signal.dtype.kind not in "iuf":
            size = " × ".join(map(str, signal.shape))
            raise DataError(f"its data is {size or 'text'}, not 12 leads × samples")
        with np.errstate(over="ignore"):  # damaged numbers become infinite, which the import refuses by name
            signal_mv = np.ascontiguousarray(signal.T, dtype=np.float32)
        row = {
            "exam_id": self.ids[k],
            "patient_id": self.ids[k],
            "age": clean_age(_scalar(fields.get("age"))),
            "is_male": clean_sex(_scalar(fields.get("sex"))),
            **{name: number in self.labels[k] for number, name in enumerate(CPSC_CLASSES, start=1)},
            "record": self.names[k],
        }
        return Recording(self.names[k], signal_mv, LEADS, _FS_HZ, row)


def looks_like_cpsc(folder: Path) -> bool:
    """Whether a `REFERENCE.csv` of CPSC 2018 is in the folder or in one of its folders."""
    return any(_is_reference(path) for path in _references(folder))


def open_cpsc(folder: Path, options: SourceOptions) -> Cpsc:
    """Opens the records that `REFERENCE.csv` lists, wherever below the folder their `.mat` files are.

    Raises:
        DataError: There is no `REFERENCE.csv`, or it is not one of CPSC 2018.
    """
    references = _references(folder)
    if not references:
        raise DataError(f"{folder}: no {REFERENCE}; get it from http://2018.icbeb.org/Challenge.html")
    table = pd.concat([read_csv(path, ("Recording", *_LABELS)) for path in references]).drop_duplicates()
    files = {path.stem: path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.mat"))}
    by_name: dict[str, list[Mapping[Hashable, Any]]] = {}
    for line in lines(table):
        by_name.setdefault(str(line["Recording"]).strip(), []).append(line)
    ids = dict(zip(by_name, exam_ids(list(by_name)), strict=True))
    labels, refused = {}, []
    for name, found in by_name.items():
        if not fnmatchcase(name, options.records):
            continue
        try:
            labels[name] = _usable(name, found, files)
        except DataError as error:
            refused.append(Refused(name, str(error)))
    unlisted = [x for x in files if x not in by_name and fnmatchcase(x, options.records)]
    return Cpsc(
        folder=folder,
        names=list(labels),
        paths=[files[name] for name in labels],
        ids=[ids[name] for name in labels],
        labels=list(labels.values()),
        refused=[*refused, *(Refused(name, f"{REFERENCE} has no line for it") for name in unlisted)],
    )


def _references(folder: Path) -> list[Path]:
    return sorted([*folder.glob(REFERENCE), *folder.glob(f"*/{REFERENCE}")])


def _is_reference(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"First_label" in file.read(200)
    except OSError:
        return False


def _usable(name: str, found: Sequence[Mapping[Hashable, Any]], files: Mapping[str, str]) -> frozenset[int]:
    """The classes of a record that has one line and one file."""
    if len(found) > 1:
        raise DataError(f"stands on {len(found)} different lines of {REFERENCE}; delete all but the right")
    if name not in files:
        raise DataError(f"no {name}.mat")
    stated = [found[0][column] for column in _LABELS if pd.notna(found[0][column]) and str(found[0][column]).strip()]
    numbers = pd.to_numeric(pd.Series(stated, dtype=object), errors="coerce")
    if not stated or not numbers.isin(range(1, len(CPSC_CLASSES) + 1)).all():
        raise DataError(f"{REFERENCE} gives it no class from 1 to 9: {', '.join(map(str, stated)) or 'empty'}")
    return frozenset(int(x) for x in numbers)


def _fields(path: Path) -> dict[str, Value]:
    """The fields of the struct `ECG` in a MATLAB file."""
    try:
        fields = read_struct(path, "ECG")
    except DataError as error:
        if path.is_file() and path.read_bytes()[: len(GIT_LFS)] == GIT_LFS:
            raise DataError(f"{path.name} is a Git LFS pointer, not the signal; run `git lfs pull`") from error
        raise DataError(f"{path.name} is not the MATLAB file of a record ({error}); get it again") from error
    if "data" not in fields:
        raise DataError(f"{path.name} has no field data in its struct ECG; get it again")
    return fields


def _scalar(value: Value | None) -> object:
    """A text, or the only number of an array; None for anything else."""
    if isinstance(value, np.ndarray):
        return value.flat[0] if value.size == 1 else None
    return value
