"""Being asked to stop: by a signal, or by whoever runs the trial. Not a failure; the trial goes on from its checkpoint.

A trial is never stopped in the middle of something: it looks, at the end of every step and between the parts of its
scoring, whether it has been asked to.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""How a node that is taken away, a container's end and Slurm's `--signal=USR1@60` before its time limit say so."""

PREEMPTED = "preempted"
"""What executors report of such a trial. No row has this status: there is no row."""

EXIT_PREEMPTED = 128 + signal.SIGTERM


class Preempted(BaseException):
    """The trial has stopped because it was asked to. No `Exception`: whoever catches those records a failure."""


class StopRequest:
    """Whether, and why, the trials of this process should stop. May be set from any thread."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._listens = False

    def request(self, reason: str) -> None:
        """Asks for a stop; the first reason stays."""
        self.reason = self.reason or reason

    def check(self) -> None:
        """Called where a trial may stop without losing work, and before its row is published.

        Raises:
            Preempted: it was asked to stop.
        """
        if self.reason is not None:
            raise Preempted(self.reason)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Within the block, `SIGNALS` ask for a stop instead of ending the process."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._listens = threading.current_thread() is threading.main_thread()  # no other thread may set handlers
        self.take_signals_again()
        try:
            yield self
        finally:
            for number, handler in before.items() if self._listens else ():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._listens = False

    def take_signals_again(self) -> None:
        """After a library has taken them for itself: Lightning would end the process with SIGTERM."""
        for number in SIGNALS if self._listens else ():
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)
