"""A grid becomes trials, and trials become a bill: parameters, records, FLOPs, memory, time, makespan on k devices.

Costs are estimates from a two-term roofline (arithmetic + activation traffic); identities are exact. Nothing here
starts, reads or imports anything heavy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Literal

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.head_counts import head_counts
from ecgscale.errors import SpecError
from ecgscale.execution import Way
from ecgscale.ladder import (
    N_LEADS,
    Counts,
    Family,
    InputShape,
    Rung,
    classifier_counts,
    counts,
    decoder_counts,
    shape,
)
from ecgscale.schedule import Job, Schedule, simulate
from ecgscale.spec_base import no_garbage_collection
from ecgscale.specs import GridSpec, InputSpec, Paradigm, StartSpec, TrialSpec

BYTES_PER_PARAM = 16
"""Weight, gradient and two AdamW moments in float32."""

MEMORY_MARGIN = 1.15
BYTES_PER_SAMPLE = 2
"""Records are stored as int16."""

GPU_MEMORY_GIB = 80.0
MAX_TRIALS_PER_GPU = 8
"""Each holds a context and a process of its own; our assumption."""

MOST_BUSY = 0.5
"""A GPU that computes for more of a step hides launches and the reading of the next batch behind that. Our choice."""

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
    {"resnet": 80e9, "transformer": 100e9},
    {"resnet": 0.41e9, "transformer": 0.6e9},
    activation_bytes=4,
    records_per_s=10_000,
    step_s={"resnet": 0.014, "transformer": 0.0032},
    fixed_s=1.0,
    source="fitted to grid_small, two trials at a time on one 2-core machine, and to steps up to 6M; 7 % off",
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
    n_with_a_value: Mapping[tuple[str, float], int] = field(default_factory=dict)
    """(target, data fraction) → D of the trainings on that target: records without a value teach nothing."""
    encoders: Mapping[str, str] = field(default_factory=dict)
    """Name → fingerprint of the weights that trainings begin with."""


Origin = Literal["measured", "scaled", "assumed"]
"""Where a time comes from: this very cell on such a device, a measured neighbour by the device model, the model."""


@dataclass(frozen=True)
class PlannedTrial:
    spec: TrialSpec
    n_params: int
    n_params_head: int
    train_flops: int
    memory_bytes: int
    """On a GPU: states, activations, context and a margin."""
    state_bytes: int
    """Weights, gradients and optimiser."""
    activation_bytes: int
    """Kept for the backward pass of one batch, on a GPU."""
    bytes_read: int
    """Of the packed store, in training and evaluation."""
    n_evaluated: float
    """Forward passes besides training."""
    busy_share: float
    """Of a GPU's time: what is left is launches, Python and start-up, during which others compute."""
    cpu_s: float
    gpu_s: float
    cpu_from: Origin = "assumed"
    gpu_from: Origin = "assumed"
    side_by_side: int = 1
    """At most so many trials of its stream, or of its form if they are stacked, take turns in one process; more than
    one only where that was measured to pay."""
    way: Way = "eager"
    """How its training steps are computed; another than as they stand only where that was measured to pay."""

    @property
    def launch_bound(self) -> bool:
        """Whether a GPU would wait for launches in most of a training step, by the device model."""
        return self.busy_share <= MOST_BUSY

    def gpu_share(self, gpu_memory_gib: float = GPU_MEMORY_GIB) -> float:
        return gpu_share([self], gpu_memory_gib)

    def seconds(self, device: Device) -> float:
        return self.cpu_s if device is CPU_CORE else self.gpu_s


def gpu_share(turns: Sequence[PlannedTrial], gpu_memory_gib: float = GPU_MEMORY_GIB, *, stacked: bool = False) -> float:
    """1, 1/2, 1/4 … of a GPU for trials that take turns in one process, mostly a single one: as many such processes as
    fit its memory and fill its time.

    Powers of two, so that shares of different trials fill a GPU together.

    Args:
        stacked: they compute at once.
    """
    activations = [t.activation_bytes for t in turns]
    if stacked:
        activation_bytes, busy_share = sum(activations), sum(t.busy_share for t in turns)
    else:
        activation_bytes = max(activations)
        busy_share = sum(t.busy_share * t.gpu_s for t in turns) / sum(t.gpu_s for t in turns)
    memory_bytes = _memory_bytes(sum(t.state_bytes for t in turns), activation_bytes)
    wanted = max(memory_bytes / (gpu_memory_gib * 2**30), busy_share)
    return 0.5 ** math.floor(math.log2(min(MAX_TRIALS_PER_GPU, max(1.0, 1 / wanted))))


def _memory_bytes(state_bytes: int, activation_bytes: int) -> int:
    return round(MEMORY_MARGIN * (state_bytes + activation_bytes) + CONTEXT_BYTES)


Order = Literal["longest-first", "cheap-first"]
"""In which trials start: for the shortest sweep, or for an early curve."""


@dataclass(frozen=True)
class Plan:
    """All cells of a grid, costliest first."""

    grid: GridSpec
    trials: tuple[PlannedTrial, ...]
    order: Order = "longest-first"

    @property
    def specs(self) -> tuple[TrialSpec, ...]:
        return tuple(t.spec for t in self.trials)

    def schedule(self, n_devices: int, device: Device, gpu_memory_gib: float = GPU_MEMORY_GIB) -> Schedule:
        """What happens when all trials run on `n_devices`: one to a CPU core, by their shares on GPUs."""
        cells = {cell.spec.trial_id: cell for cell in self.trials}
        started = [cells[spec.trial_id] for spec in starting_order(self.specs, self.order)]
        shares = [cell.gpu_share(gpu_memory_gib) if device is GPU else 1.0 for cell in started]
        return simulate(
            [Job(cell.seconds(device), share) for cell, share in zip(started, shares, strict=True)], n_devices
        )


def starting_order(specs: Sequence[TrialSpec], order: Order = "longest-first") -> tuple[TrialSpec, ...]:
    """The cheapest trial of each arm first, so that a broken arm shows within seconds; then the others as asked.

    Args:
        specs: costliest first.
    """
    smoke = smoke_trials(specs)
    chosen = {id(spec) for spec in smoke}
    others = [spec for spec in specs if id(spec) not in chosen]
    return *smoke, *(others if order == "longest-first" else reversed(others))


def smoke_trials(specs: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
    """The cheapest of each arm.

    Args:
        specs: costliest first.
    """
    return tuple({spec.arm: spec for spec in specs}.values())  # the last of an arm wins


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
    elsewhere = sum(known[name].n_records for name in grid.data.transfer_to if name in known)
    with no_garbage_collection():
        cells = [planned(spec, records_evaluated(spec, elsewhere)) for spec in _cells(grid, known)]
    for what in ("label",) if populations is None else ("label", "trial_id"):
        names = [getattr(cell.spec, what) for cell in cells]
        if len(set(names)) < len(names):
            raise SpecError(
                f"sweep {grid.name}: two cells share one {what}; do two data fractions hold the same records?"
            )
    cells.sort(key=lambda cell: (-cell.cpu_s, cell.spec.label))
    return Plan(grid, tuple(cells))


def _cells(grid: GridSpec, known: Mapping[str, Population]) -> Iterable[TrialSpec]:
    axes, recipe = grid.axes, grid.train.recipe()
    for seed in axes.seed:
        for fraction in axes.data_fraction:
            for rung in axes.rung:
                for family in axes.family:
                    for paradigm in axes.paradigm:
                        for labels, target, head, start in _taught(grid, paradigm):
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
                                n_records=(n := _n_records(grid, fraction, known, target)),
                                n_steps=grid.train.budget.n_steps(n, grid.train.batch_size),
                                peak_lr=(rule := grid.train.learning_rate[family]).peak(
                                    shape(family, rung, grid.input.shape).width
                                ),
                                mup_reference_width=rule.reference_width if rule.parametrisation == "mup" else None,
                                mup_reference_depth=rule.reference_depth,
                                mask_ratio=grid.train.mask_ratio if paradigm == "ssl" else None,
                                train=recipe,
                                probe=grid.probe,
                                target=target,
                                head=head,
                                corruptions=grid.corruptions if target is not None else (),
                                start=start,
                                start_fingerprint=_start_fingerprint(grid, start, known),
                            )


def _taught(
    grid: GridSpec, paradigm: Paradigm
) -> Iterable[tuple[tuple[str, ...], TargetSpec | None, HeadSpec | None, StartSpec | None]]:
    """What is learned: labels, or a target through a head from some weights on, or neither.

    Label sets are nested: k labels are the first k of the declared order.
    """
    if paradigm == "target":
        starts = [None if start == "scratch" else start for start in grid.axes.start]
        return [((), *taught) for taught in product(grid.axes.target, grid.axes.head, starts)]
    labels = [grid.labels[:k] for k in grid.axes.n_labels] if paradigm == "sl" else [()]
    return [(some, None, None, None) for some in labels]


def _start_fingerprint(grid: GridSpec, start: StartSpec | None, known: Mapping[str, Population]) -> str | None:
    if start is None or grid.data.train_on not in known:
        return None
    return known[grid.data.train_on].encoders[start.encoder]


def _n_records(grid: GridSpec, fraction: float, known: Mapping[str, Population], target: TargetSpec | None) -> int:
    if grid.data.train_on in known:
        population = known[grid.data.train_on]
        if target is not None:
            return population.n_with_a_value[target.name, fraction]
        return population.n_train_records[fraction]
    return max(1, round(fraction * grid.data.n_train_records))


def planned(spec: TrialSpec, n_evaluated: float = 0.0) -> PlannedTrial:
    """The bill of one trial: exact counts, estimated memory and time.

    Args:
        n_evaluated: forward passes besides training, which cost time and are not part of `train_flops`.
    """
    encoder, head_params, head_flops = _counts_of(spec)
    states = BYTES_PER_PARAM * (encoder.n_params + head_params)
    activations = GPU.activation_bytes * encoder.activation_floats * spec.train.batch_size
    gpu = Work.of(GPU, spec, encoder, n_evaluated)
    return PlannedTrial(
        spec,
        encoder.n_params,
        head_params,
        train_flops=(_encoder_flops(spec, encoder) + head_flops) * spec.n_samples_seen,
        memory_bytes=_memory_bytes(states, activations),
        state_bytes=states,
        activation_bytes=activations,
        bytes_read=round((spec.n_samples_seen + n_evaluated) * record_bytes(spec.input)),
        n_evaluated=n_evaluated,
        busy_share=gpu.busy_share,
        cpu_s=Work.of(CPU_CORE, spec, encoder, n_evaluated).seconds,
        gpu_s=gpu.seconds,
    )


def _encoder_flops(spec: TrialSpec, encoder: Counts) -> int:
    """Of one record in training; a frozen encoder is only run forwards, a third of it."""
    frozen = spec.start is not None and spec.start.frozen
    return encoder.train_flops // 3 if frozen else encoder.train_flops


def _counts_of(spec: TrialSpec) -> tuple[Counts, int, int]:
    """(the encoder's counts, parameters and training FLOPs of its head)."""
    return _counts(spec.family, spec.paradigm, spec.rung, spec.input.shape, len(spec.labels), spec.target, spec.head)


@lru_cache(maxsize=4096)
def _counts(
    family: Family,
    paradigm: Paradigm,
    rung: Rung,
    input_shape: InputShape,
    n_labels: int,
    target: TargetSpec | None,
    head: HeadSpec | None,
) -> tuple[Counts, int, int]:
    """The same for every D and seed."""
    network = shape(family, rung, input_shape)
    if target is not None and head is not None:
        return counts(network, input_shape), *head_counts(network.width, head, target)
    if paradigm == "sl":
        return counts(network, input_shape), *classifier_counts(network, n_labels)
    return counts(network, input_shape), *decoder_counts(network, input_shape)


def record_bytes(input_: InputSpec) -> int:
    """Of one record in the packed store."""
    return N_LEADS * input_.stored_samples * BYTES_PER_SAMPLE


def records_evaluated(spec: TrialSpec, elsewhere: float) -> float:
    """Forward passes besides training: validation, test twice, and features of all records `elsewhere`."""
    split = spec.split
    in_all_parts = spec.n_records / spec.data_fraction / (1 - split.validation - split.test)
    return in_all_parts * (spec.train.n_evaluations * split.validation + 2 * split.test) + elsewhere


@dataclass(frozen=True)
class Work:
    """The seconds of a trial on a device, by the device model."""

    step_s: float
    rest_s: float
    """Start-up, evaluation, read-outs."""
    n_steps: int
    busy_share: float
    """Of a training step, in which the device computes."""

    @classmethod
    def of(cls, device: Device, spec: TrialSpec, encoder: Counts, evaluated: float) -> Work:
        compute_s = (
            encoder.train_flops / device.flops_per_s[spec.family]
            + device.activation_bytes * encoder.activation_floats / device.bytes_per_s[spec.family]
        )
        per_record_s = max(compute_s, 1 / device.records_per_s)
        step_s = device.step_s[spec.family] + per_record_s * spec.train.batch_size
        # a forward pass alone is about a third of a training step
        rest_s = device.fixed_s + per_record_s * evaluated / 3
        return cls(step_s, rest_s, spec.n_steps, busy_share=compute_s * spec.train.batch_size / step_s)

    @property
    def seconds(self) -> float:
        return self.step_s * self.n_steps + self.rest_s


def work(device: Device, spec: TrialSpec, evaluated: float) -> Work:
    """What the device model says of one trial."""
    encoder, _, _ = _counts_of(spec)
    return Work.of(device, spec, encoder, evaluated)


def makespan_s(durations_s: Sequence[float], n_devices: int) -> float:
    """Longest processing time first on identical devices (Graham 1969)."""
    return simulate([Job(duration) for duration in sorted(durations_s, reverse=True)], n_devices).makespan_s
