"""CODE-test and SaMi-Trop: traces without ids, matched to their tables line by line, so the counts must agree.

CODE-test has a lead order of its own, and its public repository holds the annotations without the tracings; both are
said to the user instead of being discovered in the results.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecgscale.conventions import CODE_FS_HZ, CODE_LABELS, CODE_MV_PER_UNIT, CODE_N_SAMPLES, LEADS
from ecgscale.data.exams_table import normal_table, read_csv, some
from ecgscale.data.sources.source import Source, SourceOptions
from ecgscale.data.sources.stored_rows import (
    Numbered,
    StoredArray,
    StoredRows,
    dataset_array,
    matching,
    open_hdf5,
    refuse_repeated,
)
from ecgscale.errors import DataError

CODE_TEST_LEADS = ("I", "II", "III", "aVL", "aVF", "aVR", "V1", "V2", "V3", "V4", "V5", "V6")
"""The order of CODE-test by its README (DI, DII, DIII, AVL, AVF, AVR, …), which ecgbench confirms."""

_TRACINGS = "ecg_tracings.hdf5"
_GOLD = Path("annotations") / "gold_standard.csv"
_AXES = ("record", "time", "lead")


def looks_like_code_test(folder: Path) -> bool:
    """Its annotations are there, with or without the tracings."""
    return _code_test_data(folder) is not None


def looks_like_sami_trop(folder: Path) -> bool:
    """`exams.hdf5` beside `exams.csv`, without the ids that CODE format has."""
    try:
        with open_hdf5(folder / "exams.hdf5") as file:
            return "tracings" in file and "exam_id" not in file and (folder / "exams.csv").is_file()
    except DataError:
        return False


def annotations_without_signals(folder: Path) -> dict[str, int] | None:
    """What a CODE-test folder without tracings holds: `n_exams` and the positives of each label of the gold standard.

    None if the folder is no CODE-test folder, has its tracings, or its annotations can't be read.
    """
    data = _code_test_data(folder)
    if data is None or _tracings(folder, data) is not None:
        return None
    try:
        exams = _code_test_exams(data)
    except DataError:
        return None
    return {"n_exams": len(exams), **{label: int(exams[label].sum()) for label in CODE_LABELS}}


def open_code_test(folder: Path, options: SourceOptions) -> Source:
    """Opens CODE-test (Zenodo 3765780): 827 exams of 827 patients, six labels by a committee of cardiologists.

    Args:
        folder: The download, or its `data` folder.
        options: `mv_per_unit` replaces 0.5; `as_declared` claims the standard lead order and mV, which is what a
            reader gets who knows only CODE-15 %.

    Raises:
        DataError: Tracings or tables are missing, damaged, or differ in length.
    """
    data = _code_test_data(folder)
    if data is None:
        raise DataError(f"{folder}: no annotations/gold_standard.csv with attributes.csv beside it, as CODE-test has")
    tracings = _tracings(folder, data)
    if tracings is None:
        counts = annotations_without_signals(folder) or {"n_exams": 0}
        positives = ", ".join(f"{label} {n}" for label, n in counts.items() if label != "n_exams")
        raise DataError(
            f"{folder}: {counts['n_exams']} annotated exams (positives {positives}) but no signals; "
            f"{(data / _TRACINGS).relative_to(folder)} belongs there, Zenodo 3765780"
        )
    changed = (
        "exam_id is the row number, from 0; every exam is of another patient",
        "labels: the gold standard; each other annotator's are columns such as cardiologist1_AF",
    )
    leads = LEADS if options.as_declared else CODE_TEST_LEADS
    return _by_line("code-test", tracings, _code_test_exams(data), data / _GOLD, leads, options, changed)


def open_sami_trop(folder: Path, options: SourceOptions) -> Source:
    """Opens SaMi-Trop (Zenodo 4905618): 1,631 exams of Chagas patients, no CODE labels.

    Args:
        folder: Holds `exams.csv` and `exams.hdf5`.
        options: `mv_per_unit` replaces 0.5; `as_declared` claims mV.

    Raises:
        DataError: The files are missing, damaged, or differ in length.
    """
    table = folder / "exams.csv"
    exams = normal_table(read_csv(table), table, repeated=True)
    return _by_line("sami-trop", folder / "exams.hdf5", exams, table, LEADS, options, ())


def _code_test_data(folder: Path) -> Path | None:
    """The folder that holds `attributes.csv` and `annotations`: it may be called `data`."""
    candidates = (folder / "data", folder)
    return next((x for x in candidates if (x / _GOLD).is_file() and (x / "attributes.csv").is_file()), None)


def _tracings(folder: Path, data: Path) -> Path | None:
    return next((x / _TRACINGS for x in (data, folder) if (x / _TRACINGS).is_file()), None)


def _code_test_exams(data: Path) -> pd.DataFrame:
    """attributes.csv, the gold standard, and every other annotator's columns behind the annotator's name."""
    attributes = read_csv(data / "attributes.csv")
    tables = {path.stem: _annotations(path, len(attributes)) for path in sorted((data / "annotations").glob("*.csv"))}
    gold = tables.pop(_GOLD.stem)
    others = [table.add_prefix(f"{name}_") for name, table in tables.items()]
    whole = pd.concat([attributes, gold, *others], axis=1)
    return normal_table(whole.assign(exam_id=np.arange(len(whole))), data / _GOLD)


def _annotations(path: Path, n_exams: int) -> pd.DataFrame:
    """The six labels of one annotator, by name: `dnn.csv` has an index column that the others lack."""
    table = read_csv(path)
    if missing := [label for label in CODE_LABELS if label not in table.columns]:
        raise DataError(f"{path}: no column {some(missing)}; it has {some(list(table.columns), 12)}")
    if len(table) != n_exams:
        raise DataError(f"{path}: has {len(table)} lines, but attributes.csv has {n_exams}; line i must be exam i")
    return table[list(CODE_LABELS)]


def _by_line(
    kind: str,
    path: Path,
    exams: pd.DataFrame,
    table: Path,
    leads: tuple[str, ...],
    options: SourceOptions,
    changed: tuple[str, ...],
) -> Source:
    """Row i of `tracings` is line i of the table."""
    mv_per_unit = options.mv_per_unit or (1.0 if options.as_declared else CODE_MV_PER_UNIT)
    array = _tracings_array(path, mv_per_unit)
    if array.n_rows != len(exams):
        raise DataError(
            f"{path}: has {array.n_rows} tracings, but {table.name} has {len(exams)} exams. They carry no ids: "
            "row i must be line i, so the numbers must agree; get both files again"
        )
    once, refused = refuse_repeated(exams, table)
    once = once[matching(Numbered(once["exam_id"].to_numpy()), options.records)]
    if once.empty:
        raise DataError(f"{table}: no exam_id matches {options.records!r}")
    return StoredRows(
        kind=kind,
        names=Numbered(once["exam_id"].to_numpy()),
        arrays=(array,),
        array_of=np.zeros(len(once), dtype=np.int64),
        row_of=once.index.to_numpy(dtype=np.int64),
        exams=once,
        leads=leads,
        fs_hz=CODE_FS_HZ,
        changed=(f"stored amplitudes × {mv_per_unit:g} are mV", "row i is line i of the table: no ids", *changed),
        refused=tuple(refused),
    )


def _tracings_array(path: Path, mv_per_unit: float) -> StoredArray:
    with open_hdf5(path) as file:
        tracings = file.get("tracings")
        if not isinstance(tracings, h5py.Dataset) or tracings.shape[1:] != (CODE_N_SAMPLES, len(LEADS)):
            found = tracings.shape if isinstance(tracings, h5py.Dataset) else some(sorted(file)) or "nothing"
            raise DataError(
                f"{path}: expected an array tracings (exams, {CODE_N_SAMPLES}, {len(LEADS)}), found {found}"
            )
        if not np.issubdtype(tracings.dtype, np.floating):
            raise DataError(f"{path}: tracings has type {tracings.dtype}, expected floating point")
        return dataset_array(file, "tracings", path, None, _AXES, mv_per_unit)
