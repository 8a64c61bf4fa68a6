"""The page: everything it says as one value, and the template that sets it."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ecgscale.figures import Chapter, Sheet, short
from ecgscale.findings import Conclusion, Verdict
from ecgscale.planted import DEVICE as SIMULATED
from ecgscale.report.captions import caption
from ecgscale.report.grid_map import Grid
from ecgscale.report.laws import failure_table, flag_words, law_tables, seed_table, trust_table
from ecgscale.report.origin import origin
from ecgscale.report.tables import Table
from ecgscale.report.verdicts import Card, cards
from ecgscale.results import RunRecord, Status, latest
from ecgscale.study import Study

TRUST_KINDS = ("residuals", "hold-out", "corner")
"""Figures that say how far to trust the others."""

COMPUTE_KINDS = ("surface", "frontier")

TASK_KINDS = ("conclusions-by-task",)


SCALE, SMALLEST = 1.25, 0.8
"""Text of 7 points is for paper: larger on a screen, and on a narrow one a figure scrolls before it can't be read."""

PIXELS_PER_INCH, PIXELS_PER_REM = 96, 16


@dataclass(frozen=True)
class Picture:
    """One sheet of a figure on the page."""

    name: str
    heading: str
    caption: str
    source: str
    """A data URI."""
    style: str
    files: tuple[str, ...]
    """Relative to the page."""


@dataclass(frozen=True)
class Page:
    """Everything the page says, in the order of reading."""

    study: Study
    simulated: bool
    """Some rows were drawn from planted laws: nobody may take them for trainings."""
    question: str
    facts: tuple[tuple[str, str], ...]
    other: str
    """The page of the trials on targets of the same folder; empty if there is none."""
    cards: tuple[Card, ...]
    words: Mapping[Verdict, str]
    grid: Grid
    pictures: tuple[Picture, ...]
    by_task: tuple[Picture, ...]
    compute: tuple[Picture, ...]
    laws: tuple[Table, ...]
    flags: tuple[tuple[str, str], ...]
    trust: tuple[Picture, ...]
    diagnostics: tuple[Table, ...]
    origin: tuple[tuple[str, str], ...]
    made: str
    version: str
    seeds_known: bool


def page(
    study: Study,
    conclusions: Sequence[Conclusion],
    records: Sequence[RunRecord],
    found: Grid,
    sheets: Sequence[Sheet],
    other: str = "",
) -> Page:
    """The page of one results folder.

    Args:
        records: every attempt.
        sheets: of all figures, written already.
    """
    folded = (*TRUST_KINDS, *COMPUTE_KINDS, *TASK_KINDS)
    tables = (failure_table(records), trust_table(study), seed_table(records))
    words = partial(caption, study=study, conclusions=conclusions)

    def pictures(kinds: tuple[str, ...] | None) -> tuple[Picture, ...]:
        wanted = [s for s in sheets if (s.chapter.kind in kinds if kinds else s.chapter.kind not in folded)]
        return tuple(picture(sheet, HEADINGS, words) for sheet in wanted)

    return Page(
        study,
        simulated=any(record.device == SIMULATED for record in records),
        question=found.planned.question if found.planned is not None else "",
        facts=tuple(_facts(found, records)),
        other=other,
        cards=tuple(cards(conclusions)),
        words={verdict: verdict.value for verdict in Verdict},
        grid=found,
        pictures=pictures(None),
        by_task=pictures(TASK_KINDS),
        compute=pictures(COMPUTE_KINDS),
        laws=tuple(law_tables(study)),
        flags=tuple(flag_words(study)),
        trust=pictures(TRUST_KINDS),
        diagnostics=tuple(table for table in tables if table is not None and table.rows),
        origin=tuple(origin(records)),
        made=made(),
        version=package_version(),
        seeds_known=tables[2] is not None,
    )


def made() -> str:
    """When, and by which version."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, ecgscale {package_version()}"


def package_version() -> str:
    return version("ecgscale")


def render(whole: object, template: str) -> str:
    """A page as HTML that needs nothing beside it."""
    environment = Environment(
        loader=PackageLoader("ecgscale.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = _interval
    return environment.get_template(template).render(page=whole)


def picture(sheet: Sheet, headings: Mapping[str, str], caption_of: Callable[[Chapter], str]) -> Picture:
    """A sheet with its heading, by the kind of its chapter, and its caption."""
    chapter = sheet.chapter
    source = "data:image/svg+xml;base64," + base64.b64encode(sheet.svg.encode()).decode()
    first = sheet.name == chapter.name
    heading = f"{headings[chapter.kind]}{', ' + chapter.target if chapter.target else ''}"
    words = caption_of(chapter) if first else "Continued."
    width_rem = SCALE * sheet.width_inches * PIXELS_PER_INCH / PIXELS_PER_REM
    style = f"width: clamp({SMALLEST * width_rem:.4g}rem, 100%, {width_rem:.4g}rem)"
    return Picture(sheet.name, heading, words, source, style, tuple(f"figures/{file}" for file in sheet.files))


HEADINGS = {
    "conclusions": "The conclusions, means over tasks",
    "conclusions-by-task": "The conclusions, task by task",
    "crossing": "Where one family overtakes the other",
    "scaling": "Loss against parameters and records",
    "lines": "Laws in one variable",
    "efficiency": "Who needs less",
    "loss-to-loss": "How losses elsewhere follow",
    "surface": "The plane of parameters and records",
    "frontier": "Compute-optimal sizes",
    "residuals": "What the law misses",
    "hold-out": "Does the law predict what it has not seen",
    "corner": "How sure the parameters are",
}


def _facts(found: Grid, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    done = [r for r in latest(records).values() if r.status == Status.COMPLETED]
    total = len(found.progress.trials)
    sizes, amounts = [r.n_params for r in done], [r.n_records for r in done]
    facts = [
        ("trials done", f"{len(done)} of {total}"),
        ("parameters N", f"{short(min(sizes))} – {short(max(sizes))}"),
        ("records D", f"{short(min(amounts))} – {short(max(amounts))}"),
        ("seeds per cell", str(len({r.seed for r in done}))),
    ]
    if found.planned is not None:
        facts += [
            ("trained on", found.planned.data.train_on),
            ("read out on", ", ".join(found.planned.data.transfer_to)),
        ]
    return [fact for fact in facts if fact[1]]


def _interval(text: str) -> Markup:
    """`0.34 [0.31, 0.37]` with its interval in a lighter hand."""
    value, bracket, ends = text.partition(" [")
    if not bracket:
        return Markup.escape(text)
    return Markup('{} <span class="ends">[{}</span>').format(value, ends)
