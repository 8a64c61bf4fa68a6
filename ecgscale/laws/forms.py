"""Functional forms: a law is a shape with named parameters. It knows no data set, no objective and no optimiser.

The solver sees a law in *working coordinates*: the floor E and the log-contribution of each term at the centre of
the data, both in units of the typical loss, and the exponents. In them a change of the unit of N, D or the loss
changes nothing, and the ridge between a coefficient and its exponent is as short as the data allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.starts import best_per_part, exponent_grid, project

EXPONENT_BOUNDS = (1e-3, 10.0)
"""For laws with a floor. Our assumption: published exponents lie between 0.02 and 2; at 10 the coefficient of a
variable up to 1e28 still is a finite float."""

SLOPE_BOUNDS = (-10.0, 10.0)
"""For laws without a floor, which are straight lines in logs and may rise: N* grows with C."""

LOG_CONTRIBUTION_BOUNDS = (-30.0, 30.0)
"""Log of a term at the centre, in units of the typical loss: 1e-13 of a loss is nothing, 1e13 of it is absurd."""

SMALLEST_START = 1e-3
"""A coefficient that is zero in the projection starts at this share of the loss: the solver decides if it vanishes."""


class Law(Protocol):
    """What the solver and a `LawFit` need of a form. Shapes: z (problem, p), x (variable, point)."""

    @property
    def name(self) -> str: ...
    @property
    def theta(self) -> tuple[str, ...]:
        """Parameter names, in the order of every parameter array."""

    @property
    def variables(self) -> tuple[str, ...]: ...
    @property
    def exponents(self) -> tuple[str, ...]: ...
    @property
    def has_floor(self) -> bool:
        """Whether theta[0] is E, an additive floor bounded by zero."""

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper box bounds of the working coordinates, each (p,)."""

    def loss(self, theta: Mapping[str, ArrayLike], *x: ArrayLike) -> FloatArray:
        """Predicted loss in natural units; everything broadcasts."""

    def jet(self, z: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log loss (problem, point) and its gradient in z (problem, p, point)."""

    def hessian(self, gradient: FloatArray, x: FloatArray, outer: FloatArray, inner: FloatArray) -> FloatArray:
        """Sum over points of outer * g gᵀ + inner * ∂²(log loss), (problem, p, p); outer, inner (problem, point)."""

    def straighten(self, z: FloatArray) -> FloatArray:
        """Coordinates in which the law's ridge is straight; exponents must stay themselves. Identity if it has none."""

    def bend(self, w: FloatArray) -> FloatArray:
        """The inverse of `straighten`."""

    def bending(self, z: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Jacobian ∂z/∂w and Σ slope_k ∂²z_k/∂w², both (problem, p, p)."""

    def to_theta(self, z: FloatArray, centre: FloatArray, scale: float) -> FloatArray:
        """Working coordinates to natural parameters; the centre is in log units, the scale in loss units."""

    def starts(self, x: FloatArray, loss: FloatArray, weights: FloatArray, n_starts: int) -> FloatArray:
        """Deterministic, wide starting points (start, p), best first, for centred data."""


@dataclass(frozen=True)
class Term:
    """One contribution: coefficient * variable ** -exponent. Two terms may share an exponent."""

    coefficient: str
    exponent: str
    variable: int


@dataclass(frozen=True)
class AdditiveLaw:
    """L = E + Σ coefficient * variable ** -exponent, with or without the floor E."""

    name: str
    variables: tuple[str, ...]
    terms: tuple[Term, ...]
    has_floor: bool = True

    @cached_property
    def exponents(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(term.exponent for term in self.terms))

    @cached_property
    def theta(self) -> tuple[str, ...]:
        floor = ("E",) if self.has_floor else ()
        return (*floor, *(term.coefficient for term in self.terms), *self.exponents)

    @cached_property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        floor = [(0.0, np.inf)] if self.has_floor else []
        exponent = EXPONENT_BOUNDS if self.has_floor else SLOPE_BOUNDS
        box = floor + [LOG_CONTRIBUTION_BOUNDS] * len(self.terms) + [exponent] * len(self.exponents)
        lower, upper = np.array(box).T
        return lower, upper

    @cached_property
    def _columns(self) -> tuple[tuple[int, int, int], ...]:
        """Per term: column of its coefficient, column of its exponent, row of its variable."""
        return tuple((self.theta.index(t.coefficient), self.theta.index(t.exponent), t.variable) for t in self.terms)

    def loss(self, theta: Mapping[str, ArrayLike], *x: ArrayLike) -> FloatArray:
        total = np.asarray(theta["E"], dtype=float) if self.has_floor else np.zeros(())
        for term in self.terms:
            log_x = np.log(np.asarray(x[term.variable], dtype=float))
            exponent = np.asarray(theta[term.exponent], dtype=float)
            total = total + np.asarray(theta[term.coefficient], dtype=float) * np.exp(-exponent * log_x)
        return total

    def jet(self, z: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        gradient = np.zeros((len(z), len(self.theta), x.shape[1]))
        total = np.zeros((len(z), x.shape[1]))
        if self.has_floor:
            total += z[:, :1]
        for c, s, variable in self._columns:
            contribution = np.multiply(-z[:, s, None], x[variable], out=gradient[:, c])
            contribution += z[:, c, None]
            total += np.exp(contribution, out=contribution)
        inverse = 1.0 / total
        if self.has_floor:
            gradient[:, 0] = inverse
        for c, s, variable in self._columns:
            gradient[:, c] *= inverse
            gradient[:, s] -= gradient[:, c] * x[variable]
        return np.log(total), gradient

    def hessian(self, gradient: FloatArray, x: FloatArray, outer: FloatArray, inner: FloatArray) -> FloatArray:
        # ∂² log L = Σ_terms share * (curvature of the exponent of the term) − g gᵀ, and the share of a term in the
        # loss is the gradient with respect to its log-contribution. E enters linearly and adds nothing.
        out = (gradient * (outer - inner)[:, None, :]) @ gradient.transpose(0, 2, 1)
        for c, s, variable in self._columns:
            share = inner * gradient[:, c]
            out[:, c, c] += share.sum(axis=1)
            cross = share @ x[variable]
            out[:, c, s] -= cross
            out[:, s, c] -= cross
            out[:, s, s] += share @ (x[variable] * x[variable])
        return out

    # The ridge of a law with a floor: E falls, a coefficient rises, its exponent falls, and the level and slope at the
    # centre stay. In w = (loss at the centre, log slopes at the centre, exponents) only the exponent moves.

    def straighten(self, z: FloatArray) -> FloatArray:
        w = z.copy()
        if self.has_floor:
            for c, s, _ in self._columns:
                w[:, 0] += np.exp(z[:, c])
                w[:, c] += np.log(z[:, s])
        return w

    def bend(self, w: FloatArray) -> FloatArray:
        z = w.copy()
        if self.has_floor:
            for c, s, _ in self._columns:
                z[:, c] -= np.log(w[:, s])
                z[:, 0] -= np.exp(z[:, c])
        return z

    def bending(self, z: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        jacobian = np.tile(np.eye(z.shape[1]), (len(z), 1, 1))
        curvature = np.zeros_like(jacobian)
        if self.has_floor:
            floor_slope = slope[:, 0]
            for c, s, _ in self._columns:
                contribution, exponent = np.exp(z[:, c]), z[:, s]
                jacobian[:, 0, c] = -contribution
                jacobian[:, 0, s] += contribution / exponent
                jacobian[:, c, s] = -1.0 / exponent
                cross = floor_slope * contribution / exponent
                curvature[:, c, c] -= floor_slope * contribution
                curvature[:, c, s] += cross
                curvature[:, s, c] += cross
                curvature[:, s, s] += (slope[:, c] / exponent - 2 * cross) / exponent
        return jacobian, curvature

    def to_theta(self, z: FloatArray, centre: FloatArray, scale: float) -> FloatArray:
        theta = z.copy()
        if self.has_floor:
            theta[..., 0] *= scale
        for c, s, variable in self._columns:
            theta[..., c] = scale * np.exp(z[..., c] + z[..., s] * centre[variable])
        return theta

    def starts(self, x: FloatArray, loss: FloatArray, weights: FloatArray, n_starts: int) -> FloatArray:
        levels, index = exponent_grid(len(self.exponents))
        design = [np.ones((len(index), x.shape[1]))] if self.has_floor else []
        for term in self.terms:
            powers = np.exp(-levels[:, None] * x[term.variable])
            design.append(powers[index[:, self.exponents.index(term.exponent)]])
        coefficients, misfit = project(np.stack(design, axis=1) / loss, weights)
        cells = best_per_part(misfit, index, n_starts)
        z = np.concatenate((np.maximum(coefficients[cells], SMALLEST_START), levels[index[cells]]), axis=1)
        for c, _, _ in self._columns:
            z[:, c] = np.clip(np.log(z[:, c]), *LOG_CONTRIBUTION_BOUNDS)
        return z


_N_TERM, _D_TERM = Term("A", "alpha", 0), Term("B", "beta", 1)

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        # L = E + A N^-α + B D^-β: Hoffmann et al. 2022, arXiv 2203.15556, approach 3.
        AdditiveLaw("chinchilla", ("N", "D"), (_N_TERM, _D_TERM)),
        # The same with one exponent: Gadre et al. 2024, arXiv 2403.08540; Muennighoff et al. 2023, arXiv 2305.16264.
        AdditiveLaw("chinchilla_tied", ("N", "D"), (_N_TERM, Term("B", "alpha", 1))),
        # L = E + A X^-α in one variable: N at the largest D, D at the largest N, or C.
        AdditiveLaw("power_floor", ("X",), (_N_TERM,)),
        # L = A X^-α: Kaplan et al. 2020, arXiv 2001.08361; Yao et al. 2025, arXiv 2410.12360.
        AdditiveLaw("power", ("X",), (_N_TERM,), has_floor=False),
    )
}


def get_law(law: Law | str) -> Law:
    """A law by its name, or the law itself."""
    if not isinstance(law, str):
        return law
    if law not in LAWS:
        raise FitError(f"unknown law {law!r}: choose one of {', '.join(LAWS)}")
    return LAWS[law]
