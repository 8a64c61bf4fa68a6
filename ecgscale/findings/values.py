"""What a conclusion about a results folder is made of: plain values, for tables, pages and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class OtherReading:
    """A second quantity that the same words may mean, beside the one that decides."""

    quantity: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Finding:
    """One claim for one arm or one pair of arms and one target."""

    subject: str
    """`resnet-ssl against transformer-ssl`, or one arm: `resnet-sl`."""
    target: str
    """`in distribution`, `transfer to B, unseen tasks`, or one task: `B: AF`."""
    one_task: bool
    """One task rather than the mean over tasks: counted in the summary, never decisive."""
    quantity: str
    """What `value` is, with its unit."""
    value: float | None
    low: float | None
    """95 % interval; None on a side that is open, on both where there is no interval."""
    high: float | None
    null: float | None
    """The value between yes and no: 1 for ratios, 0 for slopes, for overtaking the size beyond which nobody looks.
    None where even that is not known."""
    verdict: Verdict
    reason: str
    """One sentence; where undecided: what is missing."""
    flags: tuple[str, ...] = ()
    would_decide: str | None = None
    """The cheapest further trials that would exclude the null if the estimate stays."""
    other_reading: OtherReading | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"verdict": self.verdict.value, "flags": list(self.flags)}


@dataclass(frozen=True)
class Conclusion:
    """One conclusion of the study, decided on a results folder."""

    name: str
    """For machines: `parameter_efficiency`."""
    question: str
    published: str
    """What the paper states."""
    ours: str
    """Which definition is our assumption."""
    verdict: Verdict
    """Over the pooled findings; those of single tasks are counted, never picked."""
    summary: str
    """One sentence with numbers."""
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        head = {name: getattr(self, name) for name in ("name", "question", "published", "ours", "summary")}
        return head | {"verdict": self.verdict.value, "findings": [finding.to_dict() for finding in self.findings]}
