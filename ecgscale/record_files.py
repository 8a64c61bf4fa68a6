"""Files of one record each, parquet, published by rename; one that is no record is moved to quarantine, and said so."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ecgscale.errors import EcgscaleError
from ecgscale.records import SCHEMA_VERSION
from ecgscale.row_cache import RowCache, row_stamps
from ecgscale.spec_base import Spec

QUARANTINE = "quarantine"

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=Spec)

_FILE_OPTIONS: dict[str, Any] = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
"""None of these pays in a file of one row: without them it has a third of the bytes and is read in half the time."""


def publish(path: Path, record: Spec, schema: pa.Schema, may_publish: Callable[[], bool] = lambda: True) -> bool:
    """Writes one record; see `put_in_place`."""
    table = pa.Table.from_pylist([record.model_dump()], schema=schema)
    return put_in_place(path, lambda sink: pq.write_table(table, sink, **_FILE_OPTIONS), may_publish)


def put_in_place(path: Path, write: Callable[[BinaryIO], object], may_publish: Callable[[], bool]) -> bool:
    """Writes a file beside its place, syncs, then renames.

    Args:
        may_publish: asked right before the rename.

    Returns:
        False if it was not to be published, and then nothing is left of it.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{uuid.uuid4().hex[:12]}.tmp")
    try:
        with unfinished.open("wb") as sink:
            write(sink)
            sink.flush()
            os.fsync(sink.fileno())
        if not may_publish():
            return False
        unfinished.replace(path)
    finally:
        with suppress(OSError):  # the folder has become read-only
            unfinished.unlink(missing_ok=True)
    return True


def read_record(
    path: Path, model: type[Record], upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found
) -> Record | None:
    """One record. A file that is none is moved to the quarantine of its results folder, and counts as not there.

    Args:
        upgrade: what is done to the columns of an older version.

    Returns:
        None if it was moved, by us or by another reader.

    Raises:
        EcgscaleError: the file can't be opened, can't be moved, or was written by a newer version; it is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EcgscaleError(f"{path}: can't be read ({error.strerror})") from error
    try:
        found = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False).to_pylist()[0]
    except Exception as error:
        _quarantine(path, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    version = found.get("schema_version")
    try:
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise EcgscaleError(f"{path}: a row of version {version}, this ecgscale knows {SCHEMA_VERSION}; update it")
        known = {name: found[name] for name in model.model_fields if name in found}
        return model.model_validate(known if version == SCHEMA_VERSION else upgrade(known))
    except ValidationError as error:
        _quarantine(path, "no usable " + ", ".join(str(e["loc"][0]) for e in error.errors()[:3]))
        return None


def read_all(
    folder: Path,
    cache: RowCache,
    columns: Sequence[str],
    read_one: Callable[[Path], Spec | None],
    worth_a_cache: int,
) -> Iterator[dict[str, Any]]:
    """Every record of a folder: what the cache holds from there, the rest from the files; many make a new cache.

    Args:
        columns: those that are wanted.
        worth_a_cache: so many that had to be opened one by one.
    """
    stamps = row_stamps(folder)
    cached = cache.load(stamps, columns)
    unknown = stamps.keys() - set(cached.column("file").to_pylist())
    opened = {file: record.model_dump() for file in unknown if (record := read_one(folder / file)) is not None}
    if len(opened) >= worth_a_cache:
        cache.add(opened, stamps)
    for batch in cached.select(columns).to_batches(max_chunksize=1000):
        yield from batch.to_pylist()
    for fields in opened.values():
        yield {name: fields[name] for name in columns}


def _quarantine(path: Path, why: str) -> None:
    """Moves a file that is no record out of the way, with a note beside it."""
    place = path.parent.parent / QUARANTINE
    try:
        place.mkdir(exist_ok=True)
        (place / f"{path.name}.txt").write_text(f"{why}\n", encoding="utf-8")
        path.replace(place / path.name)
    except FileNotFoundError:  # another reader was faster
        return
    except OSError as error:
        raise EcgscaleError(
            f"{path}: not a readable row ({why}), and it can't be moved to {place.name} ({error.strerror}); "
            "move it away and its trial runs again"
        ) from error
    log.warning("%s: not a readable row (%s); moved to %s, its trial runs again", path, why, place)


def quarantined(folder: Path) -> dict[str, str]:
    """File → why it is no record."""
    notes = sorted((folder / QUARANTINE).glob("*.txt"))
    return {note.name.removesuffix(".txt"): note.read_text(encoding="utf-8").strip() for note in notes}
