"""A trained network says what it thinks of records: ones it was not trained on, damaged ones, another hospital's.

On the training population: validation, test and, if there is one, the later test; the test records once more for every
corruption. On another population: all records that have a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ecgscale.classical import Regressions
from ecgscale.concentrations.corruptions import Corruption
from ecgscale.concentrations.damage import corrupt
from ecgscale.concentrations.laplace import LastLayerLaplace
from ecgscale.concentrations.records import AskedRecords, HeadInputs, Rows, target_values, with_a_value
from ecgscale.data.splits import TEST, TRAIN, fraction_rows, split_rows
from ecgscale.data.store import PackedStore
from ecgscale.data.stream import RecordSource
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


@dataclass(frozen=True)
class Predictor:
    """A network that was trained on a target, to be asked about one population after the other.

    Attributes:
        module: with the weights to ask.
        open_population: name → its packed records.
        folder: of the results.
    """

    spec: TrialSpec
    module: Pretraining
    open_population: Callable[[str], PackedStore]
    folder: Path
    stop: StopRequest

    def predict(self, population: str) -> Predictions:
        """What the network says of every record of a population that it was not trained on.

        Beside it, once per results folder, what classical regressions say of them (`classical`).

        Raises:
            DataError: a population lacks a column.
            Preempted: `stop` asked for it.
        """
        spec = self.spec
        assert spec.target is not None and spec.head is not None
        here = population == spec.train_on
        store = self._trained_on if here else self.open_population(population)
        asked = AskedRecords.of(spec, population, store)
        _, inputs = self._training
        posterior = self._posterior
        self._regressions.predict()
        conditions: list[tuple[str, Corruption | None]] = [(part, None) for part in asked.parts]
        conditions += [(TEST, corruption) for corruption in spec.corruptions if here]
        tables, outputs, spreads = [], [], []
        for part, damage in conditions:
            self.stop.check()
            said, seen = self._ask(store, asked.parts[part], population, damage)
            condition = CLEAN if damage is None else damage.name
            tables.append(asked_records(asked.exams(part), part, condition, asked.truth(part)))
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

    # --- of the training population, once for all --------------------------------------------------------------------

    @cached_property
    def _trained_on(self) -> PackedStore:
        return self.open_population(self.spec.train_on)

    @cached_property
    def _training(self) -> tuple[Rows, HeadInputs]:
        return training_records(self.spec, self._trained_on)

    @cached_property
    def _regressions(self) -> Regressions:
        train_rows, _ = self._training
        return Regressions(self.spec, train_rows, self.open_population, self.folder, self.stop)

    @cached_property
    def _posterior(self) -> LastLayerLaplace | None:
        """Of the last layer of a mean: for heads whose loss is quadratic in it."""
        layer = self._objective.head.mean_layer()
        if layer is None:
            return None
        (rows, inputs), store, population = self._training, self._trained_on, self.spec.train_on
        outputs, seen = self._ask(store, rows, population)
        truth = inputs.columns(store.index.iloc[rows], population)[:, 0].astype(np.float64)
        spread = np.exp(outputs[:, 1].astype(np.float64) / 2) if outputs.shape[1] > 1 else np.ones(len(truth))
        weights = torch.cat([layer.weight[0], layer.bias]).detach().double().cpu().numpy()
        return LastLayerLaplace.fit([(seen.astype(np.float64), outputs[:, 0] - truth, spread)], weights)

    # --- the network -------------------------------------------------------------------------------------------------

    @property
    def _objective(self) -> OneTarget:
        assert isinstance(self.module.objective, OneTarget)
        return self.module.objective

    @torch.no_grad()
    def _ask(self, store: PackedStore, rows: Rows, population: str, damage: Corruption | None = None) -> Seen:
        exams = store.index.iloc[rows]
        keys = torch.tensor(exams["exam_id"].to_numpy())
        _, inputs = self._training
        source = RecordSource(store, rows, inputs.columns(exams, population))
        module, objective = self.module, self._objective
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
