"""The fitted L(N, D) as contours over the plane of the runs, with the compute-optimal frontier through it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.fits import Fits, axis_label, group_name
from ecgscale.figures.sheets import columns_for, grid, only_words, sheets, shown
from ecgscale.figures.style import HUES, SMALL, log_limits, log_x, log_y, ramp
from ecgscale.fitted import Fitted
from ecgscale.laws import Frontier
from ecgscale.laws.arrays import FloatArray
from ecgscale.words import short

GROUPS_A_SHEET = 9
N_CONTOURS = 8


def surface_figures(fits: Fits) -> Iterator[Figure]:
    """A panel per group."""
    for fitted in sheets(fits.fitted, GROUPS_A_SHEET):
        n_columns = columns_for(len(fitted))
        note = "Contours: the law. Points: runs."
        if any(one.frontier is not None for one in fitted):
            note += " Orange: compute-optimal frontier, dashed beyond the runs."
        figure, axes = grid(-(-len(fitted) // n_columns), n_columns, 2.3, fits.heading, note)
        for i, one in enumerate(fitted):
            axis = axes[i // n_columns, i % n_columns]
            if one.fit is None:
                only_words(axis, group_name(one), f"no fit: {one.refused}")
                continue
            _draw_surface(shown(axis), one)
            axis.set_title(group_name(one))
            axis.set_xlabel(axis_label(one, "n", fits.of_sweep))
            if i % n_columns == 0:
                axis.set_ylabel(axis_label(one, "d", fits.of_sweep))
        yield figure


def _draw_surface(axis: Axes, fitted: Fitted) -> None:
    assert fitted.fit is not None
    points = fitted.points
    ranges = [log_limits(points[c], 0.08) for c in ("n", "d")]
    n, d = (np.geomspace(*limits, 60) for limits in ranges if limits is not None)
    surface = fitted.fit.form.loss(fitted.fit.theta, n[None, :], d[:, None])
    levels = _levels(surface)
    if len(levels):
        lines = axis.contour(n, d, surface, levels=levels, cmap=ramp(), linewidths=0.8)
        axis.clabel(lines, fontsize=SMALL - 1, fmt=short)
    axis.scatter(points["n"], points["d"], s=9 if len(points) < 60 else 4, color="black", linewidths=0, zorder=3)
    log_x(axis, points["n"], share=0.08)
    log_y(axis, points["d"], share=0.08, levels=True)
    if fitted.frontier is not None:
        _draw_frontier(axis, fitted.frontier)


def _levels(surface: FloatArray) -> FloatArray:
    low, high = np.log(surface.min()), np.log(surface.max())
    if not high - low > 1e-6:
        return np.empty(0)
    return np.exp(np.linspace(low, high, N_CONTOURS + 2)[1:-1])


def _draw_frontier(axis: Axes, frontier: Frontier) -> None:
    n = np.array([estimate.value for estimate in frontier.n])
    d = np.array([estimate.value for estimate in frontier.d])
    outside = np.array(frontier.extrapolating)
    axis.plot(n, d, color=HUES[1], linestyle=(0, (3, 2)), zorder=2)
    axis.plot(np.where(outside, np.nan, n), np.where(outside, np.nan, d), color=HUES[1], linewidth=1.6, zorder=2)
