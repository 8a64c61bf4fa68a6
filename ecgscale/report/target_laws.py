"""How the errors of heads fall with parameters and records: laws, where a sweep has the sizes for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ecgscale.figures import Chapter, chapters
from ecgscale.fitted import Fitted, Method
from ecgscale.results import RunRecord, Status, latest
from ecgscale.study import IN_D, IN_N, Study
from ecgscale.sweep_laws import MAE, Progress, records_study

LEVELS = 3
"""Sizes, or amounts of data: through two of them any line goes. Our choice."""

LINES = "lines"
"""The kind of their figures."""

VARIABLES = {IN_N: ("n",), IN_D: ("d",)}


def head_laws(folder: Path, records: Sequence[RunRecord], method: Method, progress: Progress) -> Study | None:
    """The laws in the variables that have enough levels, of the heads that have any; None if no head has.

    Args:
        records: every attempt at a trial on a target.
    """
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    amounts: defaultdict[str, set[int]] = defaultdict(set)
    for record in latest(records).values():
        if record.status == Status.COMPLETED:
            sizes[record.arm].add(record.n_params)
            amounts[record.arm].add(record.n_records)
    scaled = [r for r in records if max(len(sizes[r.arm]), len(amounts[r.arm])) >= LEVELS]
    if not scaled:
        return None
    study = records_study(folder.name, folder, scaled, method, progress=progress)
    laws = tuple(law for law in study.laws if _has_levels(law))
    return replace(study, laws=laws) if laws else None


def _has_levels(law: Fitted) -> bool:
    variables = VARIABLES.get(law.kind, ("n", "d"))
    return all(law.points[name].nunique() >= LEVELS for name in variables)


def law_chapters(laws: Study) -> Iterator[Chapter]:
    """Of the MAE, which every head has; of the others there are the tables."""
    for chapter in chapters(laws):
        if chapter.kind == LINES and chapter.target.endswith(f": {MAE}"):
            yield chapter
