"""Which figures a study has, what their files are called, and how they are written.

File names say what is shown of which target, and of which form if there are several; the second sheet ends in -2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ecgscale.figures.draws import corner_figures
from ecgscale.figures.fits import Fits, fits_of
from ecgscale.figures.forest import forest_figures
from ecgscale.figures.frontier import frontier_figures
from ecgscale.figures.hold_out import hold_out_figures
from ecgscale.figures.lines import line_figures
from ecgscale.figures.pairs import pair_figures
from ecgscale.figures.residuals import residual_figures
from ecgscale.figures.scaling import scaling_figures
from ecgscale.figures.style import STYLE
from ecgscale.figures.surface import surface_figures
from ecgscale.study import JOINT, Study

LONGEST_NAME = 80

MAIN_KINDS = ("scaling", "surface", "loss-to-loss", "efficiency")
"""What answers the question of a sweep; the others say how far to trust it."""


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


def figures_of(study: Study, kinds: Sequence[str] | None = None) -> Iterator[tuple[str, Figure]]:
    """The figures with the name of its file, in the order of reading. Drawn in the current matplotlib style."""
    taken: set[str] = set()
    for name, figures in _chapters(study):
        if kinds is not None and not name.startswith(tuple(kinds)):
            continue
        for figure in figures:
            free = next(f for f in chain((name,), (f"{name}-{i}" for i in count(2))) if f not in taken)
            taken.add(free)
            yield free, figure


def _chapters(study: Study) -> Iterator[tuple[str, Iterable[Figure]]]:
    chapters = list(fits_of(study))
    forms = Counter(fits.target for fits in chapters)
    for fits in chapters:
        suffix = slug(fits.target) + (f"-{slug(fits.law)}" if forms[fits.target] > 1 else "")
        yield from _of_fits(fits, suffix, profile=fits.target == study.targets[0])
    for target in study.targets:
        if any(f.target == target and f.kind != JOINT for f in study.laws):
            yield f"lines-{slug(target)}", line_figures(study, target)
    if study.pairs:
        yield "loss-to-loss", pair_figures(study)
    for target, figures in forest_figures(study):
        yield f"efficiency-{slug(target)}", figures


def _of_fits(fits: Fits, suffix: str, *, profile: bool) -> Iterator[tuple[str, Iterable[Figure]]]:
    if fits.joint:
        yield f"scaling-{suffix}", scaling_figures(fits)
        yield f"surface-{suffix}", surface_figures(fits)
    yield f"residuals-{suffix}", residual_figures(fits)
    yield f"corner-{suffix}", corner_figures(fits, profile=profile)
    yield f"frontier-{suffix}", frontier_figures(fits)
    yield f"hold-out-{suffix}", hold_out_figures(fits)


def slug(text: str) -> str:
    """A part of a file name: letters, digits and dashes."""
    return re.sub(r"[^\w]+", "-", text).strip("-")[:LONGEST_NAME] or "unnamed"
