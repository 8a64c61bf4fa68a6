"""When a sweep stops launching: the budget of device hours is spoken for, or the deadline has passed.

What runs is left to end. An executor asks the gate before every launch and tells it of every end; the gate knows no
executor and reads no files.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgscale.errors import EcgscaleError

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass
class Gate:
    """Attributes:
    expected_s: trial id → expected wall seconds.
    share: trial id → what it holds of a device; all of it by default.
    budget_s: device seconds that may be spent, those of earlier attempts included; None for any number.
    spent_s: device seconds of the attempts that have ended.
    deadline: an aware time; None for never.
    """

    expected_s: Mapping[str, float]
    share: Mapping[str, float] = field(default_factory=dict)
    budget_s: float | None = None
    spent_s: float = 0.0
    deadline: datetime.datetime | None = None
    closed: str | None = None
    """Why nothing is launched any more; once closed, it stays so."""
    _running: dict[str, float] = field(default_factory=dict)

    def refuses(self, trial_id: str) -> str | None:
        """Why this trial must not start, or None: then it counts as running until `ended`."""
        if self.closed is None:
            self.closed = self._reason(trial_id)
        if self.closed is None:
            self._running[trial_id] = self._expected_device_s(trial_id)
        return self.closed

    def ended(self, trial_id: str, wall_s: float) -> None:
        self._running.pop(trial_id, None)
        self.spent_s += wall_s * self.share.get(trial_id, 1.0)

    def _expected_device_s(self, trial_id: str) -> float:
        return self.expected_s.get(trial_id, 0.0) * self.share.get(trial_id, 1.0)

    def over(self) -> bool:
        """Whether nothing at all may start any more."""
        if self.closed is None and self.deadline is not None and datetime.datetime.now(datetime.UTC) >= self.deadline:
            self.closed = self._past_deadline()
        if self.closed is None and self.budget_s is not None and self.spent_s >= self.budget_s:
            self.closed = f"the budget of {self.budget_s / 3600:g} device hours: {self.spent_s / 3600:.3g} spent"
        return self.closed is not None

    def _past_deadline(self) -> str:
        return f"the deadline {self.deadline:%Y-%m-%d %H:%M %Z} has passed"

    def _reason(self, trial_id: str) -> str | None:
        if self.over():
            return self.closed
        if self.budget_s is None:
            return None
        running_s = sum(seconds for other, seconds in self._running.items() if other != trial_id)
        next_s = self._expected_device_s(trial_id)
        if self.spent_s + running_s + next_s <= self.budget_s:
            return None
        return (
            f"the budget of {self.budget_s / 3600:g} device hours: {self.spent_s / 3600:.3g} spent, "
            f"{running_s / 3600:.3g} expected of running trials, {next_s / 3600:.3g} of the next"
        )


def parse_deadline(text: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """`2026-12-01T08:00`, in local time unless it says otherwise, or from now on: `90min`, `8h`, `2d`.

    Raises:
        EcgscaleError: it is neither.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    wait = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip())
    if wait is not None:
        return now + datetime.timedelta(seconds=float(wait[1]) * _UNITS_S[wait[2]])
    try:
        found = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise EcgscaleError(
            f"--deadline {text!r}: give a time such as 2026-12-01T08:00, or one from now on such as 90min, 8h or 2d"
        ) from None
    return found.astimezone(datetime.UTC)
