"""Tasks: what a column of exams.csv means as a target, checked before anything starts and used when it is scored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.errors import DataError
from ecgscale.specs import TaskSpec


def task_target(exams: pd.DataFrame, task: TaskSpec, population: str) -> npt.NDArray[np.float64]:
    """The target per record; NaN where it is missing.

    Raises:
        DataError: the population's exams.csv has no such column, or its values are not numbers, or not 0/1 where a
            class is wanted.
    """
    if task.column not in exams:
        there = ", ".join(str(name) for name in exams)
        raise DataError(
            f"population {population!r}: task {task.name!r} wants column {task.column!r}; "
            f"exams.csv has none, it has {there}"
        )
    where = f"population {population!r}: column {task.column!r}"
    try:
        column = exams[task.column].astype("Float64")
    except (ValueError, TypeError):  # pyarrow's errors are ValueErrors
        raise DataError(f"{where} holds words, task {task.name!r} wants numbers") from None
    values = np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    if task.kind == "regression":
        return values
    if task.above is not None:
        return np.where(np.isnan(values), np.nan, values > task.above)
    if not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
        raise DataError(f"{where} is not 0/1; give task {task.name!r} an `above`")
    return values
