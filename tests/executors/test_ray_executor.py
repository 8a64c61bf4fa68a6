"""Many trials on a local Ray: the same numbers as one by one, and no failure stops the rest."""

import os
import signal
import threading
from pathlib import Path

import pytest

from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess
from ecgscale.plan import Plan
from ecgscale.results import RunRecord, Status, read
from ecgscale.specs import TrialSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    """A local Ray with two slots."""
    from ecgscale.executors import ray

    ray.start(ray.Cluster(cpus=2))
    yield ray
    ray.stop()


@pytest.fixture(scope="module")
def specs(tiny_plan: Plan) -> tuple[TrialSpec, ...]:
    """One small trial of every arm; the third has been planned with other data."""
    found = sorted((s for s in tiny_plan.specs if s.data_fraction == 0.5), key=lambda s: s.arm)
    assert len(found) == 4
    found[2] = found[2].model_copy(update={"data_fingerprint": {"A": "of another day"}})
    return tuple(found)


@pytest.fixture(scope="module")
def ran(cluster, specs, data_dir, tmp_path_factory) -> tuple[Path, list[Ended]]:
    folder = tmp_path_factory.mktemp("ray") / "tiny"
    ended: list[Ended] = []
    cluster.run(specs, Execution(data_dir, folder, "tiny"), ended.append)
    return folder, ended


def scores(record: RunRecord) -> tuple:
    transfer = tuple((s.task, s.loss, s.auroc, s.l2) for s in record.transfer)
    return record.status, record.id_loss, record.id_loss_last, record.val_loss_best, record.val_loss_last, transfer


def test_every_trial_leaves_a_row_and_a_report(ran, specs):
    folder, ended = ran
    assert {r.trial_id for r in read(folder)} == {s.trial_id for s in specs}
    rows = {r.trial_id: (r.label, r.status, r.id_loss, r.reason) for r in read(folder)}
    assert {e.trial_id: (e.label, e.status, e.id_loss, e.reason) for e in ended} == rows


def test_a_failing_trial_does_not_stop_the_rest(ran, specs):
    status = {r.trial_id: r.status for r in read(ran[0])}
    assert [status[s.trial_id] for s in specs] == [
        Status.COMPLETED,
        Status.COMPLETED,
        Status.FAILED,
        Status.COMPLETED,
    ]
    failed = next(r for r in read(ran[0]) if r.status == Status.FAILED)
    assert "has changed since the plan was made" in failed.reason
    assert len([r for r in read(ran[0]) if r.trial_id == failed.trial_id]) == 1  # it is not tried again at once


def test_losses_are_those_of_running_one_by_one_bit_for_bit(ran, specs, data_dir, tmp_path):
    inprocess.run(specs, Execution(data_dir, tmp_path / "tiny", "tiny"), lambda end: None)
    one_by_one = {r.trial_id: scores(r) for r in read(tmp_path / "tiny")}
    assert {r.trial_id: scores(r) for r in read(ran[0])} == one_by_one


def test_nothing_is_left_of_tunes_own_folder(ran):
    assert sorted(p.name for p in ran[0].iterdir()) == ["leases", "rows"]
    assert list((ran[0] / "leases").iterdir()) == []
    assert all(p.suffix == ".parquet" for p in (ran[0] / "rows").iterdir())


def test_what_is_missing_afterwards_is_the_failed_trial(ran, tiny_plan, specs):
    from ecgscale.results import missing

    assert [s.trial_id for s in missing(specs, read(ran[0]))] == [specs[2].trial_id]


def workers_of(label: str) -> list[int]:
    """The processes that run a trial: Ray names them after it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"ray::{label}".encode()):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker by its name in /proc")
def test_a_trial_whose_worker_dies_is_reported_and_the_rest_goes_on(cluster, specs, data_dir, tmp_path):
    """Killed as the kernel kills what takes too much memory, and again on its second chance."""
    long = specs[3].model_copy(update={"n_steps": 20_000, "seed": 987_654})  # nobody else has this label
    short = specs[1]
    killed: set[int] = set()
    done = threading.Event()

    def hunt() -> None:
        while not done.wait(0.2):
            for pid in set(workers_of(long.label)) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    ended: list[Ended] = []
    try:
        cluster.run((long, short), Execution(data_dir, tmp_path / "tiny", "tiny"), ended.append)
    finally:
        done.set()
        hunter.join()
    by_id = {e.trial_id: e for e in ended}
    assert by_id[long.trial_id].status == "lost" and "worker died" in by_id[long.trial_id].reason
    assert len(killed) == 1 + cluster.WORKER_DEATHS_FORGIVEN
    assert by_id[short.trial_id].status == "completed"
    assert [r.trial_id for r in read(tmp_path / "tiny")] == [short.trial_id]
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == ["leases", "rows"]
