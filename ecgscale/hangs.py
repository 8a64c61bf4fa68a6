"""A trial that makes no progress ends its process, so that its lease is over and another goes on from its checkpoint.

The watch is `faulthandler`'s, a thread of C: it needs no interpreter, and so finds a call that keeps it and never
returns, too. It writes down where every thread stands, then exits. A trial shows progress at every step, with every
batch that is scored and with every read-out that is fitted.

    results/X/hangs/TRIAL.GENERATION.txt    where that holder of the lease stood; empty unless it hung
"""

from __future__ import annotations

import faulthandler
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

HANGS = "hangs"

RENEWALS_PER_DEADLINE = 20
"""The watch is renewed no more often, since each time starts a thread: 0.1 ms. Our choice."""

FRAMES_TOLD = 3

TURNS = "turns.py"
"""Of several trials in one process, this file starts the thread of each."""


@dataclass
class _Watch:
    hang_s: float
    sink: TextIO
    notes: list[Path] = field(default_factory=list)
    renewed_at: float = 0.0

    def renew(self) -> None:
        self.renewed_at = time.monotonic()
        faulthandler.dump_traceback_later(self.hang_s, file=self.sink, exit=True)


_watch: _Watch | None = None
"""Of this process: it runs one trial at a time, or several that take turns; when one of these hangs, they all do."""


@contextmanager
def watched(results: Path, trial_id: str, generation: int, hang_s: float) -> Iterator[None]:
    """Within the block, the process ends when `progressed` has not been called for `hang_s` seconds; 0 for never."""
    global _watch
    if hang_s == 0:
        yield
        return
    path = results / HANGS / f"{trial_id}.{generation}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if _watch is None:
        _watch = _Watch(hang_s, path.open("w", encoding="utf-8"))
        _watch.renew()
    else:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # a file system without links: the note has one name, of the trial that came first
            os.link(_watch.notes[0], path)  # one note, under the names of all trials
    watch = _watch
    watch.notes.append(path)
    try:
        yield
    finally:
        watch.notes.remove(path)
        if not watch.notes:
            _watch = None
            faulthandler.cancel_dump_traceback_later()
            watch.sink.close()
        path.unlink(missing_ok=True)


def progressed() -> None:
    """Called by a trial wherever it gets on; cheap."""
    if _watch is not None and time.monotonic() - _watch.renewed_at > _watch.hang_s / RENEWALS_PER_DEADLINE:
        _watch.renew()


def where_it_hung(results: Path, trial_id: str) -> str | None:
    """Where the last holder stood that made no progress, for people; None if none did."""
    notes = {path: path.read_text(encoding="utf-8") for path in (results / HANGS).glob(f"{trial_id}.*.txt")}
    hung = sorted((path for path, text in notes.items() if text), key=lambda path: int(path.suffixes[-2][1:]))
    if not hung:
        return None
    threads = notes[hung[-1]].split("(most recent call first):")[1:]  # the main one comes last
    stacks = [re.findall(r'File "(?:[^"]*/)?([^"/]+)", line (\d+) in (\S+)', thread) for thread in threads]
    running = [stack for stack in stacks if stack and stack[0][0] != TURNS]  # where trials wait for each other
    of_trials = [stack for stack in running if any(file == TURNS for file, _, _ in stack)]  # not leases and watchers
    frames = (of_trials or running or [[]])[-1][:FRAMES_TOLD]
    place = " < ".join(f"{file}:{line} in {function}" for file, line, function in frames)
    return f"{place or 'an unknown place'}; see {HANGS}/{hung[-1].name}"
