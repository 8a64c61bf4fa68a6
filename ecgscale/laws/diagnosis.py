"""What speaks against a fit: flags, each `reason` or `reason:parameter`. An optimum is not yet a law.

| flag | meaning |
|---|---|
| `too_few_levels:N` | two levels of an axis: coefficient, exponent and floor can't be told apart |
| `narrow_axis:N` | an axis spans less than a factor of two |
| `at_bound:E` | the best floor is zero: the data show no saturation |
| `at_bound:alpha` | an exponent ended at the edge of what is allowed |
| `floor_above_data` | E is not below the smallest loss |
| `no_effect:N` | the term of a variable is a ten-thousandth of the loss or less |
| `runaway:alpha` | an exponent steeper than 3 |
| `ill_conditioned` | parameters move together; only their combination is known |
| `unidentified:alpha` | the interval of a parameter spans too much to be a number |
| `unidentified` | one of the above says so about an exponent or the whole law |
| `flat` | a constant explains the data as well |
| `starts_disagree` | fewer than half of the starts ended at the optimum |
| `small_sample` | fewer than 12 runs: the interval trusts the law and equal noise everywhere |
| `no_interval` | the runs can't be resampled without losing what identifies the law |
| `objectives_disagree:alpha` | another objective puts a parameter outside its interval (side by side only) |
| `draws_failed` | more than 1 % of the bootstrap fits did not converge |
"""

from collections.abc import Iterable

import numpy as np

from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.forms import Law, free_parameters
from ecgscale.laws.objectives import Objective
from ecgscale.laws.observations import Observations
from ecgscale.laws.solver import BoolArray, Sample

ZERO_FLOOR = 1e-4
"""A floor, or a term, below this share of the smallest loss is zero: a tenth of the usual noise of 0.1 %."""

NARROWEST_SPAN = 2.0
"""Our assumption. The narrowest published axis that gave a usable law spans a factor 7; five sizes within 1.2 gave an
exponent of 4.5 with a small standard error, which is why the error alone is no guard."""

STEEPEST = 3.0
"""Theory gives exponents of 0.5 or 1 (Hestness et al. 2017, arXiv 1712.00409); measured ones are mostly less."""

WIDEST_RATIO = 10.0
"""Upper over lower bound of an exponent's 95 % interval."""

LARGEST_RELATIVE_ERROR = 0.5
"""Standard error over exponent at which the two-sided 95 % interval reaches zero."""

WORST_CONDITION = 1e6
"""Of the scaled Gauss-Newton matrix in working coordinates. Published tables: 1e2 to 1.6e5; runaways above 1e6."""

SMALL_SAMPLE = 12
"""Runs below which a pairs bootstrap loses whole sizes, and a wild one takes its place. Our assumption."""

LARGEST_FAILURE = 0.01
"""Share of bootstrap fits that may end without convergence before the interval is doubted."""

UNIDENTIFYING = ("too_few_levels", "narrow_axis", "at_bound", "floor_above_data", "no_effect", "unidentified", "flat")
"""Flags after which a parameter must not be quoted as a result."""


def is_identified(flags: Iterable[str]) -> bool:
    """Whether no flag says that the parameters aren't held by the data."""
    return not any(flag.split(":")[0] in UNIDENTIFYING for flag in flags)


def data_flags(law: Law, observations: Observations) -> list[str]:
    """What the design alone says."""
    flags = []
    for name, variable, n_levels in zip(law.variables, observations.variables, observations.n_levels(), strict=True):
        if law.has_floor and law.given_floor is None and n_levels == 2:
            flags.append(f"too_few_levels:{name}")
        if variable.max() < NARROWEST_SPAN * variable.min():
            flags.append(f"narrow_axis:{name}")
    return flags


def bound_flags(law: Law, z: FloatArray, sample: Sample) -> list[str]:
    """Parameters at the edge of the box, and floors and terms that are nothing or everything."""
    lower, upper = law.bounds
    smallest_loss = np.exp(sample.log_loss.min())
    flags = []
    for i, name in enumerate(law.theta):
        if law.has_floor and i == 0:
            flags += ["at_bound:E"] if law.given_floor is None and z[i] < ZERO_FLOOR * smallest_loss else []
            flags += ["floor_above_data"] if z[i] >= smallest_loss else []
        elif name in law.exponents:
            flags += [f"at_bound:{name}"] if not lower[i] < z[i] < upper[i] else []
            flags += [f"runaway:{name}"] if abs(z[i]) > STEEPEST else []
        elif name == "k":
            flags += ["at_bound:k"] if not lower[i] < z[i] < upper[i] else []
        elif law.has_floor and z[i] < np.log(ZERO_FLOOR * smallest_loss):
            flags.append(f"no_effect:{law.variables[i - 1]}")
    return flags


def estimate_flags(law: Law, z: FloatArray, sample: Sample, weights: FloatArray, sigma: float) -> list[str]:
    """What the curvature at the optimum says, for a robust standard deviation of the log residuals."""
    free = [law.theta.index(name) for name in free_parameters(law)]
    gradient = law.jet(z[None], sample.x)[1][0, free]
    information = (gradient * (weights / weights.mean())) @ gradient.T  # the scale of weights means nothing
    scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
    scaled = information / np.outer(scale, scale)
    if not law.has_floor:
        return []  # a straight line in logs with two levels is always identified
    if np.linalg.cond(scaled) > WORST_CONDITION:
        return ["ill_conditioned"]
    error = sigma * np.sqrt(np.diag(np.linalg.inv(scaled))) / scale
    by_name = {law.theta[i]: (z[i], spread) for i, spread in zip(free, error, strict=True)}
    return [
        f"unidentified:{name}" for name in law.exponents if by_name[name][1] > LARGEST_RELATIVE_ERROR * by_name[name][0]
    ]


def interval_flags(law: Law, interval: dict[str, tuple[float, float]], smallest_loss: float) -> list[str]:
    """Intervals too wide to be a number."""
    if not law.has_floor:
        return []
    is_fitted = law.given_floor is None
    flags = ["unidentified:E"] if is_fitted and interval["E"][0] < ZERO_FLOOR * smallest_loss else []
    for name in law.exponents:
        low, high = interval[name]
        flags += [f"unidentified:{name}"] if high > WIDEST_RATIO * low else []
    return flags


def flat_flag(law: Law, sample: Sample, weights: FloatArray, objective: Objective, value: float) -> list[str]:
    """Whether AICc (Hurvich & Tsai 1989), on the objective that was minimised, prefers a constant to the law."""
    level = np.full_like(sample.log_loss, objective.best_constant(sample.log_loss, weights))
    constant = float(weights @ objective.point_terms(level, sample.log_loss).value)
    n_points = len(weights)

    def criterion(objective_value: float, n_parameters: int) -> float:
        k = n_parameters + 1  # and the noise
        small_sample = 2 * k * (k + 1) / (n_points - k - 1)
        return n_points * float(np.log(max(objective_value, 1e-300))) + 2 * k + small_sample

    n_free = len(free_parameters(law))
    if n_points <= n_free + 2:  # the correction is infinite: too few points to say
        return []
    return ["flat"] if criterion(value, n_free) >= criterion(constant, 1) else []


def summary_flag(law: Law, flags: list[str]) -> list[str]:
    """The bare `unidentified`, once, when an exponent or the law as a whole is not held by the data."""
    causes = {"ill_conditioned", *(f"unidentified:{name}" for name in law.exponents)}
    causes |= {f"runaway:{name}" for name in law.exponents} if law.has_floor else set()
    by_prefix = ("too_few_levels", "narrow_axis")
    return ["unidentified"] if any(f in causes or f.startswith(by_prefix) for f in flags) else []


def draw_flags(failed: BoolArray, n_runs: int) -> list[str]:
    """What the bootstrap itself says, given which of its fits failed."""
    if len(failed) == 0:
        return ["no_interval"]
    flags = ["draws_failed"] if failed.mean() > LARGEST_FAILURE else []
    return flags + (["small_sample"] if n_runs < SMALL_SAMPLE else [])
