"""Experiment tracking is off unless asked for, and refuses before a sweep starts what would fail in every trial."""

import sys

import pytest

from ecgscale.errors import EcgscaleError
from ecgscale.plan import plan
from ecgscale.tracking import loggers, wandb_mode


@pytest.fixture(autouse=True)
def _empty_home(monkeypatch, tmp_path):
    """No key of the developer's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)


@pytest.mark.parametrize(
    ("flag", "environment", "mode"),
    [
        (None, None, "disabled"),
        (None, "", "disabled"),
        (None, "offline", "offline"),
        ("offline", None, "offline"),
        ("disabled", "offline", "disabled"),
        ("offline", "disabled", "offline"),
    ],
)
def test_the_flag_goes_before_the_environment(monkeypatch, flag, environment, mode):
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert wandb_mode(flag) == mode


@pytest.mark.parametrize(("flag", "environment"), [("onlin", None), (None, "dryrun")])
def test_a_mode_that_does_not_exist_names_those_that_do(monkeypatch, flag, environment):
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    with pytest.raises(EcgscaleError, match=f"'{flag or environment}' does not exist; .*disabled, offline, online"):
        wandb_mode(flag)


def test_online_needs_a_key(monkeypatch, tmp_path):
    with pytest.raises(EcgscaleError, match=r"needs a key: .*wandb login.*WANDB_API_KEY.*--wandb offline"):
        wandb_mode("online")
    (tmp_path / ".netrc").touch()  # what `wandb login` writes
    assert wandb_mode("online") == "online"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode("online") == "online"


def test_when_it_is_off_nothing_is_imported_or_written(tiny_grid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    with loggers("disabled", plan(tiny_grid).specs[0], "tiny", tmp_path) as active:
        assert active == []
    assert not (tmp_path / "wandb").exists()


@pytest.mark.slow
def test_offline_writes_one_run_per_trial_without_a_network(tiny_plan, data_dir, tmp_path, monkeypatch):
    """One real trial; the run lies under the results, and the numbers are those of an untracked one."""
    from ecgscale.execution import Execution
    from ecgscale.trial import run_trial

    monkeypatch.chdir(tmp_path)
    spec = next(s for s in tiny_plan.specs if s.arm == "transformer-sl")
    tracked, plain = (
        run_trial(spec, Execution(data_dir, tmp_path / mode, "tiny", wandb=mode)) for mode in ("offline", "disabled")
    )
    assert (tracked.status, tracked.reason) == ("completed", None)
    assert tracked.id_loss == plain.id_loss
    runs = list((tmp_path / "offline" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1 and spec.trial_id in runs[0].name
    assert not (tmp_path / "wandb").exists()
