"""Numbers that follow from fitted laws, each with the interval of the draws it came from.

Point and draws travel together as rows of parameters, the point first, so that a derived quantity is computed once for
both. This module knows what an estimate is and how two arms are paired; it knows no particular quantity.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.diagnosis import is_identified
from ecgscale.laws.forms import Law
from ecgscale.laws.intervals import percentile_interval
from ecgscale.laws.result import LawFit

FEWEST_DRAWS = 20
"""Defined draws below which a 95 % percentile is the extreme draw itself: no interval is given."""

LARGEST_UNDEFINED = 0.05
"""Share of draws without a value beyond which their interval is that of a selection, not of the quantity."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: At the point fit; nan where it doesn't exist.
        low: Lower bound; None without draws, or where too few of them have a value.
        high: Upper bound.
        defined: Share of the draws that have a value; None without draws. The interval is over these draws only.
    """

    value: float
    low: float | None = None
    high: float | None = None
    defined: float | None = None

    @classmethod
    def of(cls, rows: FloatArray) -> "Estimate":
        """From the value at the point and at every draw, (1 + draw,); what is not finite doesn't exist."""
        value = float(rows[0]) if np.isfinite(rows[0]) else math.nan
        draws = rows[1:]
        if len(draws) == 0:
            return cls(value)
        finite = draws[np.isfinite(draws)]
        defined = len(finite) / len(draws)
        if len(finite) < FEWEST_DRAWS or math.isnan(value):
            return cls(value, defined=defined)
        low, high = percentile_interval(finite)
        return cls(value, float(low), float(high), defined)

    def to_dict(self) -> dict[str, Any]:
        return as_json(self)  # type: ignore[no-any-return]


def in_odds(law: Law) -> Law:
    """The law that falls: of the error odds for a bounded metric, the law itself for a loss.

    Searches and elasticities need it, since a score may rise with size and never be quite at its end.
    """
    if law.link is None:
        return law
    if not is_dataclass(law):
        raise FitError(f"law {law.name} has a link but is no dataclass: what follows from it can't be found in odds")
    return replace(law, link=None)


def rows_of(fit: LawFit, n_draws: int | None = None) -> FloatArray:
    """Parameters (1 + draw, p) in the order of theta: the point first, then the (first n) draws, if there are any."""
    point = np.array([list(fit.theta.values())], dtype=float)
    return point if fit.draws is None else np.concatenate((point, fit.draws[:n_draws]))


def by_name(law: Law, rows: FloatArray, n_axes: int = 0) -> dict[str, FloatArray]:
    """Rows (row, p) as the mapping that `law.loss` takes, with axes of length one for what they broadcast against."""
    shape = (len(rows), *(1,) * n_axes)
    return {name: rows[:, i].reshape(shape) for i, name in enumerate(law.theta)}


def axis_index(law: Law, axis: str | None) -> int:
    """Position of a variable of the law by its name, in either case; the first if no name is given."""
    names = [name.casefold() for name in law.variables]
    wanted = names[0] if axis is None else axis.casefold()
    if wanted not in names:
        raise FitError(f"law {law.name} has no axis {axis!r}: choose one of {', '.join(law.variables)}")
    return names.index(wanted)


def pairing_flags(a: LawFit, b: LawFit) -> list[str]:
    """`no_interval` without draws; `unpaired` where the arms can't share their resamples.

    Draws of different designs are independent, so their interval is right for independent arms, only wider.
    """
    if a.draws is None or b.draws is None:
        return ["no_interval"]
    same = (a.n_points, a.n_runs, len(a.draws)) == (b.n_points, b.n_runs, len(b.draws))
    return [] if same else ["unpaired"]


def unidentified_flags(flags: tuple[str, ...], prefix: str = "") -> list[str]:
    """The flags after which a parameter must not be quoted, named after the ingredient they come from."""
    return [prefix + flag for flag in flags if not is_identified((flag,))]


def as_json(value: Any) -> Any:
    """A frozen value as JSON has it: lists, and null for what is not a finite number."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
