"""What a fit returns: plain values that can be printed, compared and stored, and that predict without the data.

A `LawFit` stands on its own: a figure, a table or a test can be made from its JSON a year later without refitting.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.diagnosis import is_identified
from ecgscale.laws.forms import get_law
from ecgscale.laws.intervals import percentile_interval


class FitStatus(Enum):
    """How the search ended. Not a verdict on the law: read the flags as well."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration_limit"
    ABNORMAL = "abnormal"
    AT_BOUND = "at_bound"


@dataclass(frozen=True)
class ObjectiveValue:
    """The objective that was minimised, with the delta that was used, and its sum over the points at the optimum."""

    name: str
    delta: float | None
    value: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """Mean law at the asked-for places, with its 95 % interval (None without draws), in the shape of the question."""

    value: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    extrapolated: NDArray[np.bool_]


@dataclass(frozen=True)
class LawFit:
    """A fitted law. `theta` is in natural units; `interval` holds 95 % bounds per parameter.

    Attributes:
        law: Name of the form, see `ecgscale.laws.LAWS`.
        flags: What speaks against reading the estimate as a law, see `ecgscale.laws.diagnosis`. Empty is good.
        starts_agreeing: Share of far-apart starts that ended at this optimum.
        support: Smallest and largest value of each variable; anything outside is extrapolation.
        draws: Bootstrap estimates (draw, parameter) in the order of `theta`. Not part of equality, print or JSON.
    """

    law: str
    theta: dict[str, float]
    interval: dict[str, tuple[float, float]] | None
    interval_method: str | None
    status: FitStatus
    flags: tuple[str, ...]
    objective: ObjectiveValue
    n_points: int
    n_runs: int
    starts_agreeing: float
    support: dict[str, tuple[float, float]]
    draws: FloatArray | None = field(default=None, compare=False, repr=False)

    @property
    def identified(self) -> bool:
        """Whether every parameter is held by the data: no flag of `diagnosis.UNIDENTIFYING` is up."""
        return is_identified(self.flags)

    def predict(self, *x: ArrayLike) -> Prediction:
        """The law at x (its variables in order, broadcast), in natural units.

        The interval is that of the mean law, not of a new run, which scatters around it.
        """
        law = get_law(self.law)
        if len(x) != len(law.variables):
            raise FitError(f"law {law.name} predicts from {', '.join(law.variables)}; got {len(x)} values")
        columns = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in x))
        value = law.loss(self.theta, *columns)
        low = high = None
        if self.draws is not None:
            axes = (slice(None),) + (None,) * value.ndim
            by_draw = law.loss({name: self.draws[:, i][axes] for i, name in enumerate(law.theta)}, *columns)
            low, high = percentile_interval(by_draw)
        outside = np.zeros(value.shape, dtype=bool)
        for name, column in zip(law.variables, columns, strict=True):
            smallest, largest = self.support[name]
            outside |= (column < smallest) | (column > largest)
        return Prediction(value, low, high, outside)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the draws."""
        out = {name: value for name, value in asdict(self).items() if name != "draws"}
        return out | {"status": self.status.value, "flags": list(self.flags)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "LawFit":
        """The inverse of `to_dict`."""
        known = dict(stored)
        return cls(
            **known
            | {
                "interval": _pairs(known["interval"]),
                "support": _pairs(known["support"]),
                "status": FitStatus(known["status"]),
                "flags": tuple(known["flags"]),
                "objective": ObjectiveValue(**known["objective"]),
            }
        )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "LawFit":
        return cls.from_dict(json.loads(text))


def _pairs(stored: Mapping[str, Any] | None) -> dict[str, tuple[float, float]] | None:
    return None if stored is None else {name: (low, high) for name, (low, high) in stored.items()}
