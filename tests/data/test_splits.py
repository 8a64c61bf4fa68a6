"""Splits: by patient, nested, and the same tomorrow with more records."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ecgscale.data.splits import TEST, TRAIN, VALIDATION, fraction_rows, patient_position, split_rows
from ecgscale.errors import DataError
from ecgscale.specs import SplitSpec

SPLIT = SplitSpec(seed=0, validation=0.1, test=0.2)


def make_index(n_patients: int = 1000, seed: int = 0) -> pd.DataFrame:
    """One to four exams per patient, shuffled."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients))
    return pd.DataFrame({"patient_id": rng.permutation(patients)})


def patients_of(index: pd.DataFrame, rows: np.ndarray) -> set[int]:
    return set(index["patient_id"].iloc[rows])


def test_every_record_is_in_one_part_and_every_patient_too():
    index = make_index()
    parts = split_rows(index, SPLIT)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(index)))
    for one, other in itertools.combinations(parts.values(), 2):
        assert not patients_of(index, one) & patients_of(index, other)


def test_parts_are_about_as_large_as_asked():
    index = make_index(5000)
    share = {name: len(rows) / len(index) for name, rows in split_rows(index, SPLIT).items()}
    assert share[TEST] == pytest.approx(0.2, abs=0.02)
    assert share[VALIDATION] == pytest.approx(0.1, abs=0.02)
    assert share[TRAIN] == pytest.approx(0.7, abs=0.02)


def test_the_same_call_gives_the_same_rows_and_another_seed_others():
    index = make_index()
    first, again = split_rows(index, SPLIT), split_rows(index.copy(), SPLIT)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other = split_rows(index, SPLIT.model_copy(update={"seed": 1}))
    assert not np.array_equal(first[TEST], other[TEST])


def test_nobody_moves_when_records_are_appended_or_shuffled():
    index = make_index()
    more = pd.concat([index, make_index(1500, seed=1)], ignore_index=True).sample(frac=1, random_state=0)
    before, after = split_rows(index, SPLIT), split_rows(more.reset_index(drop=True), SPLIT)
    for name in before:
        assert patients_of(index, before[name]) <= patients_of(more, after[name])


def test_patients_are_told_apart_by_name_as_well_as_by_number():
    numbers = patient_position(pd.Series([7, 12, 7]), seed=0, purpose="split")
    names = patient_position(pd.Series(["7", "12", "7"]), seed=0, purpose="split")
    assert np.array_equal(numbers, names)
    assert numbers[0] == numbers[2] != numbers[1]
    assert ((numbers >= 0) & (numbers < 1)).all()


# --- fractions -----------------------------------------------------------------------------------------------------


def test_fractions_are_nested_by_patient_and_about_as_large_as_asked():
    index = make_index(4000)
    train = split_rows(index, SPLIT)[TRAIN]
    rows = {f: fraction_rows(index, train, f, seed=0) for f in (1 / 64, 1 / 8, 1 / 4, 1 / 2, 1)}
    for smaller, larger in itertools.pairwise(rows):
        assert set(rows[smaller]) < set(rows[larger])
    assert np.array_equal(rows[1], train)
    for fraction, chosen in rows.items():
        assert len(chosen) / len(train) == pytest.approx(fraction, rel=0.2)
        left_out = np.setdiff1d(train, chosen)
        assert not patients_of(index, chosen) & patients_of(index, left_out)


def test_a_fraction_keeps_its_patients_when_records_are_appended():
    index = make_index()
    more = pd.concat([index, make_index(1500, seed=1)], ignore_index=True)
    few, many = (
        patients_of(table, fraction_rows(table, split_rows(table, SPLIT)[TRAIN], 0.25, seed=0))
        for table in (index, more)
    )
    assert few <= many


def test_a_fraction_is_drawn_apart_from_the_split():
    """Else a small fraction would be the patients who nearly were in the test part."""
    index = make_index(4000)
    train = split_rows(index, SPLIT)[TRAIN]
    position = patient_position(index["patient_id"], 0, "split")
    chosen = fraction_rows(index, train, 0.25, seed=0)
    assert position[chosen].mean() == pytest.approx(position[train].mean(), abs=0.02)


def test_a_fraction_that_holds_nobody_is_refused():
    index = make_index(20)
    train = split_rows(index, SplitSpec(validation=0.3, test=0.3))[TRAIN]
    with pytest.raises(DataError, match=r"data fraction 1e-06 of \d+ training records holds none"):
        fraction_rows(index, train, 1e-6, seed=0)


# --- official splits -----------------------------------------------------------------------------------------------


def official(index: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    return index.assign(split=[names[p % len(names)] for p in index["patient_id"]])


@pytest.mark.parametrize("validation_name", ["val", "valid", "validation"])
def test_an_official_split_is_honoured(validation_name):
    index = official(make_index(), ("train", "train", validation_name, "test"))
    parts = split_rows(index, SPLIT)
    for name, written in ((TRAIN, "train"), (VALIDATION, validation_name), (TEST, "test")):
        assert set(index["split"].iloc[parts[name]]) == {written}
        assert len(parts[name]) == (index["split"] == written).sum()


def test_a_part_the_official_split_lacks_is_drawn_from_its_train_patients():
    index = official(make_index(), ("train", "train", "train", "test"))
    parts = split_rows(index, SPLIT)
    assert len(parts[TEST]) == (index["split"] == "test").sum()
    assert set(index["split"].iloc[parts[VALIDATION]]) == {"train"}
    assert not patients_of(index, parts[VALIDATION]) & patients_of(index, parts[TRAIN])
    assert len(parts[VALIDATION]) / (index["split"] == "train").sum() == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("names", [("train", "fold7"), ("Training", "test"), (1, 2, 3), ("train", None)])
def test_a_split_column_with_other_words_is_refused_and_not_half_used(names):
    with pytest.raises(DataError, match=r"column split .* train, val, test"):
        split_rows(official(make_index(100), names), SPLIT)


@pytest.mark.parametrize("index", [make_index(1), make_index(2), official(make_index(50), ("test",))])
def test_too_few_patients_for_every_part_is_refused(index):
    with pytest.raises(DataError, match=r"no \w+ records: \d+ records of \d+ patients are too few"):
        split_rows(index, SPLIT)
