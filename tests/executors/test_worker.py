"""Processes that share nothing but the folder: every trial exactly once, the same numbers, whoever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ecgscale import record_files, results
from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess, worker
from ecgscale.executors.elsewhere import LEASED_ELSEWHERE
from ecgscale.leases import Leases
from ecgscale.results import NewRows, RunRecord, Status, read
from ecgscale.specs import TrialSpec
from ecgscale.sweep import execute

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "ecgscale.cli", "work"]


@pytest.fixture(scope="module")
def specs(tiny_plan) -> tuple[TrialSpec, ...]:
    return tuple(tiny_plan.specs)


@pytest.fixture(scope="module")
def undisturbed(specs, data_dir, tmp_path_factory) -> dict[str, tuple]:
    """Trial → what a run one by one says."""
    folder = tmp_path_factory.mktemp("undisturbed") / "tiny"
    inprocess.run(specs, Execution(data_dir, folder, "tiny"), lambda end: None)
    return {row.trial_id: scores(row) for row in read(folder)}


def scores(record: RunRecord) -> tuple:
    transfer = tuple((s.task, s.loss, s.auroc, s.l2) for s in record.transfer)
    return record.status, record.id_loss, record.id_loss_last, record.val_loss_best, record.val_loss_last, transfer


def start(tiny_sweep: Path, data_dir: Path, folder: Path, *more: str) -> subprocess.Popen:
    command = [*COMMAND, str(tiny_sweep), "--data", str(data_dir), "--out", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended_well(process: subprocess.Popen) -> None:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told[-3000:]


def nothing_else_is_left(folder: Path) -> None:
    assert list((folder / "leases").iterdir()) == []
    assert all(path.suffix == ".parquet" for path in (folder / "rows").iterdir())
    assert not list(folder.glob("*.tmp"))


def every_trial_once(folder: Path, undisturbed: dict[str, tuple]) -> None:
    rows = read(folder)
    assert Counter(row.trial_id for row in rows) == Counter(undisturbed.keys())
    assert {row.trial_id: scores(row) for row in rows} == undisturbed


def test_two_commands_share_a_sweep(tiny_sweep, data_dir, tmp_path, undisturbed, specs):
    folder = tmp_path / "tiny"
    both = [start(tiny_sweep, data_dir, folder) for _ in range(2)]
    for process in both:
        ended_well(process)
    every_trial_once(folder, undisturbed)
    nothing_else_is_left(folder)


def test_of_four_workers_one_is_killed_in_the_middle(tiny_sweep, data_dir, tmp_path, undisturbed):
    folder = tmp_path / "tiny"
    four = [start(tiny_sweep, data_dir, folder) for _ in range(4)]
    victim = None
    while victim is None:
        assert all(process.poll() is None for process in four), "they ended before anybody held a lease"
        for path in folder.glob("leases/*.json"):
            for process in four:
                try:
                    if f'"{process.pid}:' in path.read_text():
                        victim = process
                except FileNotFoundError:
                    continue
        time.sleep(0.01)
    victim.kill()
    victim.communicate()
    for process in four:
        if process is not victim:
            ended_well(process)
    every_trial_once(folder, undisturbed)
    nothing_else_is_left(folder)


def test_several_processes_of_one_command_and_two_of_them_killed(specs, data_dir, tmp_path, undisturbed, monkeypatch):
    """The killed ones are replaced, also one that was asked kindly, and every end is reported once."""
    ended: list[Ended] = []
    started = []
    crew_start = worker._Crew._start

    def start_and_remember(crew, number):
        crew_start(crew, number)
        started.append(crew.members[number].process.pid)

    def report(end: Ended) -> None:
        ended.append(end)
        if len(ended) == 1:
            os.kill(started[0], signal.SIGKILL)
            os.kill(started[1], signal.SIGTERM)

    monkeypatch.setattr(worker._Crew, "_start", start_and_remember)
    worker.run(specs, Execution(data_dir, tmp_path / "tiny", "tiny"), report, processes=2)
    assert len(started) == 4
    assert Counter(end.trial_id for end in ended) == Counter(undisturbed.keys())
    assert {end.status for end in ended} == {"completed"}
    every_trial_once(tmp_path / "tiny", undisturbed)
    nothing_else_is_left(tmp_path / "tiny")


def test_two_drivers_at_once_do_not_do_the_same_work(specs, data_dir, tmp_path, undisturbed):
    """`sweep` beside `work`: both report every trial, each is run by one of them."""
    execution = Execution(data_dir, tmp_path / "tiny", "tiny")
    code = f"""
import sys
from ecgscale.executors import worker
from ecgscale.execution import Execution
from ecgscale.specs import TrialSpec
from pathlib import Path
specs = [TrialSpec.model_validate_json(line) for line in sys.stdin]
ended = []
worker.run(specs, Execution(Path({str(data_dir)!r}), Path({str(tmp_path / "tiny")!r}), "tiny"), ended.append)
print(sorted(end.trial_id for end in ended))
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other.stdin.write("\n".join(spec.model_dump_json() for spec in specs))
    other.stdin.close()
    while not list((tmp_path / "tiny").glob("leases/*.json")):
        assert other.poll() is None
        time.sleep(0.01)
    ended: list[Ended] = []
    assert execute(specs, execution, ended.append, executor="inprocess") is None
    assert sorted(end.trial_id for end in ended) == sorted(undisturbed)
    told = other.stdout.read()
    assert other.wait(60) == 0 and told.strip() == str(sorted(undisturbed))
    other.stdout.close()
    every_trial_once(tmp_path / "tiny", undisturbed)


# --- one trial -----------------------------------------------------------------------------------------------------


def test_a_trial_that_others_hold_is_left_out(specs, data_dir, tmp_path):
    execution = Execution(data_dir, tmp_path / "tiny", "tiny")
    with Leases(execution.results).acquire(specs[0].trial_id):
        assert inprocess.ended(specs[0], execution).status == LEASED_ELSEWHERE
    assert read(execution.results) == []


def test_a_trial_that_lost_its_lease_publishes_nothing(specs, data_dir, tmp_path, monkeypatch):
    """It is taken over while its last step, the row, is being written."""
    execution = Execution(data_dir, tmp_path / "tiny", "tiny")
    spec = specs[-1]
    write = record_files.pq.write_table

    def write_and_be_taken_over(table, sink, **options):
        write(table, sink, **options)
        (execution.results / "leases" / f"{spec.trial_id}.2.json").write_text("{}")

    monkeypatch.setattr(record_files.pq, "write_table", write_and_be_taken_over)
    assert inprocess.ended(spec, execution).status == LEASED_ELSEWHERE
    assert list((execution.results / "rows").iterdir()) == []


def test_a_trial_that_lost_its_lease_stops_in_the_middle(specs, data_dir, tmp_path):
    execution = replace(Execution(data_dir, tmp_path / "tiny", "tiny"), lease_s=1.2)
    spec = specs[-1].model_copy(update={"n_steps": 1_000_000, "seed": 4711})
    (execution.results / "leases").mkdir(parents=True)

    def take_over() -> None:
        while not list((execution.results / "leases").glob("*.1.json")):
            time.sleep(0.05)
        (execution.results / "leases" / f"{spec.trial_id}.2.json").write_text("{}")

    taker = threading.Thread(target=take_over)
    taker.start()
    assert inprocess.ended(spec, execution).status == LEASED_ELSEWHERE
    taker.join()
    assert read(execution.results) == []


def test_what_others_have_completed_meanwhile_is_not_run_again(specs, data_dir, tmp_path, make_record):
    execution = Execution(data_dir, tmp_path / "tiny", "tiny")
    read_outs = [read_out.read_out_id for read_out in specs[0].read_outs]
    results.append(execution.results, make_record(trial_id=specs[0].trial_id, id_loss=0.5, read_outs=read_outs))
    assert inprocess.ended(specs[0], execution).id_loss == 0.5
    assert len(read(execution.results)) == 1


def test_a_trial_whose_workers_keep_dying_is_left_alone(specs, data_dir, tmp_path):
    """Its leases tell: the third owner is gone, too."""
    execution = Execution(data_dir, tmp_path / "tiny", "tiny")
    bad = specs[-1]
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from ecgscale.leases import Leases; import os\n"
            f"Leases(Path({str(execution.results)!r})).acquire({bad.trial_id!r}); os._exit(0)",
        ],
        check=True,
    )
    assert dead.returncode == 0
    file = execution.results / "leases" / f"{bad.trial_id}.1.json"
    file.rename(file.with_name(f"{bad.trial_id}.3.json"))
    ended: list[Ended] = []
    worker._work([bad, specs[-2]], execution, {}, ended.append, lambda: False)
    status = {end.trial_id: end.status for end in ended}
    assert status == {specs[-2].trial_id: "completed", bad.trial_id: "lost"}
    assert [end.given_up for end in ended] == [False, True]  # and it comes last
    ended.clear()
    worker.run([bad], execution, ended.append)  # the next command tries again
    assert [end.status for end in ended] == ["completed"]


def test_failures_are_reported_once_and_not_run_for_ever(specs, data_dir, tmp_path):
    execution = Execution(data_dir, tmp_path / "tiny", "tiny")
    broken = specs[0].model_copy(update={"data_fingerprint": {"A": "of another day"}})
    ended: list[Ended] = []
    worker.run([broken, specs[-1]], execution, ended.append)
    assert sorted(end.status for end in ended) == ["completed", "failed"]
    assert len(read(execution.results)) == 2


def test_rows_that_appear_are_seen_once(tmp_path, make_record):
    results.append(tmp_path, make_record(trial_id="before"))
    rows = NewRows(tmp_path)
    results.append(tmp_path, make_record(trial_id="after", status=Status.FAILED))
    assert [row.trial_id for row in rows.look()] == ["after"]
    assert rows.look() == []


def test_gpus_are_taken_in_turn(monkeypatch):
    for number, expected in enumerate(["4", "GPU-7", "4"]):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
        worker._take_gpu(number)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    worker._take_gpu(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
