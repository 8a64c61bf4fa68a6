"""How everything looks: widths, colours, numbers in words, ticks. Knows no study and no law.

Colours say one thing each: a colour-blind-safe hue per group or form (Okabe and Ito 2008), a sequential ramp for the
level of the other axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from ecgscale.laws import LawFit, PairFit
from ecgscale.study import is_held
from ecgscale.words import short, signed

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PAGE_WIDTH = 7.2
"""Inches: two columns of most journals."""

COLUMN_WIDTH = 3.5
"""Inches: one column."""

LEGEND_COLUMN_IN = 1.25
"""Holds the longest name of a legend below the axes."""

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#777777"
LEVELS = "viridis"

SMALL = 6
"""Points: the smallest text of a figure; journals ask for 5 or more."""

STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # text stays text
}

SYMBOLS = {"alpha": "α", "beta": "β", "kappa": "κ"}

BANDS = "Dark band: 95 % interval of the mean. Light band: of one new run."


def ramp() -> Colormap:
    """The sequential ramp without its yellow end, which white paper swallows."""
    return ListedColormap(colormaps[LEVELS](np.linspace(0.0, 0.85, 256)))


def look(index: int) -> tuple[str, str]:
    """Hue and marker of the index-th group: 49 that differ."""
    return HUES[index % len(HUES)], MARKERS[(index // len(HUES) + index) % len(MARKERS)]


# --- numbers and names ---------------------------------------------------------------------------------------------


def distinct(values: Iterable[float]) -> list[str]:
    """Levels in as few digits as tell them apart, two at least: 94.8M, 108M, 114M."""
    values = list(values)
    named = [[short(value, digits) for value in values] for digits in (2, 3, 4, 5)]
    return next((names for names in named if len(set(names)) == len(set(values))), named[-1])


def exact(values: Iterable[float]) -> list[str]:
    """Round numbers as they are."""
    return [short(value, 6) for value in values]


def with_interval(value: float, bounds: tuple[float | None, float | None] | None) -> str:
    """`0.34 [0.31, 0.37]`, with as many decimals as the interval makes meaningful."""
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return f"{value:.3g}"
    width = bounds[1] - bounds[0]
    decimals = 2 if not width > 0 else min(max(math.ceil(-math.log10(width / 2)), 2), 4)
    return f"{value:.{decimals}f} [{bounds[0]:.{decimals}f}, {bounds[1]:.{decimals}f}]"


def between(value: float | None, low: float | None, high: float | None) -> str:
    """`2.1 [1.3, 3.4]` for numbers of any size, `2.1 [1.3, open]` with one end; `—` for what is not known."""
    if value is None or math.isnan(value):
        return "—"
    digits = 3
    if low is not None and high is not None and math.isfinite(high - low) and high > low:
        largest = max(abs(low), abs(high), abs(value))
        digits = min(max(math.ceil(math.log10(largest / (high - low))) + 2, 2), 5)
    if low is None and high is None:
        return signed(value, digits)
    ends = ("open" if end is None else signed(end, digits) for end in (low, high))
    return f"{signed(value, digits)} [{', '.join(ends)}]"


def quoted(fit: LawFit | PairFit, name: str, symbol: str | None = None) -> str:
    """`α = 0.34 [0.31, 0.37]`, or that the points don't hold it."""
    symbol = symbol or SYMBOLS.get(name, name)
    if not is_held(fit.flags, name):
        return f"{symbol} not held"
    return f"{symbol} = {with_interval(fit.theta[name], (fit.interval or {}).get(name))}"


def plain(text: str, longest: int = 44) -> str:
    """A name from the user: dollars are dollars, and a long one loses its middle."""
    if len(text) > longest:
        kept = (longest - 1) // 2
        text = f"{text[:kept]}…{text[-kept:]}"
    return text.replace("$", r"\$")


# --- axes ----------------------------------------------------------------------------------------------------------

MOST_TICKS = 5
CLOSEST_TICKS = 0.13
"""Share of a log axis below which two labels touch."""


def mark_values(axis: Axis, values: Sequence[float]) -> None:
    """Ticks at the levels of a grid instead of powers of ten; with many or crowded levels, at round numbers."""
    levels = np.unique(np.asarray(values, dtype=float))
    levels = levels[np.isfinite(levels) & (levels > 0)]
    if len(levels) == 0:
        return
    gaps = np.diff(np.log(levels)) / max(math.log(levels[-1] / levels[0]), 1e-12)
    on_levels = len(levels) <= MOST_TICKS and bool((gaps >= CLOSEST_TICKS).all())
    shown: list[float] = levels.tolist() if on_levels else _round_values(float(levels[0]), float(levels[-1]))
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FixedFormatter(distinct(shown) if on_levels else exact(shown)))
    axis.set_minor_locator(NullLocator())


def mark_range(axis: Axis, low: float, high: float) -> None:
    """Round ticks on a log axis from `low` to `high`, however little it spans: powers of ten may leave it bare."""
    shown = _round_values(low, high)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FixedFormatter(exact(shown)))
    axis.set_minor_locator(NullLocator())


def _round_values(low: float, high: float) -> list[float]:
    """Up to about five round numbers between two positive ones, for a log axis."""
    decades = math.log10(high / low)
    if decades < 0.7:
        linear = MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        candidates = _thinned([float(v) for v in linear if low <= v <= high], CLOSEST_TICKS * math.log(high / low))
    else:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if decades <= 1.5 else (1, 3) if decades <= 2.5 else (1,)
        every = max(1, math.ceil(decades / MOST_TICKS))
        candidates = [s * 10.0**e for e in exponents if e % every == 0 for s in steps]
    return [v for v in candidates if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)] or [low]


def _thinned(values: Sequence[float], closest: float) -> list[float]:
    """Rising values without those that follow another too closely in logs."""
    kept: list[float] = []
    for value in values:
        if not kept or math.log(value / kept[-1]) >= closest:
            kept.append(value)
    return kept


def log_limits(values: Iterable[float], share: float = 0.06) -> tuple[float, float] | None:
    """Limits of a log axis around everything that can be shown on it; None if nothing can."""
    shown = np.asarray(list(values), dtype=float)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown) == 0:
        return None
    low, high = math.log(shown.min()), math.log(shown.max())
    pad = share * (high - low) if high - low > 1e-9 else 0.2
    return math.exp(low - pad), math.exp(high + pad)


def log_x(axis: Axes, values: Iterable[float], share: float = 0.06, *, levels: bool = True) -> None:
    """A logarithmic x axis around values, with ticks at their levels or at round numbers."""
    values = list(values)
    axis.set_xscale("log")
    if (limits := log_limits(values, share)) is not None:
        axis.set_xlim(limits)
        _mark(axis.xaxis, values, limits, levels)


def log_y(axis: Axes, values: Iterable[float], share: float = 0.1, *, levels: bool = False) -> None:
    """A logarithmic y axis around values, with round ticks or, for levels of a grid, with those."""
    values = list(values)
    axis.set_yscale("log")
    if (limits := log_limits(values, share)) is not None:
        axis.set_ylim(limits)
        _mark(axis.yaxis, values, limits, levels)


def _mark(axis: Axis, values: Sequence[float], limits: tuple[float, float], levels: bool) -> None:
    if levels:
        mark_values(axis, values)
    else:
        mark_range(axis, *limits)


def label_ends(axis: Axes, ends: Mapping[str, float], colours: Mapping[str, Any], heading: str) -> None:
    """Names of lines at the right of a log axis, at the height where they end, pushed apart until they can be read."""
    low, high = (math.log(v) for v in axis.get_ylim())
    names = sorted(ends, key=lambda name: ends[name])
    heights = spread([(math.log(ends[name]) - low) / (high - low) for name in names], gap=0.085)
    for name, height in zip(names, heights, strict=True):
        _beside(axis, height, name, colours[name])
    if names:
        _beside(axis, heights[-1] + 0.095, heading, GREY)


def _beside(axis: Axes, height: float, text: str, colour: Any) -> None:
    axis.annotate(
        text,
        (1.0, height),
        xycoords="axes fraction",
        xytext=(2, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=colour,
        annotation_clip=False,
    )


def labelled(axes: npt.NDArray[Any]) -> dict[str, Line2D]:
    """Name → a line that has it, of all these axes."""
    lines = [line for axis in axes.flat for line in axis.get_lines()]
    return {name: line for line in lines if not (name := str(line.get_label())).startswith("_")}


def legend_below(figure: Figure, lines: Mapping[str, Artist]) -> None:
    """A line for each name, below all axes, in as many columns as the figure is wide."""
    columns = max(1, int(figure.get_figwidth() / LEGEND_COLUMN_IN))
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=min(len(lines), columns) or 1)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights in 0…1, moved as little as a pass up and a pass down need to keep them `gap` apart."""
    out = [min(max(h, 0.0), 1.0) for h in heights]
    for i in range(1, len(out)):
        out[i] = max(out[i], out[i - 1] + gap)
    top = 1.0
    for i in reversed(range(len(out))):
        out[i] = min(out[i], top)
        top = out[i] - gap
    return out
