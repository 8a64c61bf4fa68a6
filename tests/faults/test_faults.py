"""What machines do to a sweep: trials that hang or leak, disks that fill up, folders that turn read-only, clocks."""

import datetime
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from storm import SWEEP, Outcome, compare, scores
from typer.testing import CliRunner

from ecgscale import hangs, pretraining, results, sweep, trial
from ecgscale.cli import app
from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess
from ecgscale.hangs import where_it_hung
from ecgscale.results import Status, read
from ecgscale.specs import TrialSpec

pytestmark = pytest.mark.slow

FAULTY = Path(__file__).with_name("faulty.py")
HANG_S = 15.0
ENOUGH_BYTES = 3 * 2**29
"""Three times what a healthy worker takes."""


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "storm.yaml"
    path.write_text(SWEEP.format(seeds=[0], n_samples_seen=48).replace("[resnet, transformer]", "[transformer]"))
    return path


@pytest.fixture(scope="module")
def specs(sweep_file, data_dir) -> tuple[TrialSpec, ...]:
    from ecgscale.data.populations import populations
    from ecgscale.plan import plan
    from ecgscale.specs import load_grid

    grid = load_grid(sweep_file)
    found = tuple(plan(grid, populations(grid, data_dir)).specs)
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def undisturbed(specs, data_dir, tmp_path_factory) -> dict[str, tuple]:
    folder = tmp_path_factory.mktemp("undisturbed")
    inprocess.run(specs, Execution(data_dir, folder, "storm"), lambda end: None)
    return {row.trial_id: scores(row) for row in read(folder)}


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(sweep, "PAUSES_S", (0.0, 0.0))


def command(name: str, sweep_file: Path, data_dir: Path, folder: Path, *more: str) -> list[str]:
    return [name, str(sweep_file), "--data", str(data_dir), "--out", str(folder), *more]


def is_as_undisturbed(folder: Path, undisturbed: dict[str, tuple]) -> None:
    left = Outcome(len(undisturbed))
    compare(folder, undisturbed, left)
    assert left.harm == [] and left.rows == len(undisturbed)


# --- a trial that ends its worker ----------------------------------------------------------------------------------


@contextmanager
def memory_killer(folder: Path) -> Iterator[list[int]]:
    """Kills who holds a lease and too much memory, as the kernel or systemd-oomd do; yields whom it has killed."""
    killed: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for path in (folder / "leases").glob("*.json"):
                with suppress(OSError, ValueError):
                    pid = int(json.loads(path.read_bytes())["process"].partition(":")[0])
                    held = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
                    if held > ENOUGH_BYTES and pid not in killed:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks for memory in /proc")
def test_a_trial_that_hangs_and_leaks_is_given_up_and_the_rest_completes(
    sweep_file, data_dir, tmp_path, specs, undisturbed
):
    """It may end three workers, and is named; when its fault is mended, the next command runs it."""
    bad, *well = specs
    folder, runs = tmp_path / "storm", tmp_path / "runs"
    runs.mkdir()
    faults = {bad.label: ["leak", "keep_the_interpreter", "leak"]}
    # who keeps the interpreter has no heartbeat either: with a shorter lease others take over before the watch ends it
    arguments = command("work", sweep_file, data_dir, folder, "--lease", "60", "--hang-s", str(HANG_S))
    with memory_killer(folder) as killed:
        ended = subprocess.run(
            [sys.executable, str(FAULTY), *arguments, "--processes", "2"],
            env=os.environ | {"FAULTS": json.dumps(faults), "RUNS": str(runs), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ended.returncode == 3, ended.stderr[-3000:]
    assert {row.trial_id for row in read(folder)} == {spec.trial_id for spec in well}
    told = " ".join(ended.stderr.split())
    assert "3 workers died while they ran it; the last that hung made no progress for 15 s in faulty.py" in told
    assert "in keep_the_interpreter" in told
    assert len(killed) == 2 and len(list(runs.iterdir())) == 3
    again = CliRunner().invoke(app, command("work", sweep_file, data_dir, folder))
    assert again.exit_code == 0, again.output
    is_as_undisturbed(folder, undisturbed)


def test_a_process_that_hangs_says_where_and_ends(tmp_path):
    """Also where the interpreter is free, and not while there is progress."""
    code = f"""
import time
from pathlib import Path
from ecgscale.hangs import progressed, watched
def sits_there():
    time.sleep(60)
with watched(Path({str(tmp_path)!r}), "t", 2, 0.5):
    for _ in range(10):
        time.sleep(0.1)
        progressed()
    print("has worked", flush=True)
    sits_there()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "has worked\n" and ended.returncode != 0
    told = where_it_hung(tmp_path, "t")
    assert told is not None and "in sits_there" in told and told.endswith("see hangs/t.2.txt")


def test_without_a_hang_no_note_is_left(tmp_path):
    with hangs.watched(tmp_path, "t", 1, 60.0):
        hangs.progressed()
    assert list((tmp_path / "hangs").iterdir()) == []
    assert where_it_hung(tmp_path, "t") is None
    (tmp_path / "hangs" / "t.1.txt").touch()  # of a process that was killed
    assert where_it_hung(tmp_path, "t") is None


# --- disks ---------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something mounted over a folder; skips where this user may not mount."""
    folder.mkdir(exist_ok=True)
    told = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if told.returncode != 0:
        pytest.skip(f"may not mount: {told.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_a_pause_not_the_sweep(specs, data_dir, tmp_path, undisturbed, monkeypatch, caplog):
    """It is full while a checkpoint and the row are written; somebody makes room during the pause."""
    folder = tmp_path / "storm"
    with mounted(folder, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        filler = folder / "filler"

        def fill() -> None:
            with suppress(OSError), filler.open("wb", buffering=0) as sink:
                while True:
                    sink.write(bytes(4096))

        write, wrote = trial.Checkpoint.write, []

        def write_on_a_full_disk(self, **fields):
            if not filler.exists():
                fill()
            wrote.append(write(self, **fields))
            return wrote[-1]

        def make_room(seconds: float) -> None:
            monkeypatch.setattr(trial.Checkpoint, "write", write)
            filler.unlink(missing_ok=True)

        monkeypatch.setattr(trial.Checkpoint, "write", write_on_a_full_disk)
        monkeypatch.setattr(sweep.time, "sleep", make_room)
        ended: list[Ended] = []
        execution = Execution(data_dir, folder, "storm", checkpoint_s=1e-6)
        with caplog.at_level(logging.WARNING):
            assert sweep.execute(specs[:2], execution, ended.append, executor="inprocess") is None
        assert wrote and not any(wrote)
        assert "no checkpoint of trial" in caplog.text and "No space left" in caplog.text
        assert "failed because of the machine; again in" in caplog.text
        assert [end.status for end in ended] == ["completed"] * 2
        is_as_undisturbed(folder, {spec.trial_id: undisturbed[spec.trial_id] for spec in specs[:2]})


def test_a_folder_that_turns_read_only_is_reported_and_nothing_is_lost(
    specs, sweep_file, data_dir, tmp_path, undisturbed, no_pauses
):
    folder = tmp_path / "storm"
    execution = Execution(data_dir, folder, "storm", checkpoint_s=1e-6)
    inprocess.run(specs[:1], execution, lambda end: None)
    with mounted(folder, "--bind", "-o", "ro", str(folder)):
        ended: list[Ended] = []
        sweep.execute(specs[1:3], execution, ended.append, executor="inprocess")
        assert [end.status for end in ended] == ["lost"] * 2
        assert all("Read-only file system" in (end.reason or "") for end in ended)
        refused = subprocess.run(
            [sys.executable, "-m", "ecgscale.cli", *command("sweep", sweep_file, data_dir, folder)],
            capture_output=True,
            text=True,
        )
        assert refused.returncode == 2 and "results can't be written there (Read-only" in refused.stderr
        told = CliRunner().invoke(app, ["status", str(folder), "--json"])
        assert told.exit_code == 0, told.output
    sweep.execute(specs[1:], execution, ended.append, executor="inprocess")
    is_as_undisturbed(folder, undisturbed)


def test_a_training_goes_on_when_its_folder_turns_read_only(specs, data_dir, tmp_path, undisturbed, monkeypatch):
    folder = tmp_path / "storm"
    write, wrote = trial.Checkpoint.write, []

    def write_read_only(self, **fields):
        with mounted(folder, "--bind", "-o", "ro", str(folder)):
            wrote.append(write(self, **fields))
        return wrote[-1]

    monkeypatch.setattr(trial.Checkpoint, "write", write_read_only)
    execution = Execution(data_dir, folder, "storm", checkpoint_s=1e-6)
    assert inprocess.ended(specs[0], execution).status == Status.COMPLETED
    assert wrote and not any(wrote)
    is_as_undisturbed(folder, {specs[0].trial_id: undisturbed[specs[0].trial_id]})


# --- what is found at restart --------------------------------------------------------------------------------------


def test_damaged_rows_and_checkpoints_are_set_aside_run_again_and_reported(
    specs, sweep_file, data_dir, tmp_path, undisturbed, caplog, monkeypatch
):
    """One half a row, one half a checkpoint, and what a writer that was killed has left."""
    folder = tmp_path / "storm"
    execution = Execution(data_dir, folder, "storm", checkpoint_s=1e-6)
    inprocess.run(specs[:2], execution, lambda end: None)
    with monkeypatch.context() as preempted:
        evaluate = pretraining.evaluate
        preempted.setattr(pretraining, "evaluate", lambda *a: os.kill(os.getpid(), signal.SIGTERM) or evaluate(*a))
        assert inprocess.ended(specs[2], execution).status == "preempted"
    (row,) = (path for path in (folder / "rows").glob(f"{specs[0].trial_id}-*.parquet"))
    (checkpoint,) = (folder / "checkpoints").iterdir()
    for path in (row, checkpoint):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "rows" / f"{specs[2].trial_id}-20260101T000000abcdef.17.tmp").write_bytes(b"PAR1")
    (folder / "checkpoints" / f"{specs[1].trial_id}.ckpt").write_bytes(b"its owner was killed right after its row")
    done = CliRunner().invoke(app, command("sweep", sweep_file, data_dir, folder, "--executor", "inprocess"))
    assert done.exit_code == 0, done.output
    assert "not a readable row" in caplog.text and "its trial runs again" in caplog.text
    assert "its checksum is wrong; set aside" in caplog.text
    told = json.loads(CliRunner().invoke(app, ["status", str(folder), "--json"]).stdout)
    assert row.name in json.dumps(told)
    for path in (folder / "quarantine").iterdir():
        path.unlink()
    is_as_undisturbed(folder, undisturbed)


# --- clocks --------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_runs_nothing_twice(
    specs, sweep_file, data_dir, tmp_path, undisturbed, monkeypatch, make_record
):
    """Every look at it is a day before the last; leases and failed rows there are from the future."""
    folder = tmp_path / "storm"
    now = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)

    class Backwards(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            nonlocal now
            now -= datetime.timedelta(days=1)
            return now

    for module in (trial, results):
        monkeypatch.setattr(module.datetime, "datetime", Backwards)
    late = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)
    failed = make_record(trial_id=specs[0].trial_id, status="failed", reason="x", failure="bug", started_at=late)
    results.append(folder, failed)
    (folder / "leases").mkdir()
    lease = {"attempt": "x", "host": "another", "process": "1:1", "label": specs[1].label, "started_at": str(late)}
    stale = folder / "leases" / f"{specs[1].trial_id}.1.json"
    stale.write_text(json.dumps(lease))
    os.utime(stale, (late.timestamp(), late.timestamp()))
    ended: list[Ended] = []
    execution = Execution(data_dir, folder, "storm", lease_s=1.0)
    started = time.monotonic()
    assert sweep.execute(specs, execution, ended.append, executor="inprocess") is None
    assert time.monotonic() - started < 60
    assert [end.status for end in ended] == ["completed"] * 4
    rows = results.latest(read(folder))
    assert {trial_id: scores(row) for trial_id, row in rows.items()} == undisturbed
    assert results.missing(specs, read(folder)) == ()
    assert CliRunner().invoke(app, ["status", str(folder)]).exit_code == 0
    again = CliRunner().invoke(app, command("sweep", sweep_file, data_dir, folder, "--executor", "inprocess"))
    assert "nothing is missing" in again.output
