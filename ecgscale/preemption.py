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
    """Whether, and why, the trials of this process should stop. May be set from any thread.

    Args:
        also: another request, of which this one is part.
    """

    def __init__(self, also: StopRequest | None = None) -> None:
        self._also = also
        self._reason: str | None = None
        self._listens = False

    @property
    def reason(self) -> str | None:
        return self._reason or (self._also.reason if self._also is not None else None)

    def request(self, reason: str) -> None:
        """Asks for a stop; the first reason stays."""
        self._reason = self._reason or reason

    def check(self) -> None:
        """Called where a trial may stop without losing work, and before its row is published.

        Raises:
            Preempted: it was asked to stop.
        """
        if self.reason is not None:
            raise Preempted(self.reason)

    @contextmanager
    def listening(self, *, to_ctrl_c: bool = False) -> Iterator[StopRequest]:
        """Within the block, `SIGNALS` ask for a stop instead of ending the process.

        Args:
            to_ctrl_c: the first one, too; a second interrupts at once. For code that waits in a library, in which an
                exception at any moment may be lost.

        Raises:
            KeyboardInterrupt: after the block, when Ctrl-C has asked for the stop.
        """
        taken = (*SIGNALS, signal.SIGINT) if to_ctrl_c else SIGNALS
        before = {number: signal.getsignal(number) for number in taken}
        self._listens = _in_main_thread()
        self.take_signals_again()
        if to_ctrl_c and self._listens:
            signal.signal(signal.SIGINT, self._note_ctrl_c)
        try:
            yield self
        finally:
            for number, handler in before.items() if self._listens else ():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._listens = False
        if to_ctrl_c and self.reason == signal.SIGINT.name:
            raise KeyboardInterrupt

    def take_signals_again(self) -> None:
        """After a library has taken them for itself: Lightning would end the process with SIGTERM."""
        if self._also is not None:
            self._also.take_signals_again()
        for number in SIGNALS if self._listens and _in_main_thread() else ():
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)

    def _note_ctrl_c(self, number: int, frame: FrameType | None) -> None:
        self._note(number, frame)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_main_thread() -> bool:
    """No other thread may set handlers."""
    return threading.current_thread() is threading.main_thread()
