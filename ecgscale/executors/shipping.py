"""The files of one trial between a results folder and a node that does not see it: both ways, whole, as they are.

An encoder travels as well as rows and scores, so that what is read off it later may be computed on any node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ecgscale.prediction_files import CLASSICAL, PREDICTIONS
from ecgscale.record_files import put_in_place
from ecgscale.results import ENCODERS
from ecgscale.transfer_files import TRANSFER

FOLDERS = (ENCODERS, "rows", PREDICTIONS, TRANSFER)
"""In the order in which a trial publishes."""


def published(results: Path, trial_id: str) -> Iterator[tuple[str, bytes]]:
    """(path below the results folder, content) of all that a trial has published."""
    for path in _files(results, trial_id):
        with suppress(FileNotFoundError):  # moved to quarantine at this moment
            yield str(path.relative_to(results)), path.read_bytes()


def taken(results: Path, trial_id: str) -> Iterator[tuple[str, bytes]]:
    """The same, and what was yielded is removed; before it what trials share, which stays for the next."""
    for path in sorted((results / PREDICTIONS / CLASSICAL).glob("*.parquet")):
        yield str(path.relative_to(results)), path.read_bytes()
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
        if not put_in_place(path, partial(_write, content), may_publish):
            return False
    return True


def _write(content: bytes, sink: BinaryIO) -> None:
    sink.write(content)


def _files(results: Path, trial_id: str) -> list[Path]:
    of_it = [path for folder in FOLDERS for path in sorted((results / folder).glob(f"{trial_id}[-.]*"))]
    return [path for path in of_it if path.suffix in (".parquet", ".ckpt")]
