"""What `tune-lr` prints: the best rate of each arm and rung, the rules that follow, and the coordinate check."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ecgscale.console import out, print_json
from ecgscale.learning_rates import NoOptimum, Optimum
from ecgscale.tune_lr import Cell, Tuned

if TYPE_CHECKING:
    from ecgscale.coordinates import Check
    from ecgscale.ladder import Family


def show_tuned(made: Tuned) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("arm", "rung", "width", "best rate", "95 %", "loss", "now", "costs", "new rule", "costs"):
        table.add_column(heading, justify="left" if heading in ("arm", "rung") else "right", no_wrap=True)
    for cell in made.cells:
        table.add_row(*_row(made, cell))
    out.print(table)
    for cell in made.cells:
        if isinstance(cell.found, NoOptimum):
            out.print(f"{cell.arm} {cell.rung}: {cell.found}", markup=False)
    for family, new in made.rules.items():
        if isinstance(new, NoOptimum):
            out.print(f"{family}: no rule, {new}", markup=False)
            continue
        exponent = f"exponent {new.exponent:.2f}"
        if new.exponent_interval is not None:
            low, high = new.exponent_interval
            exponent += f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else " [no interval: two points]"
        exponent = "µP" if _current(made, family).parametrisation == "mup" else exponent
        out.print(
            f"[bold]{family}[/bold]: base {new.base:.3g} {_interval(new.base_interval)} at width "
            f"{_current(made, family).reference_width}, {exponent}"
        )


def _row(made: Tuned, cell: Cell) -> tuple[str, ...]:
    name = (cell.arm, cell.rung, str(cell.width))
    now = _current(made, cell.family).peak(cell.width)
    if isinstance(cell.found, NoOptimum):
        return *name, "none", "", "", f"{now:.3g}", "", "", ""
    best, new = cell.found, made.peak(cell.family, cell.width)
    return (
        *name,
        f"{best.rate:.3g}",
        _interval(best.interval),
        f"{best.loss:.4f}",
        f"{now:.3g}",
        _cost(best, now),
        f"{new:.3g}" if new is not None else "",
        _cost(best, new) if new is not None else "",
    )


def _current(made: Tuned, family: Family) -> Any:
    return made.grid.train.learning_rate[family]


def _cost(best: Optimum, rate: float) -> str:
    """By how much the loss is higher there, or at least, where the parabola doesn't reach; in the unit of the loss."""
    low, high = best.reach
    return f"{'' if low <= rate <= high else '> '}{best.excess(rate):+.4f}"


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"({low:.3g}–{high:.3g})" if 0 < low and math.isfinite(high) else "(unknown)"


def tuned_json(made: Tuned) -> dict[str, Any]:
    return {
        "sweep": made.grid.name,
        "cells": [_cell_json(made, cell) for cell in made.cells],
        "rules": {family: _rule_json(made, family) for family in made.rules},
    }


def _cell_json(made: Tuned, cell: Cell) -> dict[str, Any]:
    entry: dict[str, Any] = {"arm": cell.arm, "rung": cell.rung, "width": cell.width}
    entry["losses"] = {f"{rate:.6g}": [_finite(loss) for loss in some] for rate, some in cell.losses.items()}
    if isinstance(cell.found, NoOptimum):
        return entry | {"refused": str(cell.found)}
    best, now = cell.found, _current(made, cell.family).peak(cell.width)
    new = made.peak(cell.family, cell.width)
    return entry | {
        "rate": best.rate,
        "interval": [_finite(end) for end in best.interval],
        "loss": best.loss,
        "reach": best.reach,
        "rate_now": now,
        "excess_now": best.excess(now),
        "rate_new": new,
        "excess_new": best.excess(new) if new is not None else None,
    }


def _rule_json(made: Tuned, family: Family) -> dict[str, Any]:
    new, current = made.rules[family], _current(made, family)
    if isinstance(new, NoOptimum):
        return {"refused": str(new)}
    return {
        "parametrisation": current.parametrisation,
        "reference_width": current.reference_width,
        "reference_depth": current.reference_depth,
        "base": new.base,
        "base_interval": [_finite(end) for end in new.base_interval],
        "exponent": new.exponent,
        "exponent_interval": None if new.exponent_interval is None else [_finite(e) for e in new.exponent_interval],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show_change(name: str, before: str, after: str, *, written: bool) -> None:
    new = name if written else f"{name}, with --write"
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), f"{name}, before", new, lineterm=""):
        out.print(line, markup=False, highlight=False)


def show_checks(found: Sequence[Check], as_json: bool) -> None:
    """A table per arm, for widths or depths: layers, and for each parametrisation the exponent, and the changes."""
    if as_json:
        print_json([asdict(check) | {"exponents": check.exponents()} for check in found])
        return
    for (arm, of), checks in groupby(found, key=lambda check: (check.arm, check.of)):
        both = list(checks)
        table = Table(box=None, pad_edge=False, header_style="bold", title=f"{arm} by {of}", title_justify="left")
        table.add_column("change of the outputs of")
        for check in both:
            for heading in (f"{check.parametrisation}: exponent", *(f"{of} {size}" for size in check.sizes)):
                table.add_column(heading, justify="right")
        for layer in both[0].changes:
            numbers = [
                text
                for check in both
                for text in (f"{check.exponents()[layer]:+.2f}", *(f"{change:.3g}" for change in check.changes[layer]))
            ]
            table.add_row(layer, *numbers)
        out.print(table)
