"""What is read off an encoder after its training: without another training, and as if it had been read in one go."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ecgscale import encoder_scores, results, transfer_files, trial
from ecgscale.encoders import encoder_path
from ecgscale.execution import Execution
from ecgscale.executors import inprocess, shipping
from ecgscale.executors.elsewhere import Elsewhere
from ecgscale.results import RunRecord, Status, lacking, missing, outcomes, read
from ecgscale.spec_base import hashed
from ecgscale.spec_changes import standings
from ecgscale.specs import TrialSpec
from ecgscale.trial import run_trial

OTHER_TASKS = {"tasks": [{"name": "SB", "column": "SB"}, {"name": "over_65", "column": "age", "above": 60}]}


@pytest.fixture(scope="module")
def spec(tiny_plan) -> TrialSpec:
    """Supervised, so that its head is read out as well."""
    (found,) = (s for s in tiny_plan.specs if s.arm == "transformer-sl" and s.data_fraction == 1)
    return found


@pytest.fixture(scope="module")
def otherwise(spec) -> TrialSpec:
    """The same training, other tasks."""
    return TrialSpec.model_validate(spec.model_dump() | {"probe": OTHER_TASKS})


def in_one_go(spec, data_dir, folder) -> RunRecord:
    record = run_trial(spec, Execution(data_dir, folder, "tiny"))
    assert (record.status, record.reason, record.failed_read_outs) == (Status.COMPLETED, None, ())
    assert record.transfer
    return record


@pytest.fixture(scope="module")
def first(spec, data_dir, tmp_path_factory) -> tuple[Path, RunRecord]:
    folder = tmp_path_factory.mktemp("first")
    return folder, in_one_go(spec, data_dir, folder)


@pytest.fixture(scope="module")
def expected(otherwise, data_dir, tmp_path_factory) -> RunRecord:
    """Trained and read out with the other tasks in one go."""
    return in_one_go(otherwise, data_dir, tmp_path_factory.mktemp("expected"))


@pytest.fixture
def execution(first, data_dir, tmp_path) -> Execution:
    """A folder in which `spec` is done."""
    shutil.copytree(first[0], tmp_path / "results")
    return Execution(data_dir, tmp_path / "results", "tiny")


@pytest.fixture
def no_training(monkeypatch) -> None:
    def trains(*arguments):
        raise AssertionError("it trains again")

    monkeypatch.setattr(trial, "pretrain", trains)


@pytest.fixture
def read_out_on(monkeypatch) -> list[str]:
    """The populations that are read out from now on."""
    populations: list[str] = []
    score = trial.score_encoder
    monkeypatch.setattr(trial, "score_encoder", lambda s, p, *rest: populations.append(p) or score(s, p, *rest))
    return populations


def failing(error: BaseException) -> Callable[..., None]:
    def fails(*arguments):
        raise error

    return fails


# --- other tasks, other populations --------------------------------------------------------------------------------


def test_other_tasks_are_read_off_the_kept_encoder_bit_for_bit(otherwise, expected, first, execution, no_training):
    assert missing([otherwise], read(execution.results)) == (otherwise,)
    record = run_trial(otherwise, execution)
    assert record.transfer == expected.transfer and record.transfer != first[1].transfer
    assert record.read_outs == expected.read_outs != first[1].read_outs
    assert record.attempt == first[1].attempt and record.id_loss == expected.id_loss
    assert read(execution.results) == [record]
    assert missing([otherwise], [record]) == ()


def test_what_was_there_before_is_the_newest_again_without_being_computed(
    spec, otherwise, first, execution, no_training, read_out_on
):
    run_trial(otherwise, execution)
    assert read_out_on == ["B"]
    assert missing([spec], read(execution.results)) == (spec,)
    record = run_trial(spec, execution)
    assert read_out_on == ["B"] and record.transfer == first[1].transfer
    assert missing([spec], read(execution.results)) == ()


def test_another_population_alone_is_read_out(spec, first, execution, no_training, read_out_on):
    both = spec.model_copy(update={"transfer_to": ("B", "A")})
    (wanted,) = lacking(both, first[1])
    record = run_trial(both, execution)
    assert wanted.population == "A" and read_out_on == ["A"]
    assert {score.population for score in record.transfer} == {"A", "B"}
    assert tuple(score for score in record.transfer if score.population == "B") == first[1].transfer


def test_what_is_done_is_not_done_again(spec, first, execution, no_training, read_out_on):
    assert run_trial(spec, execution) == first[1] and read_out_on == []


def test_a_plan_tells_other_read_outs_from_other_trainings(spec, otherwise, first):
    retrained = spec.model_copy(update={"seed": 7})
    (standing,) = standings([otherwise], [first[1]]).values()
    assert standing.kind == "trained"
    assert "probe.tasks[over_65].above 65.0 → 60.0" in standing.changes and "probe.tasks[male]" in str(standing)
    assert str(standing).startswith("read-outs: ")
    assert standings([spec], [first[1]])[spec.trial_id].kind == "done"
    assert standings([retrained], [first[1]])[retrained.trial_id].kind == "new"


def test_other_tasks_are_read_off_kept_features_and_damaged_ones_are_made_again(
    otherwise, expected, execution, monkeypatch
):
    computed: list[str] = []
    for name in ("features", "by_hand"):
        of = getattr(encoder_scores.Records, name)

        def counted(self, *arguments, of=of, name=name):
            computed.append(name)
            return of(self, *arguments)

        monkeypatch.setattr(encoder_scores.Records, name, counted)
    assert run_trial(otherwise, execution).transfer == expected.transfer and computed == []
    for kept in (execution.results / "features").iterdir():
        whole = kept.read_bytes()
        kept.write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])
    for folder in ("transfer", "baselines"):
        shutil.rmtree(execution.results / folder)
    assert run_trial(otherwise, execution).transfer == expected.transfer
    assert sorted(set(computed)) == ["by_hand", "features"] and len(computed) == 3 * 3  # the parts of three encoders


# --- interrupted ---------------------------------------------------------------------------------------------------


def test_a_trial_that_is_killed_after_its_row_is_only_read_out(spec, first, data_dir, tmp_path, monkeypatch):
    execution = Execution(data_dir, tmp_path / "results", "tiny")
    elsewhere = Elsewhere(execution)
    with monkeypatch.context() as killed:
        killed.setattr(trial, "score_encoder", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec, execution)
    (row,) = read(execution.results)
    assert (row.status, row.transfer, row.id_loss) == (Status.COMPLETED, (), first[1].id_loss)
    assert missing([spec], [row]) == (spec,)
    assert elsewhere.look([spec]) == ([], [spec])  # nobody may take it for ended
    monkeypatch.setattr(trial, "pretrain", failing(AssertionError("it trains again")))
    assert run_trial(spec, execution).transfer == first[1].transfer
    ((end,), free) = elsewhere.look([spec])
    assert (end.trial_id, end.status, free) == (spec.trial_id, "completed", [])


@pytest.mark.parametrize("damage", ["a bit", "gone"])
def test_without_its_encoder_a_trial_trains_again_to_the_same_scores(
    otherwise, expected, execution, caplog, damage, read_out_on
):
    path = encoder_path(execution.results, otherwise.trial_id)
    whole = path.read_bytes()
    if damage == "a bit":
        path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    else:
        path.unlink()
    record = run_trial(otherwise, execution)
    assert record.transfer == expected.transfer and record.id_loss == expected.id_loss
    assert "trains again, for what is to be read off its encoder" in caplog.text
    assert ("its checksum is wrong; set aside" if damage == "a bit" else "the encoder is gone") in caplog.text
    assert len(read(execution.results)) == 2 and read_out_on == ["B"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_read_out_that_was_taken_over_publishes_nothing(otherwise, execution):
    with pytest.raises(trial.Preempted, match="has taken its place"):
        run_trial(otherwise, execution, may_publish=lambda: False)
    assert len(list((execution.results / "transfer").iterdir())) == 1


# --- a read-out that fails -----------------------------------------------------------------------------------------


def test_a_read_out_that_fails_leaves_the_row_and_is_tried_again(otherwise, expected, execution, monkeypatch):
    elsewhere = Elsewhere(execution)
    with monkeypatch.context() as broken:
        broken.setattr(trial, "score_encoder", failing(KeyError("/tmp/x")))
        end = inprocess.ended(otherwise, execution)
    assert (end.status, end.failure, end.id_loss) == ("failed", "bug", expected.id_loss)
    assert end.bug and end.reason.startswith("trained, but not read out on B: KeyError")
    (told,), free = elsewhere.look([otherwise])  # of another worker: it must not try for ever
    assert (told.status, told.failure, free) == ("failed", "bug", [])
    (row,) = read(execution.results)
    assert row.status == Status.COMPLETED and row.transfer  # of the tasks before
    (failed,) = row.failed_read_outs
    assert failed.population == "B" and "/tmp" not in failed.reason
    assert [o.failed_read_outs for o in outcomes(execution.results)] == [row.failed_read_outs]
    assert missing([otherwise], [row]) == (otherwise,)
    assert standings([otherwise], [row])[otherwise.trial_id].changes == ("B failed",)
    assert inprocess.ended(otherwise, execution).status == "completed"
    (row,) = read(execution.results)
    assert (row.failed_read_outs, row.transfer) == ((), expected.transfer)
    assert not list((execution.results / "transfer").glob("*.failed.parquet"))


def test_what_does_not_fit_is_read_out_in_smaller_parts(otherwise, expected, execution, monkeypatch, caplog):
    score, tried = trial.score_encoder, []

    def needs_room(spec, population, module, *rest):
        tried.append(module.microbatch)
        if (module.microbatch or 256) > 64:
            raise trial.torch.OutOfMemoryError("CUDA out of memory")
        return score(spec, population, module, *rest)

    monkeypatch.setattr(trial, "score_encoder", needs_room)
    record = run_trial(otherwise, execution)
    assert tried == [None, 128, 64] and "reads out 64 records at a time" in caplog.text
    assert [s.loss for s in record.transfer] == pytest.approx([s.loss for s in expected.transfer], rel=1e-4)


# --- the files -----------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_set_aside_and_read_out_again(spec, first, execution, no_training):
    (path,) = (execution.results / "transfer").iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    (row,) = read(execution.results)
    assert row.transfer == () and missing([spec], [row]) == (spec,)
    assert list(results.quarantined(execution.results)) == [path.name]
    assert run_trial(spec, execution).transfer == first[1].transfer


def test_many_are_kept_in_a_cache_that_sees_what_is_new(spec, otherwise, execution, monkeypatch):
    monkeypatch.setattr(results, "WORTH_A_CACHE", 1)
    expected = read(execution.results)
    opened, read_record = [], transfer_files.read_record
    monkeypatch.setattr(transfer_files, "read_record", lambda p, m: opened.append(p.name) or read_record(p, m))
    assert read(execution.results) == expected and opened == []
    assert [o.read_outs for o in outcomes(execution.results)] == [expected[0].read_outs]
    assert (execution.results / transfer_files.CACHE_FILE).exists() and opened == []
    record = run_trial(otherwise, execution)
    assert read(execution.results) == [record] != expected


def test_a_file_says_what_was_read_out_and_where_that_comes_from(spec, first):
    (record,) = transfer_files.of_trial(first[0], spec.trial_id)
    assert json.loads(record.spec)["probe"]["tasks"] == json.loads(first[1].spec)["probe"]["tasks"]
    assert (record.versions, record.host, record.git_commit) == (
        first[1].versions,
        first[1].host,
        first[1].git_commit,
    )
    assert 0 < record.wall_s == first[1].read_outs_s
    assert record.computed_at <= record.published_at
    assert set(json.loads(first[1].data_fingerprint)) == {"A", "B"}


def test_the_files_of_a_trial_travel_whole(spec, otherwise, expected, execution, tmp_path, no_training):
    node = tmp_path / "node"
    assert shipping.put(node, dict(shipping.published(execution.results, spec.trial_id)))
    assert run_trial(otherwise, replace(execution, results=node)).transfer == expected.transfer
    assert shipping.put(execution.results, dict(shipping.taken(node, spec.trial_id)))
    assert read(execution.results)[0].transfer == expected.transfer
    assert not list(shipping.published(node, spec.trial_id))
    assert not shipping.put(node, {"rows/x.parquet": b"x"}, lambda: False) and not (node / "rows/x.parquet").exists()


# --- folders from before -------------------------------------------------------------------------------------------


def test_rows_that_hold_their_scores_are_read_and_done(spec, otherwise, first, tmp_path):
    """As they were written when a trial was identified by its read-outs as well."""
    stored = json.loads(first[1].spec)
    for name in ("target", "head", "corruptions"):
        stored.pop(name, None)
    fields = {"schema_version": 1, "trial_id": hashed(stored), "spec": json.dumps(stored), "read_outs_s": None}
    results.append(tmp_path, first[1].model_copy(update=fields | {"read_outs": (), "read_out_specs": ()}))
    (row,) = read(tmp_path)
    assert row.trial_id == spec.trial_id != hashed(stored)
    assert row.transfer == first[1].transfer
    assert missing([spec], [row]) == () and missing([otherwise], [row]) == (otherwise,)
    standing = standings([otherwise], [row])[otherwise.trial_id]
    assert standing.kind == "changed"  # it has no encoder
    assert any("above 65.0 → 60.0" in change for change in standing.changes)
