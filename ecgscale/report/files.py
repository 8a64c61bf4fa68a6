"""The files of a report, written beside each other and then put in place: `results/X/report/`.

index.html              the page, self-contained; of a sweep with trials on targets and others: targets.html beside it
conclusions.json        what was concluded; laws.json, laws.csv: the laws
runs.csv, transfer.csv  one row per trial, one per trial and task
scores.csv              every score of every head, of trials on targets; head_laws.csv: the laws of their errors
figures/NAME.pdf .png .csv
*.tex                   the tables for LaTeX, when asked for
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ecgscale import results
from ecgscale.figures import Chapter, Sheet, chapters, target_chapters, write_sheets
from ecgscale.findings import Conclusion, conclusions
from ecgscale.fitted import Method
from ecgscale.report.grid_map import PARADIGMS, TARGET, grid
from ecgscale.report.laws import law_tables
from ecgscale.report.page import page, render
from ecgscale.report.tables import Table, tex
from ecgscale.report.target_laws import head_laws, law_chapters
from ecgscale.report.target_page import planned_study, target_page
from ecgscale.report.target_tables import printed_tables
from ecgscale.report.verdicts import verdict_table
from ecgscale.sweep_laws import DEFAULT, records_study
from ecgscale.target_findings import target_conclusions

FIGURES = "figures"

SCORES, LAWS, PICTURES = "scoring heads", "fitting arms", "drawing figures"
"""What takes its time."""

Progress = Callable[[str, int, int], None]
"""Called with what is under way, and how many of how many are done."""


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


def write_report(
    folder: Path,
    *,
    with_tex: bool = False,
    method: Method = DEFAULT,
    progress: Progress = lambda _what, _done, _of: None,
) -> list[Report]:
    """Writes the report of every sweep found in `folder`; the page comes last, and every file appears whole.

    Figures of a former report that this one has not are removed.

    Raises:
        EcgscaleError: no results, or no completed trial among them.
    """
    return [_write(sweep_folder, method, with_tex, progress) for sweep_folder in results.sweep_folders(folder)]


@dataclass(frozen=True)
class _Part:
    """One page of a report and what goes with it: of trials on targets, or of all others."""

    page: str
    conclusions: tuple[Conclusion, ...]
    tables: Mapping[str, pd.DataFrame]
    values: Mapping[str, Any]
    chapters: Sequence[Chapter]
    printed: Sequence[Table]
    html: Callable[[Sequence[Sheet]], str]


def _write(folder: Path, method: Method, with_tex: bool, progress: Progress) -> Report:
    records = results.read(folder)  # once: laws, tables and provenance are of the same rows while others are added
    parts = _parts(folder, records, method, progress)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    found = tuple(conclusion for part in parts for conclusion in part.conclusions)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as made:
        files = list(_make(parts, found, records, Path(made), with_tex, progress))
        written = [_put(Path(made), report, file) for file in files]
    _remove_others(report / FIGURES, written)
    return Report(folder.name, tuple(written), found)


def _parts(folder: Path, records: Sequence[results.RunRecord], method: Method, progress: Progress) -> list[_Part]:
    """That of `index.html` last. Trials of which none completed are told of on the page of the others.

    Raises:
        EcgscaleError: no completed trial.
    """
    on_targets = [r for r in records if r.paradigm == TARGET]
    others = [r for r in records if r.paradigm != TARGET]
    if not _any_completed(on_targets):
        return [_laws_part(folder, records, method, PARADIGMS, "", progress)]
    if not _any_completed(others):
        return [_targets_part(folder, on_targets, method, "index.html", "", progress)]
    paradigms = [name for name in PARADIGMS if name != TARGET]
    targets = _targets_part(folder, on_targets, method, "targets.html", "index.html", progress)
    return [targets, _laws_part(folder, others, method, paradigms, targets.page, progress)]


def _any_completed(records: Sequence[results.RunRecord]) -> bool:
    return any(record.status == results.Status.COMPLETED for record in records)


def _laws_part(
    folder: Path,
    records: Sequence[results.RunRecord],
    method: Method,
    paradigms: Collection[str],
    other: str,
    progress: Progress,
) -> _Part:
    study = records_study(folder.name, folder, records, method, progress=partial(progress, LAWS))
    found = conclusions(study)
    the_grid = grid(folder, records, paradigms)
    return _Part(
        "index.html",
        found,
        {
            "laws.csv": study.law_table(),
            "task_laws.csv": study.task_table(),
            "transfer.csv": results.transfer_table(records),
        },
        {"laws.json": study.to_dict()},
        chapters(study, found),
        (verdict_table(found), *law_tables(study, coefficients=True)),
        lambda sheets: render(page(study, found, records, the_grid, sheets, other), "page.html"),
    )


def _targets_part(
    folder: Path, records: Sequence[results.RunRecord], method: Method, name: str, other: str, progress: Progress
) -> _Part:
    study, the_grid = planned_study(folder, records, partial(progress, SCORES))
    laws = head_laws(folder, records, method, partial(progress, LAWS))
    found = target_conclusions(study)
    checks = replace(verdict_table(found), name="checks")
    return _Part(
        name,
        found,
        {"scores.csv": study.scores} | ({} if laws is None else {"head_laws.csv": laws.law_table()}),
        {},
        (*target_chapters(study), *(() if laws is None else law_chapters(laws))),
        (checks, *printed_tables(study), *(() if laws is None else law_tables(laws, coefficients=True))),
        lambda sheets: render(target_page(study, laws, found, records, the_grid, sheets, other), "targets.html"),
    )


def _make(
    parts: Sequence[_Part],
    found: tuple[Conclusion, ...],
    records: Sequence[results.RunRecord],
    folder: Path,
    with_tex: bool,
    progress: Progress,
) -> Iterator[Path]:
    """Makes all files in `folder`, the first page last; yields their paths within it."""
    tables = {"runs.csv": results.table(records)}
    values: dict[str, Any] = {"conclusions.json": [c.to_dict() for c in found]}
    for part in parts:
        tables |= part.tables
        values |= part.values
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
        yield Path(name)
    for name, value in values.items():
        (folder / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
        yield Path(name)
    for part in parts:
        sheets = list(write_sheets(_counted(part.chapters, progress), folder / FIGURES))
        yield from dict.fromkeys(Path(FIGURES, name) for sheet in sheets for name in sheet.files)
        for printed in part.printed if with_tex else ():
            (folder / f"{printed.name}.tex").write_text(tex(printed), encoding="utf-8")
            yield Path(f"{printed.name}.tex")
        (folder / part.page).write_text(part.html(sheets), encoding="utf-8")
        yield Path(part.page)


def _counted(chapters: Sequence[Chapter], progress: Progress) -> Iterator[Chapter]:
    for n_done, chapter in enumerate(chapters):
        progress(PICTURES, n_done, len(chapters))
        yield chapter
    progress(PICTURES, len(chapters), len(chapters))


def _put(made: Path, report: Path, file: Path) -> Path:
    place = report / file
    place.parent.mkdir(exist_ok=True)
    (made / file).replace(place)
    return place


def _remove_others(folder: Path, written: list[Path]) -> None:
    for file in folder.iterdir() if folder.is_dir() else ():
        if file not in written and file.suffix in (".pdf", ".png", ".csv"):
            file.unlink(missing_ok=True)
