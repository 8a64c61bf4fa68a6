"""Classical regression beside the networks: on the same records, written as if it were a network's predictions.

All trials on one target and the same training records share these; who comes at the same time computes them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from ecgscale import prediction_files
from ecgscale.concentrations.baselines import KINDS, fit_baseline
from ecgscale.concentrations.declared import HeadSpec
from ecgscale.concentrations.features import FeatureSet, stored_features
from ecgscale.concentrations.records import Rows, target_values, with_a_value
from ecgscale.concentrations.target import TargetScale
from ecgscale.data.splits import TRAIN, VALIDATION, split_rows
from ecgscale.data.store import PackedStore
from ecgscale.prediction_files import CLASSICAL_NAMES, CLEAN, Predictions, asked_records, classical_path
from ecgscale.preemption import StopRequest
from ecgscale.specs import TrialSpec

Parts = dict[str, Rows]


def predict_classically(
    spec: TrialSpec,
    population: str,
    train_rows: Rows,
    parts: Parts,
    open_population: Callable[[str], PackedStore],
    folder: Path,
    stop: StopRequest,
) -> None:
    """Writes what every regression says of the records of a population, unless it is there.

    Args:
        train_rows: of the training population, those that have a value.
        parts: part → rows of `population` that have a value.

    Raises:
        DataError: a population lacks a column, or training or validation has no value.
        Preempted: `stop` asked for it.
    """
    target = spec.target
    assert target is not None
    missing = [name for name in CLASSICAL_NAMES if not classical_path(folder, spec, name, population).exists()]
    if not missing:
        return
    trained_on = open_population(spec.train_on)
    store = trained_on if population == spec.train_on else open_population(population)
    values = target_values(trained_on.index, target, spec.train_on)
    asked = target_values(store.index, target, population)
    validation = with_a_value(split_rows(trained_on.index, spec.split)[VALIDATION], values)
    records = pd.concat(
        [asked_records(store.index.iloc[rows], part, CLEAN, asked[rows]) for part, rows in parts.items()],
        ignore_index=True,
    )
    for which in get_args(FeatureSet):
        stop.check()
        learned = stored_features(trained_on, which)
        of_parts = learned if store is trained_on else stored_features(store, which)
        features = {TRAIN: learned.iloc[train_rows], VALIDATION: learned.iloc[validation]}
        features |= {part: of_parts.iloc[rows] for part, rows in parts.items()}
        features = {part: table.reset_index(drop=True) for part, table in features.items()}
        truth = {TRAIN: values[train_rows], VALIDATION: values[validation]}
        for name in (name for name in missing if name.endswith(f"-{which}")):
            stop.check()
            kind = next(kind for kind in KINDS if name.startswith(kind))
            head = HeadSpec(name=name, kind="gaussian")
            scale = TargetScale.fit(values[train_rows], target, head)
            fitted = fit_baseline(kind, features, truth, scale, seed=0)
            outputs = np.concatenate([fitted.outputs[part] for part in parts]).astype(np.float32)
            predictions = Predictions(target, head, scale, records, outputs, None)
            prediction_files.write(classical_path(folder, spec, name, population), predictions)
