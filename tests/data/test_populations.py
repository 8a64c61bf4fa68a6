"""What a plan learns of the data, and what is refused before anything starts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgscale.conventions import CODE_LABELS, CODE_N_SAMPLES
from ecgscale.data.code_format import CodeWriter
from ecgscale.data.populations import populations
from ecgscale.errors import DataError


def write(folder: Path, n_records: int = 40, **columns) -> None:
    ids = np.arange(1, n_records + 1)
    exams = pd.DataFrame({"exam_id": ids, "patient_id": ids, "age": 60.0, "is_male": True})
    exams = exams.assign(**dict.fromkeys(CODE_LABELS, False)).assign(**columns)
    signal = np.random.default_rng(0).normal(size=(n_records, CODE_N_SAMPLES, 12)).astype(np.float32)
    with CodeWriter(folder, overwrite=True) as writer:
        writer.append(exams.drop(columns=[name for name in columns if columns[name] is None]), signal)


def test_a_plan_learns_fingerprint_size_and_d(tiny_grid, data_dir):
    found = populations(tiny_grid, data_dir)
    assert set(found) == {"A", "B"}
    assert (found["A"].n_records, found["B"].n_records) == (300, 150)
    d = found["A"].n_train_records
    assert set(d) == {0.5, 1.0} and d[0.5] < d[1.0] < 300
    assert found["B"].n_train_records == {}
    assert found["A"].fingerprint != found["B"].fingerprint
    assert populations(tiny_grid, data_dir) == found


def test_progress_is_told_of_what_is_packed_and_only_then(tiny_grid, tmp_path):
    for name in ("A", "B"):
        write(tmp_path / name)
    done = {"A": 0, "B": 0}

    def start(name: str, total: int):
        assert total == 40

        def advance(n: int) -> None:
            done[name] += n

        return advance

    populations(tiny_grid, tmp_path, start_progress=start)
    assert done == {"A": 40, "B": 40}
    populations(tiny_grid, tmp_path, start_progress=start)
    assert done == {"A": 40, "B": 40}


def test_a_population_that_is_not_there_is_named_with_those_that_are(tiny_grid, tmp_path):
    with pytest.raises(DataError, match=r"A: no such folder; sweep tiny wants population 'A', .* holds none"):
        populations(tiny_grid, tmp_path / "nothing")
    write(tmp_path / "A")
    write(tmp_path / "C")
    with pytest.raises(DataError, match=r"B: no such folder; sweep tiny wants population 'B', .* holds A, C"):
        populations(tiny_grid, tmp_path)


def test_a_label_column_that_is_not_there_is_named(tiny_grid, grid_from, tmp_path):
    write(tmp_path / "A", AF=None)
    write(tmp_path / "B")
    with pytest.raises(DataError, match=r"population 'A': exams\.csv has no column 'AF', a label of sweep tiny"):
        populations(tiny_grid, tmp_path)
    # SSL asks for no labels, and other populations need those of the tasks only
    ssl = grid_from({"paradigm: [sl, ssl]": "paradigm: [ssl]"})
    assert set(populations(ssl, tmp_path)) == {"A", "B"}


def test_an_empty_label_is_not_a_negative_one(grid_from, tmp_path):
    """Columns that are no CODE label are passed through as they are."""
    write(tmp_path / "A", LVH=[True, None] * 20)
    write(tmp_path / "B")
    grid = grid_from({"train:\n": "labels: [LVH]\ntrain:\n", "rung: [20K]": "rung: [20K]\n  n_labels: [1]"})
    with pytest.raises(DataError, match=r"population 'A': label 'LVH' is empty in some exams"):
        populations(grid, tmp_path)


def test_a_task_column_that_is_not_there_is_named(grid_from, tmp_path):
    write(tmp_path / "A")
    write(tmp_path / "B", potassium=4.5)
    grid = grid_from({"column: SB": "column: sodium"})
    with pytest.raises(
        DataError, match=r"population 'B': task 'SB' wants column 'sodium'; exams\.csv has none, it has .*potassium"
    ):
        populations(grid, tmp_path)


def test_a_read_out_fitted_where_the_encoder_was_trained_needs_its_columns_there(grid_from, tmp_path):
    write(tmp_path / "A")
    write(tmp_path / "B", potassium=4.5)
    task = {"column: SB": "column: potassium, above: 5"}
    assert set(populations(grid_from(task), tmp_path)) == {"A", "B"}
    with pytest.raises(DataError, match=r"population 'A': task 'SB' wants column 'potassium'"):
        populations(grid_from(task | {"tasks:": "fit_on: source\n  tasks:"}), tmp_path)


def test_too_few_patients_to_split_are_refused(tiny_grid, tmp_path):
    write(tmp_path / "A", patient_id=1)
    write(tmp_path / "B")
    with pytest.raises(DataError, match="40 records of 1 patients are too few"):
        populations(tiny_grid, tmp_path)
