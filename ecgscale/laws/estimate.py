"""`fit`: one law, one table, one objective in; a `LawFit` with interval, status and flags out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws import diagnosis
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.diagnosis import SMALL_SAMPLE
from ecgscale.laws.forms import Law, free_parameters, get_law
from ecgscale.laws.intervals import percentile_interval, resample_runs
from ecgscale.laws.objectives import MAD_TO_SIGMA, Objective, adaptive_delta, weighted_median
from ecgscale.laws.observations import Observations, observe
from ecgscale.laws.result import FitStatus, LawFit, ObjectiveValue
from ecgscale.laws.solver import ROUNDING, BoolArray, Sample, minimise, starting_points
from ecgscale.laws.wild import Residuals, degrees_of_freedom, wild_targets

N_STARTS = 9
"""A 3×3 split of the exponent grid. The first start is the grid's best cell; the others only test it."""

SAME_OPTIMUM = 1e-8
"""Relative difference of the objective below which two starts ended at the same optimum."""

PAIRS_METHOD = "pairs bootstrap over runs, 95 % percentiles"
WILD_METHOD = "wild bootstrap over runs (Webb factors, pooled residuals, t), 95 % percentiles"


def fit(
    law: Law | str,
    *columns: ArrayLike,
    weights: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    objective: str = "huber",
    delta: float | None = None,
    bounded: tuple[float, float] | None = None,
    bootstrap: int | ArrayLike = 1000,
    seed: int = 0,
    n_starts: int = N_STARTS,
) -> LawFit:
    """Fit a law: `fit("chinchilla", n, d, loss)`, `fit("power_floor", n, loss)`.

    Args:
        law: A name of `LAWS` or a law of your own.
        columns: The law's variables in order, then the loss; one value per point each, positive, any unit.
        weights: Per point; 2 counts as two copies, 0 leaves a point out.
        runs: A label per point; points of one run (checkpoints) are resampled together. Default: points with the
            same variables are seeds of one run, every other point is its own.
        objective: "huber", "lad" or "lsq" of log residuals, or "lsq_raw" of losses. Always a sum over points.
        delta: Where Huber turns linear. None takes 1.345 robust standard deviations of the log residuals.
        bounded: (worst, best) of a bounded metric such as (0.5, 1) for an AUROC: the law is fitted to its error odds
            (best − y) / (y − worst), and predicts the metric.
        bootstrap: Number of resamples, or weight rows (resample, point) of your own; 0 for no interval.
        seed: Of the resamples.
        n_starts: Starts of the point fit; 1 is fastest and leaves `starts_agreeing` meaningless.

    Raises:
        FitError: No usable estimate exists: wrong or too few values, one level of an axis, unknown names.
    """
    law = get_law(law, bounded)
    observations = observe(law, columns, weights, runs)
    sample = Sample.of(observations.variables, observations.loss)
    point = _point_fit(law, sample, observations.weights, objective, delta, n_starts)
    draws, failed, method = _draws(law, observations, sample, point, bootstrap, seed)
    interval = _interval(law, draws) if len(draws) else None
    flags = _flags(law, observations, sample, point, interval)
    if np.ndim(bootstrap) or bootstrap != 0:
        flags += diagnosis.draw_flags(failed, observations.n_runs)
    return LawFit(
        law=law.name,
        bounded=None if law.link is None else (law.link.worst, law.link.best),
        theta=dict(zip(law.theta, law.to_theta(point.z, sample.centre, sample.scale).tolist(), strict=True)),
        interval=interval,
        interval_method=None if interval is None else method,
        status=_status(point, flags),
        flags=tuple(flags),
        objective=ObjectiveValue(point.objective.name, point.objective.delta, _natural_value(law, sample, point)),
        n_points=len(observations.loss),
        n_runs=observations.n_runs,
        starts_agreeing=point.starts_agreeing,
        support={
            name: (float(v.min()), float(v.max()))
            for name, v in zip(law.variables, observations.variables, strict=True)
        },
        draws=draws if len(draws) else None,
        residuals=_widened(-_residuals(law, sample, point.z), len(free_parameters(law))),
    )


@dataclass(frozen=True)
class PointFit:
    """The optimum on all points: z (p,), the objective with its delta resolved, and how the search ended."""

    z: FloatArray
    weights: FloatArray
    objective: Objective
    value: float
    converged: bool
    stuck: bool
    starts_agreeing: float


def _draws(
    law: Law,
    observations: Observations,
    sample: Sample,
    point: PointFit,
    bootstrap: int | ArrayLike,
    seed: int,
) -> tuple[FloatArray, BoolArray, str]:
    """Estimates (draw, parameter), which of them failed, and how they were made.

    A pairs bootstrap needs enough runs to draw from; fewer of them keep their place and have their residuals shaken.
    """
    if not isinstance(bootstrap, int | np.integer):
        rows = _given_resamples(bootstrap, observations)
        return *refit(law, sample, rows * observations.weights, point), PAIRS_METHOD
    if bootstrap and observations.n_runs < SMALL_SAMPLE:
        clusters, n_free = observations.runs, len(free_parameters(law))
        if not observations.labelled and degrees_of_freedom(clusters, n_free) <= 0:
            clusters = np.arange(len(clusters))  # every configuration is fitted exactly: only its seeds scatter
        if degrees_of_freedom(clusters, n_free) <= 0:
            return *refit(law, sample, np.empty((0, len(clusters))), point), WILD_METHOD
        predicted = law.jet(point.z[None], sample.x)[0][0]
        shaken = Residuals(predicted, sample.log_loss - predicted, clusters, replicates=not observations.labelled)
        targets = wild_targets(shaken, n_free, int(bootstrap), seed)
        rows = np.repeat(observations.weights[None], len(targets), axis=0)
        return *refit(law, sample, rows, point, targets), WILD_METHOD
    rows = resample_runs(law, observations, int(bootstrap), seed)
    return *refit(law, sample, rows * observations.weights, point), PAIRS_METHOD


def refit(
    law: Law, sample: Sample, weights: FloatArray, point: PointFit, log_loss: FloatArray | None = None
) -> tuple[FloatArray, BoolArray]:
    """Estimates (row, parameter) for weight rows (row, point), started at the point fit, and which of them failed.

    The start is safe: on 16 to 240 points, 9 further starts found a lower optimum for 0 to 2 % of the rows.

    Args:
        log_loss: Other losses for every row (row, point), centred like those of the sample.
    """
    if len(weights) == 0:
        return np.empty((0, len(law.theta))), np.zeros(0, dtype=bool)
    start = np.repeat(point.z[None], len(weights), axis=0)
    minima = minimise(law, sample, weights, start, point.objective.stages(warm=True), log_loss=log_loss)
    return law.to_theta(minima.z, sample.centre, sample.scale), ~minima.converged


def _widened(residuals: FloatArray, n_parameters: int) -> FloatArray:
    """Residuals as large as the noise of a new run: a fit takes its share of them away."""
    freedom = max(len(residuals) - n_parameters, 1)
    return np.asarray(residuals * np.sqrt(len(residuals) / freedom))


def _point_fit(
    law: Law, sample: Sample, weights: FloatArray, name: str, delta: float | None, n_starts: int
) -> PointFit:
    starts = starting_points(law, sample, weights, n_starts)
    if name == "huber" and delta is None:
        adaptive, first = _adaptive_huber(law, sample, weights, starts[:1])
        objective, starts = adaptive, np.concatenate((first, starts[1:]))
    else:
        objective = Objective(name, delta)
    minima = minimise(law, sample, np.repeat(weights[None], len(starts), axis=0), starts, objective.stages())
    best = int(np.argmin(minima.value))
    rounding = SAME_OPTIMUM * minima.value[best] + ROUNDING**2 * weights.sum()
    return PointFit(
        z=minima.z[best],
        weights=weights,
        objective=objective,
        value=float(minima.value[best]),
        converged=bool(minima.converged[best]),
        stuck=bool(minima.stuck[best]),
        starts_agreeing=float((minima.value <= minima.value[best] + rounding).mean()),
    )


def _adaptive_huber(law: Law, sample: Sample, weights: FloatArray, start: FloatArray) -> tuple[Objective, FloatArray]:
    """Huber with delta from the residuals of a least-squares fit, re-estimated once, and the optimum before that."""
    z, objective = start, Objective("lsq")
    for _ in range(2):
        z = minimise(law, sample, weights[None], z, objective.stages()).z
        objective = Objective("huber", adaptive_delta(_residuals(law, sample, z[0]), weights))
    return objective, z


def _residuals(law: Law, sample: Sample, z: FloatArray) -> FloatArray:
    """Log predicted minus log observed loss at every point."""
    return np.asarray(law.jet(z[None], sample.x)[0][0] - sample.log_loss)


def _natural_value(law: Law, sample: Sample, point: PointFit) -> float:
    """The objective in the unit of the data; only raw least squares has one."""
    predicted = law.jet(point.z[None], sample.x)[0][0]
    total = float(point.objective.total(predicted, sample.log_loss, point.weights))
    return total * sample.scale**2 if point.objective.name == "lsq_raw" else total


def _given_resamples(rows: ArrayLike, observations: Observations) -> FloatArray:
    weights = np.asarray(rows, dtype=float)
    if weights.ndim != 2 or weights.shape[1] != len(observations.used):
        raise FitError(f"bootstrap rows must be (resample, {len(observations.used)} points), got {weights.shape}")
    return np.asarray(weights[:, observations.used])


def _interval(law: Law, draws: FloatArray) -> dict[str, tuple[float, float]]:
    low, high = percentile_interval(draws)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(law.theta)}


def _status(point: PointFit, flags: list[str]) -> FitStatus:
    if point.converged:
        return FitStatus.AT_BOUND if any(f.startswith("at_bound") for f in flags) else FitStatus.CONVERGED
    return FitStatus.ABNORMAL if point.stuck else FitStatus.ITERATION_LIMIT


def _flags(
    law: Law,
    observations: Observations,
    sample: Sample,
    point: PointFit,
    interval: dict[str, tuple[float, float]] | None,
) -> list[str]:
    flags = diagnosis.data_flags(law, observations) + diagnosis.bound_flags(law, point.z, sample)
    sigma = MAD_TO_SIGMA * weighted_median(np.abs(_residuals(law, sample, point.z)), point.weights)
    flags += diagnosis.estimate_flags(law, point.z, sample, point.weights, sigma)
    if interval is not None:
        flags += diagnosis.interval_flags(law, interval, float(observations.loss.min()))
    flags += diagnosis.flat_flag(law, sample, point.weights, point.objective, point.value)
    flags += ["starts_disagree"] if point.starts_agreeing < 0.5 else []
    unique = list(dict.fromkeys(flags))
    return unique + diagnosis.summary_flag(law, unique)
