"""The schedule of a sweep, simulated: longest first on identical devices that several trials may share.

Trials are ordered by what they are expected to take and end when they really do, so that a simulation with both shows
what bad estimates cost. A trial that needs more of a device than is free reserves the device that is emptied first.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_EPSILON = 1e-9


@dataclass(frozen=True)
class Job:
    """A trial as a scheduler sees it: `share` of one device for `expected_s`, in truth `true_s` when given."""

    expected_s: float
    share: float = 1.0
    true_s: float | None = None

    @property
    def seconds(self) -> float:
        return self.expected_s if self.true_s is None else self.true_s


@dataclass(frozen=True)
class Schedule:
    makespan_s: float
    lower_bound_s: float
    """No schedule is shorter: all device time spread evenly, or the longest trial."""
    critical_s: float
    """The longest trial: more devices than fill this time are of no use."""
    device_s: float
    """Time × share, summed."""


def simulate(jobs: Sequence[Job], n_devices: int) -> Schedule:
    """List scheduling, longest expectation first (Graham 1969), with shares and a reservation for what does not fit."""
    device_s = sum(job.seconds * job.share for job in jobs)
    critical_s = max((job.seconds for job in jobs), default=0.0)
    waiting = _by_share(jobs)
    free = [1.0] * n_devices
    running: list[tuple[float, int, float]] = []  # (end, device, share)
    now_s = 0.0
    while waiting:
        _start_what_fits(waiting, free, running, now_s)
        if waiting:
            now_s = _free_next(running, free)
    makespan_s = max((end for end, _, _ in running), default=now_s)
    return Schedule(max(makespan_s, now_s), max(device_s / n_devices, critical_s), critical_s, device_s)


def _by_share(jobs: Iterable[Job]) -> dict[float, deque[Job]]:
    """Share → its jobs, longest first: whoever is next is at the head of one of a few queues."""
    queues: dict[float, deque[Job]] = {}
    for job in sorted(jobs, key=lambda job: -job.expected_s):
        queues.setdefault(job.share, deque()).append(job)
    return queues


def _start_what_fits(
    waiting: dict[float, deque[Job]], free: list[float], running: list[tuple[float, int, float]], now_s: float
) -> None:
    """Starts jobs in order until the next fits nowhere; behind it, only what does not keep it waiting longer."""
    reserved: set[int] = set()
    refused: set[float] = set()
    while True:
        heads = [(queue[0].expected_s, share) for share, queue in waiting.items() if share not in refused]
        if not heads:
            return
        _, share = max(heads)
        open_to_it = [d for d in range(len(free)) if d not in reserved and free[d] >= share - _EPSILON]
        if not open_to_it:
            refused.add(share)
            if not reserved and share > min(waiting):  # a smaller one behind it could starve it
                reserved.add(_emptied_first(share, free, running))
            continue
        # the fullest device that still has room, so that whole devices stay whole
        device = min(open_to_it, key=lambda d: (free[d], d))
        job = waiting[share].popleft()
        if not waiting[share]:
            del waiting[share]
        free[device] -= share
        heapq.heappush(running, (now_s + job.seconds, device, share))


def _emptied_first(share: float, free: Sequence[float], running: Sequence[tuple[float, int, float]]) -> int:
    """The device that has room for `share` first if nothing more is started on it."""
    room = list(free)
    for _, device, held in sorted(running):
        room[device] += held
        if room[device] >= share - _EPSILON:
            return device
    raise ValueError(f"a share of {share} fits no device")


def _free_next(running: list[tuple[float, int, float]], free: list[float]) -> float:
    """Ends the job that ends next, and all that end with it; returns when that is."""
    end_s = running[0][0]
    while running and running[0][0] <= end_s:
        _, device, share = heapq.heappop(running)
        free[device] = min(1.0, free[device] + share)
    return end_s
