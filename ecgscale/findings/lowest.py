"""Which family reaches the lowest loss elsewhere over the observed sizes, and whether the other overtakes beyond."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ecgscale.findings.deciding import (
    RESNET,
    SL,
    SSL,
    TRANSFORMER,
    arm_law,
    conclude,
    decided,
    elsewhere,
    is_there,
    no_transfer,
    not_held,
    question,
    refused,
    why_not_held,
    widened,
)
from ecgscale.findings.more_trials import Plan
from ecgscale.findings.plans import exponent_plan, law_plan, reach
from ecgscale.findings.values import Conclusion, Finding, Verdict
from ecgscale.fitted import Fitted
from ecgscale.laws import Estimate, Overtaking
from ecgscale.laws import overtaking as where_overtaken
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import by_name, rows_of
from ecgscale.laws.information import Theta
from ecgscale.laws.overtaking import HORIZON
from ecgscale.study import Study, TransferTarget
from ecgscale.words import signed

_LOWEST = "lowest loss of the Transformers over that of the ResNets"
_FROM_SIZE = "parameters from which on the Transformer's loss is lower"


def lowest_loss(study: Study) -> Conclusion:
    findings = [_lowest_of(study, target) for target in elsewhere(study)]
    return conclude(
        "lowest_loss",
        "Do ResNets reach the lowest loss out of distribution over the observed scales?",
        "ResNets generally reach the lowest out-of-distribution loss over the observed scales",
        "The lowest loss of a family is that of its laws, SL or SSL, at the trials that ran: a mean over seeds without "
        "the luck of the best of them.",
        findings or [no_transfer("resnet against transformer", _LOWEST, 1.0)],
    )


def overtaking(study: Study) -> Conclusion:
    findings = [_overtaking_of(study, target) for target in elsewhere(study)]
    return conclude(
        "overtaking",
        "Do self-supervised Transformers overtake ResNets out of distribution at very large size?",
        "self-supervised Transformers overtake at very large model size",
        f"Overtaking means that the law of the self-supervised Transformer at the largest D falls below that of the "
        f"self-supervised ResNet at some size up to {HORIZON:g} times the largest observed, having been above it at "
        "the smallest.",
        findings or [no_transfer(_ssl_pair(), _FROM_SIZE, None)],
    )


# --- the lowest loss --------------------------------------------------------------------------------------------------


def _lowest_of(study: Study, target: TransferTarget) -> Finding:
    asked = question("resnet against transformer", target.name, _LOWEST, 1.0, target.one_task)
    best: dict[str, tuple[Fitted, FloatArray]] = {}
    for family in (RESNET, TRANSFORMER):
        laws = [arm_law(study, family, paradigm, target.name) for paradigm in (SL, SSL)]
        fitted = [law for law in laws if isinstance(law, Fitted)]
        if not fitted:
            return refused(asked, "; ".join(law for law in laws if isinstance(law, str)))
        doubts = {law.group: not_held(law.fit) for law in fitted if law.fit}
        if any(doubts.values()):
            flags = [f"{group}:{flag}" for group, doubt in doubts.items() for flag in doubt]
            return refused(asked, why_not_held(doubts, "the law"), flags)
        lows = [_lowest_log_loss(law) for law in fitted]
        n_rows = min(len(low) for low in lows)
        first = min(range(len(lows)), key=lambda i, lows=lows: float(lows[i][0]))  # type: ignore[misc]
        best[family] = fitted[first], np.min([low[:n_rows] for low in lows], axis=0)
    (resnet, low_resnet), (transformer, low_transformer) = best[RESNET], best[TRANSFORMER]
    n_rows = min(len(low_resnet), len(low_transformer))
    ratio = Estimate.of(np.exp(low_transformer[:n_rows] - low_resnet[:n_rows]))
    estimate = widened(ratio, 1.0, [law.fit for law in (resnet, transformer) if law.fit is not None])
    return decided(
        asked,
        estimate,
        f"{resnet.group} reaches {math.exp(low_resnet[0]):.4g}, {transformer.group} {math.exp(low_transformer[0]):.4g}",
        (),
        plan=law_plan([transformer, resnet], [_LowestOf(transformer), _LowestOf(resnet)], reach(estimate, 1.0)),
    )


def _lowest_log_loss(law: Fitted) -> FloatArray:
    """(1 + draw,): of the law at the sizes and records of its trials."""
    assert law.fit is not None
    cells = law.points[["n", "d"]].drop_duplicates().to_numpy(dtype=float)
    theta = by_name(law.fit.form, rows_of(law.fit), n_axes=1)
    return np.asarray(np.log(law.fit.form.loss(theta, cells[:, 0], cells[:, 1])).min(axis=1))


class _LowestOf:
    """The same as a quantity of the parameters."""

    def __init__(self, law: Fitted) -> None:
        assert law.fit is not None
        self.form, self.cells = law.fit.form, law.points[["n", "d"]].drop_duplicates().to_numpy(dtype=float)

    def __call__(self, theta: Theta) -> float:
        return float(np.log(self.form.loss(theta, self.cells[:, 0], self.cells[:, 1])).min())


# --- overtaking -------------------------------------------------------------------------------------------------------


def _ssl_pair() -> str:
    return f"{TRANSFORMER}-{SSL} against {RESNET}-{SSL}"


def _overtaking_of(study: Study, target: TransferTarget) -> Finding:
    asked = question(_ssl_pair(), target.name, _FROM_SIZE, None, target.one_task)
    if not (is_there(study, RESNET, SSL) or is_there(study, TRANSFORMER, SSL)):
        return refused(asked, "no completed trial of a self-supervised arm")
    laws = [arm_law(study, family, SSL, target.name) for family in (RESNET, TRANSFORMER)]
    if missing := [law for law in laws if isinstance(law, str)]:
        return refused(asked, "; ".join(missing))
    resnet, transformer = (law for law in laws if isinstance(law, Fitted))
    assert resnet.fit is not None
    assert transformer.fit is not None
    doubts = {law.group: not_held(law.fit, "alpha") for law in (resnet, transformer) if law.fit}
    if flags := [f"{group}:{flag}" for group, doubt in doubts.items() for flag in doubt]:
        unheld = resnet if doubts[resnet.group] else transformer
        return refused(asked, why_not_held(doubts, "alpha"), flags, exponent_plan(unheld, "alpha"))
    found = where_overtaken(resnet.fit, transformer.fit, "N")
    verdict, says = _overtaken(found)
    plan = _overtaking_plan(resnet, transformer, found) if verdict is Verdict.UNDECIDED else None
    return replace(
        asked,
        value=found.size if 0 < found.size < math.inf else None,
        low=found.low if found.low else None,
        high=found.high if found.high is not None and found.high < math.inf else None,
        null=found.horizon,
        verdict=verdict,
        reason=says,
        would_decide=None if plan is None else plan.words(),
    )


def _overtaken(found: Overtaking) -> tuple[Verdict, str]:
    looked = f"up to N = {signed(found.horizon)}, {HORIZON:g} times the largest observed"
    if found.low is None or found.high is None:
        return Verdict.UNDECIDED, "there is no interval: too few trials to resample"
    if found.low == math.inf:
        return Verdict.CONTRADICTED, f"no crossing: the ResNet stays ahead {looked}"
    if found.high == 0:
        return Verdict.CONTRADICTED, "no crossing: the Transformer is ahead at every observed size already"
    if found.size == math.inf:
        says = f"the fitted laws do not cross {looked}"
    elif found.size == 0:
        says = "by the fitted laws the Transformer is ahead from the smallest size on"
    else:
        inside = found.size <= found.largest
        beyond = f"outside the observed range, which ends at {signed(found.largest)}"
        where = "inside the observed range" if inside else beyond
        says = f"the fitted laws cross at N = {signed(found.size)}, {where}"
    if found.low > 0 and found.high < math.inf:
        return Verdict.SUPPORTED, says
    assert found.never is not None
    return Verdict.UNDECIDED, f"{says}; in {100 * found.never:.0f} % of the draws the Transformer does not overtake"


def _overtaking_plan(resnet: Fitted, transformer: Fitted, found: Overtaking) -> Plan | None:
    """Who is ahead at the horizon, or else at the smallest size, whichever is not clear."""
    for size, ahead in ((found.horizon, found.at_horizon), (found.smallest, found.at_smallest)):
        if ahead.low is not None and ahead.high is not None and ahead.low <= 0 <= ahead.high:
            quantities = [_LogLossAt(law, size, found.at or math.nan) for law in (resnet, transformer)]
            plan = law_plan([resnet, transformer], quantities, reach(ahead, 0.0))
            return replace(plan, achieves=f"decide who is ahead at N = {signed(size)}, if the estimate stays")
    return None


class _LogLossAt:
    """At one size, as a quantity of the parameters."""

    def __init__(self, law: Fitted, n: float, d: float) -> None:
        assert law.fit is not None
        self.form, self.n, self.d = law.fit.form, n, d

    def __call__(self, theta: Theta) -> float:
        return float(np.log(self.form.loss(theta, self.n, self.d)))
