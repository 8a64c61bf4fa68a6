"""One law, every objective: what depends on how residuals are counted is not yet known.

Robust and least-squares estimates of a law that describes its data agree within their interval. Where they don't, the
form, or a few points, decide the answer.
"""

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from ecgscale.laws.estimate import fit
from ecgscale.laws.forms import Law
from ecgscale.laws.result import LawFit

OBJECTIVES: dict[str, tuple[str, float | None]] = {
    "huber": ("huber", None),
    "huber_1e-3": ("huber", 1e-3),
    "lad": ("lad", None),
    "lsq": ("lsq", None),
    "lsq_raw": ("lsq_raw", None),
}
"""Name → (objective, delta). `huber` takes delta from the residuals; 1e-3 is what most published fits inherited."""


@dataclass(frozen=True)
class SideBySide:
    """The same law under every objective.

    Attributes:
        main: The fit with intervals; `objectives_disagree:NAME` is among its flags where another objective's estimate
            of a parameter lies outside its interval.
        others: Objective → its fit, without intervals.
    """

    main: LawFit
    others: dict[str, LawFit]

    def to_dict(self) -> dict[str, Any]:
        """Objective → estimates and objective value, plain values for JSON."""
        return {
            name: {"theta": found.theta, "objective": found.to_dict()["objective"], "flags": list(found.flags)}
            for name, found in self.others.items()
        }


def fit_side_by_side(law: Law | str, *columns: ArrayLike, weights: ArrayLike | None = None, main: LawFit) -> SideBySide:
    """Refits a law with every objective of `OBJECTIVES`.

    Args:
        law: What `main` was fitted with; columns and weights as well.
        main: The fit whose intervals judge the others.
    """
    others = {
        name: fit(law, *columns, weights=weights, objective=objective, delta=delta, bootstrap=0)
        for name, (objective, delta) in OBJECTIVES.items()
    }
    flags = list(main.flags)
    for parameter, (low, high) in (main.interval or {}).items():
        if any(not low <= found.theta[parameter] <= high for found in others.values()):
            flags.append(f"objectives_disagree:{parameter}")
    return SideBySide(replace(main, flags=tuple(flags)), others)
