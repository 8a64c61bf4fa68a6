"""Studies become figures: vector PDF at the width of a journal page. The only file that imports matplotlib.

Colours say one thing each: a colour-blind-safe hue per group (Okabe and Ito 2008), a sequential ramp for the level of
the other axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ecgscale.laws import LawFit, PairFit, Prediction
from ecgscale.laws.arrays import FloatArray
from ecgscale.study import JOINT, Fitted, FittedPair, Study, is_held

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

PAGE_WIDTH = 7.2
"""Inches: two columns of most journals."""

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEVELS = "viridis"

STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # text stays text
}


def write_figures(study: Study, folder: Path) -> list[Path]:
    """Writes every figure of a study as PDF; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with plt.rc_context(STYLE):
        for target in study.targets:
            slug = target.replace(",", "").replace(" ", "-")
            for name, figure in (
                (f"scaling-{slug}", scaling_figure(study, target)),
                (f"surface-{slug}", surface_figure(study, target)),
            ):
                written.append(_save(figure, folder / f"{name}.pdf"))
        if study.pairs:
            written.append(_save(loss_to_loss_figure(study), folder / "loss-to-loss.pdf"))
    return written


def _save(figure: Figure, path: Path) -> Path:
    import matplotlib.pyplot as plt

    # no creation date: the same study gives the same bytes
    figure.savefig(path, metadata={"CreationDate": None})
    plt.close(figure)
    return path


def _joint_fits(study: Study, target: str) -> list[Fitted]:
    return [f for f in study.laws if f.target == target and f.kind == JOINT]


# --- loss against N and D ------------------------------------------------------------------------------------------


def scaling_figure(study: Study, target: str) -> Figure:
    """Top row: loss against N, one line per D; bottom row: loss against D, one line per N; one column per group.

    Points are runs, lines the joint law, the band its 95 % interval at the largest level.
    """
    import matplotlib.pyplot as plt

    fits = _joint_fits(study, target)
    figure, axes = plt.subplots(2, len(fits), figsize=(PAGE_WIDTH, 4.2), squeeze=False, layout="constrained")
    for column, fitted in enumerate(fits):
        for axis, x, level in ((axes[0, column], "n", "d"), (axes[1, column], "d", "n")):
            _draw_levels(axis, fitted, x, level)
            axis.set_xlabel("parameters N" if x == "n" else "training records D")
        axes[0, column].set_title(_title(fitted))
    for row in axes:
        row[0].set_ylabel(f"loss, {target}")
        # one key per row: the levels are the same in all columns, up to what a rung's name rounds
        row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_levels(axis: Axes, fitted: Fitted, x: str, level: str) -> None:
    """Runs and fitted curves along `x`, one colour per value of `level`."""
    import matplotlib.pyplot as plt

    points = fitted.points
    levels = sorted(points[level].unique())
    colours = plt.get_cmap(LEVELS)(np.linspace(0.0, 0.85, len(levels)))
    curve = np.geomspace(points[x].min(), points[x].max(), 60)
    for colour, value in zip(colours, levels, strict=True):
        runs = points[points[level] == value]
        axis.plot(runs[x], runs["loss"], "o", color=colour, label=f"{level.upper()} ≈ {_short(value, 2)}")
        if fitted.fit is not None:
            predicted = _predict(fitted.fit, x, curve, value)
            axis.plot(curve, predicted.value, color=colour)
            if value == levels[-1] and predicted.low is not None and predicted.high is not None:
                axis.fill_between(curve, predicted.low, predicted.high, color=colour, alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    mark_values(axis.xaxis, sorted(points[x].unique()))
    _mark_losses(axis, points["loss"])


def _predict(fit: LawFit, x: str, curve: FloatArray, value: float) -> Prediction:
    return fit.predict(curve, value) if x == "n" else fit.predict(value, curve)


def _title(fitted: Fitted) -> str:
    if fitted.fit is None:
        return f"{fitted.group}\nno fit: {_first_words(fitted.refused or '')}"
    return "\n".join(
        [fitted.group]
        + [_quoted(fitted.fit, name, symbol) for name, symbol in (("alpha", r"$\alpha$"), ("beta", r"$\beta$"))]
    )


def _quoted(fit: LawFit | PairFit, name: str, symbol: str) -> str:
    """`α = 0.34 [0.31, 0.37]`, or that the points don't hold it."""
    if not is_held(fit.flags, name):
        return f"{symbol} not held"
    bounds = (fit.interval or {}).get(name)
    interval = f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds is not None else ""
    return f"{symbol} = {fit.theta[name]:.2f}{interval}"


# --- the surface ---------------------------------------------------------------------------------------------------


def surface_figure(study: Study, target: str) -> Figure:
    """Top row: contours of the fitted L(N, D) with the runs; bottom row: residuals in log loss over the prediction."""
    import matplotlib.pyplot as plt

    fits = _joint_fits(study, target)
    figure, axes = plt.subplots(2, len(fits), figsize=(PAGE_WIDTH, 4.2), squeeze=False, layout="constrained")
    for column, fitted in enumerate(fits):
        axes[0, column].set_title(_title(fitted).split("\n")[0])
        if fitted.fit is None:
            axes[0, column].set_axis_off()
            axes[1, column].set_axis_off()
            continue
        _draw_surface(axes[0, column], fitted.points, fitted.fit)
        _draw_residuals(axes[1, column], fitted.points, fitted.fit)
    axes[0, 0].set_ylabel("training records D")
    axes[1, 0].set_ylabel("residual, log loss")
    if fits[-1].fit is not None:
        axes[1, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(target, fontsize=8)
    return figure


def _draw_surface(axis: Axes, points: pd.DataFrame, fit: LawFit) -> None:
    n = np.geomspace(points["n"].min() / 1.3, points["n"].max() * 1.3, 60)
    d = np.geomspace(points["d"].min() / 1.3, points["d"].max() * 1.3, 60)
    surface = fit.predict(n[None, :], d[:, None]).value
    lines = axis.contour(n, d, surface, levels=8, cmap=LEVELS, linewidths=0.8)
    axis.clabel(lines, fontsize=5, fmt="%.3g")
    axis.scatter(points["n"], points["d"], s=8, color="black", zorder=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    mark_values(axis.xaxis, sorted(points["n"].unique()))
    mark_values(axis.yaxis, sorted(points["d"].unique()))
    axis.set_xlabel("parameters N")


def _draw_residuals(axis: Axes, points: pd.DataFrame, fit: LawFit) -> None:
    predicted = fit.predict(points["n"], points["d"]).value
    residual = np.log(points["loss"] / predicted)
    levels = sorted(points["n"].unique())
    for marker, value in zip(MARKERS * 3, levels, strict=False):
        there = (points["n"] == value).to_numpy()
        axis.plot(predicted[there], residual[there], marker, color="#444444", label=f"N ≈ {_short(value, 2)}")
    axis.axhline(0.0, color="black", linewidth=0.6)
    axis.set_xlabel("predicted loss")


# --- loss to loss --------------------------------------------------------------------------------------------------


def loss_to_loss_figure(study: Study) -> Figure:
    """One panel per paradigm and transfer target: SL and SSL losses have different units and share no axis."""
    import matplotlib.pyplot as plt

    targets = list(dict.fromkeys(pair.y for pair in study.pairs))
    paradigms = list(dict.fromkeys(_paradigm(pair.group) for pair in study.pairs))
    hues = dict(zip(study.groups, HUES * 3, strict=False))
    shape = (len(targets), len(paradigms))
    figure, axes = plt.subplots(
        *shape, figsize=(PAGE_WIDTH, 0.4 + 2.5 * len(targets)), squeeze=False, layout="constrained"
    )
    for row, target in enumerate(targets):
        for column, paradigm in enumerate(paradigms):
            axis = axes[row, column]
            for pair in study.pairs:
                if pair.y == target and _paradigm(pair.group) == paradigm:
                    _draw_pair(axis, pair, hues[pair.group])
            axis.set_xlabel(f"in-distribution loss, {paradigm.upper()}")
            axis.legend(handletextpad=0.2, labelspacing=0.2)
        axes[row, 0].set_ylabel(f"loss, {target}")
    return figure


def _paradigm(group: str) -> str:
    return "ssl" if "ssl" in group else "sl"


def _draw_pair(axis: Axes, pair: FittedPair, colour: str) -> None:
    label = pair.group
    x = pair.points["x"]
    if pair.fit is not None:
        label += ": " + _quoted(pair.fit, "kappa", r"$\kappa$")
        curve = np.linspace(x.min(), x.max(), 60)
        predicted = pair.fit.predict(curve)
        axis.plot(curve, predicted.value, color=colour)
        if predicted.low is not None and predicted.high is not None:
            axis.fill_between(curve, predicted.low, predicted.high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(x, pair.points["y"], "o", color=colour, label=label)


# --- small things --------------------------------------------------------------------------------------------------


def _short(value: float, digits: int = 3) -> str:
    """20.1K; for ticks and keys."""
    for suffix, size in (("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{float(f'{value / size:.{digits}g}'):g}{suffix}"
    return f"{float(f'{value:.{digits}g}'):g}"


def _first_words(text: str, n: int = 8) -> str:
    words = text.split()
    return " ".join(words[:n]) + (" …" if len(words) > n else "")


MOST_TICKS = 5


def mark_values(axis: Axis, values: Sequence[float]) -> None:
    """Ticks at the levels of the grid instead of powers of ten; with many levels, at a few of them."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    shown = values if len(values) <= MOST_TICKS else [values[i] for i in np.linspace(0, len(values) - 1, 4).astype(int)]
    axis.set_major_locator(FixedLocator(list(shown)))
    axis.set_major_formatter(FixedFormatter([_short(value, 2) for value in shown]))
    axis.set_minor_locator(NullLocator())


def _mark_losses(axis: Axes, losses: pd.Series) -> None:
    """Losses span less than a decade: powers of ten alone would leave the axis without a number."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    span = losses.max() / losses.min()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span > 3 else tuple(np.arange(1.0, 10.0, 0.5))))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
