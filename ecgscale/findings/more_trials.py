"""Which further trials would decide: how much an interval shrinks with more seeds, sizes or fractions, and their cost.

The shrinkage is that of the linearised laws (`laws.information`), so an interval that is wide because a law bends
within it shrinks faster than said here. The estimate is taken to stay where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgscale.ladder import RUNGS
from ecgscale.laws.arrays import FloatArray
from ecgscale.words import signed

MOST_COST = 4.0
"""Times the FLOPs spent on these arms so far; what costs more is not proposed. Our assumption."""

MOST_STEPS = 8
"""Seeds, sizes or fractions more; beyond, another grid is the better answer."""

FEWEST_RECORDS = 100
"""Records below which a training is a handful of batches. Our assumption."""

RUNG_SLACK = 1.25
"""How far a built network may lie from the size that its rung is named after."""


@dataclass(frozen=True)
class Design:
    """The trials of one arm: sizes and records, one entry each, and what a trial costs."""

    n: FloatArray
    d: FloatArray
    log_flops: tuple[float, float, float]
    """Constant, slope in log N, slope in log D: by least squares over the trials that ran."""
    hours_per_flop: float
    n_trials_run: int

    @classmethod
    def of(cls, points: pd.DataFrame) -> Design:
        """From points with the columns n, d, flops, wall_s."""
        n, d, flops = (points[c].to_numpy(dtype=float) for c in ("n", "d", "flops"))
        columns = np.column_stack((np.ones(len(n)), np.log(n), np.log(d)))
        constant, in_n, in_d = np.linalg.lstsq(columns, np.log(flops), rcond=None)[0].tolist()
        return cls(n, d, (constant, in_n, in_d), points["wall_s"].sum() / flops.sum() / 3600, len(n))

    def with_trials(self, n: FloatArray, d: FloatArray) -> Design:
        return Design(
            np.concatenate((self.n, n)),
            np.concatenate((self.d, d)),
            self.log_flops,
            self.hours_per_flop,
            self.n_trials_run,
        )

    @property
    def cost_flops(self) -> FloatArray:
        constant, in_n, in_d = self.log_flops
        return np.asarray(np.exp(constant + in_n * np.log(self.n) + in_d * np.log(self.d)))

    @property
    def n_added(self) -> int:
        return len(self.n) - self.n_trials_run

    @property
    def added_flops(self) -> float:
        return float(self.cost_flops[self.n_trials_run :].sum())


Grow = Callable[[Design, int], Design]
Variance = Callable[[Sequence[Design]], float]
"""Of the quantity in question, up to a constant factor, if its laws were fitted to these designs."""


def _words(name: str, steps: int, grown: Sequence[Design], cost: float) -> str:
    hours = sum(design.added_flops * design.hours_per_flop for design in grown)
    trials = sum(design.n_added for design in grown)
    what = name.format(
        steps=steps,
        s="" if steps == 1 else "s",
        n=" and ".join(signed(n) for n in dict.fromkeys(_furthest(d.n, d.n_trials_run) for d in grown)),
        d=" and ".join(signed(n) for n in dict.fromkeys(_furthest(d.d, d.n_trials_run) for d in grown)),
    )
    return f"{what} ({trials} trials, {cost:.2g} training FLOPs, {hours:.2g} h on the devices used so far)"


def _furthest(values: FloatArray, n_run: int) -> float:
    """Of the new values the one furthest from the old ones."""
    new, middle = values[n_run:], np.median(np.log(values[:n_run]))
    return float(new[np.abs(np.log(new) - middle).argmax()])


def _more_seeds(design: Design, steps: int) -> Design:
    cells = np.unique(np.column_stack((design.n, design.d)), axis=0)
    return design.with_trials(*np.repeat(cells, steps, axis=0).T)


def _larger(design: Design, steps: int) -> Design:
    return _more_sizes(design, _beyond(design.n, steps, up=True))


def _smaller(design: Design, steps: int) -> Design:
    return _more_sizes(design, _beyond(design.n, steps, up=False))


def _more_sizes(design: Design, sizes: Sequence[float]) -> Design:
    """Unchanged where the ladder has no such size."""
    smallest, largest = min(RUNGS.values()) / RUNG_SLACK, max(RUNGS.values()) * RUNG_SLACK
    on_ladder = all(smallest <= size <= largest for size in sizes)
    return _more_levels(design, sizes, along_n=True) if on_ladder else design


def _fewer_records(design: Design, steps: int) -> Design:
    """Unchanged where there would be too few records to train on."""
    levels = _beyond(design.d, steps, up=False)
    return _more_levels(design, levels, along_n=False) if min(levels, default=0) >= FEWEST_RECORDS else design


def _fractions_between(design: Design, steps: int) -> Design:
    """`steps` between every two neighbours, evenly in logs."""
    levels = np.log(np.unique(design.d))
    inner = np.linspace(levels[:-1], levels[1:], steps + 2)[1:-1]
    return _more_levels(design, np.exp(inner).ravel().tolist(), along_n=False)


def _beyond(values: FloatArray, steps: int, *, up: bool) -> list[float]:
    """Levels that go on as those there are, by their mean ratio; none where there is one level."""
    levels = np.unique(values)
    if len(levels) < 2:
        return []
    ratio = float(levels[-1] / levels[0]) ** (1 / (len(levels) - 1))
    return [float(levels[-1] * ratio**k if up else levels[0] / ratio**k) for k in range(1, steps + 1)]


def _more_levels(design: Design, levels: Sequence[float], *, along_n: bool) -> Design:
    """New levels of one axis at every level of the other, with as many seeds as there are."""
    crossed = np.unique(design.d if along_n else design.n)
    seeds = max(1, round(design.n_trials_run / len(np.unique(np.column_stack((design.n, design.d)), axis=0))))
    new, other = (np.repeat(grid.ravel(), seeds) for grid in np.meshgrid(np.asarray(levels, dtype=float), crossed))
    return design.with_trials(*((new, other) if along_n else (other, new)))


Ways = tuple[tuple[str, Grow], ...]

ONLY_SEEDS: Ways = (("{steps} more seed{s} of every cell", _more_seeds),)
WAYS: Ways = (
    *ONLY_SEEDS,
    ("{steps} larger size{s}, up to N = {n}", _larger),
    ("{steps} smaller size{s}, down to N = {n}", _smaller),
    ("{steps} smaller data fraction{s}, down to D = {d}", _fewer_records),
    ("{steps} more data fraction{s} between every two", _fractions_between),
)


@dataclass(frozen=True)
class Plan:
    """How to narrow an interval: what it would have to be times its present half-width, and what it depends on."""

    designs: tuple[Design, ...]
    variance: Variance
    needed: float
    """Largest half-width that decides, over the present one; 1 or more is decided already."""
    achieves: str = "decide, if the estimate stays"
    ways: Ways = WAYS

    def words(self) -> str:
        """The cheapest of the ways, with its cost; or that none up to four times the cost so far would do."""
        spent = sum(float(design.cost_flops[: design.n_trials_run].sum()) for design in self.designs)
        now = self.variance(self.designs)
        found: list[tuple[float, str]] = []
        for name, grow in self.ways:
            for steps in range(1, MOST_STEPS + 1):
                grown = [grow(design, steps) for design in self.designs]
                cost = sum(design.added_flops for design in grown)
                if cost > MOST_COST * spent or not all(design.n_added for design in grown):
                    break
                if now > 0 and math.sqrt(max(self.variance(grown), 0.0) / now) <= self.needed:
                    found.append((cost, _words(name, steps, grown, cost)))
                    break
        if not found:
            return f"no grid of this kind up to {MOST_COST:g} × the cost so far ({spent:.2g} training FLOPs) would"
        return f"{min(found)[1]} would {self.achieves}"
