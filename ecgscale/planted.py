"""A results folder drawn from known laws: what a grid would look like if the truth were this, and would it decide it.

Every trial of a sweep gets a row as a real one has it, from the plan's N, D and FLOPs and planted losses with noise;
some trials fail. The laws and claims that come back can be held against what was planted.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from ecgscale import results
from ecgscale.conventions import CODE_LABELS
from ecgscale.errors import EcgscaleError
from ecgscale.plan import PlannedTrial, plan
from ecgscale.spec_base import Spec
from ecgscale.specs import GridSpec, load_grid
from ecgscale.yaml_text import YamlText

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

DEVICE = "simulated"
N_TEST, N_TEST_POSITIVE = 1000, 200
ERROR_PER_LOSS = 0.2
"""1 − AUROC over the in-distribution loss, when all labels are trained on."""

STARTED = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""Of every simulated trial, so that the same seed gives the same folder."""


class LawTruth(Spec):
    """L = E + A·N^−α + B·D^−β, the in-distribution loss of an arm."""

    E: NotNegative
    A: NotNegative
    alpha: Positive
    B: NotNegative
    beta: Positive

    def excess(self, n: float, d: float) -> float:
        return float(self.A * n**-self.alpha + self.B * d**-self.beta)


class TransferTruth(Spec):
    """Loss elsewhere: floor + scale · u^κ, u being the in-distribution excess A·(m N)^−α + B·(r D)^−β.

    With m = r = 1 this is the loss-to-loss law itself; with κ = 1 it is a law of N and D of the same form.
    """

    floor: NotNegative
    scale: Positive = 1.0
    kappa: Positive = 1.0
    parameters: Positive = 1.0
    """m: an arm with twice the m of another needs half its parameters."""
    records: Positive = 1.0
    """r: an arm with twice the r of another needs half its records."""


class ArmTruth(Spec):
    in_distribution: LawTruth
    seen: TransferTruth
    unseen: TransferTruth

    def transfer_loss(self, *, seen: bool, n: float, d: float) -> float:
        to = self.seen if seen else self.unseen
        return float(to.floor + to.scale * self.in_distribution.excess(to.parameters * n, to.records * d) ** to.kappa)


class NoiseTruth(Spec):
    """Standard deviations of log losses."""

    trial: NotNegative = 0.01
    """The same for all losses of a trial: a lucky seed."""
    loss: NotNegative = 0.01
    """Of every loss by itself."""


class LabelTruth(Spec):
    """Exponents in the number of labels k of SL: the error in distribution (1 − AUROC), the losses elsewhere."""

    in_distribution: float = 0.0
    seen: float = 0.0
    unseen: float = 0.0


class Truth(Spec):
    """What is planted."""

    arms: Mapping[str, ArmTruth]
    """By `family-paradigm`."""
    noise: NoiseTruth = NoiseTruth()
    labels: LabelTruth = LabelTruth()
    task_spread: NotNegative = 0.0
    """Standard deviation of the log of how large a task's loss is, compared with the others."""
    failed: float = Field(default=0.0, ge=0, lt=1)
    """Share of the trials that fail."""

    @model_validator(mode="after")
    def _arms_are_arms(self) -> Truth:
        for name in self.arms:
            family, _, paradigm = name.partition("-")
            if family not in ("resnet", "transformer") or paradigm not in ("sl", "ssl"):
                raise ValueError(f"arms: {name!r} is none; an arm is a family and a paradigm, such as resnet-ssl")
        return self


def load_truth(path: Path) -> Truth:
    """Reads a truth file.

    Raises:
        EcgscaleError: naming file, line, field and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EcgscaleError(f"{path}: can't be read ({error})") from None
    parsed = YamlText(text, name=str(path))
    try:
        return Truth.model_validate(parsed.value)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            field = ".".join(map(str, item["loc"])) or "the truth"
            message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
            lines.append(f"{path}:{parsed.line(tuple(item['loc']))}: {field}: {message}")
        raise EcgscaleError("\n".join(lines)) from None


def write_simulated(sweep: Path, truth: Truth, folder: Path, seed: int = 0) -> int:
    """Writes the results folder of a sweep as the truth would have it; returns the number of rows.

    Raises:
        EcgscaleError: the sweep or the truth is wrong, or the folder holds results already.
    """
    if results.is_results_folder(folder):
        raise EcgscaleError(f"{folder}: holds results already; simulated ones are never put beside others")
    records = simulate(load_grid(sweep), truth, seed)
    for record in records:
        results.append(folder, record)
    (folder / "sweep.yaml").write_text(sweep.read_text(encoding="utf-8"), encoding="utf-8")
    return len(records)


def simulate(grid: GridSpec, truth: Truth, seed: int = 0) -> tuple[results.RunRecord, ...]:
    """One row per trial of the grid.

    Raises:
        EcgscaleError: the truth lacks an arm of the grid.
    """
    rng = np.random.default_rng(seed)
    trials = sorted(plan(grid).trials, key=lambda t: t.spec.label)
    if missing := {t.spec.arm for t in trials} - set(truth.arms):
        raise EcgscaleError(f"the truth has no arm {', '.join(sorted(missing))}, which sweep {grid.name} has")
    tasks = list(_tasks(grid))
    sizes = np.exp(truth.task_spread * rng.standard_normal(len(tasks)))
    return tuple(_row(grid, truth, trial, k, tasks, sizes, rng) for k, trial in enumerate(trials))


def _tasks(grid: GridSpec) -> Iterator[dict[str, Any]]:
    """Population, name, kind and whether it is seen, as a read-out names its scores."""
    for population in grid.data.transfer_to:
        for task in grid.probe.tasks:
            if task.kind == "multilabel":
                for column in task.columns:
                    name = f"{task.name}:{column}"
                    yield {"population": population, "task": name, "kind": "binary", "seen": column in CODE_LABELS}
            else:
                seen = task.column in CODE_LABELS
                yield {"population": population, "task": task.name, "kind": task.kind, "seen": seen}


def _row(
    grid: GridSpec,
    truth: Truth,
    trial: PlannedTrial,
    number: int,
    tasks: list[dict[str, Any]],
    sizes: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> results.RunRecord:
    spec, arm = trial.spec, truth.arms[trial.spec.arm]
    n, d, n_labels = trial.n_params, spec.n_records, len(spec.labels)
    luck = truth.noise.trial * rng.standard_normal()
    noise = iter(np.exp(luck + truth.noise.loss * rng.standard_normal(len(tasks) + 1 + n_labels)))
    share = n_labels / max(grid.axes.n_labels) if n_labels else 1.0
    clean = arm.in_distribution.E + arm.in_distribution.excess(n, d)
    row: dict[str, Any] = {
        "sweep": grid.name,
        "trial_id": spec.trial_id,
        "attempt": f"{number:06d}",
        "label": spec.label,
        "family": spec.family,
        "paradigm": spec.paradigm,
        "rung": spec.rung,
        "arm": spec.arm,
        "data_fraction": spec.data_fraction,
        "n_labels": n_labels,
        "seed": spec.seed,
        "n_params": n,
        "n_params_head": trial.n_params_head,
        "n_records": d,
        "n_samples_seen": spec.n_samples_seen,
        "train_flops": trial.train_flops,
        "loss_unit": "nats" if spec.paradigm == "sl" else "mse",
        "wall_s": trial.gpu_s,
        "device": DEVICE,
        "threads": 1,
        "versions": "{}",
        "data_fingerprint": json.dumps(dict.fromkeys((grid.data.train_on, *grid.data.transfer_to), DEVICE)),
        "spec": spec.model_dump_json(),
        "started_at": STARTED,
    }
    if rng.random() < truth.failed:
        failed = {"status": results.Status.FAILED.value, "reason": "planted", "failure": "infrastructure"}
        return results.RunRecord.model_validate(row | failed)
    id_loss = clean * next(noise)
    error = ERROR_PER_LOSS * clean * share**-truth.labels.in_distribution
    scores = []
    for task, size in zip(tasks, sizes, strict=True):
        loss = size * arm.transfer_loss(seen=task["seen"], n=n, d=d) * next(noise)
        loss *= share ** -(truth.labels.seen if task["seen"] else truth.labels.unseen)
        scores.append(
            results.TaskScore(
                **task,
                loss=loss,
                constant_loss=None,
                auroc=None,
                l2=None,
                n_train=N_TEST,
                n_test=N_TEST,
                n_test_positive=N_TEST_POSITIVE if task["kind"] == "binary" else None,
            )
        )
    found = {
        "status": results.Status.COMPLETED.value,
        "val_loss_best": id_loss,
        "val_loss_last": id_loss,
        "id_loss": id_loss,
        "id_loss_last": id_loss,
        "id_auroc": tuple(
            results.LabelScore(
                label=label, auroc=1 - min(0.5, error * float(next(noise))), n_test_positive=N_TEST_POSITIVE
            )
            for label in spec.labels
        ),
        "transfer": tuple(scores),
        "read_outs": tuple(read_out.read_out_id for read_out in spec.read_outs),
    }
    return results.RunRecord.model_validate(row | found)
