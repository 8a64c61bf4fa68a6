"""What the claims share: how an interval becomes a verdict, and how findings become a conclusion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ecgscale.findings.more_trials import Plan
from ecgscale.findings.values import Conclusion, Finding, OtherReading, Verdict
from ecgscale.fitted import Fitted
from ecgscale.laws import Estimate, LawFit
from ecgscale.laws.efficiency import UNBOUNDED
from ecgscale.laws.estimate import PAIRS_METHOD
from ecgscale.study import JOINT, Arm, Study, TransferTarget, is_held
from ecgscale.words import signed

RESNET, TRANSFORMER = "resnet", "transformer"
SL, SSL = "sl", "ssl"

LAW = "chinchilla"
"""The law of N and D that every claim reads: one form for all arms, or multipliers would compare forms."""

DESIGN_FLAGS = ("too_few_levels", "narrow_axis", "flat", "floor_above_data")
"""Flags after which nothing that follows from a law is a finding, whichever parameter it needs."""


def interval_verdict(low: float | None, high: float | None, null: float) -> Verdict:
    """By the 95 % interval; None is open on this side."""
    if low is not None and low > null:
        return Verdict.SUPPORTED
    if high is not None and high < null:
        return Verdict.CONTRADICTED
    return Verdict.UNDECIDED


def question(subject: str, target: str, quantity: str, null: float | None, one_task: bool = False) -> Finding:
    """A finding that is still to be made."""
    return Finding(subject, target, one_task, quantity, None, None, None, null, Verdict.UNDECIDED, "")


def refused(asked: Finding, reason: str, flags: Sequence[str] = (), plan: Plan | None = None) -> Finding:
    """No number: what is missing, and what would supply it."""
    return replace(asked, reason=reason, flags=tuple(flags), would_decide=None if plan is None else plan.words())


def decided(
    asked: Finding,
    estimate: Estimate,
    says: str,
    flags: Sequence[str] = (),
    other: OtherReading | None = None,
    plan: Plan | None = None,
) -> Finding:
    """By the interval of the estimate.

    Args:
        says: what the number means here, in one sentence without a full stop.
        plan: what would narrow the interval, asked only if it holds the null.
    """
    if estimate.low is None and estimate.high is None:
        return refused(asked, f"{says}; there is no interval: too few trials to resample", flags)
    assert asked.null is not None
    low, high = (None if end is None or not math.isfinite(end) else end for end in (estimate.low, estimate.high))
    verdict = interval_verdict(low, high, asked.null)
    if verdict is Verdict.UNDECIDED:
        says = f"{says}; the 95 % interval holds {asked.null:g}"
    return replace(
        asked,
        value=estimate.value if math.isfinite(estimate.value) else None,
        low=low,
        high=high,
        verdict=verdict,
        reason=says,
        flags=tuple(flags),
        other_reading=other,
        would_decide=plan.words() if verdict is Verdict.UNDECIDED and plan is not None else None,
    )


def widened(estimate: Estimate, null: float, laws: Sequence[LawFit]) -> Estimate:
    """The interval by √(n / (n − p)) wider, in logs for a ratio (null above zero).

    A pairs bootstrap of n runs under p parameters is too narrow by about that much (the HC1 correction of MacKinnon &
    White 1985, J. Econometrics 29:305). In simulated studies of 20 runs per arm, intervals of multipliers held the
    planted one in 92 % without it. The wild bootstrap of fewer runs has its own correction.
    """
    resampled = [law for law in laws if law.interval_method == PAIRS_METHOD]
    ratios = [law.n_runs / max(law.n_runs - len(law.theta), 1) for law in resampled]
    factor = math.sqrt(max(ratios, default=1.0))

    def away(end: float | None) -> float | None:
        if end is None or not math.isfinite(end) or (null > 0 and min(estimate.value, end) <= 0):
            return end
        if null > 0:
            wider = float(estimate.value * (end / estimate.value) ** factor)
            return wider if wider < UNBOUNDED else math.inf
        return estimate.value + factor * (end - estimate.value)

    return Estimate(estimate.value, away(estimate.low), away(estimate.high), estimate.defined)


def reading(quantity: str, estimate: Estimate) -> OtherReading | None:
    if not math.isfinite(estimate.value):
        return None
    return OtherReading(quantity, estimate.value, estimate.low, estimate.high)


def conclude(name: str, question: str, published: str, ours: str, findings: Sequence[Finding]) -> Conclusion:
    """Supported, or contradicted, where every pooled finding is; anything else is undecided.

    Every one at 95 % makes the whole safer than 95 % without a correction for their number (intersection–union test,
    Berger 1982, Technometrics 24:295), and no finding is picked.
    """
    verdicts = {finding.verdict for finding in findings if not finding.one_task}
    verdict = verdicts.pop() if len(verdicts) == 1 else Verdict.UNDECIDED
    return Conclusion(name, question, published, ours, verdict, summary(findings), tuple(findings))


def summary(findings: Sequence[Finding]) -> str:
    """One sentence: counts, values, and how many of the single tasks agree."""
    pooled = [finding for finding in findings if not finding.one_task]
    tasks = [finding for finding in findings if finding.one_task]
    parts = [_counts(pooled)]
    values = [finding for finding in pooled if finding.value is not None]
    if len(values) == 1:
        parts.append(f"{values[0].quantity}: {number(values[0])}")
    elif values:
        smallest, largest = (chosen(values, key=lambda f: f.value or 0.0) for chosen in (min, max))
        parts.append(f"{smallest.quantity}: from {number(smallest)} to {number(largest)}")
    elif len({finding.reason for finding in pooled}) == 1:
        parts.append(pooled[0].reason)
    if tasks:
        by_chance = 0.05 * len(tasks)
        parts.append(
            f"single tasks: {_counts(tasks)} (of as many without any effect, {by_chance:.2g} would be decided)"
        )
    return "; ".join(parts)


def number(finding: Finding) -> str:
    """`1.84 [1.52, 2.21]`, a dash for what is open."""
    low, high = ("–" if end is None else signed(end) for end in (finding.low, finding.high))
    return f"{signed(finding.value)} [{low}, {high}]" if finding.value is not None else f"[{low}, {high}]"


def _counts(findings: Sequence[Finding]) -> str:
    """`6 of 8 supported, 1 contradicted, 1 undecided`."""
    counted = Counter(finding.verdict for finding in findings)
    first, *others = [verdict for verdict in Verdict if counted[verdict]]
    told = [f"{counted[first]} of {len(findings)} {first.value}"]
    return ", ".join(told + [f"{counted[verdict]} {verdict.value}" for verdict in others])


# --- what of a study a claim looks at ---------------------------------------------------------------------------------


def arm_group(study: Study, family: str, paradigm: str) -> str | None:
    """The group of an arm; of several label sets the largest, which is the one that the paper's SL is."""
    arms = [arm for arm in study.arms if (arm.family, arm.paradigm) == (family, paradigm)]
    return max(arms, key=_n_labels).group if arms else None


def _n_labels(arm: Arm) -> int:
    return arm.n_labels


def is_there(study: Study, family: str, paradigm: str) -> bool:
    return arm_group(study, family, paradigm) is not None


def arm_law(study: Study, family: str, paradigm: str, target: str) -> Fitted | str:
    """The joint law of an arm, or why there is none."""
    group = arm_group(study, family, paradigm)
    if group is None:
        return f"no completed trial of {family}-{paradigm}"
    law = study.law(group, target, LAW, JOINT)
    if law is None:
        return f"no law {LAW} was fitted to {group}, {target}"
    if law.fit is None:
        return f"{group}: {law.refused}"
    return law


def not_held(law: LawFit, *parameters: str) -> list[str]:
    """The flags that forbid what follows from these parameters."""
    design = [flag for flag in law.flags if flag.split(":")[0] in DESIGN_FLAGS]
    own = [flag for flag in law.flags for name in parameters if not is_held([flag], name)]
    return list(dict.fromkeys(design + own))


IN_WORDS = {
    "flat": "a constant explains the losses as well as a law does",
    "floor_above_data": "the fitted floor is not below the losses",
    "too_few_levels": "two levels of an axis hold no law",
    "narrow_axis": "an axis spans less than a factor of two",
}


def why_not_held(doubts: Mapping[str, Sequence[str]], what: str) -> str:
    """Group → flags, in words: for each group the reason that explains the others."""
    told = []
    for group, flags in doubts.items():
        kinds = [flag.split(":")[0] for flag in flags]
        if kinds:
            told.append(f"{group}: {next((IN_WORDS[k] for k in IN_WORDS if k in kinds), f'{what} is not held')}")
    return "; ".join(told)


def elsewhere(study: Study, *, unseen_only: bool = False) -> Iterator[TransferTarget]:
    """The pooled transfer targets first, then single tasks."""
    for target in sorted(study.transfers, key=lambda t: t.one_task):
        if not (unseen_only and target.seen):
            yield target


def no_transfer(subject: str, quantity: str, null: float | None, unseen_only: bool = False) -> Finding:
    which = "unseen task" if unseen_only else "task"
    asked = question(subject, "transfer", quantity, null)
    return refused(asked, f"no {which} on another population was scored in every trial with enough positives")
