"""One batched solver for point fits, bootstraps, hold-outs and starts: weight rows in, parameters out.

Damped Newton with the exact Hessian of the objective, all problems of a block at once, converged ones dropped.
Nothing in it is absolute: multiplying the objective by a constant, or changing a unit, moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgscale.laws.arrays import FloatArray, IndexArray
from ecgscale.laws.forms import Law
from ecgscale.laws.objectives import Objective, PointTerms

BoolArray = NDArray[np.bool_]

MAX_ITERATIONS = 300
"""Measured on 245 published points: 5 to 20 iterations from the best start, up to 100 from the worst."""

RELATIVE_GAIN = 1e-13
"""The search ends when a full Newton step promises to lower the objective by less than this share of it."""

LEFT_OVER = 1e-16
"""It also ends after a step that kept its promise so well that the next would gain less than this share."""

LEVEL = 1e-14
"""Objectives that differ by less than this share of them are the same number, computed twice."""

ROUNDING = 1e-15
"""Log residuals of this size are rounding; an objective made only of them is zero (noise-free data)."""

FIRST_DAMPING, DAMPING_DOWN, DAMPING_UP, LARGEST_DAMPING = 1e-3, 0.1, 4.0, 1e12
"""Levenberg-Marquardt schedule in units of the scaled Hessian. Tuned on 47 published tables; only speed depends on it.
At the largest damping a step is below rounding: a problem that gets there has no descent left, or is broken."""

MAJORANT_DAMPING = 1e-3
"""From this damping up, that is far from the optimum, steps use the majorant of the curvature, and below it the more of
the exact one the smaller the damping: fewer rejected steps. Tuned with the damping."""

STALLED_GAIN = 1e-9
"""A problem without a descent whose promised gain is below this share has reached the rounding of its objective."""

FLATTEST = 1e-12
"""Floor of the eigenvalues of the scaled Hessian, as a share of a unit diagonal: flatter directions are noise."""

CROSSING_STEPS = 8
"""Regula falsi steps to where the floor becomes zero along a step; what is left of it is then dropped."""

BLOCK_ELEMENTS = 32_768
"""Problems × points solved together: the working arrays of a block stay in the processor's cache. Measured."""


@dataclass(frozen=True)
class Sample:
    """Data as the solver sees them: centred log variables x (variable, point), log loss (point,) in typical units."""

    x: FloatArray
    log_loss: FloatArray
    centre: FloatArray
    scale: float

    @classmethod
    def of(cls, variables: FloatArray, loss: FloatArray) -> "Sample":
        """From positive variables (variable, point) and losses (point,) in natural units."""
        log_x, log_loss = np.log(variables), np.log(loss)
        centre, level = log_x.mean(axis=1), float(log_loss.mean())
        return cls(log_x - centre[:, None], log_loss - level, centre, float(np.exp(level)))


@dataclass(frozen=True)
class Minima:
    """Where each problem ended: z (problem, p), the smooth objective in typical units (problem,), and how it ended."""

    z: FloatArray
    value: FloatArray
    converged: BoolArray
    stuck: BoolArray


def starting_points(law: Law, sample: Sample, weights: FloatArray, n_starts: int) -> FloatArray:
    """The law's own starting points (start, p) for a sample, best first, at its floor if that is given."""
    floor = None if law.given_floor is None else law.given_floor / sample.scale
    return law.starts(sample.x, np.exp(sample.log_loss), weights, n_starts, floor)


def minimise(
    law: Law,
    sample: Sample,
    weights: FloatArray,
    start: FloatArray,
    objectives: Sequence[Objective],
    log_loss: FloatArray | None = None,
) -> Minima:
    """Minimise for every pair of a weight row (problem, point) and a start (problem, p).

    The objectives are solved in turn, each from the optimum of the one before; the last one counts.

    Args:
        log_loss: Targets of every problem (problem, point) instead of the sample's, in its typical units.
    """
    size = max(1, BLOCK_ELEMENTS // weights.shape[1])
    blocks = []
    for first in range(0, len(start), size):
        rows = slice(first, first + size)
        targets = sample.log_loss if log_loss is None else log_loss[rows]
        minima = _solve(law, sample, targets, weights[rows], start[rows], objectives[0])
        for objective in objectives[1:]:
            minima = _solve(law, sample, targets, weights[rows], minima.z, objective)
        blocks.append(minima)
    return Minima(
        np.concatenate([b.z for b in blocks]),
        np.concatenate([b.value for b in blocks]),
        np.concatenate([b.converged for b in blocks]),
        np.concatenate([b.stuck for b in blocks]),
    )


@dataclass(frozen=True)
class _Iterate:
    """A point of each unfinished problem with everything the next step needs. Rows are problems."""

    z: FloatArray
    value: FloatArray
    gradient: FloatArray  # of the log loss: (problem, p, point)
    terms: PointTerms

    @classmethod
    def at(
        cls, law: Law, x: FloatArray, targets: FloatArray, weights: FloatArray, objective: Objective, z: FloatArray
    ) -> "_Iterate":
        log_loss, gradient = law.jet(z, x)
        terms = objective.point_terms(log_loss, targets)
        return cls(z, np.add.reduce(weights * terms.value, axis=1), gradient, terms)

    def take(self, rows: BoolArray | NDArray[np.intp]) -> "_Iterate":
        return _Iterate(self.z[rows], self.value[rows], self.gradient[rows], PointTerms(*(t[rows] for t in self.terms)))

    def merge(self, better: BoolArray, other: "_Iterate") -> "_Iterate":
        """The rows in which the other iterate is better, and the rest of this one. Uses up the other."""
        if not better.all():
            rest = ~better
            pairs = [(other.z, self.z), (other.value, self.value), (other.gradient, self.gradient)]
            for theirs, mine in pairs + list(zip(other.terms, self.terms, strict=True)):
                theirs[rest] = mine[rest]
        return other


@dataclass(frozen=True)
class _Quadratic:
    """A local quadratic model: slope (problem, p), Hessian and majorant of the Hessian (problem, p, p)."""

    slope: FloatArray
    hessian: FloatArray
    majorant: FloatArray

    @classmethod
    def at(cls, law: Law, x: FloatArray, weights: FloatArray, now: _Iterate, blend: FloatArray) -> "_Quadratic":
        """In working coordinates; blend (problem,) goes from the exact curvature at 0 to the majorant at 1."""
        terms, gradient = now.terms, now.gradient
        inner, upper = weights * terms.slope, weights * terms.majorant
        outer = weights * terms.curvature
        outer += blend[:, None] * (upper - outer)
        slope = (gradient @ inner[:, :, None])[..., 0]
        majorant = (gradient * upper[:, None, :]) @ gradient.transpose(0, 2, 1)
        return cls(slope, law.hessian(now.z, gradient, x, outer, inner), majorant)

    def straight(self, law: Law, z: FloatArray) -> "_Quadratic":
        """The same model in the coordinates in which the law's ridge is straight."""
        jacobian, curvature = law.bending(z, self.slope)
        turned = jacobian.transpose(0, 2, 1)
        slope = (turned @ self.slope[:, :, None])[..., 0]
        return _Quadratic(slope, turned @ self.hessian @ jacobian + curvature, turned @ self.majorant @ jacobian)

    def take(self, rows: IndexArray) -> "_Quadratic":
        return _Quadratic(self.slope[rows], self.hessian[rows], self.majorant[rows])

    def newton(self, damping: FloatArray, held: BoolArray) -> tuple[FloatArray, FloatArray]:
        """A damped descent step, also where the Hessian is indefinite, and the gain that an undamped step promises.

        Parameters that are held do not move. Everything is scaled to a unit diagonal of the majorant.
        """
        inverse = self.majorant.diagonal(axis1=1, axis2=2).copy()
        inverse[inverse <= 0] = 1.0
        inverse **= -0.5
        slope = self.slope * inverse
        hessian = self.hessian * (inverse[:, :, None] * inverse[:, None, :])
        if held.any():
            slope[held] = 0.0
            hessian[held[:, :, None] | held[:, None, :]] = 0.0
            hessian += np.eye(held.shape[1]) * held[:, None, :]
        eigenvalues, eigenvectors = np.linalg.eigh(hessian)
        curvature = np.maximum(np.abs(eigenvalues), FLATTEST)
        turned = (slope[:, None, :] @ eigenvectors)[:, 0]
        gain = 0.5 * np.add.reduce(turned * turned / curvature, axis=1)
        step = (eigenvectors @ (turned / (curvature + damping[:, None]))[:, :, None])[..., 0]
        return -step * inverse, gain

    def promised(self, step: FloatArray) -> FloatArray:
        """What the model says a step lowers the objective by."""
        bent = (self.hessian @ step[:, :, None])[..., 0]
        return -np.asarray(np.add.reduce((self.slope + 0.5 * bent) * step, axis=1))


class _Proposal(NamedTuple):
    """Where each problem may go next, what an undamped step would gain, and what this one promises to gain."""

    z: FloatArray
    gain: FloatArray
    promised: FloatArray


def _propose(law: Law, model: _Quadratic, z: FloatArray, damping: FloatArray) -> _Proposal:
    """A step along the straight ridge. One that crosses E = 0 ends there; one that begins there stays on the face."""
    if law.given_floor is not None:
        return _along_face(law, model, z, damping)
    lower, upper = law.bounds
    first = int(law.has_floor)  # the floor's own bound is curved in w, so it is minded below
    straight = model.straight(law, z)
    held = _held(z, straight.slope, lower, upper)
    held[:, :first] = False
    step, gain = straight.newton(damping, held)
    w = law.straighten(z)
    goal = w + step
    goal[:, first:] = np.minimum(np.maximum(goal[:, first:], lower[first:]), upper[first:])
    moved = law.bend(goal)
    crosses = moved[:, 0] < 0 if law.has_floor else np.zeros(len(z), dtype=bool)
    any_crosses = bool(crosses.any())
    if any_crosses:
        outward = np.flatnonzero(crosses & (z[:, 0] > 0))
        goal[outward] = _floor_crossing(law, w[outward], goal[outward])
        gain[outward] = np.inf  # not an optimum, wherever this leads
        moved[outward] = law.bend(goal[outward])
        moved[outward, 0] = 0.0
    proposal = _Proposal(np.minimum(np.maximum(moved, lower), upper), gain, straight.promised(goal - w))
    on_face = np.flatnonzero(crosses & (z[:, 0] == 0)) if any_crosses else np.empty(0, dtype=np.intp)
    if len(on_face):
        face = _along_face(law, model.take(on_face), z[on_face], damping[on_face])
        for all_rows, these in zip(proposal, face, strict=True):
            all_rows[on_face] = these
    return proposal


def _along_face(law: Law, model: _Quadratic, z: FloatArray, damping: FloatArray) -> _Proposal:
    """A step in working coordinates that leaves the floor where it is."""
    lower, upper = law.bounds
    held = _held(z, model.slope, lower, upper)
    held[:, 0] = True
    step, gain = model.newton(damping, held)
    moved = np.minimum(np.maximum(z + step, lower), upper)
    return _Proposal(moved, gain, model.promised(moved - z))


def _floor_crossing(law: Law, w: FloatArray, goal: FloatArray) -> FloatArray:
    """The point between w, where the floor is positive, and the goal, where it is negative, at which it is zero."""
    inside, outside = np.zeros(len(w)), np.ones(len(w))
    at_inside, at_outside = law.bend(w)[:, 0], law.bend(goal)[:, 0]
    for _ in range(CROSSING_STEPS):
        share = inside + (outside - inside) * at_inside / (at_inside - at_outside)
        floor = law.bend(w + share[:, None] * (goal - w))[:, 0]
        negative = floor < 0
        outside, at_outside = np.where(negative, share, outside), np.where(negative, floor, at_outside)
        inside, at_inside = np.where(negative, inside, share), np.where(negative, at_inside, floor)
    return w + share[:, None] * (goal - w)


def _held(z: FloatArray, slope: FloatArray, lower: FloatArray, upper: FloatArray) -> BoolArray:
    """Parameters at a bound that want to go further."""
    return np.asarray(((z <= lower) & (slope > 0)) | ((z >= upper) & (slope < 0)))


def _solve(
    law: Law, sample: Sample, targets: FloatArray, weights: FloatArray, start: FloatArray, objective: Objective
) -> Minima:
    x, z = sample.x, np.clip(start, *law.bounds)
    if law.given_floor is not None:
        z[:, 0] = law.given_floor / sample.scale
    now = _Iterate.at(law, x, targets, weights, objective, z)
    n = len(start)
    out = Minima(now.z.copy(), now.value.copy(), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))
    active, damping = np.arange(n), np.full(n, FIRST_DAMPING)
    rounding = ROUNDING**2 * weights.sum(axis=1)
    for iteration in range(MAX_ITERATIONS):
        blend = np.minimum(1.0, damping / MAJORANT_DAMPING)
        # A step into nonsense gives inf or nan, which is never lower, so the damping rises.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            proposal = _propose(law, _Quadratic.at(law, x, weights, now, blend), now.z, damping)
            trial = _Iterate.at(law, x, targets, weights, objective, proposal.z)
            lowered = trial.value < now.value
            fulfilled = (now.value - trial.value) / np.where(proposal.promised > 0, proposal.promised, np.inf)
            # The misfit of the quadratic model shrinks with the step, so what is left shrinks with its square.
            left_over = proposal.gain * (1.0 - fulfilled) ** 2 + np.abs(proposal.gain - proposal.promised)
            done = (proposal.gain <= RELATIVE_GAIN * now.value) | (now.value <= rounding)
            done |= lowered & (left_over <= LEFT_OVER * now.value)
            done |= ~lowered & (damping > 1e4) & (proposal.gain <= STALLED_GAIN * now.value)
        stuck = ~lowered & ~done & (damping > LARGEST_DAMPING)
        damping = _next_damping(damping, lowered, fulfilled)
        # The last Newton step still doubles the digits of the parameters when the objective can't show it any more.
        now = now.merge(lowered | (done & (trial.value <= now.value * (1 + LEVEL))), trial)
        finished = done | stuck
        if finished.any() or iteration == MAX_ITERATIONS - 1:
            out.z[active], out.value[active], out.converged[active], out.stuck[active] = now.z, now.value, done, stuck
            left = ~finished
            if not left.any():
                break
            now, weights, active = now.take(left), weights[left], active[left]
            targets = targets if targets.ndim == 1 else targets[left]
            damping, rounding = damping[left], rounding[left]
    return out


def _next_damping(damping: FloatArray, lowered: BoolArray, fulfilled: FloatArray) -> FloatArray:
    """Less where the model kept its promise, more where it did not."""
    down = np.where(damping < 1e-9, 0.0, damping * DAMPING_DOWN)
    kept = np.where(fulfilled > 0.75, down, np.where(fulfilled < 0.25, 2 * damping, damping))
    return np.where(lowered, kept, np.maximum(damping * DAMPING_UP, 1e-4))
