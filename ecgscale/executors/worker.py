"""Worker processes that agree through the results folder alone: no server, any number, on any machines that see it.

Each takes the first trial, in starting order, that has no row and that nobody else holds, runs it, and looks again,
until every trial has ended somewhere. A worker that is killed is missed by nobody: its lease runs out, and another goes
on from its checkpoint.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from ecgscale.budget import Gate
from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop, never
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, Elsewhere, worker_died
from ecgscale.executors.leftovers import clear_away
from ecgscale.executors.slots import gpus_here
from ecgscale.leases import Leases
from ecgscale.preemption import PREEMPTED, StopRequest
from ecgscale.side_by_side import SideBySide
from ecgscale.specs import TrialSpec

LOOK_S = 1.0
"""Between two looks at the folder, while others hold all that is left. Our choice."""

OWNERS_LOST = 3
"""A trial that so many workers have died of is left alone by this command. Our choice."""

DEATHS_WITHOUT_AN_END = OWNERS_LOST + 1
"""So many deaths per worker, while no trial ends, are the machine's fault, no trial's: no more workers are started."""

log = logging.getLogger(__name__)

_spawn = multiprocessing.get_context("spawn")  # not forked: a child must load torch and CUDA for itself


def run(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    processes: int = 1,
    stop: Stop = never,
    gate: Gate | None = None,
    together: SideBySide | None = None,
) -> None:
    """Works until every trial has ended, here or elsewhere, and reports each end once.

    Returns early when asked to stop: by `stop`, what runs then ends; by a signal of `preemption`, what runs then keeps
    its checkpoint.

    Args:
        processes: workers on this machine; they take its GPUs in turn. With 1 it is this process itself.
        gate: of one process; several can't share it.
        together: which trials train side by side; by default none.

    Raises:
        EcgscaleError: a gate for several processes.
    """
    lost_before = Leases(execution.results).generations()
    if processes == 1:
        _work(specs, execution, lost_before, report, stop, gate, together)
    elif gate is not None:
        raise EcgscaleError("a budget or a deadline needs --executor ray or inprocess, or --processes 1")
    else:
        crew = _Crew(tuple(specs), execution, lost_before, report, stop, processes, together)
        crew.work()
        clear_away(execution.results, crew.settled)  # of workers that were killed after what they published


def _work(
    specs: Sequence[TrialSpec],
    execution: Execution,
    lost_before: dict[str, int],
    report: Report,
    stop: Stop,
    gate: Gate | None = None,
    together: SideBySide | None = None,
    processes: int = 1,
) -> None:
    from ecgscale.executors.inprocess import ends  # brings torch along

    elsewhere = Elsewhere(execution)
    left = {spec.trial_id: spec for spec in specs}
    together = together or SideBySide()

    def end_with(end: Ended) -> None:
        del left[end.trial_id]
        report(end)

    with StopRequest().listening() as signals:
        while left:
            over, free = elsewhere.look(left.values())
            for end in over:
                end_with(end)
            generations = elsewhere.leases.generations()
            free.sort(key=lambda spec: generations.get(spec.trial_id, 0) >= OWNERS_LOST)  # what may kill us comes last
            lost_here = {t: n - lost_before.get(t, 0) for t, n in generations.items()}
            # what may have cost us a worker runs alone: nothing dies with it
            for group in together.without(t for t, n in lost_here.items() if n > 0).groups(free, processes):
                if stop() or signals.reason is not None:
                    return
                if lost_here.get(group[0].trial_id, 0) >= OWNERS_LOST:
                    end_with(worker_died(group[0], execution, OWNERS_LOST, given_up=True))
                    continue
                group = tuple(spec for spec in group if gate is None or not gate.refuses(spec.trial_id))
                if not group:
                    return
                statuses = set()
                for end in ends(group, execution, elsewhere.leases, signals):
                    if gate is not None:
                        gate.ended(end.trial_id, end.wall_s)
                    statuses.add(end.status)
                    if end.status not in (PREEMPTED, LEASED_ELSEWHERE):
                        end_with(end)
                if PREEMPTED in statuses:
                    return
                if statuses != {LEASED_ELSEWHERE}:
                    break
            else:
                if stop() or signals.reason is not None:
                    return
                if left:
                    time.sleep(min(LOOK_S, elsewhere.leases.beat_s))


# --- several on one machine ----------------------------------------------------------------------------------------


@dataclass
class _Member:
    process: SpawnProcess
    ends: Connection


@dataclass
class _Crew:
    """The workers of one command: starts another when one is killed, and passes every end on once."""

    specs: tuple[TrialSpec, ...]
    execution: Execution
    lost_before: dict[str, int]
    report: Report
    stop: Stop
    n: int
    together: SideBySide | None
    members: dict[int, _Member] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    deaths: int = 0

    def work(self) -> None:
        with StopRequest().listening() as signals:
            try:
                for number in range(self.n):
                    self._start(number)
                while self.members:
                    if signals.reason is not None:
                        self._ask_to_stop()
                    elif self.stop():
                        self._let_end()
                    self._take_ends(LOOK_S)
            except BaseException:  # Ctrl-C, or a bug in `report`
                self._ask_to_stop()
                for member in self.members.values():
                    member.process.join()
                raise

    def _start(self, number: int) -> None:
        ends, sink = _spawn.Pipe()
        left = tuple(spec for spec in self.specs if spec.trial_id not in self.reported)
        arguments = (number, sink, left, self.execution, self.lost_before, self.together, self.n)
        process = _spawn.Process(target=_child, args=arguments)
        process.start()
        sink.close()  # so that the pipe ends with the child
        self.members[number] = _Member(process, ends)

    def _ask_to_stop(self) -> None:
        self.n = 0  # nobody is started again
        for member in self.members.values():
            member.process.terminate()

    def _let_end(self) -> None:
        self.n = 0
        for member in self.members.values():
            with suppress(OSError):  # it has ended
                member.ends.send(None)

    def _take_ends(self, timeout_s: float) -> None:
        numbers = {id(member.ends): number for number, member in self.members.items()}
        for ready in wait([member.ends for member in self.members.values()], timeout_s):
            number = numbers[id(ready)]
            try:
                self._note(self.members[number].ends.recv())
            except (EOFError, OSError):  # also what a killed child left half sent
                self._see_off(number)

    def _note(self, end: Ended) -> None:
        self.deaths = 0
        if end.trial_id not in self.reported:
            self.reported.add(end.trial_id)
            if end.is_settled:
                self.settled.add(end.trial_id)
            self.report(replace(end, shared=True))

    def _see_off(self, number: int) -> None:
        member = self.members.pop(number)
        member.ends.close()
        member.process.join()
        if self.n and len(self.reported) < len(self.specs):  # killed, hung, or somebody asked this one to stop
            self.deaths += 1
            if self.deaths <= DEATHS_WITHOUT_AN_END * self.n:
                self._start(number)
            else:
                log.warning("%d workers died one after the other while no trial ended; not started again", self.deaths)


def _child(
    number: int,
    sink: Connection,
    specs: tuple[TrialSpec, ...],
    execution: Execution,
    lost_before: dict[str, int],
    together: SideBySide | None,
    processes: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent asks us to stop
    _take_gpu(number)
    with _stopped_with_parent(), suppress(BrokenPipeError):
        # all the parent ever says is: no more
        _work(specs, execution, lost_before, sink.send, sink.poll, together=together, processes=processes)


def _take_gpu(number: int) -> None:
    """One of the GPUs this process may see, before CUDA is loaded."""
    gpus = gpus_here()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]


@contextmanager
def _stopped_with_parent() -> Iterator[None]:
    """Within the block, the death of the parent asks this process to stop, as the parent itself would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    done = threading.Event()

    def watch(sentinel: int, is_done: Callable[[], bool]) -> None:
        while not is_done():
            if wait([sentinel], LOOK_S):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, args=(parent.sentinel, done.is_set), daemon=True).start()
    try:
        yield
    finally:
        done.set()
