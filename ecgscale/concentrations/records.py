"""The records of a population that have a value of the target: which are asked for it, what a head is given of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.predictive import Floats
from ecgscale.concentrations.target import AgeAndSexScale, TargetScale
from ecgscale.concentrations.weights import training_weights
from ecgscale.data.splits import LATER, TEST, VALIDATION, split_rows
from ecgscale.data.store import PackedStore
from ecgscale.data.tasks import task_target
from ecgscale.errors import DataError
from ecgscale.specs import TaskSpec, TrialSpec

Rows = npt.NDArray[np.int64]

ALL = "all"
"""The part of another population: nobody of it was trained on."""


def target_values(exams: pd.DataFrame, target: TargetSpec, population: str) -> Floats:
    """`(record,)` in the unit; NaN where there is none.

    Raises:
        DataError: the population lacks the column, or it holds no numbers.
    """
    return task_target(exams, _as_task(target.name, target.column, target.missing_values), population)


def with_a_value(rows: Rows, values: Floats) -> Rows:
    """The rows whose record has one.

    Args:
        values: of all records of the store.
    """
    return rows[~np.isnan(values[rows])]


@dataclass(frozen=True)
class AskedRecords:
    """The records of one population that were not trained on and have a value of the target.

    Attributes:
        values: `(record,)` of the whole store, in the unit; NaN where there is none.
        parts: part → rows; of the training population validation, test and, if there is one, the later test.
    """

    population: str
    store: PackedStore
    values: Floats
    parts: Mapping[str, Rows]

    @classmethod
    def of(cls, spec: TrialSpec, population: str, store: PackedStore) -> Self:
        """Raises DataError: a part has no record with a value, or see `target_values`."""
        assert spec.target is not None
        values = target_values(store.index, spec.target, population)
        parts = {ALL: np.arange(len(store))}
        if population == spec.train_on:
            split = split_rows(store.index, spec.split)
            parts = {part: split[part] for part in (VALIDATION, TEST, LATER) if part in split}
        known = {part: with_a_value(rows, values) for part, rows in parts.items()}
        for part, rows in known.items():
            if not len(rows):
                which = "" if part == ALL else f"{part} "
                raise DataError(f"population {population!r}: no {which}record has a value of the target")
        return cls(population, store, values, known)

    def exams(self, part: str) -> pd.DataFrame:
        return self.store.index.iloc[self.parts[part]]

    def truth(self, part: str) -> Floats:
        return self.values[self.parts[part]]


@dataclass(frozen=True)
class HeadInputs:
    """How a head's truth, weights, age and sex come from exams; fitted on the training records of a trial.

    Attributes:
        head: whose inputs these are.
        scale: of the target.
        age_and_sex: None for a head that doesn't see them.
    """

    target: TargetSpec
    head: HeadSpec
    scale: TargetScale
    age_and_sex: AgeAndSexScale | None

    @classmethod
    def fit(cls, exams: pd.DataFrame, target: TargetSpec, head: HeadSpec, population: str) -> Self:
        """On training records that have a value.

        Raises:
            DataError: they can't be used; see `TargetScale.fit`.
        """
        scale = TargetScale.fit(target_values(exams, target, population), target, head)
        both = AgeAndSexScale.fit(*_age_and_sex(exams, population)) if head.age_and_sex else None
        return cls(target, head, scale, both)

    def columns(self, exams: pd.DataFrame, population: str, *, weighted: bool = False) -> npt.NDArray[np.float32]:
        """`(record, 2 or 4)`: truth as the head wants it, weight, and standardised age and sex if it sees them.

        Args:
            weighted: as training records count; else all alike.
        """
        values = target_values(exams, self.target, population)
        weights = training_weights(values, self.head, self.scale) if weighted else np.ones(len(values), np.float32)
        found = [self.scale.trained_on(values)[:, None], weights[:, None]]
        if self.age_and_sex is not None:
            found.append(self.age_and_sex.to_model(*_age_and_sex(exams, population)))
        return np.concatenate(found, axis=1)


def _age_and_sex(exams: pd.DataFrame, population: str) -> tuple[Floats, Floats]:
    """Years, and 1 for men; NaN where unknown."""
    try:
        age = task_target(exams, _as_task("age", "age", (-1, 300)), population)
        return age, task_target(exams, _as_task("sex", "is_male", ()), population)
    except DataError as error:
        raise DataError(f"a head with `age_and_sex`: {error}") from None


def _as_task(name: str, column: str, missing_values: tuple[Any, ...]) -> TaskSpec:
    return TaskSpec(name=name, kind="regression", column=column, missing_values=missing_values)
