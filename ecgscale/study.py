"""Everything that was fitted to one results folder or table, as one value that figures, tables and JSON are made from.

Laws per group and target, loss-to-loss laws, which of several forms the points support, and how groups compare. It
does not know where the points came from (`sweep_laws.py`, `tables.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from ecgscale.errors import FitError
from ecgscale.fitted import Fitted, FittedPair, Method
from ecgscale.laws import (
    Efficiency,
    LawFit,
    PairFit,
    Pooling,
    Selection,
    TransferEfficiency,
    compare_arms,
    compare_laws,
    pool_pairs,
    transfer_efficiency,
)

JOINT, IN_N, IN_D, IN_K = "L(N, D)", "L(N)", "L(D)", "L(k)"
"""Kinds of laws; k is the number of labels that supervised pre-training had."""

ID_TARGET = "in distribution"

SHARED_ERROR = "1 − AUROC of the labels that all label sets share"
"""The in-distribution loss of k labels is a mean over those k, so it can't be compared between label sets."""

SameUnit = Callable[[str, str, str], bool]
"""Whether the losses of two groups for a target have the same unit, so that one can be set equal to the other."""


@dataclass(frozen=True)
class Arm:
    """What a group of a results folder is."""

    group: str
    family: str
    paradigm: str
    n_labels: int
    """0 for SSL."""


@dataclass(frozen=True)
class TransferTarget:
    """A loss on another population: the mean over its seen or unseen tasks, or that of one task."""

    name: str
    population: str
    seen: bool
    """Its tasks are among the pre-training labels."""
    one_task: bool


@dataclass(frozen=True)
class Choice:
    """Which of several forms the points of a group support."""

    group: str
    target: str
    kind: str
    selection: Selection

    def to_dict(self) -> dict[str, Any]:
        return {"group": self.group, "target": self.target, "kind": self.kind} | self.selection.to_dict()


@dataclass(frozen=True)
class Comparison:
    """How much less group `a` needs than group `b` for the same loss, or how much more of its gain it transfers."""

    a: str
    b: str
    target: str
    kind: str
    efficiency: Efficiency | TransferEfficiency

    def to_dict(self) -> dict[str, Any]:
        head = {"a": self.a, "b": self.b, "target": self.target, "kind": self.kind}
        return head | self.efficiency.to_dict()


@dataclass(frozen=True)
class Pooled:
    """Whether groups share one loss-to-loss curve."""

    x: str
    y: str
    groups: tuple[str, ...]
    pooling: Pooling

    def to_dict(self) -> dict[str, Any]:
        return {"x": self.x, "y": self.y, "groups": list(self.groups)} | self.pooling.to_dict()


@dataclass(frozen=True)
class Study:
    """Everything that was fitted to one results folder or table."""

    name: str
    folder: Path | None
    laws: tuple[Fitted, ...]
    pairs: tuple[FittedPair, ...] = ()
    choices: tuple[Choice, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    pooled: tuple[Pooled, ...] = ()
    notes: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = ()
    """Of a results folder; a table has groups only."""
    transfers: tuple[TransferTarget, ...] = ()
    task_laws: tuple[Fitted, ...] = ()
    """L(N, D) of single tasks."""
    task_pairs: tuple[FittedPair, ...] = ()
    """From the in-distribution loss to single unseen tasks."""
    label_laws: tuple[Fitted, ...] = ()
    """L(k) per family of supervised arms, where several label sets were trained on."""

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(law.group for law in self.laws))

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(law.target for law in self.laws))

    def law(self, group: str, target: str, law: str, kind: str) -> Fitted | None:
        """The fit of one form; None when it was not tried."""
        wanted = (group, target, law, kind)
        every = (*self.laws, *self.task_laws, *self.label_laws)
        return next((f for f in every if (f.group, f.target, f.law, f.kind) == wanted), None)

    def pair(self, group: str, x: str, y: str) -> FittedPair | None:
        """The loss-to-loss law of a group; None when it was not tried."""
        every = (*self.pairs, *self.task_pairs)
        return next((p for p in every if (p.group, p.x, p.y) == (group, x, y)), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything for machines, as `ecgscale/fits.schema.json` describes it."""
        return {
            "fits": [law.to_dict() for law in (*self.laws, *self.task_laws, *self.label_laws)],
            "pairs": [pair.to_dict() for pair in (*self.pairs, *self.task_pairs)],
            "selections": [choice.to_dict() for choice in self.choices],
            "efficiencies": [comparison.to_dict() for comparison in self.comparisons],
            "poolings": [pooled.to_dict() for pooled in self.pooled],
        }

    def law_table(self) -> pd.DataFrame:
        """One row per fit to pooled losses: estimates with their 95 % intervals, flags and refusals."""
        return _table(self.laws, self.pairs)

    def task_table(self) -> pd.DataFrame:
        """The same for single tasks and for the number of labels."""
        return _table((*self.task_laws, *self.label_laws), self.task_pairs)


def _table(laws: Sequence[Fitted], pairs: Sequence[FittedPair]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for f in laws:
        row: dict[str, Any] = {"group": f.group, "target": f.target, "kind": f.kind, "law": f.law}
        # a one-variable law calls its exponent alpha whatever the variable; in D people read beta
        names = {"A": "B", "alpha": "beta"} if f.kind == IN_D else {}
        row |= _estimates(f.fit, names) | {"points": len(f.points), "refused": f.refused}
        rows.append(row)
    for p in pairs:
        row = {"group": p.group, "target": f"{p.x} → {p.y}", "kind": "loss-to-loss", "law": "shifted_power"}
        row |= _estimates(p.fit, {}) | {"points": len(p.points), "refused": p.refused}
        if p.fit is not None:
            row |= {"slope": p.fit.slope}
        rows.append(row)
    return pd.DataFrame(rows)


def choices(laws: Sequence[Fitted], method: Method) -> Iterator[Choice]:
    """Where several forms were fitted to the same points: which of them they support."""
    for group, target, kind in dict.fromkeys((f.group, f.target, f.kind) for f in laws):
        same = [f for f in laws if (f.group, f.target, f.kind) == (group, target, kind) and f.fit is not None]
        if len(same) < 2:
            continue
        points = same[0].points
        variables = {JOINT: ("n", "d"), IN_N: ("n",), IN_D: ("d",)}.get(kind, ("x",))
        columns = [points[c].to_numpy(dtype=float) for c in (*variables, "loss")]
        yield Choice(
            group,
            target,
            kind,
            compare_laws(
                [f.law for f in same],
                *columns,
                weights=points["weight"] if "weight" in points else None,
                runs=points["run"] if "run" in points else None,
                objective=method.objective,
                delta=method.delta,
            ),
        )


def comparisons(laws: Sequence[Fitted], pairs: Sequence[FittedPair], same_unit: SameUnit) -> Iterator[Comparison]:
    """Every two groups, wherever both have a fit of the same form to the same target in the same unit."""
    for kind, law, target in dict.fromkeys((f.kind, f.law, f.target) for f in laws):
        same = [f for f in laws if (f.kind, f.law, f.target) == (kind, law, target) and f.fit is not None]
        for a, b in combinations(same, 2):
            if same_unit(a.group, b.group, target) and a.fit is not None and b.fit is not None:
                with suppress(FitError):  # no loss that both reach
                    yield Comparison(a.group, b.group, target, f"{kind} {law}", compare_arms(a.fit, b.fit))
    for x, y in dict.fromkeys((p.x, p.y) for p in pairs):
        found = [p for p in pairs if (p.x, p.y) == (x, y) and p.fit is not None]
        for one, other in combinations(found, 2):
            if one.fit is not None and other.fit is not None:
                with suppress(FitError):
                    efficiency = transfer_efficiency(one.fit, other.fit)
                    yield Comparison(one.group, other.group, f"{x} → {y}", "loss-to-loss", efficiency)


def pooled(pairs: Sequence[FittedPair], same_unit: SameUnit) -> Iterator[Pooled]:
    """For every two losses, each set of groups whose first loss has one unit: do they lie on one curve?"""
    for x, y in dict.fromkeys((p.x, p.y) for p in pairs):
        left = [p for p in pairs if (p.x, p.y) == (x, y) and p.fit is not None]
        while left:
            together = [p for p in left if same_unit(left[0].group, p.group, x)]
            left = [p for p in left if p.group not in {q.group for q in together}]
            arms = {p.group: (p.points["x"], p.points["y"]) for p in together}
            floors = {p.group: (p.fit.theta["E0"], p.fit.theta["E1"]) for p in together if p.fit is not None}
            with suppress(FitError):  # a single group, or too few pairs
                yield Pooled(x, y, tuple(arms), pool_pairs(arms, floors))


def is_held(flags: Sequence[str], parameter: str) -> bool:
    """Whether nothing in the flags speaks against quoting this parameter: not unidentified, runaway or at its bound."""
    own = {f"{reason}:{parameter}" for reason in ("unidentified", "at_bound", "runaway")}
    variable = {"alpha": ("N", "X"), "beta": ("D",), "A": ("N", "X"), "B": ("D",)}.get(parameter, ())
    own |= {f"no_effect:{v}" for v in variable}
    return not own.intersection(flags)


def _estimates(fitted: LawFit | PairFit | None, names: Mapping[str, str]) -> dict[str, Any]:
    if fitted is None:
        return {}
    out: dict[str, Any] = {"status": fitted.status.value, "flags": " ".join(fitted.flags)}
    for name, value in fitted.theta.items():
        low, high = (fitted.interval or {}).get(name, (None, None))
        shown = names.get(name, name)
        out |= {shown: value, f"{shown}_low": low, f"{shown}_high": high}
        out[f"{shown}_held"] = is_held(fitted.flags, name)
    return out
