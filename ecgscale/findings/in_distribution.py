"""SL is limited by data in distribution; SSL improves along both axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecgscale.errors import FitError
from ecgscale.findings.deciding import (
    RESNET,
    SL,
    SSL,
    TRANSFORMER,
    arm_law,
    conclude,
    decided,
    is_there,
    not_held,
    question,
    reading,
    refused,
    why_not_held,
    widened,
)
from ecgscale.findings.more_trials import Design, Plan
from ecgscale.findings.plans import exponent_plan, law_plan, reach
from ecgscale.findings.values import Conclusion, Finding
from ecgscale.fitted import Fitted
from ecgscale.laws import data_limited, end_elasticity, term_ratio
from ecgscale.laws.information import Theta
from ecgscale.study import ID_TARGET, Study
from ecgscale.words import signed

NOTHING_BESIDE_IT = 1e9
"""A term that many times smaller than another is no quantity that a grid could hold."""


def data_bottleneck(study: Study) -> Conclusion:
    findings = [_bottleneck_of(study, family) for family in (RESNET, TRANSFORMER) if is_there(study, family, SL)]
    return conclude(
        "data_bottleneck",
        "Is supervised pre-training limited by data in distribution?",
        "SL is data-bottlenecked in distribution",
        "Limited by data means that at the largest N and D the reducible loss B·D^−β exceeds A·N^−α.",
        findings or [refused(_bottleneck(SL), "no completed trial of a supervised arm")],
    )


def _bottleneck(subject: str) -> Finding:
    return question(subject, ID_TARGET, "loss that data can still take away, over what parameters can", 1.0)


def _bottleneck_of(study: Study, family: str) -> Finding:
    asked = _bottleneck(f"{family}-{SL}")
    law = arm_law(study, family, SL, ID_TARGET)
    if isinstance(law, str):
        return refused(asked, law)
    assert law.fit is not None
    # what parameters can still take away may be nothing, and the answer is then the clearer: alpha need not be held
    if doubt := not_held(law.fit, "beta"):
        return refused(asked, why_not_held({law.group: doubt}, "the data term"), doubt, exponent_plan(law, "beta"))
    estimate = widened(term_ratio(law.fit), 1.0, [law.fit])
    largest_n, largest_d = (law.fit.support[axis][1] for axis in ("N", "D"))

    def log_ratio(theta: Theta) -> float:
        size = math.log(theta["A"]) - theta["alpha"] * math.log(largest_n)
        return math.log(theta["B"]) - theta["beta"] * math.log(largest_d) - size

    limit = data_limited(law.fit)
    says = f"{signed(estimate.value)} times the size term"
    if estimate.value >= NOTHING_BESIDE_IT:
        says = "all that is left: the size term has run to zero"
    if estimate.high is not None and estimate.high > NOTHING_BESIDE_IT:
        estimate = replace(estimate, high=math.inf)
    return decided(
        asked,
        estimate,
        f"at N = {signed(largest_n)} and D = {signed(largest_d)} the data term is {says}",
        law.fit.flags,
        reading("elasticity of the loss in D there", limit.elasticity_d),
        law_plan([law], [log_ratio], reach(estimate, 1.0)),
    )


def ssl_improves(study: Study) -> Conclusion:
    families = [family for family in (RESNET, TRANSFORMER) if is_there(study, family, SSL)]
    findings = [_elasticity_of(study, family, axis) for family in families for axis in ("N", "D")]
    return conclude(
        "ssl_improves",
        "Does self-supervised pre-training improve along both axes, parameters and data?",
        "SSL keeps improving along both parameters and data",
        "Improving means that the loss still falls over the upper half of the axis (in logs), the other variable held, "
        "which is asked without a law, since a law with a floor can only fall.",
        findings or [refused(_elasticity(SSL, "N"), "no completed trial of a self-supervised arm")],
    )


def _elasticity(subject: str, axis: str) -> Finding:
    quantity = f"fall of log loss per log {axis} over the upper half of {axis}"
    return question(subject, f"{ID_TARGET}, along {axis}", quantity, 0.0)


def _elasticity_of(study: Study, family: str, axis: str) -> Finding:
    asked = _elasticity(f"{family}-{SSL}", axis)
    law = arm_law(study, family, SSL, ID_TARGET)
    if isinstance(law, str):
        return refused(asked, law)
    held = "d" if axis == "N" else "n"
    points = law.points
    try:
        estimate = end_elasticity(points[axis.lower()], points[held], points["loss"])
    except FitError as error:
        return refused(asked, str(error))
    assert law.fit is not None
    limit = data_limited(law.fit)
    by_law = limit.elasticity_n if axis == "N" else limit.elasticity_d
    return decided(
        asked,
        estimate,
        f"ten times the {'parameters' if axis == 'N' else 'records'} change the loss by "
        f"{100 * (10**-estimate.value - 1):+.2g} %",
        law.fit.flags,
        reading("elasticity of the fitted law at the largest N and D", by_law),
        _trend_plan(law, axis, reach(estimate, 0.0)),
    )


def _trend_plan(law: Fitted, axis: str, needed: float) -> Plan:
    def variance(designs: Sequence[Design]) -> float:
        (design,) = designs
        x, held = (design.n, design.d) if axis == "N" else (design.d, design.n)
        sizes = np.unique(x)
        upper = x >= min(np.sqrt(sizes[0] * sizes[-1]), sizes[-2])
        log_x, group = np.log(x[upper]), held[upper]
        spread = sum(float(((log_x[group == g] - log_x[group == g].mean()) ** 2).sum()) for g in np.unique(group))
        return 1 / spread if spread > 0 else math.inf

    return Plan((Design.of(law.points),), variance, needed)
