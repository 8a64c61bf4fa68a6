"""One owner at a time, whatever the clocks say and however many want it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecgscale import leases
from ecgscale.leases import Leases

TRIAL = "0123456789ab"
DEADLINE_S = 1.2


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "leases").iterdir())


@pytest.fixture
def frozen(tmp_path, monkeypatch):
    """A lease whose owner, on another machine, has stopped counting: dead, or asleep."""
    with monkeypatch.context() as there:
        there.setattr(leases, "_here", lambda: "another host")
        there.setattr(leases.Lease, "begin", lambda self: None)
        lease = Leases(tmp_path, DEADLINE_S).acquire(TRIAL)
    monkeypatch.setattr(lease._thread, "is_alive", lambda: False)
    return lease


def watch_until_over(observer: Leases, clock: "Clock") -> None:
    while not observer.free([TRIAL]):
        clock.now += observer.beat_s


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(leases.time, "monotonic", made.monotonic)
    return made


def test_one_holds_it_until_it_is_given_back(tmp_path):
    lease = Leases(tmp_path).acquire(TRIAL, "resnet")
    assert lease.held() and Leases(tmp_path).acquire(TRIAL) is None
    assert Leases(tmp_path).free([TRIAL, "another"]) == ("another",)
    lease.release()
    assert not lease.held() and not lease.lost and files(tmp_path) == []
    with Leases(tmp_path).acquire(TRIAL) as second:
        assert second.held() and second.generation == 1


def test_the_file_says_who_runs_what_and_nothing_of_the_machine(tmp_path):
    with Leases(tmp_path).acquire(TRIAL, "resnet-sl"):
        text = (tmp_path / "leases" / f"{TRIAL}.1.json").read_text()
    told = json.loads(text)
    assert (told["label"], told["trial_id"], told["beat"]) == ("resnet-sl", TRIAL, 1)
    assert os.uname().nodename not in text and str(tmp_path) not in text


def test_an_owner_that_counts_keeps_it_beyond_the_deadline(tmp_path):
    observer = Leases(tmp_path, 0.6)
    with Leases(tmp_path, 0.6).acquire(TRIAL) as lease:
        started = time.monotonic()
        while time.monotonic() - started < 1.5:
            assert not observer.free([TRIAL])
            time.sleep(0.05)
        assert lease.held()


def test_a_lease_is_over_only_for_those_who_have_watched_it(tmp_path, frozen, clock):
    observer = Leases(tmp_path, DEADLINE_S)
    watch_until_over(observer, clock)
    assert clock.now - 1000 == pytest.approx(DEADLINE_S, abs=0.2)
    assert Leases(tmp_path, DEADLINE_S).acquire(TRIAL) is None  # this one has not
    with observer.acquire(TRIAL) as taken:
        assert taken.generation == 2 and taken.held()
        assert not frozen.held() and frozen.lost
        frozen.release()  # what others hold by now stays
        assert taken.held()
    assert files(tmp_path) == []


def test_a_sleep_of_the_whole_machine_is_not_the_owners_death(tmp_path, frozen, clock):
    """Both were asleep: one look after the night must not count for all of it."""
    observer = Leases(tmp_path, DEADLINE_S)
    assert not observer.free([TRIAL])
    clock.now += 8 * 3600
    assert not observer.free([TRIAL])
    frozen._beat()
    clock.now += DEADLINE_S / 2
    assert not observer.free([TRIAL])


def test_clocks_that_go_backwards_change_nothing(tmp_path, frozen, clock, monkeypatch):
    observer = Leases(tmp_path, DEADLINE_S)
    wall = [2e9]
    monkeypatch.setattr(leases.time, "time", lambda: wall[0])
    for _ in range(40):
        assert not observer.free([TRIAL])
        wall[0] -= 3600
        clock.now -= 5.0
    os.utime(tmp_path / "leases" / f"{TRIAL}.1.json", (0, 0))  # 1970
    assert not observer.free([TRIAL])
    watch_until_over(observer, clock)
    with observer.acquire(TRIAL) as taken:
        assert taken.held()


def test_an_owner_that_wakes_up_stays_without_it_when_the_next_one_has_gone(tmp_path, frozen, clock):
    observer = Leases(tmp_path, DEADLINE_S)
    watch_until_over(observer, clock)
    observer.acquire(TRIAL).release()
    assert not frozen.held()
    with Leases(tmp_path).acquire(TRIAL) as third:
        frozen._beat()
        assert third.held() and not frozen.held()


def test_the_owner_is_told_once_that_it_has_lost(tmp_path):
    told = []
    lease = Leases(tmp_path, 0.6).acquire(TRIAL, on_lost=told.append)
    (tmp_path / "leases" / f"{TRIAL}.2.json").write_text("{}")
    deadline = time.monotonic() + 5
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.lost and not lease.held()
    lease.release()
    assert len(told) == 1 and "taken over" in told[0]
    assert files(tmp_path) == [f"{TRIAL}.1.json", f"{TRIAL}.2.json"]


def test_a_file_that_was_half_written_is_over_after_the_deadline(tmp_path, clock):
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / f"{TRIAL}.1.json").write_bytes(b"")
    observer = Leases(tmp_path, DEADLINE_S)
    assert observer.acquire(TRIAL) is None
    watch_until_over(observer, clock)
    assert observer.acquire(TRIAL) is not None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device")])
def test_a_full_disk_leaves_no_lease(tmp_path, monkeypatch, error):
    def full(*arguments):
        raise error

    with monkeypatch.context() as disk:
        disk.setattr(leases.os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            Leases(tmp_path).acquire(TRIAL)
    assert files(tmp_path) == []


# --- many at once --------------------------------------------------------------------------------------------------


def test_exactly_one_of_many_threads_gets_a_free_lease(tmp_path):
    for _ in range(20):
        start = threading.Barrier(16)

        def take(start=start):
            start.wait()
            return Leases(tmp_path).acquire(TRIAL)

        with ThreadPoolExecutor(16) as pool:
            got = [g.result() for g in [pool.submit(take) for _ in range(16)]]
        held = [lease for lease in got if lease is not None]
        assert len(held) == 1
        held[0].release()


def test_exactly_one_of_many_takes_over(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "_is_dead", lambda content: b"dead" in content)
    for _ in range(20):
        (tmp_path / "leases").mkdir(exist_ok=True)
        (tmp_path / "leases" / f"{TRIAL}.1.json").write_bytes(b"dead")
        start = threading.Barrier(16)

        def take(start=start):
            start.wait()
            return Leases(tmp_path).acquire(TRIAL)

        with ThreadPoolExecutor(16) as pool:
            got = [g.result() for g in [pool.submit(take) for _ in range(16)]]
        held = [lease for lease in got if lease is not None and lease.held()]
        assert len(held) == 1 and held[0].generation == 2
        held[0].release()
        assert files(tmp_path) == []


COUNTER = """
import sys, time
from pathlib import Path
from ecgscale.leases import Leases
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
leases = Leases(folder)
while rounds:
    lease = leases.acquire("counter")
    if lease is None:
        time.sleep(0.001)
        continue
    with lease:
        assert lease.held()
        value = int((folder / "value").read_text())
        time.sleep(0.001)
        (folder / "value").write_text(str(value + 1))
    rounds -= 1
"""


def test_processes_exclude_each_other(tmp_path):
    """A counter that is read, and written a moment later, loses no step."""
    (tmp_path / "value").write_text("0")
    command = [sys.executable, "-c", COUNTER, str(tmp_path), "25"]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert (tmp_path / "value").read_text() == "100"


@pytest.mark.skipif(leases._here() is None, reason="nobody tells which machine this is")
def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path):
    holder = f"""
import time
from pathlib import Path
from ecgscale.leases import Leases
lease = Leases(Path({str(tmp_path)!r})).acquire({TRIAL!r})
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert Leases(tmp_path).acquire(TRIAL) is None
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10  # not waited for: it is a zombie, and dead all the same
    while not Leases(tmp_path).free([TRIAL]) and time.monotonic() < deadline:
        time.sleep(0.02)
    with Leases(tmp_path).acquire(TRIAL) as taken:
        assert taken.generation == 2
    process.wait()
    process.stdout.close()
