"""PTB-XL as PhysioNet distributes it: two tables, and records500/ or records100/.

https://physionet.org/content/ptb-xl/. Superclasses and rhythms are those of the `scp_statements.csv` beside the
records, counted as the benchmark of its authors counts them. Which of them a task wants is not known here.
"""

import ast
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ecgscale.data.sources.source import Refused, SourceOptions
from ecgscale.data.sources.vocabulary import SCP, clean_age, labels_of_scp
from ecgscale.data.sources.wfdb_table import (
    Rows,
    WfdbTable,
    asked_for,
    iso_times,
    lines,
    one_line_per_record,
    read_csv,
    refused_of,
    release_of,
)
from ecgscale.errors import DataError

DATABASE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
_FOLDERS = {"hr": "records500", "lr": "records100"}
_NEEDED = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold")
_KEPT = ("height", "weight", "site", "device", "heart_axis")
_IS_MALE = {0.0: True, 1.0: False}  # Wagner et al. 2020 (doi 10.1038/s41597-020-0495-6), table 2: male 0, female 1


@dataclass(frozen=True)
class ScpStatements:
    """What `scp_statements.csv` says: the superclass of every diagnostic statement, and which are rhythms."""

    superclass: Mapping[str, str]
    rhythms: tuple[str, ...]

    def columns(self, found: Mapping[str, float]) -> dict[str, bool]:
        """Superclass and rhythm columns of a record.

        A superclass is positive if any of its diagnostic statements is there, whatever its likelihood: the rule of
        `aggregate_diagnostic` in helme/ecg_ptbxl_benchmarking (Strodthoff et al. 2021, doi
        10.1109/JBHI.2020.3022989), and the one that gives the published counts (NORM 9,514 …).
        """
        classes = {self.superclass[x] for x in found if x in self.superclass}
        positives = {name: name in classes for name in dict.fromkeys(self.superclass.values())}
        return positives | {rhythm: rhythm in found for rhythm in self.rhythms}


def looks_like_ptbxl(folder: Path) -> bool:
    """Whether both tables of PTB-XL are there."""
    return (folder / DATABASE).is_file() and (folder / STATEMENTS).is_file()


def open_ptbxl(folder: Path, options: SourceOptions) -> WfdbTable:
    """Opens PTB-XL, 500 Hz where `records500` is there and 100 Hz otherwise. A record's name is its ecg_id.

    Raises:
        DataError: A table or both folders of records are missing.
    """
    statements = _read_statements(folder / STATEMENTS)
    rate = next((x for x in ("hr", "lr") if (folder / _FOLDERS[x]).is_dir()), None)
    if rate is None:
        raise DataError(f"{folder}: neither records500 nor records100 is there; get one of them beside {DATABASE}")
    table = read_csv(folder / DATABASE, (*_NEEDED, f"filename_{rate}"))
    table, refused = one_line_per_record(table, "ecg_id", DATABASE)
    if "recording_date" in table.columns:
        table["recording_date"] = iso_times(table["recording_date"])
    table = asked_for(table, "ecg_id", options.records)
    table["sex"] = pd.to_numeric(table["sex"], errors="coerce")
    rows, paths = [], []
    for line in lines(table):
        try:
            rows.append(_row(line, statements))
            paths.append(str(line[f"filename_{rate}"]).removesuffix(".hea"))
        except DataError as error:
            refused.append(Refused(str(line["ecg_id"]), str(error)))
    return WfdbTable(
        kind="ptbxl",
        folder=folder,
        names=[str(row["exam_id"]) for row in rows],
        paths=paths,
        rows=Rows(pd.DataFrame(rows)),
        version=_release(folder),
        changed=("age 300 (over 89) set to 90", "split: folds 1-8 are train, 9 is val, 10 is test"),
        refused=refused_of(refused, options.records),
        advice=("only the 100 Hz records are here; get records500 as well",) if rate == "lr" else (),
    )


def _read_statements(path: Path) -> ScpStatements:
    table = read_csv(path, ("diagnostic", "rhythm", "diagnostic_class"))
    names = table.iloc[:, 0].astype(str).str.strip()  # the first column has no name
    is_diagnostic, is_rhythm = (pd.to_numeric(table[x], errors="coerce") == 1 for x in ("diagnostic", "rhythm"))
    superclass = table["diagnostic_class"][is_diagnostic & table["diagnostic_class"].notna()].astype(str)
    rhythms = tuple(names[is_rhythm])
    if lost := [x for x in SCP.values() if x not in set(names)]:  # a spreadsheet program turns 1AVB into 1.0AVB
        raise DataError(f"{path}: no statement {', '.join(lost)}; it has been edited, get the original")
    if superclass.empty or not rhythms:
        raise DataError(f"{path}: marks no statement as diagnostic or none as rhythm; get the original")
    return ScpStatements(dict(zip(names[superclass.index], superclass, strict=True)), rhythms)


def _row(line: Mapping[Hashable, Any], statements: ScpStatements) -> dict[str, Any]:
    fold = _whole(line["strat_fold"])
    if fold is None or not 1 <= fold <= 10:
        raise DataError(f"strat_fold must be 1 to 10, not {repr(line['strat_fold'])[:60]}")
    patient = _whole(line["patient_id"])
    if patient is None:
        raise DataError(f"patient_id must be a whole number, not {repr(line['patient_id'])[:60]}")
    found = _scp_codes(line["scp_codes"])
    return {
        "exam_id": line["ecg_id"],
        "patient_id": patient,
        "age": clean_age(line["age"]),
        "is_male": _IS_MALE.get(line["sex"]),
        **labels_of_scp(found),
        **statements.columns(found),
        "strat_fold": fold,
        "split": {9: "val", 10: "test"}.get(fold, "train"),
        "scp_codes": line["scp_codes"],
        **{name: line[name] for name in ("recording_date", *_KEPT) if name in line},
    }


def _scp_codes(cell: object) -> dict[str, float]:
    """`{'NORM': 100.0, 'SR': 0.0}` from the text of a Python dict."""
    try:
        found = ast.literal_eval(str(cell))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"scp_codes cannot be understood: {str(cell)[:60]!r}") from error
    if not isinstance(found, dict):
        raise DataError(f"scp_codes is not a dict: {str(cell)[:60]!r}")
    return found


def _whole(cell: object) -> int | None:
    try:
        number = float(str(cell))
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _release(folder: Path) -> str | None:
    """The folder's name tells, or the change logs that releases from 1.0.2 on carry (`ptbxl_v103_changelog.txt`)."""
    logs = sorted(path.name for path in folder.glob("ptbxl_v*_changelog.txt"))
    return release_of(folder) or (".".join(logs[-1].removeprefix("ptbxl_v").split("_")[0]) if logs else None)
