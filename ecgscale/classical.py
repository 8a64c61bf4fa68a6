"""Classical regression beside the networks: on the same records, written as if it were a network's predictions.

All trials on one target and the same training records share these; the first that comes makes them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from ecgscale import prediction_files
from ecgscale.concentrations.baselines import KINDS, fit_baseline
from ecgscale.concentrations.declared import HeadSpec
from ecgscale.concentrations.features import FeatureSet, stored_features
from ecgscale.concentrations.records import AskedRecords, Rows
from ecgscale.concentrations.target import TargetScale
from ecgscale.data.splits import TRAIN, VALIDATION
from ecgscale.data.store import PackedStore
from ecgscale.errors import DataError
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


@dataclass(frozen=True)
class Regressions:
    """The regressions on one target and the training records of a trial.

    Attributes:
        train_rows: of the training population, those that have a value.
        open_population: name → its packed records.
        folder: of the results.
    """

    spec: TrialSpec
    train_rows: Rows
    open_population: Callable[[str], PackedStore]
    folder: Path
    stop: StopRequest

    def predict(self) -> None:
        """Writes what every regression says of the records of all populations, unless it is there or under way.

        A population that has no such target, or can't be used, is left out: its own predictions say so.

        Raises:
            Preempted: `stop` asked for it.
        """
        assert self.spec.target is not None
        if not self._missing((self.spec.train_on, *self.spec.transfer_to)):
            return
        missing = self._missing(self._asked)
        if not missing or self.spec.train_on not in self._asked:
            return
        with _alone(self.folder / PREDICTIONS / CLASSICAL / f".{self.spec.target.name}.lock") as alone:
            if alone:
                self._fit(missing)

    @cached_property
    def _asked(self) -> dict[str, AskedRecords]:
        """Population → its records, the training population first."""
        asked = {}
        for population in (self.spec.train_on, *self.spec.transfer_to):
            with suppress(DataError):
                asked[population] = AskedRecords.of(self.spec, population, self.open_population(population))
        return asked

    def _missing(self, populations: Iterable[str]) -> tuple[str, ...]:
        """The regressions whose predictions of one of the populations are not there."""
        return tuple(
            name
            for name in CLASSICAL_NAMES
            if not all(classical_path(self.folder, self.spec, name, population).exists() for population in populations)
        )

    def _fit(self, names: Sequence[str]) -> None:
        spec, here = self.spec, self._asked[self.spec.train_on]
        assert spec.target is not None
        known = here.values[self.train_rows]
        truth = {TRAIN: known, VALIDATION: here.truth(VALIDATION)}
        records = {
            population: pd.concat(
                [asked_records(asked.exams(part), part, CLEAN, asked.truth(part)) for part in asked.parts],
                ignore_index=True,
            )
            for population, asked in self._asked.items()
        }
        for which in get_args(FeatureSet):
            features = self._features(which)
            for name in (name for name in names if name.endswith(f"-{which}")):
                self.stop.check()
                kind = next(kind for kind in KINDS if name.startswith(kind))
                head = HeadSpec(name=name, kind="gaussian")
                scale = TargetScale.fit(known, spec.target, head)
                fitted = fit_baseline(kind, features, truth, scale, seed=0)
                for population, asked in self._asked.items():
                    outputs = np.concatenate([fitted.outputs[f"{population} {part}"] for part in asked.parts])
                    said = outputs.astype(np.float32)
                    predictions = Predictions(spec.target, head, scale, records[population], said, None)
                    prediction_files.write(classical_path(self.folder, spec, name, population), predictions)

    def _features(self, which: FeatureSet) -> dict[str, pd.DataFrame]:
        """Training and validation, and every population's parts by both names, one row per record."""
        self.stop.check()
        measured = {population: stored_features(asked.store, which) for population, asked in self._asked.items()}
        here = self.spec.train_on
        tables = {TRAIN: measured[here].iloc[self.train_rows]}
        tables[VALIDATION] = measured[here].iloc[self._asked[here].parts[VALIDATION]]
        for population, asked in self._asked.items():
            tables |= {f"{population} {part}": measured[population].iloc[rows] for part, rows in asked.parts.items()}
        return {name: table.reset_index(drop=True) for name, table in tables.items()}


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
