"""One file inside a zip as a seekable file: HDF5 parts are read where they lie, nothing is unpacked to disk.

Deflate can only be read forwards, so the state of the decompressor is kept every few megabytes: going back costs one
such stretch, not the whole member. It knows nothing about what the member holds.
"""

import io
import struct
import zipfile
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# A kept state is about 45 kB, so a 4 GB part costs 11 MB of memory; a backward seek costs at most 16 MB of inflating,
# 0.05-0.1 s.
_KEEP_EVERY_BYTES = 16 << 20
_READ_BYTES = 256 << 10
_STEP_BYTES = 1 << 20

_LOCAL_HEADER_BYTES, _LOCAL_NAME_LENGTHS = 30, 26  # PKWARE APPNOTE 4.3.7: name and extra lengths at bytes 26 and 28
_ENCRYPTED = 0x1


@dataclass
class _Inflating:
    """A decompressor, and how far it is in the packed and the unpacked bytes."""

    state: Any  # zlib's type has no public name
    packed: int = 0
    unpacked: int = 0

    def copy(self) -> "_Inflating":
        return _Inflating(self.state.copy(), self.packed, self.unpacked)


class ZipMember(io.RawIOBase):
    """A stored or deflated member of a zip, read-only, any position.

    The first pass over it checks the length and the CRC of the zip's directory.

    Args:
        path: The zip.
        name: The member.

    Raises:
        OSError: The zip or the member is damaged; also from every read.
    """

    def __init__(self, path: Path, name: str) -> None:
        super().__init__()
        try:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(name)
        except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
            raise OSError(str(error)) from error
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & _ENCRYPTED:
            raise OSError(f"{name} is encrypted or packed by a method other than deflate; unzip it yourself")
        self._info = info
        self._size = info.file_size
        self._position = 0
        self._file: IO[bytes] = path.open("rb")
        self._file.seek(info.header_offset + _LOCAL_NAME_LENGTHS)
        lengths = self._file.read(4)
        if len(lengths) < 4:
            raise OSError(f"the zip ends before {name}")
        self._start = info.header_offset + _LOCAL_HEADER_BYTES + sum(struct.unpack("<HH", lengths))
        self._now = _Inflating(zlib.decompressobj(-zlib.MAX_WBITS))  # negative: no zlib header, as in zips
        self._kept = [self._now.copy()]
        self._checked, self._crc = 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only notes the place: h5py asks for the end to learn the size."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        if wanted == 0:
            return 0
        if self._info.compress_type == zipfile.ZIP_STORED:
            self._file.seek(self._start + self._position)
            view[:wanted] = self._packed_bytes(wanted)
        else:
            self._go_to(self._position)
            done = 0
            while done < wanted:
                piece = self._inflate(wanted - done)
                view[done : done + len(piece)] = piece
                done += len(piece)
        self._position += wanted
        return wanted

    def check(self) -> None:
        """Reads everything once, so that a damaged member is known before any of it is used.

        Raises:
            OSError: It is damaged.
        """
        if self._info.compress_type == zipfile.ZIP_DEFLATED:
            self._go_to(self._checked)
            while self._checked < self._size:
                self._inflate(_STEP_BYTES)
            return
        self._file.seek(self._start)
        crc, left = 0, self._size
        while left:
            piece = self._packed_bytes(min(left, _STEP_BYTES))
            crc, left = zlib.crc32(piece, crc), left - len(piece)
        self._compare(crc)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()

    def _go_to(self, position: int) -> None:
        """Inflates up to an unpacked position, from the nearest state before it."""
        nearest = self._kept[bisect_right(self._kept, position, key=lambda kept: kept.unpacked) - 1]
        if not nearest.unpacked <= self._now.unpacked <= position:
            self._now = nearest.copy()
        while self._now.unpacked < position:
            self._inflate(position - self._now.unpacked)

    def _inflate(self, at_most: int) -> bytes:
        """The next unpacked bytes, some but not more than that."""
        now = self._now
        new = now.unpacked == self._checked
        at_most = min(at_most, _STEP_BYTES if new else self._checked - now.unpacked)
        self._file.seek(self._start + now.packed)
        packed = self._file.read(min(_READ_BYTES, self._info.compress_size - now.packed))
        try:
            piece: bytes = now.state.decompress(packed, at_most)
        except zlib.error as error:
            raise OSError(f"{self._info.filename} is damaged in the zip ({error})") from error
        if not piece and (now.state.eof or not packed):
            raise OSError(f"{self._info.filename} ends early in the zip")
        now.packed += len(packed) - len(now.state.unconsumed_tail)
        now.unpacked += len(piece)
        if new:
            self._note(piece)
        return piece

    def _note(self, piece: bytes) -> None:
        """Bytes seen for the first time: their CRC, and a state to come back to."""
        self._checked += len(piece)
        self._crc = zlib.crc32(piece, self._crc)
        if self._checked == self._size:
            self._compare(self._crc)
        elif self._checked - self._kept[-1].unpacked >= _KEEP_EVERY_BYTES:
            self._kept.append(self._now.copy())

    def _packed_bytes(self, n: int) -> bytes:
        data = self._file.read(n)
        if len(data) < n:
            raise OSError(f"{self._info.filename} ends early in the zip")
        return data

    def _compare(self, crc: int) -> None:
        if crc != self._info.CRC:
            raise OSError(f"{self._info.filename} is damaged in the zip (wrong CRC)")
