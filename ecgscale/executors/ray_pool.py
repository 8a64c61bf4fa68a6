"""Trials on a Ray cluster: our own queue in the driver, over actors that each hold a slot.

`schedule.Queue` decides what starts next and where; Ray starts the actors there, and carries specs and ends. Nodes may
join and leave at any time, and workers die: what ran there goes on elsewhere, from its checkpoint.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from ecgscale import memory, results
from ecgscale.budget import Gate
from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop, lost, shipping
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE, left_out, worker_died
from ecgscale.executors.ray_slot import Answer, Slot, ask_to_stop, gpu_memory_gib
from ecgscale.executors.slots import Slots
from ecgscale.failures import FailureClass
from ecgscale.leases import Lease, Leases
from ecgscale.preemption import PREEMPTED, StopRequest
from ecgscale.schedule import Device, Queue, Start
from ecgscale.side_by_side import Group
from ecgscale.specs import TrialSpec

LOOK_S = 1.0
"""Between two looks at the nodes. Our choice."""

TRIM_S = 30.0
"""Between two times that freed memory is given back: measured, 596 MB after 10,000 trials without. Our choice."""

GRACE_S = 30.0
"""For a step and a checkpoint, when trials were asked to stop. What Slurm and Kubernetes give by default."""

NODE_LOSSES_FORGIVEN = 5
"""A trial that loses its node goes on at once; after so many, it may be the trial that takes nodes down. Our choice."""

STARTS_FORGIVEN = 3
"""A node on which so many workers in a row did not start gets no more. Our choice."""

LEAST_LIMIT_BYTES = 2 * 2**30
"""A worker may hold this much between trials, however small its node; after 24 small trials it holds 0.4 GiB."""

MOST_ASKED_FOR = 512
"""Slots by which an autoscaler is asked to grow. Ray's second one gives nothing if it can't give all: so we ask for
half as many, and again, while no node joins. Our choice."""

ASK_FOR_LESS_S = 10.0
"""An autoscaler looks every 5 s."""

_DOUBTFUL = (FailureClass.BUG, FailureClass.OUT_OF_MEMORY, FailureClass.INFRASTRUCTURE)
"""Failures after which a process is not trusted with another trial: an error on a GPU stays with its process."""

_numbers = itertools.count()
"""Of workers; Ray keeps the name of a dead one for a while."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """One actor, its share of a place, and what it does: start, wait, or run a trial, or several side by side."""

    actor: Any
    place: Place
    share: float
    pending: Any
    """What it is to answer; None while it waits."""
    pid: int | None = None
    """None until it has started."""
    group: Group = ()
    leases: dict[str, Lease] = field(default_factory=dict)
    """Of its trials, if rows are shipped: else it holds the leases itself."""


@dataclass(eq=False)
class Place(Device):
    """A GPU of a node, or CPUs for one trial; as a device it counts trials, while `held` counts actors."""

    node: str = ""
    at_once: int = 1
    """Trials, however small."""
    limit_bytes: float = LEAST_LIMIT_BYTES
    gpu: Any = None
    """The placement group that holds one GPU for us: actors beside each other would be put on any of the node."""
    workers: list[Worker] = field(default_factory=list)
    held: Device = field(init=False)

    def __post_init__(self) -> None:
        self.held = Device(places=self.places)

    def take_gpu(self, cpus: float) -> None:
        if self.gpu is None:
            here = [{"ray.io/node-id": self.node}]
            self.gpu = placement_group([{"GPU": 1, "CPU": cpus}], bundle_label_selector=here)

    def give_back(self) -> None:
        if self.gpu is not None:
            remove_placement_group(self.gpu)
            self.gpu = None

    def rank(self, share: float) -> tuple[bool, bool, float]:
        """First where a worker waits for such a trial, then where one is starting: room is made there already."""
        starts = any(worker.pid is None and worker.share == share for worker in self.workers)
        return self.waiting(share) is None, not starts, self.free

    def waiting(self, share: float) -> Worker | None:
        return next((w for w in self.workers if w.pending is None and w.share == share), None)


class Pool:
    """The workers of one run.

    Args:
        autoscaled: the cluster may grow when it is asked to.
    """

    def __init__(
        self, execution: Execution, report: Report, slots: Slots, stop: Stop, gate: Gate | None, *, autoscaled: bool
    ) -> None:
        self.execution = execution
        self.report = report
        self.slots = slots
        self.stop = stop
        self.gate = gate
        self.autoscaled = autoscaled
        self.on_gpus = False
        self.leases = Leases(execution.results, execution.lease_s)
        self.queue: Queue[Group] = Queue()
        self.places: dict[str, list[Place]] = {}  # by node
        self.workers: list[Worker] = []
        self.orphans: dict[str, tuple[TrialSpec, float]] = {}  # their nodes are gone; they wait for their leases to end
        self._over = False
        self._node_losses: Counter[str] = Counter()
        self._failed_starts: Counter[str] = Counter()
        self._why_none_starts = ""
        self._asked_for: Counter[float] = Counter()
        self._growth = MOST_ASKED_FOR
        self._next_less = time.monotonic() + ASK_FOR_LESS_S
        self._next_look = 0.0
        self._next_trim = time.monotonic() + TRIM_S

    def run(self, groups: Sequence[Group]) -> None:
        """Until every trial has ended, or the run was asked to stop."""
        with StopRequest().listening(to_ctrl_c=True) as signals:
            try:
                self.queue = self._queue(groups, signals)
                while (self.queue or self.orphans or self._running()) and signals.reason is None:
                    self._look()
                    self._start_what_fits()
                    self._hear()
            except BaseException:  # a bug in `report`, or a second Ctrl-C
                self._end()
                raise
            else:
                self._end()
            finally:
                for worker in list(self.workers):
                    self._close(worker)
                for places in self.places.values():
                    for place in places:
                        place.give_back()
                self._ask_for([])

    def _queue(self, groups: Sequence[Group], signals: StopRequest) -> Queue[Group]:
        """Every group with its share of a GPU, or of the CPUs of one trial."""
        self.on_gpus = self.slots.wait_for_gpus or any(node["Resources"].get("GPU") for node in _alive().values())
        if not (self.on_gpus and groups):
            return Queue((group, 1.0) for group in groups)
        memory_gib = self.slots.gpu_memory_gib
        if memory_gib is None and self.slots.trials_per_gpu is None and not self.slots.alone:
            self.queue.put_first(groups[0], 1.0)  # until the shares are known, an autoscaler is asked for one
            while not self.places and signals.reason is None and not self.stop():
                self._look()
                time.sleep(0 if self.places else LOOK_S)
            memory_gib = min(filter(None, map(_gpu_memory_gib, self.places)), default=None)
        return Queue((group, self._share(group, memory_gib)) for group in groups)

    def _share(self, group: Group, memory_gib: float | None) -> float:
        stacked = self.execution.way(group[0].trial_id) == "stacked"
        return self.slots.group_share(group, memory_gib, stacked=stacked)

    def _running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.group]

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """At the nodes, and at trials whose nodes are gone; once in a while."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        if time.monotonic() >= self._next_trim:
            self._next_trim = time.monotonic() + TRIM_S
            memory.trim()
        if self.stop():
            self._launch_no_more()
        self._look_at_nodes()
        for trial_id in self.leases.free(self.orphans):
            self.leases.clear(trial_id)  # the worker that gets it has not watched it
            spec, share = self.orphans.pop(trial_id)
            self.queue.put_first((spec,), share)
        self._ask_for(self._wanted_shares())

    def _look_at_nodes(self) -> None:
        alive = _alive()
        for node in self.places.keys() - alive.keys():
            for place in self.places.pop(node):
                place.give_back()
            for worker in [w for w in self.workers if w.place.node == node and w.pending is None]:
                self._forget(worker)  # of the others, Ray tells
        for node in alive.keys() - self.places.keys():
            places = self._places_of(node, alive[node]["Resources"])
            if places:
                self.places[node] = places
                self._next_less = time.monotonic() + ASK_FOR_LESS_S
        if self.places and all(map(self._is_broken, self.places)) and not self._running():
            raise EcgscaleError(f"no worker starts on any node of the cluster: {self._why_none_starts}")
        if not self.places and not self.autoscaled:
            raise EcgscaleError(f"this machine offers Ray fewer than the {self.execution.threads} CPUs of a trial")

    def _places_of(self, node: str, resources: dict[str, float]) -> list[Place]:
        at_once = int(resources.get("CPU", 0) // self.execution.threads)
        n_devices = int(resources.get("GPU", 0)) if self.on_gpus else 1 if self.slots.alone else at_once
        n_places = min(at_once, n_devices)
        if n_places == 0:
            return []
        limit_bytes = max(LEAST_LIMIT_BYTES, resources.get("memory", 0) / at_once)
        each = at_once // n_places
        return [Place(places=each, at_once=each, node=node, limit_bytes=limit_bytes) for _ in range(n_places)]

    def _wanted_shares(self) -> list[float]:
        """Of what runs, and of what waits as far as an autoscaler may give it."""
        waiting = sorted(Counter(self.queue.shares()).elements(), reverse=True)
        self._growth = min(self._growth, max(1, len(waiting)))
        if time.monotonic() > self._next_less:
            self._next_less = time.monotonic() + ASK_FOR_LESS_S
            self._growth = max(1, self._growth // 2)
        return [worker.share for worker in self._running()] + waiting[: self._growth]

    def _ask_for(self, shares: Sequence[float]) -> None:
        """Of an autoscaler: our actors are bound to nodes that are there, which it does not take for a demand."""
        wanted = Counter(shares)
        if self.autoscaled and wanted != self._asked_for:
            self._asked_for = wanted
            gpu = [{"GPU": share} if self.on_gpus else {} for share in shares]
            request_resources(bundles=[{"CPU": self.execution.threads, **share} for share in gpu])

    # --- starting --------------------------------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        """Trials on workers that wait, and workers for trials that have none. Which trial a new one gets is open."""
        held_back: list[Start[Group, Place]] = []
        coming: list[Worker] = []
        places = [p for node, found in self.places.items() for p in found if not self._is_broken(node)]
        for start in self.queue.starts(places):
            place, share = start.device, start.share
            worker = place.waiting(share)
            if worker is not None and (group := self._that_may_start(start.job)):
                self._launch(worker, group)
                continue
            held_back.append(start)
            if not self._over:
                starting = (w for w in place.workers if w.pid is None and w.share == share and w not in coming)
                coming.append(next(starting, None) or self._open(place, share))
                self._make_room(place, coming)
        self.queue.put_back(held_back)
        if self._over:
            self.queue.clear()
        needed = self.queue.shares()
        for worker in [w for w in self.workers if w.pending is None and w.share not in needed]:
            self._close(worker)
        for place in places:
            if not place.workers:
                place.give_back()

    def _is_broken(self, node: str) -> bool:
        return self._failed_starts[node] >= STARTS_FORGIVEN

    def _that_may_start(self, group: Group) -> Group:
        if self._over or self.stop():
            self._launch_no_more()
            return ()
        allowed = tuple(spec for spec in group if self.gate is None or not self.gate.refuses(spec.trial_id))
        if len(allowed) < len(group):
            self._launch_no_more()
        return allowed

    def _launch_no_more(self) -> None:
        self._over = True
        self.queue.clear()
        self.orphans.clear()

    def _launch(self, worker: Worker, group: Group) -> None:
        worker.group = group
        if self.slots.ship_results:
            refused = [end for spec in group if (end := self._not_leased(worker, spec)) is not None]
            worker.group = group = tuple(spec for spec in group if spec.trial_id in worker.leases)
            self._tell(worker, refused)
            if not group:
                self._free(worker, [])
                return
        # the name is what the dashboard's task table shows
        name = group[0].label if len(group) == 1 else f"{group[0].label} and {len(group) - 1} beside it"
        run = worker.actor.run.options(name=name)
        worker.pending = run.remote(group, self.execution, self._to_ship(group))

    def _not_leased(self, worker: Worker, spec: TrialSpec) -> Ended | None:
        try:
            lease = self.leases.acquire(spec.trial_id, spec.label)
        except OSError as error:
            return lost(spec, f"its lease could not be written ({error.strerror or error})")
        if lease is None:
            return left_out(spec, LEASED_ELSEWHERE)
        worker.leases[spec.trial_id] = lease
        return None

    def _to_ship(self, group: Group) -> dict[str, bytes] | None:
        """What a node that sees no results must have to go on after trainings that have completed."""
        if not self.slots.ship_results:
            return None
        folder = self.execution.results
        trained = [spec.trial_id for spec in group if results.completed_row(folder, spec.trial_id) is not None]
        return {name: content for trial_id in trained for name, content in shipping.published(folder, trial_id)}

    def _open(self, place: Place, share: float) -> Worker:
        """Starts a worker; Ray waits until there is room for it."""
        there: Any = NodeAffinitySchedulingStrategy(place.node, soft=False)
        if self.on_gpus:
            place.take_gpu(cpus=place.at_once * self.execution.threads)
            there = PlacementGroupSchedulingStrategy(place.gpu, placement_group_bundle_index=0)
        actor = _actor.options(
            name=f"slot-{next(_numbers)}",
            num_cpus=self.execution.threads,
            num_gpus=share if self.on_gpus else 0,
            scheduling_strategy=there,
        ).remote()
        worker = Worker(actor, place, share, pending=actor.pid.remote())
        self.workers.append(worker)
        place.workers.append(worker)
        place.held.take(share)
        return worker

    def _make_room(self, place: Place, coming: Sequence[Worker]) -> None:
        """For those that come, in the place of workers that wait for trials of another share."""
        for worker in [w for w in place.workers if not w.group and w not in coming]:
            if place.held.is_overfull:
                self._close(worker)

    def _close(self, worker: Worker) -> None:
        self._forget(worker)
        ray.kill(worker.actor)

    def _forget(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.place.workers.remove(worker)
        worker.place.held.give(worker.share)
        for lease in worker.leases.values():
            lease.release()

    # --- hearing ---------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Waits for one answer, not for ever."""
        asked = {worker.pending: worker for worker in self.workers if worker.pending is not None}
        if not asked:
            time.sleep(LOOK_S)
            return
        for answered in ray.wait(list(asked), timeout=LOOK_S)[0]:
            worker = asked[answered]
            worker.pending = None
            try:
                answer = ray.get(answered)
            except RayError as error:
                self._bury(worker, error)
            else:
                if worker.pid is None:
                    worker.pid = answer
                    self._failed_starts[worker.place.node] = 0
                else:
                    self._take(worker, answer)

    def _take(self, worker: Worker, answer: Answer) -> None:
        specs = {spec.trial_id: spec for spec in worker.group}
        ends = list(answer.ends)
        if worker.leases:
            ends = [self._published(specs[e.trial_id], e, answer, worker.leases[e.trial_id]) for e in ends]
        distrusted = answer.asked_to_stop or any(end.failure in _DOUBTFUL for end in ends)
        if distrusted or answer.anonymous_bytes > worker.place.limit_bytes:
            self._close(worker)
        again = tuple(specs[end.trial_id] for end in ends if end.status == PREEMPTED)
        if again and not self._over:
            self.queue.put_first(again, worker.share)
        self._free(worker, ends)

    def _published(self, spec: TrialSpec, end: Ended, answer: Answer, lease: Lease) -> Ended:
        """Publishes files that were shipped, as the worker itself would have."""
        with lease:
            try:
                if not shipping.put(self.execution.results, answer.files.get(spec.trial_id, {}), lease.held):
                    return left_out(spec, LEASED_ELSEWHERE)
            except OSError as error:
                return lost(spec, f"its row could not be written ({error.strerror or error})")
        return end

    def _free(self, worker: Worker, ends: Iterable[Ended]) -> None:
        """The trials of this worker have ended."""
        worker.group, worker.leases = (), {}
        worker.place.give(worker.share)
        self._tell(worker, ends)

    def _tell(self, worker: Worker, ends: Iterable[Ended]) -> None:
        for end in ends:
            if self.gate is not None:
                self.gate.ended(end.trial_id, end.wall_s)
            if end.status != PREEMPTED:
                self.report(replace(end, shared=end.shared or self._is_shared(worker)))

    def _is_shared(self, worker: Worker) -> bool:
        return worker.share < 1 if self.on_gpus else len(self.places.get(worker.place.node, ())) > 1

    def _bury(self, worker: Worker, error: RayError) -> None:
        """Of a worker that is dead, or has raised what a trial never raises."""
        group, node = worker.group, worker.place.node
        self._close(worker)
        self._look_at_nodes()
        if not group:
            self._failed_starts[node] += 1
            self._why_none_starts = str(error).strip().splitlines()[-1]
            if node in self.places and self._failed_starts[node] == STARTS_FORGIVEN:
                log.warning("no worker starts on node %s: nothing more is run there (%s)", node, self._why_none_starts)
            return
        self._free(worker, [self._without_answer(spec, worker, error) for spec in group])

    def _without_answer(self, spec: TrialSpec, worker: Worker, error: RayError) -> Ended:
        if isinstance(error, RayTaskError):
            return lost(spec, f"its worker failed: {type(error.cause).__name__}: {error.cause}")
        its_node_is_gone = worker.place.node not in self.places
        if its_node_is_gone and self._node_losses[spec.trial_id] < NODE_LOSSES_FORGIVEN and not self._over:
            self._node_losses[spec.trial_id] += 1
            self.orphans[spec.trial_id] = (spec, worker.share)
            return left_out(spec, PREEMPTED)
        return worker_died(spec, self.execution)

    # --- ending ----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Asks the trials that still run to stop, and waits until they have written their checkpoints."""
        self._launch_no_more()
        pids: defaultdict[str, list[int]] = defaultdict(list)
        for worker in self._running():
            assert worker.pid is not None
            pids[worker.place.node].append(worker.pid)
        ask_to_stop(pids.pop(ray.get_runtime_context().get_node_id(), []))
        for node, elsewhere in pids.items():
            _on_node(node, ask_to_stop, elsewhere)
        patience_ends = time.monotonic() + GRACE_S
        while self._running() and time.monotonic() < patience_ends:
            self._hear()


_actor = ray.remote(Slot)


def _alive() -> dict[str, Any]:
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def _gpu_memory_gib(node: str) -> float | None:
    try:
        told: float | None = ray.get(_on_node(node, gpu_memory_gib))
    except RayError:  # the node is gone
        return None
    return told


def _on_node(node: str, function: Any, *arguments: Any) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=there).remote(*arguments)
