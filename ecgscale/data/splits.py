"""Who trains, who validates, who tests, and which patients a data fraction holds.

Each patient takes the next place of an even random sequence of its stratum (the labels of its first exam), so every
part and fraction has its share of every label to within a few patients, a smaller fraction lies within every larger
one, and nobody moves when records are appended. Official folds, and a cut in time, come before chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.conventions import CODE_LABELS
from ecgscale.errors import DataError
from ecgscale.specs import FoldSpec, SplitSpec

TRAIN, VALIDATION, TEST, LATER = "train", "validation", "test", "later"

PARTS = (TRAIN, VALIDATION, TEST)
"""Those that every split has; `later` is there when it is asked for."""
_LEFT_OUT = -1

_LEVELS = 24
"""Halvings of [0, 1): places are even down to 1 / 2^24, more than any set has patients."""

Rows = npt.NDArray[np.int64]


def split_rows(index: pd.DataFrame, split: SplitSpec, *, elsewhere: bool = False) -> dict[str, Rows]:
    """Rows of each part.

    Who is `later` is taken out before all else. Then what the spec says (`folds`, `temporal`) comes first, and after it
    a `split` column of the population; parts that they leave empty are drawn from the patients they leave in training.

    Args:
        index: one row per record with `patient_id`; optionally `line` (its place in the table, by which patients are
            counted), `split` with train / val / test, label columns, folds, dates.
        elsewhere: the population is only read out, not trained on: it may lack the columns that the spec names, and has
            no later part if it lacks the dates.

    Raises:
        DataError: a part is empty, a patient is in two, or a column is missing or can't be understood.
    """
    patient, n_patients, first = _patients(index, np.arange(len(index)))
    if split.temporal is not None and (split.temporal in index or not elsewhere):
        part = _by_time(index, patient, n_patients, split.temporal, split.test, "temporal")
    elif split.folds is not None and (split.folds.column in index or not elsewhere):
        part = _by_fold(index, split.folds)
    elif "split" in index:
        part = _by_split_column(index)
    else:
        part = np.zeros(len(index), np.int8)
    names: tuple[str, ...] = PARTS
    if split.later is not None and (split.later.column in index or not elsewhere):
        names = (*PARTS, LATER)
        time = _by_time(index, patient, n_patients, split.later.column, split.later.share, "later")
        part = np.where(time == PARTS.index(TRAIN), part, np.where(time == _LEFT_OUT, _LEFT_OUT, names.index(LATER)))
    given = _part_of_patient(index, part, patient, n_patients)
    free = np.flatnonzero(given == PARTS.index(TRAIN))
    position = _positions(_strata(index, first[free], split, elsewhere=elsewhere), split.seed, "split")
    drawn = given.copy()
    for name, chosen in ((TEST, position < split.test), (VALIDATION, position >= 1 - split.validation)):
        if not (given == PARTS.index(name)).any():
            drawn[free[chosen]] = PARTS.index(name)
    part = np.where(part == _LEFT_OUT, _LEFT_OUT, drawn[patient])
    rows = {name: np.flatnonzero(part == number) for number, name in enumerate(names)}
    for name, members in rows.items():
        if not len(members):
            raise DataError(_too_few(name, index, n_patients, int((part == _LEFT_OUT).sum()), split))
    return rows


def fraction_rows(index: pd.DataFrame, train_rows: Rows, fraction: float, split: SplitSpec) -> Rows:
    """The training rows of the patients whose position among the training patients lies below `fraction`.

    Raises:
        DataError: the fraction holds no record.
    """
    patient, _, first = _patients(index, train_rows)
    position = _positions(_strata(index, first, split, elsewhere=False), split.seed, "fraction")
    rows = train_rows[(position < fraction)[patient]]
    if not len(rows):
        raise DataError(f"data fraction {fraction:.4g} of {len(train_rows)} training records holds none")
    return rows


# --- patients and their positions ----------------------------------------------------------------------------------


def _patients(index: pd.DataFrame, rows: Rows) -> tuple[Rows, int, Rows]:
    """Of some rows: each one's patient as a number, how many patients there are, and the row of each one's first exam.

    Patients are numbered in the order in which the table first names them.
    """
    order = _table_order(index, rows)
    number, _ = pd.factorize(index["patient_id"], use_na_sentinel=False)  # of the column itself: fast for text, too
    ordered, unique = pd.factorize(number[rows[order]])
    patient = np.empty(len(rows), np.int64)
    patient[order] = ordered
    first_places = np.flatnonzero(np.diff(np.maximum.accumulate(ordered), prepend=-1))  # where the numbers rise
    return patient, len(unique), rows[order[first_places]]


def _table_order(index: pd.DataFrame, rows: Rows) -> Rows:
    """Places in `rows`, sorted by line in the table: a store may hold records in another order."""
    if "line" not in index:
        return np.arange(len(rows))
    line = index["line"].to_numpy()[rows]
    return np.arange(len(line)) if (np.diff(line) > 0).all() else np.argsort(line, kind="stable")


def _strata(index: pd.DataFrame, first_exams: Rows, split: SplitSpec, *, elsewhere: bool) -> dict[str, Rows]:
    """Stratum → its patients, as places in `first_exams` (one row per patient, in order of appearance).

    A stratum is the first two positive labels. Two rather than all keeps strata few and large; two rather than one
    keeps the second label's share: of 300,000 simulated records with CODE-15 %'s prevalences, the positives of a label
    in 1/8 miss their share by 1.8 records (root mean square), by 6.2 with the first label alone, by 25 when hashed.
    """
    missing = [name for name in split.stratify_on if name not in index]
    if missing and not elsewhere and split.stratify_on != CODE_LABELS:
        raise DataError(f"data.split.stratify_on: exams.csv has no column {', '.join(map(repr, missing))}")
    labels = [name for name in split.stratify_on if name in index]
    none = len(labels)
    one, two = np.full(len(first_exams), none), np.full(len(first_exams), none)
    for number, label in enumerate(labels):
        positive = _positive(index[label])[first_exams]
        two[positive & (one < none) & (two == none)] = number
        one[positive & (one == none)] = number
    key = one * (none + 1) + two
    order = np.argsort(key, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
    names = [*labels, None]
    return {repr((names[one[m[0]]], names[two[m[0]]])): m for m in members if len(m)}


def _positive(column: pd.Series) -> npt.NDArray[np.bool_]:
    try:
        return np.asarray(column.astype("Float64").to_numpy(dtype=np.float64, na_value=0.0) > 0)
    except (ValueError, TypeError):
        raise DataError(f"data.split.stratify_on: column {column.name!r} holds words, labels are 0/1") from None


def _positions(strata: dict[str, Rows], seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per patient: the k-th of a stratum gets the k-th place of the stratum's own sequence."""
    position = np.zeros(sum(len(members) for members in strata.values()))
    for stratum, members in strata.items():
        digest = hashlib.blake2b(f"{purpose}:{seed}:{stratum}".encode(), digest_size=4).digest()
        position[members] = balanced_positions(len(members), int.from_bytes(digest, "big"))
    return position


def balanced_positions(n: int, seed: int) -> npt.NDArray[np.float64]:
    """Places in [0, 1) for patients 0 … n - 1: random, and as even as can be after every one of them.

    [0, 1) is halved again and again. Of every two patients who arrive in an interval in a row, one goes to its left
    half and one to its right, a coin of their own saying which: permuted blocks of two, as in randomised trials, at
    every level. Hence [i, i + 1) / 2^m holds n / 2^m patients to within one, whatever n, and the first n places do not
    depend on who comes after. With one coin per interval this would be an Owen-scrambled van der Corput sequence (Owen
    1995), whose eighth is every eighth patient: that repeats any period of the table and leaves eight choices.

    Args:
        seed: 32 bits, well mixed.
    """
    word = np.arange(n, dtype=np.uint32)
    for level in range(_LEVELS):
        # below bit `level`: the halves chosen so far, that is, the interval; above it: which pair in that interval
        pair = word & np.uint32(~(1 << level) & 0xFFFFFFFF)
        coin = _hash(pair ^ np.uint32(seed), level) & np.uint32(1)
        word ^= coin << np.uint32(level)
    return (_reversed_bits(word) >> np.uint32(32 - _LEVELS)) / 2.0**_LEVELS


def _hash(x: npt.NDArray[np.uint32], level: int) -> npt.NDArray[np.uint32]:
    """The finaliser of MurmurHash3 (Appleby), of a number and a level."""
    x = x + np.uint32(level * 0x9E3779B9 & 0xFFFFFFFF)  # 2^32 / golden ratio
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _reversed_bits(x: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F)):
        x = ((x >> np.uint32(shift)) & np.uint32(mask)) | ((x & np.uint32(mask)) << np.uint32(shift))
    return x.byteswap()


# --- parts that are given ------------------------------------------------------------------------------------------


def _by_split_column(index: pd.DataFrame) -> npt.NDArray[np.int8]:
    words = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
    codes, unique = pd.factorize(index["split"].to_numpy(), use_na_sentinel=False)
    strange = [number for number, word in enumerate(unique) if word not in words]
    if strange:
        n = int(np.isin(codes, strange).sum())
        raise DataError(f"column split has {unique[strange[0]]!r} in {n} records; allowed: train, val, test")
    return np.array([PARTS.index(words[word]) for word in unique], np.int8)[codes]


def _by_fold(index: pd.DataFrame, folds: FoldSpec) -> npt.NDArray[np.int8]:
    """Every fold that is not named is for training."""
    where = f"data.split.folds: column {folds.column!r}"
    if folds.column not in index:
        raise DataError(f"{where} is not in exams.csv, which has {', '.join(map(str, index))}")
    codes, unique = pd.factorize(index[folds.column].to_numpy())
    if (codes < 0).any():
        raise DataError(f"{where} is empty for {_named(index, codes < 0)}")
    names = [_fold_name(value) for value in unique]
    part_of = np.zeros(len(unique), np.int8)
    for part, values in ((VALIDATION, folds.validation), (TEST, folds.test)):
        for value in map(_fold_name, values):
            if value not in names:
                raise DataError(f"{where} has no fold {value}; it has {', '.join(sorted(names))}")
            part_of[names.index(value)] = PARTS.index(part)
    return part_of[codes]


def _fold_name(value: object) -> str:
    """`9`, `9.0` and `"9"` are one fold: a csv column with an empty cell turns whole numbers into floats."""
    text = str(value).strip()
    return text.removesuffix(".0")


def _by_time(
    index: pd.DataFrame, patient: Rows, n_patients: int, column: str, share: float, rule: str
) -> npt.NDArray[np.int8]:
    """Test: the patients first seen from a date on, and every exam of theirs. Training: the others, before that date.

    The date is the latest one that leaves at least this share of the patients; later exams of training patients are in
    no part. So no test patient and no exam of the test's time is ever trained on.

    Args:
        rule: the field of the split that asks for it.
    """
    time = _times(index, column, rule)
    first_seen = np.full(n_patients, np.iinfo(np.int64).max)
    np.minimum.at(first_seen, patient, time)
    n_test = max(1, round(share * n_patients))
    begins = np.partition(first_seen, n_patients - n_test)[n_patients - n_test]
    part = np.where(time < begins, PARTS.index(TRAIN), _LEFT_OUT)
    return np.where(first_seen[patient] >= begins, PARTS.index(TEST), part).astype(np.int8)


def _times(index: pd.DataFrame, column: str, rule: str) -> Rows:
    """Nanoseconds since 1970 per row."""
    where = f"data.split.{rule}: column {column!r}"
    if column not in index:
        raise DataError(f"{where} is not in exams.csv, which has {', '.join(map(str, index))}")
    codes, unique = pd.factorize(index[column])
    if pd.api.types.is_numeric_dtype(unique.dtype):
        unique = unique.astype(str)  # 2015 is a year, not 2015 ns after 1970
    parsed = pd.to_datetime(unique, format="ISO8601", utc=True, errors="coerce")
    bad = (codes < 0) | parsed.isna()[codes] if len(parsed) else np.ones(len(codes), bool)
    if bad.any():
        value = index[column].to_numpy()[bad][0]
        raise DataError(
            f"{where} has {value!r} for {_named(index, bad)}; dates are written 2015-03-01 or 2015-03-01 12:30"
        )
    nanoseconds: Rows = parsed.as_unit("ns").asi8
    return nanoseconds[codes]


def _part_of_patient(index: pd.DataFrame, part: npt.NDArray[np.int8], patient: Rows, n_patients: int) -> Rows:
    """Per patient its part; a patient whose every exam is left out has none.

    Raises:
        DataError: a patient has exams in two parts.
    """
    inside = part != _LEFT_OUT
    given = np.full(n_patients, _LEFT_OUT, np.int64)
    given[patient[inside]] = part[inside]
    torn = inside & (given[patient] != part)
    if torn.any():
        some = index["patient_id"].to_numpy()[torn]
        raise DataError(
            f"{len(np.unique(patient[torn]))} patients are in more than one part, the first is patient_id {some[0]}; "
            "correct its split or fold, or take that column away and parts are drawn by patient"
        )
    return given


def _named(index: pd.DataFrame, mask: Iterable[bool]) -> str:
    """Up to five exams by name for an error message."""
    rows = np.flatnonzero(np.asarray(mask))
    names = index["exam_id"].to_numpy()[rows[:5]] if "exam_id" in index else rows[:5]
    what = "exam_id" if "exam_id" in index else "row"
    return f"{what} {', '.join(map(str, names))}" + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def _too_few(part: str, index: pd.DataFrame, n_patients: int, n_left_out: int, split: SplitSpec) -> str:
    message = f"no {part} records: {len(index)} records of {n_patients} patients are too few"
    if n_left_out:
        column = split.later.column if split.later is not None else split.temporal
        message += f"; {n_left_out} exams of training patients in the test's time ({column}) are left out"
    return message
