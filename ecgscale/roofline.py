"""Where the time of a training step goes, and what bounds it: counted work beside what this device can do.

The roofline of Williams, Waterman and Patterson (2009): a step takes at least its FLOPs at the rate of the fastest
matrix product, and its bytes at that of the fastest copy. What measures is `calibrating`; nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ecgscale.plan import GPU, Device, PlannedTrial

Bound = Literal["data", "launches", "memory", "compute"]


@dataclass(frozen=True)
class Ceiling:
    """The best this device does, measured: in the precision of the training, with its threads."""

    flops_per_s: float
    """Of a large matrix product."""
    bytes_per_s: float
    """Read and written by a large copy."""


@dataclass(frozen=True)
class StepWork:
    """What one step of a trial must do at least: encoder and head, forwards and backwards, and the update."""

    flops: float
    bytes_moved: float
    """What is kept for the backward pass, and weights, gradients and moments, each written once and read once. Caches
    save some of it, what no count knows adds to it: an estimate."""

    @classmethod
    def of(cls, trial: PlannedTrial, device: Device) -> StepWork:
        kept = trial.activation_bytes * device.activation_bytes / GPU.activation_bytes
        return cls(trial.train_flops / trial.spec.n_steps, 2 * (kept + trial.state_bytes))

    def least_s(self, ceiling: Ceiling) -> float:
        """The roofline: no step is faster."""
        return max(self.flops / ceiling.flops_per_s, self.bytes_moved / ceiling.bytes_per_s)


@dataclass(frozen=True)
class Profile:
    """One arm and rung on one device; seconds are medians per step."""

    name: str
    n_params: int
    batch_size: int
    work: StepWork
    ceiling: Ceiling
    step_s: float
    """Of the training loop as it is."""
    data_s: float
    """Reading, moving and normalising the batch."""
    forward_s: float
    backward_s: float
    optimiser_s: float
    """Clipping, update and zeroing."""
    fixed_s: float
    """Of forward and backward, what half a batch takes as well: launches, dispatch."""

    @property
    def rest_s(self) -> float:
        """Of the loop: Lightning, Python, callbacks."""
        parts_s = self.data_s + self.forward_s + self.backward_s + self.optimiser_s
        return max(0.0, self.step_s - parts_s)

    @property
    def records_per_s(self) -> float:
        return self.batch_size / self.step_s

    @property
    def flops_per_s(self) -> float:
        return self.work.flops / self.step_s

    @property
    def of_ceiling(self) -> float:
        """Of the fastest matrix product."""
        return self.flops_per_s / self.ceiling.flops_per_s

    @property
    def of_roofline(self) -> float:
        """The least time of a step over its time."""
        return self.work.least_s(self.ceiling) / self.step_s

    def share(self, seconds: float) -> float:
        """Of a step; where phases overlap in the loop, of their sum."""
        parts_s = self.data_s + self.forward_s + self.backward_s + self.optimiser_s
        return seconds / max(self.step_s, parts_s)

    @property
    def bound_by(self) -> Bound:
        """What takes most of a step: the data, what doesn't grow with the batch, or the device, whose slower limit it
        then is."""
        launches_s = self.fixed_s + self.rest_s
        device_s = self.forward_s + self.backward_s + self.optimiser_s - self.fixed_s
        if self.data_s >= max(launches_s, device_s):
            return "data"
        if launches_s >= device_s:
            return "launches"
        compute_s = self.work.flops / self.ceiling.flops_per_s
        return "compute" if compute_s >= self.work.bytes_moved / self.ceiling.bytes_per_s else "memory"

    def to_dict(self) -> dict[str, Any]:
        derived = ("rest_s", "records_per_s", "flops_per_s", "of_ceiling", "of_roofline", "bound_by")
        return asdict(self) | {name: getattr(self, name) for name in derived}
