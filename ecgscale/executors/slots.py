"""How a cluster is cut into slots: what one running trial holds of it."""

from __future__ import annotations

from dataclasses import dataclass

from ecgscale.plan import planned
from ecgscale.specs import TrialSpec


@dataclass(frozen=True)
class Slots:
    """Attributes:
    trials_per_gpu: that share one GPU; None for as many as memory and time allow, by `PlannedTrial.gpu_share`.
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

    def share(self, spec: TrialSpec, gpu_memory_gib: float | None) -> float:
        """Of one GPU; a whole one where nobody knows its memory."""
        if self.alone:
            return 1.0
        if self.trials_per_gpu is not None:
            return 1 / self.trials_per_gpu
        return planned(spec).gpu_share(gpu_memory_gib) if gpu_memory_gib is not None else 1.0
