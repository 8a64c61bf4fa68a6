"""Trials of one form computed as one: the gradients are those alone, whoever else is there."""

import os
import signal
import time
import weakref
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgscale import calibrating, pretraining, stacking, turns
from ecgscale.calibrating import calibrate
from ecgscale.calibration import SIDE_BY_SIDE, Calibration
from ecgscale.concentrations.declared import HeadSpec
from ecgscale.concentrations.ready_made import head
from ecgscale.execution import Execution
from ecgscale.executors import inprocess
from ecgscale.objectives.batch import Batch
from ecgscale.plan import CPU_CORE, Plan, plan, planned
from ecgscale.pretraining import build
from ecgscale.results import RunRecord, Status, read
from ecgscale.side_by_side import SideBySide
from ecgscale.specs import TrialSpec, load_grid
from ecgscale.stacking import Step, losses
from ecgscale.training import Pretraining

BATCH = 8
ARMS = ("resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl")
SMALL_RATE = 1e-5
"""At the sweep's own rate the few steps of a tiny ResNet amplify the last bit."""


def trials(plan_, arm: str, **changes) -> tuple[TrialSpec, ...]:
    """Two seeds on all records and one on half of them, for fewer steps; nothing is read out elsewhere."""
    of_arm = {spec.data_fraction: spec for spec in plan_.specs if spec.arm == arm}
    train = of_arm[1.0].train.model_dump() | {"n_evaluations": 2, "batch_size": BATCH}
    shared = {"train": train, "transfer_to": (), "peak_lr": SMALL_RATE} | changes
    each = ((1.0, 0, 6), (1.0, 1, 6), (0.5, 2, 4))
    return tuple(
        TrialSpec.model_validate(of_arm[fraction].model_dump() | {"seed": seed, "n_steps": n_steps} | shared)
        for fraction, seed, n_steps in each
    )


def stacked(specs, execution: Execution, at_most: int = 8) -> dict[str, RunRecord]:
    """Their rows by id."""
    ids = [spec.trial_id for spec in specs]
    together = SideBySide(dict.fromkeys(ids, at_most), frozenset(ids))
    execution = replace(execution, ways=dict.fromkeys(ids, "stacked"))
    inprocess.run(specs, execution, lambda end: None, together=together)
    return {row.trial_id: row for row in read(execution.results)}


def measured(rows: dict[str, RunRecord]) -> dict[str, tuple[float | None, ...]]:
    names = ("status", "val_loss_best", "val_loss_last", "best_step", "id_loss", "id_loss_last", "id_auroc")
    return {trial_id: tuple(getattr(row, name) for name in names) for trial_id, row in rows.items()}


@pytest.fixture
def execution(data_dir: Path, tmp_path: Path) -> Execution:
    return Execution(data_dir, tmp_path / "results", "tiny")


# --- one step ------------------------------------------------------------------------------------------------------


def steps_of(spec: TrialSpec, n: int, *, n_targets: int, dtype=torch.float64) -> list[Step]:
    """Networks of n seeds with a batch each."""
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        module = build(spec, (1e-3,) * 12).train().to(dtype)
        with torch.no_grad():  # heads begin at zero, which would hide gradients
            for weight in module.objective.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        signal_ = torch.randn(BATCH, 12, spec.input.n_samples).to(dtype)
        recorded = torch.rand(BATCH, spec.input.n_samples) > 0.1
        targets = (torch.rand(BATCH, n_targets) > 0.5).float()
        batch = module.objective.drawn(Batch(signal_, recorded, targets, key=seed))
        found.append(Step(module, batch, module.form))
    return found


def gradients(module: torch.nn.Module) -> torch.Tensor:
    found = torch.cat([w.grad.flatten() for w in module.parameters() if w.grad is not None])
    module.zero_grad()
    return found


def assert_as_alone(steps: list[Step], rel: float) -> None:
    before = [{name: buffer.clone() for name, buffer in step.network.named_buffers()} for step in steps]
    alone = []
    for step, buffers in zip(steps, before, strict=True):
        loss = step.network(step.batch)
        loss.backward()
        after = {name: buffer.clone() for name, buffer in step.network.named_buffers()}
        alone.append((loss.detach(), gradients(step.network), after))
        for name, buffer in step.network.named_buffers():
            buffer.copy_(buffers[name])
    for step, loss, (expected, gradient, buffers) in zip(steps, losses(steps), alone, strict=True):
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(expected), rel=rel)
        assert gradient.norm() > 0
        assert float((gradients(step.network) - gradient).norm() / gradient.norm()) < rel
        for name, buffer in step.network.named_buffers():
            torch.testing.assert_close(buffer, buffers[name], rtol=rel, atol=1e-12)


@pytest.mark.parametrize("arm", ARMS)
def test_losses_gradients_and_statistics_are_those_alone(tiny_plan, arm):
    spec = trials(tiny_plan, arm)[0]
    assert_as_alone(steps_of(spec, 3, n_targets=len(spec.labels)), rel=1e-6)  # losses are added up in single precision


@pytest.mark.parametrize("arm", ARMS)
def test_in_half_precision_they_are_as_near_to_the_exact_ones(tiny_plan, arm):
    spec = trials(tiny_plan, arm)[0]
    steps = steps_of(spec, 2, n_targets=len(spec.labels), dtype=torch.float32)

    def found(some_losses) -> list[torch.Tensor]:
        for loss in some_losses:
            loss.backward()
        return [gradients(step.network) for step in steps]

    exact = found(step.network(step.batch) for step in steps)
    with torch.autocast("cpu", torch.bfloat16):
        alone = found([step.network(step.batch) for step in steps])
        together = found(losses(steps))
    for true, one, other in zip(exact, alone, together, strict=True):
        assert 0 < (one - true).norm() < true.norm()
        assert (other - true).norm() < 2 * (one - true).norm()


HEADS = ("mse", "huber", "gaussian", "quantile", "hypo", "softmax-3", "ordinal-3", "coral-3", "corn-3")


@cache
def electrolytes() -> Plan:
    return plan(load_grid(Path("sweeps/electrolytes_small.yaml")))


def with_head(name: str, **changes) -> TrialSpec:
    spec = next(spec for spec in electrolytes().specs if spec.target.name == "potassium")
    return spec.model_copy(update={"family": "transformer", "head": HeadSpec(**head(name), **changes)})


@pytest.mark.parametrize("name", HEADS)
def test_every_head_can_be_stacked(name):
    assert_as_alone(steps_of(with_head(name), 2, n_targets=2), rel=1e-5)
    if name == "gaussian":
        seen = steps_of(with_head(name, age_and_sex=True), 2, n_targets=4, dtype=torch.float32)
        assert_as_alone(seen, rel=1e-4)


def test_steps_in_other_stages_are_computed_apart():
    """A burn-in is another loss: of those that are stacked, one can be through it."""
    steps = steps_of(with_head("gaussian"), 3, n_targets=2)
    steps[1].network.objective.step_fraction = 0.9
    mixed = [replace(step, form=step.network.form) for step in steps]
    assert len({step.form for step in mixed}) == 2
    assert_as_alone(mixed, rel=1e-5)


def test_steps_of_other_forms_are_computed_apart(tiny_plan):
    """A stopped stack may go on among trials of its stream: other losses of the same shapes, other families."""
    heads = [steps_of(with_head(name), 2, n_targets=2) for name in ("mse", "huber")]
    families = [steps_of(trials(tiny_plan, f"{family}-sl")[0], 1, n_targets=6) for family in ("resnet", "transformer")]
    assert_as_alone([heads[0][0], heads[1][0], *families[0], heads[0][1], heads[1][1], *families[1]], rel=1e-5)


def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_statistics(tiny_plan):
    spec = trials(tiny_plan, "resnet-sl")[0]
    steps = steps_of(spec, 2, n_targets=len(spec.labels))
    for step in steps:
        step.network.frozen = True
        step.network.encoder.requires_grad_(False)
        step.network.train()
    before = [buffer.clone() for buffer in steps[0].network.buffers()]
    assert_as_alone(steps, rel=1e-6)
    assert all(map(torch.equal, before, steps[0].network.buffers()))
    assert all(weight.grad is None for weight in steps[0].network.encoder.parameters())


def test_what_can_be_stacked(tiny_plan):
    for arm in ARMS:
        assert len({spec.form for spec in trials(tiny_plan, arm)}) == 1
    one = trials(tiny_plan, "transformer-sl")[0]
    other = (
        one.model_copy(update={"rung": "60K"}),
        one.model_copy(update={"train": one.train.model_copy(update={"batch_size": 2 * BATCH})}),
        one.model_copy(update={"labels": (*one.labels, "AF")}),
        *(trials(tiny_plan, arm)[0] for arm in ARMS[:2]),
    )
    assert len({spec.form for spec in (one, *other)}) == 6
    potassium = with_head("softmax-3")
    sodium = next(spec.target for spec in electrolytes().specs if spec.target.name == "sodium")
    assert potassium.form == potassium.model_copy(update={"target": sodium}).form
    assert potassium.form != with_head("softmax-4").form != with_head("ordinal-4").form


# --- whole trials --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_stacked_trials_leave_the_rows_they_leave_alone(tiny_plan, execution, tmp_path, arm):
    specs = trials(tiny_plan, arm)
    rows = stacked(specs, execution)
    inprocess.run(specs, replace(execution, results=tmp_path / "alone"), lambda end: None)
    alone = {row.trial_id: row for row in read(tmp_path / "alone")}
    assert {row.status for row in rows.values()} == {Status.COMPLETED}, rows
    assert {(row.stacked, row.compiled, row.n_beside) for row in rows.values()} == {(True, False, 2)}
    assert {row.stacked for row in alone.values()} == {False}
    for trial_id, row in rows.items():
        for name in ("val_loss_best", "val_loss_last", "id_loss", "id_loss_last"):
            assert getattr(row, name) == pytest.approx(getattr(alone[trial_id], name), rel=1e-5), (arm, name)
        assert 0 < row.train_s < row.wall_s


@pytest.mark.parametrize("arm", ["resnet-sl", "transformer-ssl"])
def test_the_numbers_hang_on_nobody_else(tiny_plan, execution, tmp_path, arm):
    """Three at once, the last of them alone for its last steps, or two."""
    specs = trials(tiny_plan, arm, peak_lr=3e-3)
    three = measured(stacked(specs, execution))
    for some in (specs[:2], specs[1:]):
        two = measured(stacked(some, replace(execution, results=tmp_path / some[0].trial_id)))
        assert two == {spec.trial_id: three[spec.trial_id] for spec in some}


def test_a_trial_without_company_is_not_stacked(tiny_plan, execution, tmp_path):
    specs = trials(tiny_plan, "transformer-sl", peak_lr=3e-3)
    rows = stacked(specs, execution, at_most=1)
    assert {row.stacked for row in rows.values()} == {False}
    inprocess.run(specs, replace(execution, results=tmp_path / "alone"), lambda end: None)
    assert measured(rows) == measured({row.trial_id: row for row in read(tmp_path / "alone")})


@pytest.mark.parametrize("arm", ["resnet-sl", "transformer-sl"])
def test_after_a_stop_each_goes_on_by_itself(tiny_plan, execution, tmp_path, monkeypatch, arm):
    specs = trials(tiny_plan, arm, peak_lr=3e-3)
    whole = measured(stacked(specs, replace(execution, results=tmp_path / "whole")))
    train_step = Pretraining.training_step

    def stopped(self, batch, batch_idx):
        if self.spec.trial_id == specs[1].trial_id and batch_idx == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "training_step", stopped)
        assert not [row for row in stacked(specs, execution).values() if row.status != Status.COMPLETED]
    for spec in specs:  # as the checkpoint says, whatever a new plan would have
        inprocess.run([spec], execution, lambda end: None)
    rows = {row.trial_id: row for row in read(execution.results)}
    assert measured(rows) == whole
    assert {row.stacked for row in rows.values()} == {True} and max(row.n_resumes for row in rows.values()) == 1


def test_one_that_breaks_leaves_and_the_others_go_on(tiny_plan, execution, tmp_path, monkeypatch):
    specs = trials(tiny_plan, "transformer-sl", peak_lr=3e-3)
    whole = measured(stacked(specs, replace(execution, results=tmp_path / "whole")))
    fit = pretraining.fit

    def not_finite(module, *arguments, **keywords):
        if module.spec.trial_id == specs[0].trial_id:
            for weight in module.parameters():
                weight.data.fill_(float("nan"))
        return fit(module, *arguments, **keywords)

    monkeypatch.setattr(pretraining, "fit", not_finite)
    rows = stacked(specs, execution)
    assert rows[specs[0].trial_id].status == Status.DIVERGED
    assert {k: v for k, v in measured(rows).items() if k != specs[0].trial_id} == {
        k: v for k, v in whole.items() if k != specs[0].trial_id
    }


def test_a_stack_that_needs_too_much_memory_is_given_up(tiny_plan, execution, tmp_path, monkeypatch, caplog):
    """After four steps; then each is trained alone, from the beginning, and nothing of the stack is in the way."""
    specs = trials(tiny_plan, "resnet-sl", peak_lr=3e-3)[:2]
    computed, held, still_held = stacking._stacked, [], []

    def too_large(steps):
        if len(held) < 4:
            held.append(None)
            return computed(steps)
        activations = np.zeros(1)
        held.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError("planted")

    train_step = Pretraining.training_step

    def step(self, batch, batch_idx):
        if self.way == "eager":
            still_held.append(held[-1]())
        return train_step(self, batch, batch_idx)

    monkeypatch.setattr(stacking, "_stacked", too_large)
    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "training_step", step)
        rows = stacked(specs, replace(execution, checkpoint_s=1e-6))
    assert still_held == [None] * 12
    assert {(row.status, row.stacked, row.microbatch) for row in rows.values()} == {(Status.COMPLETED, False, None)}
    assert {row.n_resumes for row in rows.values()} == {0}
    assert caplog.text.count("out of memory in a stack; again by itself, from the beginning") == 2
    inprocess.run(specs, replace(execution, results=tmp_path / "alone"), lambda end: None)
    assert measured(rows) == measured({row.trial_id: row for row in read(tmp_path / "alone")})


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:There is a performance drop")  # torch's, where it maps networks one by one
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("arm", ARMS)
def test_on_a_gpu_losses_gradients_and_statistics_are_those_alone(tiny_plan, arm):
    spec = trials(tiny_plan, arm)[0]
    steps = steps_of(spec, 3, n_targets=len(spec.labels))
    on_gpu = [replace(s, network=s.network.cuda(), batch=Batch(**{k: v.cuda() for k, v in s.tensors.items()}, key=0))
              for s in steps]  # fmt: skip
    assert_as_alone(on_gpu, rel=1e-6)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of operators that have no deterministic kernel
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16_on_gpu"])
def test_on_a_gpu_stacked_trials_are_trained_too(tiny_plan, execution, precision):
    train = trials(tiny_plan, "resnet-ssl")[0].train.model_dump() | {"precision": precision}
    rows = stacked(trials(tiny_plan, "resnet-ssl", train=train, peak_lr=3e-3), execution)
    assert {(row.status, row.stacked, row.device != "cpu") for row in rows.values()} == {
        (Status.COMPLETED, True, True)
    }, rows


# --- calibration ---------------------------------------------------------------------------------------------------


def test_calibrate_measures_what_stacking_saves_and_the_plan_does_it_where_it_pays(tiny_plan, tmp_path):
    spec = trials(tiny_plan, "transformer-sl")[0]
    found = calibrate([planned(spec)], tmp_path, threads=1, limit_s=60, report=lambda *_: None, stacking=True)
    (here,) = found.measurements
    assert here.stacked_saved_s is not None and here.stacked_saved_s < here.step_s
    trial = planned(spec)
    for saved, way in ((0.5, "stacked"), (0.02, "eager"), (-0.1, "eager")):
        known = Calibration((replace(here, stacked_saved_s=saved * here.step_s),))
        assert known.way(trial, CPU_CORE) == way
        assert (known.side_by_side(trial, CPU_CORE) == SIDE_BY_SIDE[CPU_CORE.name]) == (way == "stacked")
        (applied,) = known.applied(replace(tiny_plan, trials=(trial,))).trials
        assert applied.way == way
    both = replace(here, stacked_saved_s=0.5 * here.step_s, compile_s=0.0, saved_s=0.7 * here.step_s)
    assert Calibration((both,)).way(trial, CPU_CORE) == "compiled"
    assert (
        calibrate([planned(spec)], tmp_path, threads=1, limit_s=60, report=lambda *_: None)
        .measurements[0]
        .stacked_saved_s
        is None
    )  # on a CPU only when asked


def test_where_stacking_fails_calibrate_says_so_and_measures_the_rest(tiny_plan, tmp_path, monkeypatch, caplog):
    def no_rule(steps):
        raise RuntimeError("planted: no batching rule\nand a long stack")

    monkeypatch.setattr(calibrating, "losses", no_rule)
    spec = trials(tiny_plan, "transformer-sl")[0]
    found = calibrate([planned(spec)], tmp_path, threads=1, limit_s=60, report=lambda *_: None, stacking=True)
    assert found.measurements[0].step_s > 0 and found.measurements[0].stacked_saved_s is None
    assert caplog.messages == ["transformer-sl-20K: can't be stacked here (planted: no batching rule)"]


def test_stacks_are_of_one_form_and_smoke_trials_are_not_stacked(tiny_plan):
    of_arm = {arm: trials(tiny_plan, arm) for arm in ARMS[:2]}
    cells = [planned(spec) for specs in of_arm.values() for spec in specs]
    cells.sort(key=lambda cell: -cell.cpu_s)
    chosen = SideBySide.planned([replace(cell, way="stacked", side_by_side=4) for cell in cells])
    smoke = {specs[2].trial_id for specs in of_arm.values()}  # the shortest of each arm
    groups = chosen.groups([cell.spec for cell in cells])
    assert sorted(map(len, groups)) == [1, 1, 2, 2]
    assert all(len({spec.form for spec in group}) == 1 for group in groups)
    assert {group[0].trial_id for group in groups if len(group) == 1} == smoke
    expected = dict.fromkeys((cell.spec.trial_id for cell in cells if cell.spec.trial_id not in smoke), "stacked")
    assert chosen.ways(cells) == expected
    assert SideBySide.planned(cells, 2).ways(cells) == {}  # by --together they share streams


# --- meetings ------------------------------------------------------------------------------------------------------

NOTHING_OF_THEIR_OWN = (lambda: None, lambda kept: None)


def test_a_meeting_is_of_all_who_are_left():
    met: list[list[str]] = []

    def do(brought):
        met.append(sorted(brought))
        return [name * 2 for name in brought]

    def task(name, n_steps, elsewhere):
        for step in range(n_steps):
            turns.at_step(step)
            if step == elsewhere:  # evaluates, while the others wait
                turns.at_step(None)
            assert turns.in_common(name, do) == name * 2
        return name

    tasks = [lambda: task("a", 4, 1), lambda: task("b", 2, 9), lambda: task("c", 3, 0)]
    assert sorted(turns.side_by_side(tasks, print, NOTHING_OF_THEIR_OWN)) == ["a", "b", "c"]
    assert met == [["a", "b", "c"]] * 2 + [["a", "c"], ["a"]]
    assert turns.in_common("alone", do) == "alonealone"


def test_what_goes_wrong_in_a_meeting_goes_wrong_for_all_of_it():
    def do(brought):
        if brought == ["a", "b"]:
            raise MemoryError("planted")
        return brought

    ended = []

    def task(name):
        turns.at_step(0)
        with pytest.raises(MemoryError, match="planted"):
            turns.in_common(name, do)
        ended.append(name)
        return name

    assert sorted(turns.side_by_side([lambda: task("a"), lambda: task("b")], print, NOTHING_OF_THEIR_OWN)) == ["a", "b"]
    assert sorted(ended) == ["a", "b"]


def test_each_is_charged_its_share():
    def do(brought):
        time.sleep(0.2)
        return brought

    def task():
        started = turns.clock()
        turns.in_common(None, do)
        return turns.clock() - started

    first, second = turns.side_by_side([task, task], print, NOTHING_OF_THEIR_OWN)
    assert first == pytest.approx(0.1, abs=0.03) and second == pytest.approx(0.1, abs=0.03)
