"""What the width of an interval depends on: the variance of a quantity under the laws that it follows from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ecgscale.findings.more_trials import Design, Plan
from ecgscale.fitted import Fitted
from ecgscale.laws import Estimate
from ecgscale.laws.diagnosis import LARGEST_RELATIVE_ERROR
from ecgscale.laws.information import Theta, variance


def reach(estimate: Estimate, null: float) -> float:
    """Half-width that would exclude the null, over the present one: in logs for a ratio (null above zero)."""
    near = estimate.low if estimate.value > null else estimate.high
    if near is None or math.isnan(estimate.value) or estimate.value == null:
        return 0.0
    if near == estimate.value:
        return math.inf
    if null > 0:
        if not (near > 0 and math.isfinite(near) and estimate.value > 0):
            return 0.0
        return abs(math.log(estimate.value / null)) / abs(math.log(estimate.value / near))
    return abs(estimate.value - null) / abs(estimate.value - near)


def law_plan(laws: Sequence[Fitted], quantities: Sequence[Callable[[Theta], float]], needed: float) -> Plan:
    """Of a sum of one quantity per law, the laws being fitted to trials of their own.

    Args:
        needed: see `Plan`; 0 where no narrowing helps.
    """

    def total(designs: Sequence[Design]) -> float:
        return sum(
            variance(law.fit, quantity, design.n, design.d)
            for law, quantity, design in zip(laws, quantities, designs, strict=True)
            if law.fit is not None
        )

    return Plan(tuple(Design.of(law.points) for law in laws), total, needed)


def exponent_plan(law: Fitted, exponent: str) -> Plan | None:
    """What would make an exponent a number: a standard error of half of it or less, as `laws.diagnosis` asks for."""
    if law.fit is None or "too_few_levels" in " ".join(law.fit.flags):
        return None

    def log_exponent(theta: Theta) -> float:
        return math.log(theta[exponent])

    plan = law_plan([law], [log_exponent], 0.0)
    present = math.sqrt(max(plan.variance(plan.designs), 1e-300))
    if present <= LARGEST_RELATIVE_ERROR:  # precise enough: it is something else that speaks against the law
        return None
    return Plan(plan.designs, plan.variance, LARGEST_RELATIVE_ERROR / present, f"hold {exponent} of {law.group}")
