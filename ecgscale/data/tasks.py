"""Tasks: what columns of exams.csv mean as a target, checked before anything starts and used when it is scored.

Every kind of task becomes numbers with NaN where the value is missing; nothing here fits or scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.errors import DataError
from ecgscale.specs import TaskSpec

Floats = npt.NDArray[np.float64]


def task_target(exams: pd.DataFrame, task: TaskSpec, population: str) -> Floats:
    """The target per record; NaN where it is missing.

    Returns:
        `(record,)`: 0 or 1 (binary), the number of the class (multiclass), the value in the column's unit
        (regression); `(record, column)` of 0 or 1 for a multilabel task.

    Raises:
        DataError: the population's exams.csv lacks a column, or its values are not numbers, not 0/1 where a class is
            wanted, or not among the classes.
    """
    if task.kind == "multilabel":
        return np.stack([_binary(exams, name, task, population) for name in task.columns], axis=1)
    assert task.column is not None
    if task.kind == "multiclass":
        return _class_number(exams, task.column, task, population)
    if task.kind == "binary":
        return _binary(exams, task.column, task, population)
    return _numbers(exams, task.column, task, population)


def _column(exams: pd.DataFrame, name: str, task: TaskSpec, population: str) -> pd.Series:
    """The column, empty where it holds one of the task's `missing_values`."""
    if name not in exams:
        there = ", ".join(str(column) for column in exams)
        raise DataError(
            f"population {population!r}: task {task.name!r} wants column {name!r}; exams.csv has none, it has {there}"
        )
    column = exams[name]
    return column.mask(column.isin(list(task.missing_values))) if task.missing_values else column


def _numbers(exams: pd.DataFrame, name: str, task: TaskSpec, population: str) -> Floats:
    column = _column(exams, name, task, population)
    plain = column
    if not pd.api.types.is_numeric_dtype(column):
        plain = column.astype("string").str.strip().str.lower().replace({"true": "1", "false": "0"})
    numbers = pd.to_numeric(plain, errors="coerce").astype("Float64")
    values = np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    strange = (np.isnan(values) & column.notna().to_numpy()) | np.isinf(values)
    if strange.any():
        raise DataError(
            f"{_where(population, name)} holds words such as {column.to_numpy()[strange][0]!r} in {strange.sum()} "
            f"exams, task {task.name!r} wants numbers; list them as its missing_values if they stand for none"
        )
    return values


def _binary(exams: pd.DataFrame, name: str, task: TaskSpec, population: str) -> Floats:
    values = _numbers(exams, name, task, population)
    missing = np.isnan(values)
    if task.above is not None:
        values = np.where(missing, np.nan, values > task.above)
    elif not np.isin(values[~missing], (0.0, 1.0)).all():
        way_out = f"give task {task.name!r} an `above`" if task.kind == "binary" else f"task {task.name!r} wants 0/1"
        raise DataError(f"{_where(population, name)} is not 0/1; {way_out}")
    return np.where(missing, 0.0, values) if task.missing == "negative" else values


def _class_number(exams: pd.DataFrame, name: str, task: TaskSpec, population: str) -> Floats:
    """The place of each value among the task's classes; words are compared without blanks around them."""
    values: pd.Series
    if isinstance(task.classes[0], int):
        values = pd.Series(_numbers(exams, name, task, population))
    else:
        values = _column(exams, name, task, population).astype("string").str.strip()
    number = values.map({value: k for k, value in enumerate(task.classes)})
    strange = values[number.isna() & values.notna()]
    if len(strange):
        raise DataError(
            f"{_where(population, name)} has {strange.iloc[0]!r} in {len(strange)} exams, which is no class of task "
            f"{task.name!r} ({', '.join(map(str, task.classes))}); add it to its classes or its missing_values"
        )
    return np.asarray(number.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _where(population: str, column: str) -> str:
    return f"population {population!r}: column {column!r}"
