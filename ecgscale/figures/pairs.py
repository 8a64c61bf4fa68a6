"""How one loss follows another: points, the shifted power law with its band, κ and the floor-free slope."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.sheets import grid, sheets, shown
from ecgscale.figures.style import GREY, SMALL, look, plain, quoted, with_interval
from ecgscale.fitted import FittedPair
from ecgscale.study import Study

PANELS_A_SHEET = 6

REACH = 0.25
"""Of the observed range of the first loss: how far below it a curve goes on, dashed."""

N_CURVE = 120

LONGEST_REASON = 40


def pair_figures(study: Study) -> Iterator[Figure]:
    """A panel per pair of losses; those of a sweep by paradigm, since SL and SSL losses share no unit."""
    groups = {group: i for i, group in enumerate(dict.fromkeys(pair.group for pair in study.pairs))}
    of_sweep = study.folder is not None
    panels: dict[tuple[str, str, str], list[FittedPair]] = {}
    for pair in study.pairs:
        paradigm = ("SSL" if "ssl" in pair.group else "SL") if of_sweep else ""
        panels.setdefault((pair.x, pair.y, paradigm), []).append(pair)
    for sheet in sheets(list(panels.items()), PANELS_A_SHEET):
        n_columns = min(2, len(sheet))
        tallest = max(len(pairs) for _, pairs in sheet)
        note = (
            "Band: 95 % interval of the mean. Dashed: below the observed losses. Slope: d log y / d log x, no floors."
        )
        n_rows = -(-len(sheet) // n_columns)
        figure, axes = grid(n_rows, n_columns, 2.35 + 0.11 * tallest, "loss to loss", note)
        for i, ((x, y, paradigm), pairs) in enumerate(sheet):
            axis = shown(axes[i // n_columns, i % n_columns])
            # an SSL loss is in squared signal, every other loss of a sweep in nats
            _draw_panel(axis, pairs, groups, same_unit=paradigm != "SSL")
            axis.set_xlabel(plain(f"{x} loss, {paradigm}" if paradigm else x))
            axis.set_ylabel(plain(y))
        yield figure


def _draw_panel(axis: Axes, pairs: Sequence[FittedPair], groups: dict[str, int], *, same_unit: bool) -> None:
    x = np.concatenate([pair.points["x"].to_numpy(dtype=float) for pair in pairs])
    y = np.concatenate([pair.points["y"].to_numpy(dtype=float) for pair in pairs])
    for pair in pairs:
        _draw_pair(axis, pair, groups[pair.group])
    if len(x):
        for limit, values, low_side in ((axis.set_xlim, x, REACH), (axis.set_ylim, y, 0.15)):
            span = float(np.ptp(values)) or abs(float(values[0])) * 0.1 or 1.0
            limit(values.min() - low_side * span, values.max() + 0.06 * span)
        if same_unit:
            _draw_diagonal(axis)
    axis.legend(
        loc="upper left",
        bbox_to_anchor=(0.0, -0.2),
        handletextpad=0.3,
        labelspacing=0.25,
        borderaxespad=0,
        handlelength=1,
    )


def _draw_diagonal(axis: Axes) -> None:
    """Where both losses are equal, if that is in view."""
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    low, high = max(x_low, y_low), min(x_high, y_high)
    if low < high:
        axis.plot([low, high], [low, high], color=GREY, linewidth=0.7, linestyle=":", zorder=0)
        axis.annotate(
            "equal",
            (high, high),
            xytext=(-2, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=SMALL,
            color=GREY,
        )


def _draw_pair(axis: Axes, pair: FittedPair, index: int) -> None:
    colour, marker = look(index)
    x = pair.points["x"].to_numpy(dtype=float)
    name = "" if pair.group == "all" else f"{plain(pair.group)}: "
    if pair.fit is None:
        label = f"{name}no fit: {plain(textwrap.shorten(pair.refused or '', LONGEST_REASON, placeholder=' …'), 99)}"
    else:
        label = f"{name}{quoted(pair.fit, 'kappa')}, slope {with_interval(pair.fit.slope, pair.fit.slope_interval)}"
        _draw_curve(axis, pair, colour)
    size = 3.5 if len(x) < 40 else 2.5
    axis.plot(x, pair.points["y"], marker, color=colour, label=label, markersize=size, markeredgewidth=0, alpha=0.85)


def _draw_curve(axis: Axes, pair: FittedPair, colour: str) -> None:
    assert pair.fit is not None
    smallest, largest = pair.fit.support["L0"]
    start = smallest - REACH * (largest - smallest)
    # at or below the floor there is no curve
    start = max(start, pair.fit.theta["E0"] + 1e-3 * (largest - pair.fit.theta["E0"]))
    curve = np.linspace(min(start, smallest), largest, N_CURVE)
    predicted = pair.fit.predict(curve)
    outside = predicted.extrapolated
    axis.plot(curve[~outside], predicted.value[~outside], color=colour)
    axis.plot(curve[outside], predicted.value[outside], color=colour, linestyle=(0, (3, 2)))
    if predicted.low is not None and predicted.high is not None:
        axis.fill_between(curve, predicted.low, predicted.high, color=colour, alpha=0.15, linewidth=0)
