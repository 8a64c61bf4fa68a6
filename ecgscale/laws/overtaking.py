"""Where one law overtakes another: the size from which on b's loss is below a's, for point and draws at once."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import Estimate, as_json, axis_index, by_name, in_odds, rows_of
from ecgscale.laws.intervals import percentile_interval
from ecgscale.laws.ratios import common_law
from ecgscale.laws.result import LawFit

HORIZON = 100.0
"""Times the largest size that an arm observed: what "very large" means here. Our assumption; further out, the two
floors alone decide."""

STEPS_PER_DECADE = 40
"""Of the scan for crossings; between steps the difference of log losses is taken as straight."""


@dataclass(frozen=True)
class Overtaking:
    """From which size on b is below a, up to the horizon.

    Attributes:
        size: At the point fits. 0 where b is below a from the smallest observed size on, inf where a is below b at the
            horizon.
        low, high: 95 % of the paired draws, in the same sense; None without draws.
        largest: The largest size that both observed; a crossing beyond it is extrapolated.
        smallest: The smallest size that both observed.
        horizon: Where the search ends.
        never: Share of the draws in which b does not overtake.
        at_smallest, at_horizon: log loss of b over that of a there; negative where b is below.
    """

    axis: str
    at: float | None
    size: float
    low: float | None
    high: float | None
    smallest: float
    largest: float
    horizon: float
    never: float | None
    at_smallest: Estimate
    at_horizon: Estimate

    def to_dict(self) -> dict[str, Any]:
        return as_json(self)  # type: ignore[no-any-return]


def overtaking(a: LawFit, b: LawFit, axis: str | None = None) -> Overtaking:
    """Where b overtakes a along one variable, the other at the largest value that both observed.

    Raises:
        FitError: Different laws, or an unknown axis.
    """
    law = common_law(a, b)
    which = axis_index(law, axis)
    name = law.variables[which]
    smallest = max(a.support[name][0], b.support[name][0])
    largest = min(a.support[name][1], b.support[name][1])
    horizon = HORIZON * max(a.support[name][1], b.support[name][1])
    at = None
    if len(law.variables) == 2:
        held = law.variables[1 - which]
        at = min(a.support[held][1], b.support[held][1])
    n_steps = math.ceil(STEPS_PER_DECADE * math.log10(horizon / smallest)) + 1
    sizes = np.geomspace(smallest, horizon, n_steps)
    n_draws = 0 if a.draws is None or b.draws is None else min(len(a.draws), len(b.draws))
    ahead = _log_losses(b, n_draws, sizes, which, at) - _log_losses(a, n_draws, sizes, which, at)
    found = _last_crossing(np.log(sizes), ahead)
    low = high = None
    if n_draws:
        ends = percentile_interval(np.clip(found[1:], -_FAR, _FAR))
        low, high = (_size(float(end)) for end in ends)
    return Overtaking(
        axis=name,
        at=at,
        size=_size(float(found[0])),
        low=low,
        high=high,
        smallest=smallest,
        largest=largest,
        horizon=horizon,
        never=float((found[1:] == math.inf).mean()) if n_draws else None,
        at_smallest=Estimate.of(ahead[:, 0]),
        at_horizon=Estimate.of(ahead[:, -1]),
    )


_FAR = 1e3
"""Log of a size beyond every other: percentiles can't be taken of infinities."""


def _size(log_size: float) -> float:
    if abs(log_size) < math.log(np.finfo(float).max) / 2:
        return math.exp(log_size)
    return math.inf if log_size > 0 else 0.0


def _log_losses(arm: LawFit, n_draws: int, sizes: FloatArray, which: int, at: float | None) -> FloatArray:
    law = in_odds(arm.form)
    columns = [sizes] if at is None else [sizes, np.full_like(sizes, at)][:: 1 if which == 0 else -1]
    return np.asarray(np.log(law.loss(by_name(law, rows_of(arm, n_draws), n_axes=1), *columns)))


def _last_crossing(log_sizes: FloatArray, difference: FloatArray) -> FloatArray:
    """(row,): where a row of differences (row, size) last turns negative and stays so; see `Overtaking.size`."""
    not_below = difference >= 0
    last = difference.shape[1] - 1 - not_below[:, ::-1].argmax(axis=1)  # the last size at which b is not below a
    rows, inner = np.arange(len(difference)), np.minimum(last, difference.shape[1] - 2)
    before, after = difference[rows, inner], difference[rows, inner + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = before / (before - after)
    crossing = log_sizes[inner] + share * (log_sizes[inner + 1] - log_sizes[inner])
    crossing = np.where(not_below[:, -1], np.inf, crossing)
    return np.asarray(np.where(not_below.any(axis=1), crossing, -np.inf))
