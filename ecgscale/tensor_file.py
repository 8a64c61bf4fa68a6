"""Weights and what goes with them in one file: magic, SHA-256 of the rest, the rest as torch writes it.

A file is whole or not there: it is written beside its place, synced, then renamed. Loading runs no code of the file.
One that can't be used is set aside, so that somebody may look at it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

MAGIC = b"ecgscale checkpoint 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size
READ_BYTES = 2**20

UNUSABLE = (ValueError, KeyError, TypeError, RuntimeError, EOFError, OSError, pickle.UnpicklingError)
"""What a file raises that is damaged, or holds something else than was expected."""


def write(path: Path, content: dict[str, Any], may_write: Callable[[], bool] = lambda: True) -> bool:
    """Puts a file in its place, or replaces the one there.

    Args:
        may_write: asked right before the rename.

    Returns:
        False if it was not to be written; nothing is left of it then.

    Raises:
        OSError, RuntimeError: it can't be written; the latter is torch's. The former one stays.
    """
    unfinished = path.with_suffix(f".{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as sink:
            _save(content, sink)
        if not may_write():
            return False
        unfinished.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # the folder has become read-only
            unfinished.unlink(missing_ok=True)
    return True


def read(path: Path) -> dict[str, Any]:
    """The content of a file, tensors on the CPU, whatever device they were on.

    Raises:
        one of UNUSABLE.
    """
    with path.open("rb") as source:
        if source.read(len(MAGIC)) != MAGIC:
            raise ValueError("it is no checkpoint of this version of ecgscale")
        digest = source.read(DIGEST_BYTES)
        found = hashlib.sha256()
        while piece := source.read(READ_BYTES):
            found.update(piece)
        if found.digest() != digest:
            raise ValueError("its checksum is wrong")
        source.seek(len(MAGIC) + DIGEST_BYTES)
        content: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    return content


def clear_unfinished(path: Path) -> None:
    """Removes what processes have left that were killed while they wrote this file."""
    for left in path.parent.glob(f"{path.stem}.*.tmp"):
        left.unlink(missing_ok=True)


def set_aside(path: Path) -> str:
    """Moves a file out of the way; says where it is."""
    aside = _aside(path)
    path.replace(aside)
    return f"set aside as {aside.name}"


def remove(path: Path) -> None:
    """The file, and what was set aside."""
    path.unlink(missing_ok=True)
    remove_aside(path)


def remove_aside(path: Path) -> None:
    _aside(path).unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.quarantined")


class _HashedSink:
    """A file that is hashed while it is written, so that a large one is neither held in memory nor read again."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink = sink
        self.hash = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self.hash.update(piece)
        return self.sink.write(piece)

    def flush(self) -> None:
        self.sink.flush()


def _save(content: dict[str, Any], sink: BinaryIO) -> None:
    sink.write(MAGIC + bytes(DIGEST_BYTES))
    hashed = _HashedSink(sink)
    try:
        torch.save(content, hashed)  # type: ignore[arg-type]
    except RuntimeError as error:  # torch can't close its archive on a full disk either, and says that instead
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    sink.seek(len(MAGIC))
    sink.write(hashed.hash.digest())
    sink.flush()
    os.fsync(sink.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes the rename last through a loss of power."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
