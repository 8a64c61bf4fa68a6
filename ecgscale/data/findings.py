"""One thing to know about a collection of ECGs: how bad it is, what it is, which records show it and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""Worst first."""

N_NAMED = 10


@dataclass(frozen=True)
class Finding:
    """One thing to know about a collection.

    Attributes:
        severity: "error" if results would be wrong, "warning" if records need a decision, "info" to know.
        what: A few words, the same for the same fault everywhere.
        detail: The numbers, the probable cause and the way out.
        n_exams: How many exams are concerned; 0 if it is about the collection.
        exam_ids: The first ten of them.
        records: Their names, where the collection names its records otherwise.
    """

    severity: Severity
    what: str
    detail: str
    n_exams: int = 0
    exam_ids: tuple[int, ...] = ()
    records: tuple[str, ...] = ()


def about(records: pd.DataFrame, severity: Severity, what: str, detail: str) -> Finding:
    """A finding about rows of the table of records, which has `exam_id` and perhaps the collection's own `record`."""
    first = records.iloc[:N_NAMED]
    names = tuple(str(name) for name in first["record"]) if "record" in records.columns else ()
    return Finding(severity, what, detail, len(records), tuple(int(x) for x in first["exam_id"]), names)


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then the rest; otherwise in the order in which they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
