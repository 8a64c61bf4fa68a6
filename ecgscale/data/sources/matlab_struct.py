"""Reads a struct of numbers and texts from a MATLAB 5 file (`.mat` as MATLAB saves by default, compressed or not).

Nothing but that: no cells, objects, sparse or complex arrays, nor the HDF5 of version 7.3. scipy.io.loadmat reads them
all, but a damaged file can crash it together with the process (scipy 1.17.1: segmentation fault on flipped bytes).
Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgscale.errors import DataError

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)  # array classes
_COMPLEX = 0x0800
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_LARGEST_BYTES = 1 << 28  # our assumption: 1.5 hours of 12 leads at 500 Hz; CPSC 2018 has 144 s

Value = NDArray[Any] | str
"""An array as it is stored, axes as in MATLAB, or a text."""


@dataclass(frozen=True)
class _Bytes:
    """A stretch of the file and how its numbers are ordered: `<` or `>`."""

    stored: memoryview
    order: str

    def numbers(self, kind: str) -> NDArray[Any]:
        dtype = np.dtype(self.order + kind)
        if len(self.stored) % dtype.itemsize:
            raise DataError(f"{len(self.stored)} bytes are no whole number of {dtype.itemsize}-byte numbers")
        return np.frombuffer(self.stored, dtype)

    def whole(self, start: int, stop: int) -> int:
        return int.from_bytes(self.stored[start:stop], "little" if self.order == "<" else "big")

    def elements(self) -> Iterator[tuple[int, _Bytes]]:
        """The data elements one after the other: type and content."""
        at = 0
        while at + 8 <= len(self.stored):
            kind, n = self.whole(at, at + 4), self.whole(at + 4, at + 8)
            start, after = at + 8, at + 8 + (n if kind == _COMPRESSED else -(-n // 8) * 8)
            if kind >> 16:  # a small element: both in four bytes, the content in the other four
                kind, n, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if n > len(self.stored) - start or start + n > after:
                raise DataError(f"an element of {n} bytes does not fit into the file")
            yield kind, _Bytes(self.stored[start : start + n], self.order)
            at = after


def read_struct(path: Path, variable: str) -> dict[str, Value]:
    """The fields of a 1 × 1 struct; those that are neither numbers nor text are left out.

    Raises:
        DataError: There is no such file, it is damaged or of another kind, or it has no such struct.
    """
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    order = {b"IM": "<", b"MI": ">"}.get(stored[126:128])
    if order is None or stored.startswith(b"MATLAB 7.3"):
        raise DataError("is not a MATLAB 5 file")
    for kind, content in _Bytes(memoryview(stored)[_HEADER_BYTES:], order).elements():
        matrix = _inflated(content) if kind == _COMPRESSED else content if kind == _MATRIX else None
        if matrix is not None and (found := _struct(matrix, variable)) is not None:
            return found
    raise DataError(f"holds no struct {variable}")


def _inflated(content: _Bytes) -> _Bytes | None:
    """The one element within a compressed one; None if it is no matrix."""
    inflate = zlib.decompressobj()
    try:
        inflated = inflate.decompress(content.stored, _LARGEST_BYTES)
    except zlib.error as error:
        raise DataError(str(error)) from error
    if not inflate.eof:
        raise DataError("its compressed data ends too early")
    kind, matrix = next(_Bytes(memoryview(inflated), content.order).elements(), (0, content))
    return matrix if kind == _MATRIX else None


def _head(matrix: _Bytes) -> tuple[int, tuple[int, ...], str, list[tuple[int, _Bytes]]]:
    """Class with flags, size, name, and what follows."""
    parts = list(matrix.elements())
    if len(parts) < 3 or len(parts[0][1].stored) != 8:
        raise DataError("a matrix has no flags, size and name")
    size = tuple(int(n) for n in parts[1][1].numbers("i4"))
    return parts[0][1].whole(0, 4), size, bytes(parts[2][1].stored).decode("latin-1"), parts[3:]


def _struct(matrix: _Bytes, variable: str) -> dict[str, Value] | None:
    """The fields, if this is the struct."""
    flags, size, name, parts = _head(matrix)
    if name != variable or flags & 0xFF != _STRUCT:
        return None
    if math.prod(size) != 1 or len(parts) < 2:
        raise DataError(f"its struct {variable} is not 1 × 1")
    length = parts[0][1].whole(0, 4)
    names = bytes(parts[1][1].stored)
    if length < 1 or len(names) != length * (len(parts) - 2):
        raise DataError(f"its struct {variable} has {len(parts) - 2} fields and other names")
    fields = {}
    for k, (kind, content) in enumerate(parts[2:]):
        value = _value(content) if kind == _MATRIX and len(content.stored) else None
        if value is not None:
            fields[names[k * length : (k + 1) * length].partition(b"\0")[0].decode("latin-1")] = value
    return fields


def _value(matrix: _Bytes) -> Value | None:
    flags, size, _, parts = _head(matrix)
    if not parts or flags & _COMPLEX:
        return None
    kind, content = parts[0]
    if flags & 0xFF == _CHAR and kind in _TEXTS:
        encoding = _TEXTS[kind]
        if encoding == "utf-16":
            encoding += "-le" if content.order == "<" else "-be"
        return bytes(content.stored).decode(encoding, errors="replace")
    if flags & 0xFF in _NUMERIC and kind in _NUMBERS:
        numbers = content.numbers(_NUMBERS[kind])
        if len(size) < 2 or min(size) < 0 or math.prod(size) != len(numbers):
            raise DataError(f"{len(numbers)} numbers are announced as {' × '.join(map(str, size))}")
        return numbers.reshape(size, order="F")
    return None
