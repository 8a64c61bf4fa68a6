"""Trials of one stream side by side: the records are read once, and every trial is the one it would be alone."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ecgscale import cli, pretraining, turns
from ecgscale.data.store import Shards
from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess, worker
from ecgscale.hangs import HANGS, watched, where_it_hung
from ecgscale.leases import Leases
from ecgscale.plan import Plan, starting_order
from ecgscale.results import RunRecord, Status, read
from ecgscale.side_by_side import SideBySide, stream
from ecgscale.specs import TrialSpec
from ecgscale.training import Pretraining

N_STEPS, BATCH = 8, 8
"""Evaluated at 4 and 8. No other read of the stores is of so many records."""

MEMBERS = (("transformer-sl", "20K"), ("transformer-sl", "60K"), ("resnet-ssl", "20K"), ("transformer-ssl", "20K"))


def specs_of(plan: Plan, members=MEMBERS, **changes) -> tuple[TrialSpec, ...]:
    """Both families and paradigms and two sizes, on all data; nothing is read out elsewhere."""
    full = {spec.arm: spec for spec in plan.specs if spec.data_fraction == 1}
    train = plan.specs[0].train.model_dump() | {"n_evaluations": 2, "batch_size": BATCH}
    changed = {"n_steps": N_STEPS, "train": train, "transfer_to": ()} | changes
    return tuple(TrialSpec.model_validate(full[arm].model_dump() | changed | {"rung": rung}) for arm, rung in members)


def all_of(specs) -> SideBySide:
    return SideBySide({spec.trial_id: len(specs) for spec in specs})


def measured(rows: list[RunRecord]) -> dict[str, dict[str, object]]:
    """What must not depend on who else was there: everything but time, memory and who ran it when."""
    other = {"attempt", "started_at", "ended_at", "wall_s", "train_s", "read_outs_s", "peak_memory_bytes", "n_resumes"}
    other |= {"n_beside", "sweep", "argv", "git_dirty", "git_diff"}
    return {row.trial_id: row.model_dump(exclude=other) for row in rows}


def run(specs, execution, together=None) -> list[Ended]:
    ends: list[Ended] = []
    inprocess.run(specs, execution, ends.append, together=together)
    return ends


@pytest.fixture
def execution(data_dir: Path, tmp_path: Path) -> Execution:
    return Execution(data_dir, tmp_path / "results", "tiny")


@pytest.fixture(scope="module")
def specs(tiny_plan) -> tuple[TrialSpec, ...]:
    return specs_of(tiny_plan)


@pytest.fixture(scope="module")
def alone(specs, data_dir, tmp_path_factory) -> list[RunRecord]:
    """The rows of the same trials, one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    run(specs, Execution(data_dir, folder, "tiny"))
    return read(folder)


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """How many records each read of the packed stores gives."""
    counted: list[int] = []
    read_shards = Shards.read

    def read(self, slots):
        counted.append(len(slots))
        return read_shards(self, slots)

    monkeypatch.setattr(Shards, "read", read)
    return counted


def in_step(monkeypatch, spec: TrialSpec, n: int, do) -> None:
    """`do()` is called in the n-th step of one trial."""
    train_step = Pretraining.training_step

    def step(self, batch, batch_idx):
        if self.spec.trial_id == spec.trial_id and batch_idx == n:
            do()
        return train_step(self, batch, batch_idx)

    monkeypatch.setattr(Pretraining, "training_step", step)


# --- the same numbers, of one stream -------------------------------------------------------------------------------


def test_trials_side_by_side_leave_the_rows_they_leave_alone(specs, execution, alone, reads):
    started = time.perf_counter()
    ends = run(specs, execution, all_of(specs))
    whole_s = time.perf_counter() - started
    rows = read(execution.results)
    assert measured(rows) == measured(alone)
    assert {end.trial_id for end in ends} == {spec.trial_id for spec in specs}
    assert [end.status for end in ends] == [Status.COMPLETED] * len(specs)
    assert all(end.shared for end in ends)  # what runs out of memory beside others is tried again alone
    assert reads.count(BATCH) == N_STEPS  # each training batch was read once for all four
    assert not list((execution.results / "leases").glob("*"))
    assert sum(row.wall_s for row in rows) < whole_s  # nobody's time is counted twice
    assert all(0 < row.train_s < row.wall_s for row in rows)
    assert {row.n_beside for row in rows} == {3} and {row.n_beside for row in alone} == {0}


def test_read_outs_are_the_same_too(tiny_plan, execution, data_dir, tmp_path):
    specs = specs_of(tiny_plan, MEMBERS[:2], transfer_to=("B",))
    run(specs, execution, all_of(specs))
    run(specs, alone := replace(execution, results=tmp_path / "alone"))
    rows = read(execution.results)
    assert all(row.transfer for row in rows)
    assert measured(rows) == measured(read(alone.results))


def test_other_data_seeds_and_recipes_are_other_streams(specs, tiny_plan):
    one = specs[0]
    assert len({stream(spec) for spec in specs}) == 1
    half = next(spec for spec in tiny_plan.specs if spec.data_fraction == 0.5)
    train = one.train.model_copy(update={"batch_size": 16})
    other = [one.model_copy(update=change) for change in ({"seed": 1}, {"n_steps": 5}, {"train": train})]
    assert len({stream(spec) for spec in (one, half, *other)}) == 5


def test_groups_keep_the_order_and_the_limit(specs):
    others = tuple(spec.model_copy(update={"seed": 1}) for spec in specs[:2])
    mixed = (specs[0], others[0], *specs[1:], others[1])
    limit = SideBySide({spec.trial_id: 3 for spec in mixed})
    assert limit.groups(mixed) == [specs[:3], others, specs[3:]]
    assert SideBySide().groups(mixed) == [(spec,) for spec in mixed]
    assert limit.without([specs[1].trial_id]).groups(specs[:3]) == [(specs[0], specs[2]), (specs[1],)]


def test_unless_it_was_asked_for_no_slot_is_idle_and_smoke_trials_are_alone(tiny_plan, specs):
    planned = [replace(trial, side_by_side=4) for trial in tiny_plan.trials]
    smoke = {spec.trial_id for spec in starting_order(tiny_plan.specs)[:4]}
    found = SideBySide.planned(planned)
    assert {t for t, most in found.most.items() if most == 1} == smoke and len(found.most) > len(smoke)
    assert max(SideBySide.planned(planned, 2).most.values()) == min(SideBySide.planned(planned, 2).most.values()) == 2
    as_planned = SideBySide(all_of(specs).most, fills_slots=True)
    sizes = {slots: list(map(len, as_planned.groups(specs, slots))) for slots in (1, 2, 3, 9)}
    assert sizes == {1: [4], 2: [2, 2], 3: [1] * 4, 9: [1] * 4}
    assert all_of(specs).groups(specs, 9) == [specs]


# --- one that fails, all that are stopped --------------------------------------------------------------------------


def test_one_that_diverges_or_breaks_leaves_and_the_others_go_on(specs, execution, alone, monkeypatch):
    def breaks():
        raise RuntimeError("planted")

    in_step(monkeypatch, specs[0], 3, breaks)
    diverging = specs[3]
    original = pretraining.fit

    def fit(module, *arguments, **keywords):
        if module.spec.trial_id == diverging.trial_id:
            for weight in module.parameters():
                weight.data.fill_(float("nan"))
        return original(module, *arguments, **keywords)

    monkeypatch.setattr(pretraining, "fit", fit)
    ends = {end.trial_id: end for end in run(specs, execution, all_of(specs))}
    assert (ends[specs[0].trial_id].status, ends[diverging.trial_id].status) == (Status.FAILED, Status.DIVERGED)
    assert "planted" in ends[specs[0].trial_id].reason
    completed = [row for row in read(execution.results) if row.status == Status.COMPLETED]
    assert len(completed) == 2
    expected = measured(alone)
    assert measured(completed) == {row.trial_id: expected[row.trial_id] for row in completed}


def test_a_signal_checkpoints_all_and_all_go_on(specs, execution, alone, monkeypatch):
    with monkeypatch.context() as patched:
        in_step(patched, specs[2], 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(specs, execution, all_of(specs)) == []
    kept = {path.stem for path in (execution.results / "checkpoints").glob("*.ckpt")}
    assert kept == {spec.trial_id for spec in specs}
    run(specs[:1], execution)  # one of them ends alone; the others go on side by side
    run(specs, execution, all_of(specs))
    rows = read(execution.results)
    assert measured(rows) == measured(alone)
    assert {row.n_resumes for row in rows} == {1}


def test_trials_at_different_steps_catch_up(specs, execution, alone, reads, monkeypatch):
    """One was stopped earlier: it goes first until it is where another starts from its checkpoint."""
    for spec, n in ((specs[0], 6), (specs[1], 2)):
        with monkeypatch.context() as patched:
            in_step(patched, spec, n, lambda: os.kill(os.getpid(), signal.SIGTERM))
            run([spec], execution)
    reads.clear()
    run(specs[:2], execution, all_of(specs[:2]))
    expected = measured(alone)
    assert measured(read(execution.results)) == {spec.trial_id: expected[spec.trial_id] for spec in specs[:2]}
    assert reads.count(BATCH) == N_STEPS - 3  # from the step of the one that was behind


def test_a_trial_whose_lease_is_lost_leaves_and_the_others_go_on(specs, execution, alone, monkeypatch):
    leases = Leases(execution.results)

    def take_over():
        path = leases.files(specs[1].trial_id)[-1].path
        path.with_name(f"{specs[1].trial_id}.2.json").write_text("{}")

    in_step(monkeypatch, specs[1], 3, take_over)
    ends = {end.trial_id: end.status for end in run(specs[:2], execution, all_of(specs))}
    assert ends.pop(specs[1].trial_id) == "leased elsewhere"
    assert set(ends.values()) == {Status.COMPLETED}
    assert {row.trial_id for row in read(execution.results)} == set(ends)


def test_all_leases_are_taken_before_the_first_begins(specs, execution, monkeypatch):
    leases, began = Leases(execution.results), []

    def look(spec, *_):
        began.append((spec, {file.trial_id for file in leases.files()}))
        raise OSError(errno.EIO, "planted")

    monkeypatch.setattr(inprocess, "run_trial", look)
    with leases.acquire(specs[1].trial_id):
        ends = run(specs[:3], execution, all_of(specs))
        assert run(specs[1:2] * 2, execution, all_of(specs))[0].status == "leased elsewhere"
    assert [spec for spec, _ in began] == [specs[0], specs[2]]
    assert began[0][1] == {spec.trial_id for spec in specs[:3]}
    assert [end.status for end in ends] == ["leased elsewhere", "lost", "lost"]
    assert not leases.files()


def test_workers_run_groups_too(specs, execution, alone, reads):
    ends: list[Ended] = []
    worker.run(specs[:2], execution, ends.append, together=all_of(specs))
    assert [end.status for end in ends] == [Status.COMPLETED] * 2
    assert reads.count(BATCH) == N_STEPS
    expected = measured(alone)
    assert measured(read(execution.results)) == {spec.trial_id: expected[spec.trial_id] for spec in specs[:2]}


def test_a_process_tracks_one_run(tiny_sweep, data_dir, tmp_path, monkeypatch, capsys):
    command = ["ecgscale", "sweep", tiny_sweep, "--data", data_dir, "--out", tmp_path / "tiny"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--wandb", "offline", "--together", "2"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "--together 2: a process tracks one run" in capsys.readouterr().err


# --- turns ---------------------------------------------------------------------------------------------------------


NOTHING_OF_THEIR_OWN = (lambda: None, lambda kept: None)


def test_one_runs_at_a_time_whoever_is_behind_first():
    order = []

    def task(name, first):
        for step in range(first, 4):
            turns.at_step(step)
            order.append((step, name))
            assert turns.once(step, lambda: name) == min(n for s, n in order if s == step)
        return name

    tasks = [lambda: task("a", 0), lambda: task("b", 2), lambda: task("c", 0)]
    ends = list(turns.side_by_side(tasks, print, NOTHING_OF_THEIR_OWN))
    assert order == sorted(order) and len(order) == 10
    assert sorted(ends) == ["a", "b", "c"]
    assert turns.is_alone()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("side by side")]


def test_a_group_that_ended_well_asks_nobody_to_stop(monkeypatch):
    class Lingering(threading.Thread):
        def run(self):
            super().run()
            time.sleep(0.05)  # after the last it does for us

    monkeypatch.setattr(threading, "Thread", Lingering)
    asked = []
    assert sorted(turns.side_by_side([lambda: 1, lambda: 2], asked.append, NOTHING_OF_THEIR_OWN)) == [1, 2]
    assert asked == []


def test_what_a_task_raises_ends_the_others_and_comes_out():
    asked = threading.Event()
    ended = []

    def endless():
        for step in range(10**9):
            turns.at_step(step)
            if asked.is_set():
                ended.append(step)
                return

    def fails():
        turns.at_step(3)
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        list(turns.side_by_side([endless, fails, endless], lambda reason: asked.set(), NOTHING_OF_THEIR_OWN))
    assert len(ended) == 2


ONE_HANGS = """
import sys, threading, time
from pathlib import Path
from ecgscale import turns
from ecgscale.hangs import watched

def sits_there():
    time.sleep(60)

def task(name):
    with watched(Path(sys.argv[1]), name, 1, 0.5):
        for step in range(3):
            turns.at_step(step)
        if name == "b":
            sits_there()
        turns.at_step(3)

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()  # of the process, older than its trials
list(turns.side_by_side([lambda: task("a"), lambda: task("b")], print, (lambda: None, lambda kept: None)))
"""


def test_when_one_hangs_the_note_of_each_says_where(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", ONE_HANGS, str(tmp_path)], capture_output=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    for name in ("a", "b"):
        told = where_it_hung(tmp_path, name)
        assert told is not None and "in sits_there" in told and told.endswith(f"see hangs/{name}.1.txt")


def test_where_files_have_no_second_name_trials_are_watched_all_the_same(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with watched(tmp_path, "a", 1, 60), watched(tmp_path, "b", 1, 60):
        assert [path.name for path in (tmp_path / HANGS).iterdir()] == ["a.1.txt"]
    assert not list((tmp_path / HANGS).iterdir())
