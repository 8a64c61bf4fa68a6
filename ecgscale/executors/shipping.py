"""The files of one trial between a results folder and a node that does not see it: both ways, whole, as they are.

An encoder travels as well as rows and scores, so that what is read off it later may be computed on any node.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ecgscale.results import ENCODERS
from ecgscale.transfer_files import TRANSFER

FOLDERS = (ENCODERS, "rows", TRANSFER)
"""In the order in which a trial publishes."""


def published(results: Path, trial_id: str) -> Iterator[tuple[str, bytes]]:
    """(path below the results folder, content) of all that a trial has published."""
    for path in _files(results, trial_id):
        with suppress(FileNotFoundError):  # moved to quarantine at this moment
            yield str(path.relative_to(results)), path.read_bytes()


def taken(results: Path, trial_id: str) -> Iterator[tuple[str, bytes]]:
    """The same; what was yielded is removed."""
    for name, content in published(results, trial_id):
        yield name, content
        (results / name).unlink(missing_ok=True)


def put(results: Path, files: Mapping[str, bytes], may_publish: Callable[[], bool] = lambda: True) -> bool:
    """Publishes files, each by a rename, in the order given.

    Returns:
        False when one was not to be published, and then none that follow were.
    """
    for name, content in files.items():
        path = results / name
        if path.exists() and path.read_bytes() == content:  # it came from here
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{uuid.uuid4().hex[:12]}.tmp")
        try:
            unfinished.write_bytes(content)
            if not may_publish():
                return False
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return True


def _files(results: Path, trial_id: str) -> list[Path]:
    of_it = [path for folder in FOLDERS for path in sorted((results / folder).glob(f"{trial_id}[-.]*"))]
    return [path for path in of_it if path.suffix in (".parquet", ".ckpt")]
