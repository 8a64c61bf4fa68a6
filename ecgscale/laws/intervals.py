"""Uncertainty by resampling: which runs are drawn, and what the draws say.

A pairs bootstrap over runs (all rows of a run together). Whole draws are kept, so that every derived quantity gets its
interval from the same draws, and fits that share the resamples can be compared draw by draw.
"""

import numpy as np

from ecgscale.laws.arrays import FloatArray, IndexArray
from ecgscale.laws.forms import Law
from ecgscale.laws.observations import Observations

CONFIDENCE = 0.95

GRID_AXIS = 8
"""An axis with at most this many levels, each held by two runs or more, is a grid axis: a resample keeps all of its
levels, for without one it would be another design. Rejecting the others (under 10 % for 4×4 grids and larger) takes
less of the variance than drawing within levels, which takes a share 1/m at m runs per level. Our assumption; coverage
is tested."""

LEVELS_WITH_FLOOR, LEVELS_WITHOUT_FLOOR = 3, 2
"""Levels of an axis that identify coefficient and exponent, with and without a floor."""

MAX_ROUNDS = 100
"""Batches of draws before giving up on a design whose resamples are nearly always refused."""


def resample_runs(law: Law, observations: Observations, n_resamples: int, seed: int) -> FloatArray:
    """Bootstrap rows (resample, point): how often the run of each point was drawn.

    Every row keeps the levels that identify the law and at least as many distinct points as the law has parameters.
    Returns fewer rows than asked for, possibly none, if the design does not allow more. The rows depend on the seed,
    the law, the runs and the levels alone, so that fits of several losses on the same runs share them.
    """
    n_runs = observations.n_runs
    if n_runs < 2 or n_resamples == 0:
        return np.empty((0, len(observations.loss)))
    rng = np.random.default_rng(seed)
    present = _run_has_level(observations)
    required = [_required_levels(p, LEVELS_WITH_FLOOR if law.has_floor else LEVELS_WITHOUT_FLOOR) for p in present]
    points_per_run = np.bincount(observations.runs)
    rows: list[IndexArray] = []
    for _ in range(MAX_ROUNDS):
        counts = rng.multinomial(n_runs, np.full(n_runs, 1 / n_runs), size=n_resamples)
        drawn = counts > 0
        accepted = drawn @ points_per_run >= len(law.theta)
        for level_of_run, n_required in zip(present, required, strict=True):
            accepted &= (drawn @ level_of_run > 0).sum(axis=1) >= n_required
        rows.append(counts[accepted])
        if sum(map(len, rows)) >= n_resamples:
            break
    return np.concatenate(rows)[:n_resamples, observations.runs].astype(float)


def _required_levels(run_has_level: IndexArray, n_identifying: int) -> int:
    n_levels = int(run_has_level.shape[1])
    is_grid = n_levels <= GRID_AXIS and bool((run_has_level.sum(axis=0) >= 2).all())
    return n_levels if is_grid else min(n_levels, n_identifying)


def _run_has_level(observations: Observations) -> list[IndexArray]:
    """Per axis: (run, level), 1 where a run has points at a level."""
    out = []
    for level in observations.levels:
        table = np.zeros((observations.n_runs, int(level.max()) + 1), dtype=np.intp)
        table[observations.runs, level] = 1
        out.append(table)
    return out


def percentile_interval(draws: FloatArray, confidence: float = CONFIDENCE) -> tuple[FloatArray, FloatArray]:
    """Lower and upper percentile over the first axis."""
    tail = 50 * (1 - confidence)
    ends = (tail, 100 - tail)
    with np.errstate(invalid="ignore"):  # between two infinite draws
        bounds = np.percentile(draws, ends, axis=0)
    if np.isnan(bounds).any():
        bounds = np.where(np.isnan(bounds), np.percentile(draws, ends, axis=0, method="nearest"), bounds)
    low, high = bounds
    return low, high
