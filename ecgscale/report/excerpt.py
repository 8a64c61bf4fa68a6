"""A few conclusions and figures of a results folder by themselves: what the scripts in analysis/ are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ecgscale import results
from ecgscale.errors import EcgscaleError
from ecgscale.figures import Chapter, chapters, target_chapters, write_sheets
from ecgscale.findings import Conclusion, conclusions
from ecgscale.fitted import Method
from ecgscale.report.grid_map import TARGET
from ecgscale.report.target_page import planned_study
from ecgscale.report.verdicts import number
from ecgscale.sweep_laws import DEFAULT, studies
from ecgscale.target_findings import target_conclusions
from ecgscale.target_study import TargetStudy


def write_excerpt(
    folder: Path, *, claims: Sequence[str] = (), figures: Sequence[str] = (), method: Method = DEFAULT
) -> list[Path]:
    """Prints conclusions with their findings and writes figures to `results/X/figures/`; returns the files.

    Args:
        claims: Names of conclusions; together they get a figure of their own.
        figures: How the names of the others begin, as the report calls them: `scaling-in`, `loss-to-loss`.

    Raises:
        EcgscaleError: no results, no completed trial among them, or a claim that nobody knows.
    """
    written: list[Path] = []
    for study in studies(folder, method):
        assert study.folder is not None
        found = _told(conclusions(study), claims)
        wanted = []
        for chapter in chapters(study, found):
            if chapter.kind in ("conclusions", "conclusions-by-task"):
                wanted.append(replace(chapter, name=chapter.name.replace("conclusions", "-".join(claims))))
            elif chapter.name.startswith(tuple(figures)):
                wanted.append(chapter)
        written += _drawn(wanted, study.folder)
    return written


def write_target_excerpt(folder: Path, *, claims: Sequence[str] = (), figures: Sequence[str] = ()) -> list[Path]:
    """The same of trials on targets.

    Args:
        claims: Names of conclusions.
        figures: How the names of figures begin: `heads`, `calibration`.

    Raises:
        EcgscaleError: no results, no completed trial on a target among them, or a claim that nobody knows.
    """
    written: list[Path] = []
    for study in target_studies(folder):
        _told(target_conclusions(study), claims)
        written += _drawn([c for c in target_chapters(study) if c.name.startswith(tuple(figures))], study.folder)
    return written


def target_studies(folder: Path) -> Iterator[TargetStudy]:
    """One per sweep."""
    for sweep_folder in results.sweep_folders(folder):
        yield planned_study(sweep_folder, [r for r in results.read(sweep_folder) if r.paradigm == TARGET])[0]


def _told(every: Sequence[Conclusion], claims: Sequence[str]) -> list[Conclusion]:
    """Those that are asked for, after printing them."""
    if unknown := set(claims) - {c.name for c in every}:
        raise EcgscaleError(f"no claim {', '.join(sorted(unknown))}: there are {', '.join(c.name for c in every)}")
    found = [c for c in every if c.name in claims]
    for conclusion in found:
        print(f"{conclusion.question} {conclusion.verdict}: {conclusion.summary}")
        print(f"  the paper: {conclusion.published}")
        for f in conclusion.findings:
            if not f.one_task:
                print(f"  {f.subject}, {f.target}: {number(f)} {f.quantity}, {f.verdict}; {f.reason}")
    return found


def _drawn(wanted: Iterable[Chapter], folder: Path) -> list[Path]:
    target = folder / "figures"
    written = list(dict.fromkeys(target / file for sheet in write_sheets(wanted, target) for file in sheet.files))
    for file in written:
        print(f"written: {file}")
    return written
