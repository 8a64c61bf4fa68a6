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
from ecgscale.laws.forms import Law, get_law
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
    """The law at the asked-for places, in the shape of the question.

    Attributes:
        low, high: 95 % interval of the mean law; None without draws.
        new_low, new_high: 95 % interval of one new run, which also scatters as the residuals do.
        extrapolated: Whether the place lies outside the data.
    """

    value: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    new_low: FloatArray | None
    new_high: FloatArray | None
    extrapolated: NDArray[np.bool_]


@dataclass(frozen=True)
class LawFit:
    """A fitted law. `theta` is in natural units; `interval` holds 95 % bounds per parameter.

    Attributes:
        law: Name of the form, see `ecgscale.laws.LAWS`.
        flags: What speaks against reading the estimate as a law, see `ecgscale.laws.diagnosis`. Empty is good.
        starts_agreeing: Share of far-apart starts that ended at this optimum.
        support: Smallest and largest value of each variable; anything outside is extrapolation.
        bounded: (worst, best) of a bounded metric, whose error odds follow the law.
        draws: Bootstrap estimates (draw, parameter) in the order of `theta`. Not part of equality, print or JSON.
        residuals: Log observed minus log predicted loss (point,), widened by √(n/(n − p)); likewise.
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
    bounded: tuple[float, float] | None = None
    draws: FloatArray | None = field(default=None, compare=False, repr=False)
    residuals: FloatArray | None = field(default=None, compare=False, repr=False)

    @property
    def form(self) -> Law:
        """The law itself."""
        return get_law(self.law, self.bounded)

    @property
    def identified(self) -> bool:
        """Whether every parameter is held by the data: no flag of `diagnosis.UNIDENTIFYING` is up."""
        return is_identified(self.flags)

    def predict(self, *x: ArrayLike) -> Prediction:
        """The law at x (its variables in order, broadcast), in natural units.

        There are two intervals: of the mean law, and of a single new run, which scatters around it.
        """
        law = self.form
        if len(x) != len(law.variables):
            raise FitError(f"law {law.name} predicts from {', '.join(law.variables)}; got {len(x)} values")
        columns = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in x))
        value = law.loss(self.theta, *columns)
        low = high = new_low = new_high = None
        if self.draws is not None:
            axes = (slice(None),) + (None,) * value.ndim
            by_draw = law.loss({name: self.draws[:, i][axes] for i, name in enumerate(law.theta)}, *columns)
            low, high = percentile_interval(by_draw)
            if self.residuals is not None:
                scatter = np.random.default_rng(0).permutation(np.resize(self.residuals, len(by_draw)))[axes]
                new_low, new_high = percentile_interval(_shaken(law, by_draw, scatter))
        outside = np.zeros(value.shape, dtype=bool)
        for name, column in zip(law.variables, columns, strict=True):
            smallest, largest = self.support[name]
            outside |= (column < smallest) | (column > largest)
        return Prediction(value, low, high, new_low, new_high, outside)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the draws."""
        out = {name: value for name, value in asdict(self).items() if name not in ("draws", "residuals")}
        return out | {"status": self.status.value, "flags": list(self.flags)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "LawFit":
        """The inverse of `to_dict`."""
        known = dict(stored)
        return cls(
            **known
            | {
                "interval": _pairs(known["interval"]),
                "bounded": None if known["bounded"] is None else tuple(known["bounded"]),
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


def _shaken(law: Law, loss: FloatArray, scatter: FloatArray) -> FloatArray:
    """Losses with the scatter of a run: relative for a loss, in the log odds for a bounded metric."""
    if law.link is None:
        return np.asarray(loss * np.exp(scatter))
    return law.link.from_odds(law.link.to_odds(loss) * np.exp(scatter))


def _pairs(stored: Mapping[str, Any] | None) -> dict[str, tuple[float, float]] | None:
    return None if stored is None else {name: (low, high) for name, (low, high) in stored.items()}
