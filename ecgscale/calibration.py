"""What trials really take: seconds per step and per start-up, measured here, and what follows for cells never measured.

A calibration is a JSON file that `ecgscale calibrate` writes, the rows of a results folder, or both: medians of all
measurements of a cell. It holds device names and sizes, no path and no clock. A cell that was never measured is the
device model of `plan`, times what the nearest measured cells on that device were off by.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ecgscale.errors import EcgscaleError
from ecgscale.execution import Way
from ecgscale.plan import CPU_CORE, GPU, Device, Origin, Plan, PlannedTrial, Work, records_evaluated, work
from ecgscale.results import RunRecord, Status
from ecgscale.specs import TrialSpec

CALIBRATION_FILE = "calibration.json"
SCHEMA_VERSION = 1
N_NEIGHBOURS = 3
OTHER_PARADIGM, OTHER_THREADS = 0.5, 1.0
"""Distances between cells, as natural logarithms of the time per step; our assumption."""

SIDE_BY_SIDE = {CPU_CORE.name: 4, GPU.name: 8}
"""Trials of one stream, or one form, in one process: three quarters, or seven eighths, of what any number could save,
and still enough processes for all cores. Our choice."""

LEAST_GAIN = 1.05

CPU = "cpu"


@dataclass(frozen=True)
class Cell:
    """What has a time of its own: one network on one device, fed batches of one size."""

    device: str
    family: str
    paradigm: str
    rung: str
    batch_size: int
    input: str
    """`n_samples/patch_samples`."""
    precision: str
    threads: int

    @classmethod
    def of(cls, spec: TrialSpec, device: str, threads: int) -> Cell:
        size = f"{spec.input.n_samples}/{spec.input.patch_samples}"
        precision = _precision(device, spec.train.precision)
        batch = spec.train.batch_size
        return cls(device, spec.family, spec.paradigm, spec.rung, batch, size, precision, _threads(device, threads))


@dataclass(frozen=True)
class Measurement:
    """One trial, or one probe by `calibrate`."""

    cell: Cell
    step_s: float
    n_steps: int
    """What `step_s` was averaged over, its weight: start-up is a small part of many steps."""
    rest_s: float
    """Everything but training steps."""
    n_evaluated: float
    """Records that were passed forward in `rest_s`."""
    model_step_s: float
    model_rest_s: float
    """The device model's figures for the same work, so that ratios carry over to other cells."""
    data_s: float | None = None
    """Of `step_s`, what reads, moves and normalises the batch: trials of one stream need it once. Rows don't say."""
    compile_s: float | None = None
    saved_s: float | None = None
    """What compiling the encoder costs once, and saves per step; less than zero where it is slower. Rows don't say."""
    stacked_saved_s: float | None = None
    """What each of `SIDE_BY_SIDE` trials saves per step when they are stacked. Rows don't say."""


@dataclass(frozen=True)
class Calibration:
    """Measurements, and the times they imply."""

    measurements: tuple[Measurement, ...] = ()
    _by_device: dict[str, dict[Cell, list[Measurement]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[str, dict[Cell, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
        for measured in self.measurements:
            found[measured.cell.device][measured.cell].append(measured)
        object.__setattr__(self, "_by_device", {device: dict(cells) for device, cells in found.items()})

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(self.measurements + other.measurements)

    @classmethod
    def from_rows(cls, records: Iterable[RunRecord]) -> Calibration:
        """What finished trials took. Rows of another version, of a training in several pieces, or of one that was
        compiled, stacked or read its records with others, are left out."""
        return cls(tuple(m for m in map(_measured_by, records) if m is not None))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Reads a file that `save` wrote.

        Raises:
            EcgscaleError: it is not there, or is no calibration.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema {found['schema_version']}, not {SCHEMA_VERSION}")
            return cls(tuple(Measurement(**entry | {"cell": Cell(**entry["cell"])}) for entry in found["measurements"]))
        except OSError as error:
            raise EcgscaleError(f"{path}: can't be read ({error.strerror}); `ecgscale calibrate` writes it") from None
        except (ValueError, TypeError, KeyError) as error:
            raise EcgscaleError(f"{path}: not a calibration ({error}); `ecgscale calibrate` writes a new one") from None

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        entries = [asdict(measured) for measured in self.measurements]
        unfinished.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "measurements": entries}, indent=1))
        unfinished.replace(path)

    @property
    def gpu(self) -> str | None:
        """The GPU that was measured most, which then stands for all."""
        counted = {gpu: sum(map(len, cells.values())) for gpu, cells in self._by_device.items() if gpu != CPU}
        return max(counted, key=lambda gpu: counted[gpu], default=None)

    def seconds(self, trial: PlannedTrial, device: Device) -> tuple[float, Origin]:
        """Expected time of a trial on one core or one GPU, and where the figure comes from."""
        name = CPU if device is CPU_CORE else self.gpu
        cells = self._by_device.get(name, {}) if name is not None else {}
        if not cells or name is None:
            return trial.seconds(device), "assumed"
        expected = work(device, trial.spec, trial.n_evaluated)
        cell = Cell.of(trial.spec, name, threads=1)
        of_this_cell = cells.get(cell)
        if of_this_cell is not None:
            return _combined(of_this_cell, expected, trial), "measured"
        near = _nearest(cells, cell, expected)
        step_ratio = statistics.median(m.step_s * _threads_factor(m.cell) / m.model_step_s for m in near)
        rest_ratio = statistics.median(m.rest_s / m.model_rest_s for m in near)
        return step_ratio * expected.step_s * expected.n_steps + rest_ratio * expected.rest_s, "scaled"

    def way(self, trial: PlannedTrial, device: Device) -> Way:
        """How the steps of a trial of this length are computed soonest, as far as that was measured."""
        found = self._of_cell(trial, device)
        n_steps = trial.spec.n_steps
        saved_s: dict[Way, list[float]] = {
            "compiled": [
                m.saved_s * n_steps - m.compile_s for m in found if m.compile_s is not None and m.saved_s is not None
            ],
            "stacked": [
                m.stacked_saved_s * n_steps
                for m in found
                if m.stacked_saved_s is not None
                and m.stacked_saved_s > self._shared_s(trial, device)
                and m.step_s > LEAST_GAIN * (m.step_s - m.stacked_saved_s)
            ],
        }
        medians = {way: statistics.median(some) for way, some in saved_s.items() if some}
        best = max(medians, key=medians.__getitem__, default=None)
        return best if best is not None and medians[best] > 0 else "eager"

    def _of_cell(self, trial: PlannedTrial, device: Device) -> list[Measurement]:
        name = CPU if device is CPU_CORE else self.gpu
        if name is None:
            return []
        return self._by_device.get(name, {}).get(Cell.of(trial.spec, name, threads=1), [])

    def side_by_side(self, trial: PlannedTrial, device: Device) -> int:
        """How many such trials are to be stacked, or to take turns on one stream; 1 where that was not measured, or
        would gain little."""
        if self.way(trial, device) == "stacked":
            return SIDE_BY_SIDE[device.name]
        found = self._of_cell(trial, device)
        if not found:
            return 1
        step_s = _weighted_median([(m.step_s, m.n_steps) for m in found])
        shared_s = self._shared_s(trial, device)
        return SIDE_BY_SIDE[device.name] if step_s > LEAST_GAIN * (step_s - shared_s) else 1

    def _shared_s(self, trial: PlannedTrial, device: Device) -> float:
        """What one of `SIDE_BY_SIDE` trials of a stream saves per step; 0 where nobody knows, or computing hides it."""
        data_s = [m.data_s for m in self._of_cell(trial, device) if m.data_s is not None]
        if not data_s or (device is GPU and not trial.launch_bound):
            return 0.0
        return statistics.median(data_s) * (1 - 1 / SIDE_BY_SIDE[device.name])

    def applied(self, plan: Plan, device: Device | None = None) -> Plan:
        """The plan with these times, costliest first.

        Args:
            device: what the trials will run on; None for what was measured, a GPU if there was one.
        """
        if not self.measurements:
            return plan
        device = device or (GPU if self.gpu is not None else CPU_CORE)
        memo: dict[Any, tuple[tuple[float, Origin], tuple[float, Origin], int, Way]] = {}
        trials = []
        for trial in plan.trials:
            key = (Cell.of(trial.spec, "", 1), trial.spec.n_steps, trial.n_evaluated)  # seeds cost the same
            if key not in memo:
                how = (self.side_by_side(trial, device), self.way(trial, device))
                memo[key] = (self.seconds(trial, CPU_CORE), self.seconds(trial, GPU), *how)
            (cpu_s, cpu_from), (gpu_s, gpu_from), n, way = memo[key]
            timed = replace(trial, cpu_s=cpu_s, cpu_from=cpu_from, gpu_s=gpu_s, gpu_from=gpu_from)
            trials.append(replace(timed, side_by_side=n, way=way))
        trials.sort(key=lambda trial: (-trial.seconds(device), trial.spec.label))
        return replace(plan, trials=tuple(trials))


def measurement(
    spec: TrialSpec,
    *,
    device: str,
    threads: int,
    step_s: float,
    n_steps: int,
    rest_s: float,
    n_evaluated: float,
    data_s: float | None = None,
    compile_s: float | None = None,
    saved_s: float | None = None,
    stacked_saved_s: float | None = None,
) -> Measurement:
    """A measurement, with the device model's figures for the same work beside it."""
    model: Work = work(CPU_CORE if device == CPU else GPU, spec, n_evaluated)
    cell = Cell.of(spec, device, threads)
    beside = (data_s, compile_s, saved_s, stacked_saved_s)
    return Measurement(cell, step_s, n_steps, rest_s, n_evaluated, model.step_s, model.rest_s, *beside)


def _measured_by(record: RunRecord) -> Measurement | None:
    if record.status != Status.COMPLETED or not record.train_s or record.train_s > record.wall_s:
        return None
    # a plan takes trials for what they are alone, and decides from that
    if record.compiled or record.stacked or record.n_beside:
        return None
    try:
        spec = TrialSpec.model_validate_json(record.spec)
    except ValueError:  # a row of an older or newer version says nothing of what is planned now
        return None
    elsewhere: dict[str, int] = {}
    for score in record.transfer:
        elsewhere[score.population] = max(elsewhere.get(score.population, 0), score.n_train + score.n_test)
    return measurement(
        spec,
        device=record.device,
        threads=record.threads,
        step_s=record.train_s / spec.n_steps,
        n_steps=spec.n_steps,
        rest_s=record.wall_s + (record.read_outs_s or 0.0) - record.train_s,
        n_evaluated=records_evaluated(spec, sum(elsewhere.values())),
    )


def _combined(measured: list[Measurement], expected: Work, trial: PlannedTrial) -> float:
    """Medians over the measurements of one cell; what the rest takes depends on how much is evaluated."""
    step_s = _weighted_median([(m.step_s, m.n_steps) for m in measured])
    like_it = [m.rest_s for m in measured if math.isclose(m.n_evaluated, trial.n_evaluated, rel_tol=0.25)]
    if like_it:
        return step_s * expected.n_steps + statistics.median(like_it)
    ratio = statistics.median(m.rest_s / m.model_rest_s for m in measured)
    return step_s * expected.n_steps + ratio * expected.rest_s


def _weighted_median(values: Iterable[tuple[float, float]]) -> float:
    ordered = sorted(values)
    half, passed = sum(weight for _, weight in ordered) / 2, 0.0
    for value, weight in ordered:
        passed += weight
        if passed >= half:
            return value
    raise ValueError("a median of nothing")


def _nearest(cells: Mapping[Cell, list[Measurement]], cell: Cell, expected: Work) -> list[Measurement]:
    """Measurements of the cells nearest in time per step, of the same family if there are any."""
    family = {c: m for c, m in cells.items() if c.family == cell.family} or cells

    def distance(other: Cell) -> float:
        steps = abs(math.log(family[other][0].model_step_s / expected.step_s))
        threads = OTHER_THREADS * abs(math.log(other.threads / cell.threads))
        return steps + threads + OTHER_PARADIGM * (other.paradigm != cell.paradigm)

    near = sorted(family, key=lambda c: (distance(c), str(c)))[:N_NEIGHBOURS]
    return [m for c in near if distance(c) <= distance(near[0]) + 1 for m in family[c]]


def _threads_factor(cell: Cell) -> float:
    """The device model is of one core; that threads add up is our assumption."""
    return float(cell.threads)


def _threads(device: str, threads: int) -> int:
    """CPU threads hardly matter where a GPU computes."""
    return threads if device == CPU else 1


def _precision(device: str, precision: str) -> str:
    return "fp32" if device == CPU else precision
