"""Five hundred damaged folders: each is refused by name, or comes out as if the damage had cost its own records only.

`ECGSCALE_FUZZ_CASES` sets another number. A case is named by its folder and its number; `python test_data_fuzz.py
FOLDER NUMBER` repeats it.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from code_folders import QUARTER, sine_mv, write_folder
from fuzz_worker import Worker
from source_folders import FOLDERS

from ecgscale.data.code_format import open_code
from ecgscale.data.importing import import_source
from ecgscale.data.measurement import Slopes, measure
from ecgscale.data.packing import packed
from ecgscale.errors import DataError

N_CASES = int(os.environ.get("ECGSCALE_FUZZ_CASES", "500"))
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("fuzz"), LIMIT_S)
    yield worker
    worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_damaged_folders_are_refused_or_imported_as_they_are(folder: str, worker: Worker) -> None:
    n = -(-N_CASES // len(FOLDERS))
    outcomes = [worker.run(folder, case) for case in range(n)]
    wrong = {case: outcome for case, outcome in enumerate(outcomes) if outcome.verdict == "wrong"}
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    print(f"\n{folder}: {dict(verdicts)}")
    assert not wrong, "\n".join(f"{folder} {case}: {x.mutation}: {x.wrong}" for case, x in wrong.items())
    assert verdicts["refused"] + verdicts["partly"] > n // 4, "the mutations damage too little to show anything"
    assert verdicts["same"] + verdicts["partly"] + verdicts["silent"] > n // 8, "nothing is ever imported"


# What it has found


@pytest.mark.parametrize(
    ("folder", "table"),
    [
        ("sami-trop", "exams.csv"),
        ("arrays-npy", "table.csv"),
        ("ptbxl", "ptbxl_database.csv"),
        ("cpsc", "REFERENCE.csv"),
    ],
)
def test_a_header_with_a_comma_less_moves_no_names(folder: str, table: str, tmp_path: Path) -> None:
    """pandas takes the first column for row names then, and every name for the column before its own."""
    written = FOLDERS[folder](tmp_path / "in")
    path = tmp_path / "in" / table
    header, _, lines = path.read_text().partition("\n")
    path.write_text(header[::-1].replace(",", "m", 1)[::-1] + "\n" + lines)
    with pytest.raises(DataError, match=f"{table}: its lines have more fields than its header"):
        import_source(tmp_path / "in", tmp_path / "out", kind=written.kind, options=written.options)


def test_commas_at_the_ends_of_lines_move_no_names(tmp_path: Path) -> None:
    FOLDERS["sami-trop"](tmp_path / "in")
    path = tmp_path / "in" / "exams.csv"
    header, *lines = path.read_text().split()
    path.write_text("\n".join([header, *(f"{line}," for line in lines)]) + "\n")
    import_source(tmp_path / "in", tmp_path / "out")
    exams = open_code(tmp_path / "out").exams
    assert (exams["exam_id"].tolist(), exams["age"].tolist()) == ([3, 7, 9], [60, 70, 50])


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    FOLDERS["ptbxl"](tmp_path / "in")
    path = tmp_path / "in" / "ptbxl_database.csv"
    path.write_text(path.read_text().replace("00000/00002_hr", "00000/00\0\x0002_hr"))
    summary = import_source(tmp_path / "in", tmp_path / "out")
    assert [(x.record, "is not the name of a file" in x.reason) for x in summary.refused] == [("2", True)]


def test_an_empty_column_of_trace_files(tmp_path: Path) -> None:
    FOLDERS["code"](tmp_path / "in")
    table = pd.read_csv(tmp_path / "in" / "exams.csv")
    table.assign(trace_file=None).to_csv(tmp_path / "in" / "exams.csv", index=False)
    with pytest.raises(DataError, match="all 3 records were refused; 11: its line names no trace_file"):
        import_source(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="3 of 3 exams have no trace"):
        open_code(tmp_path / "in")


def test_damage_to_the_row_too_many_costs_no_exam(tmp_path: Path) -> None:
    FOLDERS["code"](tmp_path / "in")
    path = tmp_path / "in" / "exams_part1.hdf5"
    with h5py.File(path) as file:
        where = file["tracings"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[where : where + 9] = bytes(9)
    path.write_bytes(content)
    assert import_source(tmp_path / "in", tmp_path / "out").n_records == 3


def test_headers_in_each_others_place_are_refused(tmp_path: Path) -> None:
    written = FOLDERS["ludb"](tmp_path / "in")
    one, two = (tmp_path / "in" / written.own[k][0] for k in (0, 1))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    summary = import_source(tmp_path / "in", tmp_path / "out")
    assert {x.record: x.reason[:52] for x in summary.refused} == {
        "1": "1.hea names the signal 2.dat, which belongs to 2.hea",
        "2": "2.hea names the signal 1.dat, which belongs to 1.hea",
    }


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_unit_that_is_no_number_above_zero(value: float, tmp_path: Path) -> None:
    FOLDERS["code"](tmp_path / "in")
    with h5py.File(tmp_path / "in" / "exams_part0.hdf5", "r+") as file:
        file["tracings"].attrs["mv_per_unit"] = value
    with pytest.raises(DataError, match=r"exams_part0\.hdf5: mv_per_unit is .*, expected a number above 0"):
        open_code(tmp_path / "in")
    summary = import_source(tmp_path / "in", tmp_path / "out")
    assert [x.record for x in summary.refused] == ["11", "12"]


def test_numbers_that_no_ecg_has_spoil_no_other_record(tmp_path: Path) -> None:
    absurd = sine_mv(5)
    absurd[2000, 3] = 1e30
    folder = write_folder(tmp_path / "P", [absurd, sine_mv(5)])
    store = packed(folder, QUARTER, skip_bad=True, jobs=1)
    assert store.index["exam_id"].tolist() == [101] and "lead aVR reaches" in store.header.refused["100"]
    slopes = Slopes()
    for record in (absurd * 1e8, sine_mv(5)):
        measure(record, 400, slopes)
    assert np.isfinite(slopes.correlation).all()


if __name__ == "__main__":
    alone = Worker(Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzz-{os.getpid()}", LIMIT_S)
    print(alone.run(sys.argv[1], int(sys.argv[2])))
    alone.stop()
