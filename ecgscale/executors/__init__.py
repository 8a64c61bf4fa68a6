"""Executors run many trials; they have never heard of Lightning.

An executor takes trial specs in the order they should start, calls `run_trial` for each somewhere, and reports each
end. It owns no results: every trial publishes its own row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecgscale.failures import FailureClass
from ecgscale.results import Status
from ecgscale.specs import TrialSpec


@dataclass(frozen=True)
class Ended:
    """What a progress bar wants to know of a trial that has ended."""

    trial_id: str
    label: str
    status: str
    wall_s: float
    id_loss: float | None
    reason: str | None
    failure: str | None = None
    bug: str | None = None
    shared: bool = False
    """Other trials of this command had their parts of its GPU, or of the memory of its machine."""
    given_up: bool = False
    """The executor has tried it again itself, as often as this command does."""

    @property
    def is_settled(self) -> bool:
        """It is not run again by itself."""
        return self.status in (Status.COMPLETED, Status.DIVERGED)


def lost(spec: TrialSpec, reason: str, *, given_up: bool = False) -> Ended:
    """A trial that left no row: the machine's fault, not its own."""
    return Ended(spec.trial_id, spec.label, "lost", 0.0, None, reason, FailureClass.INFRASTRUCTURE, given_up=given_up)


Report = Callable[[Ended], None]

Stop = Callable[[], bool]
"""Asked before a trial is started: True leaves it and all that follow out. What runs already ends as usual."""


def never() -> bool:
    return False
