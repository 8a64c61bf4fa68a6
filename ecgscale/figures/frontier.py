"""The compute-optimal frontier over the runs it was learned from: N*(C) and D*(C), and where they extrapolate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ecgscale.figures.fits import Fits, group_name
from ecgscale.figures.sheets import grid, only_words, sheets, shown
from ecgscale.figures.style import HUES, log_x, log_y, plain, ramp, with_interval
from ecgscale.fitted import Fitted
from ecgscale.laws import Estimate, Frontier
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.diagnosis import is_identified
from ecgscale.laws.frontier import FLOPS_PER_PARAMETER_AND_SAMPLE

ROWS_A_SHEET = 4


def frontier_figures(fits: Fits) -> Iterator[Figure]:
    """A row per group: N* and D* against the budget, with the exponents a and b. Only for laws of N and D."""
    if not any(one.frontier is not None for one in fits.fitted):
        return
    for fitted in sheets(fits.fitted, ROWS_A_SHEET):
        note = "Line: the frontier with its 95 % band, dashed where it leaves the runs' N or D. Points: runs."
        figure, axes = grid(len(fitted), 2, 1.95, f"{fits.heading}: compute-optimal frontier", note)
        for row, one in zip(axes, fitted, strict=True):
            if one.frontier is None:
                only_words(row[0], group_name(one), f"no fit: {one.refused}" if one.refused else "no frontier")
                continue
            _draw_row(figure, row, one, one.frontier)
        yield figure


def _draw_row(figure: Figure, axes: Any, fitted: Fitted, frontier: Frontier) -> None:
    points = fitted.points
    counted = frontier.cost == "counted" and "flops" in points
    flops = points["flops"] if counted else FLOPS_PER_PARAMETER_AND_SAMPLE * points["n"] * points["d"]
    norm = Normalize(points["loss"].min(), points["loss"].max())
    parts = (("n", "N*", "a", frontier.n, frontier.a), ("d", "D*", "b", frontier.d, frontier.b))
    for axis, (column, name, exponent, estimates, slope) in zip(axes, parts, strict=True):
        drawn = shown(axis).scatter(
            flops, points[column], c=points["loss"], cmap=ramp(), norm=norm, s=7, linewidths=0, zorder=3
        )
        budgets = np.array(frontier.flops)
        _draw_line(axis, budgets, estimates, frontier.extrapolating)
        log_x(axis, [*flops, *budgets], levels=False)
        finite = [e.value for e in estimates]
        log_y(axis, [*points[column], *finite])
        axis.set_xlabel("training FLOPs" if counted else "6 N D")
        axis.set_ylabel(name)
        axis.set_title(_title(group_name(fitted), name, exponent, slope, frontier))
    figure.colorbar(drawn, ax=list(axes), aspect=25, pad=0.01).set_label("loss" if counted else plain(fitted.target))


def _title(group: str, name: str, exponent: str, slope: Estimate, frontier: Frontier) -> str:
    if not np.isfinite(slope.value):
        words = f"no {name} in range"
    elif not is_identified(frontier.flags):
        words = f"{exponent} not held"
    else:
        words = f"{name} ∝ C^{exponent}, {exponent} = {with_interval(slope.value, (slope.low, slope.high))}"
    return f"{group}\n{words}" if group else words


def _draw_line(axis: Axes, budgets: FloatArray, estimates: Sequence[Estimate], extrapolating: Sequence[bool]) -> None:
    value = np.array([e.value for e in estimates])
    low = np.array([np.nan if e.low is None else e.low for e in estimates])
    high = np.array([np.nan if e.high is None else e.high for e in estimates])
    axis.fill_between(budgets, low, high, color=HUES[1], alpha=0.2, linewidth=0)
    axis.plot(budgets, value, color=HUES[1], linestyle=(0, (3, 2)))
    axis.plot(budgets, np.where(extrapolating, np.nan, value), color=HUES[1], linewidth=1.6)
