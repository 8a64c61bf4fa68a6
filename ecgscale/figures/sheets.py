"""Sheets of paper: how many panels fit, what stands above them, and words where there is nothing to draw."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.style import COLUMN_WIDTH, GREY, PAGE_WIDTH, SMALL, plain

Item = TypeVar("Item")

WIDEST = 3
"""Panels side by side: a fourth leaves an inch for each, with its numbers."""


def sheets(items: Sequence[Item], most: int, in_row: int = 1) -> Iterator[Sequence[Item]]:
    """Items in sheets of at most `most`, as even as full rows allow: 7 in sheets of 6 are 4 and 3."""
    if not items:
        return
    even = math.ceil(len(items) / math.ceil(len(items) / most))
    size = math.ceil(even / in_row) * in_row
    for first in range(0, len(items), size):
        yield items[first : first + size]


def columns_for(n: int) -> int:
    """Columns for n panels: as few rows as `WIDEST` allows, then as even as they go."""
    return math.ceil(n / math.ceil(n / WIDEST))


def grid(n_rows: int, n_columns: int, row_height: float, heading: str, note: str = "") -> tuple[Figure, Any]:
    """A figure of panels; a single one is one column of a journal wide. All panels start empty and hidden."""
    width = COLUMN_WIDTH if n_columns == 1 else PAGE_WIDTH
    figure = Figure(figsize=(width, 0.45 + row_height * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    head(figure, heading, note)
    return figure, axes


def head(figure: Figure, heading: str, note: str = "") -> None:
    """What a sheet shows, and in a line under it how to read it."""
    width = int(figure.get_figwidth() * 20)
    lines = [plain(heading, width - 6), *textwrap.wrap(note, width)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=SMALL + 0.5, linespacing=1.25)


def shown(axis: Axes) -> Axes:
    """A panel of a grid that is used after all."""
    axis.set_visible(True)
    return axis


def say(axis: Axes, words: str, longest: int = 160) -> None:
    """Words in the middle of a panel, in place of what can't be drawn."""
    axis.text(
        0.5,
        0.5,
        textwrap.fill(plain(words, longest), 30),
        transform=axis.transAxes,
        ha="center",
        va="center",
        fontsize=SMALL,
        color=GREY,
        clip_on=False,
    )


def only_words(axis: Axes, title: str, words: str) -> None:
    """A panel without axes: its title and why it is empty."""
    shown(axis).set_title(title)
    axis.set_axis_off()
    say(axis, words)
