"""The conclusions as intervals against what would separate yes from no: a panel per conclusion, a row per finding.

Hue and marker both say the verdict, so that it survives print in grey. Findings without a value are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ecgscale.figures.sheets import head
from ecgscale.figures.style import GREY, HUES, PAGE_WIDTH, SMALL, between, log_limits, mark_range, plain
from ecgscale.findings import Conclusion, Finding, Verdict

LOOKS = {
    Verdict.SUPPORTED: (HUES[2], "o"),
    Verdict.CONTRADICTED: (HUES[1], "X"),
    Verdict.UNDECIDED: (GREY, "o"),
}

ROW = 0.17
"""Inches per finding."""

ROWS_A_SHEET = 40

WIDEST_AXIS = 100.0
"""An end this many times beyond the null or the value, or below its inverse, is drawn as an arrow."""

LONGEST_LABEL = 72


def claim_figures(conclusions: Sequence[Conclusion], *, one_task: bool) -> Iterator[Figure]:
    """The pooled findings, or those of single tasks."""
    found = [[f for f in c.findings if f.one_task == one_task] for c in conclusions]
    panels = [(c, [f for f in every if has_value(f)], len(every)) for c, every in zip(conclusions, found, strict=True)]
    for sheet in _sheets([panel for panel in panels if panel[2]]):
        n_rows = [max(len(known), 1) for _, known, _ in sheet]
        height = 0.75 + sum(ROW * n + (0.52 if known else 0.2) for n, (_, known, _) in zip(n_rows, sheet, strict=True))
        figure = Figure(figsize=(PAGE_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.12))
        what = "single tasks" if one_task else "means over tasks"
        note = "Line: 95 % interval; arrow: it goes on. Vertical line: what separates yes from no."
        head(figure, f"conclusions: {what}", note)
        ratios = [n + (1.6 if known else 0.1) for n, (_, known, _) in zip(n_rows, sheet, strict=True)]
        axes = figure.subplots(len(sheet), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for axis, panel in zip(axes, sheet, strict=True):
            _draw_panel(axis, *panel)
        keys = [
            Line2D([], [], color=hue, marker=marker, linestyle="", markersize=4, markerfacecolor=_fill(verdict, hue))
            for verdict, (hue, marker) in LOOKS.items()
        ]
        figure.legend(keys, [str(verdict) for verdict in LOOKS], loc="outside lower center", ncols=3)
        yield figure


def claim_numbers(conclusions: Sequence[Conclusion], *, one_task: bool) -> pd.DataFrame:
    """One row per finding."""
    shown = ("subject", "target", "quantity", "value", "low", "high", "null", "verdict", "reason", "would_decide")
    rows = [
        {"conclusion": c.name} | {name: getattr(f, name) for name in shown} | {"flags": " ".join(f.flags)}
        for c in conclusions
        for f in c.findings
        if f.one_task == one_task
    ]
    return pd.DataFrame(rows, columns=["conclusion", *shown, "flags"])


Panel = tuple[Conclusion, list[Finding], int]
"""A conclusion, its findings that have a value, and how many there are in all."""


def has_value(finding: Finding) -> bool:
    return finding.value is not None and math.isfinite(finding.value)


def _sheets(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    """Whole conclusions together as long as they fit; one with more findings than a sheet is cut."""
    sheet: list[Panel] = []
    for conclusion, known, n_all in panels:
        for first in range(0, max(len(known), 1), ROWS_A_SHEET):
            part = known[first : first + ROWS_A_SHEET]
            if sheet and sum(len(found) + 2 for _, found, _ in sheet) + len(part) > ROWS_A_SHEET:
                yield sheet
                sheet = []
            sheet.append((conclusion, part, n_all))
    if sheet:
        yield sheet


def _draw_panel(axis: Axes, conclusion: Conclusion, found: Sequence[Finding], n_all: int) -> None:
    without = n_all - len(found)
    words = plain(conclusion.question, 100) + (f"  ({without} of {n_all} without a value)" if without and found else "")
    place = axis.get_figure(root=True)
    assert place is not None
    name = axis.annotate(
        words, (0.01, 1.0), xycoords=(place.transFigure, axis.transAxes), xytext=(0, 3), textcoords="offset points"
    )
    name.set_fontweight("bold")
    name.set_in_layout(False)  # it stands over the labels, too
    axis.set_title(" ", pad=1)  # keeps its place
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=SMALL)
    limits = limits_of(found)
    if limits is None:
        axis.spines["bottom"].set_visible(False)
        axis.set_xticks([])
        axis.set_yticks([])
        over: dict[str, Any] = {"xycoords": name.xycoords, "textcoords": "offset points", "va": "top", "color": GREY}
        axis.annotate(f"{n_all} undecided, without a value", (0.01, 1.0), xytext=(0, 0), fontsize=SMALL, **over)
        return
    axis.set_ylim(len(found) - 0.4, -0.6)
    axis.set_yticks(range(len(found)), [plain(f"{f.subject}, {f.target}", LONGEST_LABEL) for f in found])
    if is_ratio(found):
        axis.set_xscale("log")
        mark_range(axis.xaxis, *limits)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(6))
    for null in {f.null for f in found if f.null is not None}:
        axis.axvline(null, color="black", linewidth=0.7, zorder=1)
    axis.set_xlabel(plain("; ".join(dict.fromkeys(f.quantity for f in found)), 130), fontsize=SMALL, labelpad=1)
    axis.set_xlim(limits)
    for row, finding in enumerate(found):
        _draw_row(axis, row, finding, limits)


def _draw_row(axis: Axes, row: int, finding: Finding, limits: tuple[float, float]) -> None:
    hue, marker = LOOKS[finding.verdict]
    beside: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "va": "center",
        "fontsize": SMALL,
        "annotation_clip": False,
    }
    axis.annotate(between(finding.value, finding.low, finding.high), (1.02, row), color=hue, **beside)
    assert finding.value is not None
    if finding.low is not None or finding.high is not None:
        wanted = (-math.inf if finding.low is None else finding.low, math.inf if finding.high is None else finding.high)
        ends = [min(max(end, limits[0]), limits[1]) for end in wanted]
        axis.plot(ends, (row, row), color=hue, linewidth=1.2)
        for end, drawn, arrow in zip(wanted, ends, ("<", ">"), strict=True):
            if end != drawn:
                axis.plot(drawn, row, arrow, color=hue, markersize=3.5, clip_on=False)
    if limits[0] <= finding.value <= limits[1]:
        axis.plot(finding.value, row, marker, color=hue, markersize=4, markerfacecolor=_fill(finding.verdict, hue))


def _fill(verdict: Verdict, hue: str) -> str:
    return "white" if verdict is Verdict.UNDECIDED else hue


def is_ratio(found: Sequence[Finding]) -> bool:
    """Whether findings are read on a log axis: their null is one, as that of ratios is, or more."""
    return all((f.null is None or f.null >= 1) and (f.value is None or f.value > 0) for f in found)


def limits_of(found: Sequence[Finding]) -> tuple[float, float] | None:
    """Around every null, value and interval, but no wider than `WIDEST_AXIS`; None if nothing has a value."""
    known = [f for f in found if has_value(f)]
    if not known:
        return None
    middles = [m for f in known for m in (f.null, f.value) if m is not None]
    ends = [end for f in known for end in (f.low, f.high) if end is not None]
    if is_ratio(found):
        least, most = min(middles) / WIDEST_AXIS, max(middles) * WIDEST_AXIS
        return log_limits([*middles, *(min(max(end, least), most) for end in ends)], 0.07)
    span = max(max(middles) - min(middles), 1e-3)
    least, most = min(middles) - WIDEST_AXIS * span, max(middles) + WIDEST_AXIS * span
    shown = [*middles, *(min(max(end, least), most) for end in ends)]
    pad = 0.07 * max(max(shown) - min(shown), 1e-9)
    return min(shown) - pad, max(shown) + pad
