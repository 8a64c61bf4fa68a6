"""Classical regression beside the networks: on the same records, written as if it were a network's predictions.

All trials on one target and the same training records share these; the first that comes makes them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from ecgscale import prediction_files
from ecgscale.concentrations.baselines import KINDS, fit_baseline
from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.features import FeatureSet, stored_features
from ecgscale.concentrations.records import Rows, target_values, with_a_value
from ecgscale.concentrations.target import TargetScale
from ecgscale.data.splits import TRAIN, VALIDATION
from ecgscale.data.store import PackedStore
from ecgscale.prediction_files import (
    CLASSICAL,
    CLASSICAL_NAMES,
    CLEAN,
    PREDICTIONS,
    Predictions,
    asked_records,
    classical_path,
)
from ecgscale.preemption import StopRequest
from ecgscale.specs import TrialSpec

ALL = "all"
"""The part of another population: nobody of it was trained on."""


def predict_classically(
    spec: TrialSpec,
    train_rows: Rows,
    parts: Mapping[str, Rows],
    open_population: Callable[[str], PackedStore],
    folder: Path,
    stop: StopRequest,
) -> None:
    """Writes what every regression says of the records of all populations, unless it is there or under way.

    A population that lacks the target is left out: its own predictions say so.

    Args:
        train_rows: of the training population, those that have a value.
        parts: part → rows of the training population that have a value, validation among them.

    Raises:
        DataError: a population can't be opened, or its values are no numbers.
        Preempted: `stop` asked for it.
    """
    target = spec.target
    assert target is not None
    populations = [p for p in (spec.train_on, *spec.transfer_to) if target.column in open_population(p).index]
    missing = [
        name
        for name in CLASSICAL_NAMES
        if not all(classical_path(folder, spec, name, population).exists() for population in populations)
    ]
    if not missing:
        return
    with _alone(folder / PREDICTIONS / CLASSICAL / f".{target.name}.lock") as alone:
        if alone:
            _predict(spec, target, populations[1:], missing, train_rows, parts, open_population, folder, stop)


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Whether no other process is at it; the lock goes with the process that holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _predict(
    spec: TrialSpec,
    target: TargetSpec,
    elsewhere: Sequence[str],
    missing: Sequence[str],
    train_rows: Rows,
    parts: Mapping[str, Rows],
    open_population: Callable[[str], PackedStore],
    folder: Path,
    stop: StopRequest,
) -> None:
    trained_on = open_population(spec.train_on)
    values = target_values(trained_on.index, target, spec.train_on)
    asked = {spec.train_on: (trained_on, values, dict(parts))}
    for population in elsewhere:
        store = open_population(population)
        known = target_values(store.index, target, population)
        asked[population] = store, known, {ALL: with_a_value(np.arange(len(store)), known)}
    truth = {TRAIN: values[train_rows], VALIDATION: values[parts[VALIDATION]]}
    for which in get_args(FeatureSet):
        stop.check()
        measured = {population: stored_features(store, which) for population, (store, _, _) in asked.items()}
        features = {TRAIN: measured[spec.train_on].iloc[train_rows]}
        features[VALIDATION] = measured[spec.train_on].iloc[parts[VALIDATION]]
        for population, (_, _, of_it) in asked.items():
            features |= {f"{population} {part}": measured[population].iloc[rows] for part, rows in of_it.items()}
        features = {part: table.reset_index(drop=True) for part, table in features.items()}
        for name in (name for name in missing if name.endswith(f"-{which}")):
            stop.check()
            kind = next(kind for kind in KINDS if name.startswith(kind))
            head = HeadSpec(name=name, kind="gaussian")
            scale = TargetScale.fit(values[train_rows], target, head)
            fitted = fit_baseline(kind, features, truth, scale, seed=0)
            for population, (store, known, of_it) in asked.items():
                records = pd.concat(
                    [asked_records(store.index.iloc[rows], part, CLEAN, known[rows]) for part, rows in of_it.items()],
                    ignore_index=True,
                )
                outputs = np.concatenate([fitted.outputs[f"{population} {part}"] for part in of_it])
                predictions = Predictions(target, head, scale, records, outputs.astype(np.float32), None)
                prediction_files.write(classical_path(folder, spec, name, population), predictions)
