"""Many independent smooth convex problems minimised side by side, so that their linear algebra is that of matrices.

L-BFGS (Nocedal & Wright 2006, algorithm 7.5) with a halved step where the loss does not fall, per column. The caller
scales the unknowns so that a plain gradient step of length 1 never overshoots; the Hessian is then near the identity
and 20 to 60 evaluations suffice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ecgscale.hangs import progressed

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

Objective = Callable[[Floats, Places], tuple[Floats, Floats]]
"""Unknowns `(unknown, problem)` and which problems they belong to → values `(problem,)` and gradients."""

MEMORY = 10
SUFFICIENT_DECREASE = 1e-4
MAX_HALVINGS = 30
ROUNDING = 1e-14
"""Of a loss: what it may rise by without having risen."""


def minimise(
    objective: Objective, n_unknowns: int, n_problems: int, *, tolerance: float, max_iterations: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Starts at zero and lets go of each problem when its gradient's norm is below `tolerance`.

    Returns:
        The unknowns `(unknown, problem)`, and which problems have got there.
    """
    found, converged = np.zeros((n_unknowns, n_problems)), np.zeros(n_problems, dtype=bool)
    active = np.arange(n_problems)
    x = found.copy()
    value, gradient = objective(x, active)
    past: deque[tuple[Floats, Floats, Floats]] = deque(maxlen=MEMORY)
    for _ in range(max_iterations):
        progressed()
        done = np.linalg.norm(gradient, axis=0) <= tolerance
        if done.any():
            found[:, active[done]], converged[active[done]] = x[:, done], True
            left = ~done
            active, x, value, gradient = active[left], x[:, left], value[left], gradient[:, left]
            past = deque(((s[:, left], y[:, left], rho[left]) for s, y, rho in past), maxlen=MEMORY)
        if not len(active):
            break
        step, value, after = _step(objective, active, x, value, gradient, _direction(gradient, past))
        change = after - gradient
        curvature = (step * change).sum(axis=0)
        past.append((step, change, np.where(curvature > 0, 1.0 / np.where(curvature > 0, curvature, 1.0), 0.0)))
        x, gradient = x + step, after
    found[:, active] = x
    return found, converged


def _direction(gradient: Floats, past: deque[tuple[Floats, Floats, Floats]]) -> Floats:
    """The two-loop recursion; a problem whose curvature was lost goes down its gradient."""
    q = gradient.copy()
    weights = []
    for s, y, rho in reversed(past):
        weight = rho * (s * q).sum(axis=0)
        q -= weight * y
        weights.append(weight)
    if past:
        s, y, rho = past[-1]
        square = (y * y).sum(axis=0)
        q *= np.where(rho > 0, (s * y).sum(axis=0) / np.where(square > 0, square, 1.0), 1.0)
    for (s, y, rho), weight in zip(past, reversed(weights), strict=True):
        q += (weight - rho * (y * q).sum(axis=0)) * s
    falls = (q * gradient).sum(axis=0) > 0
    return -np.where(falls, q, gradient)


def _step(
    objective: Objective, active: Places, x: Floats, value: Floats, gradient: Floats, direction: Floats
) -> tuple[Floats, Floats, Floats]:
    """Full steps, halved for the problems whose value has not fallen enough: (steps, values there, gradients there)."""
    slope = (direction * gradient).sum(axis=0)
    length = np.ones(len(active))
    new_value, new_gradient = objective(x + direction, active)
    for _ in range(MAX_HALVINGS):
        limit = value + SUFFICIENT_DECREASE * length * slope + ROUNDING * np.abs(value)
        (high,) = np.nonzero(~(new_value <= limit))
        if not len(high):
            break
        length[high] /= 2
        there = x[:, high] + length[high] * direction[:, high]
        new_value[high], new_gradient[:, high] = objective(there, active[high])
    return length * direction, new_value, new_gradient
