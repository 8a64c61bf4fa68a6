"""Does the law predict what it has not seen: errors by how far beyond the training points they were made."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ecgscale.figures.fits import Fits, group_name, variable_name
from ecgscale.figures.sheets import grid, only_words, sheets, shown
from ecgscale.figures.style import HUES, log_x, log_y, plain
from ecgscale.laws import HoldOut
from ecgscale.laws.arrays import FloatArray

PANELS_A_SHEET = 8

WORDS = {"law": "law", "best_so_far": "best so far", "floor_free": "no floor"}

SMALLEST = 1e-3
"""Of the largest error: smaller ones are drawn here, for a log axis has no zero."""

N_DISTANCES = 6
"""Bins of distance for the mean, where there are more distances than that."""


def hold_out_figures(fits: Fits) -> Iterator[Figure]:
    """A panel per group and axis that has levels to hold out."""
    places = [(one, held) for one in fits.fitted for held in one.held_out]
    if not places:
        return
    n_columns = min(2, len(places))
    for sheet in sheets(places, PANELS_A_SHEET, in_row=n_columns):
        note = "Trained up to one level, judged on all above. Points: runs. Lines: means; in titles, far weighs more."
        figure, axes = grid(-(-len(sheet) // n_columns), n_columns, 1.8, f"{fits.heading}: hold-out", note)
        for i, (one, held) in enumerate(sheet):
            axis = axes[i // n_columns, i % n_columns]
            variable = plain(variable_name(one, {"N": "n", "D": "d"}.get(held.axis, "x") if fits.joint else "x"))
            name = f"{group_name(one)} held out by {variable}".strip()
            if math.isnan(held.error["law"]):
                reasons = [window.reason for window in held.windows if window.reason]
                only_words(axis, name, f"never predicted: {reasons[-1]}" if reasons else "never predicted")
                continue
            _draw(shown(axis), held)
            errors = ", ".join(f"{words} {_per_cent(held.error[key])}" for key, words in WORDS.items())
            axis.set_title(f"{name}\n{errors}")
            axis.set_xlabel(f"{variable} / largest {variable} trained on")
            if i % n_columns == 0:
                axis.set_ylabel("error, %")
        keys = [Line2D([], [], color=hue, marker="o", markersize=2.5) for _, hue in zip(WORDS, HUES, strict=False)]
        figure.legend(keys, list(WORDS.values()), loc="outside lower center", ncols=len(WORDS))
        yield figure


def _draw(axis: Axes, held: HoldOut) -> None:
    points = [point for window in held.windows if window.reason is None for point in window.points]
    factor = np.exp([point.distance for point in points])
    errors = {name: 100 * np.abs([getattr(point, name) for point in points]) for name in WORDS}
    largest = max(float(error.max()) for error in errors.values()) or 1.0
    seen: list[float] = []
    for error, hue in zip(errors.values(), HUES, strict=False):
        error = np.maximum(error, SMALLEST * largest)
        axis.plot(factor, error, "o", color=hue, markersize=1.8, alpha=0.45, markeredgewidth=0)
        axis.plot(*_means(factor, error), "-o", color=hue, markersize=2.5)
        seen += error.tolist()
    log_x(axis, factor, levels=False)
    log_y(axis, seen, 0.06)


def _per_cent(error: float) -> str:
    return f"{100 * error:.2g} %" if error >= 1e-5 else "< 0.001 %"


def _means(factor: FloatArray, error: FloatArray) -> tuple[list[float], list[float]]:
    """The mean error at every distance, or in a few bins of them."""
    rounded = np.round(np.log(factor), 3)
    if len(np.unique(rounded)) > N_DISTANCES:
        edges = np.quantile(rounded, np.linspace(0, 1, N_DISTANCES + 1)[1:-1])
        rounded = np.searchsorted(edges, rounded, side="right").astype(float)
    parts = [rounded == value for value in np.unique(rounded)]
    return [float(np.exp(np.log(factor[p]).mean())) for p in parts], [float(error[p].mean()) for p in parts]
