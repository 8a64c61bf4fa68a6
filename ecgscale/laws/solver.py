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

ROUNDING = 1e-15
"""Log residuals of this size are rounding; an objective made only of them is zero (noise-free data)."""

REWEIGHTED_STEPS = 3
"""Steps that use the majorant of the curvature before the exact one: fewer rejected steps far from the optimum."""

FIRST_DAMPING, DAMPING_DOWN, DAMPING_UP, LARGEST_DAMPING = 1e-2, 0.1, 4.0, 1e12
"""Levenberg-Marquardt schedule in units of the scaled Hessian. Tuned on the same points; only speed depends on it.
At the largest damping a step is below rounding: a problem that gets there has no descent left, or is broken."""

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


def minimise(
    law: Law, sample: Sample, weights: FloatArray, start: FloatArray, objectives: Sequence[Objective]
) -> Minima:
    """Minimise for every pair of a weight row (problem, point) and a start (problem, p).

    The objectives are solved in turn, each from the optimum of the one before; the last one counts.
    """
    size = max(1, BLOCK_ELEMENTS // weights.shape[1])
    blocks = []
    for first in range(0, len(start), size):
        rows = slice(first, first + size)
        minima = _solve(law, sample, weights[rows], start[rows], objectives[0])
        for objective in objectives[1:]:
            minima = _solve(law, sample, weights[rows], minima.z, objective)
        blocks.append(minima)
    return Minima(
        np.concatenate([b.z for b in blocks]),
        np.concatenate([b.value for b in blocks]),
        np.concatenate([b.converged for b in blocks]),
        np.concatenate([b.stuck for b in blocks]),
    )


@dataclass
class _Iterate:
    """A point of each unfinished problem with everything the next step needs. Rows are problems."""

    z: FloatArray
    value: FloatArray
    gradient: FloatArray  # of the log loss: (problem, p, point)
    terms: PointTerms

    @classmethod
    def at(cls, law: Law, sample: Sample, objective: Objective, weights: FloatArray, z: FloatArray) -> "_Iterate":
        log_loss, gradient = law.jet(z, sample.x)
        terms = objective.point_terms(log_loss, sample.log_loss)
        return cls(z, (weights * terms.value).sum(axis=1), gradient, terms)

    def take(self, rows: BoolArray | NDArray[np.intp]) -> "_Iterate":
        return _Iterate(self.z[rows], self.value[rows], self.gradient[rows], PointTerms(*(t[rows] for t in self.terms)))

    def replace(self, rows: BoolArray, other: "_Iterate") -> None:
        """Overwrite the rows that another iterate improves on."""
        if rows.all():
            self.z, self.value, self.gradient, self.terms = other.z, other.value, other.gradient, other.terms
            return
        pairs = [(self.z, other.z), (self.value, other.value), (self.gradient, other.gradient)]
        for mine, theirs in pairs + list(zip(self.terms, other.terms, strict=True)):
            mine[rows] = theirs[rows]


@dataclass(frozen=True)
class _Quadratic:
    """A local quadratic model: slope (problem, p), Hessian and majorant of the Hessian (problem, p, p)."""

    slope: FloatArray
    hessian: FloatArray
    majorant: FloatArray

    @classmethod
    def at(cls, law: Law, sample: Sample, weights: FloatArray, now: _Iterate, blend: FloatArray) -> "_Quadratic":
        """In working coordinates; blend (problem,) goes from the exact curvature at 0 to the majorant at 1."""
        terms, gradient = now.terms, now.gradient
        inner = weights * terms.slope
        outer = weights * (terms.curvature + blend[:, None] * (terms.majorant - terms.curvature))
        slope = (gradient @ inner[:, :, None])[..., 0]
        majorant = (gradient * (weights * terms.majorant)[:, None, :]) @ gradient.transpose(0, 2, 1)
        return cls(slope, law.hessian(gradient, sample.x, outer, inner), majorant)

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
        scale = np.sqrt(np.einsum("pii->pi", self.majorant))
        scale[scale == 0] = 1.0
        slope = np.where(held, 0.0, self.slope / scale)
        hessian = self.hessian / (scale[:, :, None] * scale[:, None, :])
        if held.any():
            hessian[held[:, :, None] | held[:, None, :]] = 0.0
            hessian += np.eye(held.shape[1]) * held[:, None, :]
        eigenvalues, eigenvectors = np.linalg.eigh(hessian)
        curvature = np.maximum(np.abs(eigenvalues), FLATTEST)
        turned = (slope[:, None, :] @ eigenvectors)[:, 0]
        gain = 0.5 * (turned * turned / curvature).sum(axis=1)
        step = (eigenvectors @ (turned / (curvature + damping[:, None]))[:, :, None])[..., 0]
        return -step / scale, gain

    def promised(self, step: FloatArray) -> FloatArray:
        """What the model says a step lowers the objective by."""
        return -np.asarray(((self.slope + 0.5 * (self.hessian @ step[:, :, None])[..., 0]) * step).sum(axis=1))


class _Proposal(NamedTuple):
    """Where each problem may go next, what an undamped step would gain, and what this one promises to gain."""

    z: FloatArray
    gain: FloatArray
    promised: FloatArray


def _propose(law: Law, model: _Quadratic, z: FloatArray, damping: FloatArray) -> _Proposal:
    """A step along the straight ridge. One that crosses E = 0 ends there; one that begins there stays on the face."""
    lower, upper = law.bounds
    straight = model.straight(law, z)
    step, gain = straight.newton(damping, _held(z, straight.slope, lower, upper) & ~_is_floor(law))
    w = law.straighten(z)
    goal = np.where(_is_floor(law), w + step, np.clip(w + step, lower, upper))
    moved = law.bend(goal)
    if law.has_floor:
        crosses = moved[:, 0] < 0
        outward = np.flatnonzero(crosses & (z[:, 0] > 0))
        if len(outward):
            goal[outward] = _floor_crossing(law, w[outward], goal[outward])
            gain[outward] = np.inf  # not an optimum, wherever this leads
            moved[outward] = law.bend(goal[outward])
            moved[outward, 0] = 0.0
    promised = straight.promised(goal - w)
    moved = np.clip(moved, lower, upper)
    on_face = np.flatnonzero(crosses & (z[:, 0] == 0)) if law.has_floor else np.empty(0, dtype=np.intp)
    if len(on_face):
        face, start = model.take(on_face), z[on_face]
        step, gain[on_face] = face.newton(damping[on_face], _held(start, face.slope, lower, upper) | _is_floor(law))
        moved[on_face] = np.clip(start + step, lower, upper)
        promised[on_face] = face.promised(moved[on_face] - start)
    return _Proposal(moved, gain, promised)


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


def _is_floor(law: Law) -> BoolArray:
    return np.arange(len(law.theta)) < int(law.has_floor)


def _solve(law: Law, sample: Sample, weights: FloatArray, start: FloatArray, objective: Objective) -> Minima:
    lower, upper = law.bounds
    now = _Iterate.at(law, sample, objective, weights, np.clip(start, lower, upper))
    n = len(start)
    out = Minima(now.z.copy(), now.value.copy(), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))
    active, damping = np.arange(n), np.full(n, FIRST_DAMPING)
    rounding = ROUNDING**2 * weights.sum(axis=1)
    for iteration in range(MAX_ITERATIONS):
        blend = np.minimum(1.0, damping * 1e3) if iteration >= REWEIGHTED_STEPS else np.ones_like(damping)
        # A step into nonsense gives inf or nan, which is never lower, so the damping rises.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            proposal = _propose(law, _Quadratic.at(law, sample, weights, now, blend), now.z, damping)
            trial = _Iterate.at(law, sample, objective, weights, proposal.z)
        lowered = trial.value < now.value
        fulfilled = (now.value - trial.value) / np.where(proposal.promised > 0, proposal.promised, np.inf)
        done = (proposal.gain <= RELATIVE_GAIN * now.value) | (now.value <= rounding)
        done |= ~lowered & (damping > 1e4) & (proposal.gain <= STALLED_GAIN * now.value)
        stuck = ~lowered & ~done & (damping > LARGEST_DAMPING)
        damping = _next_damping(damping, lowered, fulfilled)
        now.replace(lowered, trial)
        finished = done | stuck
        if finished.any() or iteration == MAX_ITERATIONS - 1:
            out.z[active], out.value[active], out.converged[active], out.stuck[active] = now.z, now.value, done, stuck
            left = ~finished
            if not left.any():
                break
            now, weights, active = now.take(left), weights[left], active[left]
            damping, rounding = damping[left], rounding[left]
    return out


def _next_damping(damping: FloatArray, lowered: BoolArray, fulfilled: FloatArray) -> FloatArray:
    """Less where the model kept its promise, more where it did not."""
    down = np.where(damping < 1e-9, 0.0, damping * DAMPING_DOWN)
    kept = np.where(fulfilled > 0.75, down, np.where(fulfilled < 0.25, 2 * damping, damping))
    return np.where(lowered, kept, np.maximum(damping * DAMPING_UP, 1e-4))
