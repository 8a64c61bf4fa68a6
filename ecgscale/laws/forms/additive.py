"""Laws that are a floor and a sum of powers of the variables, or a floor and one product of powers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.laws.arrays import FloatArray, IndexArray
from ecgscale.laws.forms.law import EXPONENT_BOUNDS, LOG_CONTRIBUTION_BOUNDS, SLOPE_BOUNDS, natural
from ecgscale.laws.forms.ridge import Ridge
from ecgscale.laws.link import Logit
from ecgscale.laws.starts import Normal, best_per_part, exponent_grid, project

SMALLEST_START = 1e-3
"""A coefficient that is zero in the projection starts at this share of the loss: the solver decides if it vanishes."""


class _PowerLaw:
    """L = floor + Σ coefficient * Π variable ** -exponent: what sums and products share."""

    name: str
    variables: tuple[str, ...]
    has_floor: bool
    link: Logit | None
    given_floor: float | None

    @cached_property
    def products(self) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
        """Per term its coefficient, and per factor the exponent and the row of the variable."""
        raise NotImplementedError

    @cached_property
    def exponents(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(exponent for _, factors in self.products for exponent, _ in factors))

    @cached_property
    def theta(self) -> tuple[str, ...]:
        floor = ("E",) if self.has_floor else ()
        return (*floor, *(coefficient for coefficient, _ in self.products), *self.exponents)

    @cached_property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        floor = [(0.0, np.inf)] if self.has_floor else []
        exponent = EXPONENT_BOUNDS if self.has_floor else SLOPE_BOUNDS
        box = floor + [LOG_CONTRIBUTION_BOUNDS] * len(self.products) + [exponent] * len(self.exponents)
        lower, upper = np.array(box).T
        return lower, upper

    @cached_property
    def _columns(self) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
        """`products` with columns of the parameter array for names."""
        place = self.theta.index
        return tuple((place(c), tuple((place(s), v) for s, v in factors)) for c, factors in self.products)

    @cached_property
    def _ridge(self) -> Ridge:
        return Ridge(len(self.theta), [[s for s, _ in factors] for _, factors in self._columns])

    def loss(self, theta: Mapping[str, ArrayLike], *x: ArrayLike) -> FloatArray:
        total = np.asarray(theta["E"], dtype=float) if self.has_floor else np.zeros(())
        for coefficient, factors in self.products:
            product = np.asarray(theta[coefficient], dtype=float)
            for exponent, variable in factors:
                log_x = np.log(np.asarray(x[variable], dtype=float))
                product = product * np.exp(-np.asarray(theta[exponent], dtype=float) * log_x)
            total = total + product
        return total if self.link is None else self.link.from_odds(total)

    def jet(self, z: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        gradient = np.empty((len(z), len(self.theta), x.shape[1]))
        total = np.empty((len(z), x.shape[1]))
        total[:] = z[:, :1] if self.has_floor else 0.0
        for c, factors in self._columns:
            contribution = gradient[:, c]
            contribution[:] = z[:, c, None]
            for s, variable in factors:
                contribution -= z[:, s, None] * x[variable]
            total += np.exp(contribution, out=contribution)
        inverse = 1.0 / total
        if self.has_floor:
            gradient[:, 0] = inverse
        begun: set[int] = set()  # terms may share an exponent
        for c, factors in self._columns:
            gradient[:, c] *= inverse
            for s, variable in factors:
                if s in begun:
                    gradient[:, s] -= gradient[:, c] * x[variable]
                else:
                    np.multiply(gradient[:, c], -x[variable], out=gradient[:, s])
                    begun.add(s)
        return np.log(total), gradient

    def hessian(
        self, z: FloatArray, gradient: FloatArray, x: FloatArray, outer: FloatArray, inner: FloatArray
    ) -> FloatArray:
        # ∂² log L = Σ_terms share * (curvature of the exponent of the term) − g gᵀ, and the share of a term in the
        # loss is the gradient with respect to its log-contribution. E enters linearly and adds nothing.
        out = (gradient * (outer - inner)[:, None, :]) @ gradient.transpose(0, 2, 1)
        for c, factors in self._columns:
            share = inner * gradient[:, c]
            out[:, c, c] += share.sum(axis=1)
            for s, variable in factors:
                cross = share @ x[variable]
                out[:, c, s] -= cross
                out[:, s, c] -= cross
                for other, its_variable in factors:
                    out[:, s, other] += share @ (x[variable] * x[its_variable])
        return out

    def straighten(self, z: FloatArray) -> FloatArray:
        return self._ridge.straighten(z) if self.has_floor else z

    def bend(self, w: FloatArray) -> FloatArray:
        return self._ridge.bend(w) if self.has_floor else w

    def bending(self, z: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self.has_floor:
            return self._ridge.bending(z, slope)
        identity = np.repeat(np.eye(z.shape[1])[None], len(z), axis=0)
        return identity, np.zeros_like(identity)

    def to_theta(self, z: FloatArray, centre: FloatArray, scale: float) -> FloatArray:
        theta = z.copy()
        if self.has_floor:
            theta[..., 0] *= scale
        for c, factors in self._columns:
            exponent = sum((z[..., s] * centre[variable] for s, variable in factors), np.log(scale))
            theta[..., c] = natural(z[..., c] + exponent)
        return theta

    def starts(
        self, x: FloatArray, loss: FloatArray, weights: FloatArray, n_starts: int, floor: float | None = None
    ) -> FloatArray:
        levels, index = exponent_grid(len(self.exponents))
        rows, cells = self._design(levels, index, x)
        target = np.ones_like(loss) if floor is None else 1.0 - floor / loss
        free = slice(None) if floor is None else slice(int(self.has_floor), None)
        coefficients, misfit = project(Normal.of(rows / loss, cells[:, free], weights, target))
        chosen = best_per_part(misfit, index, len(levels), n_starts)
        given = np.empty((len(chosen), 0)) if floor is None else np.full((len(chosen), int(self.has_floor)), floor)
        found = np.maximum(coefficients[chosen], SMALLEST_START)
        z = np.concatenate((given, found, levels[index[chosen]]), axis=1)
        for c, _ in self._columns:
            z[:, c] = np.clip(np.log(z[:, c]), *LOG_CONTRIBUTION_BOUNDS)
        return z

    def _design(self, levels: FloatArray, index: IndexArray, x: FloatArray) -> tuple[FloatArray, IndexArray]:
        """Rows of columns (row, point) and, per cell of the exponent grid, the row of the floor and of every term."""
        rows = [np.ones((1, x.shape[1]))] if self.has_floor else []
        cells = [np.zeros(len(index), dtype=np.intp)] if self.has_floor else []
        n_rows = len(rows)
        for _, factors in self.products:
            places = [(index[:, self.exponents.index(exponent)], variable) for exponent, variable in factors]
            if len(places) == 1:
                ((place, variable),) = places
                rows.append(np.exp(-levels[:, None] * x[variable]))
            else:
                place = np.arange(len(index))
                rows.append(np.exp(-sum(levels[level][:, None] * x[variable] for level, variable in places)))
            cells.append(n_rows + place)
            n_rows += len(rows[-1])
        return np.concatenate(rows), np.stack(cells, axis=1)


@dataclass(frozen=True)
class Term:
    """One contribution: coefficient * variable ** -exponent. Two terms may share an exponent."""

    coefficient: str
    exponent: str
    variable: int


@dataclass(frozen=True)
class AdditiveLaw(_PowerLaw):
    """L = E + Σ coefficient * variable ** -exponent, with or without the floor E."""

    name: str
    variables: tuple[str, ...]
    terms: tuple[Term, ...]
    has_floor: bool = True
    link: Logit | None = None
    given_floor: float | None = None

    @cached_property
    def products(self) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
        return tuple((term.coefficient, ((term.exponent, term.variable),)) for term in self.terms)


@dataclass(frozen=True)
class MultiplicativeLaw(_PowerLaw):
    """L = E + A N^-α D^-β."""

    name: str = "multiplicative"
    variables: tuple[str, ...] = ("N", "D")
    has_floor: bool = True
    link: Logit | None = None
    given_floor: float | None = None

    @cached_property
    def products(self) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
        return (("A", (("alpha", 0), ("beta", 1))),)
