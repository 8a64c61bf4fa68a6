"""Head by target: how much of the constant predictor's error each takes away."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ecgscale.data.splits import TEST
from ecgscale.figures.sheets import grid, sheets, shown
from ecgscale.figures.style import GREY, HUES, SMALL, plain
from ecgscale.prediction_files import CLASSICAL, CLEAN
from ecgscale.target_study import ENSEMBLE, NETWORKS, TargetStudy

TARGETS_A_SHEET = 4

LOWEST = -0.5
"""A head that errs by more than half as much again as the constant is drawn at the edge."""

COLUMNS = ["target", "head", "who", "score", "value", "low", "high", "seed_sd"]

SKILLS = {"skill": "MAE", "crps_skill": "CRPS"}


def head_numbers(study: TargetStudy, family: str) -> pd.DataFrame:
    """Skills of networks, ensembles and regressions on ECG features, on the undamaged test records."""
    rows = study.table(population=study.train_on, part=TEST, condition=CLEAN, recalibration="")
    rows = rows[rows["family"].isin((family, CLASSICAL)) & rows["score"].isin(SKILLS)]
    return rows[COLUMNS].reset_index(drop=True)


def head_figures(study: TargetStudy, family: str) -> Iterator[Figure]:
    """A column per target, a row per head, in the order of the sweep; MAE above CRPS."""
    numbers = head_numbers(study, family)
    declared = [head.name for head in study.heads]
    heads = [
        *(h for h in declared if h in set(numbers["head"])),
        *(h for h in dict.fromkeys(numbers["head"]) if h not in declared),
    ]
    several = bool(numbers["seed_sd"].notna().any())
    limits = {score: _limits(numbers[numbers["score"] == score]) for score in SKILLS}
    note = (
        "Skill: 1 − error / the constant predictor's. Line: 95 % interval of the mean over seeds. Right of 0: better."
    )
    for some in sheets([t for t in study.targets if t.name in set(numbers["target"])], TARGETS_A_SHEET):
        figure, axes = grid(2, len(some), max(0.42 + 0.125 * len(heads), 0.9), "heads and targets", note)
        for column, target in enumerate(some):
            for row, (score, error) in enumerate(SKILLS.items()):
                axis = shown(axes[row, column])
                _draw(axis, numbers[(numbers["target"] == target.name) & (numbers["score"] == score)], heads)
                axis.tick_params(axis="y", length=0, labelleft=column == 0, labelsize=SMALL)
                axis.set_xlabel(f"skill in {error}", fontsize=SMALL, labelpad=1)
                axis.set_xlim(*limits[score])
                if row == 0:
                    axis.set_title(plain(target.name))
        keys = [Line2D([], [], color=HUES[0], marker="o", linewidth=1)]
        names = ["mean over seeds" if several else "network"]
        if several:
            keys.append(Line2D([], [], color=HUES[1], marker="D", linestyle="", markersize=3, markerfacecolor="none"))
            names.append("ensemble")
        if (numbers["who"] == CLASSICAL).any():
            keys.append(Line2D([], [], color=GREY, marker="s", linewidth=1))
            names.append("ECG features")
        figure.legend(keys, names, loc="outside lower center", ncols=3)
        yield figure


def _limits(here: pd.DataFrame) -> tuple[float, float]:
    """Of all targets: they are compared."""
    low, high = max(min(here["low"].min(), 0.0), LOWEST), max(here["high"].max(), 0.05)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _draw(axis: Axes, here: pd.DataFrame, heads: list[str]) -> None:
    axis.axvline(0, color="black", linewidth=0.7, zorder=1)
    several = bool(here["seed_sd"].notna().any())
    for _, row in here.iterrows():
        y = heads.index(row["head"])
        if row["who"] == ENSEMBLE:
            if several:
                axis.plot(
                    max(row["value"], LOWEST), y, "D", color=HUES[1], markersize=3, markerfacecolor="none", zorder=3
                )
            continue
        colour, marker = (HUES[0], "o") if row["who"] == NETWORKS else (GREY, "s")
        axis.plot([max(row["low"], LOWEST), max(row["high"], LOWEST)], [y, y], color=colour, linewidth=1)
        axis.plot(max(row["value"], LOWEST), y, marker if row["value"] > LOWEST else "<", color=colour, zorder=2)
    axis.set_yticks(range(len(heads)), [plain(head) for head in heads])
    axis.set_ylim(len(heads) - 0.5, -0.5)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y", color="#e8e8e8", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.xaxis.set_major_locator(MaxNLocator(4))
