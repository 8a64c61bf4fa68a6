"""Small trials at several learning rates, what is best for each arm and rung, and the sweep's rules that follow.

The trials are ordinary ones, in a results folder of their own; they differ from the sweep's in their rate, maybe in
their length, and in that nothing is read off their encoders elsewhere. Rates are judged by the validation patients, as
checkpoints are: the test patients have no say in a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ecgscale.errors import EcgscaleError
from ecgscale.ladder import RUNGS, Family, Rung, shape
from ecgscale.learning_rates import NoOptimum, Optimum, Rule, optimum, rule
from ecgscale.plan import Plan, Population, plan, planned
from ecgscale.results import RunRecord, Status, latest
from ecgscale.specs import GridSpec, ProbeSpec, TrialSpec
from ecgscale.yaml_text import YamlText

N_RUNGS = 3
"""The smallest of the sweep: two widths determine an exponent, the third says whether there is one."""

OCTAVES = (-2, -1, 0, 1, 2)
"""Tried around the sweep's own rate."""


def tuning_grid(
    grid: GridSpec, rungs: Sequence[str] = (), data_fraction: float | None = None, seeds: Sequence[int] = ()
) -> GridSpec:
    """The part of a sweep that is trained to find its rates: by default the three smallest rungs, all data, its seeds.

    Raises:
        EcgscaleError: no sweep could have such a rung, fraction or seed.
    """
    for name in rungs:
        if name not in RUNGS:
            raise EcgscaleError(f"rung {name!r} does not exist; the ladder has {', '.join(RUNGS)}")
    asked = tuple(name for name in RUNGS if name in rungs)
    smallest = tuple(name for name in RUNGS if name in grid.axes.rung)[:N_RUNGS]
    axes = {
        "rung": asked or smallest,
        "data_fraction": (max(grid.axes.data_fraction) if data_fraction is None else data_fraction,),
        "seed": tuple(dict.fromkeys(seeds)) or grid.axes.seed,
    }
    changed: dict[str, Any] = {
        "axes": dict(grid.axes) | axes,
        "data": grid.data.model_copy(update={"transfer_to": ()}),
        "probe": ProbeSpec(),
        "corruptions": (),
    }
    try:
        return GridSpec(**dict(grid) | changed)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        raise EcgscaleError(f"{where}: {found['msg'].removeprefix('Value error, ')}") from None


class OffRule(TrialSpec):
    """A trial at another rate than the sweep's, which its label says; its identity is that of the same fields."""

    @property
    def label(self) -> str:
        return f"{super().label}-lr{self.peak_lr}"


def tuning_plan(
    grid: GridSpec,
    populations: Mapping[str, Population] | None,
    rates: Sequence[float] = (),
    n_steps: int | None = None,
) -> Plan:
    """Every cell of `tuning_grid` at every rate, costliest first.

    Args:
        rates: peak rates; by default powers of two, the nearest to the sweep's own and two on each side. Another rule
            then finds trials of this one done.
        n_steps: of every trial; None for the sweep's budget.
    """
    cells = [
        planned(_tried(spec, rate, spec.n_steps if n_steps is None else n_steps))
        for spec in plan(grid, populations).specs
        for rate in dict.fromkeys(rates) or _around(spec.peak_lr)
    ]
    return Plan(grid, tuple(sorted(cells, key=lambda cell: (-cell.cpu_s, cell.spec.label))))


def _tried(spec: TrialSpec, rate: float, n_steps: int) -> TrialSpec:
    tried = spec.model_copy(update={"peak_lr": rate, "n_steps": n_steps})
    return tried if rate == spec.peak_lr else OffRule(**dict(tried))


def _around(rate: float) -> Iterator[float]:
    return (2.0 ** (round(math.log2(rate)) + octave) for octave in OCTAVES)


@dataclass(frozen=True)
class Cell:
    """One arm at one rung.

    Attributes:
        losses: rate → validation loss of each of its trainings; infinite where it diverged.
        found: the best rate, or why there is none.
        n_failed: trials that have not ended, or have failed otherwise than by diverging.
    """

    arm: str
    family: Family
    rung: Rung
    width: int
    losses: Mapping[float, tuple[float, ...]]
    found: Optimum | NoOptimum
    n_failed: int


@dataclass(frozen=True)
class Tuned:
    """What the trials say of each cell, and the rule of each family that follows, or why none does."""

    grid: GridSpec
    cells: tuple[Cell, ...]
    rules: Mapping[Family, Rule | NoOptimum]

    @property
    def n_failed(self) -> int:
        return sum(cell.n_failed for cell in self.cells)

    @property
    def is_complete(self) -> bool:
        """Every family has a rule."""
        return all(isinstance(new, Rule) for new in self.rules.values())

    def peak(self, family: Family, width: int) -> float | None:
        """By the new rule; None without one."""
        new = self.rules[family]
        if isinstance(new, NoOptimum):
            return None
        return float(new.base * (width / self.grid.train.learning_rate[family].reference_width) ** new.exponent)


def tuned(tried: Plan, records: Iterable[RunRecord]) -> Tuned:
    """Reads the trials of a `tuning_plan` that have ended."""
    rows = latest(records)
    grid, by_cell = tried.grid, dict[tuple[str, Rung], list[TrialSpec]]()
    for spec in sorted(tried.specs, key=lambda spec: (spec.arm, RUNGS[spec.rung])):
        by_cell.setdefault((spec.arm, spec.rung), []).append(spec)
    cells = tuple(_cell(specs, rows) for specs in by_cell.values())
    return Tuned(grid, cells, {family: _rule(grid, family, cells) for family in grid.axes.family})


def _cell(specs: Sequence[TrialSpec], rows: Mapping[str, RunRecord]) -> Cell:
    ended = [(spec, loss) for spec in specs if (loss := _loss(rows.get(spec.trial_id))) is not None]
    losses: dict[float, tuple[float, ...]] = {}
    for spec, loss in sorted(ended, key=lambda pair: pair[0].peak_lr):
        losses[spec.peak_lr] = (*losses.get(spec.peak_lr, ()), loss)
    found: Optimum | NoOptimum
    try:
        if len(ended) < len(specs):
            raise NoOptimum(f"{len(specs) - len(ended)} of {len(specs)} trials have failed; see `ecgscale status`")
        found = optimum([s.peak_lr for s, _ in ended], [s.seed for s, _ in ended], [loss for _, loss in ended])
    except NoOptimum as why_not:
        found = why_not
    one = specs[0]
    width = shape(one.family, one.rung, one.input.shape).width
    return Cell(one.arm, one.family, one.rung, width, losses, found, n_failed=len(specs) - len(ended))


def _loss(row: RunRecord | None) -> float | None:
    if row is not None and row.status == Status.DIVERGED:
        return math.inf
    return row.val_loss_best if row is not None and row.status == Status.COMPLETED else None


def _rule(grid: GridSpec, family: Family, cells: Sequence[Cell]) -> Rule | NoOptimum:
    """Of all arms of a family at once: the sweep has one rule for them."""
    found = [(cell.width, cell.found) for cell in cells if cell.family == family]
    best = [(width, one) for width, one in found if isinstance(one, Optimum)]
    if len(best) < len(found):
        return NoOptimum(f"{len(found) - len(best)} of {len(found)} best rates are not known")
    current = grid.train.learning_rate[family]
    try:
        return rule(
            [width for width, _ in best],
            [one for _, one in best],
            current.reference_width,
            0.0 if current.parametrisation == "mup" else None,
        )
    except NoOptimum as why_not:
        return why_not


def rewritten(sweep_file: Path, made: Tuned) -> tuple[str, str]:
    """(text of the sweep file, the same with the new rules). Comments and layout stay.

    Raises:
        EcgscaleError: there is no rule for a family.
    """
    values: dict[tuple[Any, ...], str] = {}
    for family, new in made.rules.items():
        if isinstance(new, NoOptimum):
            raise EcgscaleError(f"no rule for {family}: {new}")
        at = ("train", "learning_rate", family)
        values[(*at, "base")] = f"{new.base:.2e}".replace("e-0", "e-")
        if made.grid.train.learning_rate[family].parametrisation == "standard":
            values[(*at, "exponent")] = f"{round(new.exponent, 2) + 0.0:.2f}"  # never -0.00
    text = sweep_file.read_text(encoding="utf-8")
    return text, YamlText(text, name=str(sweep_file)).with_values(values)
