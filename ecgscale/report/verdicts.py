"""Conclusions as they are shown: an overview, and per conclusion its findings as intervals on one scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ecgscale.figures import between, is_ratio, limits_of, short
from ecgscale.findings import Conclusion, Finding, Verdict
from ecgscale.report.tables import Table


@dataclass(frozen=True)
class Strip:
    """An interval drawn in a line, all places in per cent of its width; None for what has no value."""

    null: float | None
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One finding with its strip."""

    finding: Finding
    number: str
    other: str
    strip: Strip | None


@dataclass(frozen=True)
class Card:
    """One conclusion: pooled findings first, those of single tasks counted and folded away."""

    conclusion: Conclusion
    pooled: tuple[Line, ...]
    by_task: tuple[Line, ...]

    @property
    def by_quantity(self) -> dict[str, list[Line]]:
        """The pooled ones under what their values are, in the order of the findings."""
        found: dict[str, list[Line]] = {}
        for line in self.pooled:
            found.setdefault(line.finding.quantity, []).append(line)
        return found

    @staticmethod
    def null(lines: Sequence[Line]) -> str:
        """The value between yes and no, where findings that have a strip share it."""
        nulls = {line.finding.null for line in lines if line.strip is not None}
        shared = nulls.pop() if len(nulls) == 1 else None
        return "" if shared is None else short(shared)

    @property
    def counts(self) -> str:
        """`6 of 8 supported, 1 contradicted`."""
        found = Counter(line.finding.verdict for line in self.by_task)
        told = [f"{found[Verdict.SUPPORTED]} of {len(self.by_task)} supported"]
        told += [f"{found[v]} {v}" for v in (Verdict.CONTRADICTED, Verdict.UNDECIDED) if found[v]]
        return ", ".join(told)


def cards(conclusions: Sequence[Conclusion]) -> list[Card]:
    return [_card(conclusion) for conclusion in conclusions]


def verdict_table(conclusions: Sequence[Conclusion]) -> Table:
    """One row per pooled finding."""
    rows = [
        (c.question if first else "", f.subject, f.target, number(f), f.quantity, str(f.verdict))
        for c in conclusions
        for first, f in _first([f for f in c.findings if not f.one_task])
    ]
    columns = ("question", "arms", "target", "value [95 %]", "of what", "verdict")
    return Table("conclusions", "Conclusions, each with its 95 % interval.", columns, 3, tuple(rows))


def number(finding: Finding) -> str:
    """The value with its interval; `—` where there is none."""
    return between(finding.value, finding.low, finding.high)


def _first(found: Sequence[Finding]) -> list[tuple[bool, Finding]]:
    return [(i == 0, finding) for i, finding in enumerate(found)]


def _card(conclusion: Conclusion) -> Card:
    pooled, by_task = ([f for f in conclusion.findings if f.one_task == one_task] for one_task in (False, True))
    return Card(conclusion, _lines(pooled), _lines(by_task))


def _lines(found: Sequence[Finding]) -> tuple[Line, ...]:
    return tuple(_line(finding, found) for finding in found)


def _line(finding: Finding, beside: Sequence[Finding]) -> Line:
    reading = finding.other_reading
    other = f"{reading.quantity}: {between(reading.value, reading.low, reading.high)}" if reading is not None else ""
    return Line(finding, number(finding), other, _strip(finding, beside))


def _strip(finding: Finding, beside: Sequence[Finding]) -> Strip | None:
    """On the scale of all findings beside it."""
    limits = limits_of(beside)
    if limits is None or finding.value is None or not math.isfinite(finding.value):
        return None
    scale = math.log if is_ratio(beside) else float
    low, high = (scale(limit) for limit in limits)

    def place(value: float) -> float:
        if math.isinf(value) or (scale is math.log and value <= 0):
            return 100.0 if value > 0 else 0.0
        return min(max(100 * (scale(value) - low) / (high - low), 0.0), 100.0)

    ends = (finding.value, finding.value)
    if finding.low is not None or finding.high is not None:  # one of them missing is an open end
        ends = (-math.inf if finding.low is None else finding.low, math.inf if finding.high is None else finding.high)
    null = None if finding.null is None else place(finding.null)
    return Strip(null, place(finding.value), place(ends[0]), place(ends[1]))
