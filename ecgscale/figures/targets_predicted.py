"""Predicted against true concentrations, and how far predictions shrink towards the mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgscale.concentrations.declared import TargetSpec
from ecgscale.figures.sheets import columns_for, grid, sheets, shown
from ecgscale.figures.style import GREY, HUES, SMALL, plain, with_interval
from ecgscale.target_findings import best_regressor, estimate
from ecgscale.target_study import ENSEMBLE, TargetStudy

TARGETS_A_SHEET = 6

CENTRAL, MARGIN = 0.98, 0.2
"""The axes hold this share of the true values and a margin around them: a few extreme ones would squeeze all others."""


def predicted_numbers(study: TargetStudy, family: str) -> pd.DataFrame:
    """The test records of every target as its best regressor sees them."""
    parts = []
    for target in study.targets:
        head = best_regressor(study, family, target.name)
        points = study.points
        parts.append(
            points[(points["family"] == family) & (points["target"] == target.name) & (points["head"] == head)]
        )
    return pd.concat(parts, ignore_index=True)


def predicted_figures(study: TargetStudy, family: str) -> Iterator[Figure]:
    """A panel per target."""
    numbers = predicted_numbers(study, family)
    targets = [target for target in study.targets if target.name in set(numbers["target"])]
    note = (
        "A point is a test record. Dashed: as it is. Line: regression of predicted on true; its slope is the shrinkage."
    )
    for some in sheets(targets, TARGETS_A_SHEET):
        n_columns = columns_for(len(some)) if len(some) != 4 else 4
        n_rows = -(-len(some) // n_columns)
        figure, axes = grid(
            n_rows, n_columns, {1: 2.9, 2: 2.9, 3: 2.1, 4: 1.75}[n_columns], "predicted against true", note
        )
        for axis, target in zip(axes.flat, some, strict=False):
            _draw(shown(axis), study, family, target, numbers[numbers["target"] == target.name])
        for axis in axes[:, 0]:
            axis.set_ylabel("predicted")
        yield figure


def _draw(axis: Axes, study: TargetStudy, family: str, target: TargetSpec, points: pd.DataFrame) -> None:
    truth, said = points["truth"].to_numpy(), points["predicted"].to_numpy()
    head = str(points["head"].iloc[0])
    low, high = np.quantile(truth, [(1 - CENTRAL) / 2, (1 + CENTRAL) / 2])
    ends = np.array([low - MARGIN * (high - low), high + MARGIN * (high - low)])
    n_beyond = int(np.sum((np.minimum(truth, said) < ends[0]) | (np.maximum(truth, said) > ends[1])))
    axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    alpha = float(np.clip(60 / np.sqrt(len(truth)) / 10, 0.08, 0.6))
    axis.plot(
        truth, said, "o", color=HUES[0], markersize=2.2, alpha=alpha, markeredgewidth=0, rasterized=len(truth) > 5000
    )
    slope = estimate(study, family, target.name, head, "slope", who=ENSEMBLE)
    if slope is not None:
        axis.plot(ends, said.mean() + slope.value * (ends - truth.mean()), color=HUES[1], linewidth=1.3)
    axis.set_xlim(*ends)
    axis.set_ylim(*ends)
    axis.set_aspect("equal")
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MaxNLocator(5))
    axis.set_title(plain(f"{target.name}: {head}"))
    axis.set_xlabel(plain(f"true ({target.unit})"))
    mae = estimate(study, family, target.name, head, "mae", who=ENSEMBLE)
    lines = [f"slope {with_interval(slope.value, (slope.low, slope.high))}"] if slope is not None else []
    lines += [f"MAE {mae.value:.3g}"] if mae is not None else []
    lines += [f"{n_beyond} of {len(truth)} beyond"] if n_beyond else []
    axis.text(0.03, 0.97, "\n".join(lines), transform=axis.transAxes, va="top", fontsize=SMALL, linespacing=1.3)
