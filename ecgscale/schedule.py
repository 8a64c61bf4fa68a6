"""Which trial starts next, and where: a queue in starting order, over devices that several trials may share.

The Ray executor and the plan's simulation ask the same queue, so that a plan's makespan is what the executor does. A
trial that needs more of a device than any has free reserves the one that has most: smaller ones don't starve it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_EPSILON = 1e-9

J = TypeVar("J")
D = TypeVar("D", bound="Device")


@dataclass(eq=False)
class Device:
    """What trials hold shares of.

    Attributes:
        free: share that nobody holds.
        places: trials that may still be added, however small; where CPUs are short.
    """

    free: float = 1.0
    places: float = math.inf

    def fits(self, share: float) -> bool:
        return self.places >= 1 and self.free >= share - _EPSILON

    @property
    def is_overfull(self) -> bool:
        return self.places < 0 or self.free < -_EPSILON

    def rank(self, share: float) -> Any:
        """The lowest of those that fit is taken: the fullest, so that whole devices stay whole."""
        return self.free

    def take(self, share: float) -> None:
        self.free -= share
        self.places -= 1

    def give(self, share: float) -> None:
        self.free = min(1.0, self.free + share)
        self.places += 1


@dataclass(frozen=True)
class Start(Generic[J, D]):
    """A job, and the device it was given a share of."""

    job: J
    share: float
    device: D
    position: int
    """In the starting order."""


class Queue(Generic[J]):
    """Jobs in the order in which they should start, each with its share of a device."""

    def __init__(self, jobs: Iterable[tuple[J, float]] = ()) -> None:
        self._waiting: dict[float, deque[tuple[int, J]]] = {}  # share → its jobs: who is next heads one of a few queues
        self._first = 0
        for position, (job, share) in enumerate(jobs):
            self._waiting.setdefault(share, deque()).append((position, job))

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._waiting.values())

    def shares(self) -> dict[float, int]:
        """Share → how many jobs wait for one."""
        return {share: len(jobs) for share, jobs in self._waiting.items()}

    def put_first(self, job: J, share: float) -> None:
        self._first -= 1
        self._waiting.setdefault(share, deque()).appendleft((self._first, job))

    def put_back(self, starts: Sequence[Start[J, D]]) -> None:
        """The last starts, in their order, did not come about: as if these jobs had never been taken out."""
        for start in reversed(starts):
            start.device.give(start.share)
            self._waiting.setdefault(start.share, deque()).appendleft((start.position, start.job))

    def clear(self) -> None:
        self._waiting.clear()

    def starts(self, devices: Sequence[D]) -> Iterator[Start[J, D]]:
        """Takes out, in order, what starts now, and takes its share of a device.

        It goes on until the next job fits nowhere; behind that one, only with what does not keep it waiting longer.
        """
        reserved: D | None = None
        refused: set[float] = set()
        while heads := [(jobs[0][0], share) for share, jobs in self._waiting.items() if share not in refused]:
            _, share = min(heads)
            open_to_it = [device for device in devices if device is not reserved and device.fits(share)]
            if not open_to_it:
                refused.add(share)
                if reserved is None and devices and share > min(self._waiting):  # a smaller one could starve it
                    reserved = max(devices, key=lambda device: device.free)
                continue
            device = min(open_to_it, key=lambda device: device.rank(share))
            position, job = self._waiting[share].popleft()
            if not self._waiting[share]:
                del self._waiting[share]
            device.take(share)
            yield Start(job, share, device, position)


# --- simulated -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A trial as a plan sees it: `share` of one device for so many seconds."""

    seconds: float
    share: float = 1.0


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
    """List scheduling in the given order (Graham 1969), with shares and a reservation for what does not fit."""
    device_s = sum(job.seconds * job.share for job in jobs)
    critical_s = max((job.seconds for job in jobs), default=0.0)
    queue = Queue((job, job.share) for job in jobs)
    devices = [Device() for _ in range(n_devices)]
    running: list[tuple[float, int, Device, float]] = []  # (end, tie-breaker, device, share)
    now_s, n_started = 0.0, 0
    while queue or running:
        for start in queue.starts(devices):
            n_started += 1
            heapq.heappush(running, (now_s + start.job.seconds, n_started, start.device, start.share))
        now_s = running[0][0]
        while running and running[0][0] <= now_s:
            _, _, device, share = heapq.heappop(running)
            device.give(share)
    return Schedule(now_s, max(device_s / n_devices, critical_s), critical_s, device_s)
