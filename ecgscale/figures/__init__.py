"""Studies become figures: vector PDF at the width of a journal page. The only room, with `check_sheet`, that draws.

It draws what a `Study` holds and fits nothing but the profile of a floor. What can't be drawn is said in words in its
place, never left out.
"""

from ecgscale.figures.book import (
    MAIN_KINDS,
    Chapter,
    Sheet,
    chapters,
    figures_of,
    slug,
    write_figures,
    write_sheets,
)
from ecgscale.figures.claims import is_ratio, limits_of
from ecgscale.figures.crossing import races
from ecgscale.figures.fits import quoted_exponent
from ecgscale.figures.style import HUES, MARKERS, PAGE_WIDTH, STYLE, between, mark_values
from ecgscale.figures.targets import target_chapters
from ecgscale.words import short

__all__ = [
    "HUES",
    "MAIN_KINDS",
    "MARKERS",
    "PAGE_WIDTH",
    "STYLE",
    "Chapter",
    "Sheet",
    "between",
    "chapters",
    "figures_of",
    "is_ratio",
    "limits_of",
    "mark_values",
    "quoted_exponent",
    "races",
    "short",
    "slug",
    "target_chapters",
    "write_figures",
    "write_sheets",
]
