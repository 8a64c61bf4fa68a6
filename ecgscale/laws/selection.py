"""Which law, and does it predict: AICc on the objective that was minimised, and hold-outs against trivial predictors.

Both take the table, not fits, because laws compare only on the same points, the same objective and the same delta.
They rank and report; what could not be judged stays in the answer with its reason.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import erf

from ecgscale.errors import FitError
from ecgscale.laws.derived import as_json
from ecgscale.laws.estimate import fit
from ecgscale.laws.forms import Law, get_law
from ecgscale.laws.objectives import LAD_DELTA, SMALLEST_DELTA, Objective
from ecgscale.laws.observations import observe
from ecgscale.laws.result import FitStatus, LawFit

SUPPORTED = 2.0
"""AICc difference up to which a law still has substantial support (Burnham & Anderson 2002, section 2.6)."""

TEMPERATURES = (-60.0, 10.0)
"""Log of the scale of the residuals in the density of an objective; it is found between these."""


@dataclass(frozen=True)
class Candidate:
    """One law of a comparison. `aicc`, `difference` (to the best) and `weight` are nan where `reason` says why.

    Attributes:
        objective: The objective at the optimum, summed over points.
        flags: Those of the fit: a law may win and still not be identified.
    """

    law: str
    n_parameters: int
    objective: float
    aicc: float
    difference: float
    weight: float
    flags: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class Selection:
    """Laws on one table, best first; those that can't be compared last, with a reason.

    Attributes:
        delta: The one delta of a Huber objective that all laws were fitted with; None otherwise.
        flags: `correlated_points` (several points per run: the weights are too sure), `close` (a second law has
            substantial support), `one_candidate`.
    """

    candidates: tuple[Candidate, ...]
    objective: str
    delta: float | None
    n_points: int
    flags: tuple[str, ...]

    @property
    def best(self) -> str | None:
        """The law of the smallest AICc; None if none could be compared."""
        return self.candidates[0].law if self.candidates[0].reason is None else None

    @property
    def supported(self) -> tuple[str, ...]:
        """The laws within 2 of the smallest AICc."""
        return tuple(c.law for c in self.candidates if c.difference <= SUPPORTED)

    def to_dict(self) -> dict[str, Any]:
        return as_json(self) | {"best": self.best, "supported": list(self.supported)}  # type: ignore[no-any-return]


def aicc(fitted: LawFit, total_weight: float | None = None, n_parameters: int | None = None) -> float:
    """Akaike's criterion with the small-sample correction (Hurvich & Tsai 1989), on the objective that was minimised.

    The likelihood is that of the density ∝ exp(−ρ(r)/s) whose maximum is the fit: Gaussian for least squares, Laplace
    for least absolute deviations, Huber's in between, s fitted. Comparable between laws on the same points, objective
    and delta only.

    Args:
        fitted: A fit with at least three points more than parameters.
        total_weight: Sum of the weights of its points, if it had weights; their scale then means nothing.
        n_parameters: Fitted parameters, if fewer than the law has (a floor was given).

    Raises:
        FitError: Too few points for the correction to be finite.
    """
    value = fitted.objective.value * (fitted.n_points / total_weight if total_weight else 1.0)
    objective = Objective(fitted.objective.name, fitted.objective.delta)
    k = len(fitted.theta) if n_parameters is None else n_parameters
    return information_criterion(objective, value, fitted.n_points, k)


def information_criterion(objective: Objective, value: float, n_points: int, n_parameters: int) -> float:
    """AICc of an objective's sum over points, see `aicc`.

    Raises:
        FitError: Too few points for the correction to be finite.
    """
    k = n_parameters + 1  # and the scale of the residuals
    if n_points - k - 1 < 1:
        raise FitError(
            f"AICc of {n_parameters} parameters needs at least {k + 2} points, got {n_points}:"
            " add runs or compare laws with fewer parameters"
        )
    return _deviance(objective, value, n_points) + 2 * k + 2 * k * (k + 1) / (n_points - k - 1)


def _deviance(objective: Objective, value: float, n_points: int) -> float:
    """−2 log likelihood at the best scale, for the sum over points of an objective."""
    if objective.name == "lsq_raw":
        return n_points * (math.log(2 * math.pi * max(value, 1e-300) / n_points) + 1)
    # Residuals of a millionth are as good as none: a law that reproduces the data exactly has no infinite likelihood.
    smallest = objective.total(np.full(1, SMALLEST_DELTA), np.zeros(1), np.ones(1))
    value = max(value, n_points * float(smallest))
    if objective.name == "lsq":
        return n_points * (math.log(4 * math.pi * value / n_points) + 1)  # Σr² is twice the objective
    delta = LAD_DELTA if objective.delta is None else objective.delta
    value = value if objective.delta is not None else value * delta  # the smooth form of |r| is ρ / delta

    def deviance(log_s: float) -> float:
        s = math.exp(log_s)
        # ∫ exp(−ρ(r)/s) dr: a Gaussian inside delta, two exponential tails outside.
        middle = math.sqrt(2 * math.pi * s) * float(erf(delta / math.sqrt(2 * s)))
        tails = 2 * s / delta * math.exp(-min(delta * delta / (2 * s), 700.0))
        return 2 * value / s + 2 * n_points * math.log(middle + tails)

    best = minimize_scalar(deviance, bounds=TEMPERATURES, method="bounded", options={"xatol": 1e-10})
    return float(best.fun)


def compare_laws(
    laws: Sequence[Law | str],
    *columns: ArrayLike,
    weights: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    objective: str = "huber",
    delta: float | None = None,
    bounded: tuple[float, float] | None = None,
) -> Selection:
    """AICc of several laws on one table: `compare_laws(["chinchilla", "chinchilla_tied"], n, d, loss)`.

    Args:
        laws: Names or laws, all of the same variables.
        columns: These variables in order, then the loss.
        weights: Per point; only their ratios count here.
        runs: A label per point. AICc takes points for independent; several of one run raise a flag.
        objective: As in `fit`, the same for all.
        delta: Of Huber. None takes the one that the law with the most parameters finds for itself, since in the
            residuals of a law that does not fit, misfit passes for noise.
        bounded: (worst, best) of a bounded metric, as in `fit`.

    Raises:
        FitError: No laws, laws of different variables, or a table that no law can use.
    """
    forms = [get_law(law, bounded) for law in laws]
    if not forms:
        raise FitError("no laws to compare: name at least one")
    if len({len(form.variables) for form in forms}) > 1:
        described = ", ".join(f"{form.name}({', '.join(form.variables)})" for form in forms)
        raise FitError(f"laws of different variables can't be compared on one table: {described}")
    if len({form.link for form in forms}) > 1:
        raise FitError("a law of a loss and a law of error odds have different residuals and can't be compared")
    table = observe(min(forms, key=lambda form: len(form.theta)), columns, weights, runs)
    n_points, total = len(table.loss), float(table.weights.sum())
    fits: dict[str, LawFit | str] = {}
    for form in sorted(forms, key=lambda form: -len(form.theta)):
        found = _fit_or_reason(form, columns, weights, runs, objective, delta)
        fits[form.name] = found
        if isinstance(found, LawFit) and delta is None:
            delta = found.objective.delta
    judged = [_candidate(form, fits[form.name], total) for form in forms]
    ranked = _ranked(judged)
    flags = ["correlated_points"] if runs is not None and table.n_runs < n_points else []
    n_compared = sum(c.reason is None for c in ranked)
    flags += ["one_candidate"] if n_compared == 1 else []
    flags += ["close"] if sum(c.difference <= SUPPORTED for c in ranked) > 1 else []
    return Selection(tuple(ranked), objective, delta, n_points, tuple(flags))


def _fit_or_reason(
    law: Law,
    columns: Sequence[ArrayLike],
    weights: ArrayLike | None,
    runs: ArrayLike | None,
    objective: str,
    delta: float | None,
) -> LawFit | str:
    try:
        found = fit(law, *columns, weights=weights, runs=runs, objective=objective, delta=delta, bootstrap=0)
    except FitError as error:
        return str(error)
    if found.status in (FitStatus.ABNORMAL, FitStatus.ITERATION_LIMIT):
        return f"law {law.name}: the search ended without an optimum ({found.status.value})"
    return found


def _candidate(law: Law, found: LawFit | str, total_weight: float) -> Candidate:
    size, nothing = len(law.theta) - (law.given_floor is not None), math.nan
    if isinstance(found, str):
        return Candidate(law.name, size, nothing, nothing, nothing, nothing, (), found)
    try:
        criterion, reason = aicc(found, total_weight, size), None
    except FitError as error:
        criterion, reason = nothing, str(error)
    return Candidate(law.name, size, found.objective.value, criterion, nothing, nothing, found.flags, reason)


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    """Best first, with differences and Akaike weights; what has no AICc last."""
    usable = sorted((c for c in candidates if c.reason is None), key=lambda c: c.aicc)
    differences = np.array([c.aicc - usable[0].aicc for c in usable])
    shares = np.exp(-0.5 * differences)
    out = [
        Candidate(c.law, c.n_parameters, c.objective, c.aicc, float(gap), float(share), c.flags, None)
        for c, gap, share in zip(usable, differences, shares / shares.sum() if len(shares) else shares, strict=True)
    ]
    return out + [c for c in candidates if c.reason is not None]
