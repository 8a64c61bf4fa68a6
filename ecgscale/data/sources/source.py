"""What every collection of ECGs looks like to the importer and to the check: named recordings, read in order.

One module beside this one per family of collections turns its files into a `Source`. Nothing here knows the CODE
format: a `Recording` keeps the leads, rate, length and unit that its collection has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecgscale.errors import DataError

Unit = Literal["mV", "zscore"]


@dataclass(frozen=True)
class Refused:
    """A record that can't be used, and why."""

    record: str
    reason: str


@dataclass(frozen=True, eq=False)
class Recording:
    """One record as its collection has it.

    Attributes:
        record: Its name in the collection.
        signal: (time, signal) in the source's unit.
        leads: The name of each signal, in any spelling.
        fs_hz: Sampling rate.
        row: Its row of the exam table: exam_id, patient_id, age, is_male, labels, whatever else is known.
    """

    record: str
    signal: NDArray[np.float32]
    leads: Sequence[str]
    fs_hz: float
    row: Mapping[str, Any]


@dataclass(frozen=True)
class ArrayLayout:
    """How plain HDF5 or npy arrays are to be read; everything that such files don't say themselves."""

    fs_hz: float
    axes: str = "record,time,lead"
    """The order of the array's axes."""
    leads: tuple[str, ...] = ()
    """The leads along their axis; empty for the standard twelve in standard order."""
    unit: str = "mV"
    """mV, uV, V, zscore or `digital` (with `scale`)."""
    scale: float = 1.0
    """Multiplies the stored numbers, which then are in `unit`."""
    dataset: str | None = None
    """HDF5: name of the array; by default the only one with three axes."""
    ids: str | None = None
    """HDF5: name of the array of exam ids; without it, row i of the array is line i of the table."""
    table: str | None = None
    """The csv beside the array, within the folder; by default the only one, or none."""


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about a source.

    Attributes:
        records: Only records whose name matches this pattern (fnmatch).
        mv_per_unit: Millivolts per stored unit, for the CODE family (0.5 unless said otherwise).
        as_declared: Read signals exactly as the files declare them, wrong gains included: what `check` looks at.
        layout: For plain arrays.
    """

    records: str = "*"
    mv_per_unit: float | None = None
    as_declared: bool = False
    layout: ArrayLayout | None = None


class Source(ABC):
    """An opened collection. Can be pickled: worker processes read from copies.

    Attributes:
        kind: Its name among `KINDS`.
        unit: Unit of every signal that `read` hands out.
        names: One unique name per record, in the order in which they are read.
        version: The release, where its files tell; else None.
        changed: What is done to its records on the way in, in words, for the provenance.
        refused: Records that are known to be unusable before any signal is read (no file, exam_id twice).
        advice: What a user should know about this collection, for `check` (in words); often empty.
    """

    kind: str
    unit: Unit = "mV"
    names: Sequence[str]
    version: str | None = None
    changed: Sequence[str] = ()
    refused: Sequence[Refused] = ()
    advice: Sequence[str] = ()

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[Recording | Refused]:
        """The records names[start:stop], each exactly once and in order; one that can't be read is refused."""


class RecordFiles(Source):
    """A source with a file of its own for every record."""

    def read(self, start: int, stop: int) -> Iterator[Recording | Refused]:
        for k in range(start, stop):
            try:
                yield self.recording(k)
            except DataError as error:
                yield Refused(self.names[k], str(error).removeprefix(f"{self.names[k]}: "))

    @abstractmethod
    def recording(self, k: int) -> Recording:
        """Record k.

        Raises:
            DataError: It can't be used; says why.
        """
