"""All files of one record in one file, so that ten thousand rows are read in a second instead of half a minute.

Never the truth: it is made from the files, knows by name, size and time which ones, and is ignored and made again when
it is damaged or was written for other columns. Where it can't be written there is none.
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

CACHE_FILE = "rows.cache"
"""Of the rows of a results folder."""

WORTH_A_CACHE = 64
"""So many rows that had to be opened one by one (1 to 2 ms each) make a new cache. Our choice."""

_CHECKSUM_BYTES = 4
_STAMP = pa.schema([("file", pa.string()), ("size_bytes", pa.int64()), ("mtime_ns", pa.int64())])

Stamp = tuple[int, int]
"""Size in bytes, time of the last change in ns: a row whose stamp is another is another row."""


def row_stamps(folder: Path) -> dict[str, Stamp]:
    """File name → stamp of every parquet file of a folder, in the order of the names."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".parquet"):
                with suppress(FileNotFoundError):  # moved to quarantine at this moment
                    status = entry.stat()
                    found[entry.name] = status.st_size, status.st_mtime_ns
    return dict(sorted(found.items()))


class RowCache:
    """The cache of one folder of rows.

    Args:
        file: where it is.
        schema: of a row; its metadata count, so that rows declared otherwise are not taken for these.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self.file = file
        self._columns = schema.names
        self._schema = pa.schema([*schema, *_STAMP], schema.metadata)

    def load(self, stamps: Mapping[str, Stamp], columns: Iterable[str]) -> pa.Table:
        """Those columns of the rows in `stamps` that it holds, and their `file`; no row if it is not usable."""
        found = self._read([*columns, *_STAMP.names])
        held = zip(*(found.column(name).to_pylist() for name in _STAMP.names), strict=True)
        return found.filter(pa.array([stamps.get(file) == (size, time) for file, size, time in held], pa.bool_()))

    def add(self, rows: Mapping[str, Mapping[str, object]], stamps: Mapping[str, Stamp]) -> None:
        """Replaces it, as a whole or not at all, by what it holds of the rows in `stamps` and these.

        Args:
            rows: file name → its row.
        """
        stamped = [{**row, **dict(zip(_STAMP.names, (file, *stamps[file]), strict=True))} for file, row in rows.items()]
        # another reader may have added the same rows meanwhile
        held = self.load({file: stamp for file, stamp in stamps.items() if file not in rows}, self._columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
            stream.write_table(pa.concat_tables([held, pa.Table.from_pylist(stamped, schema=self._schema)]))
        content = sink.getvalue()
        unfinished = self.file.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            with unfinished.open("wb") as file:
                file.write(_checksum(content))
                file.write(content)
            unfinished.replace(self.file)
        except OSError:  # a folder that can't be written, a full disk: rows are read without it
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _read(self, columns: Iterable[str]) -> pa.Table:
        schema = pa.schema([self._schema.field(name) for name in dict.fromkeys(columns)], self._schema.metadata)
        try:
            content = pa.py_buffer(self.file.read_bytes())
            checksum, table = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
            if checksum != _checksum(table) or not pa.ipc.read_schema(table).equals(self._schema, check_metadata=True):
                return schema.empty_table()
            wanted = [self._schema.get_field_index(name) for name in schema.names]
            with pa.ipc.open_stream(table, options=pa.ipc.IpcReadOptions(included_fields=wanted)) as stream:
                return stream.read_all().select(schema.names)
        except (OSError, pa.ArrowException):
            return schema.empty_table()


def _checksum(content: pa.Buffer) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big")
