"""Many trials on a Ray cluster, local or remote: Tune over a plain function trainable with reused actors.

Tune holds the queue and the slots; each trial trains in a Ray task that bears the trial's name, so the dashboard's task
table reads like the plan, and a worker that dies takes no scheduler state along. Tune's own experiment folder is thrown
away: the rows are the truth.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecgscale.budget import Gate
from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report, Stop, lost, never
from ecgscale.specs import TrialSpec

# Ray and Tune read these when they are imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "1e6")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune

WORKER_DEATHS_FORGIVEN = 0
"""By Tune, which would start it again at once: `sweep.execute` does, after a pause."""


@dataclass(frozen=True)
class Cluster:
    """Where the slots are.

    Attributes:
        address: of a running cluster, `auto` for the one this machine belongs to; None starts a local one.
        cpus: CPUs a local cluster offers; None for all.
        dashboard: start the dashboard of a local cluster.
    """

    address: str | None = None
    cpus: int | None = None
    dashboard: bool = False


def start(cluster: Cluster) -> str | None:
    """Connects to Ray, or starts it; returns the dashboard's URL when there is one."""
    if ray.is_initialized():
        return None
    local: dict[str, Any] = {}
    if cluster.address is None:
        local = {"num_cpus": cluster.cpus, "include_dashboard": cluster.dashboard, "dashboard_host": "127.0.0.1"}
    context = ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, **local)
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def stop() -> None:
    ray.shutdown()


def run(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    trials_per_gpu: int = 1,
    stop: Stop = never,
    gate: Gate | None = None,
) -> None:
    """Runs trials on the connected cluster, in the given order as far as slots of one size keep it.

    Args:
        trials_per_gpu: how many trials share a GPU, when there are any.
        gate: asked by every trial before it starts; it is up to date when this returns.
    """
    slot = {"CPU": float(execution.threads)}
    if ray.cluster_resources().get("GPU", 0):
        slot["GPU"] = 1.0 / trials_per_gpu
    scratch = (execution.results / f".tune-{os.getpid()}").absolute()
    stopped = scratch / "stopped"
    keeper = ray.remote(num_cpus=0)(_Keeper).remote(gate) if gate is not None else None
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(
                _train_in_named_task,
                specs=tuple(specs),
                execution=execution,
                slot=slot,
                stopped=stopped,
                keeper=keeper,
            ),
            # an empty first bundle: the trainable only waits for its task, which takes the second
            tune.PlacementGroupFactory([{}, slot]),
        ),
        param_space={"number": tune.grid_search(list(range(len(specs))))},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            trial_name_creator=lambda trial: specs[trial.config["number"]].label,
            trial_dirname_creator=lambda trial: specs[trial.config["number"]].trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            callbacks=[_Reporter(specs, report, stop, stopped)],
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS_FORGIVEN),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if gate is not None and keeper is not None:
        vars(gate).update(vars(ray.get(keeper.state.remote())))


_LEFT_OUT = {"ended": None, "left_out": True}
"""What Tune hears of a trial that was not started; of a result without any value it would print a line."""


def _train_in_named_task(
    config: dict[str, Any],
    specs: tuple[TrialSpec, ...],
    execution: Execution,
    slot: dict[str, float],
    stopped: Path,
    keeper: Any,
) -> None:
    """The trainable: waits for a task that is named like the trial and holds its slot."""
    if stopped.exists():  # Tune can stop a sweep only by killing what runs
        tune.report(_LEFT_OUT)
        return
    spec = specs[config["number"]]
    if keeper is not None and ray.get(keeper.refuses.remote(spec.trial_id)):
        tune.report(_LEFT_OUT)
        return
    task = _task.options(name=spec.label, num_cpus=slot["CPU"], num_gpus=slot.get("GPU", 0))
    # nested, because Tune writes keys of its own (`trial_id` among them) beside what is reported
    end = ray.get(task.remote(spec, execution))
    if keeper is not None:
        ray.get(keeper.ended.remote(spec.trial_id, end.wall_s))
    tune.report({"ended": asdict(end)})


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _task(spec: TrialSpec, execution: Execution) -> Ended:
    # imported in the worker: the driver needs neither torch nor Lightning
    from ecgscale.executors.inprocess import ended

    return ended(spec, execution)


class _Keeper:
    """The gate, where all trials of the cluster can ask it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def refuses(self, trial_id: str) -> str | None:
        return self.gate.refuses(trial_id)

    def ended(self, trial_id: str, wall_s: float) -> None:
        self.gate.ended(trial_id, wall_s)

    def state(self) -> Gate:
        return self.gate


class _Reporter(tune.Callback):  # type: ignore[misc]
    """Passes every end on to the sweep, and the sweep's wish to stop to the trials that have not started."""

    def __init__(self, specs: Sequence[TrialSpec], report: Report, stop: Stop, stopped: Path) -> None:
        self.specs = specs
        self.report = report
        self.stop = stop
        self.stopped = stopped

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for an experiment state that we throw away; a progress bar can't be pickled
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self.stopped.exists() and self.stop():
            self.stopped.parent.mkdir(parents=True, exist_ok=True)
            self.stopped.touch()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.last_result["ended"] is not None:
            self.report(Ended(**trial.last_result["ended"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        spec = self.specs[trial.config["number"]]
        self.report(lost(spec, "its worker died (killed, or the machine ran out of memory)"))
