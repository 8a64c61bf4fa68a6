"""Which figures a study has, what their files are called, and how they are written.

File names say what is shown of which target, and of which form if there are several; the second sheet ends in -2.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ecgscale.figures.claims import claim_figures, claim_numbers
from ecgscale.figures.crossing import crossing_figures, crossing_numbers, races
from ecgscale.figures.draws import corner_figures
from ecgscale.figures.fits import Fits, fits_of
from ecgscale.figures.forest import compared, forest_figures, forest_numbers
from ecgscale.figures.frontier import frontier_figures
from ecgscale.figures.hold_out import hold_out_figures
from ecgscale.figures.lines import line_figures
from ecgscale.figures.numbers import (
    corner_numbers,
    frontier_numbers,
    hold_out_numbers,
    lines_numbers,
    pair_numbers,
    residual_numbers,
    runs_and_laws,
)
from ecgscale.figures.pairs import pair_figures
from ecgscale.figures.residuals import residual_figures
from ecgscale.figures.scaling import scaling_figures
from ecgscale.figures.style import STYLE
from ecgscale.figures.surface import surface_figures
from ecgscale.findings import Conclusion
from ecgscale.study import JOINT, Study

LONGEST_NAME = 80

MAIN_KINDS = ("scaling", "surface", "loss-to-loss", "efficiency")
"""What answers the question of a sweep; the others say how far to trust it."""

PNG_DPI = 300
"""What journals ask of images that are not vectors."""


Draw = Callable[[], Iterable[Figure]]
Numbers = Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class Chapter:
    """One figure, on one sheet or several.

    Attributes:
        kind: `scaling`, `surface`, …: what is drawn.
        target: What it is drawn of; empty where it is of all.
        fits: The laws that are drawn, where they are of one form and one target.
        numbers: What is drawn, as a table.
    """

    name: str
    kind: str
    target: str
    sheets: Draw
    numbers: Numbers
    fits: Fits | None = None


@dataclass(frozen=True)
class Sheet:
    """One sheet of a chapter as it was written: its files, and the picture for a page."""

    name: str
    chapter: Chapter
    files: tuple[str, ...]
    """PDF, PNG, CSV; the sheets of a chapter share their numbers."""
    svg: str
    width_inches: float


def write_figures(study: Study, folder: Path, kinds: Sequence[str] | None = None) -> list[Path]:
    """Writes figures of a study as PDF; returns the files. The same study gives the same bytes.

    Args:
        kinds: Which, by how the names of their files begin; None for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, figure in figures_of(study, kinds):
            path = folder / f"{name}.pdf"
            figure.savefig(path, metadata={"CreationDate": None})
            written.append(path)
    return written


def write_sheets(chapters: Iterable[Chapter], folder: Path) -> Iterator[Sheet]:
    """Writes chapters as PDF and PNG, and their numbers as CSV. The same study gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": chapter.name}):
            for name, figure in _named([chapter]):
                files = (f"{name}.pdf", f"{name}.png", f"{chapter.name}.csv")
                if name == chapter.name:
                    chapter.numbers().to_csv(folder / files[2], index=False)
                figure.draw_without_rendering()
                with matplotlib.rc_context({"figure.constrained_layout.use": False}):
                    figure.set_layout_engine(None)  # it has done its work; every format would do it again
                svg = io.StringIO()
                figure.savefig(folder / files[0], metadata={"CreationDate": None})
                figure.savefig(folder / files[1], dpi=PNG_DPI, metadata={"Software": None})
                figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
                yield Sheet(name, chapter, files, _rounded(svg.getvalue()), figure.get_figwidth())


def _rounded(svg: str) -> str:
    """Outlines to a hundredth of a point: half the text, nothing to see."""
    return re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)


def figures_of(
    study: Study, kinds: Sequence[str] | None = None, conclusions: Sequence[Conclusion] = ()
) -> Iterator[tuple[str, Figure]]:
    """The figures with the name of its file, in the order of reading. Drawn in the current matplotlib style."""
    wanted = [c for c in chapters(study, conclusions) if kinds is None or c.name.startswith(tuple(kinds))]
    yield from _named(wanted)


def _named(chapters: Iterable[Chapter]) -> Iterator[tuple[str, Figure]]:
    for chapter in chapters:
        for i, figure in enumerate(chapter.sheets()):
            yield (f"{chapter.name}-{i + 1}" if i else chapter.name), figure


def chapters(study: Study, conclusions: Sequence[Conclusion] = ()) -> list[Chapter]:
    """All figures of a study, in the order of reading; names differ."""
    taken: Counter[str] = Counter()
    found = []
    for chapter in (*_of_conclusions(conclusions), *_of_laws(study)):
        taken[chapter.name] += 1
        again = taken[chapter.name]  # two targets may have one slug
        found.append(replace(chapter, name=f"{chapter.name}--{again}") if again > 1 else chapter)
    return found


def _of_conclusions(conclusions: Sequence[Conclusion]) -> Iterator[Chapter]:
    for name, one_task in (("conclusions", False), ("conclusions-by-task", True)):
        if any(f.one_task == one_task for c in conclusions for f in c.findings):
            draw, table = partial(claim_figures, conclusions), partial(claim_numbers, conclusions)
            yield Chapter(name, name, "", partial(draw, one_task=one_task), partial(table, one_task=one_task))


def _of_laws(study: Study) -> Iterator[Chapter]:
    every = list(fits_of(study))
    forms = Counter(fits.target for fits in every)
    for fits in every:
        suffix = slug(fits.target) + (f"-{slug(fits.law)}" if forms[fits.target] > 1 else "")
        for kind, sheets, numbers in _of_fits(fits, profile=fits.target == study.targets[0]):
            yield Chapter(f"{kind}-{suffix}", kind, fits.target, sheets, numbers, fits)
    for target in study.targets:
        if any(f.target == target and f.kind != JOINT for f in study.laws):
            draw, table = partial(line_figures, study, target), partial(lines_numbers, study, target)
            yield Chapter(f"lines-{slug(target)}", "lines", target, draw, table)
    if study.pairs:
        kind = "loss-to-loss"
        yield Chapter(kind, kind, "", partial(pair_figures, study), partial(pair_numbers, study))
    if races(study):
        yield Chapter("crossing", "crossing", "", partial(crossing_figures, study), partial(crossing_numbers, study))
    for target, comparisons in compared(study).items():
        draw, table = partial(forest_figures, target, comparisons), partial(forest_numbers, comparisons)
        yield Chapter(f"efficiency-{slug(target)}", "efficiency", target, draw, table)


def _of_fits(fits: Fits, *, profile: bool) -> Iterator[tuple[str, Draw, Numbers]]:
    law, errors = partial(runs_and_laws, fits), partial(residual_numbers, fits)
    if fits.joint:
        yield "scaling", partial(scaling_figures, fits), law
        yield "surface", partial(surface_figures, fits), law
    yield "residuals", partial(residual_figures, fits), errors
    yield "corner", partial(corner_figures, fits, profile=profile), partial(corner_numbers, fits)
    yield "frontier", partial(frontier_figures, fits), partial(frontier_numbers, fits)
    yield "hold-out", partial(hold_out_figures, fits), partial(hold_out_numbers, fits)


def slug(text: str) -> str:
    """A part of a file name: letters, digits and dashes."""
    return re.sub(r"[^\w]+", "-", text).strip("-")[:LONGEST_NAME] or "unnamed"
