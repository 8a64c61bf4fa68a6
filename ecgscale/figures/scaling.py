"""Loss against N and against D: runs, the fitted lines at levels of the other axis, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ecgscale.figures.fits import Fits, axis_label, predict_along, title
from ecgscale.figures.sheets import columns_for, grid, only_words, say, sheets, shown
from ecgscale.figures.style import BANDS, distinct, label_ends, log_x, log_y, mark_range, plain, ramp
from ecgscale.fitted import Fitted
from ecgscale.laws import Prediction

MOST_LINES = 6
"""Levels of the other axis up to which each gets a line and a name; beyond, a few lines and a colour bar."""

FEW_LINES = 5

GROUPS_A_SHEET = 6


def scaling_figures(fits: Fits) -> Iterator[Figure]:
    """Per group a panel against N over one against D; a single group has them side by side.

    Points are runs, lines the joint law at levels of the other axis.
    """
    for fitted in sheets(fits.fitted, GROUPS_A_SHEET):
        n_columns = 2 if len(fitted) == 1 else columns_for(len(fitted))
        n_rows = 1 if len(fitted) == 1 else 2 * -(-len(fitted) // n_columns)
        note = f"Points: runs. Lines: the law at levels of the other axis. {BANDS[:-1]} (outer lines)."
        figure, axes = grid(n_rows, n_columns, 2.6 if n_rows == 1 else 1.85, fits.heading, note)
        for row, (x, level) in enumerate((("n", "d"), ("d", "n"))):
            bar = _Ramp(fitted, level)
            used = []
            for i, one in enumerate(fitted):
                across, down = (row, 0) if len(fitted) == 1 else (i % n_columns, row + 2 * (i // n_columns))
                axis = axes[down, across]
                heading = title(one) if row == 0 else ""
                if one.points.empty:
                    only_words(axis, heading, one.refused or "no points")
                    continue
                _draw_levels(shown(axis), one, x, level, bar)
                axis.set_title(heading)
                axis.set_xlabel(axis_label(one, x, fits.of_sweep))
                if across == 0:
                    axis.set_ylabel("loss" if fits.of_sweep else plain(fits.target))
                used.append(axis)
            bar.add_to(figure, used)
        yield figure


class _Ramp:
    """The colours of a level axis, shared by the panels of a sheet."""

    def __init__(self, fitted: Sequence[Fitted], level: str) -> None:
        values = pd.concat([one.points[level] for one in fitted]).astype(float)
        values = values[values > 0]
        low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
        self.level = level
        self.norm = LogNorm(low / 1.001, high * 1.001)
        self.named = all(one.points[level].nunique() <= MOST_LINES for one in fitted)

    def colour(self, value: Any) -> Any:
        return ramp()(self.norm(value))

    def lines_at(self, points: pd.DataFrame) -> list[float]:
        """Every level, or a few spread evenly over the points."""
        levels = np.unique(points[self.level].to_numpy(dtype=float))
        if len(levels) <= MOST_LINES:
            return [float(v) for v in levels]
        wanted = np.quantile(points[self.level], np.linspace(0.04, 0.96, FEW_LINES), method="nearest")
        return [float(v) for v in np.unique(wanted)]

    def add_to(self, figure: Figure, axes: list[Axes]) -> None:
        """A colour bar, unless the lines carry names."""
        if self.named or not axes:
            return
        bar = figure.colorbar(ScalarMappable(self.norm, ramp()), ax=axes, aspect=35, pad=0.01, fraction=0.05)
        bar.set_label(self.level.upper(), labelpad=2)
        assert self.norm.vmin is not None and self.norm.vmax is not None
        mark_range(bar.ax.yaxis, self.norm.vmin, self.norm.vmax)


def _draw_levels(axis: Axes, fitted: Fitted, x: str, level: str, bar: _Ramp) -> None:
    points = fitted.points
    many = len(points) > 60
    axis.scatter(
        points[x], points["loss"], s=6 if many else 11, c=bar.colour(points[level]), linewidths=0, zorder=3, alpha=0.85
    )
    seen = points["loss"].tolist()
    ends, colours = {}, {}
    if fitted.fit is not None:
        curve = np.geomspace(points[x].min(), points[x].max(), 60)
        values = bar.lines_at(points)
        for value, name in zip(values, distinct(values), strict=True):
            predicted = predict_along(fitted.fit, x, curve, value)
            colour = bar.colour(value)
            axis.plot(curve, predicted.value, color=colour)
            draw_bands(axis, curve, predicted, colour, of_runs=value in (values[0], values[-1]))
            if bar.named:
                ends[name], colours[name] = float(predicted.value[-1]), colour
                seen += predicted.value.tolist()
    elif fitted.refused:
        say(axis, f"no fit: {fitted.refused}", 90)
    log_x(axis, points[x])
    log_y(axis, seen)
    label_ends(axis, ends, colours, f"{level.upper()}")


def draw_bands(axis: Axes, x: Any, predicted: Prediction, colour: Any, *, of_runs: bool = True) -> None:
    """The 95 % interval of a new run, light and only if asked for, under that of the mean."""
    bands = [(predicted.low, predicted.high, 0.2)]
    if of_runs:
        bands.insert(0, (predicted.new_low, predicted.new_high, 0.09))
    for low, high, alpha in bands:
        if low is not None and high is not None:
            axis.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)
