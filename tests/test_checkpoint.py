"""A training that is interrupted goes on from its checkpoint and ends with the very same numbers."""

import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ecgscale import checkpoint, pretraining
from ecgscale.checkpoint import Checkpoint, checkpoint_path, restore_random
from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess
from ecgscale.failures import Diverged
from ecgscale.plan import Plan
from ecgscale.preemption import EXIT_PREEMPTED, Preempted, StopRequest
from ecgscale.results import RunRecord, Status, read
from ecgscale.specs import TrialSpec
from ecgscale.training import Pretraining
from ecgscale.trial import run_trial

ARMS = ("resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl")
N_STEPS = 20
"""More than an epoch of 12.5 steps; evaluated at 5, 10, 15 and 20."""


def spec_of(plan: Plan, arm: str, **changes) -> TrialSpec:
    (spec,) = (s for s in plan.specs if s.arm == arm and s.data_fraction == 1)
    train = spec.train.model_dump() | {"n_evaluations": 4}
    return TrialSpec.model_validate(spec.model_dump() | {"n_steps": N_STEPS, "train": train} | changes)


def measured(record: RunRecord) -> dict[str, object]:
    """What must not depend on interruptions: everything but time, memory and who ran it when."""
    other = {
        "attempt",
        "started_at",
        "ended_at",
        "wall_s",
        "train_s",
        "read_outs_s",
        "peak_memory_bytes",
        "n_resumes",
        "sweep",
        "argv",
    }
    return record.model_dump(exclude=other | {"git_dirty", "git_diff"})


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*"))


@pytest.fixture
def execution(data_dir: Path, tmp_path: Path) -> Execution:
    return Execution(data_dir, tmp_path / "results", "tiny")


@pytest.fixture(scope="module")
def undisturbed(tiny_plan, data_dir, tmp_path_factory) -> dict[str, RunRecord]:
    """Every arm's row without an interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    rows = {arm: run_trial(spec_of(tiny_plan, arm), Execution(data_dir, folder, "tiny")) for arm in ARMS}
    assert all((row.status, row.n_resumes) == (Status.COMPLETED, 0) for row in rows.values())
    assert not kept(folder)
    return rows


@pytest.fixture
def signal_in_step(monkeypatch):
    """`signal_in_step(5, 9)`: the process gets a signal while it does the 5th step from now on, and the 9th."""
    train_step = Pretraining.training_step

    def set_up(*steps: int, number: signal.Signals = signal.SIGTERM) -> None:
        done = 0

        def step(self, batch, batch_idx):
            nonlocal done
            done += 1
            if done in steps:
                os.kill(os.getpid(), number)
            return train_step(self, batch, batch_idx)

        monkeypatch.setattr(Pretraining, "training_step", step)

    return set_up


# --- the same numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize(
    "at", [(5,), (7, 9), *(pytest.param((step,), marks=pytest.mark.slow) for step in (1, 13, 20))], ids=str
)
def test_an_interrupted_trial_ends_with_the_same_numbers(tiny_plan, execution, undisturbed, signal_in_step, arm, at):
    """At the first step, at an evaluation, past an epoch's end, twice, and at the last step."""
    spec = spec_of(tiny_plan, arm)
    signal_in_step(*at)
    for _ in at:
        with pytest.raises(Preempted, match="SIGTERM"):
            run_trial(spec, execution)
        assert not (execution.results / "rows").exists()
        assert kept(execution.results) == [f"{spec.trial_id}.ckpt"]
    record = run_trial(spec, execution)
    assert record.reason is None
    assert measured(record) == measured(undisturbed[arm])
    assert record.n_resumes == len(at)
    assert read(execution.results) == [record]
    assert not kept(execution.results)


def test_random_changes_go_on_too(tiny_plan, execution, tmp_path, data_dir, signal_in_step):
    """Augmentation, and an objective that draws from the global generators."""
    train = spec_of(tiny_plan, "resnet-ssl").train.model_dump() | {"augment": {"noise_mv": 0.1, "lead_dropout": 0.2}}
    spec = spec_of(tiny_plan, "resnet-ssl", train=train)
    whole = run_trial(spec, Execution(data_dir, tmp_path / "whole", "tiny"))
    signal_in_step(6)
    with pytest.raises(Preempted):
        run_trial(spec, execution)
    assert measured(run_trial(spec, execution)) == measured(whole)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of operators that have no deterministic kernel
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_bf16_training_on_a_gpu_goes_on_too(tiny_plan, execution, tmp_path, data_dir, signal_in_step):
    train = spec_of(tiny_plan, "transformer-sl").train.model_dump() | {"precision": "bf16_on_gpu", "n_evaluations": 2}
    spec = spec_of(tiny_plan, "transformer-sl", n_steps=4, train=train)
    whole = run_trial(spec, Execution(data_dir, tmp_path / "whole", "tiny"))
    assert whole.status == Status.COMPLETED and whole.device != "cpu", whole.reason
    signal_in_step(2)
    with pytest.raises(Preempted):
        run_trial(spec, execution)
    again = run_trial(spec, execution)
    assert again.n_resumes == 1
    assert measured(again) == measured(whole)


def test_a_training_goes_on_uncompiled_when_it_would_be_compiled_by_now(
    tiny_plan, execution, undisturbed, signal_in_step
):
    spec = spec_of(tiny_plan, "transformer-sl")
    signal_in_step(5)
    with pytest.raises(Preempted):
        run_trial(spec, execution)
    record = run_trial(spec, replace(execution, ways={spec.trial_id: "compiled"}))
    assert record.n_resumes == 1
    assert measured(record) == measured(undisturbed["transformer-sl"])


def test_a_process_that_is_killed_goes_on_from_the_last_checkpoint_by_time(
    tiny_plan, data_dir, tmp_path, undisturbed, monkeypatch
):
    """An error stands for the kill: neither lets anything be written any more."""
    execution = Execution(data_dir, tmp_path / "results", "tiny", checkpoint_s=1e-6)
    train_step = Pretraining.training_step

    def killed(self, batch, batch_idx):
        if batch_idx == 11:
            raise KeyboardInterrupt
        return train_step(self, batch, batch_idx)

    spec = spec_of(tiny_plan, "transformer-ssl")
    monkeypatch.setattr(Pretraining, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, execution)
    monkeypatch.setattr(Pretraining, "training_step", train_step)
    first_steps = []
    resume = Checkpoint.resume
    monkeypatch.setattr(
        Checkpoint, "resume", lambda *arguments: first_steps.append(resume(*arguments)) or first_steps[-1]
    )
    record = run_trial(spec, execution)
    assert [progress.step for progress in first_steps] == [11]
    assert measured(record) == measured(undisturbed["transformer-ssl"])
    assert not kept(execution.results)


def test_without_seconds_there_is_no_checkpoint_by_time(tiny_plan, data_dir, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Checkpoint, "write", lambda self, **fields: written.append(fields["step"]) or True)
    for every_s, steps in ((0, []), (1e4, []), (1e-6, list(range(1, N_STEPS + 1)))):
        written.clear()
        execution = Execution(data_dir, tmp_path / str(every_s), "tiny", checkpoint_s=every_s)
        run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
        assert written == steps


def test_a_stop_while_it_is_scored_keeps_the_training(tiny_plan, execution, undisturbed, monkeypatch):
    """Both the weights that count and the last ones, which have been put aside by then."""
    spec = spec_of(tiny_plan, "resnet-sl")
    evaluate, trained = pretraining.evaluate, []
    fit = pretraining.fit

    def asked(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return evaluate(*arguments)

    def counted(*arguments, **keywords):
        started = time.perf_counter()
        result = fit(*arguments, **keywords)
        trained.append(time.perf_counter() - started)
        return result

    monkeypatch.setattr(pretraining, "evaluate", asked)
    monkeypatch.setattr(pretraining, "fit", counted)
    with pytest.raises(Preempted, match="SIGUSR1"):
        run_trial(spec, execution)
    monkeypatch.setattr(pretraining, "evaluate", evaluate)
    record = run_trial(spec, execution)
    assert measured(record) == measured(undisturbed["resnet-sl"])
    assert trained[1] < trained[0] / 2  # not trained again
    assert record.train_s > trained[1]


def test_times_are_of_all_parts(tiny_plan, execution, signal_in_step, monkeypatch):
    train_step = Pretraining.training_step
    monkeypatch.setattr(Pretraining, "training_step", lambda *a: time.sleep(0.03) or train_step(*a))
    signal_in_step(10)
    train_step_with_signal = Pretraining.training_step
    monkeypatch.setattr(Pretraining, "training_step", lambda *a: time.sleep(0.03) or train_step_with_signal(*a))
    spec = spec_of(tiny_plan, "resnet-sl")
    with pytest.raises(Preempted):
        run_trial(spec, execution)
    record = run_trial(spec, execution)
    assert record.wall_s > record.train_s > N_STEPS * 0.03


def test_a_stop_may_be_asked_for_from_elsewhere(tiny_plan, execution):
    """Whoever holds a lease asks by a call; a row is not published after that, whatever is finished."""
    stop = StopRequest()
    stop.request("its lease was lost")
    stop.request("a later reason")
    with pytest.raises(Preempted, match="its lease was lost"):
        run_trial(spec_of(tiny_plan, "resnet-sl"), execution, stop)
    assert not (execution.results / "rows").exists()


def test_signals_are_given_back(tiny_plan, execution, signal_in_step):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    signal_in_step(3)
    with pytest.raises(Preempted):
        run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before
    run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


# --- a checkpoint that is of no use --------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flipped, "checksum"),
        (lambda content: content[: len(content) // 2], "checksum"),
        (lambda content: b"", "no checkpoint"),
        (lambda content: b"something else" * 100, "no checkpoint"),
    ],
    ids=["bit", "half", "empty", "other file"],
)
def test_a_damaged_checkpoint_is_set_aside(tiny_plan, execution, undisturbed, signal_in_step, caplog, damage, why):
    spec = spec_of(tiny_plan, "transformer-sl")
    signal_in_step(7)
    with pytest.raises(Preempted):
        run_trial(spec, execution)
    path = checkpoint_path(execution.results, spec.trial_id)
    path.write_bytes(damage(path.read_bytes()))
    record = run_trial(spec, execution)
    assert measured(record) == measured(undisturbed["transformer-sl"])
    assert record.n_resumes == 0
    assert why in caplog.text and f"set aside as {spec.trial_id}.ckpt.quarantined" in caplog.text
    assert not kept(execution.results)  # of a trial that has completed nothing is left


@pytest.mark.parametrize("what", ["trial", "version of torch", "version of ecgscale", "kind of device", "data set"])
def test_a_checkpoint_of_something_else_is_set_aside(tmp_path, caplog, what):
    weights = {"w": torch.arange(3.0)}
    identity = {"trial": "t", "version of torch": "2", "version of ecgscale": "1", "kind of device": "cpu"}
    made = Checkpoint(tmp_path / "t.ckpt", identity | ({what: "another"} if what in identity else {}), 1)
    made.resume("another" if what == "data set" else "fingerprint", weights)
    assert made.write(3, weights, {}, {}, {}, 1.0)
    assert Checkpoint(tmp_path / "t.ckpt", identity, 1).resume("fingerprint", weights) is None
    assert f"of another {what}" in caplog.text
    assert kept(tmp_path.parent / tmp_path.name) == [] and [p.name for p in tmp_path.iterdir()] == [
        "t.ckpt.quarantined"
    ]


def test_weights_of_another_network_are_set_aside(tmp_path, caplog):
    made = Checkpoint(tmp_path / "t.ckpt", {}, 1)
    made.resume("fingerprint", {})
    made.write(3, {"w": torch.zeros(2)}, {}, {}, {}, 1.0)
    assert Checkpoint(tmp_path / "t.ckpt", {}, 1).resume("fingerprint", {"w": torch.zeros(3)}) is None
    assert "another network" in caplog.text


def test_loading_runs_no_code_of_the_file(tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    made = Checkpoint(tmp_path / "t.ckpt", {}, 1)
    made.resume("fingerprint", {})
    made.write(3, {}, {"state": Evil()}, {}, {}, 1.0)
    assert Checkpoint(tmp_path / "t.ckpt", {}, 1).resume("fingerprint", {}) is None
    assert not (tmp_path / "was here").exists()
    assert "set aside" in caplog.text


def test_what_is_read_is_what_was_written(tmp_path):
    weights = {"w": torch.randn(5), "n": torch.tensor(3)}
    made = Checkpoint(tmp_path / "t.ckpt", {"trial": "t"}, 1)
    made.resume("fingerprint", weights)
    evaluation = {"steps": [2], "losses": [0.1 + 0.2], "best_weights": weights}
    made.write(3, weights, {"state": {0: {"step": torch.tensor(3.0)}}, "lr": 1e-3}, {"last_epoch": 3}, evaluation, 1.5)
    expected = random.random(), torch.rand(2)
    read = Checkpoint(tmp_path / "t.ckpt", {"trial": "t"}, 1)
    progress = read.resume("fingerprint", weights)
    assert (progress.step, progress.train_s, progress.evaluation["losses"]) == (3, 1.5, [0.1 + 0.2])
    assert torch.equal(progress.module["w"], weights["w"]) and progress.scheduler == {"last_epoch": 3}
    assert read.n_resumes == 1
    restore_random(progress.random)
    assert random.random() == expected[0] and torch.equal(torch.rand(2), expected[1])


# --- a disk that is full -------------------------------------------------------------------------------------------


@pytest.fixture
def small_files():
    """Writing more than 100 kB into a file fails, as on a full disk; the 20K networks need more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_checkpoint_only(tiny_plan, data_dir, tmp_path, undisturbed, caplog, small_files):
    execution = Execution(data_dir, tmp_path / "results", "tiny", checkpoint_s=1e-6)
    record = run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
    assert measured(record) == measured(undisturbed["resnet-sl"])
    assert caplog.text.count("no checkpoint of trial") == N_STEPS
    assert not kept(execution.results)


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path, caplog, small_files):
    made = Checkpoint(tmp_path / "t.ckpt", {}, 1)
    made.resume("fingerprint", {})
    assert made.write(1, {"w": torch.zeros(10)}, {}, {}, {}, 1.0)
    before = (tmp_path / "t.ckpt").read_bytes()
    assert not made.write(2, {"w": torch.zeros(100_000)}, {}, {}, {}, 1.0)
    assert (tmp_path / "t.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["t.ckpt"]
    assert "too large" in caplog.text


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    left, other = tmp_path / "t.0123.tmp", tmp_path / "u.0123.tmp"
    for path in (left, other):
        path.write_bytes(b"half")
    assert Checkpoint(tmp_path / "t.ckpt", {}, 1).resume("fingerprint", {}) is None
    assert not left.exists() and other.exists()


def test_a_trial_that_others_run_by_now_leaves_their_checkpoint(tmp_path):
    """It was asleep: what it has is older."""
    others = Checkpoint(tmp_path / "t.ckpt", {}, 1)
    others.resume("fingerprint", {})
    assert others.write(9, {}, {}, {}, {}, 1.0)
    asleep = Checkpoint(tmp_path / "t.ckpt", {}, 1, may_write=lambda: False)
    assert not asleep.write(5, {}, {}, {}, {}, 1.0)
    progress = Checkpoint(tmp_path / "t.ckpt", {"data set": "fingerprint"}, 1).resume("fingerprint", {})
    assert progress is not None and progress.step == 9
    assert [path.name for path in tmp_path.iterdir()] == ["t.ckpt"]


# --- after the end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "is_kept"), [(OSError(5, "gone"), True), (Diverged("loss is nan"), False)])
def test_a_failure_after_the_training_keeps_its_checkpoint(tiny_plan, data_dir, tmp_path, monkeypatch, error, is_kept):
    """What another try can mend must not cost the training; what diverges does so again."""

    def fails(*arguments):
        raise error

    execution = Execution(data_dir, tmp_path / "results", "tiny", checkpoint_s=1e-6)
    monkeypatch.setattr(pretraining, "evaluate", fails)
    run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
    assert bool(kept(execution.results)) == is_kept


# --- executors and processes ---------------------------------------------------------------------------------------


def test_a_sweep_in_this_process_stops_and_goes_on(tiny_plan, execution, undisturbed, signal_in_step):
    specs = [spec_of(tiny_plan, arm) for arm in ("resnet-sl", "transformer-sl", "resnet-ssl")]
    signal_in_step(N_STEPS + 5)
    ended: list[Ended] = []
    inprocess.run(specs, execution, ended.append)
    assert [end.status for end in ended] == ["completed"]
    assert len(read(execution.results)) == 1
    inprocess.run(specs[1:], execution, ended.append)
    assert [end.status for end in ended[1:]] == ["completed", "completed"]
    for record in read(execution.results):
        assert measured(record) == measured(undisturbed[record.arm])
    assert [record.n_resumes for record in read(execution.results)] == [0, 1, 0]


@pytest.fixture(scope="module")
def uninterrupted(tiny_plan, data_dir, tmp_path_factory):
    spec = spec_of(tiny_plan, "transformer-ssl", n_steps=200)
    return spec, run_trial(spec, Execution(data_dir, tmp_path_factory.mktemp("whole"), "tiny"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_process_that_gets_a_signal_is_continued_by_another(uninterrupted, data_dir, tmp_path, number):
    spec, whole = uninterrupted
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "ecgscale.trial", "spec.json", "--data", str(data_dir), "--out", "results/tiny"]
    command += ["--checkpoint-s", "0.05"]
    folder = tmp_path / "results" / "tiny"
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*.ckpt")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(number)
    _, said = first.communicate(timeout=120)
    if number == signal.SIGKILL:
        assert first.returncode == -signal.SIGKILL
    else:
        assert first.returncode == EXIT_PREEMPTED
        assert f"preempted ({number.name})" in said and "Traceback" not in said
    assert not (folder / "rows").exists()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    (record,) = read(folder)
    assert record.n_resumes == 1
    assert not kept(folder)
    assert measured(record) == measured(whole)


def test_the_module_logs_under_its_own_name():
    assert checkpoint.log.name == "ecgscale.checkpoint"
    assert checkpoint.log.getEffectiveLevel() <= logging.WARNING
