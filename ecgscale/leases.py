"""The time-limited right to run a trial, on a folder that several machines share: no server, no synchronous clocks.

A lease is one small file, created where none was, whose heartbeat its owner counts up. Nobody's clock is compared with
another's: a lease is over for those who have themselves watched an unchanged heartbeat for long enough, or who see that
its process on their own machine is dead. Of several who take it over exactly one succeeds, and the former owner, should
it wake up, finds that it holds nothing any more. What a trial is, this file doesn't know.

    results/X/leases/TRIAL.GENERATION.json    the highest generation counts; each takeover creates the next
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

LEASES = "leases"

DEADLINE_S = 60.0
"""So long a heartbeat must have been watched without change. Longer than NFS keeps attributes (30 to 60 s, nfs(5))."""

BEATS_PER_DEADLINE = 12
"""An owner may miss eleven heartbeats: a busy disk, or a call into C that keeps the interpreter. Our choice."""


class Leases:
    """The leases of one results folder, as one process sees them; keep it, since it remembers what it has watched.

    Args:
        results: the results folder.
        deadline_s: of unchanged heartbeat, after which a lease is over.
    """

    def __init__(self, results: Path, deadline_s: float = DEADLINE_S) -> None:
        self.folder = results / LEASES
        self.deadline_s = deadline_s
        self._watched: dict[str, _Watched] = {}

    @property
    def beat_s(self) -> float:
        return self.deadline_s / BEATS_PER_DEADLINE

    def acquire(self, trial_id: str, label: str = "", on_lost: Callable[[str], None] | None = None) -> Lease | None:
        """The lease of a trial that nobody holds, or whose holder is gone; None when somebody else has it.

        Args:
            label: shown to people who look at the folder.
            on_lost: called once, from another thread, with the reason, when the lease was taken over.
        """
        last = self._last(trial_id)
        if last is not None and not self._is_over(trial_id, last):
            return None
        generation = last.generation + 1 if last is not None else 1
        path = self.folder / f"{trial_id}.{generation}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:  # another was faster
            return None
        try:
            lease = Lease(self, trial_id, label, generation, path, opened, on_lost)
        except OSError:  # the disk is full
            os.close(opened)
            path.unlink(missing_ok=True)
            raise
        if not lease.held():  # our look at the folder was old: the next generation exists by now
            lease.release()
            return None
        lease.remove_earlier()
        lease.begin()
        self._watched.pop(trial_id, None)
        return lease

    def free(self, trial_ids: Iterable[str]) -> tuple[str, ...]:
        """Those that `acquire` may give. To be asked again and again: each call watches the heartbeats."""
        last = {file.trial_id: file for file in self.files()}
        return tuple(t for t in trial_ids if t not in last or self._is_over(t, last[t]))

    def clear(self, trial_id: str) -> None:
        """Removes a lease that is over, for others who have not watched it."""
        lease = self.acquire(trial_id)
        if lease is not None:
            lease.release()

    def generations(self) -> dict[str, int]:
        """Trial → generation of its lease: 1, and one more for each holder that is gone without giving it back."""
        return {file.trial_id: file.generation for file in self.files()}

    def files(self, trial_id: str | None = None) -> list[LeaseFile]:
        """Of one trial or all, older generations first."""
        found = []
        for path in self.folder.glob(f"{trial_id or '*'}.*.json"):
            name, generation, _ = path.name.rsplit(".", 2)
            if generation.isdecimal():
                found.append(LeaseFile(name, int(generation), path))
        return sorted(found, key=lambda file: file.generation)

    def _last(self, trial_id: str) -> LeaseFile | None:
        return next(reversed(self.files(trial_id)), None)

    def _is_over(self, trial_id: str, file: LeaseFile) -> bool:
        try:
            content = file.path.read_bytes()
        except FileNotFoundError:  # given back at this moment
            return False
        now = time.monotonic()
        watched = self._watched.get(trial_id)
        if watched is None or (watched.generation, watched.content) != (file.generation, content):
            watched = self._watched[trial_id] = _Watched(file.generation, content, now)
        # No look counts for more than two beats: after a sleep of the whole machine the owner is given time to wake up
        watched.unchanged_s += min(max(now - watched.looked_at, 0.0), 2 * self.beat_s)
        watched.looked_at = now
        return watched.unchanged_s >= self.deadline_s or _is_dead(content)


@dataclass(frozen=True)
class LeaseFile:
    trial_id: str
    generation: int
    path: Path


@dataclass
class _Watched:
    """What this process has seen of somebody else's lease; seconds are of its own monotonic clock."""

    generation: int
    content: bytes
    looked_at: float
    unchanged_s: float = 0.0


class Lease:
    """A held lease, renewed by a thread until it is released or lost. Made by `Leases.acquire`."""

    def __init__(
        self,
        leases: Leases,
        trial_id: str,
        label: str,
        generation: int,
        path: Path,
        opened: int,
        on_lost: Callable[[str], None] | None,
    ) -> None:
        self.generation = generation
        self.attempt = uuid.uuid4().hex
        self._leases, self._trial_id, self._path = leases, trial_id, path
        self._opened: int | None = opened
        self._on_lost = on_lost
        self._lost = False
        self._released = threading.Event()
        self._writing = threading.Lock()
        facts = {"attempt": self.attempt, "trial_id": trial_id, "label": label, "host": _here()}
        # for people only: nothing is decided by a clock
        facts |= {"process": _myself(), "started_at": datetime.datetime.now(datetime.UTC).isoformat()}
        self._facts = json.dumps(facts)[:-1]
        self._beats = 0
        self._thread = threading.Thread(target=self._renew, name=f"lease {label or trial_id}", daemon=True)
        self._beat()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    @property
    def lost(self) -> bool:
        """Somebody has taken it over, as far as this process has noticed; `held` looks."""
        return self._lost

    def held(self) -> bool:
        """Looks whether the lease still stands. To be asked right before a result is published."""
        if self._lost or self._released.is_set():
            return False
        try:
            stands = self._stands()
        except OSError:  # the folder can't be reached: nobody knows, so not now
            return False
        if not stands:
            self._lose()
        return stands

    def release(self) -> None:
        """Gives the lease back; what others hold by now stays."""
        self._released.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=self._leases.beat_s)
        with suppress(OSError):
            if self._stands():
                self.remove_earlier()  # first: an earlier owner that wakes up must not find its own file on top
                self._path.unlink(missing_ok=True)
        with self._writing:
            if self._opened is not None:
                os.close(self._opened)
                self._opened = None

    def begin(self) -> None:
        self._thread.start()

    def remove_earlier(self) -> None:
        for file in self._leases.files(self._trial_id):
            if file.generation < self.generation:
                file.path.unlink(missing_ok=True)

    def _stands(self) -> bool:
        last = next(reversed(self._leases.files(self._trial_id)), None)
        if last is None or last.generation != self.generation:
            return False
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return False
        return f'"attempt": "{self.attempt}"'.encode() in content

    def _renew(self) -> None:
        while not self._released.wait(self._leases.beat_s):
            with suppress(OSError):  # a full disk or a lost server: those who watch will judge
                self._beat()
            self.held()
            if self._lost:
                return

    def _beat(self) -> None:
        """Counts up, in place and through the open file: what others have created meanwhile is never overwritten."""
        self._beats += 1
        content = f'{self._facts}, "beat": {self._beats:12d}}}\n'.encode()
        with self._writing:
            if self._opened is not None:
                os.pwrite(self._opened, content, 0)
                os.fsync(self._opened)  # over NFS, others see it from here on

    def _lose(self) -> None:
        first, self._lost = not self._lost, True
        if first and self._on_lost is not None:
            self._on_lost("its lease was taken over: another worker runs it")


# --- processes of this machine -------------------------------------------------------------------------------------


@cache
def _here() -> str | None:
    """A name for "the same process numbers": this boot of this machine, this container. None where nobody can tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return hashlib.sha256(f"{boot} {numbers}".encode()).hexdigest()[:12]


def _process(pid: int) -> str | None:
    """`PID:START`, which no later process with the same number shares; None when there is no such living process."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        raise  # it is there, and /proc does not show it to us
    state, started = facts[0], facts[19]  # fields 3 and 22 of proc(5)
    return None if state in "ZX" else f"{pid}:{started}"


def _myself() -> str | None:
    return _process(os.getpid()) if _here() is not None else None


def _is_dead(content: bytes) -> bool:
    """Whether the owner was a process of this machine, and is one no more."""
    try:
        facts = json.loads(content)
        if facts["host"] is None or facts["host"] != _here():
            return False
        owner = str(facts["process"])
        return _process(int(owner.split(":")[0])) != owner
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return False  # half written, or not ours to judge
