"""What damage and other patients do to predictions, and whether the head says so itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ecgscale.data.splits import TEST
from ecgscale.figures.sheets import grid, say, sheets, shown
from ecgscale.figures.style import GREY, HUES, SMALL, plain
from ecgscale.prediction_files import CLEAN
from ecgscale.target_findings import best_regressor, spread_head
from ecgscale.target_study import ENSEMBLE, TargetStudy

TARGETS_A_SHEET = 4

SCORES = {"mae": "MAE", "covered_0.9": "coverage of 90 % intervals", "width_0.9": "width of 90 % intervals"}

LEAST_SPAN = 0.1
"""Of an axis to either side of the first value, as a share of it: smaller changes are not drawn as large ones."""

COLUMNS = ["target", "unit", "head", "where", "score", "value", "low", "high", "constant"]


def elsewhere_numbers(study: TargetStudy, family: str) -> pd.DataFrame:
    """A row per target, place and score, of the spread head, or the best regressor where there is none; empty if only
    undamaged test records were predicted."""
    parts = []
    for target in study.targets:
        head = spread_head(study, family, target.name) or best_regressor(study, family, target.name)
        if head is None:
            continue
        rows = study.table(family=family, target=target.name, head=head, who=ENSEMBLE, recalibration="")
        rows = rows[rows["score"].isin(SCORES)]
        order = [(rows["population"] != study.train_on), (rows["part"] != TEST), (rows["condition"] != CLEAN)]
        rows = rows.iloc[np.lexsort(order[::-1])]
        parts.append(rows.assign(where=[_place(study, row) for _, row in rows.iterrows()]))
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return found[COLUMNS] if found["where"].nunique() > 1 else found[COLUMNS].iloc[:0]


def _place(study: TargetStudy, row: pd.Series) -> str:
    """`test`, `noise-0.25mV` (test records, damaged), `later`, or the other population."""
    if row["population"] != study.train_on:
        return str(row["population"]) + (f", {row['condition']}" if row["condition"] != CLEAN else "")
    if row["condition"] == CLEAN:
        return str(row["part"])
    return str(row["condition"]) if row["part"] == TEST else f"{row['part']}, {row['condition']}"


def elsewhere_figures(study: TargetStudy, family: str) -> Iterator[Figure]:
    """A column per target: its error, its coverage and the width of what it states, by place."""
    numbers = elsewhere_numbers(study, family)
    places = list(dict.fromkeys(numbers["where"]))  # undamaged test records first
    note = (
        "Undamaged test records first; the same records damaged; later patients and other populations as they are. "
        "Upright: the constant predictor's MAE there, and 90 %. Line: 95 % interval."
    )
    covered = numbers[numbers["score"] == "covered_0.9"]
    limits = min(covered["low"].min(), 0.85) - 0.01, min(max(covered["high"].max(), 0.92) + 0.01, 1.01)
    for some in sheets([t for t in study.targets if t.name in set(numbers["target"])], TARGETS_A_SHEET):
        figure, axes = grid(len(SCORES), len(some), max(0.55 + 0.13 * len(places), 0.95), "elsewhere", note)
        for column, target in enumerate(some):
            of_target = numbers[numbers["target"] == target.name]
            for row, (score, words) in enumerate(SCORES.items()):
                axis = shown(axes[row, column])
                _draw(axis, of_target[of_target["score"] == score], places, score)
                unit = "" if score == "covered_0.9" else f", {target.unit}"
                axis.set_xlabel(plain(f"{words}{unit}", 60), fontsize=SMALL, labelpad=1)
                if score == "covered_0.9" and axis.has_data():
                    axis.set_xlim(*limits)
                    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
                if row == 0:
                    axis.set_title(plain(f"{target.name}: {of_target['head'].iloc[0]}"))
                axis.tick_params(axis="y", length=0, labelleft=column == 0, labelsize=SMALL)
        yield figure


def _draw(axis: Axes, here: pd.DataFrame, places: list[str], score: str) -> None:
    axis.set_yticks(range(len(places)), [plain(place) for place in places])
    axis.set_ylim(len(places) - 0.5, -0.5)
    axis.spines["left"].set_visible(False)
    if here.empty:
        axis.set_xticks([])
        axis.spines["bottom"].set_visible(False)
        say(axis, "this head states no spread")
        return
    if score == "covered_0.9":
        axis.axvline(0.9, color=GREY, linewidth=0.8)
    for _, row in here.iterrows():
        y = places.index(row["where"])
        colour = HUES[0] if y == 0 else HUES[1]
        axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1)
        axis.plot(row["value"], y, "o", color=colour)
        if score == "mae":
            axis.plot(row["constant"], y, "|", color=GREY, markersize=6, markeredgewidth=1)
    axis.axvline(float(here["value"].iloc[0]), color=HUES[0], linewidth=0.5, linestyle=":", zorder=0)
    first, (low, high) = float(here["value"].iloc[0]), axis.get_xlim()
    axis.set_xlim(min(low, (1 - LEAST_SPAN) * first), max(high, (1 + LEAST_SPAN) * first))
    axis.xaxis.set_major_locator(MaxNLocator(4))
