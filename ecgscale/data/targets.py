"""Targets that were measured elsewhere, as columns of a population's index, without packing its signals again.

They lie in one file beside the exams and are joined by exam_id whenever a store is opened. Its content is part of the
fingerprint, so that no trial is taken for one of other values. `ecgscale.concentrations.measured` makes them of a csv.

    POPULATION/targets.parquet    exam_id and one column per target
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.errors import DataError

TARGETS = "targets.parquet"


def add_target(folder: Path, column: str, exam_ids: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
    """Writes one target of a population beside those that it has; a former one of this name is replaced.

    Args:
        folder: the population.
        exam_ids: each once.
    """
    new = pd.DataFrame({"exam_id": exam_ids, column: values})
    former = read_targets(folder)
    if former is not None:
        new = former.drop(columns=column, errors="ignore").merge(new, on="exam_id", how="outer")
    unfinished = folder / f".{TARGETS}.{uuid.uuid4().hex[:12]}"
    try:
        new.sort_values("exam_id", ignore_index=True).to_parquet(unfinished)
        os.replace(unfinished, folder / TARGETS)
    finally:
        unfinished.unlink(missing_ok=True)


def read_targets(folder: Path) -> pd.DataFrame | None:
    """exam_id and the targets of a population; None if it has none.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return pd.read_parquet(folder / TARGETS)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{folder / TARGETS}: can't be read ({error}); delete it and add its targets again") from None


def with_targets(index: pd.DataFrame, fingerprint: str, folder: Path) -> tuple[pd.DataFrame, str]:
    """The index with the targets of its population, NaN where one was not measured, and a fingerprint of both.

    Raises:
        DataError: the file is damaged, or exams.csv has such a column itself.
    """
    targets = read_targets(folder)
    if targets is None:
        return index, fingerprint
    measured = targets.set_index("exam_id")
    for column in measured:
        if column in index:
            raise DataError(f"{folder / TARGETS}: exams.csv has a column {column!r}, too; rename it there")
    joined = measured.reindex(index["exam_id"].to_numpy())
    digest = hashlib.sha256(f"{fingerprint} {list(joined)}".encode())
    digest.update(joined.to_numpy(np.float64).tobytes())
    return index.assign(**{str(column): joined[column].to_numpy() for column in joined}), digest.hexdigest()[:12]
