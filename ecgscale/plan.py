"""A grid becomes trials, and trials become a bill: parameters, records, FLOPs, memory, time, makespan on k devices.

Costs are estimates from a two-term roofline (arithmetic + activation traffic); identities are exact. Nothing here
starts, reads or imports anything heavy.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ecgscale.errors import SpecError
from ecgscale.ladder import Counts, classifier_counts, counts, decoder_counts, shape
from ecgscale.specs import GridSpec, Paradigm, TrialSpec

BYTES_PER_PARAM = 16
"""Weight, gradient and two AdamW moments in float32."""

MEMORY_MARGIN = 1.15
CONTEXT_BYTES = 600_000_000
"""A CUDA context and the allocator's slack, or Python with torch imported. Rough."""


@dataclass(frozen=True)
class Device:
    """What a device sustains in training, per family: FLOP/s, and saved-activation bytes/s."""

    name: str
    flops_per_s: Mapping[str, float]
    bytes_per_s: Mapping[str, float]
    activation_bytes: int
    """Bytes per saved number: 4 in float32, 2 in bfloat16."""
    records_per_s: float
    """What the data path delivers at most."""
    step_s: Mapping[str, float]
    """Per training step: launches, optimiser, Python."""
    fixed_s: float
    """Per trial: building, probing, writing."""
    source: str


CPU_CORE = Device(
    "one CPU core",
    {"resnet": 47e9, "transformer": 59e9},
    {"resnet": 1.1e9, "transformer": 1.1e9},
    activation_bytes=4,
    records_per_s=10_000,
    step_s={"resnet": 0.024, "transformer": 0.005},
    fixed_s=1.5,
    source="fitted to the 48 trials of grid_small on one 2-core machine, 7 % off",
)
GPU = Device(
    "one H100-class GPU",
    {"resnet": 80e12, "transformer": 250e12},
    {"resnet": 200e9, "transformer": 400e9},
    activation_bytes=2,
    records_per_s=10_000,
    step_s={"resnet": 0.008, "transformer": 0.008},
    fixed_s=20.0,
    source="assumed from data sheets, not measured",
)


@dataclass(frozen=True)
class Population:
    """What a plan needs to know of the data, once it is there."""

    fingerprint: str
    n_records: int
    n_train_records: Mapping[float, int] = field(default_factory=dict)
    """Data fraction → D; only for the population that is trained on."""


@dataclass(frozen=True)
class PlannedTrial:
    spec: TrialSpec
    n_params: int
    n_params_head: int
    train_flops: int
    memory_bytes: int
    """On a GPU."""
    cpu_s: float
    gpu_s: float


@dataclass(frozen=True)
class Plan:
    """All cells of a grid, costliest first."""

    grid: GridSpec
    trials: tuple[PlannedTrial, ...]

    @property
    def specs(self) -> tuple[TrialSpec, ...]:
        return tuple(t.spec for t in self.trials)

    def makespan_s(self, n_devices: int, device: Device) -> float:
        """Time from the first start to the last end when trials run longest first on `n_devices`."""
        return makespan_s([t.cpu_s if device is CPU_CORE else t.gpu_s for t in self.trials], n_devices)


def plan(grid: GridSpec, populations: Mapping[str, Population] | None = None) -> Plan:
    """Resolves every cell of a grid.

    Args:
        populations: what is known of the data, by name. Without it D is the declared number times the fraction and
            fingerprints are empty, so the trial ids are those of no real run.

    Raises:
        SpecError: two cells share an identity or a label, or a population is missing.
    """
    known = dict(populations or {})
    if populations is not None:
        for name in (grid.data.train_on, *grid.data.transfer_to):
            if name not in known:
                raise SpecError(f"sweep {grid.name}: population {name!r} is not in the data directory")
    cells = [planned(spec, _records_evaluated(spec, grid, known)) for spec in _cells(grid, known)]
    for what in ("trial_id", "label"):
        names = [getattr(cell.spec, what) for cell in cells]
        if len(set(names)) < len(names):
            raise SpecError(
                f"sweep {grid.name}: two cells share one {what}; do two data fractions hold the same records?"
            )
    cells.sort(key=lambda cell: (-cell.cpu_s, cell.spec.label))
    return Plan(grid, tuple(cells))


def _cells(grid: GridSpec, known: Mapping[str, Population]) -> Iterable[TrialSpec]:
    axes = grid.axes
    for seed in axes.seed:
        for fraction in axes.data_fraction:
            for rung in axes.rung:
                for family in axes.family:
                    for paradigm in axes.paradigm:
                        for labels in _label_sets(grid, paradigm):
                            yield TrialSpec(
                                train_on=grid.data.train_on,
                                transfer_to=grid.data.transfer_to,
                                data_fingerprint={name: p.fingerprint for name, p in sorted(known.items())},
                                split=grid.data.split,
                                input=grid.input,
                                family=family,
                                paradigm=paradigm,
                                rung=rung,
                                data_fraction=fraction,
                                labels=labels,
                                seed=seed,
                                n_records=(n := _n_records(grid, fraction, known)),
                                n_steps=grid.train.budget.n_steps(n, grid.train.batch_size),
                                peak_lr=grid.train.learning_rate[family].peak(
                                    shape(family, rung, grid.input.shape).width
                                ),
                                mask_ratio=grid.train.mask_ratio if paradigm == "ssl" else None,
                                train=grid.train.recipe(),
                                probe=grid.probe,
                            )


def _label_sets(grid: GridSpec, paradigm: Paradigm) -> Iterable[tuple[str, ...]]:
    """Nested: k labels are the first k of the declared order. SSL has one empty set."""
    return [grid.labels[:k] for k in grid.axes.n_labels] if paradigm == "sl" else [()]


def _n_records(grid: GridSpec, fraction: float, known: Mapping[str, Population]) -> int:
    if grid.data.train_on in known:
        return known[grid.data.train_on].n_train_records[fraction]
    return max(1, round(fraction * grid.data.n_train_records))


def planned(spec: TrialSpec, n_evaluated: float = 0.0) -> PlannedTrial:
    """The bill of one trial: exact counts, estimated memory and time.

    Args:
        n_evaluated: forward passes besides training, which cost time and are not part of `train_flops`.
    """
    network = shape(spec.family, spec.rung, spec.input.shape)
    encoder = counts(network, spec.input.shape)
    head_params, head_flops = (
        classifier_counts(network, len(spec.labels))
        if spec.paradigm == "sl"
        else decoder_counts(network, spec.input.shape)
    )
    return PlannedTrial(
        spec,
        encoder.n_params,
        head_params,
        train_flops=(encoder.train_flops + head_flops) * spec.n_samples_seen,
        memory_bytes=_memory_bytes(encoder, head_params, spec.train.batch_size),
        cpu_s=_seconds(CPU_CORE, spec, encoder, n_evaluated),
        gpu_s=_seconds(GPU, spec, encoder, n_evaluated),
    )


def _records_evaluated(spec: TrialSpec, grid: GridSpec, known: Mapping[str, Population]) -> float:
    """Forward passes besides training: validation, test, and features of every other population."""
    split = grid.data.split
    training_share = 1 - split.validation - split.test
    validation = grid.data.n_train_records * split.validation / training_share
    test = grid.data.n_train_records * split.test / training_share
    elsewhere = sum(known[name].n_records for name in spec.transfer_to if name in known)
    return spec.train.n_evaluations * validation + 2 * test + elsewhere


def _memory_bytes(encoder: Counts, head_params: int, batch_size: int) -> int:
    states = BYTES_PER_PARAM * (encoder.n_params + head_params)
    activations = GPU.activation_bytes * encoder.activation_floats * batch_size
    return round(MEMORY_MARGIN * (states + activations) + CONTEXT_BYTES)


def _seconds(device: Device, spec: TrialSpec, encoder: Counts, evaluated: float) -> float:
    per_record = (
        encoder.train_flops / device.flops_per_s[spec.family]
        + device.activation_bytes * encoder.activation_floats / device.bytes_per_s[spec.family]
    )
    per_record = max(per_record, 1 / device.records_per_s)
    # a forward pass alone is about a third of a training step
    compute = per_record * (spec.n_samples_seen + evaluated / 3)
    return device.fixed_s + device.step_s[spec.family] * spec.n_steps + compute


def makespan_s(durations_s: Sequence[float], n_devices: int) -> float:
    """Longest processing time first on identical devices (Graham 1969)."""
    free_at = [0.0] * n_devices
    for duration in sorted(durations_s, reverse=True):
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at, default=0.0)
