"""Executors run many trials; they have never heard of Lightning.

An executor takes trial specs in the order they should start, calls `run_trial` for each somewhere, and reports each
end. It owns no results: every trial publishes its own row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """What a progress bar wants to know of a trial that has ended."""

    trial_id: str
    label: str
    status: str
    wall_s: float
    id_loss: float | None
    reason: str | None


Report = Callable[[Ended], None]
