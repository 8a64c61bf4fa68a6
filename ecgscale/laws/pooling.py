"""Do several arms share one loss-to-loss curve? One line for all, one exponent but a coefficient each, or a line each.

Compared by AICc on straight lines of log(L1 − E1) on log(L0 − E0), each arm with its own floors. That all arms lie on
one curve is the claim that only the loss matters, not how it was reached (Brandfonbrener et al. 2024, arXiv
2411.12925; Mayilvahanan et al. 2025, arXiv 2502.12120).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.derived import as_json
from ecgscale.laws.objectives import Objective, adaptive_delta
from ecgscale.laws.selection import SUPPORTED, information_criterion

MAX_ITERATIONS = 200
RELATIVE_STEP = 1e-12
"""Reweighting ends when no fitted value moves by more than this share of the spread of y."""


@dataclass(frozen=True)
class Shared:
    """One hypothesis about the arms: κ and log K of each, and how well that explains all pairs."""

    name: str
    kappa: dict[str, float]
    log_k: dict[str, float]
    n_parameters: int
    aicc: float


@dataclass(frozen=True)
class Pooling:
    """`one_line`, `one_exponent` and `separate`, best first.

    Attributes:
        flags: `close` where the runner-up is within 2 of the best.
    """

    hypotheses: tuple[Shared, ...]
    objective: str
    delta: float | None
    n_points: int
    flags: tuple[str, ...]

    @property
    def best(self) -> str:
        return self.hypotheses[0].name

    def describe(self) -> str:
        """One line: what the pairs support, and by how much."""
        beaten = ", ".join(f"{h.name} +{h.aicc - self.hypotheses[0].aicc:.1f}" for h in self.hypotheses[1:])
        doubt = " (close)" if "close" in self.flags else ""
        return f"AICc supports {self.best}{doubt}; {beaten}"

    def to_dict(self) -> dict[str, Any]:
        return as_json(self) | {"best": self.best}  # type: ignore[no-any-return]


def pool_pairs(
    arms: Mapping[str, tuple[ArrayLike, ArrayLike]],
    floors: Mapping[str, tuple[float, float]] | None = None,
    *,
    objective: str = "huber",
    delta: float | None = None,
) -> Pooling:
    """Compares one curve for all arms with a curve each.

    Args:
        arms: Name → (L0, L1) of its pairs; L0 of all arms must be the same loss.
        floors: Name → (E0, E1); without it, none: then the lines are floor-free.
        objective: "huber" or "lsq", of log residuals.
        delta: Of Huber; None takes it from the residuals of the separate lines.

    Raises:
        FitError: Fewer than two arms, an arm with fewer than three pairs, or a loss at or below its floor.
    """
    if len(arms) < 2:
        raise FitError(f"pooling compares arms: got {len(arms)}")
    if objective not in ("huber", "lsq"):
        raise FitError(f"a straight line is fitted by huber or lsq, not by {objective!r}")
    logs = [_logs(name, *pair, *(floors or {}).get(name, (0.0, 0.0))) for name, pair in arms.items()]
    y = np.concatenate([of_arm for _, of_arm in logs])
    designs = {name: _design([x for x, _ in logs], name) for name in ("separate", "one_exponent", "one_line")}
    if objective == "huber" and delta is None:
        residual = designs["separate"] @ _regress(designs["separate"], y, Objective("lsq")) - y
        delta = adaptive_delta(residual, np.ones(len(y)))
    chosen = Objective(objective, delta)
    found = [_hypothesis(name, list(arms), design, y, chosen) for name, design in designs.items()]
    found.sort(key=lambda hypothesis: hypothesis.aicc)
    flags = ("close",) if found[1].aicc - found[0].aicc <= SUPPORTED else ()
    return Pooling(tuple(found), chosen.name, chosen.delta, len(y), flags)


def _logs(name: str, x: ArrayLike, y: ArrayLike, floor_x: float, floor_y: float) -> tuple[FloatArray, FloatArray]:
    above = [np.asarray(values, dtype=float) - floor for values, floor in ((x, floor_x), (y, floor_y))]
    if above[0].shape != above[1].shape or above[0].ndim != 1 or len(above[0]) < 3:
        raise FitError(f"arm {name}: needs three pairs or more, got {above[0].shape} and {above[1].shape} losses")
    if not all((np.isfinite(values) & (values > 0)).all() for values in above):
        raise FitError(f"arm {name}: a loss lies at or below its floor ({floor_x:.6g}, {floor_y:.6g}) or is no number")
    return np.log(above[0]), np.log(above[1])


def _design(x: Sequence[FloatArray], name: str) -> FloatArray:
    """Columns: log K of every arm (or of all), then κ of every arm (or of all)."""
    arm = np.repeat(np.arange(len(x)), [len(of_arm) for of_arm in x])
    of_each = (arm[:, None] == np.arange(len(x))).astype(float)
    of_all = np.ones((len(arm), 1))
    log_k, kappa = {
        "separate": (of_each, of_each),
        "one_exponent": (of_each, of_all),
        "one_line": (of_all, of_all),
    }[name]
    return np.concatenate((log_k, kappa * np.concatenate(x)[:, None]), axis=1)


def _hypothesis(name: str, arms: list[str], design: FloatArray, y: FloatArray, objective: Objective) -> Shared:
    beta = _regress(design, y, objective)
    value = float(objective.total(design @ beta, y, np.ones(len(y))))
    n_kappa = len(arms) if name == "separate" else 1
    log_k, kappa = beta[:-n_kappa], beta[-n_kappa:]
    return Shared(
        name,
        dict(zip(arms, np.broadcast_to(kappa, len(arms)).tolist(), strict=True)),
        dict(zip(arms, np.broadcast_to(log_k, len(arms)).tolist(), strict=True)),
        len(beta),
        information_criterion(objective, value, len(y), len(beta)),
    )


def _regress(design: FloatArray, y: FloatArray, objective: Objective) -> FloatArray:
    """Coefficients by least squares, or by iteratively reweighted least squares for Huber, which is convex."""
    beta = np.asarray(np.linalg.lstsq(design, y, rcond=None)[0], dtype=np.float64)
    if objective.delta is None:
        return beta
    smallest = RELATIVE_STEP * max(float(np.ptp(y)), 1e-300)
    for _ in range(MAX_ITERATIONS):
        fitted = design @ beta
        root = np.sqrt(objective.delta / np.maximum(np.abs(fitted - y), objective.delta))
        beta = np.asarray(np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0], dtype=np.float64)
        if np.abs(design @ beta - fitted).max() <= smallest:
            break
    return beta
