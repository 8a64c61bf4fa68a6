"""Is a law held back by its data: what is left to gain from more parameters and from more data at the end of a sweep.

For sums of one term per variable the reducible terms A·N^−α and B·D^−β are compared, "data-bottlenecked" meaning that
the data term is the larger; for every other law the elasticities. The answer is a probability over draws, not a yes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import Estimate, as_json, by_name, in_odds, rows_of, unidentified_flags
from ecgscale.laws.forms import AdditiveLaw, Law
from ecgscale.laws.result import LawFit

SURE = 0.95
"""Probability from which on `describe` says yes, and below one minus which it says no."""

LARGEST_LOG_RATIO = math.log(1e12)
"""Of two terms; beyond it, one of them is nothing."""

STEP = 1e-4
"""Step in log size of a central difference: its error of about 1e-9 is far below any interval."""


@dataclass(frozen=True)
class DataLimited:
    """What limits the loss at (n, d).

    Attributes:
        probability: Share of the draws in which data limit more than parameters; None without draws.
        at_point: The same question at the point fit.
        basis: "terms" or "elasticities": what was compared.
        term_n, term_d: The reducible terms in units of the loss (of the error odds for a bounded metric, here and in
            the elasticities); None for a law without separable terms.
        elasticity_n, elasticity_d: −∂ log L / ∂ log N and −∂ log L / ∂ log D: per cent of loss for a per cent more.
        flags: Unidentifying flags of the fit, `no_interval`, and `extrapolating` outside the observed range.
    """

    law: str
    n: float
    d: float
    basis: str
    probability: float | None
    at_point: bool
    term_n: Estimate | None
    term_d: Estimate | None
    elasticity_n: Estimate
    elasticity_d: Estimate
    flags: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """ "yes", "no" or "undecided"."""
        if self.probability is None:
            return "yes" if self.at_point else "no"
        return "yes" if self.probability >= SURE else "no" if self.probability <= 1 - SURE else "undecided"

    def describe(self) -> str:
        """One line; the number is the probability that it is data-bottlenecked, whatever the verdict."""
        sure = "no interval" if self.probability is None else f"{self.probability:.2f}"
        doubt = [flag for flag in self.flags if flag not in ("no_interval", "extrapolating")]
        note = f", law not identified: {', '.join(doubt)}" if doubt else ""
        return f"data-bottlenecked: {self.verdict} ({sure}{note})"

    def to_dict(self) -> dict[str, Any]:
        return as_json(self) | {"verdict": self.verdict}  # type: ignore[no-any-return]


def data_limited(fitted: LawFit, n: float | None = None, d: float | None = None) -> DataLimited:
    """Whether the loss at n and d (default: the largest observed of each) is limited by data.

    Raises:
        FitError: A law without two variables, or sizes that are not positive.
    """
    law = in_odds(fitted.form)
    if len(law.variables) != 2:
        raise FitError(f"law {law.name} of {', '.join(law.variables)} can't weigh data against parameters: fit L(N, D)")
    ranges = [fitted.support[name] for name in law.variables]
    place = [float(largest if given is None else given) for given, (_, largest) in zip((n, d), ranges, strict=True)]
    if not all(math.isfinite(value) and value > 0 for value in place):
        raise FitError(f"n and d must be positive finite numbers, got {place[0]} and {place[1]}")
    rows = rows_of(fitted)
    theta = by_name(law, rows)
    elasticities = [_elasticity(law, theta, place, axis) for axis in (0, 1)]
    terms = None
    if isinstance(law, AdditiveLaw) and sorted(term.variable for term in law.terms) == [0, 1]:
        by_variable = sorted(law.terms, key=lambda term: term.variable)
        terms = [theta[t.coefficient] * place[t.variable] ** -theta[t.exponent] for t in by_variable]
    limits_n, limits_d = elasticities if terms is None else terms
    limited = limits_d > limits_n
    outside = any(not low * (1 - 1e-9) <= v <= high * (1 + 1e-9) for v, (low, high) in zip(place, ranges, strict=True))
    flags = unidentified_flags(fitted.flags) + (["no_interval"] if fitted.draws is None else [])
    return DataLimited(
        law=law.name,
        n=place[0],
        d=place[1],
        basis="elasticities" if terms is None else "terms",
        probability=float(limited[1:].mean()) if len(rows) > 1 else None,
        at_point=bool(limited[0]),
        term_n=None if terms is None else Estimate.of(terms[0]),
        term_d=None if terms is None else Estimate.of(terms[1]),
        elasticity_n=Estimate.of(elasticities[0]),
        elasticity_d=Estimate.of(elasticities[1]),
        flags=tuple(flags + (["extrapolating"] if outside else [])),
    )


def term_ratio(fitted: LawFit) -> Estimate:
    """B·D^−β over A·N^−α at the largest N and D: how much more is left to gain from data than from parameters.

    Raises:
        FitError: a law that is no sum of one term per variable.
    """
    law = in_odds(fitted.form)
    if not isinstance(law, AdditiveLaw) or sorted(term.variable for term in law.terms) != [0, 1]:
        raise FitError(f"law {law.name} has no term of its own for parameters and for data")
    rows = rows_of(fitted)
    term_n, term_d = (_log_term(law, rows, fitted, axis) for axis in (0, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        return Estimate.of(np.exp(np.clip(term_d - term_n, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)))


def _log_term(law: AdditiveLaw, rows: FloatArray, fitted: LawFit, axis: int) -> FloatArray:
    term = next(term for term in law.terms if term.variable == axis)
    theta, largest = by_name(law, rows), fitted.support[law.variables[axis]][1]
    with np.errstate(divide="ignore"):  # a term of size zero
        return np.asarray(np.log(theta[term.coefficient]) - theta[term.exponent] * math.log(largest))


def _elasticity(law: Law, theta: dict[str, FloatArray], place: list[float], axis: int) -> FloatArray:
    """−∂ log L / ∂ log x of one variable, (row,)."""
    logs = []
    for sign in (-1, 1):
        moved = list(place)
        moved[axis] *= math.exp(sign * STEP)
        logs.append(np.log(law.loss(theta, *moved)))
    return np.asarray((logs[0] - logs[1]) / (2 * STEP))
