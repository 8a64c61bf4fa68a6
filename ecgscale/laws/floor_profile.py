"""The profile of the floor: how much worse the best law gets when E is held at a value.

E is the weak parameter of every law that has one. A flat profile says so more plainly than an interval, and shows on
which side the data hold it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.estimate import fit
from ecgscale.laws.forms import Law, free_parameters, get_law, with_floor
from ecgscale.laws.intervals import CONFIDENCE

N_VALUES = 41
REACH = 0.98
"""Profiles end at this share of the smallest loss; at the smallest loss itself a term would have to vanish."""


@dataclass(frozen=True)
class FloorProfile:
    """The objective along the floor.

    Attributes:
        floor: Values of E (value,), from 0 to almost the smallest loss.
        objective: The smallest sum over points with E held there (value,).
        theta: The other parameters there: name → (value,).
        interval: Where the objective is below its minimum times 1 + t²/(n − p): the profile-t interval for least
            squares, an approximation for the robust objectives. An end at 0 is not held by the data.
    """

    floor: FloatArray
    objective: FloatArray
    theta: dict[str, FloatArray]
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "floor": self.floor.tolist(),
            "objective": self.objective.tolist(),
            "theta": {name: values.tolist() for name, values in self.theta.items()},
            "interval": list(self.interval),
        }


def profile_floor(
    law: Law | str,
    *columns: ArrayLike,
    weights: ArrayLike | None = None,
    objective: str = "huber",
    delta: float | None = None,
    n_values: int = N_VALUES,
) -> FloorProfile:
    """Refits a law with its floor held at `n_values` values between 0 and the smallest loss.

    Args:
        law: A law with a floor; columns, weights, objective and delta as in `fit`. Huber's delta, when not given, is
            taken once, from the free fit, so that all values are compared by the same objective.

    Raises:
        FitError: The law has no floor, or can't be fitted at all.
    """
    law = get_law(law)
    if not law.has_floor:
        raise FitError(f"law {law.name} has no floor: there is nothing to profile")
    free = fit(law, *columns, weights=weights, objective=objective, delta=delta, bootstrap=0)
    loss = np.asarray(columns[-1] if law.link is None else law.link.to_odds(columns[-1]), dtype=float)
    smallest = float(loss.min())
    floors = np.unique(np.append(np.linspace(0.0, REACH * smallest, n_values), free.theta["E"]))
    held = [
        fit(
            with_floor(law, float(floor)),
            *columns,
            weights=weights,
            objective=free.objective.name,
            delta=free.objective.delta,
            bootstrap=0,
        )
        for floor in floors
    ]
    objectives = np.array([found.objective.value for found in held])
    names = [name for name in law.theta if name != "E"]
    return FloorProfile(
        floor=floors,
        objective=objectives,
        theta={name: np.array([found.theta[name] for found in held]) for name in names},
        interval=_interval(floors, objectives, max(free.n_points - len(free_parameters(law)), 1)),
    )


def _interval(floors: FloatArray, objectives: FloatArray, freedom: int) -> tuple[float, float]:
    t = special.stdtrit(freedom, 0.5 + 0.5 * CONFIDENCE)
    excess = objectives - objectives.min() * (1 + t**2 / freedom)
    inside = np.flatnonzero(excess <= 0)
    return _crossing(floors, excess, int(inside[0]), -1), _crossing(floors, excess, int(inside[-1]), +1)


def _crossing(floors: FloatArray, excess: FloatArray, inside: int, step: int) -> float:
    """Where the excess passes zero between the outermost value inside and its neighbour outside."""
    outside = inside + step
    if not 0 <= outside < len(floors):
        return float(floors[inside])
    share = excess[inside] / (excess[inside] - excess[outside])
    return float(floors[inside] + share * (floors[outside] - floors[inside]))
