"""Puts the finished blocks of an import together to the parts of the new folder, in order, without decompressing them.

Every part that is complete is journaled, and the blocks it was made from are deleted; an import that is started again
opens the journals and goes on behind the last complete part. Records that repeat another one are refused here.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ecgscale.data.code_format import RECORDS_PER_PART
from ecgscale.data.import_blocks import (
    Conversion,
    Entry,
    building_name,
    delete_block,
    disk_error,
    read_block,
    read_journal,
    strict_error,
    write_journal,
)
from ecgscale.data.sources.source import Refused
from ecgscale.data.trace_part import Chunk, PartWriter
from ecgscale.errors import DataError


class RepeatedRecord(DataError):
    """A strict import met a record that repeats another."""


class Parts:
    """The parts of a new folder, complete up to (not including) record `next_k`.

    Args:
        conversion: What the blocks come from.
        folder: Where the parts are put.
        journals: Where their journals are put.
    """

    def __init__(self, conversion: Conversion, folder: Path, journals: Path) -> None:
        self.next_k = 0
        self.tables: list[pd.DataFrame] = []
        self.refused: list[Refused] = []
        self._conversion = conversion
        self._folder, self._journals = folder, journals
        self._part: PartWriter | None = None
        self._entries: list[Entry] = []  # since the last complete part
        self._first_with_id: dict[int, int] = {}
        self._first_with_signal: dict[bytes, int] = {}

    def resume(self) -> None:
        """Takes over the parts that an interrupted import completed."""
        while self._path.is_file() and (found := read_journal(self._journal)):
            self._entries, self.next_k = found
            for entry in self._entries:
                self._seen_before(entry)
            self._account()

    def add(self, block: int) -> None:
        """Appends the records of a finished block, which must be the next.

        Raises:
            DataError: The disk is full.
            RepeatedRecord: In a strict import, a record repeats another.
        """
        entries, chunks = read_block(self._conversion.folder, block)
        left = iter(chunks)
        ready: list[tuple[int, Chunk]] = []
        try:
            for entry in entries:
                chunk = next(left) if entry.row is not None else None
                if entry.k < self.next_k:
                    continue  # in a complete part already
                entry = self._unless_repeated(entry)
                self._entries.append(entry)
                self.next_k = entry.k + 1
                if entry.row is not None and chunk is not None:
                    ready.append((int(entry.row["exam_id"]), chunk))
                if self._n_open + len(ready) == RECORDS_PER_PART:
                    self._append(ready)
                    self._complete()
                    ready = []
            self._append(ready)
        except OSError as error:
            self.abandon()
            raise disk_error(self._conversion.out, error) from error

    def finish(self) -> None:
        """Completes the last part."""
        try:
            if self._part is not None:
                self._complete()
        except OSError as error:
            self.abandon()
            raise disk_error(self._conversion.out, error) from error
        self._account()  # what was refused behind the last part

    def abandon(self) -> None:
        """Deletes the part that is not complete; its blocks are still there."""
        if self._part is not None:
            self._part.abandon()
            self._part = None

    @property
    def _path(self) -> Path:
        return self._folder / f"exams_part{len(self.tables)}.hdf5"

    @property
    def _journal(self) -> Path:
        return self._journals / f"exams_part{len(self.tables)}.json"

    @property
    def _n_open(self) -> int:
        return 0 if self._part is None else len(self._part)

    def _append(self, records: list[tuple[int, Chunk]]) -> None:
        if not records:
            return
        if self._part is None:
            self._part = PartWriter(building_name(self._journals / self._path.name), self._conversion.source.unit)
        ids, chunks = zip(*records, strict=True)
        self._part.append(ids, chunks)

    def _complete(self) -> None:
        assert self._part is not None
        self._part.close()
        os.replace(self._part.path, self._path)
        self._part = None
        write_journal(self._journal, self._entries, self.next_k)
        first = self._entries[0].k // self._conversion.size
        self._account()
        for block in range(first, self.next_k // self._conversion.size):
            delete_block(self._conversion.folder, block)

    def _account(self) -> None:
        """Moves the entries since the last complete part to where they are counted."""
        names = self._conversion.source.names
        self.refused += [Refused(names[entry.k], entry.reason) for entry in self._entries if entry.reason]
        rows = [entry.row for entry in self._entries if entry.row is not None]
        if rows:
            self.tables.append(pd.DataFrame(rows).assign(trace_file=self._path.name))
        self._entries = []

    def _unless_repeated(self, entry: Entry) -> Entry:
        if not (reason := self._seen_before(entry)):
            return entry
        if self._conversion.strict:
            raise RepeatedRecord(*strict_error(self._conversion.source.names[entry.k], reason).args)
        return replace(entry, row=None, digest="", reason=reason)

    def _seen_before(self, entry: Entry) -> str:
        """Remembers an accepted record; or says which other one it repeats."""
        if entry.row is None:
            return ""
        names = self._conversion.source.names
        exam_id, digest = int(entry.row["exam_id"]), bytes.fromhex(entry.digest)
        if (first := self._first_with_signal.get(digest, entry.k)) != entry.k:
            return f"its signal is identical to that of {names[first]}"
        if (first := self._first_with_id.get(exam_id, entry.k)) != entry.k:
            return f"its exam_id {exam_id} is that of {names[first]} as well"
        self._first_with_signal[digest] = self._first_with_id[exam_id] = entry.k
        return ""
