"""Laws in one variable: points, every form that was fitted to them, bands, and where they extrapolate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgscale.figures.fits import axis_label, group_name, quoted_exponent, variables
from ecgscale.figures.scaling import draw_bands
from ecgscale.figures.sheets import columns_for, grid, only_words, say, sheets, shown
from ecgscale.figures.style import BANDS, HUES, log_x, log_y, plain
from ecgscale.fitted import Fitted
from ecgscale.study import JOINT, Study

REACH = 3.0
"""How far beyond the largest point lines go on, dashed: half a decade is what a next rung would add."""

ROWS_A_SHEET = 4

WORDS = {"power": "no floor", "power_floor": "with floor"}


def line_figures(study: Study, target: str) -> Iterator[Figure]:
    """A panel per group and kind: L(N) beside L(D) for a sweep, y(x) for a table."""
    laws = [f for f in study.laws if f.target == target and f.kind != JOINT]
    kinds = list(dict.fromkeys(f.kind for f in laws))
    places = list(dict.fromkeys((f.group, f.kind) for f in laws))
    if len(kinds) > 1:  # a row per group, so that a missing kind leaves its place empty
        places = [(group, kind) for group in dict.fromkeys(g for g, _ in places) for kind in kinds]
    n_columns = len(kinds) if len(kinds) > 1 else columns_for(len(places)) if places else 1
    for sheet in sheets(places, ROWS_A_SHEET * n_columns):
        note = f"Dashed: beyond the points. {BANDS}"
        heading = target if len(kinds) > 1 else kinds[0]
        figure, axes = grid(-(-len(sheet) // n_columns), n_columns, 1.9, heading, note)
        for i, (group, kind) in enumerate(sheet):
            axis = axes[i // n_columns, i % n_columns]
            same = [f for f in laws if (f.group, f.kind) == (group, kind)]
            if not same:
                continue
            name = f"{group_name(same[0])} {kind}".strip() if len(kinds) > 1 else group_name(same[0])
            if same[0].points.empty:
                only_words(axis, name, same[0].refused or "no points")
                continue
            _draw_line(shown(axis), same, name)
            axis.set_xlabel(axis_label(same[0], variables(same[0])[0], study.folder is not None))
            if i % n_columns == 0:
                axis.set_ylabel("loss" if study.folder is not None else plain(target))
        yield figure


def _draw_line(axis: Axes, laws: Sequence[Fitted], name: str) -> None:
    """All forms of one group and kind, which share their points."""
    column = variables(laws[0])[0]
    x = laws[0].points[column].to_numpy(dtype=float)
    y = laws[0].points["loss"].to_numpy(dtype=float)
    axis.plot(x, y, "o", color="black", markersize=3 if len(x) < 60 else 2, zorder=3)
    seen = y.tolist()
    fitted = [f for f in laws if f.fit is not None]
    curve = np.geomspace(x.min(), x.max() * REACH, 120) if fitted else x
    for one, hue in zip(fitted, HUES * len(fitted), strict=False):
        assert one.fit is not None
        predicted = one.fit.predict(curve)
        outside = predicted.extrapolated & (curve > x.max())
        label = ", ".join([WORDS.get(one.law, one.law), *(quoted_exponent(one, n) for n in one.fit.form.exponents)])
        axis.plot(curve[~outside], predicted.value[~outside], color=hue, label=label)
        axis.plot(curve[outside], predicted.value[outside], color=hue, linestyle=(0, (3, 2)))
        draw_bands(axis, curve, predicted, hue)
        seen += predicted.value.tolist()
    log_x(axis, [*x, *(curve if fitted else [])], levels=not fitted and len(np.unique(x)) < 6)
    log_y(axis, seen, 0.12)
    refused = list(dict.fromkeys(f.refused for f in laws if f.refused))
    if fitted:  # the key stands over the panel: in it, it would lie on points that rise as well as on those that fall
        axis.legend(
            title=name or None,
            title_fontsize=7,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            alignment="left",
            borderaxespad=0.2,
            handlelength=1.2,
            labelspacing=0.2,
        )
        return
    axis.set_title(name)
    if refused:
        say(axis, f"no fit: {refused[0]}", 90)
