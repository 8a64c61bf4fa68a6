"""What can be checked: a CODE-format folder or a source that nobody has imported yet, read piece by piece as it is.

A subject hands out signals in standard lead order at their own rate and length, the rows of the table that belong to
them, and what its files tell before any signal is read. It judges no signal.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import LEADS
from ecgscale.data.code_format import CodeFolder
from ecgscale.data.findings import Finding
from ecgscale.data.measurement import Signal
from ecgscale.data.sources.source import Recording, Refused, Source, Unit
from ecgscale.data.standard_form import in_standard_order, lead_name
from ecgscale.errors import DataError

_RECORDS_PER_PIECE = 64
"""20 MB of 10 s at 500 Hz; a piece is all that is in memory at once."""

_KEPT_COLUMNS = ("exam_id", "patient_id", "age", "is_male", "split", "strat_fold", "record")
"""Columns of the exam table that the check looks at; labels come on top."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A few records. `keys` are their places in the subject, `exams` has one row and `signals` one array for each."""

    keys: NDArray[np.int64]
    exams: pd.DataFrame
    signals: Sequence[Signal]
    fs_hz: Sequence[float]
    refused: Sequence[Refused] = ()


class Subject(ABC):
    """A collection under examination.

    Attributes:
        name: The folder's.
        kind: "code", or the kind of the source.
        unit: Of its signals.
        mv_per_unit: What one stored unit is in mV; already applied.
        n_records: How many records `pieces` goes through, refused ones included.
        refused: Records that are known to be unusable before; `pieces` leaves them out.
        release_scale: Whether the stored unit is known from the CODE releases only: nothing in the files names it.
    """

    name: str
    kind: str
    unit: Unit = "mV"
    mv_per_unit: float = 1.0
    n_records: int = 0
    refused: Sequence[Refused] = ()
    release_scale: bool = False

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """Every record once."""

    @abstractmethod
    def recording(self, key: int) -> tuple[Signal, float]:
        """One record again: (time, lead) and its rate."""

    def findings(self) -> list[Finding]:
        """What the files tell before a signal is read."""
        return []


class CodeSubject(Subject):
    """A CODE-format folder."""

    def __init__(self, folder: CodeFolder) -> None:
        self.folder = folder
        self.name, self.kind = folder.path.resolve().name, "code"
        self.unit, self.mv_per_unit = folder.unit, folder.mv_per_unit
        self.n_records = len(folder.exams)
        named = any(_names_unit(part.path, part.trace_name) for part in folder.parts)
        self.release_scale = folder.unit == "mV" and not named

    def pieces(self) -> Iterator[Piece]:
        exams = _kept(self.folder.exams)
        for part in self.folder.parts:
            done = 0
            try:
                for rows, signal in replace(self.folder, parts=(part,)).batches(_RECORDS_PER_PIECE):
                    done += len(rows)
                    yield Piece(rows, exams.iloc[rows], list(signal), [self.folder.fs_hz] * len(rows))
            except DataError as error:  # a damaged part: the others are still worth a look
                lost = int((self.folder.exams["trace_file"] == part.path.name).sum()) - done
                refused = [Refused(part.path.name, str(error))] * lost
                yield Piece(np.empty(0, np.int64), exams.iloc[:0], [], [], refused)

    def recording(self, key: int) -> tuple[Signal, float]:
        return self.folder.read([key])[0], self.folder.fs_hz

    def findings(self) -> list[Finding]:
        folder, findings = self.folder, []
        if folder.n_without_trace:
            detail = "They are in the table, but no HDF5 part has their signal; they are left out."
            findings.append(Finding("warning", "exams without a trace", detail, folder.n_without_trace))
        if folder.n_unlisted:
            detail = "They are in the HDF5 parts, but not in the table; they are left out."
            findings.append(Finding("info", "traces without an exam", detail, folder.n_unlisted))
        if folder.slow_random_access:
            detail = f"{folder.slow_random_access}. Never train from these files: `ecgscale data pack` first."
            findings.append(Finding("info", "slow to read in random order", detail))
        return findings


class SourceSubject(Subject):
    """A source in its own format.

    Args:
        source: The opened source.
        name: The folder's.
        release_scale: The factor that was applied, where it is known from the CODE releases only.
    """

    def __init__(self, source: Source, name: str | None = None, *, release_scale: float | None = None) -> None:
        self.source = source
        self.mv_per_unit = release_scale or 1.0
        self.release_scale = release_scale is not None and source.unit == "mV"
        self.name, self.kind, self.unit = name or source.kind, source.kind, source.unit
        self.n_records, self.refused = len(source.names), source.refused

    def pieces(self) -> Iterator[Piece]:
        for start in range(0, self.n_records, _RECORDS_PER_PIECE):
            stop = min(start + _RECORDS_PER_PIECE, self.n_records)
            keys, rows, signals, rates, refused = [], [], [], [], []
            for key, item in enumerate(self.source.read(start, stop), start):
                try:
                    signal = _twelve_leads(item)
                except DataError as error:
                    refused.append(Refused(self.source.names[key], str(error)))
                else:
                    assert isinstance(item, Recording)
                    keys.append(key)
                    rows.append({"record": item.record, **item.row})
                    signals.append(signal)
                    rates.append(item.fs_hz)
            exams = _kept(pd.DataFrame(rows, index=keys))
            yield Piece(np.array(keys, dtype=np.int64), exams, signals, rates, refused)

    def recording(self, key: int) -> tuple[Signal, float]:
        (item,) = self.source.read(key, key + 1)
        signal = _twelve_leads(item)
        assert isinstance(item, Recording)
        return signal, item.fs_hz

    def findings(self) -> list[Finding]:
        return [Finding("info", "known about this collection", f"{x}.") for x in self.source.advice]


class UnreadableSubject(Subject):
    """A folder with nothing to read: why is all there is to know."""

    def __init__(self, name: str, why: Finding) -> None:
        self.name, self.kind = name, "none"
        self._why = why

    def pieces(self) -> Iterator[Piece]:
        return iter(())

    def recording(self, key: int) -> tuple[Signal, float]:
        raise DataError(f"{self.name}: has no record {key}")

    def findings(self) -> list[Finding]:
        return [self._why]


def _twelve_leads(item: Recording | Refused) -> Signal:
    """(time, lead) in standard order, NaN included; only leads that the record lacks are computed."""
    if isinstance(item, Refused):
        raise DataError(item.reason)
    names = [lead_name(name) for name in item.leads]
    if all(names.count(lead) == 1 for lead in LEADS):
        return item.signal[:, [names.index(lead) for lead in LEADS]]
    return in_standard_order(item.signal, item.leads)


def _kept(exams: pd.DataFrame) -> pd.DataFrame:
    """The columns that the check needs, in types that do not depend on which records a piece holds."""
    kept = exams[[x for x in exams.columns if x in _KEPT_COLUMNS or exams[x].dtype == bool]]
    unknown: dict[str, Any] = {"patient_id": exams.get("exam_id"), "age": np.nan, "is_male": pd.NA}
    kept = kept.assign(**{name: value for name, value in unknown.items() if name not in kept.columns})
    types = {"exam_id": "int64", "age": "float64", "is_male": "boolean", "split": "string", "strat_fold": "string"}
    return kept.astype({name: kind for name, kind in types.items() if name in kept.columns})


def _names_unit(path: Path, trace_name: str) -> bool:
    with h5py.File(path) as file:  # opened before without complaint
        return "mv_per_unit" in file[trace_name].attrs
