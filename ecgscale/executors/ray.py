"""Many trials at once on a Ray cluster, local or remote; see `ray_pool` for how."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ecgscale.budget import Gate
from ecgscale.execution import Execution
from ecgscale.executors import Report, Stop, never
from ecgscale.executors.slots import Slots
from ecgscale.side_by_side import SideBySide
from ecgscale.specs import TrialSpec

# Ray reads these when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

_started_here = False
"""Whether this process has started its cluster: then no node will join."""


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
    global _started_here
    if ray.is_initialized():
        return None
    local: dict[str, Any] = {}
    if cluster.address is None:
        local = {"num_cpus": cluster.cpus, "include_dashboard": cluster.dashboard, "dashboard_host": "127.0.0.1"}
    # without an address Ray would join whatever cluster it finds on this machine
    address = cluster.address or "local"
    context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    _started_here = cluster.address is None
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def stop() -> None:
    ray.shutdown()


def run(
    specs: Sequence[TrialSpec],
    execution: Execution,
    report: Report,
    *,
    slots: Slots | None = None,
    stop: Stop = never,
    gate: Gate | None = None,
    together: SideBySide | None = None,
) -> None:
    """Runs trials on the connected cluster, in the given order as far as their shares of GPUs keep it.

    Returns early when asked to stop: by `stop` or `gate`, what runs then ends; by Ctrl-C or a signal of `preemption`,
    what runs then keeps its checkpoint.

    Args:
        slots: what one trial holds; by default CPUs, and a share of a GPU if the cluster has any.
        together: which trials train side by side; by default none.

    Raises:
        EcgscaleError: no node can run a trial, and none will.
    """
    from ecgscale.executors.ray_pool import Pool

    pool = Pool(execution, report, slots or Slots(), stop, gate, autoscaled=not _started_here)
    pool.run((together or SideBySide()).groups(specs, _at_once(execution, slots or Slots())))


def _at_once(execution: Execution, slots: Slots) -> int:
    """At least so many trials, of the nodes that are there."""
    found = ray.cluster_resources()
    gpus = int(found.get("GPU", 0)) * (slots.trials_per_gpu or 1)
    return max(1, gpus or int(found.get("CPU", 0)) // execution.threads)
