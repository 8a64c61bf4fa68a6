"""Studies become figures: vector PDF at the width of a journal page. The only room, with `check_sheet`, that draws.

It draws what a `Study` holds and fits nothing but the profile of a floor. What can't be drawn is said in words in its
place, never left out.
"""

from ecgscale.figures.book import MAIN_KINDS, figures_of, write_figures
from ecgscale.figures.style import HUES, MARKERS, PAGE_WIDTH, STYLE, mark_values

__all__ = ["HUES", "MAIN_KINDS", "MARKERS", "PAGE_WIDTH", "STYLE", "figures_of", "mark_values", "write_figures"]
