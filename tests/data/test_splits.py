"""Splits: by patient, the right share of every label, nested, and the same tomorrow with more records."""

import datetime
import itertools
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.compact_table import compact
from ecgscale.data.splits import TEST, TRAIN, VALIDATION, balanced_positions, fraction_rows, split_rows
from ecgscale.errors import DataError
from ecgscale.specs import FoldSpec, LaterSpec, SplitSpec

SPLIT = SplitSpec(seed=0, validation=0.1, test=0.2)
FRACTIONS = (1 / 64, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)

PREVALENCE = dict(zip(CODE_LABELS, (0.0165, 0.028, 0.0174, 0.0162, 0.0203, 0.0219), strict=True))
"""Shares of CODE-15 %."""


def make_index(n_patients: int = 1000, seed: int = 0) -> pd.DataFrame:
    """One to four exams per patient, shuffled, with the six labels."""
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients)))
    labels = {name: rng.random(len(patients)) < 5 * share for name, share in PREVALENCE.items()}
    return pd.DataFrame({"exam_id": np.arange(len(patients)) + 1, "patient_id": patients, **labels})


def patients_of(index: pd.DataFrame, rows: np.ndarray) -> set[int]:
    return set(index["patient_id"].iloc[rows])


def test_every_record_is_in_one_part_and_every_patient_too():
    index = make_index()
    parts = split_rows(index, SPLIT)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(index)))
    for one, other in itertools.combinations(parts.values(), 2):
        assert not patients_of(index, one) & patients_of(index, other)


def test_the_same_call_gives_the_same_rows_and_another_seed_others():
    index = make_index()
    first, again = split_rows(index, SPLIT), split_rows(index.copy(), SPLIT)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other = split_rows(index, SPLIT.model_copy(update={"seed": 1}))
    both = len(patients_of(index, first[TEST]) & patients_of(index, other[TEST]))
    assert both / len(patients_of(index, first[TEST])) == pytest.approx(0.2, abs=0.1)  # as by chance


def test_patient_ids_may_be_words():
    index = make_index()
    named = index.assign(patient_id="p" + index["patient_id"].astype(str))
    for one, other in zip(split_rows(index, SPLIT).values(), split_rows(named, SPLIT).values(), strict=True):
        assert np.array_equal(one, other)


def test_a_table_may_be_kept_compact():
    """As the packed store keeps it: words as categories, numbers in 32 bits."""
    index = official(dated().assign(patient_id=lambda table: "p" + table["patient_id"].astype(str)), range(1, 11))
    index = index.rename(columns={"split": "strat_fold"}).assign(line=np.arange(len(index)))
    for split in (SPLIT, LATER, FOLDS, FOLDS.model_copy(update={"folds": FoldSpec(column="strat_fold", test=(3,))})):
        plain, small = split_rows(index, split), split_rows(compact(index), split)
        assert all(np.array_equal(plain[name], small[name]) for name in plain)
    words = official(index, ("train", "val", "test"))
    assert {len(rows) for rows in split_rows(compact(words), SPLIT).values()} == set(words["split"].value_counts())


# --- shares --------------------------------------------------------------------------------------------------------


def one_exam_each(n: int, seed: int = 0, **counts: int) -> pd.DataFrame:
    """`counts[label]` positives at random places, one exam per patient."""
    rng = np.random.default_rng(seed)
    index = pd.DataFrame({"patient_id": rng.permutation(n)})
    for name, count in counts.items():
        index[name] = np.isin(np.arange(n), rng.choice(n, count, replace=False))
    return index


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_label_has_its_share_in_every_part_and_fraction(seed):
    """By hashing, the 7.5 positives of 1/8 would be anything from 2 to 13."""
    index = one_exam_each(5000, seed, AF=60)
    split = SplitSpec(seed=seed, validation=0.125, test=0.125)
    parts = split_rows(index, split)
    assert index["AF"].iloc[parts[TEST]].sum() in (7, 8)
    assert index["AF"].iloc[parts[VALIDATION]].sum() in (7, 8)
    everybody = np.arange(len(index))
    assert index["AF"].iloc[fraction_rows(index, everybody, 1 / 8, split)].sum() in (7, 8)
    for m in range(1, 6):
        found = index["AF"].iloc[fraction_rows(index, everybody, 2**-m, split)].sum()
        assert abs(found - 60 * 2**-m) < 1


@pytest.mark.parametrize("n", [2000, 40_000])
def test_six_labels_have_their_shares_and_every_part_its_size(n):
    """A couple of records, whatever n: hashing is off by the square root of the count."""
    index = one_exam_each(n, **{name: round(n * share) for name, share in PREVALENCE.items()})
    parts = split_rows(index, SPLIT)
    share = {TEST: 0.2, VALIDATION: 0.1, TRAIN: 0.7}
    for name, rows in parts.items():
        assert len(rows) == pytest.approx(share[name] * n, abs=8)
        for label in CODE_LABELS:
            assert index[label].iloc[rows].sum() == pytest.approx(share[name] * index[label].sum(), abs=6)
    train = parts[TRAIN]
    for fraction in FRACTIONS:
        rows = fraction_rows(index, train, fraction, SPLIT)
        assert len(rows) == pytest.approx(fraction * len(train), abs=8)
        for label in CODE_LABELS:
            assert index[label].iloc[rows].sum() == pytest.approx(fraction * index[label].iloc[train].sum(), abs=5)


def test_other_columns_can_be_stratified_on():
    index = one_exam_each(4000, LVH=64, AF=64)
    split = SplitSpec(stratify_on=("LVH",))
    assert index["LVH"].iloc[fraction_rows(index, np.arange(4000), 1 / 8, split)].sum() == 8
    with pytest.raises(DataError, match=r"stratify_on: exams\.csv has no column 'MI'"):
        split_rows(index, SplitSpec(stratify_on=("LVH", "MI")))
    assert split_rows(index, SplitSpec(stratify_on=("LVH", "MI")), elsewhere=True)
    with pytest.raises(DataError, match=r"stratify_on: column 'LVH' holds words"):
        split_rows(index.assign(LVH="yes"), split)


def test_a_label_may_be_empty_or_not_there():
    index = make_index()
    gaps = index.assign(AF=index["AF"].astype("boolean").mask(index["exam_id"] % 3 == 0))
    assert sum(map(len, split_rows(gaps, SPLIT).values())) == len(index)
    bare = index[["patient_id"]]
    assert len(split_rows(bare, SPLIT)[TEST]) / len(index) == pytest.approx(0.2, abs=0.03)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(0, 6))
def test_the_sequence_fills_every_dyadic_interval_alike_and_only_grows(seed, n, m):
    points = balanced_positions(n, seed)
    assert ((points >= 0) & (points < 1)).all() and len(set(points)) == n
    counts = np.bincount((points * 2**m).astype(int), minlength=2**m)
    assert set(counts) <= {n // 2**m, -(-n // 2**m)}
    assert np.array_equal(points, balanced_positions(n + 50, seed)[:n])


def test_a_place_is_uniform_over_seeds_and_a_pair_goes_either_way():
    seeds = np.random.default_rng(0).integers(0, 2**32, 4000)
    points = np.array([balanced_positions(12, int(seed)) for seed in seeds])
    for k in range(12):
        assert np.histogram(points[:, k], 16, (0, 1))[0] == pytest.approx(250, abs=70)
    lower = points < 0.5
    assert (lower[:, ::2] != lower[:, 1::2]).all()
    together = np.corrcoef(lower[:, ::2].T)  # pairs do not know of each other
    assert np.abs(together - np.eye(6)).max() < 0.06


@pytest.mark.parametrize("share", [1 / 2, 1 / 8, 0.15])
def test_another_seed_chooses_others_as_by_chance(share):
    """A sequence with one coin per interval would choose the same patients or none of them."""
    n = 20_000
    chosen = [balanced_positions(n, seed) < share for seed in (1, 2, 3, 2**31)]
    for one, other in itertools.combinations(chosen, 2):
        assert (one & other).sum() / n == pytest.approx(share**2, abs=0.01)


def test_a_period_of_the_table_is_not_repeated():
    """Records that come from eight devices in turn are chosen from all eight alike."""
    chosen = np.flatnonzero(balanced_positions(16_000, 7) < 1 / 8)
    assert np.bincount(chosen % 8, minlength=8) == pytest.approx(250, abs=60)


# --- tomorrow ------------------------------------------------------------------------------------------------------


def appended(index: pd.DataFrame, n_patients: int, seed: int) -> pd.DataFrame:
    """More exams after the old ones, of known patients and of new ones."""
    more = make_index(n_patients, seed)
    return pd.concat([index, more.assign(exam_id=more["exam_id"] + index["exam_id"].max())], ignore_index=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 400), st.integers(1, 800), st.integers(0, 5))
def test_nobody_moves_when_records_are_appended(n_before, n_after, seed):
    index = make_index(n_before, seed)
    more = appended(index, n_after, seed + 1)
    try:
        before = split_rows(index, SPLIT)
    except DataError:
        return  # too few patients for three parts
    after = split_rows(more, SPLIT)
    for name in before:
        assert set(before[name]) <= set(after[name])
        assert patients_of(index, before[name]) <= patients_of(more, after[name])
    for fraction in (1 / 8, 1 / 2, 1):
        try:
            few = fraction_rows(index, before[TRAIN], fraction, SPLIT)
        except DataError:
            continue
        assert set(few) <= set(fraction_rows(more, after[TRAIN], fraction, SPLIT))


def test_the_order_in_the_store_is_of_no_account_when_the_line_is_known():
    index = make_index().assign(line=lambda table: np.arange(len(table)))
    shuffled = index.sample(frac=1, random_state=0).reset_index(drop=True)
    before, after = split_rows(index, SPLIT), split_rows(shuffled, SPLIT)
    for name in before:
        assert set(index["exam_id"].iloc[before[name]]) == set(shuffled["exam_id"].iloc[after[name]])
    few, many = (
        set(table["exam_id"].iloc[fraction_rows(table, parts[TRAIN], 1 / 8, SPLIT)])
        for table, parts in ((index, before), (shuffled, after))
    )
    assert few == many


def test_two_million_records_take_seconds_and_little_memory():
    rng = np.random.default_rng(0)
    n = 2_300_000
    index = pd.DataFrame({"patient_id": rng.integers(0, 1_600_000, n)})
    index = index.assign(**{name: rng.random(n) < share for name, share in PREVALENCE.items()})
    started = time.process_time()
    train = split_rows(index, SPLIT)[TRAIN]
    rows = fraction_rows(index, train, 1 / 8, SPLIT)
    assert time.process_time() - started < 8  # 1.4 s on the machine it was written on
    assert len(rows) / len(train) == pytest.approx(1 / 8, rel=1e-2)  # of records: patients are exact


# --- fractions -----------------------------------------------------------------------------------------------------


def test_fractions_are_nested_by_patient_and_as_large_as_asked():
    index = make_index(4000)
    train = split_rows(index, SPLIT)[TRAIN]
    rows = {f: fraction_rows(index, train, f, SPLIT) for f in FRACTIONS}
    for smaller, larger in itertools.pairwise(rows):
        assert set(rows[smaller]) < set(rows[larger])
    assert np.array_equal(rows[1], train)
    for fraction, chosen in rows.items():
        n_patients = len(patients_of(index, chosen))
        assert n_patients == pytest.approx(fraction * len(patients_of(index, train)), abs=10)
        assert not patients_of(index, chosen) & patients_of(index, np.setdiff1d(train, chosen))


def test_a_fraction_is_drawn_apart_from_the_split():
    """Else 1/8 would be the patients who nearly were in the test part: with another test share they would be."""
    index = make_index(4000)
    chosen = fraction_rows(index, split_rows(index, SPLIT)[TRAIN], 0.25, SPLIT)
    wider = split_rows(index, SPLIT.model_copy(update={"test": 0.4}))[TEST]
    share = len(patients_of(index, chosen) & patients_of(index, wider)) / len(patients_of(index, chosen))
    assert share == pytest.approx(0.2 / 0.7, abs=0.05)


def test_a_fraction_that_holds_nobody_is_refused():
    index = make_index(20)
    train = split_rows(index, SplitSpec(validation=0.3, test=0.3))[TRAIN]
    with pytest.raises(DataError, match=r"data fraction 1e-06 of \d+ training records holds none"):
        fraction_rows(index, train, 1e-6, SPLIT)


# --- official splits -----------------------------------------------------------------------------------------------


def official(index: pd.DataFrame, names: Sequence[object], column: str = "split") -> pd.DataFrame:
    """A column that is the same in all exams of a patient."""
    return index.assign(**{column: [names[p % len(names)] for p in pd.factorize(index["patient_id"])[0]]})


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
    assert len(parts[VALIDATION]) / (index["split"] == "train").sum() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("names", [("train", "fold7"), ("Training", "test"), (1, 2, 3), ("train", None)])
def test_a_split_column_with_other_words_is_refused_and_not_half_used(names):
    with pytest.raises(DataError, match=r"column split .* train, val, test"):
        split_rows(official(make_index(100), names), SPLIT)


@pytest.mark.parametrize("index", [make_index(1), make_index(2), official(make_index(50), ("test",))])
def test_too_few_patients_for_every_part_is_refused(index):
    with pytest.raises(DataError, match=r"no \w+ records: \d+ records of \d+ patients are too few"):
        split_rows(index, SPLIT)


def test_a_patient_in_two_official_parts_is_refused_by_name():
    index = official(make_index(), ("train", "val", "test"))
    row = int(np.flatnonzero(index["patient_id"].duplicated())[0])
    index.loc[row, "split"] = "test" if index["split"][row] == "train" else "train"
    with pytest.raises(
        DataError, match=rf"1 patients are in more than one part.*patient_id {index['patient_id'][row]}"
    ):
        split_rows(index, SPLIT)


FOLDS = SplitSpec(folds=FoldSpec(column="strat_fold", validation=(9,), test=(10,)))


@pytest.mark.parametrize("kind", [int, float, str])
def test_official_folds_are_honoured_however_they_are_written(kind):
    index = official(make_index(), tuple(kind(fold) for fold in range(1, 11)), "strat_fold")
    parts = split_rows(official(index, ("train", "test")), FOLDS)  # what the sweep says comes before a split column
    fold = index["strat_fold"].astype(float)
    assert set(fold.iloc[parts[VALIDATION]]) == {9} and set(fold.iloc[parts[TEST]]) == {10}
    assert len(parts[TRAIN]) == (fold < 9).sum()


def test_a_part_without_folds_is_drawn_from_the_training_folds():
    index = official(make_index(), tuple(range(1, 11)), "strat_fold")
    parts = split_rows(index, SplitSpec(folds=FoldSpec(column="strat_fold", test=(10,))))
    assert set(index["strat_fold"].iloc[parts[TEST]]) == {10}
    assert len(parts[VALIDATION]) / len(index) == pytest.approx(0.09, abs=0.02)


def test_folds_that_are_not_there_are_refused_and_named():
    index = make_index()
    with pytest.raises(DataError, match=r"folds: column 'strat_fold' is not in exams\.csv, which has exam_id"):
        split_rows(index, FOLDS)
    assert split_rows(index, FOLDS, elsewhere=True)  # a population that is only read out has folds of its own or none
    with pytest.raises(DataError, match=r"column 'strat_fold' has no fold 9; it has 1, 10, 2"):
        split_rows(official(index, (1, 2, 10), "strat_fold"), FOLDS)
    holed = official(index, (1.0, 9.0, 10.0), "strat_fold")
    holed.loc[3, "strat_fold"] = np.nan
    with pytest.raises(DataError, match=r"column 'strat_fold' is empty for exam_id 4$"):
        split_rows(holed, FOLDS)


# --- split in time -------------------------------------------------------------------------------------------------

LATER = SplitSpec(temporal="exam_date", validation=0.1, test=0.2)


def dated(n_patients: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Patients arrive over ten years; their exams follow within two."""
    index = make_index(n_patients, seed)
    rng = np.random.default_rng(seed)
    arrival = rng.integers(0, 3650, n_patients)[index["patient_id"]]
    day = pd.Timestamp("2007-01-01") + pd.to_timedelta(arrival + rng.integers(0, 730, len(index)), unit="D")
    return index.assign(exam_date=day.strftime("%Y-%m-%d"))


def test_the_test_patients_are_those_seen_first_in_the_latest_time():
    index = dated()
    parts = split_rows(index, LATER)
    day = index["exam_date"]
    begins = day.iloc[parts[TEST]].min()
    first_seen = day.groupby(index["patient_id"]).min()
    assert patients_of(index, parts[TEST]) == set(first_seen[first_seen >= begins].index)
    assert len(patients_of(index, parts[TEST])) == pytest.approx(200, abs=2)
    assert set(parts[TEST]) == set(np.flatnonzero(index["patient_id"].isin(patients_of(index, parts[TEST]))))


def test_nothing_of_the_tests_time_and_no_test_patient_is_trained_on():
    index = dated()
    parts = split_rows(index, LATER)
    begins = index["exam_date"].iloc[parts[TEST]].min()
    for name in (TRAIN, VALIDATION):
        assert index["exam_date"].iloc[parts[name]].max() < begins
        assert not patients_of(index, parts[name]) & patients_of(index, parts[TEST])
    assert not patients_of(index, parts[TRAIN]) & patients_of(index, parts[VALIDATION])
    left_out = np.setdiff1d(np.arange(len(index)), np.concatenate(list(parts.values())))
    assert 0 < len(left_out) and (index["exam_date"].iloc[left_out] >= begins).all()
    assert len(patients_of(index, parts[VALIDATION])) / 800 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    "write",
    [
        pd.to_datetime,
        lambda days: days + "T09:30:00",
        lambda days: days + " 09:30:00.25",
        lambda days: days.str.replace("-", "").astype(int),
        lambda days: pd.to_datetime(days).dt.tz_localize("Europe/Stockholm"),
        lambda days: [datetime.date.fromisoformat(day) for day in days],
    ],
)
def test_dates_may_be_written_in_any_iso_form(write):
    index = dated()
    expected = split_rows(index, LATER)
    found = split_rows(index.assign(exam_date=write(index["exam_date"])), LATER)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("value", ["31/12/2010", "", None, "yesterday", "2010-13-01"])
def test_a_date_that_can_not_be_read_is_refused_with_its_exam(value):
    index = dated(100)
    index.loc[6, "exam_date"] = value
    with pytest.raises(DataError, match=r"temporal: column 'exam_date' has .* for exam_id 7; dates are written 2015"):
        split_rows(index, LATER)


def test_a_column_of_dates_that_is_not_there_is_refused_where_the_model_is_trained():
    with pytest.raises(DataError, match=r"temporal: column 'exam_date' is not in exams\.csv"):
        split_rows(make_index(), LATER)
    assert split_rows(make_index(), LATER, elsewhere=True)


def test_when_time_leaves_nobody_to_train_on_it_says_what_was_left_out():
    index = dated(200).assign(exam_date="2010-01-01")
    with pytest.raises(DataError, match=r"no train records: .* are too few"):
        split_rows(index, LATER)
    index = pd.DataFrame({"patient_id": [1, 1, 1, 2, 3], "exam_date": ["2010", "2012", "2013", "2011", "2012"]})
    with pytest.raises(
        DataError, match=r"no validation records.*; 2 exams of training patients .*exam_date.* left out"
    ):
        split_rows(index, LATER)


# --- a later part beside the others --------------------------------------------------------------------------------

BESIDE = SplitSpec(validation=0.1, test=0.2, later=LaterSpec(column="exam_date", share=0.15))


def test_the_later_part_is_a_test_in_time_beside_the_random_one():
    index = dated()
    parts = split_rows(index, BESIDE)
    assert list(parts) == [TRAIN, VALIDATION, TEST, "later"]
    in_time = split_rows(index, LATER.model_copy(update={"test": 0.15}))
    assert np.array_equal(parts["later"], in_time[TEST])
    others = np.concatenate([parts[name] for name in (TRAIN, VALIDATION, TEST)])
    assert sorted(others) == sorted(np.concatenate([in_time[TRAIN], in_time[VALIDATION]]))
    day = index["exam_date"]
    assert day.iloc[others].max() < day.iloc[parts["later"]].min()
    for one, other in itertools.combinations(parts.values(), 2):
        assert not patients_of(index, one) & patients_of(index, other)
    n_earlier = len(patients_of(index, others))
    assert len(patients_of(index, parts[TEST])) / n_earlier == pytest.approx(0.2, abs=0.02)
    middle = sorted(day.iloc[others])[len(others) // 2]
    assert (day.iloc[parts[TEST]] < middle).mean() == pytest.approx(0.5, abs=0.07)  # the random test is of all years


def test_official_folds_hold_for_those_who_are_not_later():
    index = official(dated(), tuple(range(1, 11)), "strat_fold")
    parts = split_rows(index, BESIDE.model_copy(update={"folds": FOLDS.folds}))
    assert set(index["strat_fold"].iloc[parts[TEST]]) == {10} and set(index["strat_fold"].iloc[parts["later"]]) > {10}
    for one, other in itertools.combinations(parts.values(), 2):
        assert not patients_of(index, one) & patients_of(index, other)


def test_a_population_that_is_only_read_out_may_have_no_dates():
    index = make_index()
    with pytest.raises(DataError, match=r"later: column 'exam_date' is not in exams\.csv"):
        split_rows(index, BESIDE)
    assert list(split_rows(index, BESIDE, elsewhere=True)) == [TRAIN, VALIDATION, TEST]
    with pytest.raises(DataError, match=r"no train records: .* are too few"):
        split_rows(dated(200).assign(exam_date="2010-01-01"), BESIDE)


def test_a_later_part_makes_another_trial_and_its_absence_the_same_as_ever():
    assert SPLIT.identity() != SPLIT.model_copy(update={"later": BESIDE.later}).identity()
    assert "later" not in SPLIT.model_dump(mode="json") and SplitSpec(**BESIDE.model_dump(mode="json")) == BESIDE
    with pytest.raises(ValidationError, match="temporal makes the test of the latest patients already"):
        SplitSpec(temporal="exam_date", later=BESIDE.later)
