"""One trial: a whole row, the same row twice, and a row that says why when it goes wrong."""

import copy
import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch

from ecgscale import encoder_scores, pretraining, training, trial
from ecgscale.conventions import CODE_LABELS
from ecgscale.data.packing import packed
from ecgscale.data.populations import populations
from ecgscale.data.stream import TrainingStream
from ecgscale.execution import Execution
from ecgscale.ladder import shape
from ecgscale.models import BATCH_STATISTICS, build_encoder
from ecgscale.models.convolution import Convolution
from ecgscale.plan import Plan, plan, planned
from ecgscale.preemption import Preempted, StopRequest
from ecgscale.results import RunRecord, Status, append, read
from ecgscale.specs import TrialSpec
from ecgscale.training import Pretraining
from ecgscale.trial import run_trial

ARMS = ("resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl")


def spec_of(plan: Plan, arm: str = "transformer-sl", **changes) -> TrialSpec:
    """The full-data trial of an arm, with some fields changed."""
    (spec,) = (s for s in plan.specs if s.arm == arm and s.data_fraction == 1)
    return TrialSpec.model_validate(spec.model_dump() | changes)


def losses(record: RunRecord) -> dict[str, float | None]:
    """Every number a trial measures."""
    found = {name: getattr(record, name) for name in RunRecord.model_fields if "loss" in name and name != "loss_unit"}
    found |= {f"auroc {score.label}": score.auroc for score in record.id_auroc}
    for score in record.transfer:
        found |= {f"{score.population} {score.task} {name}": getattr(score, name) for name in ("loss", "auroc", "l2")}
    return found


@pytest.fixture
def execution(data_dir: Path, tmp_path: Path) -> Execution:
    return Execution(data_dir, tmp_path / "results", "tiny")


@pytest.fixture(scope="module", params=ARMS)
def completed(request, tiny_plan, data_dir, tmp_path_factory) -> tuple[TrialSpec, RunRecord, RunRecord]:
    """An arm's trial, run twice."""
    spec = spec_of(tiny_plan, request.param)
    folders = [tmp_path_factory.mktemp("completed") for _ in range(2)]
    first, again = (run_trial(spec, Execution(data_dir, folder, "tiny")) for folder in folders)
    assert [read(folder) for folder in folders] == [[first], [again]]  # what is returned is what is published
    return spec, first, again


# --- a trial that completes ----------------------------------------------------------------------------------------


def test_a_trial_leaves_a_whole_row(completed):
    spec, record, _ = completed
    assert (record.status, record.reason) == (Status.COMPLETED, None)
    empty = {name for name in RunRecord.model_fields if getattr(record, name) is None}
    # outside a checkout there is no commit, without a GPU no driver, and only the command line has arguments
    absent = {"reason", "failure", "bug", "git_commit", "git_dirty", "git_diff", "microbatch"}
    assert empty <= absent | {"cuda_version", "driver_version", "argv", "config_hash"}
    assert (record.trial_id, record.label, record.arm) == (spec.trial_id, spec.label, spec.arm)
    assert (record.sweep, record.seed, record.data_fraction) == ("tiny", 0, 1.0)
    bill = planned(spec)
    assert (record.n_params, record.n_params_head, record.train_flops) == (
        bill.n_params,
        bill.n_params_head,
        bill.train_flops,
    )
    assert (record.n_records, record.n_samples_seen) == (spec.n_records, 3 * 16)
    assert 0 < record.train_s < record.wall_s
    assert record.peak_memory_bytes > 50e6
    assert record.threads == 1
    assert json.loads(record.versions)["torch"] == version("torch")
    assert set(json.loads(record.data_fingerprint)) == {"A", "B"}


def test_a_row_holds_the_spec_that_made_it(completed):
    spec, record, _ = completed
    assert TrialSpec.model_validate_json(record.spec) == spec


def test_losses_are_those_of_their_paradigm(completed):
    spec, record, _ = completed
    if spec.paradigm == "sl":
        assert record.loss_unit == "nats" and record.n_labels == 6
        # three steps from zero logits: between log 2 and what the prevalence alone gives
        assert record.id_loss < math.log(2)
        assert 0.1 < record.id_constant_loss < 0.45
        assert tuple(score.label for score in record.id_auroc) == CODE_LABELS
        for score in record.id_auroc:
            assert (score.auroc is None) == (score.n_test_positive == 0)
    else:
        assert record.loss_unit == "mse" and record.n_labels == 0
        assert 0.5 < record.id_loss < 3  # three steps: not yet better than predicting zero
        assert record.id_constant_loss == pytest.approx(1.0, abs=0.05)
        assert record.id_auroc == ()


def test_the_best_validation_loss_is_one_that_was_taken(completed):
    spec, record, _ = completed
    assert record.val_loss_best <= record.val_loss_last
    assert 1 <= record.best_step <= spec.n_steps
    if record.best_step == spec.n_steps:
        assert record.val_loss_best == record.val_loss_last
        assert record.id_loss == record.id_loss_last


def test_every_task_is_scored_on_the_other_population(completed):
    _, record, _ = completed
    linear = [s for s in record.transfer if s.is_main]
    assert {(s.population, s.task): (s.kind, s.seen) for s in linear} == {
        ("B", "SB"): ("binary", True),
        ("B", "male"): ("binary", False),
        ("B", "over_65"): ("binary", False),
        ("B", "age"): ("regression", False),
    }
    for score in linear:
        assert 0 < score.loss < 3 and 0 < score.constant_loss < 3
        assert 0 < score.n_test < score.n_train < 150
        assert (score.n_test_positive is None) == (score.kind == "regression")
        one_class = score.n_test_positive in (None, 0, score.n_test)
        assert (score.auroc is None) == one_class
    assert sum(score.auroc is not None for score in linear) >= 2


def test_what_knows_nothing_of_the_pre_training_stands_beside(completed):
    _, record, _ = completed
    for score in (s for s in record.transfer if s.is_main):
        assert 0 < score.random_loss < 3 and score.random_loss != score.loss
        assert 0 < score.handmade_loss < 3 and score.handmade_loss != score.loss


def test_only_a_supervised_head_is_read_without_any_labels(completed):
    _, record, _ = completed
    others = [(s.task, s.read_out, s.n_train) for s in record.transfer if not s.is_main]
    assert others == ([("SB", "zero_shot", 0)] if record.paradigm == "sl" else [])


def test_trials_share_what_does_not_depend_on_them(tiny_plan, data_dir, tmp_path, monkeypatch):
    """Hand-made features once per population, the untrained encoder once per size; damaged files are made again."""
    made = []
    by_hand = encoder_scores.handmade_features
    monkeypatch.setattr(encoder_scores, "handmade_features", lambda *a: made.append(1) or by_hand(*a))
    execution = Execution(data_dir, tmp_path / "out", "tiny")
    first = run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
    n_made = len(made)
    assert n_made > 0
    second = run_trial(spec_of(tiny_plan, "resnet-ssl"), execution)
    assert len(made) == n_made
    kept = sorted((tmp_path / "out" / "baselines").iterdir())
    assert len(kept) == 2
    for path in kept:
        path.write_text("[")
    for folder in ("transfer", "features"):
        shutil.rmtree(tmp_path / "out" / folder)
    again = run_trial(spec_of(tiny_plan, "resnet-ssl"), execution)
    assert len(made) == 2 * n_made

    def beside(record):
        return {s.task: (s.random_loss, s.handmade_loss) for s in record.transfer if s.is_main}

    assert beside(first) == beside(second) == beside(again)


@pytest.mark.slow
def test_read_outs_that_are_asked_for_are_made(grid_from, data_dir, tmp_path):
    grid = grid_from(
        {"probe:\n": "probe:\n  label_fractions: [1/2, 1]\n  attentive: {n_steps: 4}\n  fine_tuning: {n_steps: 2}\n"}
    )
    planned = plan(grid, populations(grid, data_dir))
    record = run_trial(spec_of(planned, "transformer-ssl"), Execution(data_dir, tmp_path / "out", "tiny"))
    assert record.status == Status.COMPLETED, record.reason
    made = {(s.read_out, s.label_fraction) for s in record.transfer}
    assert made == {(kind, share) for kind in ("linear", "attentive", "fine_tuned") for share in (0.5, 1.0)}
    for score in record.transfer:
        assert (score.random_loss is None) == (score.loss is None)


def test_the_same_trial_gives_the_same_numbers_bit_for_bit(completed):
    _, first, again = completed
    assert first.attempt != again.attempt and first.trial_id == again.trial_id
    assert losses(first) == losses(again)
    assert first.best_step == again.best_step


@pytest.mark.parametrize("arm", ["resnet-ssl", "transformer-sl"])
def test_fast_layers_and_the_fused_optimiser_change_no_loss(tiny_plan, data_dir, tmp_path, monkeypatch, arm):
    """At a small rate: at the sweep's own, a ResNet's few steps double a difference in the last bit at every step."""

    def one_dimensional(layer: Convolution, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.Conv1d.forward(layer, x.squeeze(2)).unsqueeze(2)

    spec = spec_of(tiny_plan, arm, peak_lr=1e-3)
    fast = run_trial(spec, Execution(data_dir, tmp_path / "fast", "tiny"))
    plain_optimizer = partial(torch.optim.AdamW, foreach=False)
    monkeypatch.setattr(Convolution, "forward", one_dimensional)
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, fused, **kept: plain_optimizer(*given, **kept))
    slow = run_trial(spec, Execution(data_dir, tmp_path / "slow", "tiny"))
    for name in ("id_loss", "val_loss_best", "id_loss_last"):
        assert getattr(fast, name) == pytest.approx(getattr(slow, name), rel=1e-4), name


def test_another_seed_gives_other_numbers(tiny_plan, execution):
    first, other = (run_trial(spec_of(tiny_plan, seed=seed), execution) for seed in (0, 1))
    assert first.id_loss != other.id_loss


@pytest.mark.parametrize("k", [1, 3])
def test_a_trial_may_learn_fewer_labels(tiny_plan, execution, k):
    record = run_trial(spec_of(tiny_plan, labels=CODE_LABELS[:k]), execution)
    assert record.status == Status.COMPLETED and record.n_labels == k
    assert [score.label for score in record.id_auroc] == list(CODE_LABELS[:k])


def test_the_read_out_may_be_fitted_where_the_encoder_was_trained(tiny_plan, execution, tiny_grid):
    probe = tiny_grid.probe.model_copy(update={"fit_on": "source"}).model_dump()
    record = run_trial(spec_of(tiny_plan, probe=probe), execution)
    assert record.status == Status.COMPLETED
    for score in (s for s in record.transfer if s.is_main):
        assert score.population == "B"
        assert score.n_test == 150  # every record of B is tested on
        assert score.n_train == spec_of(tiny_plan).n_records


def test_without_tasks_or_populations_there_is_no_transfer(tiny_plan, execution):
    record = run_trial(spec_of(tiny_plan, transfer_to=()), execution)
    assert record.status == Status.COMPLETED and record.transfer == ()


@pytest.mark.parametrize("changes", [{"normalise": "fixed"}, {"bandpass_hz": (0.5, 40.0)}, {"store_samples": 1100}])
def test_other_inputs_train_too(tiny_plan, tiny_grid, data_dir, tmp_path, changes):
    wanted = tiny_grid.input.model_copy(update=changes)
    for population in ("A", "B"):
        (tmp_path / population).mkdir()
        for path in (data_dir / population).glob("exams*"):
            (tmp_path / population / path.name).symlink_to(path)
        packed(tmp_path / population, wanted)
    spec = spec_of(tiny_plan, "resnet-ssl", input=wanted.model_dump())
    record = run_trial(spec, Execution(tmp_path, tmp_path / "results", "tiny"))
    assert (record.status, record.reason) == (Status.COMPLETED, None)


def test_augmentation_changes_training_and_repeats(tiny_plan, execution):
    train = spec_of(tiny_plan).train.model_dump() | {"augment": {"noise_mv": 0.1, "lead_dropout": 0.2}}
    plain, *augmented = (
        run_trial(spec_of(tiny_plan, "resnet-ssl", **changes), replace(execution, results=execution.results / name))
        for name, changes in (("plain", {}), ("first", {"train": train}), ("again", {"train": train}))
    )
    assert losses(augmented[0]) == losses(augmented[1])
    assert augmented[0].id_loss != plain.id_loss
    assert augmented[0].id_constant_loss == plain.id_constant_loss  # what is evaluated is as it was


def test_tasks_of_every_kind_are_scored(tiny_plan, execution):
    tasks = [
        "code6",
        {"name": "sex", "kind": "multiclass", "column": "is_male", "classes": [0, 1]},
        {"name": "potassium", "kind": "regression", "column": "potassium_mmol_l", "unit": "mmol/l"},
    ]
    record = run_trial(spec_of(tiny_plan, probe={"tasks": tasks}), execution)
    assert record.status == Status.COMPLETED
    *labels, sex, potassium = (s for s in record.transfer if s.is_main)
    assert [score.task for score in labels] == [f"code6:{label}" for label in CODE_LABELS]
    assert all(score.seen and (score.loss is None) == (score.reason is not None) for score in labels)
    assert (sex.kind, sex.n_test_positive) == ("multiclass", None) and 0.4 < sex.loss < 1.2
    assert potassium.mae > 0 and potassium.unit == "mmol/l"


def test_a_trial_may_be_tested_on_the_latest_patients(tiny_plan, tiny_grid, data_dir, tmp_path):
    """The row's tests are of the temporal split; a population without dates is split at random."""
    for population in ("A", "B"):
        shutil.copytree(data_dir / population, tmp_path / population, ignore=shutil.ignore_patterns("packed"))
    exams = pd.read_csv(tmp_path / "A" / "exams.csv")
    day = pd.Timestamp("2010-01-01") + pd.to_timedelta(exams["patient_id"].rank(), unit="D")
    exams.assign(exam_date=day.dt.strftime("%Y-%m-%d")).to_csv(tmp_path / "A" / "exams.csv", index=False)
    split = tiny_grid.data.split.model_copy(update={"temporal": "exam_date"})
    grid = tiny_grid.model_copy(update={"data": tiny_grid.data.model_copy(update={"split": split})})
    spec = spec_of(plan(grid, populations(grid, tmp_path)))
    record = run_trial(spec, Execution(tmp_path, tmp_path / "results", "tiny"))
    assert (record.status, record.reason) == (Status.COMPLETED, None)
    assert record.n_records == spec.n_records


# --- the weights that count ----------------------------------------------------------------------------------------


def test_scores_are_of_the_weights_with_the_best_validation_loss(tiny_plan, execution, monkeypatch):
    """The second of three evaluations is made the best one; what is scored must be the weights of that moment."""
    pretended = iter([2.0, 1.0, 3.0])
    weights: list[dict[str, torch.Tensor]] = []

    def evaluate_in_training(module, source):
        weights.append(copy.deepcopy(module.state_dict()))
        return next(pretended), None

    scored: list[dict[str, torch.Tensor]] = []

    def evaluate_at_the_end(module, source):
        scored.append(copy.deepcopy(module.state_dict()))
        return evaluate(module, source)

    evaluate = pretraining.evaluate
    monkeypatch.setattr(training, "evaluate", evaluate_in_training)
    monkeypatch.setattr(pretraining, "evaluate", evaluate_at_the_end)
    record = run_trial(spec_of(tiny_plan, "resnet-sl"), execution)
    assert (record.status, record.reason) == (Status.COMPLETED, None)
    assert (record.best_step, record.val_loss_best, record.val_loss_last) == (2, 1.0, 3.0)
    last, best = scored
    assert all(torch.equal(last[name], weights[2][name]) for name in last)
    assert all(torch.equal(best[name], weights[1][name]) for name in best)
    assert record.id_loss != record.id_loss_last


def test_evaluation_neither_trains_nor_draws(tiny_plan, execution, monkeypatch):
    """More evaluations on the way must not move the last weights' loss."""
    few, many = (
        spec_of(tiny_plan, "resnet-ssl", train=spec_of(tiny_plan).train.model_dump() | {"n_evaluations": n})
        for n in (1, 3)
    )
    assert run_trial(few, execution).id_loss_last == run_trial(many, execution).id_loss_last


def test_the_loss_falls_with_more_steps(tiny_plan, execution):
    short, long = (run_trial(spec_of(tiny_plan, "resnet-sl", n_steps=n), execution) for n in (3, 25))
    assert long.id_loss < short.id_loss - 0.05
    assert long.n_samples_seen == 25 * 16 and long.train_flops > 8 * short.train_flops


# --- a trial that goes wrong ---------------------------------------------------------------------------------------


def the_row_of(folder: Path, status: Status) -> RunRecord:
    """The only row, which says why and holds no measured number and no path."""
    (record,) = read(folder)
    assert record.status == status
    assert record.reason
    assert all(value is None for name, value in losses(record).items())
    assert record.id_auroc == () and record.transfer == ()
    assert record.n_params > 0 and record.wall_s > 0
    for text in (record.reason, record.spec, record.versions):
        assert "/tmp" not in text and str(Path.home()) not in text and str(Path(trial.__file__).parent) not in text
    return record


def the_failed_read_out_of(record: RunRecord) -> str:
    """Why its encoder could not be read out on B, without a path; the row of the training is whole."""
    assert record.status == Status.COMPLETED and record.id_loss is not None
    assert record.transfer == () and record.read_outs == ()
    (failed,) = record.failed_read_outs
    assert (failed.population, failed.status, failed.failure) == ("B", "failed", "data")
    assert "/tmp" not in failed.reason and str(Path.home()) not in failed.reason
    return failed.reason


def test_a_population_that_is_gone_costs_its_read_outs_only(tiny_plan, data_dir, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "A").symlink_to(data_dir / "A")
    returned = run_trial(spec_of(tiny_plan), Execution(tmp_path / "data", tmp_path / "results", "tiny"))
    assert read(tmp_path / "results") == [returned]
    reason = the_failed_read_out_of(returned)
    assert "B" in reason and "not a packed store" in reason


def test_no_data_at_all_leaves_a_row(tiny_plan, tmp_path):
    run_trial(spec_of(tiny_plan), Execution(tmp_path / "nowhere", tmp_path / "results", "tiny"))
    assert "not a packed store" in the_row_of(tmp_path / "results", Status.FAILED).reason


def test_records_that_changed_since_the_plan_leave_a_row(tiny_plan, execution):
    run_trial(spec_of(tiny_plan, data_fingerprint={"A": "of another day", "B": "too"}), execution)
    record = the_row_of(execution.results, Status.FAILED)
    assert "population 'A' has changed since the plan was made" in record.reason


def test_another_number_of_records_than_planned_leaves_a_row(tiny_plan, execution):
    run_trial(spec_of(tiny_plan, n_records=7), execution)
    assert "planned with 7 training records" in the_row_of(execution.results, Status.FAILED).reason


def test_a_task_without_its_column_costs_the_read_outs_only(tiny_plan, execution):
    record = run_trial(spec_of(tiny_plan, probe={"tasks": [{"name": "x", "column": "no_such"}]}), execution)
    assert "task 'x' wants column 'no_such'" in the_failed_read_out_of(record)


@pytest.mark.parametrize(
    "message", ["in /tmp/data/x.npy", "'/home/someone/a b/c.py', line 3", "https://host.org/x", "50 records/s and 1/8"]
)
def test_a_bug_leaves_a_row_with_its_place_and_no_path(tiny_plan, execution, monkeypatch, message):
    def bug(*arguments, **keywords):
        raise ZeroDivisionError(message)

    monkeypatch.setattr(pretraining, "build_encoder", bug)
    run_trial(spec_of(tiny_plan), execution)
    record = the_row_of(execution.results, Status.FAILED)
    assert record.reason.startswith("ZeroDivisionError: ")
    assert "pretraining.py" in record.reason and "test_trial.py" in record.reason  # which file, not where it lies
    assert "/home" not in record.reason
    if message.startswith(("https", "50")):
        assert message in record.reason  # not everything with a slash is a path


def test_a_loss_that_is_not_finite_leaves_a_diverged_row(tiny_plan, execution):
    run_trial(spec_of(tiny_plan, "transformer-ssl", peak_lr=1e12, n_steps=20), execution)
    record = the_row_of(execution.results, Status.DIVERGED)
    assert "loss is" in record.reason and "step" in record.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_test_loss_that_is_not_finite_leaves_a_diverged_row(tiny_plan, execution, monkeypatch, value):
    """Validation may have been fine: the row must still be written, and must not hold the number."""
    monkeypatch.setattr(pretraining, "evaluate", lambda module, source: (value, torch.zeros(len(source), 6)))
    run_trial(spec_of(tiny_plan), execution)
    the_row_of(execution.results, Status.DIVERGED)


def test_running_out_of_device_memory_has_a_status_of_its_own(tiny_plan, execution, monkeypatch):
    def too_large(*arguments, **keywords):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pretraining, "fit", too_large)
    run_trial(spec_of(tiny_plan), execution)
    the_row_of(execution.results, Status.OUT_OF_MEMORY)


# --- out of memory -------------------------------------------------------------------------------------------------


@pytest.fixture
def room_for(monkeypatch):
    """`room_for(3)`: the device holds the activations of three records; returns the numbers that were tried."""
    scored = Pretraining.scored

    def set_up(n_records: int, *, from_call: int = 0, in_training: bool = True) -> list[int]:
        tried: list[int] = []

        def score(self, part):
            tried.append(len(part.signal))
            if len(part.signal) > n_records and self.training == in_training and len(tried) > from_call:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return scored(self, part)

        monkeypatch.setattr(Pretraining, "scored", score)
        return tried

    return set_up


@pytest.mark.parametrize("arm", ["transformer-sl", "transformer-ssl"])
def test_a_batch_that_does_not_fit_is_trained_on_in_parts(tiny_plan, execution, room_for, caplog, arm):
    """The same steps over the same batches: the numbers agree up to the order of additions."""
    train = spec_of(tiny_plan, arm).train.model_dump() | {"augment": {"noise_mv": 0.1, "lead_dropout": 0.2}}
    spec = spec_of(tiny_plan, arm, train=train, n_steps=12)
    whole = run_trial(spec, execution)
    tried = room_for(3)
    parts = run_trial(spec, replace(execution, results=execution.results / "parts"))
    assert (parts.status, parts.reason) == (Status.COMPLETED, None)
    assert (whole.microbatch, parts.microbatch) == (None, 2)
    assert [size for size in tried if size > 2] == [16, 8, 4]  # halved until it fits
    assert "out of memory; again with 2 records at a time" in caplog.text
    assert parts.trial_id == whole.trial_id and parts.n_samples_seen == whole.n_samples_seen
    expected, found = ({k: v for k, v in losses(row).items() if v is not None} for row in (whole, parts))
    assert found == pytest.approx(expected, rel=1e-4)


def test_out_of_memory_in_the_middle_goes_on_from_the_checkpoint_and_stays_small(
    tiny_plan, data_dir, tmp_path, room_for
):
    """Also when it is interrupted and there is more memory afterwards: other parts would add in another order."""

    class After(StopRequest):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.left = n

        def check(self) -> None:
            self.left -= 1
            if self.left == 0:
                self.request("enough")
            super().check()

    spec = spec_of(tiny_plan, "transformer-ssl", n_steps=6, transfer_to=())
    rows = []
    for name, interrupted in (("undisturbed", False), ("interrupted", True)):
        execution = Execution(data_dir, tmp_path / name, "tiny", checkpoint_s=1e-6)  # after every step
        tried = room_for(8, from_call=3)
        if interrupted:
            with pytest.raises(Preempted):
                run_trial(spec, execution, After(4))
            assert not {16, 8}.isdisjoint(tried)
            room_for(1000)
        rows.append(run_trial(spec, execution))
        assert not list((execution.results / "checkpoints").iterdir())
        if not interrupted:
            assert tried.count(16) == 3  # two steps and the one that failed, none of them done again
    assert [(row.status, row.microbatch, row.n_resumes) for row in rows] == [("completed", 8, 1), ("completed", 8, 2)]
    assert losses(rows[0]) == losses(rows[1])
    assert all(row.train_s < row.wall_s for row in rows)


def test_a_training_whose_scoring_does_not_fit_is_not_repeated(tiny_plan, execution, room_for):
    spec = spec_of(tiny_plan, "transformer-sl", transfer_to=())
    whole = run_trial(spec, execution)
    tried = room_for(60, in_training=False)  # the validation patients fit, those of the test do not
    record = run_trial(spec, replace(execution, results=execution.results / "again"))
    assert (record.status, record.microbatch, record.n_resumes) == (Status.COMPLETED, 8, 1)
    assert tried.count(16) == spec.n_steps
    assert record.val_loss_last == whole.val_loss_last
    assert record.id_loss == pytest.approx(whole.id_loss, rel=1e-6)


@pytest.mark.parametrize("arm", ["resnet-sl", "resnet-ssl"])
def test_what_normalises_over_the_batch_is_not_split(tiny_plan, execution, room_for, arm):
    tried = room_for(8)
    run_trial(spec_of(tiny_plan, arm), execution)
    record = the_row_of(execution.results, Status.OUT_OF_MEMORY)
    assert tried == [16] and record.microbatch is None


def test_families_that_are_not_split_are_those_with_batch_statistics(tiny_plan):
    for spec in tiny_plan.specs:
        encoder = build_encoder(shape(spec.family, spec.rung, spec.input.shape), spec.input.shape)
        over_the_batch = any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
        assert over_the_batch == (spec.family in BATCH_STATISTICS)


def test_a_record_that_does_not_fit_alone_leaves_a_row(tiny_plan, execution, room_for):
    tried = room_for(0)
    run_trial(spec_of(tiny_plan), execution)
    record = the_row_of(execution.results, Status.OUT_OF_MEMORY)
    assert tried == [16, 8, 4, 2, 1] and record.microbatch == 1


def test_a_failed_trial_does_not_spoil_the_next(tiny_plan, execution):
    alone = run_trial(spec_of(tiny_plan), execution)
    run_trial(spec_of(tiny_plan, "transformer-ssl", peak_lr=1e12, n_steps=20), execution)
    after = run_trial(spec_of(tiny_plan), replace(execution, results=execution.results / "after"))
    assert losses(after) == losses(alone)


def test_ctrl_c_in_training_stops_the_sweep_and_leaves_no_row(tiny_plan, execution, monkeypatch):
    """Lightning turns it into an exit of its own and turns the signal off; the sweep wants to say good-bye."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingStream, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec_of(tiny_plan), execution)
    assert signal.getsignal(signal.SIGINT) == before
    assert read(execution.results) == []


def test_only_the_row_and_what_trials_share_are_left(tiny_plan, execution, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Lightning likes to leave folders where it is started
    run_trial(spec_of(tiny_plan), execution)
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parts[0] for path in left} == {"results"}
    assert sorted(path.parent.name for path in left) == [
        *["baselines"] * 2,
        "encoders",
        *["features"] * 3,
        "rows",
        "transfer",
    ]


# --- alone ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trial_runs_alone_from_its_json(tiny_plan, data_dir, tmp_path):
    spec = spec_of(tiny_plan)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "ecgscale.trial", "spec.json", "--data", str(data_dir), "--out", "results/tiny"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (record,) = read(tmp_path / "results" / "tiny")
    assert record.status == Status.COMPLETED and record.sweep == "tiny"
    assert json.loads(ended.stdout)["id_loss"] == record.id_loss
    here = run_trial(spec, Execution(data_dir, tmp_path / "here", "tiny"))
    assert losses(here) == losses(record)


@pytest.mark.slow
def test_a_trial_that_fails_alone_says_so_by_its_exit_status(tiny_plan, data_dir, tmp_path):
    spec = spec_of(tiny_plan, n_records=7)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "ecgscale.trial", "spec.json", "--data", str(data_dir), "--out", "results/tiny"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "planned with 7 training records" in ended.stdout


def test_rows_of_other_trials_are_left_alone(tiny_plan, execution, make_record):
    append(execution.results, make_record())
    run_trial(spec_of(tiny_plan), execution)
    assert len(read(execution.results)) == 2
    assert not list(execution.results.glob("**/*.tmp"))


def test_a_trial_does_not_write_into_the_data(tiny_plan, execution, data_dir, tmp_path):
    def state() -> dict[str, int]:
        return {str(p.relative_to(data_dir)): p.stat().st_mtime_ns for p in sorted(data_dir.rglob("*")) if p.is_file()}

    before = state()
    run_trial(spec_of(tiny_plan), execution)
    assert state() == before
    shutil.rmtree(execution.results)
