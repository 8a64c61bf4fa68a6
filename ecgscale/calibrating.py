"""Measures what a step, a start and an evaluation take here, for every arm and rung of a sweep that fits.

The same module, stream and `fit` as a trial's, for a few steps; nothing is kept of what was trained. Without a packed
store the records are noise of the right shape, which computes as fast and reads nothing.
"""

from __future__ import annotations

import gc
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ecgscale.calibration import CPU, Calibration, Cell, Measurement, measurement
from ecgscale.conventions import LEADS
from ecgscale.data.store import open_store, store_name
from ecgscale.data.stream import DigitalBatch, Members, RecordSource, TrainingStream
from ecgscale.errors import DataError
from ecgscale.ladder import shape
from ecgscale.models import build_encoder
from ecgscale.objectives import objective_of
from ecgscale.plan import CPU_CORE, GPU, PlannedTrial, work
from ecgscale.specs import InputSpec, TrialSpec
from ecgscale.training import Pretraining, fit

N_STEPS, N_WARM_UP = 20, 5
N_EVALUATED = 256
NOISE_RECORDS = 512

Report = Callable[[str, float | None, str], None]
"""Called for each cell: the arm and rung, seconds per step, and if there are none why not."""


def calibrate(
    trials: Iterable[PlannedTrial], data: Path, *, threads: int, limit_s: float, report: Report
) -> Calibration:
    """One measurement of every cell of a plan, the cheapest first.

    Args:
        limit_s: cells whose 20 steps are expected to take longer are left out.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else CPU
    cells: dict[Cell, PlannedTrial] = {}
    for trial in trials:
        cells.setdefault(Cell.of(trial.spec, device, threads), trial)
    made = Calibration()
    torch.set_num_threads(threads)
    for trial in sorted(cells.values(), key=lambda t: t.seconds(GPU if on_gpu else CPU_CORE) / t.spec.n_steps):
        name = f"{trial.spec.arm}-{trial.spec.rung}"
        why_not = _does_not_fit(trial, made, on_gpu, limit_s)
        if why_not is not None:
            report(name, None, why_not)
            continue
        try:
            with threadpool_limits(threads):
                found = probe(trial.spec, data, device=device, threads=threads)
        except torch.cuda.OutOfMemoryError:
            report(name, None, "out of memory")
            continue
        finally:
            gc.collect()
            if on_gpu:
                torch.cuda.empty_cache()
        made += Calibration((found,))
        report(name, found.step_s, "")
    return made


def _does_not_fit(trial: PlannedTrial, made: Calibration, on_gpu: bool, limit_s: float) -> str | None:
    device = GPU if on_gpu else CPU_CORE
    if on_gpu:
        free, wanted = torch.cuda.mem_get_info()[0], trial.memory_bytes
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        wanted = trial.state_bytes + trial.activation_bytes * CPU_CORE.activation_bytes // GPU.activation_bytes
    if wanted > free:
        return f"needs {wanted / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
    seconds, _ = made.seconds(trial, device)
    per_step_s = work(device, trial.spec, trial.n_evaluated).step_s
    expected_s = N_STEPS * per_step_s * (seconds / trial.seconds(device))
    if expected_s > limit_s:
        return f"20 steps would take about {expected_s:.0f} s; --limit {expected_s:.0f} measures it"
    return None


def probe(spec: TrialSpec, data: Path, *, device: str, threads: int) -> Measurement:
    """A start, 20 steps and an evaluation; the time per step is the median of those after the warm-up."""
    started = time.perf_counter()
    short = spec.model_copy(
        update={"n_steps": N_STEPS, "train": spec.train.model_copy(update={"n_evaluations": 1})},
    )
    source, scale = _records(short, data)
    network = shape(short.family, short.rung, short.input.shape)
    module = Pretraining(build_encoder(network, short.input.shape), objective_of(short, network), short, scale)
    stream = _TimedStream(source, batch_size=short.train.batch_size, n_steps=N_STEPS, seed=short.seed)
    evaluated = _first(source, N_EVALUATED)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*|.*TF32.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        fit(module, stream, evaluated, accelerator="cpu" if device == CPU else "gpu")
    total_s = time.perf_counter() - started
    step_s = statistics.median(np.diff(stream.asked_at)[N_WARM_UP:])
    return measurement(
        spec,
        device=device,
        threads=threads,
        step_s=float(step_s),
        n_steps=N_STEPS,
        rest_s=max(total_s - N_STEPS * float(step_s), 0.0),
        n_evaluated=len(evaluated),
    )


class _TimedStream(TrainingStream):
    """Notes when each batch is asked for; on a GPU, once the steps before are through."""

    asked_at: list[float]

    def __iter__(self) -> Iterator[DigitalBatch]:
        self.asked_at = []
        for batch in super().__iter__():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.asked_at.append(time.perf_counter())
            yield batch


def _records(spec: TrialSpec, data: Path) -> tuple[RecordSource, tuple[float, ...]]:
    """The packed records of the population that is trained on, or noise."""
    try:
        store = open_store(data / spec.train_on / "packed" / store_name(spec.input))
    except DataError:
        return _Noise(spec.input, NOISE_RECORDS, _n_columns(spec)), (1e-3,) * len(LEADS)
    # what is learned changes no time, only how much of it there is
    taught = np.zeros((len(store), _n_columns(spec)), np.float32)
    return RecordSource(store, np.arange(len(store)), taught), store.header.scale


def _n_columns(spec: TrialSpec) -> int:
    """Numbers per record that are learned: labels, or a target's truth and weight, perhaps with age and sex."""
    if spec.head is None:
        return len(spec.labels)
    return 4 if spec.head.age_and_sex else 2


def _first(source: RecordSource, n: int) -> RecordSource:
    if isinstance(source, _Noise):
        return _Noise(source.input, min(n, len(source)), source.targets.shape[1])
    return RecordSource(source.store, source.rows[:n], source.targets[:n])


class _Noise(RecordSource):
    """Records that no store holds."""

    def __init__(self, input_spec: InputSpec, n_records: int, n_targets: int) -> None:
        random = np.random.default_rng(0)
        size = (n_records, len(LEADS), input_spec.stored_samples)
        self.input = input_spec
        self.rows = np.arange(n_records)
        self.digital = random.integers(-1000, 1000, size, dtype=np.int16)
        self.targets = random.integers(0, 2, (n_records, n_targets)).astype(np.float32)

    def batch(self, members: Members, key: int) -> DigitalBatch:
        stop = torch.full((len(members),), self.digital.shape[2])
        digital, targets = torch.from_numpy(self.digital[members]), torch.from_numpy(self.targets[members])
        return DigitalBatch(digital, torch.zeros_like(stop), stop, targets, key)

    def batches(self, wanted: Iterable[tuple[Members, int]]) -> Iterator[DigitalBatch]:
        return (self.batch(members, key) for members, key in wanted)
