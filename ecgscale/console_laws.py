"""What `fit-laws` prints: the law table, and under it what the points support and what follows from the laws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from ecgscale.console import out
from ecgscale.fitted import Fitted
from ecgscale.laws import Efficiency, Estimate, HoldOut
from ecgscale.study import Choice, Comparison, Study

SHOWN_PARAMETERS = ("E", "alpha", "beta", "k", "kappa")

USUAL_NAMES = {"chinchilla": "", "power": "", "power_floor": " + E", "shifted_power": ""}
"""What a form adds to the kind of the law in the table; every other form is called by its name."""

MOST_COMPARISONS = 12
"""More lines about comparisons than this are left to the JSON and the figures."""


def show_fits(study: Study) -> None:
    """The law table: estimates with 95 % intervals, a dash for what the data don't hold.

    Coefficients, every estimate and every flag are in the JSON and the CSV.
    """
    out.print(f"[bold]{study.name}[/bold]")
    for target, rows in study.law_table().groupby("target", sort=False) if study.laws or study.pairs else ():
        shown = [name for name in SHOWN_PARAMETERS if name in rows and rows[name].notna().any()]
        table = Table(box=None, pad_edge=False, header_style="bold", title=str(target), title_justify="left")
        for heading in ("group", "law", *shown, "points", "remarks"):
            table.add_column(heading, no_wrap=heading != "remarks")
        for row in rows.to_dict("records"):
            law = f"{row['kind']}{USUAL_NAMES.get(row['law'], ' ' + row['law'])}"
            numbers = [_with_interval(row, name) for name in shown]
            table.add_row(str(row["group"]), law, *numbers, str(row["points"]), _remarks(row))
        out.print(table)
    out.print("  –: not held by these points (at a bound, running away, or no usable interval)", style="dim")
    for line in (*_consequences(study), *study.notes):
        out.print(f"  {line}", markup=False, style="dim")


def _remarks(row: dict[Any, Any]) -> str:
    """Why there is no fit, or the flags about the whole fit; those about one parameter show as a dash in its column."""
    if isinstance(row["refused"], str):
        return row["refused"]
    flags = row.get("flags")
    whole = {f for f in flags.split() if ":" not in f and f != "unidentified"} if isinstance(flags, str) else set()
    return " ".join(sorted(whole))


def _with_interval(row: dict[Any, Any], name: str) -> str:
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None or math.isnan(value):
        return ""
    if not row[f"{name}_held"]:
        return "–"
    if low is None or high is None or math.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


# --- what follows --------------------------------------------------------------------------------------------------


def _consequences(study: Study) -> Iterator[str]:
    """Only what identified laws say; how much was left unsaid is counted."""
    for fitted in study.laws:
        yield from _about(fitted)
    for choice in study.choices:
        if choice.selection.best is not None:
            yield _chosen(choice)
    for pool in study.pooled:
        yield f"{', '.join(pool.groups)}, {pool.x} → {pool.y}: {pool.pooling.describe()}"
    told = [line for comparison in study.comparisons for line in _compared(comparison)]
    yield from told[:MOST_COMPARISONS]
    if study.comparisons:
        yield f"{len(study.comparisons)} comparisons of groups in all, also those not reached or not held: see the JSON"


def _about(fitted: Fitted) -> Iterator[str]:
    """Rows left out, hold-out, what limits the loss, the frontier: one line each."""
    where = f"{fitted.group}, {fitted.target}, {fitted.law}"
    for reason, lines in fitted.excluded.items():
        yield f"{where}: left out, {reason}: line {', '.join(map(str, lines[:8]))}{' …' if len(lines) > 8 else ''}"
    for held in fitted.held_out if fitted.frontier is not None else ():
        if not math.isnan(held.error["law"]):
            yield f"{where}: {_held_out(held)}"
    if fitted.fit is None or not fitted.fit.identified:
        return
    if fitted.limit is not None:
        yield f"{where}: {fitted.limit.describe()}"
    if fitted.frontier is not None:
        frontier = fitted.frontier
        flags = f" ({', '.join(frontier.flags)})" if frontier.flags else ""
        yield f"{where}: N* ∝ C^{_estimate(frontier.a)}, D* ∝ C^{_estimate(frontier.b)}, C = {frontier.cost}{flags}"


def _held_out(held: HoldOut) -> str:
    errors = ", ".join(f"{name.replace('_', ' ')} {error:.1%}" for name, error in held.error.items())
    doubt = f" ({', '.join(held.flags)})" if held.flags else ""
    return f"held out by {held.axis}: mean error {errors}{doubt}"


def _chosen(choice: Choice) -> str:
    supported = ", ".join(f"{c.law} {c.weight:.2f}" for c in choice.selection.candidates if c.reason is None)
    return f"{choice.group}, {choice.target}, {choice.kind}: AICc weights {supported}"


def _compared(comparison: Comparison) -> Iterator[str]:
    """What was reached by both groups and is held by their points."""
    head = f"{comparison.a} vs {comparison.b}, {comparison.target}, {comparison.kind}"
    efficiency = comparison.efficiency
    if isinstance(efficiency, Efficiency):
        for equal in efficiency.equal_loss:
            if equal.middle is not None and not any(flag.startswith(("a:", "b:")) for flag in equal.flags):
                yield f"{head}: {equal.describe()}"
    elif not efficiency.kappa.flags:
        yield f"{head}: kappa ratio {_estimate(efficiency.kappa.estimate)}"


def _estimate(value: Estimate) -> str:
    if math.isnan(value.value):
        return "–"
    if value.low is None or value.high is None:
        return f"{value.value:.3g}"
    return f"{value.value:.3g} [{value.low:.3g}, {value.high:.3g}]"
