"""How a cluster is cut into slots: what one running trial holds of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ecgscale.plan import gpu_share, planned
from ecgscale.side_by_side import Group
from ecgscale.specs import TrialSpec


@dataclass(frozen=True)
class Slots:
    """Attributes:
    trials_per_gpu: that share one GPU, those that take turns counted once; None for as many as memory and time allow,
        by `plan.gpu_share`.
    gpu_memory_gib: of the smallest GPU; None to ask the first node that has one.
    wait_for_gpus: the cluster starts nodes with GPUs when they are asked for; there may be none yet.
    alone: a trial has a GPU to itself, or its node where there is none; for what ran out of memory beside others.
    ship_results: rows travel back to the driver, for nodes that don't see the results folder.
    """

    trials_per_gpu: int | None = None
    gpu_memory_gib: float | None = None
    wait_for_gpus: bool = False
    ship_results: bool = False
    alone: bool = False

    def group_share(self, group: Group, gpu_memory_gib: float | None, *, stacked: bool = False) -> float:
        """The same of trials that take turns in one process, or are stacked in it."""
        if len(group) == 1 or self.alone or self.trials_per_gpu is not None or gpu_memory_gib is None:
            return self.share(group[0], gpu_memory_gib)
        return gpu_share([planned(spec) for spec in group], gpu_memory_gib, stacked=stacked)

    def share(self, spec: TrialSpec, gpu_memory_gib: float | None) -> float:
        """Of one GPU; a whole one where nobody knows its memory."""
        if self.alone:
            return 1.0
        if self.trials_per_gpu is not None:
            return 1 / self.trials_per_gpu
        return planned(spec).gpu_share(gpu_memory_gib) if gpu_memory_gib is not None else 1.0


def gpus_here() -> list[str]:
    """The GPUs of this machine that this process may see, by the names `CUDA_VISIBLE_DEVICES` takes; without CUDA."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return told.split(",") if told else []
    return [str(k) for k, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
