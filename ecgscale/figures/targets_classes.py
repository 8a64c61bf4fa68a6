"""What discretising does: scores against the number of classes, beside heads that predict the number itself."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.sheets import grid, say, sheets, shown
from ecgscale.figures.style import GREY, HUES, MARKERS, legend_below, plain
from ecgscale.target_findings import REGRESSORS, by_classes, estimate, heads_of
from ecgscale.target_study import TargetStudy

TARGETS_A_SHEET = 4

LINES = {"softmax": "softmax", "cumulative": "ordinal", "coral": "CORAL", "corn": "CORN"}
SCORES = {"own_auroc": "macro AUROC, own classes", "auroc": "AUROC at common cut-offs"}

COLUMNS = ["target", "score", "head", "classes", "value", "low", "high"]


def class_numbers(study: TargetStudy, family: str) -> pd.DataFrame:
    """Per target and score a row per kind and number of classes; heads that predict the number have none."""
    rows: list[tuple[str, str, str, int | None, float, float | None, float | None]] = []
    for target in study.targets:
        for score in SCORES:
            for kind, name in LINES.items():
                for classes, e in by_classes(study, family, target.name, (kind,), score).items():
                    rows.append((target.name, score, name, classes, e.value, e.low, e.high))
        for head in heads_of(study, family, target.name):
            found = estimate(study, family, target.name, head.name, "auroc") if head.kind in REGRESSORS else None
            if found is not None and any(row[0] == target.name for row in rows):
                rows.append((target.name, "auroc", head.name, None, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=COLUMNS)


def class_figures(study: TargetStudy, family: str) -> Iterator[Figure]:
    """A column per target: over each head's own classes, and at cut-offs that are the same for all."""
    numbers = class_numbers(study, family)
    drawn_of = dict.fromkeys(numbers["head"])
    heads = [*(name for name in LINES.values() if name in drawn_of), *(h for h in drawn_of if h not in LINES.values())]
    note = "Mean over seeds, bars: 95 % interval. At the right of the lower row: heads that predict the number."
    levels = sorted(int(k) for k in numbers["classes"].dropna().unique())
    limits = max(min(0.48, numbers["low"].min() - 0.02), 0.0), min(numbers["high"].max() + 0.02, 1.01)
    for some in sheets([t for t in study.targets if t.name in set(numbers["target"])], TARGETS_A_SHEET):
        figure, axes = grid(2, len(some), 1.75, "score against the number of classes", note)
        for column, target in enumerate(some):
            for row, (score, words) in enumerate(SCORES.items()):
                axis = shown(axes[row, column])
                here = numbers[(numbers["target"] == target.name) & (numbers["score"] == score)]
                _draw(axis, here, heads, levels, with_numbers=score == "auroc")
                axis.set_ylim(*limits)
                if column == 0:
                    axis.set_ylabel(words)
                else:
                    axis.tick_params(labelleft=False)
                if row == 0:
                    axis.set_title(plain(target.name))
                    axis.tick_params(labelbottom=False)
                else:
                    axis.set_xlabel("classes")
        drawn = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
        keys = {head: drawn[head] for head in heads if head in drawn}
        legend_below(figure, keys)
        yield figure


def _draw(axis: Axes, here: pd.DataFrame, heads: list[str], levels: list[int], *, with_numbers: bool) -> None:
    axis.axhline(0.5, color=GREY, linewidth=0.6, linestyle=":")
    names = [head for head in heads if head in set(here["head"])]
    if not names:
        say(axis, "no cut-offs with records on both sides" if with_numbers else "no head with classes")
    places = {k: float(i) for i, k in enumerate(levels)}
    beyond = len(levels)
    numbered = [name for name in names if here[here["head"] == name]["classes"].isna().all()]
    for name in names:
        rows = here[here["head"] == name]
        i = heads.index(name)
        if name in numbered:
            x = [beyond + 0.3 * numbered.index(name) - 0.15 * (len(numbered) - 1)]
        else:
            apart = 0.1 * (list(LINES.values()).index(name) - (len(LINES) - 1) / 2)
            x = [places[int(k)] + apart for k in rows["classes"]]
        bars = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
        axis.errorbar(x, rows["value"], yerr=bars, fmt="none", ecolor=HUES[i % len(HUES)], elinewidth=0.7, alpha=0.7)
        axis.plot(x, rows["value"], marker=MARKERS[i % len(MARKERS)], color=HUES[i % len(HUES)], label=name)
    last = beyond if with_numbers else beyond - 1
    axis.set_xlim(-0.4, beyond + 0.6)
    axis.set_xticks(range(last + 1), [*map(str, levels), *(["cont."] if last == beyond else [])])
