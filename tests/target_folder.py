"""A results folder as a sweep over targets and heads leaves it, its networks replaced by what they might have said.

Potassium is planted to be read well, sodium hardly; some ECGs say more than others, and heads with a spread know which.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit, ndtr, ndtri

from ecgscale import prediction_files, results
from ecgscale.concentrations.predictive import Floats
from ecgscale.concentrations.target import TargetScale
from ecgscale.plan import PlannedTrial, plan
from ecgscale.predicting import target_scores
from ecgscale.prediction_files import Predictions
from ecgscale.specs import TrialSpec, load_grid

SWEEP = """\
name: planted
question: Which concentrations can be read, and does the network know when it can not?
data:
  train_on: A
  transfer_to: [B]
  n_train_records: 3000
  split: {later: {column: exam_date, share: 0.1}}
input: {fs_hz: 100, n_samples: 1024, patch_samples: 16}
axes:
  family: [resnet]
  paradigm: [target]
  rung: [RUNGS]
  data_fraction: [1]
  target: [TARGETS]
  head: [HEADS]
  seed: [SEEDS]
train:
  budget: {kind: epochs, value: 2}
  batch_size: 16
  learning_rate:
    resnet: {base: 8e-3}
corruptions: [noise-0.25mV, dropped-50]
"""

MEANS = {"potassium": (4.0, 0.6), "calcium": (2.35, 0.12), "sodium": (139.0, 4.0), "creatinine": (82.0, 25.0)}
CORRELATION = {"potassium": 0.85, "calcium": 0.5, "sodium": 0.1, "creatinine": 0.15}
"""Of the truth and the best that the clearest ECG says."""
HEADS = ("mse", "gaussian", "softmax-2", "softmax-6", "ordinal-6")
LOST = {"noise-0.25mV": 0.6, "dropped-50": 0.8}
"""Share of the correlation that is left of a damaged record."""
OVERCONFIDENT = 0.8
"""Predicted standard deviations are this share of the honest ones."""
STARTED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def make(
    folder: Path,
    *,
    targets: tuple[str, ...] = ("potassium", "sodium"),
    heads: tuple[str, ...] = HEADS,
    seeds: tuple[int, ...] = (0, 1),
    rungs: tuple[str, ...] = ("20K",),
    exponent: float | None = None,
    n_records: Mapping[str, int] | None = None,
    n_failed: int = 0,
) -> Path:
    """Fills `folder`, which must not hold results; returns it.

    Args:
        exponent: the MAE that rows report falls with this power of the parameters, exactly.
        n_records: by part of population A; that of B is called `all`. Without one the part does not exist.
        n_failed: so many trials fail, the cheapest first.
    """
    n_records = n_records or {"validation": 150, "test": 300, "later": 100, "all": 100}
    asked = {"TARGETS": targets, "HEADS": heads, "SEEDS": seeds, "RUNGS": rungs}
    sweep = SWEEP
    for name, values in asked.items():
        sweep = sweep.replace(name, ", ".join(map(str, values)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text(sweep)
    trials = plan(load_grid(folder / "sweep.yaml")).trials
    for number, trial in enumerate(trials):
        failed = {"status": "failed", "reason": "planted", "failure": "infrastructure"}
        found = failed if number >= len(trials) - n_failed else dict(_completed(trial.spec, folder, n_records))
        if exponent is not None:
            mae = {"mae": (trial.n_params / 20_000) ** -exponent}
            found["predicted"] = tuple(score.model_copy(update=mae) for score in found["predicted"])
        results.append(folder, results.RunRecord.model_validate(_row(trial, number) | found))
    return folder


def _row(trial: PlannedTrial, number: int) -> dict[str, object]:
    spec = trial.spec
    return {
        "sweep": "planted",
        "trial_id": spec.trial_id,
        "attempt": f"{number:06d}",
        **{name: getattr(spec, name) for name in ("label", "family", "paradigm", "rung", "arm", "data_fraction")},
        "n_labels": 0,
        "seed": spec.seed,
        "n_params": trial.n_params,
        "n_params_head": trial.n_params_head,
        "n_records": spec.n_records,
        "n_samples_seen": spec.n_samples_seen,
        "train_flops": trial.train_flops,
        "loss_unit": "nats",
        "wall_s": 1.0,
        "device": "cpu",
        "threads": 1,
        "versions": "{}",
        "data_fingerprint": json.dumps({"A": "planted", "B": "planted"}),
        "spec": spec.model_dump_json(),
        "started_at": STARTED,
    }


def _completed(spec: TrialSpec, folder: Path, n_records: Mapping[str, int]) -> Iterator[tuple[str, object]]:
    predicted: list[results.TargetScore] = []
    read_outs = []
    for read_out in spec.read_outs:
        here = read_out.population == spec.train_on
        parts = {part: n for part, n in n_records.items() if (part != "all") == here}
        if parts:
            said = _said(spec, read_out.population, parts)
            path = prediction_files.prediction_path(folder, spec.trial_id, read_out.population, read_out.read_out_id)
            prediction_files.write(path, said)
            predicted += target_scores(said, read_out.population)
            read_outs.append(read_out)
    yield "status", "completed"
    yield "id_loss", 1.0
    yield "predicted", tuple(predicted)
    yield "read_outs", tuple(read_out.read_out_id for read_out in read_outs)
    yield "read_out_specs", tuple(read_out.model_dump_json() for read_out in read_outs)


def _said(spec: TrialSpec, population: str, parts: Mapping[str, int]) -> Predictions:
    """What a network of this seed says of every part, and of damaged copies of the test records."""
    assert spec.target is not None and spec.head is not None
    mean, sd = MEANS[spec.target.name]
    patients = np.random.default_rng(sum(map(ord, spec.target.name + population)))
    scale = TargetScale.fit(_values(patients.standard_normal(3000), mean, sd), spec.target, spec.head)
    tables, outputs = [], []
    for part, n in parts.items():
        z, quality, luck = patients.standard_normal(n), patients.uniform(0.2, 1.0, n), patients.standard_normal(n)
        truth = _values(z, mean, sd)
        own = np.random.default_rng([spec.seed, n, *map(ord, spec.head.name)])
        for condition in ("clean", *(c.name for c in spec.corruptions if part == "test")):
            left = CORRELATION[spec.target.name] * quality * LOST.get(condition, 0.8 if part == "all" else 1.0)
            said = left**2 * scale.to_model(truth) + left * np.sqrt(1 - left**2) * luck
            said = said + 0.15 * own.standard_normal(n)
            outputs.append(_outputs(said, np.sqrt(1 - left**2), scale, spec, own))
            who = {"part": part, "condition": condition, "exam_id": np.arange(n), "patient_id": np.arange(n) // 2}
            tables.append(pd.DataFrame(who | {"truth": truth}))
    said_of_all = np.concatenate(outputs).astype(np.float32)
    records = pd.concat(tables, ignore_index=True)
    unsure = None
    if spec.head.kind in ("mse", "gaussian"):  # as little as the last layer knows: it sorts no error
        unsure = np.random.default_rng(spec.seed).uniform(0.05, 0.1, len(records)).astype(np.float32)
    return Predictions(spec.target, spec.head, scale, records, said_of_all, unsure)


def _values(z: Floats, mean: float, sd: float) -> Floats:
    """Around a mean, none of them below a fifth of it."""
    return np.asarray(np.maximum(mean + sd * z, mean / 5), dtype=np.float64)


def _outputs(mean: Floats, sd: Floats, scale: TargetScale, spec: TrialSpec, own: np.random.Generator) -> Floats:
    """What a head of this kind puts out that believes in a normal, standardised as it was trained."""
    head = spec.head
    assert head is not None
    sd = OVERCONFIDENT * sd
    if head.kind in ("mse", "huber"):
        return mean[:, None]
    if head.kind == "gaussian":
        return np.stack([mean, 2 * np.log(sd)], axis=1)
    if head.kind == "quantile":
        return mean[:, None] + sd[:, None] * ndtri(np.array(head.levels))
    edges = scale.to_model(np.array(scale.edges[1:-1]))
    above = 1 - ndtr((edges - mean[:, None]) / sd[:, None])
    if head.kind == "softmax":
        p = -np.diff(above, axis=1, prepend=1.0, append=0.0)
        doubt = 0.4 * (p.shape[1] - 1) * own.standard_normal(p.shape)  # more classes, less is learnt of each
        return np.log(np.maximum(p, 1e-6)) + doubt
    if head.kind == "corn":
        above = above / np.maximum(np.concatenate([np.ones((len(above), 1)), above[:, :-1]], axis=1), 1e-6)
    return logit(np.clip(above, 1e-6, 1 - 1e-6))
