"""Measures what a step, a start and an evaluation take here, for every arm and rung of a sweep that fits; and if asked
to, where the time of a step goes.

The same module, stream and `fit` as a trial's, for a few steps; nothing is kept of what was trained. Without a packed
store the records are noise of the right shape, which computes as fast and reads nothing.
"""

from __future__ import annotations

import gc
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ecgscale.calibration import CPU, SIDE_BY_SIDE, Calibration, Cell, Measurement, measurement
from ecgscale.conventions import LEADS
from ecgscale.data.store import open_store, store_name
from ecgscale.data.stream import DigitalBatch, Members, RecordSource, TrainingStream
from ecgscale.errors import DataError
from ecgscale.execution import Way
from ecgscale.objectives.batch import Batch
from ecgscale.plan import CPU_CORE, GPU, PlannedTrial, work
from ecgscale.pretraining import build
from ecgscale.roofline import Ceiling, Profile, StepWork
from ecgscale.specs import InputSpec, TrialSpec
from ecgscale.stacking import Step, losses
from ecgscale.training import Pretraining, fit, quiet

N_STEPS, N_WARM_UP = 20, 5
N_EVALUATED = 256
NOISE_RECORDS = 512

CPU_MATRIX, GPU_MATRIX = 1024, 8192
"""Rows and columns of the matrix product that is the ceiling: where larger ones are no faster. Our choice."""

COPIED_BYTES = 2**27
N_CEILING = 10
"""Times that each is done; the fastest counts."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Report = Callable[[str, float | None, str], None]
"""Called for each cell: the arm and rung, seconds per step, and if there are none why not."""


def calibrate(
    trials: Iterable[PlannedTrial],
    data: Path,
    *,
    threads: int,
    limit_s: float,
    report: Report,
    profiles: list[Profile] | None = None,
    compiling: bool = False,
    stacking: bool | None = None,
) -> Calibration:
    """One measurement of every cell of a plan, the cheapest first.

    Args:
        limit_s: cells whose 20 steps are expected to take longer are left out.
        profiles: takes the profile of every cell that is measured; None for no profiling.
        compiling: also what compiling the encoder costs and saves: up to minutes per cell.
        stacking: also what stacking saves; by default on a GPU, of cells that leave it idle.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else CPU
    cells: dict[Cell, PlannedTrial] = {}
    for trial in trials:
        cells.setdefault(Cell.of(trial.spec, device, threads), trial)
    made = Calibration()
    best: Ceiling | None = None
    torch.set_num_threads(threads)
    for trial in sorted(cells.values(), key=lambda t: t.seconds(GPU if on_gpu else CPU_CORE) / t.spec.n_steps):
        name = _name(trial)
        why_not = _does_not_fit(trial, made, on_gpu, limit_s)
        if why_not is not None:
            report(name, None, why_not)
            continue
        try:
            with threadpool_limits(threads):
                probed = _Probed.of(trial, data, device)
                idle = on_gpu and trial.launch_bound
                found = probed.measurement(threads, compiling, idle if stacking is None else stacking)
                if profiles is not None:
                    best = best or ceiling(on_gpu, trial.spec.train.precision)
                    profiles.append(probed.profile(best))
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


@dataclass(frozen=True)
class _Probed:
    """A start, 20 steps and an evaluation; the time per step is the median of those after the warm-up."""

    trial: PlannedTrial
    device: str
    module: Pretraining
    stream: _TimedStream
    n_evaluated: int
    step_s: float
    rest_s: float

    @classmethod
    def of(cls, trial: PlannedTrial, data: Path, device: str) -> Self:
        """Trains."""
        started = time.perf_counter()
        once = trial.spec.train.model_copy(update={"n_evaluations": 1})
        spec = trial.spec.model_copy(update={"n_steps": N_STEPS, "train": once})
        source, scale = _records(spec, data)
        module = build(spec, scale)
        stream = _TimedStream(source, batch_size=spec.train.batch_size, n_steps=N_STEPS, seed=spec.seed)
        evaluated = _first(source, N_EVALUATED)
        with quiet():
            fit(module, stream, evaluated, accelerator="cpu" if device == CPU else "gpu")
        step_s = float(statistics.median(np.diff(stream.asked_at)[N_WARM_UP:]))
        rest_s = max(time.perf_counter() - started - N_STEPS * step_s, 0.0)
        module.to("cpu" if device == CPU else "cuda")
        return cls(trial, device, module, stream, len(evaluated), step_s, rest_s)

    def measurement(self, threads: int, compiling: bool, stacking: bool) -> Measurement:
        compile_s, saved_s = (self._if_possible("compiled", self._compiled) if compiling else None) or (None, None)
        stacked_saved_s = self._if_possible("stacked", self._stacked_saved_s) if stacking else None
        return measurement(
            self.trial.spec,
            device=self.device,
            threads=threads,
            step_s=self.step_s,
            n_steps=N_STEPS,
            rest_s=self.rest_s,
            n_evaluated=self.n_evaluated,
            data_s=self._data_s(),
            compile_s=compile_s,
            saved_s=saved_s,
            stacked_saved_s=stacked_saved_s,
        )

    def _data_s(self) -> float:
        """What trials of one stream need once: without masks, which each draws for itself."""
        batches = iter(self.stream)

        def taken() -> float:
            started = _now()
            self.module.normalised(next(batches), self.module.spec.train.augment)
            return _now() - started

        return _median([taken() for _ in range(N_STEPS)])

    def _if_possible(self, how: Way, measure: Callable[[], T]) -> T | None:
        """A way of computing that this device, its memory or its software hasn't got is one that isn't chosen."""
        try:
            return measure()
        except RuntimeError as error:  # torch's, whatever is wrong
            why, _, _ = str(error).partition("\n")
            log.warning("%s: can't be %s here (%s)", _name(self.trial), how, why)
            return None
        finally:
            self.module.zero_grad()

    def _compiled(self) -> tuple[float, float]:
        """Seconds that compiling costs where nothing was compiled before, and what it saves forwards and backwards."""
        from torch._inductor.utils import fresh_inductor_cache  # seconds to import

        module = self.module
        batch, as_it_is = self._as_it_is()
        with fresh_inductor_cache(), module.compiled_encoder(graphs=self.trial.launch_bound):
            started = _now()
            compiled = _median([sum(self._passed(batch)) for _ in range(N_STEPS)])
            cost_s = _now() - started - N_STEPS * compiled
        return max(cost_s, 0.0), as_it_is - compiled

    def _as_it_is(self) -> tuple[Batch, float]:
        """A batch, and the seconds that it takes forwards and backwards."""
        self.module.train()
        batch, _ = self._drawn(iter(self.stream))
        return batch, _median([sum(self._passed(batch)) for _ in range(N_STEPS)])

    def _stacked_saved_s(self) -> float:
        """What each of `SIDE_BY_SIDE` such networks saves when they are computed at once."""
        module = self.module
        batch, as_it_is = self._as_it_is()
        n = SIDE_BY_SIDE[(CPU_CORE if self.device == CPU else GPU).name]
        many = [build(module.spec, tuple(module.scale)).to(module.device).train() for _ in range(n)]
        steps = [Step(one, batch, one.form) for one in many]

        def taken() -> float:
            for one in many:
                one.zero_grad()
            started = _now()
            with self._autocast():
                found = losses(steps)
            for loss in found:
                loss.backward()  # type: ignore[no-untyped-call]
            return _now() - started

        return as_it_is - _median([taken() for _ in range(N_STEPS)]) / n

    def _autocast(self) -> torch.autocast:
        bf16 = self.device != CPU and self.module.spec.train.precision == "bf16_on_gpu"
        return torch.autocast(self.module.device.type, torch.bfloat16, enabled=bf16)

    def profile(self, ceiling: Ceiling) -> Profile:
        """Of the same steps outside the loop, each part awaited by itself."""
        module, spec = self.module, self.module.spec
        optimizer = module.configure_optimizers()["optimizer"]
        module.train()
        batches = iter(self.stream)
        parts: list[tuple[float, ...]] = []
        for _ in range(N_STEPS):
            whole, data_s = self._drawn(batches)
            forward_s, backward_s = self._passed(whole)
            started = _now()
            module.clip()
            optimizer.step()
            optimizer.zero_grad()
            optimiser_s = _now() - started
            half_s = sum(self._passed(next(iter(whole.split(spec.train.batch_size // 2)))))
            optimizer.zero_grad()
            parts.append((data_s, forward_s, backward_s, optimiser_s, half_s))
        data_s, forward_s, backward_s, optimiser_s, half_s = map(_median, zip(*parts, strict=True))
        return Profile(
            name=_name(self.trial),
            n_params=self.trial.n_params,
            batch_size=spec.train.batch_size,
            work=StepWork.of(self.trial, CPU_CORE if self.device == CPU else GPU),
            ceiling=ceiling,
            step_s=self.step_s,
            data_s=data_s,
            forward_s=forward_s,
            backward_s=backward_s,
            optimiser_s=optimiser_s,
            fixed_s=max(0.0, 2 * half_s - forward_s - backward_s),
        )

    def _drawn(self, batches: Iterator[DigitalBatch]) -> tuple[Batch, float]:
        """The next batch, and what it took to read, move, normalise and mask it."""
        started = _now()
        batch = self.module.drawn(next(batches), self.module.spec.train.augment)
        return batch, _now() - started

    def _passed(self, batch: Batch) -> tuple[float, float]:
        """Seconds forwards and backwards, to gradients that are not there yet."""
        self.module.zero_grad()
        started = _now()
        with self._autocast():
            loss = self.module(batch)
        passed = _now()
        loss.backward()
        return passed - started, _now() - passed


def ceiling(on_gpu: bool, precision: str) -> Ceiling:
    """The best this device does with the threads that are set."""
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if on_gpu and precision == "bf16_on_gpu" else torch.float32
    size = GPU_MATRIX if on_gpu else CPU_MATRIX
    matrix = torch.randn(size, size, device=device).to(dtype)
    product = torch.empty_like(matrix)
    copied = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    copy = torch.empty_like(copied)
    multiply_s = _fastest(lambda: torch.mm(matrix, matrix, out=product))
    return Ceiling(2 * size**3 / multiply_s, 2 * COPIED_BYTES / _fastest(lambda: copy.copy_(copied)))


def _fastest(do: Callable[[], object]) -> float:
    taken = []
    for _ in range(N_CEILING):
        started = _now()
        do()
        taken.append(_now() - started)
    return min(taken)


def _now() -> float:
    """Once everything before is through."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _median(seconds: Sequence[float]) -> float:
    """After the warm-up."""
    return statistics.median(seconds[N_WARM_UP:])


def _name(trial: PlannedTrial) -> str:
    return f"{trial.spec.arm}-{trial.spec.rung}"


class _TimedStream(TrainingStream):
    """Notes when each batch is asked for; on a GPU, once the steps before are through."""

    asked_at: list[float]

    def __iter__(self) -> Iterator[DigitalBatch]:
        self.asked_at = []
        for batch in super().__iter__():
            self.asked_at.append(_now())
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
