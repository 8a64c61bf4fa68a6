"""The compute-optimal frontier of a law: the N*, D* and loss that a budget buys, N* ∝ C^a and D* ∝ C^b.

In closed form for sums of one power law per variable under C = c·N·D (Hoffmann et al. 2022, arXiv 2203.15556,
section 3.3), by search for every other law and every counted cost. It says where it extrapolates, and gives no optimum
where the law has none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.bracket import crossing, minimum
from ecgscale.laws.derived import LARGEST_UNDEFINED, Estimate, as_json, by_name, in_odds, rows_of, unidentified_flags
from ecgscale.laws.forms import AdditiveLaw, Law
from ecgscale.laws.result import LawFit

Cost = Callable[[FloatArray, FloatArray], ArrayLike]
"""FLOPs of training N parameters on D samples, elementwise over arrays of one shape; rising in both."""

FLOPS_PER_PARAMETER_AND_SAMPLE = 6.0
"""C = 6 N D: Kaplan et al. 2020, arXiv 2001.08361, section 2.1. Crude for small models: count the FLOPs instead."""

N_BUDGETS = 13

SEARCHED_N, SEARCHED_D = 1e3, 1e6
"""The search goes this factor beyond the observed sizes and data. An optimum at its end is no optimum."""

COARSE = 97
"""Sizes of the first scan, about 0.3 apart in logs on a sweep of four decades: no valley of a power law is narrower."""


SHALLOWEST = 1e-9
"""Relative rise from the bottom of the scan to its neighbours, below which the loss is flat and has no optimum."""


@dataclass(frozen=True)
class Frontier:
    """Compute-optimal sizes, data and losses at budgets, with 95 % intervals from the draws.

    Attributes:
        cost: "6 N D", or "counted" for a cost function.
        flops: The budgets.
        n, d, loss: N*, D* and the law's loss there, per budget; nan where the law has no optimum.
        a, b: Exponents of N* and D* in C. For a searched frontier, the slopes of straight lines through its budgets.
        extrapolating: Per budget, whether N* or D* lies outside the observed range.
        edge: Per budget, whether the loss still falls at the end of the search: no optimum.
        flags: Unidentifying flags of the fit; `extrapolating`, `edge`, `no_interval`, and `draws_undefined` (more than
            5 % of the draws have no optimum).
    """

    law: str
    cost: str
    flops: tuple[float, ...]
    n: tuple[Estimate, ...]
    d: tuple[Estimate, ...]
    loss: tuple[Estimate, ...]
    a: Estimate
    b: Estimate
    extrapolating: tuple[bool, ...]
    edge: tuple[bool, ...]
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return as_json(self)  # type: ignore[no-any-return]


def compute_frontier(
    fitted: LawFit,
    flops: ArrayLike | None = None,
    cost: Cost | None = None,
    c: float = FLOPS_PER_PARAMETER_AND_SAMPLE,
) -> Frontier:
    """N*(C), D*(C) and L*(C) of a fitted law of N and D.

    Args:
        fitted: Its draws give the intervals.
        flops: Budgets. Default: 13 from the cheapest to the costliest corner of the observed sizes and data.
        cost: FLOPs of (n, d) arrays, for instance counted from the architecture. Default: c·N·D.
        c: FLOPs per parameter and sample, without a cost function.

    Raises:
        FitError: A law without two variables, budgets or costs that are not positive.
    """
    law = in_odds(fitted.form)
    if len(law.variables) != 2:
        raise FitError(f"law {law.name} of {', '.join(law.variables)} has no frontier: fit a law of N and D")
    if not (np.isfinite(c) and c > 0):
        raise FitError(f"c is FLOPs per parameter and sample and must be positive, got {c}")
    spent = _checked(cost if cost is not None else lambda n, d: c * n * d)
    ranges = [fitted.support[name] for name in law.variables]
    budgets = _budgets(flops, spent, ranges)
    rows = rows_of(fitted)
    if cost is None and isinstance(law, AdditiveLaw) and _one_term_each(law):
        log_n, log_d, a = _closed_form(law, rows, np.log(budgets / c))
        b, edge = 1 - a, np.isnan(log_n[0])
    else:
        log_n, log_d = _search(law, rows, budgets, spent, ranges)
        edge = np.isnan(log_n[0])
        a, b = _slopes(np.log(budgets), log_n), _slopes(np.log(budgets), log_d)
    # a draw without a slope has its optimum at zero or infinity
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        n, d = np.exp(log_n), np.exp(log_d)
        loss = fitted.form.loss(by_name(law, rows, n_axes=1), n, d)
    outside = _outside(log_n[0], ranges[0]) | _outside(log_d[0], ranges[1])
    flags = unidentified_flags(fitted.flags) + (["no_interval"] if fitted.draws is None else [])
    flags += (["extrapolating"] if outside.any() else []) + (["edge"] if edge.any() else [])
    flags += ["draws_undefined"] if len(rows) > 1 and np.isnan(log_n[1:]).mean() > LARGEST_UNDEFINED else []
    per_budget = [tuple(Estimate.of(values[:, i]) for i in range(len(budgets))) for values in (n, d, loss)]
    return Frontier(
        law=law.name,
        cost=f"{c:g} {law.variables[0]} {law.variables[1]}" if cost is None else "counted",
        flops=tuple(budgets.tolist()),
        n=per_budget[0],
        d=per_budget[1],
        loss=per_budget[2],
        a=Estimate.of(a),
        b=Estimate.of(b),
        extrapolating=tuple(outside.tolist()),
        edge=tuple(edge.tolist()),
        flags=tuple(flags),
    )


def _checked(cost: Cost) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """The log of a cost that has been looked at."""

    def log_cost(n: FloatArray, d: FloatArray) -> FloatArray:
        values = np.asarray(cost(n, d), dtype=float)
        if values.shape != n.shape:
            raise FitError(f"the cost function returned shape {values.shape} for arrays of shape {n.shape}")
        if not (values > 0).all():
            raise FitError("the cost function returned FLOPs that are not positive numbers")
        return np.asarray(np.log(values))

    return log_cost


def _budgets(
    flops: ArrayLike | None,
    log_cost: Callable[[FloatArray, FloatArray], FloatArray],
    ranges: list[tuple[float, float]],
) -> FloatArray:
    if flops is None:
        first, last = log_cost(np.array(ranges[0]), np.array(ranges[1]))
        return np.exp(np.linspace(first, last, N_BUDGETS))
    budgets = np.atleast_1d(np.asarray(flops, dtype=float))
    if budgets.ndim != 1 or len(budgets) == 0 or not (np.isfinite(budgets) & (budgets > 0)).all():
        raise FitError("budgets must be positive finite FLOPs")
    return budgets


def _outside(log_value: FloatArray, support: tuple[float, float]) -> NDArray[np.bool_]:
    smallest, largest = np.log(support)
    return np.asarray((log_value < smallest - 1e-9) | (log_value > largest + 1e-9))


def _one_term_each(law: AdditiveLaw) -> bool:
    return sorted(term.variable for term in law.terms) == [0, 1]


def _closed_form(law: AdditiveLaw, rows: FloatArray, log_nd: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """N* = G (C/c)^a and D* = (C/c)^b / G with a = β/(α+β), b = 1 − a, G = (αA / βB)^(1/(α+β)).

    Returns log N*, log D*, each (row, budget), and a (row,); nan in rows where an exponent is not positive.
    """
    theta = by_name(law, rows)
    term_n, term_d = sorted(law.terms, key=lambda term: term.variable)
    alpha, beta = (np.where(theta[t.exponent] > 0, theta[t.exponent], np.nan) for t in (term_n, term_d))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_g = (np.log(alpha * theta[term_n.coefficient]) - np.log(beta * theta[term_d.coefficient])) / (alpha + beta)
    log_g[~np.isfinite(log_g)] = np.nan  # a term of size zero: nothing to weigh the other against
    a = beta / (alpha + beta)
    log_n = log_g[:, None] + a[:, None] * log_nd
    return log_n, log_nd - log_n, a


def _search(
    law: Law,
    rows: FloatArray,
    budgets: FloatArray,
    log_cost: Callable[[FloatArray, FloatArray], FloatArray],
    ranges: list[tuple[float, float]],
) -> tuple[FloatArray, FloatArray]:
    """Log N* and log D* (row, budget): a scan over N along the budget, then golden section; nan without a valley."""
    n_range = np.log(ranges[0][0] / SEARCHED_N), np.log(ranges[0][1] * SEARCHED_N)
    d_range = np.log(ranges[1][0] / SEARCHED_D), np.log(ranges[1][1] * SEARCHED_D)

    def log_d_of(log_n: FloatArray, log_c: FloatArray) -> FloatArray:
        n = np.exp(log_n)
        return crossing(
            lambda log_d: log_cost(n, np.exp(log_d)), log_c, np.full_like(n, d_range[0]), np.full_like(n, d_range[1])
        )

    def loss_of(theta: dict[str, FloatArray], log_n: FloatArray, log_d: FloatArray) -> FloatArray:
        affordable = np.isfinite(log_d)
        loss = law.loss(theta, np.exp(log_n), np.exp(np.where(affordable, log_d, d_range[1])))
        return np.where(affordable & np.isfinite(loss), loss, np.inf)

    scan, log_c = np.linspace(*n_range, COARSE), np.log(budgets)
    grid_n, grid_c = np.meshgrid(scan, log_c)  # (budget, size)
    grid_d = log_d_of(grid_n, grid_c)
    by_size = loss_of(by_name(law, rows, n_axes=2), grid_n[None], grid_d[None])  # (row, budget, size)
    best = by_size.argmin(axis=2)
    inner = np.clip(best, 1, COARSE - 2)
    around = np.take_along_axis(by_size, np.stack((inner - 1, inner + 1), axis=2), axis=2)
    bottom = np.take_along_axis(by_size, inner[..., None], axis=2)
    valley = (best == inner) & (np.isfinite(around) & (around > bottom * (1 + SHALLOWEST))).all(axis=2)
    theta, log_c_rows = by_name(law, rows, n_axes=1), np.broadcast_to(log_c, best.shape)
    log_n = minimum(lambda log_n: loss_of(theta, log_n, log_d_of(log_n, log_c_rows)), scan[inner - 1], scan[inner + 1])
    log_n = np.where(valley, log_n, np.nan)
    return log_n, np.where(valley, log_d_of(np.where(valley, log_n, scan[inner]), log_c_rows), np.nan)


def _slopes(log_c: FloatArray, values: FloatArray) -> FloatArray:
    """Slope per row of a straight line through its budgets; nan with fewer than two."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.maximum(count, 1)
    x = np.where(known, log_c, 0.0)
    x = np.where(known, x - x.sum(axis=1, keepdims=True) / total[:, None], 0.0)
    square = (x * x).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(square > 0, (x * np.where(known, values, 0.0)).sum(axis=1) / square, np.nan))
