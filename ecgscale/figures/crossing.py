"""Whether one family overtakes the other as models grow: the laws of both far beyond the sizes that were trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.errors import FitError
from ecgscale.figures.scaling import draw_bands
from ecgscale.figures.sheets import columns_for, grid, sheets, shown
from ecgscale.figures.style import GREY, HUES, SMALL, label_ends, log_x, log_y, plain
from ecgscale.fitted import Fitted
from ecgscale.laws import LawFit
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.overtaking import Overtaking, overtaking
from ecgscale.study import JOINT, Study, is_held
from ecgscale.words import short

PANELS_A_SHEET = 6
N_CURVE = 160


@dataclass(frozen=True)
class Race:
    """Two arms that differ in their family alone, by their laws of one target; b may overtake a."""

    target: str
    a: str
    b: str
    law_a: LawFit
    law_b: LawFit
    d: float
    """Training records, the same for both."""
    found: Overtaking

    @property
    def sizes(self) -> FloatArray:
        return np.geomspace(self.found.smallest, self.found.horizon, N_CURVE)

    def title(self) -> str:
        return f"{plain(self.target)}\n{plain(self.b)} below {plain(self.a)}:\n{self.words()}"

    @property
    def held(self) -> bool:
        """Whether the points hold how both losses fall with N; a crossing of other laws means nothing."""
        return all(is_held(law.flags, "alpha") for law in (self.law_a, self.law_b))

    def words(self) -> str:
        """From which size on, with its interval, and whether anything that large was trained."""
        found = self.found
        if not self.held:
            return "not said, α is not held"
        if math.isinf(found.size):
            start = f"nowhere up to {short(found.horizon, 2)}"
        elif found.size == 0:
            start = "at every size"
        else:
            start = f"from N = {short(found.size, 2)}{', not observed' if found.size > found.largest else ''}"
        return start + (f" [{self._end(found.low)}, {self._end(found.high)}]" if found.low != found.high else "")

    def _end(self, size: float | None) -> str:
        if size is None:
            return "—"
        return "never" if math.isinf(size) else short(size, 2) if size > 0 else "every size"


def races(study: Study) -> list[Race]:
    """Per transfer target, every two arms of one paradigm and one set of labels but two families."""
    found = []
    for target in (t.name for t in study.transfers if not t.one_task):
        for a, b in combinations(sorted(study.arms, key=lambda arm: (arm.family, arm.group)), 2):
            if a.family == b.family or (a.paradigm, a.n_labels) != (b.paradigm, b.n_labels):
                continue
            laws = [next((f.fit for f in study.laws if _is(f, arm.group, target)), None) for arm in (a, b)]
            if laws[0] is not None and laws[1] is not None:
                try:
                    crossing = overtaking(laws[0], laws[1])
                except FitError:  # laws of different forms
                    continue
                if crossing.at is not None:
                    found.append(Race(target, a.group, b.group, laws[0], laws[1], crossing.at, crossing))
    return found


def crossing_figures(study: Study) -> Iterator[Figure]:
    """A panel per target and pair of arms."""
    for sheet in sheets(races(study), PANELS_A_SHEET):
        n_columns = min(2, columns_for(len(sheet)))
        note = (
            "The law at the largest D with its 95 % band; shaded and dashed: beyond the sizes trained. "
            "Bar at the foot: 95 % interval of the size from which on b stays below a."
        )
        figure, axes = grid(-(-len(sheet) // n_columns), n_columns, 2.3, "where one family overtakes the other", note)
        for i, race in enumerate(sheet):
            axis = shown(axes[i // n_columns, i % n_columns])
            _draw(axis, race)
            if i % n_columns == 0:
                axis.set_ylabel("loss")
        yield figure


def crossing_numbers(study: Study) -> pd.DataFrame:
    """Per pair of arms and size: what both laws say."""
    parts = [pd.DataFrame()]
    for race in races(study):
        for group, law in ((race.a, race.law_a), (race.b, race.law_b)):
            predicted = law.predict(race.sizes, race.d)
            columns: dict[str, Any] = {"target": race.target, "group": group, "n": race.sizes, "d": race.d}
            columns |= {"law_loss": predicted.value, "law_low": predicted.low, "law_high": predicted.high}
            parts.append(pd.DataFrame(columns | {"extrapolated": predicted.extrapolated}))
    return pd.concat(parts)


def _is(fitted: Fitted, group: str, target: str) -> bool:
    return (fitted.group, fitted.target, fitted.kind) == (group, target, JOINT)


def _draw(axis: Axes, race: Race) -> None:
    found, seen, ends = race.found, [], {}
    for law, name, hue in ((race.law_a, race.a, HUES[0]), (race.law_b, race.b, HUES[1])):
        predicted = law.predict(race.sizes, race.d)
        beyond = predicted.extrapolated
        axis.plot(race.sizes[~beyond], predicted.value[~beyond], color=hue, linewidth=1.4)
        axis.plot(race.sizes[beyond], predicted.value[beyond], color=hue, linestyle=(0, (3, 2)))
        draw_bands(axis, race.sizes, predicted, hue, of_runs=False)
        seen += predicted.value.tolist()
        ends[plain(name)] = float(predicted.value[-1])
    log_x(axis, race.sizes, 0.02, levels=False)
    log_y(axis, seen, 0.2)
    axis.axvspan(found.largest, axis.get_xlim()[1], color="black", alpha=0.05, linewidth=0)
    if race.held:
        _draw_crossing(axis, found)
    axis.set_xlabel("parameters N")
    axis.set_title(race.title(), loc="left")
    label_ends(axis, ends, dict(zip(ends, HUES, strict=False)), "")


def _draw_crossing(axis: Axes, found: Overtaking) -> None:
    low, high = axis.get_xlim()
    foot: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "color": "black", "clip_on": False}
    if found.low is not None and found.high is not None:
        ends = [min(max(end, low), high) for end in (found.low, found.high)]
        if ends[0] < ends[1]:
            axis.plot(ends, (0.03, 0.03), linewidth=1.5, **foot)
    if low <= found.size <= high:
        axis.plot(found.size, 0.03, "D", markersize=3.5, **foot)
    else:
        side, at, words = ("right", 0.98, "no crossing") if found.size > high else ("left", 0.02, "at every size")
        axis.text(at, 0.06, words, transform=axis.transAxes, ha=side, color=GREY, fontsize=SMALL)
