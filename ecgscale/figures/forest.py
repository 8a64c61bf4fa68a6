"""Who needs less, and who improves faster: every comparison of two groups as a row, every quantity as a column.

All quantities are ratios around 1 on a log axis. A row that has no answer says so in grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.sheets import head, sheets
from ecgscale.figures.style import GREY, HUES, PAGE_WIDTH, SMALL, SYMBOLS, log_limits, mark_range, plain
from ecgscale.laws import Efficiency, EqualLoss, Ratio, TransferEfficiency
from ecgscale.study import IN_D, IN_N, Comparison, Study, is_held
from ecgscale.words import short

ROWS_A_SHEET = 36

WIDEST_AXIS = 100.0
"""A ratio beyond this, or below its inverse, ends in an arrow."""

NARROWEST_AXIS = 1.25

COLOURS = {"multiplier": HUES[0], "ratio": HUES[1]}


@dataclass(frozen=True)
class Mark:
    """One ratio: what stands at its place instead if it has no value, and whether it is doubtful.

    Attributes:
        span: Smallest and largest value over the losses that both arms observed; None for a ratio of exponents.
        words: Why there is no value, or why it is grey.
    """

    value: float
    low: float | None = None
    high: float | None = None
    span: tuple[float, float] | None = None
    words: str = ""


@dataclass(frozen=True)
class Row:
    """A comparison of arms a and b, and its marks by column."""

    pair: tuple[str, str]
    kind: str
    marks: dict[str, Mark]


def compared(study: Study) -> dict[str, list[Comparison]]:
    """Target → its comparisons; those of how losses transfer are a target of their own."""
    targets: dict[str, list[Comparison]] = {}
    for comparison in study.comparisons:
        transfers = isinstance(comparison.efficiency, TransferEfficiency)
        targets.setdefault("loss-to-loss" if transfers else comparison.target, []).append(comparison)
    return targets


def forest_numbers(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row per mark."""
    rows: list[dict[str, Any]] = []
    for row in map(_row, comparisons):
        for column, mark in row.marks.items():
            head = {"a": row.pair[0], "b": row.pair[1], "of": row.kind, "ratio": column}
            low, high = mark.span or (None, None)
            values = {"value": mark.value, "low": mark.low, "high": mark.high, "span_low": low, "span_high": high}
            rows.append(head | values | {"remark": mark.words})
    return pd.DataFrame(rows)


def forest_figures(target: str, comparisons: Sequence[Comparison]) -> Iterator[Figure]:
    """Sheets of rows, those of a pair of groups together."""
    rows = [_row(comparison) for comparison in comparisons]
    order = {pair: i for i, pair in enumerate(dict.fromkeys(row.pair for row in rows))}
    rows.sort(key=lambda row: order[row.pair])
    columns = list(dict.fromkeys(name for row in rows for name in row.marks))
    columns.sort(key=lambda name: not name.endswith("equal loss"))  # multipliers first; the sort is stable
    for sheet in sheets(rows, ROWS_A_SHEET):
        note = (
            "Size ratio above 1: a needs that many times less than b. Exponent ratio above 1: a improves faster. "
            "Line: 95 % interval; arrow: it goes on; pale bar: range over all losses that both reached."
        )
        height = 1.15 + 0.155 * len(sheet) + 0.155 * len({row.pair for row in sheet})
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        head(figure, f"{target}: efficiency of a over b", note)
        axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        heights = _rows_of_paper(axes[0], sheet)
        for axis, column in zip(axes, columns, strict=True):
            _draw_column(axis, column, sheet, heights)
        axes[0].set_ylim(max(heights) + 0.7, -1.5)
        yield figure


# --- what a comparison says ----------------------------------------------------------------------------------------


def _row(comparison: Comparison) -> Row:
    pair = comparison.a, comparison.b
    efficiency = comparison.efficiency
    if isinstance(efficiency, TransferEfficiency):
        ratios = (("κ, a / b", efficiency.kappa), ("log slope, a / b", efficiency.log_slope))
        marks = {name: _ratio(ratio, "kappa") for name, ratio in (*ratios, ("slope, a / b", efficiency.slope))}
        return Row(pair, plain(comparison.target.split(" → ")[-1], 34), marks)
    kind = comparison.kind
    variable = next((name for start, name in ((IN_N, "N"), (IN_D, "D")) if kind.startswith(start)), None)
    if variable is None:  # of a table: the C of `loss(C) power`
        variable = plain(kind.removeprefix(f"{comparison.target}(").rpartition(")")[0])
    return Row(pair, kind, _marks(efficiency, variable))


def _marks(efficiency: Efficiency, variable: str) -> dict[str, Mark]:
    """By column; a law in one variable calls it X and its exponent alpha, whatever they are."""
    marks = {f"{variable if e.axis == 'X' else e.axis}, equal loss": _multiplier(e) for e in efficiency.equal_loss}
    for ratio in efficiency.exponents:
        name = ratio.name.split("_a/")[0]
        symbol = "β" if variable == "D" else SYMBOLS.get(name, name)
        marks[f"{symbol}, a / b"] = _ratio(ratio, name)
    return marks


def _multiplier(equal: EqualLoss) -> Mark:
    if equal.middle is None or not math.isfinite(equal.middle.value):
        return Mark(math.nan, words="not reached in range")
    return Mark(equal.middle.value, equal.middle.low, equal.middle.high, equal.span)


def _ratio(ratio: Ratio, parameter: str) -> Mark:
    """Grey where either exponent is not held, or b's can't be told from zero."""
    estimate = ratio.estimate
    own = [flag.partition(":")[2] for flag in ratio.flags if flag[:2] in ("a:", "b:")]
    held = is_held(own, parameter) and "unidentified" not in own
    words = "b near zero" if "near_zero" in ratio.flags else "" if held else "not identified"
    words = "no common losses" if "no_overlap" in ratio.flags and not words else words
    if not (math.isfinite(estimate.value) and estimate.value > 0):
        return Mark(math.nan, words=words or "no ratio")
    return Mark(estimate.value, estimate.low, estimate.high, words=words)


# --- drawing -------------------------------------------------------------------------------------------------------


def _rows_of_paper(axis: Axes, rows: Sequence[Row]) -> list[float]:
    """Heights of the rows; a line above those of a pair has its name, across all columns."""
    heights, labels, at = [], [], 0.0
    for i, row in enumerate(rows):
        if i == 0 or row.pair != rows[i - 1].pair:
            name = axis.annotate(
                f"{plain(row.pair[0])} vs {plain(row.pair[1])}",
                (0.0, at),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                fontweight="bold",
                annotation_clip=False,
            )
            name.set_in_layout(False)  # it may be wider than the column it starts in
            at += 1.0
        heights.append(at)
        labels.append(row.kind)
        at += 1.0
    axis.set_yticks(heights, [plain(label) for label in labels], fontsize=SMALL)
    return heights


def _draw_column(axis: Axes, column: str, rows: Sequence[Row], heights: Sequence[float]) -> None:
    marks = [(row.marks[column], height) for row, height in zip(rows, heights, strict=True) if column in row.marks]
    low, high = _limits([mark for mark, _ in marks])
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    mark_range(axis.xaxis, low, high)
    axis.tick_params(axis="y", length=0)
    axis.patch.set_visible(False)  # names of pairs pass under
    axis.spines["left"].set_visible(False)
    axis.set_title(column)
    hue = COLOURS["multiplier" if column.endswith("equal loss") else "ratio"]
    for mark, height in marks:
        _draw_mark(axis, mark, height, hue, (low, high))


def _limits(marks: Sequence[Mark]) -> tuple[float, float]:
    """Around everything finite, one included, but no wider than `WIDEST_AXIS` each way unless a value is there."""
    values = [mark.value for mark in marks if math.isfinite(mark.value)]
    ends = [end for mark in marks for end in (mark.low, mark.high, *(mark.span or ())) if end]
    kept = [min(max(end, 1 / WIDEST_AXIS), WIDEST_AXIS) for end in ends if not math.isnan(end)]
    limits = log_limits([*values, *kept, NARROWEST_AXIS, 1 / NARROWEST_AXIS], 0.07)
    assert limits is not None
    return limits


def _draw_mark(axis: Axes, mark: Mark, height: float, hue: str, limits: tuple[float, float]) -> None:
    colour = GREY if mark.words else hue
    if not math.isfinite(mark.value):
        axis.annotate(mark.words, (0.5, height), **_IN_THE_MIDDLE)
        return
    axis.plot((1.0, 1.0), (height - 0.5, height + 0.5), color="black", linewidth=0.6, zorder=1)
    if mark.span is not None:
        axis.plot(mark.span, (height, height), color=hue, alpha=0.18, linewidth=4.5, solid_capstyle="butt")
    if mark.low is not None and mark.high is not None:
        ends = [min(max(end, limits[0]), limits[1]) for end in (mark.low, mark.high)]
        axis.plot(ends, (height, height), color=colour, linewidth=1.0)
        for end, drawn, arrow in zip((mark.low, mark.high), ends, ("<", ">"), strict=True):
            if end != drawn:
                axis.plot(drawn, height, arrow, color=colour, markersize=3, clip_on=False)
    axis.plot(mark.value, height, "o" if not mark.words else "x", color=colour, markersize=3)
    words = mark.words or short(mark.value, 2)
    axis.annotate(
        words,
        (mark.value, height),
        xytext=(0, 1.5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=SMALL - 1,
        color=colour,
        annotation_clip=False,
    )


_IN_THE_MIDDLE: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "ha": "center",
    "va": "center",
    "fontsize": SMALL - 0.5,
    "color": GREY,
}
