"""Residuals against the prediction and against every axis: what a law misses shows as a trend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.fits import Fits, axis_label, columns, group_name, log_residuals, variables
from ecgscale.figures.sheets import grid, only_words, sheets, shown
from ecgscale.figures.style import HUES, log_x, plain
from ecgscale.laws.arrays import FloatArray

ROWS_A_SHEET = 4

ENOUGH_FOR_A_TREND = 40
"""Points from which a running median says more than they do."""

N_BINS = 8


def residual_figures(fits: Fits) -> Iterator[Figure]:
    """A row per group: log of observed over predicted against the prediction, then against each variable."""
    for fitted in sheets(fits.fitted, ROWS_A_SHEET):
        names = variables(fitted[0])
        note = "Residual: log of observed over predicted. Shaded: the middle 95 % of the residuals."
        if any(len(one.points) >= ENOUGH_FOR_A_TREND for one in fitted):
            note += f" Line: medians of {N_BINS} bins."
        figure, axes = grid(len(fitted), 1 + len(names), 1.75, f"{fits.heading}: residuals", note)
        for row, one in zip(axes, fitted, strict=True):
            if one.fit is None:
                only_words(row[0], group_name(one), f"no fit: {one.refused}")
                continue
            predicted, residual = log_residuals(one)
            labels = [
                f"predicted {'loss' if fits.of_sweep else plain(fits.target)}",
                *(axis_label(one, v, fits.of_sweep) for v in names),
            ]
            for axis, x, label in zip(row, (predicted, *columns(one)), labels, strict=True):
                _draw(shown(axis), x, residual)
                axis.set_xlabel(label)
            row[0].set_ylabel("residual")
            row[0].set_title(group_name(one), loc="left")
        yield figure


def _draw(axis: Axes, x: FloatArray, residual: FloatArray) -> None:
    low, high = np.quantile(residual, (0.025, 0.975))
    axis.axhspan(low, high, color="black", alpha=0.06, linewidth=0)
    axis.axhline(0.0, color="black", linewidth=0.6)
    axis.plot(x, residual, "o", color=HUES[0], markersize=3 if len(x) < 60 else 2, alpha=0.7, markeredgewidth=0)
    if len(x) >= ENOUGH_FOR_A_TREND:
        bins = [part for part in np.array_split(np.argsort(x, kind="stable"), N_BINS) if len(part)]
        middle = [float(np.exp(np.median(np.log(x[part])))) for part in bins]
        axis.plot(middle, [float(np.median(residual[part])) for part in bins], color=HUES[1])
    log_x(axis, x)
    largest = max(float(np.abs(residual).max()) * 1.15, 1e-12)
    axis.set_ylim(-largest, largest)
    axis.locator_params(axis="y", nbins=5)
    axis.ticklabel_format(axis="y", scilimits=(-3, 3), useMathText=True)
