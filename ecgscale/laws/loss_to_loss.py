"""How one loss follows another: the shifted power law L1 = K (L0 − E0)^κ + E1 (Brandfonbrener et al. 2024,
arXiv 2411.12925), with floors that are either given or fitted, in which case their uncertainty reaches κ.

κ inherits the errors of both floors (about −1.3 per unit of E0, +2 per unit of E1 on published language-model losses),
so the slope d log L1 / d log L0, which needs no floor, always stands beside it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.estimate import PAIRS_METHOD, fit
from ecgscale.laws.forms import Law, get_law
from ecgscale.laws.intervals import percentile_interval, resample_runs
from ecgscale.laws.line import fit_lines, line_objective
from ecgscale.laws.objectives import Objective
from ecgscale.laws.observations import Observations, observe
from ecgscale.laws.result import FitStatus, LawFit, ObjectiveValue, Prediction

THETA = ("K", "kappa", "E0", "E1")

CLOSEST_IN_ERRORS = 3.0
"""Standard errors of a floor between it and the smallest loss, below which the log of the difference is guesswork."""

LARGEST_UNDEFINED = 0.01
"""Share of draws with a loss at or below its floor, for which κ does not exist, before the interval is doubted."""


@dataclass(frozen=True)
class PairFit:
    """A fitted loss-to-loss law. `theta` holds K, kappa, E0, E1; `slope` is the floor-free d log L1 / d log L0.

    Attributes:
        flags: `near_floor:E0` (the smallest loss is within 3 standard errors of the floor), `draws_undefined`,
            `no_interval`, and the flags of the laws that gave the floors, as `E0:flag` and `E1:flag`.
        objective: Of the straight line of log(L1 − E1) on log(L0 − E0): the sum over pairs.
        support: Smallest and largest L0 and L1.
        draws: (draw, parameter) in the order of `THETA`; κ and K are nan where a loss lies at or below its floor.
    """

    theta: dict[str, float]
    interval: dict[str, tuple[float, float]] | None
    interval_method: str | None
    slope: float
    slope_interval: tuple[float, float] | None
    status: FitStatus
    flags: tuple[str, ...]
    objective: ObjectiveValue
    n_points: int
    support: dict[str, tuple[float, float]]
    draws: FloatArray | None = field(default=None, compare=False, repr=False)

    def predict(self, loss_x: ArrayLike) -> Prediction:
        """L1 at the given L0; E1 at or below the floor of L0."""
        x = np.asarray(loss_x, dtype=float)
        value = _shifted_power(np.array([self.theta[name] for name in THETA]), x)
        low = high = None
        if self.draws is not None:
            defined = self.draws[~np.isnan(self.draws[:, 1])]
            low, high = percentile_interval(_shifted_power(defined.T.reshape(4, -1, *[1] * x.ndim), x))
        smallest, largest = self.support["L0"]
        return Prediction(value, low, high, None, None, np.asarray((x < smallest) | (x > largest)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the draws."""
        out = {name: value for name, value in asdict(self).items() if name != "draws"}
        return out | {"status": self.status.value, "flags": list(self.flags)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "PairFit":
        """The inverse of `to_dict`."""
        interval, slope_interval = stored["interval"], stored["slope_interval"]
        return cls(
            **dict(stored)
            | {
                "interval": None if interval is None else {name: tuple(pair) for name, pair in interval.items()},
                "slope_interval": None if slope_interval is None else tuple(slope_interval),
                "support": {name: tuple(pair) for name, pair in stored["support"].items()},
                "status": FitStatus(stored["status"]),
                "flags": tuple(stored["flags"]),
                "objective": ObjectiveValue(**stored["objective"]),
            }
        )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "PairFit":
        return cls.from_dict(json.loads(text))


def fit_pair(
    loss_x: ArrayLike,
    loss_y: ArrayLike,
    *,
    floor_x: float,
    floor_y: float,
    weights: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    objective: str = "huber",
    delta: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> PairFit:
    """The shifted power law with both floors given: a straight line of log(L1 − E1) on log(L0 − E0).

    Args:
        loss_x: L0 of each pair, above its floor.
        loss_y: L1 of each pair, above its floor.
        floor_x: E0. With both floors zero, this is the floor-free power law.
        floor_y: E1.
        weights: Per pair.
        runs: A label per pair; pairs of one run are resampled together.
        objective: "lsq" is the plain straight line, "huber" resists outliers.
        delta: Where Huber turns linear; None takes 1.345 robust standard deviations of the residuals of the line.
        bootstrap: Number of resamples; 0 for no interval. The floors stay as given.
        seed: Of the resamples.

    Raises:
        FitError: Too few pairs, or a loss at or below its floor.
    """
    line = get_law("power")
    pairs = observe(line, (loss_x, loss_y), weights, runs)
    resamples = resample_runs(line, pairs, bootstrap, seed)
    floors = np.array([floor_x, floor_y], dtype=float)
    flags = ["no_interval"] if bootstrap and not len(resamples) else []
    losses = (pairs.variables[0], pairs.loss)
    return _second_stage(losses, pairs.weights, resamples, floors, floors[None], objective, delta, flags)


def fit_pair_with_floors(
    law: Law | str,
    *columns: ArrayLike,
    loss_x: ArrayLike,
    loss_y: ArrayLike,
    weights: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    objective: str = "huber",
    delta: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    stages: tuple[LawFit, LawFit] | None = None,
) -> tuple[PairFit, LawFit, LawFit]:
    """The shifted power law with both floors from scaling laws of the same runs, both stages in one bootstrap.

    Every resample of the runs gives a new E0, a new E1 and, on the same resample, a new line, so the interval of κ
    contains what is not known about the floors.

    Args:
        law: The law with a floor that gives E0 and E1, as in `fit`; columns are its variables, one value per run.
        loss_x: L0 of each run; loss_y: L1 of each run. The other arguments are those of `fit` and `fit_pair`.
        stages: The laws of L0 and L1, where they have been fitted already, with all other arguments as here. Taken if
            their draws are those of the resamples that are used here.

    Returns:
        The pair, and the laws of L0 and of L1, whose draws are paired with those of the pair.
    """
    law = get_law(law)
    if not law.has_floor:
        raise FitError(f"law {law.name} has no floor to take: use fit_pair with floors of your own")
    if law.link is not None:
        raise FitError(f"law {law.name} explains a bounded metric; a loss-to-loss law is of losses")
    tables = [observe(law, (*columns, loss), weights, runs) for loss in (loss_x, loss_y)]
    resamples = resample_runs(law, tables[0], bootstrap, seed)
    if stages is None or not all(_of_these_resamples(stage, len(resamples)) for stage in stages):
        one, other = (_first_stage(law, table, resamples, bootstrap, objective, delta) for table in tables)
        stages = one, other
    floors = np.array([stage.theta["E"] for stage in stages])
    by_stage = [stage.draws[:, 0] for stage in stages if stage.draws is not None]
    draws = np.stack(by_stage, axis=1) if by_stage else floors[None]
    losses = (tables[0].loss, tables[1].loss)
    flags = [f"{name}:{flag}" for name, stage in zip(("E0", "E1"), stages, strict=True) for flag in stage.flags]
    for i, name in enumerate(("E0", "E1")):
        if len(resamples) and losses[i].min() - floors[i] < CLOSEST_IN_ERRORS * draws[:, i].std(ddof=1):
            flags.append(f"near_floor:{name}")
    pair = _second_stage(losses, tables[0].weights, resamples, floors, draws, objective, delta, flags)
    return pair, stages[0], stages[1]


def _of_these_resamples(stage: LawFit, n_resamples: int) -> bool:
    """A fit of its own draws the same runs under the same seed, unless there were too few to draw from."""
    if stage.draws is None:
        return n_resamples == 0
    return stage.interval_method == PAIRS_METHOD and len(stage.draws) == n_resamples


def _first_stage(
    law: Law, table: Observations, resamples: FloatArray, bootstrap: int, objective: str, delta: float | None
) -> LawFit:
    return fit(
        law,
        *table.variables,
        table.loss,
        weights=table.weights,
        runs=table.runs,
        objective=objective,
        delta=delta,
        bootstrap=resamples if bootstrap else 0,
    )


def _second_stage(
    losses: tuple[FloatArray, FloatArray],
    weights: FloatArray,
    resamples: FloatArray,
    floors: FloatArray,
    floor_draws: FloatArray,
    objective: str,
    delta: float | None,
    flags: Sequence[str],
) -> PairFit:
    """Lines on all pairs and on every resample (draw, pair), each with its own floors (draw, 2)."""
    x, y = (_log_above(loss, floor, name) for loss, floor, name in zip(losses, floors, ("L0", "L1"), strict=True))
    line = line_objective(objective, delta, x, y, weights)
    log_k, kappa = fit_lines(x[None], y[None], weights[None], line)
    raw_x, raw_y = np.log(losses[0]), np.log(losses[1])
    raw_line = line_objective(objective, delta, raw_x, raw_y, weights)
    slope = fit_lines(raw_x[None], raw_y[None], weights[None], raw_line)[1]
    point = np.array([np.exp(log_k[0]), kappa[0], *floors])
    found, draws, interval, slope_interval = list(flags), None, None, None
    if len(resamples):
        rows = resamples * weights
        draws = _draw_lines(losses, rows, np.broadcast_to(floor_draws, (len(rows), 2)), line)
        defined = ~np.isnan(draws[:, 1])
        found += ["draws_undefined"] if 1 - defined.mean() > LARGEST_UNDEFINED else []
        slope_low, slope_high = percentile_interval(fit_lines(raw_x, raw_y, rows, raw_line)[1])
        slope_interval = (float(slope_low), float(slope_high))
        if defined.any():
            low, high = percentile_interval(draws[defined])
            interval = {name: (float(low[i]), float(high[i])) for i, name in enumerate(THETA)}
    value = line.total(log_k[0] + kappa[0] * x, y, weights)
    return PairFit(
        theta=dict(zip(THETA, point.tolist(), strict=True)),
        interval=interval,
        interval_method=None if interval is None else PAIRS_METHOD,
        slope=float(slope[0]),
        slope_interval=slope_interval,
        status=FitStatus.AT_BOUND if any(":at_bound" in flag for flag in found) else FitStatus.CONVERGED,
        flags=tuple(found),
        objective=ObjectiveValue(line.name, line.delta, float(value)),
        n_points=len(x),
        support={name: (float(v.min()), float(v.max())) for name, v in zip(("L0", "L1"), losses, strict=True)},
        draws=draws,
    )


def _draw_lines(
    losses: tuple[FloatArray, FloatArray], rows: FloatArray, floors: FloatArray, line: Objective
) -> FloatArray:
    """(draw, parameter); nan where a pair of positive weight lies at or below a floor."""
    above = [loss - floors[:, i, None] for i, loss in enumerate(losses)]
    defined = ((rows == 0) | ((above[0] > 0) & (above[1] > 0))).all(axis=1)
    draws = np.column_stack((np.full((len(rows), 2), np.nan), floors))
    # A pair that was not drawn has no weight, so any value above its floor will do for it.
    x, y = (np.log(np.where(a[defined] > 0, a[defined], 1.0)) for a in above)
    log_k, draws[defined, 1] = fit_lines(x, y, rows[defined], line)
    draws[defined, 0] = np.exp(log_k)
    return draws


def _log_above(loss: FloatArray, floor: float, name: str) -> FloatArray:
    below = np.flatnonzero(loss <= floor)
    if len(below):
        raise FitError(
            f"{len(below)} values of {name} lie at or below its floor {floor:.6g} (the smallest is {loss.min():.6g}):"
            " the shifted power law is not defined there; give a lower floor or use the floor-free slope"
        )
    return np.asarray(np.log(loss - floor))


def _shifted_power(theta: FloatArray, x: FloatArray) -> FloatArray:
    k, kappa, floor_x, floor_y = theta
    with np.errstate(divide="ignore"):  # a falling law (kappa < 0) has no value at its floor
        return np.asarray(k * np.maximum(x - floor_x, 0.0) ** kappa + floor_y)
