"""Which class a failure is of, when two are the same bug, and what a row says of it."""

import errno
import json
import socket
from pathlib import Path

import pytest
import torch

from ecgscale import pretraining, trial
from ecgscale.errors import DataError, EcgscaleError, SpecError
from ecgscale.execution import Execution
from ecgscale.failures import ADVICE, BugWatch, Diverged, FailureClass, classify, failure_classes, fingerprint
from ecgscale.provenance import public_argv
from ecgscale.results import ROW_SCHEMA, Status, read
from ecgscale.trial import run_trial


def from_a(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (torch.cuda.OutOfMemoryError(""), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (Diverged("loss is nan"), "diverged"),
        (DataError("A: no such column"), "data"),
        (SpecError("rung"), "data"),
        (OSError(errno.ENOSPC, "No space left on device"), "infrastructure"),
        (OSError(errno.EIO, "Input/output error"), "infrastructure"),
        (PermissionError(errno.EACCES, "Permission denied"), "infrastructure"),
        (ConnectionResetError(), "infrastructure"),
        (TimeoutError(), "infrastructure"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "infrastructure"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "bug"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "bug"),
        (ZeroDivisionError("out of memory"), "bug"),
        (KeyError("x"), "bug"),
        (from_a(OSError(errno.EIO, "Input/output error"), ValueError("no such record")), "infrastructure"),
        (from_a(KeyError("x"), ValueError("y")), "bug"),
    ],
    ids=repr,
)
def test_an_exception_is_of_one_class(error, expected):
    assert classify(error) == expected


def test_an_exception_that_is_its_own_cause_has_a_class_too():
    error = ValueError("x")
    error.__cause__ = KeyError("y")
    error.__cause__.__cause__ = error
    assert classify(error) is FailureClass.BUG


def test_every_class_is_explained():
    assert set(ADVICE) == set(FailureClass)


def test_classes_are_named_by_the_user():
    assert failure_classes("infrastructure, bug") == {"infrastructure", "bug"}
    with pytest.raises(EcgscaleError, match=r"'bugs'.*out_of_memory, diverged, data, infrastructure, bug"):
        failure_classes("bugs")


# --- the same bug --------------------------------------------------------------------------------------------------


def caught(function, *arguments) -> str:
    try:
        function(*arguments)
    except Exception as error:
        return fingerprint(error)
    raise AssertionError("it did not fail")


def divide(by):
    return 1 / by


def divide_all(by):
    return [divide(number) for number in by]


def nested(depth):
    return nested(depth - 1) if depth else divide(0)


def fails_in_two_ways(way):
    if way == "key":
        return {}["some key"]
    if way == "other key":
        return {}["another key"]
    return [][0]


def test_two_failures_along_the_same_calls_are_one_bug():
    assert caught(divide_all, [0]) == caught(divide_all, [1, 2, 0])
    assert caught(nested, 2) == caught(nested, 20)
    assert caught(fails_in_two_ways, "key") == caught(fails_in_two_ways, "other key")  # another line and message


def test_other_calls_or_another_exception_are_another_bug():
    assert caught(divide, 0) != caught(divide_all, [0])
    assert caught(fails_in_two_ways, "key") != caught(fails_in_two_ways, "index")


def test_a_bug_stops_once_three_trials_have_it():
    watch = BugWatch()
    for trial_id in ("a", "b", "a", "b"):  # two trials, however often
        watch.saw("one", trial_id, "KeyError")
    watch.saw("two", "c", "IndexError")
    assert not watch.stopped and watch.verdict() is None
    watch.saw("one", "c", "KeyError: x")
    assert watch.stopped and "KeyError: x" in watch.verdict()


# --- what a trial's row says ---------------------------------------------------------------------------------------


@pytest.fixture
def execution(data_dir: Path, tmp_path: Path) -> Execution:
    command = public_argv(["/opt/bin/ecgscale", "sweep", str(tmp_path / "x.yaml"), "--token", "hush"])
    return Execution(data_dir, tmp_path / "results", "tiny", argv=command, config_hash="0123456789ab")


@pytest.fixture
def spec(tiny_plan):
    return min(tiny_plan.specs, key=lambda s: (s.n_records, s.label))


def failing(error: Exception):
    def fail(*arguments, **keywords):
        raise error.with_traceback(None)

    return fail


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), Status.OUT_OF_MEMORY, "out_of_memory"),
        (MemoryError(), Status.OUT_OF_MEMORY, "out_of_memory"),
        (Diverged("loss is nan"), Status.DIVERGED, "diverged"),
        (DataError("A: gone"), Status.FAILED, "data"),
        (OSError(errno.EIO, "Input/output error", "/data/x/shard.npy"), Status.FAILED, "infrastructure"),
        (IndexError("list index out of range"), Status.FAILED, "bug"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_row_names_the_class(spec, execution, monkeypatch, error, status, failure):
    monkeypatch.setattr(pretraining, "fit", failing(error))
    run_trial(spec, execution)
    (record,) = read(execution.results)
    assert (record.status, record.failure, record.failure_class) == (status, failure, failure)
    assert record.reason and "/data" not in record.reason
    assert (record.bug is not None) == (failure == "bug")


def test_trials_with_one_bug_share_its_number(tiny_plan, execution, monkeypatch):
    monkeypatch.setattr(pretraining, "build_encoder", failing(IndexError("x")))
    for spec in tiny_plan.specs[:3]:
        run_trial(spec, execution)
    monkeypatch.setattr(pretraining, "build_encoder", failing(KeyError("x")))
    run_trial(tiny_plan.specs[3], execution)
    *same, other = (record.bug for record in read(execution.results))
    assert len(same) == 3 and len(set(same)) == 1 and other not in same


def test_a_row_says_where_it_comes_from_and_holds_no_path_address_or_secret(spec, execution, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    record = run_trial(spec, execution)
    assert record.status == Status.COMPLETED and record.failure is None and record.bug is None
    assert json.loads(record.argv) == ["ecgscale", "sweep", "x.yaml", "--token", "…"]
    assert record.config_hash == "0123456789ab"
    assert record.started_at <= record.ended_at
    assert "python" in json.loads(record.versions)
    assert (record.git_diff is not None) == bool(record.git_dirty)
    text = record.model_dump_json()
    for private in (str(tmp_path), str(Path.home()), str(Path(trial.__file__).parent), "hush", "0123456789" * 4):
        assert private not in text
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in text
    assert set(json.loads(text)) == set(ROW_SCHEMA.names)
