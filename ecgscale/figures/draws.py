"""The bootstrap draws of E and the exponents against each other, and the profile of E: how they trade."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ecgscale.errors import FitError
from ecgscale.figures.fits import Fits, columns, exponents, group_name
from ecgscale.figures.sheets import head, say, sheets
from ecgscale.figures.style import GREY, HUES, PAGE_WIDTH, SMALL, SYMBOLS, quoted
from ecgscale.fitted import Fitted
from ecgscale.laws import profile_floor
from ecgscale.laws.arrays import FloatArray
from ecgscale.study import is_held

GROUPS_A_SHEET = 4

ENOUGH_FOR_CONTOURS = 100
"""Draws below which a contour is that of the smoothing."""

SHOWN_QUANTILES = (0.005, 0.995)
"""A few runaway draws would shrink all others to a dot; the interval shades are never outside."""

NARROWEST = 0.02
"""Of an exponent's axis, and of E's as a share of the smallest loss: draws at a bound differ by rounding only."""

PROFILE_SIDE = 4
"""Values of E on either side of the interval that a profile shows at least."""

N_BINS = 40
REACH = 4.0
"""Standard deviations that the histogram under the contours covers."""

SMOOTHING = 1.6
"""Bins: standard deviation of the kernel under the contours."""


def corner_figures(fits: Fits, *, profile: bool) -> Iterator[Figure]:
    """A corner per group; a form with neither floor nor second exponent has none.

    Args:
        profile: Draw the profile of E in the empty half, at the price of about forty fits a group.
    """
    if not any(one.fit is not None and one.fit.draws is not None and len(_names(one)) > 1 for one in fits.fitted):
        return
    for fitted in sheets(fits.fitted, GROUPS_A_SHEET, in_row=2):
        n_columns = min(2, len(fitted))
        n_rows = -(-len(fitted) // n_columns)
        size = (PAGE_WIDTH, 0.5 + 3.4 * n_rows) if n_columns > 1 else (4.8, 4.9)
        figure = Figure(figsize=size, layout="constrained")
        note = "Points: bootstrap draws. Contours: 68 and 95 % of them. Shaded: 95 % intervals. Cross: the estimate."
        head(figure, f"{fits.heading}: bootstrap", note)
        places = figure.subfigures(n_rows, n_columns, squeeze=False)
        for place, one in zip(places.flat, fitted, strict=False):
            _corner(place, one, profile)
        yield figure


def _names(fitted: Fitted) -> tuple[str, ...]:
    assert fitted.fit is not None
    return (*(("E",) if fitted.fit.form.has_floor else ()), *exponents(fitted.fit))


def _corner(place: SubFigure, fitted: Fitted, profile: bool) -> None:
    place.suptitle(group_name(fitted), fontsize=7)
    if fitted.fit is None or fitted.fit.draws is None:
        axis = place.subplots()
        axis.set_axis_off()
        say(axis, f"no fit: {fitted.refused}" if fitted.fit is None else "no bootstrap draws")
        return
    names = _names(fitted)
    order = list(fitted.fit.theta)
    draws = fitted.fit.draws[:, [order.index(name) for name in names]]
    draws = draws[np.isfinite(draws).all(axis=1)]
    point = [fitted.fit.theta[name] for name in names]
    smallest = float(fitted.points["loss"].min())
    least = [NARROWEST * smallest if name == "E" else NARROWEST for name in names]
    ranges = [_range(draws[:, i], point[i], least[i]) for i in range(len(names))]
    held = [is_held(fitted.fit.flags, name) for name in names]
    cells = place.add_gridspec(len(names), len(names))
    for i, row in enumerate(names):
        for j, column in enumerate(names[: i + 1]):
            axis = place.add_subplot(cells[i, j])
            if i == j:
                _marginal(axis, fitted, row, draws[:, i], ranges[i])
            else:
                drawn = draws[:, [j, i]]
                _against(axis, drawn, (point[j], point[i]), (ranges[j], ranges[i]), contours=held[i] and held[j])
            _labels(axis, column if i == len(names) - 1 else "", row if j == 0 and i > 0 else "")
    if profile and names[0] == "E" and len(names) > 1 and fitted.fit.bounded is None:
        _profile(place.add_subplot(cells[0, 1:]), fitted)


def _range(draws: FloatArray, point: float, least: float) -> tuple[float, float]:
    """Of an axis: almost all draws and the point; one that has no draw below zero shows next to nothing there."""
    low, high = np.quantile(draws, SHOWN_QUANTILES) if len(draws) else (point, point)
    low, high = min(low, point), max(high, point)
    pad = max(0.08 * (high - low), (least - (high - low)) / 2)
    return float(low - pad if low > pad or low < 0 else -0.04 * (high + pad)), float(high + pad)


def _labels(axis: Axes, below: str, left: str) -> None:
    """Numbers and names at the outer edge only."""
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.ticklabel_format(axis="x", useOffset=False, scilimits=(-4, 5))
    axis.set_xlabel(SYMBOLS.get(below, below))
    axis.tick_params(labelbottom=bool(below), labelleft=bool(left))
    if left:
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 5))
        axis.set_ylabel(SYMBOLS.get(left, left))


def _marginal(axis: Axes, fitted: Fitted, name: str, draws: FloatArray, limits: tuple[float, float]) -> None:
    assert fitted.fit is not None
    bounds = (fitted.fit.interval or {}).get(name)
    if bounds is not None:
        axis.axvspan(*bounds, color=HUES[0], alpha=0.12, linewidth=0)
    if len(draws):
        axis.hist(draws, bins=list(np.linspace(*limits, 31)), histtype="step", color=HUES[0], linewidth=0.8)
    axis.axvline(fitted.fit.theta[name], color=HUES[1], linewidth=0.9)
    axis.set_xlim(limits)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_title(quoted(fitted.fit, name), fontsize=SMALL)


def _against(
    axis: Axes,
    draws: FloatArray,
    point: tuple[float, float],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    *,
    contours: bool,
) -> None:
    dots: dict[str, Any] = {"color": HUES[5], "markersize": 1.2, "alpha": 0.5, "markeredgewidth": 0}
    axis.plot(draws[:, 0], draws[:, 1], "o", rasterized=True, **dots)  # ten thousand marks to a sheet
    spread_out = bool((draws.std(axis=0) > 1e-3 * np.ptp(ranges, axis=1)).all()) if len(draws) else False
    if contours and spread_out and len(draws) >= ENOUGH_FOR_CONTOURS:  # what is not held has no ellipse
        _contours(axis, draws)
    axis.plot(*point, "+", color=HUES[1], markersize=6, markeredgewidth=1.3, zorder=4)
    axis.set_xlim(ranges[0])
    axis.set_ylim(ranges[1])
    if spread_out:
        r = float(np.mean(np.prod((draws - draws.mean(axis=0)) / draws.std(axis=0), axis=1)))
        axis.set_title(f"r = {r:.2f}".replace("-", "−"), fontsize=SMALL, color=GREY, pad=2)


def _contours(axis: Axes, draws: FloatArray) -> None:
    """Around 68 and 95 % of a smoothed histogram along the principal axes: E and α lie on a ridge as thin as a line."""
    middle, scale = np.median(draws, axis=0), draws.std(axis=0)
    variance, turned = np.linalg.eigh(np.cov((draws - middle) / scale, rowvar=False))
    root = np.sqrt(np.maximum(variance, 1e-12))
    whitened = (draws - middle) / scale @ turned / root
    counts, edges, _ = np.histogram2d(whitened[:, 0], whitened[:, 1], bins=N_BINS, range=[(-REACH, REACH)] * 2)
    offsets = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (offsets / SMOOTHING) ** 2)
    for along in (0, 1):
        counts = np.apply_along_axis(np.convolve, along, counts, kernel / kernel.sum(), "same")
    ordered = np.sort(counts.ravel())[::-1]
    inside = np.cumsum(ordered) / max(float(ordered.sum()), 1e-300)
    outer, inner = (
        float(ordered[min(int(np.searchsorted(inside, share)), len(ordered) - 1)]) for share in (0.95, 0.68)
    )
    if 0 < outer < inner:
        centres = (edges[1:] + edges[:-1]) / 2
        cells = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1)
        place = cells * root @ turned.T * scale + middle
        shares = [outer, inner]
        axis.contour(place[..., 0], place[..., 1], counts, levels=shares, colors=[HUES[0]], linewidths=[0.7, 1.0])


def _profile(axis: Axes, fitted: Fitted) -> None:
    """The objective along E, as a multiple of its minimum, and the interval it gives."""
    assert fitted.fit is not None
    weights: Any = fitted.points["weight"] if "weight" in fitted.points else None
    objective = fitted.fit.objective
    try:
        found = profile_floor(
            fitted.law,
            *columns(fitted),
            fitted.points["loss"],
            weights=weights,
            objective=objective.name,
            delta=objective.delta,
        )
    except FitError:  # a value of E at which nothing fits
        axis.set_axis_off()
        return
    smallest = found.objective.min()
    if not smallest > 1e-12:  # noise-free points: everything is infinitely worse than nothing
        axis.set_axis_off()
        return
    ratio = found.objective / smallest
    low, high = found.interval
    inside = np.flatnonzero((found.floor >= low) & (found.floor <= high))
    reach = max(PROFILE_SIDE, 2 * len(inside))
    shown = slice(max(int(inside[0]) - reach, 0), int(inside[-1]) + reach + 1)
    axis.axvspan(low, high, color=HUES[2], alpha=0.12, linewidth=0)
    axis.plot(found.floor[shown], ratio[shown], "o-", color=HUES[2], markersize=1.8)
    axis.axvline(fitted.fit.theta["E"], color=HUES[1], linewidth=0.9)
    axis.set_yscale("linear")
    axis.set_ylim(1 - 0.05 * (ratio[shown].max() - 1) - 1e-9, None)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.ticklabel_format(useOffset=False)
    axis.yaxis.tick_right()
    axis.spines["right"].set_visible(True)
    axis.spines["left"].set_visible(False)
    axis.set_title(f"objective / minimum, along E: [{low:.3g}, {high:.3g}]", fontsize=SMALL, color=HUES[2])
