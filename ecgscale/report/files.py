"""The files of a report, written beside each other and then put in place: `results/X/report/`.

index.html              the page, self-contained
conclusions.json        what was concluded; laws.json, laws.csv: the laws
runs.csv, transfer.csv  one row per trial, one per trial and task
figures/NAME.pdf .png .csv
*.tex                   the tables for LaTeX, when asked for
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgscale import results
from ecgscale.figures import chapters, write_sheets
from ecgscale.findings import Conclusion, conclusions
from ecgscale.fitted import Method
from ecgscale.report.laws import law_tables
from ecgscale.report.page import page, render
from ecgscale.report.tables import tex
from ecgscale.report.verdicts import verdict_table
from ecgscale.study import Study
from ecgscale.sweep_laws import DEFAULT, records_study

FIGURES = "figures"


@dataclass(frozen=True)
class Report:
    """What was concluded about one sweep, and where it can be read."""

    name: str
    files: tuple[Path, ...]
    conclusions: tuple[Conclusion, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `ecgscale report --json` prints."""
        written = [str(file) for file in self.files]
        return {"sweep": self.name, "conclusions": [c.to_dict() for c in self.conclusions], "written": written}


def write_report(folder: Path, *, with_tex: bool = False, method: Method = DEFAULT) -> list[Report]:
    """Writes the report of every sweep found in `folder`; the page comes last, and every file appears whole.

    Figures of a former report that this one has not are removed.

    Raises:
        EcgscaleError: no results, or no completed trial among them.
    """
    return [_write(sweep_folder, method, with_tex) for sweep_folder in results.sweep_folders(folder)]


def _write(folder: Path, method: Method, with_tex: bool) -> Report:
    records = results.read(folder)  # once: laws, tables and provenance are of the same rows while others are added
    study = records_study(folder.name, folder, records, method)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    drawn_from = conclusions(study)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as made:
        files = list(_make(study, drawn_from, records, Path(made), with_tex))
        written = [_put(Path(made), report, file) for file in files]
    _remove_others(report / FIGURES, written)
    return Report(study.name, tuple(written), drawn_from)


def _make(
    study: Study,
    found: tuple[Conclusion, ...],
    records: Sequence[results.RunRecord],
    folder: Path,
    with_tex: bool,
) -> Iterator[Path]:
    """Makes all files in `folder`, the page last; yields their paths within it."""
    for name, table in (
        ("laws.csv", study.law_table()),
        ("task_laws.csv", study.task_table()),
        ("runs.csv", results.table(records)),
        ("transfer.csv", results.transfer_table(records)),
    ):
        table.to_csv(folder / name, index=False)
        yield Path(name)
    for name, value in (("laws.json", study.to_dict()), ("conclusions.json", [c.to_dict() for c in found])):
        (folder / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
        yield Path(name)
    sheets = list(write_sheets(chapters(study, found), folder / FIGURES))
    yield from dict.fromkeys(Path(FIGURES, name) for sheet in sheets for name in sheet.files)
    whole = page(study, found, records, sheets)
    if with_tex:
        for printed in (verdict_table(found), *law_tables(study, coefficients=True)):
            (folder / f"{printed.name}.tex").write_text(tex(printed), encoding="utf-8")
            yield Path(f"{printed.name}.tex")
    (folder / "index.html").write_text(render(whole), encoding="utf-8")
    yield Path("index.html")


def _put(made: Path, report: Path, file: Path) -> Path:
    place = report / file
    place.parent.mkdir(exist_ok=True)
    (made / file).replace(place)
    return place


def _remove_others(folder: Path, written: list[Path]) -> None:
    for file in folder.iterdir() if folder.is_dir() else ():
        if file not in written and file.suffix in (".pdf", ".png", ".csv"):
            file.unlink(missing_ok=True)
