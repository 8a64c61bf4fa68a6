"""Does a head know what it does not know: are surer predictions better ones, and is the spread that of the errors?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ecgscale.figures.sheets import columns_for, grid, sheets, shown
from ecgscale.figures.style import GREY, HUES, MARKERS, labelled, legend_below, log_x, log_y, plain
from ecgscale.target_findings import spread_head
from ecgscale.target_study import TargetStudy

TARGETS_A_SHEET = 4

UNCERTAINTIES = {
    "aleatoric": (HUES[0], "-"),
    "epistemic": (HUES[1], "-"),
    "laplace": (HUES[3], "-"),
    "oracle": ("black", ":"),
    "random": (GREY, "--"),
}
NAMES = {"epistemic": "epistemic, ensemble", "laplace": "epistemic, Laplace", "random": "random order"}

RECALIBRATIONS = {"": HUES[0], "variance": HUES[1], "isotonic": HUES[2], "conformal": HUES[3]}
"""As they are, and after each way of recalibration on validation records."""


def sparsification_numbers(study: TargetStudy, family: str) -> pd.DataFrame:
    """The curves of the spread head of every target; a single network's spread is all aleatoric."""
    rows = _of_spread_heads(study, family, study.curves)
    if rows.empty:
        return rows
    split = set(rows[rows["uncertainty"] == "aleatoric"]["target"])
    renamed = rows["uncertainty"].where((rows["uncertainty"] != "total") | rows["target"].isin(split), "aleatoric")
    rows = rows.assign(uncertainty=renamed)
    return rows[rows["uncertainty"].isin(UNCERTAINTIES)].reset_index(drop=True)


def calibration_numbers(study: TargetStudy, family: str) -> pd.DataFrame:
    """Coverage by level and error by predicted spread of the spread head of every target; `what` says which."""
    coverage = _of_spread_heads(study, family, study.coverage).assign(what="coverage")
    spreads = _of_spread_heads(study, family, study.spreads).assign(what="error by spread")
    return pd.concat([part for part in (coverage, spreads) if not part.empty] or [coverage], ignore_index=True)


def _of_spread_heads(study: TargetStudy, family: str, table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        return table
    wanted = {target.name: spread_head(study, family, target.name) for target in study.targets}
    return table[(table["family"] == family) & (table["head"] == table["target"].map(wanted))]


def sparsification_figures(study: TargetStudy, family: str) -> Iterator[Figure]:
    """A panel per target."""
    numbers = sparsification_numbers(study, family)
    targets = [target for target in study.targets if target.name in set(numbers["target"])]
    note = (
        "MAE of the records of which a head is surest. Band: 95 % interval. What knows nothing of errors stays level."
    )
    for some in sheets(targets, 6):
        n_columns = columns_for(len(some)) if len(some) != 4 else 4
        figure, axes = grid(-(-len(some) // n_columns), n_columns, 1.9, "sparsification", note)
        for i, (axis, target) in enumerate(zip(axes.flat, some, strict=False)):
            here = numbers[numbers["target"] == target.name]
            _draw_curves(shown(axis), here)
            axis.set_title(plain(f"{target.name}: {here['head'].iloc[0]}"))
            axis.set_ylabel(plain(f"{'MAE, ' if i % n_columns == 0 else ''}{target.unit}"))
            axis.set_xlabel("share of records kept")
        legend_below(figure, labelled(axes))
        yield figure


def _draw_curves(axis: Axes, here: pd.DataFrame) -> None:
    every = here[here["kept"] == here["kept"].max()]
    axis.axhline(every["mae"].iloc[0], color=GREY, linestyle="--", linewidth=0.8, label=NAMES["random"])
    for uncertainty, (colour, style) in UNCERTAINTIES.items():
        curve = here[here["uncertainty"] == uncertainty].sort_values("kept")
        if curve.empty:
            continue
        name = NAMES.get(uncertainty, uncertainty)
        axis.plot(curve["kept"], curve["mae"], color=colour, linestyle=style, label=name)
        if uncertainty != "oracle":
            axis.fill_between(curve["kept"], curve["low"], curve["high"], color=colour, alpha=0.1, linewidth=0)
    axis.set_xlim(1.0, 0.0)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(5))


def calibration_figures(study: TargetStudy, family: str) -> Iterator[Figure]:
    """A column per target: how often the truth lies inside the stated interval, and errors by predicted spread."""
    numbers = calibration_numbers(study, family)
    targets = [target for target in study.targets if target.name in set(numbers["target"])]
    note = "On the grey line a head is honest. Bars: 95 % interval. Recalibrated on validation, shown on test records."
    for some in sheets(targets, TARGETS_A_SHEET):
        figure, axes = grid(2, len(some), 1.85, "calibration", note)
        limits = _coverage_limits(numbers)
        for column, target in enumerate(some):
            here = numbers[numbers["target"] == target.name]
            upper, lower = shown(axes[0, column]), shown(axes[1, column])
            _draw_coverage(upper, here[here["what"] == "coverage"])
            _draw_spreads(lower, here[here["what"] == "error by spread"])
            upper.set_title(plain(f"{target.name}: {here['head'].iloc[0]}"))
            upper.set_xlabel("level of the interval")
            upper.set_ylim(*limits)
            lower.set_xlabel(plain(f"predicted sd, {target.unit}"))
            if column == 0:
                upper.set_ylabel("coverage less level, points")
                lower.set_ylabel("root mean square error")
        legend_below(figure, labelled(axes[0]))
        yield figure


def _coverage_limits(numbers: pd.DataFrame) -> tuple[float, float]:
    """Of all targets: they are compared."""
    low, high = (100 * (numbers[end] - numbers["level"]) for end in ("low", "high"))
    return float(min(low.min(), 0.0)) - 1, float(max(high.max(), 0.0)) + 1


def _draw_coverage(axis: Axes, here: pd.DataFrame) -> None:
    axis.axhline(0, color=GREY, linewidth=0.9)
    there = [name for name in RECALIBRATIONS if name in set(here["recalibration"])]
    levels = sorted(here["level"].unique())
    for i, name in enumerate(there):
        rows = here[here["recalibration"] == name].sort_values("level")
        x = np.arange(len(rows)) + 0.14 * (i - (len(there) - 1) / 2)
        off = 100 * (rows["covered"] - rows["level"])
        bars = [100 * (rows["covered"] - rows["low"]), 100 * (rows["high"] - rows["covered"])]
        axis.errorbar(x, off, yerr=bars, fmt="none", ecolor=RECALIBRATIONS[name], elinewidth=0.8)
        axis.plot(x, off, MARKERS[i], color=RECALIBRATIONS[name], label=name or "as it is")
    axis.set_xticks(range(len(levels)), [f"{100 * level:g} %" for level in levels])
    axis.set_xlim(-0.5, len(levels) - 0.5)
    axis.yaxis.set_major_locator(MaxNLocator(5))


def _draw_spreads(axis: Axes, here: pd.DataFrame) -> None:
    there = [name for name in RECALIBRATIONS if name in set(here["recalibration"]) and name in ("", "variance")]
    shown_here = here[here["recalibration"].isin(there)]
    sds = shown_here["sd"]
    ends = [0.5 * sds.min(), 2 * sds.max()]
    axis.plot(ends, ends, color=GREY, linewidth=0.9)
    for i, name in enumerate(there):
        rows = here[here["recalibration"] == name].sort_values("sd")
        bars = [rows["rmse"] - rows["rmse_low"], rows["rmse_high"] - rows["rmse"]]
        axis.errorbar(
            rows["sd"], rows["rmse"], yerr=bars, fmt="none", ecolor=RECALIBRATIONS[name], elinewidth=0.6, alpha=0.6
        )
        axis.plot(rows["sd"], rows["rmse"], MARKERS[i], color=RECALIBRATIONS[name], markersize=3)
    log_x(axis, sds, levels=False)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    log_y(axis, [*sds, *shown_here["rmse_low"], *shown_here["rmse_high"]])
