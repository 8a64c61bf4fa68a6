"""A sweep under random kills, real processes and all: what is left must be what an undisturbed run leaves.

Two commands at once work on one results folder, and one of them or one of their workers is killed again and again, at
moments that a seed draws; with nodes, one of the commands runs on a Ray cluster of this machine whose nodes are killed,
too. Commands are forked from a server that has loaded what they need, so that most of the time somebody trains.

Run as a program it prints a table: `storm.py [--kills 50] [--seed 0] [--nodes 3]`.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ecgscale.data.embedded import write_population
from ecgscale.data.populations import populations
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.execution import Execution
from ecgscale.plan import plan
from ecgscale.results import RunRecord, read
from ecgscale.specs import load_grid

SWEEP = """\
name: storm
question: Does it survive?
data:
  train_on: A
  transfer_to: [B]
  n_train_records: 200
  split: {{seed: 0, validation: 0.15, test: 0.25}}
input: {{fs_hz: 100, n_samples: 1024, patch_samples: 16}}
axes:
  family: [resnet, transformer]
  paradigm: [sl, ssl]
  rung: [20K]
  data_fraction: [1/2, 1]
  seed: {seeds}
train:
  budget: {{kind: samples_seen, value: {n_samples_seen}}}
  batch_size: 16
  learning_rate:
    resnet: {{base: 3e-3}}
    transformer: {{base: 2e-3}}
  n_evaluations: 3
probe:
  tasks:
    - {{name: SB, column: SB}}
    - {{name: age, column: age, kind: regression}}
"""
TRIALS_PER_SEED = 8

DRIVER_9, DRIVER_TERM = "driver: kill -9", "driver: SIGTERM"
WORKER_9, WORKER_TERM = "worker: kill -9", "worker: SIGTERM"
NODE_9 = "Ray node: kill -9"
ALONE = (["work"], ["sweep", "--executor", "inprocess"])
"""Commands that train in their own process."""
CREW = (["work", "--processes", "2"],)

EXIT_DONE, EXIT_TRIALS_FAILED, EXIT_INTERRUPTED = 0, 3, 130
LEASE_S, CHECKPOINT_S = 2.0, 0.1
PATIENCE_S = 300.0
"""For a victim, or for a command to end, on a machine that does other work as well."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["ecgscale.cli", "ecgscale.executors.inprocess", "ecgscale.sweep", "ecgscale.console_plan"]
)


@dataclass
class Outcome:
    """What a storm has left."""

    trials: int
    wanted: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    twice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """Ends of commands that no kill explains."""
    n_resumes: int = 0
    seconds: float = 0.0

    @property
    def harm(self) -> list[str]:
        """What must not be; empty when the sweep has survived as many kills as were wanted."""
        bad = ("twice", "missing", "different", "left_over", "surprises")
        found = [f"{name}: {what}" for name in bad for what in getattr(self, name)]
        if self.kills.total() < self.wanted:
            found.append(
                f"the trials had ended after {self.kills.total()} of {self.wanted} kills: give them more steps"
            )
        return found

    def table(self) -> str:
        lines = [f"{kind:<20} {n:>5}" for kind, n in sorted(self.kills.items())]
        lines += [f"{'kills':<20} {self.kills.total():>5}", ""]
        lines += [f"{name:<20} {value:>5}" for name, value in (("trials", self.trials), ("rows", self.rows))]
        for name in ("twice", "missing", "different", "left_over", "surprises"):
            found = getattr(self, name)
            lines.append(f"{name.replace('_', ' '):<20} {len(found):>5}  {'; '.join(found)[:2000]}".rstrip())
        lines.append(f"{'resumed trainings':<20} {self.n_resumes:>5}")
        lines.append(f"{'seconds':<20} {self.seconds:>5.0f}")
        return "\n".join(lines)


def scores(record: RunRecord) -> tuple[Any, ...]:
    """What must not depend on who was killed when."""
    transfer = tuple((s.population, s.task, s.loss, s.auroc, s.l2) for s in record.transfer)
    return record.status, record.id_loss, record.id_loss_last, record.val_loss_best, record.val_loss_last, transfer


def undisturbed(sweep_file: Path, data: Path, folder: Path) -> dict[str, tuple[Any, ...]]:
    """Trial → what a run one by one in this process says."""
    from ecgscale.executors import inprocess

    grid = load_grid(sweep_file)
    inprocess.run(plan(grid, populations(grid, data)).specs, Execution(data, folder, grid.name), lambda end: None)
    return {row.trial_id: scores(row) for row in read(folder)}


def run_command(arguments: list[str], log: Path) -> None:
    """In its own process: what a person would have typed."""
    from ecgscale.cli import main

    told = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.argv = ["ecgscale", *arguments]
    main()


@dataclass
class Command:
    """One run of the command line."""

    arguments: list[str]
    process: ForkServerProcess
    log: Path
    killed: bool = False


Places = Sequence[Sequence[list[str]]]
"""How many commands run at once, and which they may be."""


class Storm:
    def __init__(self, sweep_file: Path, data: Path, folder: Path, seed: int, places: Places) -> None:
        self.sweep_file, self.data, self.folder = sweep_file, data, folder
        self.random = random.Random(seed)
        self.places = places
        self.running: list[Command | None] = [None] * len(places)
        self.ended: list[Command] = []

    # --- commands --------------------------------------------------------------------------------------------------

    def start(self, command: list[str]) -> Command:
        arguments = [*command, str(self.sweep_file), "--data", str(self.data), "--out", str(self.folder)]
        arguments += ["--lease", str(LEASE_S), "--checkpoint-s", str(CHECKPOINT_S)]
        log = self.folder.parent / f"{self.folder.name}-{time.monotonic_ns()}.log"
        log.touch()  # it may be killed before it says anything
        process = _server.Process(target=run_command, args=(arguments, log))
        process.start()
        return Command(command, process, log)

    def fill_places(self) -> bool:
        """Starts what is missing; False when a command says that nothing is left to do."""
        for k, command in enumerate(self.running):
            if command is not None and command.process.is_alive():
                continue
            if command is not None:
                self.ended.append(command)
                self.running[k] = None
                if command.process.exitcode == EXIT_DONE:
                    return False
            self.running[k] = self.start(self.random.choice(self.places[k]))
        return True

    def alive(self) -> list[Command]:
        return [command for command in self.running if command is not None and command.process.is_alive()]

    def wait(self, patience_s: float) -> None:
        for command in self.alive():
            command.process.join(patience_s)
        self.ended += [command for command in self.running if command is not None]
        self.running = [None] * len(self.places)

    def end(self) -> None:
        """Whatever has happened, nothing runs afterwards."""
        for command in self.alive():
            command.process.kill()
            command.process.join()

    # --- kills -----------------------------------------------------------------------------------------------------

    def holders(self) -> list[int]:
        """The processes that hold a lease."""
        found = []
        for path in (self.folder / "leases").glob("*.json"):
            with suppress(OSError, ValueError, KeyError):  # it is being written, or given back
                pid = int(json.loads(path.read_bytes())["process"].partition(":")[0])
                os.kill(pid, 0)
                found.append(pid)
        return found

    def hit(self, kind: str) -> bool:
        """Whether there was somebody to hit at this moment."""
        number = signal.SIGKILL if kind.endswith("-9") else signal.SIGTERM
        commands = {command.process.pid: command for command in self.alive()}
        if kind.startswith("driver"):
            if not commands:
                return False
            victim = self.random.choice(sorted(commands))
            commands[victim].killed = True
        else:
            workers = [pid for pid in self.holders() if pid not in commands]
            if not workers:
                return False
            victim = self.random.choice(sorted(workers))
        with suppress(ProcessLookupError):  # it has ended at this moment
            os.kill(victim, number)
            return True
        return False


@contextmanager
def storm(sweep_file: Path, data: Path, folder: Path, seed: int, places: Places) -> Iterator[Storm]:
    made = Storm(sweep_file, data, folder, seed, places)
    try:
        yield made
    finally:
        made.end()


def rage(
    sweep_file: Path,
    data: Path,
    folder: Path,
    expected: dict[str, tuple[Any, ...]],
    *,
    seed: int,
    kills: int,
    pause_s: float,
    crew: bool = True,
    cluster: "RayNodes | None" = None,
) -> Outcome:
    """Kills so often, lets the sweep end, and compares.

    Args:
        expected: what `undisturbed` said.
        pause_s: between two kills, at most; drawn.
        crew: one of the two commands has worker processes, and they are hit, too.
        cluster: one of the two commands runs there, and its nodes are hit, too.
    """
    started = time.monotonic()
    outcome = Outcome(len(expected), kills)
    kinds, places = [DRIVER_9, DRIVER_TERM], [ALONE, ALONE]
    if crew:
        kinds, places = [*kinds, WORKER_9, WORKER_TERM], [CREW, ALONE]
    if cluster is not None:
        kinds, places = [*kinds, NODE_9], [(["sweep", "--executor", "ray", "--address", cluster.address],), *places[:1]]
    with storm(sweep_file, data, folder, seed, places) as running:
        # every kind equally often, in a drawn order
        schedule = [kinds[k % len(kinds)] for k in range(kills)]
        running.random.shuffle(schedule)
        for kind in schedule:
            give_up = time.monotonic() + PATIENCE_S
            next_at = time.monotonic() + running.random.uniform(0, pause_s)
            if running.random.random() < 0.75:  # most kills hit trials, some hit whatever goes on
                while running.fill_places() and not running.holders() and time.monotonic() < give_up:
                    time.sleep(0.02)
                next_at = time.monotonic() + running.random.uniform(0, pause_s)
            hit = False
            print(f"{time.monotonic() - started:6.0f} s  {kind}", file=sys.stderr, flush=True)
            while not hit and time.monotonic() < give_up and running.fill_places():
                time.sleep(0.02)
                if time.monotonic() >= next_at:
                    hit = cluster.kill(running.random) if cluster and kind == NODE_9 else running.hit(kind)
            if not hit:
                break  # nothing is left to do: the caller asked for more kills than the trials last for
            outcome.kills[kind] += 1
        patience_s = PATIENCE_S + 20 * len(expected)
        running.wait(patience_s)
        last = running.start(["work"])
        last.process.join(patience_s)
        commands, last_told = running.ended, last.log.read_text(errors="replace")
    for command in commands:
        if (code := command.process.exitcode) in (EXIT_DONE, -signal.SIGKILL):
            continue
        told = command.log.read_text(errors="replace")
        explained = {EXIT_INTERRUPTED: command.killed, -signal.SIGTERM: command.killed}
        explained[EXIT_TRIALS_FAILED] = "died" in told  # one trial was hit again and again
        if not explained.get(code, False):
            outcome.surprises.append(f"{' '.join(command.arguments)} ended with {code}: {told[-800:]}")
    if last.process.exitcode != EXIT_DONE:
        outcome.surprises.append(f"the last command ended with {last.process.exitcode}: {last_told[-800:]}")
    compare(folder, expected, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


def compare(folder: Path, expected: dict[str, tuple[Any, ...]], outcome: Outcome) -> None:
    rows = read(folder)
    times = Counter(row.trial_id for row in rows)
    outcome.rows = len(rows)
    outcome.twice = [trial for trial, n in times.items() if n > 1]
    outcome.missing = [trial for trial in expected if trial not in times]
    outcome.different = [row.label for row in rows if scores(row) != expected.get(row.trial_id)]
    outcome.n_resumes = sum(row.n_resumes or 0 for row in rows)
    published = {"rows": ".parquet", "transfer": ".parquet", "encoders": ".ckpt"}
    shared = {"baselines": ".json", "features": ".npz"}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        is_whole = (published | shared).get(path.parent.name) == path.suffix and not name.endswith(".failed.parquet")
        if path.is_file() and not is_whole and name != "sweep.yaml":
            outcome.left_over.append(name)


# --- Ray -----------------------------------------------------------------------------------------------------------


class RayNodes:
    """A cluster of several nodes on this machine: a head without a CPU, and nodes of one CPU that may be killed."""

    def __init__(self, n: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = self.cluster.address
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(n)]

    def kill(self, drawn: random.Random) -> bool:
        """Kills one and lets another join."""
        victim = self.nodes.pop(drawn.randrange(len(self.nodes)))
        self.cluster.remove_node(victim, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        return True

    def stop(self) -> None:
        self.cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=3, help="of the Ray cluster; 0 for no Ray")
    parser.add_argument("--seeds", type=int, default=3, help=f"of the sweep: {TRIALS_PER_SEED} trials each")
    parser.add_argument("--samples", type=int, default=640, help="seen by each trial")
    parser.add_argument("--pause-s", type=float, default=1.5, help="between two kills, at most")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data, sweep_file = Path(place) / "data", Path(place) / "storm.yaml"
        for name, n_records in (("A", 300), ("B", 150)):
            write_population(data / name, POPULATIONS[name], n_records=n_records, seed=0, jobs=1)
        sweep_file.write_text(SWEEP.format(seeds=list(range(chosen.seeds)), n_samples_seen=chosen.samples))
        started = time.monotonic()
        expected = undisturbed(sweep_file, data, Path(place) / "undisturbed")
        print(f"undisturbed: {len(expected)} trials one by one in {time.monotonic() - started:.0f} s", flush=True)
        cluster = RayNodes(chosen.nodes) if chosen.nodes else None
        try:
            outcome = rage(
                sweep_file,
                data,
                Path(place) / "storm",
                expected,
                seed=chosen.seed,
                kills=chosen.kills,
                pause_s=chosen.pause_s,
                cluster=cluster,
            )
        finally:
            if cluster is not None:
                cluster.stop()
        print(outcome.table())
    sys.exit(bool(outcome.harm))


if __name__ == "__main__":
    main()
