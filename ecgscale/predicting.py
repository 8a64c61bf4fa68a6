"""A trained network says what it thinks of records: ones it was not trained on, damaged ones, another hospital's.

On the training population: validation, test and, if there is one, the later test; the test records once more for every
corruption. On another population: all records that have a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ecgscale.classical import ALL, predict_classically
from ecgscale.concentrations.corruptions import Corruption
from ecgscale.concentrations.damage import corrupt
from ecgscale.concentrations.laplace import LastLayerLaplace
from ecgscale.concentrations.records import HeadInputs, Rows, target_values, with_a_value
from ecgscale.data.splits import LATER, TEST, TRAIN, VALIDATION, fraction_rows, split_rows
from ecgscale.data.store import PackedStore
from ecgscale.data.stream import RecordSource
from ecgscale.errors import DataError
from ecgscale.objectives.target import OneTarget
from ecgscale.prediction_files import CLEAN, Predictions, asked_records
from ecgscale.preemption import StopRequest
from ecgscale.records import TargetScore
from ecgscale.specs import TrialSpec
from ecgscale.training import Pretraining

Seen = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Outputs `(record, n_outputs)`, and what the last layer saw `(record, width)`."""


def training_records(spec: TrialSpec, store: PackedStore) -> tuple[Rows, HeadInputs]:
    """The records that a trial on a target is trained on, and what its head is given of each.

    Raises:
        DataError: the population lacks the column, or its values can't be used.
    """
    assert spec.target is not None and spec.head is not None
    parts = split_rows(store.index, spec.split)
    values = target_values(store.index, spec.target, spec.train_on)
    rows = with_a_value(fraction_rows(store.index, parts[TRAIN], spec.data_fraction, spec.split), values)
    return rows, HeadInputs.fit(store.index.iloc[rows], spec.target, spec.head, spec.train_on)


def predict(
    spec: TrialSpec,
    population: str,
    module: Pretraining,
    open_population: Callable[[str], PackedStore],
    results: Path,
    stop: StopRequest,
) -> Predictions:
    """What the network says of every record of a population that it was not trained on.

    Beside it, once per results folder, what classical regressions say of them (`classical`).

    Args:
        module: with the weights to ask.
        open_population: name → its packed records.

    Raises:
        DataError: a population lacks a column.
        Preempted: `stop` asked for it.
    """
    objective = module.objective
    assert isinstance(objective, OneTarget) and spec.target is not None and spec.head is not None
    trained_on = open_population(spec.train_on)
    train_rows, inputs = training_records(spec, trained_on)
    store = trained_on if population == spec.train_on else open_population(population)
    values = target_values(store.index, spec.target, population)
    ask = partial(_asked, module, objective, store, inputs, population)
    posterior = _posterior(spec, module, objective, trained_on, train_rows, inputs)
    conditions = _conditions(spec, population, store, values)
    if population == spec.train_on:
        clean = {part: rows for part, rows, damage in conditions if damage is None}
        predict_classically(spec, train_rows, clean, open_population, results, stop)
    tables, outputs, spreads = [], [], []
    for part, rows, damage in conditions:
        stop.check()
        said, seen = ask(rows, damage)
        exams = store.index.iloc[rows]
        tables.append(asked_records(exams, part, CLEAN if damage is None else damage.name, values[rows]))
        outputs.append(said)
        if posterior is not None:
            spreads.append(posterior.epistemic_sd(seen.astype(np.float64)).astype(np.float32))
    return Predictions(
        spec.target,
        spec.head,
        inputs.scale,
        pd.concat(tables, ignore_index=True),
        np.concatenate(outputs),
        np.concatenate(spreads) if spreads else None,
    )


def target_scores(predictions: Predictions, population: str) -> tuple[TargetScore, ...]:
    """The scores of every part in every condition."""
    scores = []
    for part, condition in predictions.conditions:
        own = predictions.of(part, condition)
        said, constant = own.predictive(), own.scale.marginal(len(own))
        errors = {"": own.truth - said.mean, "constant_": own.truth - constant.mean}
        nll = -float(np.mean(said.log_density(own.truth))) if said.has_spread else math.inf
        scores.append(
            TargetScore(
                population=population,
                part=part,
                condition=condition,
                unit=own.target.unit,
                n_test=len(own),
                **{f"{who}mae": float(np.mean(np.abs(error))) for who, error in errors.items()},
                **{f"{who}mse": float(np.mean(error**2)) for who, error in errors.items()},
                crps=float(np.mean(said.crps(own.truth))),
                constant_crps=float(np.mean(constant.crps(own.truth))),
                nll=nll if math.isfinite(nll) else None,
                constant_nll=-float(np.mean(constant.log_density(own.truth))),
            )
        )
    return tuple(scores)


def _conditions(
    spec: TrialSpec, population: str, store: PackedStore, values: npt.NDArray[np.float64]
) -> list[tuple[str, Rows, Corruption | None]]:
    if population != spec.train_on:
        rows = with_a_value(np.arange(len(store)), values)
        if not len(rows):
            raise DataError(f"population {population!r}: no record has a value of the target")
        return [(ALL, rows, None)]
    parts = split_rows(store.index, spec.split)
    found: list[tuple[str, Rows, Corruption | None]] = []
    for part in (VALIDATION, TEST, LATER):
        if part in parts:
            rows = with_a_value(parts[part], values)
            if not len(rows):
                raise DataError(f"population {population!r}: no {part} record has a value of the target")
            found.append((part, rows, None))
    test = with_a_value(parts[TEST], values)
    return found + [(TEST, test, corruption) for corruption in spec.corruptions]


@torch.no_grad()
def _asked(
    module: Pretraining,
    objective: OneTarget,
    store: PackedStore,
    inputs: HeadInputs,
    population: str,
    rows: Rows,
    damage: Corruption | None = None,
) -> Seen:
    exams = store.index.iloc[rows]
    keys = torch.tensor(exams["exam_id"].to_numpy())
    source = RecordSource(store, rows, inputs.columns(exams, population))
    module.eval()
    said: list[Tensor] = []
    seen: list[Tensor] = []
    n_done = 0
    for batch in source.in_order():
        damaged = None if damage is None else partial(_damaged, damage, keys[n_done : n_done + len(batch.digital)])
        for part in module.parts(module.normalised(batch, scale=store.header.scale, damage=damaged)):
            outputs, features = objective.outputs(module.encoder, part)
            said.append(outputs.float().cpu())
            seen.append(features.float().cpu())
        n_done += len(batch.digital)
    return torch.cat(said).numpy(), torch.cat(seen).numpy()


def _damaged(damage: Corruption, keys: Tensor, signal: Tensor, recorded: Tensor) -> Tensor:
    return corrupt(signal, recorded, damage, keys)


def _posterior(
    spec: TrialSpec,
    module: Pretraining,
    objective: OneTarget,
    store: PackedStore,
    rows: Rows,
    inputs: HeadInputs,
) -> LastLayerLaplace | None:
    """Of the last layer of a mean: for heads whose loss is quadratic in it."""
    layer = objective.head.mean_layer()
    if layer is None:
        return None
    outputs, seen = _asked(module, objective, store, inputs, spec.train_on, rows)
    truth = inputs.columns(store.index.iloc[rows], spec.train_on)[:, 0].astype(np.float64)
    spread = np.exp(outputs[:, 1].astype(np.float64) / 2) if outputs.shape[1] > 1 else np.ones(len(truth))
    weights = torch.cat([layer.weight[0], layer.bias]).detach().double().cpu().numpy()
    return LastLayerLaplace.fit([(seen.astype(np.float64), outputs[:, 0] - truth, spread)], weights)
