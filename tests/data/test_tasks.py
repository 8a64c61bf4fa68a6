"""Columns of exams.csv become targets, and what can't be one is refused by name."""

import numpy as np
import pandas as pd
import pytest

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.sources import vocabulary
from ecgscale.data.tasks import task_target
from ecgscale.errors import DataError
from ecgscale.ready_made_tasks import READY_MADE
from ecgscale.specs import TaskSpec

AF = TaskSpec(name="AF", column="AF")
AGE = TaskSpec(name="age", column="age", kind="regression")
RHYTHM = TaskSpec(name="rhythm", column="rhythm", kind="multiclass", classes=("SR", "AFIB", "PACE"))


def target(task: TaskSpec, **columns) -> np.ndarray:
    return task_target(pd.DataFrame(columns), task, "B")


def same(found: np.ndarray, expected: list) -> bool:
    return np.array_equal(found, np.array(expected, dtype=float), equal_nan=True)


# --- what a column means -------------------------------------------------------------------------------------------

BOOLEANS = [
    [True, False, True],
    [1, 0, 1],
    [1.0, 0.0, 1.0],
    ["True", "False", "true"],
    [" 1", "0", "1.0"],
    pd.array([True, False, True], dtype="boolean"),
    pd.array(["1", "0", "1"], dtype="string"),
]


@pytest.mark.parametrize("values", BOOLEANS, ids=map(repr, BOOLEANS))
def test_a_class_may_be_written_in_any_way_a_csv_has(values):
    assert same(target(AF, AF=values), [1, 0, 1])


@pytest.mark.parametrize("values", [[True, None, False], [1, np.nan, 0], ["True", None, "False"], ["1", "", "0"]])
def test_an_empty_cell_is_missing(values):
    if "" in values:
        with pytest.raises(DataError, match="holds words such as ''"):
            target(AF, AF=values)
    else:
        assert same(target(AF, AF=values), [1, np.nan, 0])
    listed = AF.model_copy(update={"missing_values": ("",)})
    assert same(target(listed, AF=values), [1, np.nan, 0])


def test_missing_may_count_as_negative():
    task = AF.model_copy(update={"missing": "negative", "missing_values": (9,)})
    assert same(target(task, AF=[1, None, 0, 9]), [1, 0, 0, 0])
    high = TaskSpec(name="high", column="potassium", above=5.0, missing="negative")
    assert same(target(high, potassium=[6.0, None, 5.0]), [1, 0, 0])


def test_values_that_stand_for_none_are_missing():
    task = AGE.model_copy(update={"missing_values": (-1, 300)})
    assert same(target(task, age=[-1, 300, 64.5, None]), [np.nan, np.nan, 64.5, np.nan])
    words = AGE.model_copy(update={"missing_values": (">89", "unknown")})
    assert same(target(words, age=["64.5", ">89", "unknown"]), [64.5, np.nan, np.nan])


def test_a_threshold_makes_classes_and_is_itself_not_above():
    over = TaskSpec(name="over_65", column="age", above=65)
    assert same(target(over, age=[64.9, 65, 65.1, None]), [0, 0, 1, np.nan])


def test_several_labels_are_one_table_with_their_own_gaps():
    task = TaskSpec(name="two", kind="multilabel", columns=("MI", "HYP"))
    assert same(target(task, HYP=[1, None], MI=[False, True]), [[0, 1], [1, np.nan]])


@pytest.mark.parametrize("values", [["SR", "PACE", None, " AFIB"], pd.array(["SR", "PACE", None, "AFIB"], "category")])
def test_words_become_the_place_of_their_class(values):
    assert same(target(RHYTHM, rhythm=values), [0, 2, np.nan, 1])


@pytest.mark.parametrize("values", [[7, 3, None], [7.0, 3.0, np.nan], ["7", "3", None]])
def test_whole_numbers_become_the_place_of_their_class(values):
    task = TaskSpec(name="grade", kind="multiclass", column="grade", classes=(3, 5, 7))
    assert same(target(task, grade=values), [2, 0, np.nan])


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", [AF, TaskSpec(name="AF", kind="multilabel", columns=("SB", "AF")), RHYTHM.model_copy(update={"name": "AF"})]
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(task):
    name = "rhythm" if task.kind == "multiclass" else "AF"
    with pytest.raises(DataError, match=rf"'B': task 'AF' wants column '{name}'; exams\.csv has none, it has SB, age"):
        target(task, SB=[1, 0], age=[60, 70])


@pytest.mark.parametrize("values", [[0, 1, 2], [0.5, 1, 0], [-1, 1, 1]])
def test_a_column_that_is_no_class_is_named_with_task_population_and_way_out(values):
    with pytest.raises(DataError, match=r"population 'B': column 'AF' is not 0/1; give task 'AF' an `above`"):
        target(AF, AF=values)


@pytest.mark.parametrize("task", [AGE, TaskSpec(name="age", column="age", above=65)])
@pytest.mark.parametrize("values", [["60", "old", "young"], [60, "old", None], [60, np.inf, 70]])
def test_a_column_of_words_is_named_with_task_population_and_one_of_them(task, values):
    with pytest.raises(DataError, match=r"population 'B': column 'age' holds words such as ('old'|.*inf.*) .*'age'"):
        target(task, age=values)


def test_a_value_that_is_no_class_is_named_with_the_classes():
    with pytest.raises(
        DataError, match=r"'rhythm' has 'AFLT' in 2 exams, .* \(SR, AFIB, PACE\); add it to its classes"
    ):
        target(RHYTHM, rhythm=["SR", "AFLT", "AFLT", None])
    task = RHYTHM.model_copy(update={"missing_values": ("AFLT",)})
    assert same(target(task, rhythm=["SR", "AFLT"]), [0, np.nan])


# --- ready-made ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READY_MADE)
def test_a_ready_made_task_reads_its_columns(name):
    task = TaskSpec.model_validate(READY_MADE[name] | {"name": name})
    columns = task.columns or (task.column,)
    found = target(task, **{column: [1, 0] for column in columns})
    assert found.shape == ((2, len(columns)) if task.kind == "multilabel" else (2,))


def test_the_ready_made_tasks_are_those_of_their_sources():
    assert READY_MADE["code6"]["columns"] == CODE_LABELS
    assert [len(READY_MADE[f"ptbxl-{name}"]["columns"]) for name in ("superdiagnostic", "rhythm")] == [5, 12]
    assert READY_MADE["cpsc9"]["columns"] == vocabulary.CPSC_CLASSES  # what the importer writes
    age = TaskSpec.model_validate(READY_MADE["age"] | {"name": "age"})
    assert same(target(age, age=[300, -1, 89.5]), [np.nan, np.nan, 89.5])
    for name, unit in {"potassium": "mmol/l", "creatinine": "µmol/l", "age": "years"}.items():
        assert READY_MADE[name]["unit"] == unit
