"""Why a trial failed, in five classes that ask for different answers, and what each of them means.

One function decides, from the exception alone. It knows no framework: memory errors are known by their name and words,
since `status` explains failures where torch is never loaded.
"""

from __future__ import annotations

import errno
import hashlib
import traceback
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from ecgscale.errors import EcgscaleError


class FailureClass(StrEnum):
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    DATA = "data"
    INFRASTRUCTURE = "infrastructure"
    BUG = "bug"


class Diverged(Exception):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Advice:
    """What a class of failures means, and what to do about it."""

    meaning: str
    way_out: str


ADVICE = {
    FailureClass.OUT_OF_MEMORY: Advice(
        "the trial did not fit into the memory of its device: not alone, and not in parts if its family allows parts",
        "train on a larger device, or with a smaller train.batch_size, which makes it another trial; "
        "where others use the device, too: run the sweep again",
    ),
    FailureClass.DIVERGED: Advice(
        "the loss became NaN or infinite; the same seed on the same machine diverges again, so it is not tried again",
        "lower train.learning_rate or raise train.warmup_fraction, which makes it another trial; "
        "to try the same one: ecgscale retry {folder} --class diverged",
    ),
    FailureClass.DATA: Advice(
        "the records or the sweep's settings can't be used as they are; the reason names which",
        "look with `ecgscale data check`, then run the sweep again: it plans with the data as they are now",
    ),
    FailureClass.INFRASTRUCTURE: Advice(
        "the machine failed the trial: disk full or gone, connection lost, worker killed",
        "tried again with a pause while the sweep runs; make room or mend it, then run the sweep again",
    ),
    FailureClass.BUG: Advice(
        "an error in the code, not in the data or the machine; trials with the same number failed at the same place",
        "the reason shows the place; when it is mended, run the sweep again",
    ),
}

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "_alloc_failed")
_BROKEN_DEVICE_WORDS = ("ecc error", "busy or unavailable", "nccl", "device unavailable", "gpu is lost")
_WRONG_NAME = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""OS errors that speak of what was asked for, not of the machine."""


def failure_classes(words: str) -> frozenset[FailureClass]:
    """Of a comma-separated list.

    Raises:
        EcgscaleError: a class does not exist.
    """
    try:
        return frozenset(FailureClass(word.strip()) for word in words.split(","))
    except ValueError as error:
        raise EcgscaleError(f"{error}; failures are of class {', '.join(FailureClass)}") from None


def classify(error: BaseException) -> FailureClass:
    """The class of a failure; what was raised `from` something is what that something is, if we don't know it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        found = _class_of(link)
        if found is not FailureClass.BUG:
            return found
        link = link.__cause__
    return FailureClass.BUG


def _class_of(error: BaseException) -> FailureClass:
    words = str(error).lower()
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, Diverged):
        return FailureClass.DIVERGED
    if isinstance(error, EcgscaleError):
        return FailureClass.DATA
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return FailureClass.OUT_OF_MEMORY
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return FailureClass.OUT_OF_MEMORY
        return FailureClass.BUG if isinstance(error, _WRONG_NAME) else FailureClass.INFRASTRUCTURE
    if isinstance(error, RuntimeError):
        if any(said in words for said in _MEMORY_WORDS):
            return FailureClass.OUT_OF_MEMORY
        if any(said in words for said in _BROKEN_DEVICE_WORDS):
            return FailureClass.INFRASTRUCTURE
    return FailureClass.BUG


def fingerprint(error: BaseException) -> str:
    """12 hex characters that two failures share when they happened along the same calls.

    Line numbers are left out, and so is the message: they differ between trials and between versions of the code. Calls
    that repeat, as in a recursion, count once.
    """
    calls = [f"{Path(frame.filename).name}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    chain = [call for call, _ in groupby(calls)] + [type(error).__qualname__]
    return hashlib.sha256("\n".join(chain).encode()).hexdigest()[:12]


SAME_BUG_TRIALS = 3
"""In so many different trials the same bug is one of all trials: going on wastes time. Our choice."""


@dataclass
class BugWatch:
    """Counts bugs over the trials of one run of a sweep."""

    trials: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    reason: str | None = None
    """Of the bug that too many trials share."""

    def saw(self, bug: str, trial_id: str, reason: str | None) -> None:
        self.trials[bug].add(trial_id)
        if len(self.trials[bug]) >= SAME_BUG_TRIALS:
            self.reason = self.reason or reason or "no reason given"

    @property
    def stopped(self) -> bool:
        return self.reason is not None

    def verdict(self) -> str | None:
        if self.reason is None:
            return None
        return f"{SAME_BUG_TRIALS} trials failed at the same place, so the others were not started: {self.reason}"
