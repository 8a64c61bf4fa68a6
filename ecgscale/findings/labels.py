"""The number of supervised labels: it helps in distribution, and not reliably beyond."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ecgscale.findings.deciding import (
    RESNET,
    SL,
    TRANSFORMER,
    conclude,
    decided,
    elsewhere,
    is_there,
    question,
    refused,
)
from ecgscale.findings.more_trials import ONLY_SEEDS, Design, Plan
from ecgscale.findings.plans import reach
from ecgscale.findings.values import Conclusion, Finding, Verdict
from ecgscale.fitted import Fitted
from ecgscale.laws import Estimate
from ecgscale.study import IN_K, SHARED_ERROR, Study

_FALL = "fall of the log loss per log of the number of labels"


def labels_in_distribution(study: Study) -> Conclusion:
    return conclude(
        "labels_in_distribution",
        "Do more supervised labels help in distribution?",
        "more supervised labels help in distribution (known to us from secondary text only)",
        f"The loss is {SHARED_ERROR}, since the loss itself is a mean over other labels for every label set; at the "
        "largest N and D.",
        _along_labels(study, [(SHARED_ERROR, False)]),
    )


def labels_elsewhere(study: Study) -> Conclusion:
    """Turned round: what is published is that the gain is not reliable."""
    findings = _along_labels(study, [(target.name, target.one_task) for target in elsewhere(study)])
    made = conclude(
        "labels_elsewhere",
        "Is the gain from more supervised labels unreliable out of distribution?",
        "more labels pay off unreliably once the task departs from them (known to us from secondary text only)",
        "Unreliable means that more labels raise the loss of at least one pooled target for one family; contradicted "
        "where they lower it for all. Each finding asks whether they lower it, at the largest N and D.",
        findings,
    )
    pooled = [finding.verdict for finding in findings if not finding.one_task]
    verdict = Verdict.UNDECIDED
    if Verdict.CONTRADICTED in pooled:
        verdict = Verdict.SUPPORTED
    elif set(pooled) == {Verdict.SUPPORTED}:
        verdict = Verdict.CONTRADICTED
    return replace(made, verdict=verdict, summary=f"a lower loss with more labels: {made.summary}")


def _along_labels(study: Study, targets: Iterable[tuple[str, bool]]) -> list[Finding]:
    families = [family for family in (RESNET, TRANSFORMER) if is_there(study, family, SL)]
    findings = [_slope(study, family, target, one_task) for target, one_task in targets for family in families]
    missing = "no completed trial of a supervised arm" if not families else "no loss that could be compared"
    return findings or [refused(question(SL, "any", _FALL, 0.0), missing)]


def _slope(study: Study, family: str, target: str, one_task: bool) -> Finding:
    asked = question(f"{family}-{SL}", target, _FALL, 0.0, one_task)
    law = study.law(f"{family}-{SL}", target, "power", IN_K)
    if law is None:
        return refused(asked, "all supervised trials have the same labels; vary axes.n_labels")
    if law.fit is None:
        return refused(asked, law.refused or "")
    low, high = (law.fit.interval or {}).get("alpha", (None, None))
    estimate = Estimate(law.fit.theta["alpha"], low, high)
    ks = sorted(law.points["k"].unique())
    return decided(
        asked,
        estimate,
        f"doubling the labels changes the loss by {100 * (2**-estimate.value - 1):+.2g} % (k = "
        f"{', '.join(f'{k:.0f}' for k in ks)})",
        law.fit.flags,
        plan=_seeds_plan(law, reach(estimate, 0.0)),
    )


def _seeds_plan(law: Fitted, needed: float) -> Plan:
    """Only seeds can be added: the label sets are what the data has, and N and D are the largest."""

    def variance(designs: Sequence[Design]) -> float:
        log_k = np.log(designs[0].n)
        return float(1 / ((log_k - log_k.mean()) ** 2).sum())

    return Plan((Design.of(law.points.assign(n=law.points["k"])),), variance, needed, ways=ONLY_SEEDS)
