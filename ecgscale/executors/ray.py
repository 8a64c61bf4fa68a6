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
from typing import Any

from ecgscale.execution import Execution
from ecgscale.executors import Ended, Report
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

WORKER_DEATHS_FORGIVEN = 1
"""How often a trial whose worker died is started again within one sweep."""


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


def run(specs: Sequence[TrialSpec], execution: Execution, report: Report, *, trials_per_gpu: int = 1) -> None:
    """Runs trials on the connected cluster, in the given order as far as slots of one size keep it.

    Args:
        trials_per_gpu: how many trials share a GPU, when there are any.
    """
    slot = {"CPU": float(execution.threads)}
    if ray.cluster_resources().get("GPU", 0):
        slot["GPU"] = 1.0 / trials_per_gpu
    scratch = (execution.results / f".tune-{os.getpid()}").absolute()
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_train_in_named_task, specs=tuple(specs), execution=execution, slot=slot),
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
            callbacks=[_Reporter(specs, report)],
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS_FORGIVEN),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _train_in_named_task(
    config: dict[str, Any], specs: tuple[TrialSpec, ...], execution: Execution, slot: dict[str, float]
) -> None:
    """The trainable: waits for a task that is named like the trial and holds its slot."""
    spec = specs[config["number"]]
    task = _task.options(name=spec.label, num_cpus=slot["CPU"], num_gpus=slot.get("GPU", 0))
    # nested, because Tune writes keys of its own (`trial_id` among them) beside what is reported
    tune.report({"ended": asdict(ray.get(task.remote(spec, execution)))})


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _task(spec: TrialSpec, execution: Execution) -> Ended:
    # imported in the worker: the driver needs neither torch nor Lightning
    from ecgscale.executors.inprocess import ended

    return ended(spec, execution)


class _Reporter(tune.Callback):  # type: ignore[misc]
    """Passes every end on to the sweep."""

    def __init__(self, specs: Sequence[TrialSpec], report: Report) -> None:
        self.specs = specs
        self.report = report

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for an experiment state that we throw away; a progress bar can't be pickled
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.report(Ended(**trial.last_result["ended"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        spec = self.specs[trial.config["number"]]
        reason = "its worker died (killed, or out of memory); `ecgscale sweep` again starts it again"
        self.report(Ended(spec.trial_id, spec.label, "lost", 0.0, None, reason))
