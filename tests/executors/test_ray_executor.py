"""Many trials on a local Ray: the same numbers as one by one, and no failure stops the rest."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess
from ecgscale.executors.slots import Slots
from ecgscale.plan import Plan
from ecgscale.results import RunRecord, Status, read
from ecgscale.side_by_side import SideBySide
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


def nothing_but_rows_is_left(folder: Path) -> None:
    assert {path.suffix for path in (folder / "rows").iterdir()} == {".parquet"}
    for name in ("leases", "checkpoints", "hangs"):
        assert list((folder / name).glob("*")) == []


def test_nothing_but_rows_is_left(ran):
    nothing_but_rows_is_left(ran[0])


def test_a_group_is_run_by_one_worker_and_its_files_travel(cluster, specs, ran, data_dir, tmp_path):
    """Side by side, on a node that doesn't see the results; the trial of other data is of another stream."""
    together = SideBySide({spec.trial_id: 3 for spec in specs})
    assert sorted(map(len, together.groups(specs))) == [1, 3]
    folder, ended = tmp_path / "tiny", []
    slots = Slots(ship_results=True)
    cluster.run(specs, Execution(data_dir, folder, "tiny"), ended.append, slots=slots, together=together)
    assert {r.trial_id: scores(r) for r in read(folder)} == {r.trial_id: scores(r) for r in read(ran[0])}
    assert sorted(end.status for end in ended) == ["completed", "completed", "completed", "failed"]
    nothing_but_rows_is_left(folder)


def test_what_is_missing_afterwards_is_the_failed_trial(ran, tiny_plan, specs):
    from ecgscale.results import missing

    assert [s.trial_id for s in missing(specs, read(ran[0]))] == [specs[2].trial_id]


# --- workers that are killed, and a user who is in a hurry ---------------------------------------------------------


@pytest.fixture
def long(specs) -> TrialSpec:
    """It takes some seconds, and nobody else has run it."""
    return specs[3].model_copy(update={"n_steps": 150, "seed": 987_654})


def worker_of(folder: Path, spec: TrialSpec) -> int | None:
    """The process that holds the lease of a trial."""
    for path in folder.glob(f"leases/{spec.trial_id}.*.json"):
        with suppress(FileNotFoundError):  # given back at this moment
            found = re.search(r'"process": "(\d+):', path.read_text())
            if found is not None:
                return int(found[1])
    return None


@contextmanager
def sent(number: int, to: Callable[[], int | None]) -> Iterator[list[int]]:
    """Meanwhile sends a signal to a process, as soon as there is one; yields who got it."""
    got: list[int] = []
    done = threading.Event()

    def hunt() -> None:
        while not got and not done.wait(0.1):
            pid = to()
            if pid is not None:
                os.kill(pid, number)
                got.append(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield got
    finally:
        done.set()
        hunter.join()


def test_a_trial_whose_worker_is_killed_is_reported_and_the_rest_goes_on(cluster, specs, long, data_dir, tmp_path):
    """As the kernel kills what takes too much memory."""
    folder = tmp_path / "tiny"
    ended: list[Ended] = []
    with sent(signal.SIGKILL, lambda: worker_of(folder, long)) as killed:
        cluster.run((long, specs[1], specs[0]), Execution(data_dir, folder, "tiny"), ended.append)
    assert len(killed) == 1
    by_id = {end.trial_id: end for end in ended}
    assert by_id[long.trial_id].status == "lost" and "its worker died" in by_id[long.trial_id].reason
    assert [by_id[spec.trial_id].status for spec in specs[:2]] == ["completed", "completed"]
    assert {row.trial_id for row in read(folder)} == {spec.trial_id for spec in specs[:2]}


def test_a_trial_whose_worker_is_asked_to_stop_goes_on_in_another(cluster, long, data_dir, tmp_path):
    """As a node asks its processes that is taken away."""
    folder = tmp_path / "tiny"
    ended: list[Ended] = []
    in_training = folder / "checkpoints" / f"{long.trial_id}.ckpt"
    execution = Execution(data_dir, folder, "tiny", checkpoint_s=0.2)
    with sent(signal.SIGTERM, lambda: worker_of(folder, long) if in_training.exists() else None) as asked:
        cluster.run([long], execution, ended.append)
    assert len(asked) == 1 and [end.status for end in ended] == ["completed"]
    assert [row.n_resumes for row in read(folder)] == [1]
    nothing_but_rows_is_left(folder)


def test_ctrl_c_leaves_a_checkpoint_and_no_lease(cluster, long, data_dir, tmp_path):
    folder = tmp_path / "tiny"
    execution = Execution(data_dir, folder, "tiny", checkpoint_s=0)  # none by time
    with (
        pytest.raises(KeyboardInterrupt),
        sent(signal.SIGINT, lambda: os.getpid() if worker_of(folder, long) else None),
    ):
        cluster.run([long], execution, lambda end: None)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"{long.trial_id}.ckpt"]
    assert list((folder / "leases").iterdir()) == [] and read(folder) == []
