"""Who trains, who validates, who tests, and which patients a data fraction holds.

Every choice is a hash of (seed, patient), so it is the same on every machine, does not move when records are appended,
and a smaller fraction is always a subset of a larger one.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.errors import DataError
from ecgscale.specs import SplitSpec

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def patient_position(patients: pd.Series, seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per record, the same for all records of a patient."""
    unique, inverse = np.unique(patients.to_numpy().astype(str), return_inverse=True)
    digests = (hashlib.blake2b(f"{purpose}:{seed}:{p}".encode(), digest_size=8).digest() for p in unique)
    position = np.array([int.from_bytes(d, "big") / 2.0**64 for d in digests])
    return np.asarray(position[inverse], dtype=np.float64)


def split_rows(index: pd.DataFrame, split: SplitSpec) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each part. A `split` column (official folds) is honoured; parts it leaves empty are drawn from its train.

    Args:
        index: one row per record with `patient_id`, optionally `split` with train / val / test.

    Raises:
        DataError: a part is empty, or the `split` column has another word.
    """
    position = patient_position(index["patient_id"], split.seed, "split")
    if "split" in index:
        official = index["split"].astype(str).replace({"val": VALIDATION, "valid": VALIDATION})
        strange = index["split"][~official.isin([TRAIN, VALIDATION, TEST])]
        if len(strange):
            raise DataError(
                f"column split has {strange.iloc[0]!r} in {len(strange)} records; allowed: train, val, test"
            )
    else:
        official = pd.Series(TRAIN, index=index.index)
    parts = official.to_numpy().copy()
    free = parts == TRAIN
    if not (parts == TEST).any():
        parts[free & (position < split.test)] = TEST
    if not (parts == VALIDATION).any():
        parts[free & (position >= 1 - split.validation)] = VALIDATION
    rows = {part: np.flatnonzero(parts == part) for part in (TRAIN, VALIDATION, TEST)}
    for part, members in rows.items():
        if not len(members):
            raise DataError(
                f"no {part} records: {len(index)} records of {index['patient_id'].nunique()} patients are too few"
            )
    return rows


def fraction_rows(
    index: pd.DataFrame, train_rows: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.int64]:
    """The training rows of the patients whose position lies below `fraction`; nested in every larger fraction.

    Raises:
        DataError: the fraction holds no record.
    """
    position = patient_position(index["patient_id"].iloc[train_rows], seed, "fraction")
    rows = train_rows[position < fraction]
    if not len(rows):
        raise DataError(f"data fraction {fraction:.4g} of {len(train_rows)} training records holds none")
    return rows
