"""Laws in which one variable limits what the other can give: N and D terms added under an outer exponent k.

L = E + T, log T = (1 − k) lse(a, b) + k lse(a − α n / k, b − β d / k), with lse(u, v) = log(eᵘ + eᵛ), n and d centred
logs. Here e^a and e^b are the shares of N and D in T at the centre and α, β the exponents where the other variable is
plentiful. k = 1 is the sum of the two terms, k → 0 their maximum, k → ∞ their product. In these coordinates level and
slopes at the centre do not depend on k, so that starts and ridge are those of the additive law.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.forms.additive import SMALLEST_START
from ecgscale.laws.forms.law import EXPONENT_BOUNDS, LOG_CONTRIBUTION_BOUNDS, natural
from ecgscale.laws.forms.ridge import Ridge
from ecgscale.laws.link import Logit
from ecgscale.laws.starts import Normal, best_per_part, exponent_grid, project

COUPLING_BOUNDS = (0.05, 50.0)
"""Of k. Our assumption: beyond these the law is the maximum or the product of its terms to within 3 % of T."""

START_COUPLINGS = (0.3, 1.0, 3.0)
START_BALANCE = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Grid of k and of the share of N in T at the centre, besides the exponents."""

E, N, D, ALPHA, BETA = range(5)  # columns of the working coordinates; k, where it is free, is the sixth


class _CoupledLaw:
    """What the two parametrisations share; `_k` is the column of the outer exponent."""

    variables = ("N", "D")
    exponents = ("alpha", "beta")
    has_floor = True
    theta: tuple[str, ...]
    _k: int

    @cached_property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        box = [(0.0, np.inf), *[LOG_CONTRIBUTION_BOUNDS] * 2, *[EXPONENT_BOUNDS] * 2, COUPLING_BOUNDS]
        lower, upper = np.array(box[: len(self.theta)]).T
        return lower, upper

    @cached_property
    def _ridge(self) -> Ridge:
        return Ridge(len(self.theta), [[ALPHA], [BETA]])

    def jet(self, z: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        k, level, at_centre = z[:, self._k, None], _level(z), _balance(z)
        u = z[:, N, None] - z[:, ALPHA, None] / k * x[0]
        v = z[:, D, None] - z[:, BETA, None] / k * x[1]
        inner = np.logaddexp(u, v)
        share, other = np.exp(u - inner), np.exp(v - inner)
        term = np.exp((1 - k) * level + k * inner)
        gradient = np.zeros((len(z), len(self.theta), x.shape[1]))
        gradient[:, E] = 1.0
        gradient[:, N] = (1 - k) * at_centre + k * share
        gradient[:, D] = (1 - k) * (1 - at_centre) + k * other
        gradient[:, ALPHA], gradient[:, BETA] = -share * x[0], -other * x[1]
        fall = share * (z[:, ALPHA, None] * x[0]) + other * (z[:, BETA, None] * x[1])
        gradient[:, self._k] += inner - level + fall / k
        gradient[:, 1:] *= term[:, None, :]
        total = z[:, :1] + term
        gradient /= total[:, None, :]
        return np.log(total), gradient

    def hessian(
        self, z: FloatArray, gradient: FloatArray, x: FloatArray, outer: FloatArray, inner: FloatArray
    ) -> FloatArray:
        # ∂² log L = r (∂² log T + t tᵀ) − g gᵀ with r = T / L and t = ∇ log T, which is g / r but for the floor.
        # ∂² log T = k w(1−w) q qᵀ + (1−k) w₀(1−w₀) q₀q₀ᵀ + (w−w₀)(e_k q₀ᵀ + q₀ e_kᵀ), where w and w₀ are the shares of
        # N here and at the centre, q₀ = e_a − e_b and q = q₀ − (n/k) e_α + (d/k) e_β + (αn − βd)/k² e_k.
        k, at_centre = z[:, self._k, None], _balance(z)
        n, d = x
        tilt = (z[:, ALPHA, None] * n - z[:, BETA, None] * d) / k
        share = 1.0 / (1.0 + np.exp(z[:, D, None] - z[:, N, None] + tilt))
        ratio = np.maximum(1.0 - z[:, :1] * gradient[:, E], np.finfo(float).tiny)
        weight = inner * ratio
        q = np.zeros_like(gradient)
        q[:, N], q[:, D], q[:, ALPHA], q[:, BETA] = 1.0, -1.0, -n / k, d / k
        q[:, self._k] += tilt / k
        out = (gradient * (outer - inner)[:, None, :]) @ gradient.transpose(0, 2, 1)
        out += (q * (weight * k * share * (1 - share))[:, None, :]) @ q.transpose(0, 2, 1)
        t = gradient[:, 1:]
        out[:, 1:, 1:] += (t * (inner / ratio)[:, None, :]) @ t.transpose(0, 2, 1)
        centre = np.zeros(len(self.theta))
        centre[N], centre[D] = 1.0, -1.0
        constant = weight.sum(axis=1) * ((1 - k) * at_centre * (1 - at_centre))[:, 0]
        out += constant[:, None, None] * np.outer(centre, centre)
        drift = (weight * (share - at_centre)).sum(axis=1)[:, None] * centre
        out[:, self._k] += drift
        out[:, :, self._k] += drift
        return out

    def straighten(self, z: FloatArray) -> FloatArray:
        return self._ridge.straighten(z)

    def bend(self, w: FloatArray) -> FloatArray:
        return self._ridge.bend(w)

    def bending(self, z: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self._ridge.bending(z, slope)

    def starts(
        self, x: FloatArray, loss: FloatArray, weights: FloatArray, n_starts: int, floor: float | None = None
    ) -> FloatArray:
        levels, index = exponent_grid(2)
        shape = self._start_shapes(levels[index])  # (cell, p): everything but floor and level
        cell = np.tile(np.arange(len(index)), len(shape) // len(index))
        log_loss, _ = self.jet(shape, x)
        column = np.exp(log_loss) / loss  # T of a level of one
        ones = 1.0 / loss
        gram = np.empty((len(shape), 2, 2))
        gram[:, 0, 0] = weights @ (ones * ones)
        gram[:, 0, 1] = gram[:, 1, 0] = column @ (weights * ones)
        gram[:, 1, 1] = (column * column) @ weights
        target = np.ones_like(loss) if floor is None else 1.0 - floor / loss
        moment = np.stack((np.full(len(shape), (weights * ones) @ target), column @ (weights * target)), axis=1)
        free = slice(0 if floor is None else 1, None)
        found, misfit = project(Normal(gram[:, free, free], moment[:, free], float(weights @ (target * target))))
        chosen = best_per_part(misfit, index[cell], len(levels), n_starts)
        z = shape[chosen]
        z[:, E] = np.maximum(found[chosen, 0], SMALLEST_START) if floor is None else floor
        z[:, [N, D]] += np.log(np.maximum(found[chosen, -1:], SMALLEST_START))
        return z

    def _start_shapes(self, exponents: FloatArray) -> FloatArray:
        """Working coordinates (cell, p) with floor 0 and level 1 for all balances (and k) over the exponents."""
        shapes = []
        for balance in START_BALANCE:
            for coupling in START_COUPLINGS if self._k > BETA else (1.0,):
                z = np.empty((len(exponents), len(self.theta)))
                z[:, -1] = coupling
                z[:, [E, N, D]] = 0.0, np.log(balance), np.log(1 - balance)
                z[:, [ALPHA, BETA]] = exponents
                shapes.append(z)
        return np.concatenate(shapes)


@dataclass(frozen=True)
class KaplanLaw(_CoupledLaw):
    """L = E + ((A/N)^(α/β) + B/D)^β: the outer exponent is that of D (Kaplan et al. 2020, arXiv 2001.08361, equation
    1.5, with the floor of Brandfonbrener et al. 2024, arXiv 2411.12925)."""

    name: str = "kaplan"
    link: Logit | None = None
    given_floor: float | None = None
    theta = ("E", "A", "B", "alpha", "beta")
    _k = BETA

    def loss(self, theta: Mapping[str, ArrayLike], *x: ArrayLike) -> FloatArray:
        e, a, b, alpha, beta = (np.asarray(theta[name], dtype=float) for name in self.theta)
        log_n, log_d = (np.log(np.asarray(v, dtype=float)) for v in x)
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw that ran away has no number here, or an infinite
            inner = np.logaddexp((np.log(a) - log_n) * (alpha / beta), np.log(b) - log_d)
        total = e + np.exp(beta * inner)
        return np.asarray(total if self.link is None else self.link.from_odds(total))

    def to_theta(self, z: FloatArray, centre: FloatArray, scale: float) -> FloatArray:
        theta = z.copy()
        theta[..., E] *= scale
        of_n, of_d = _asymptotes(z, z[..., BETA], centre, scale)
        theta[..., N], theta[..., D] = natural(of_n / z[..., ALPHA]), natural(of_d / z[..., BETA])
        return theta


@dataclass(frozen=True)
class SkalingLaw(_CoupledLaw):
    """L = E + A (N^-α + R D^-β)^k: Chinchilla at k = 1, Kaplan at β = 1 (the `Skaling` form of the package
    simple-scaling-laws 0.2.0). α and β are inner exponents; the loss falls like N^(-kα) where D is plentiful."""

    name: str = "skaling"
    link: Logit | None = None
    given_floor: float | None = None
    theta = ("E", "A", "R", "alpha", "beta", "k")
    _k = BETA + 1

    def loss(self, theta: Mapping[str, ArrayLike], *x: ArrayLike) -> FloatArray:
        e, a, r, alpha, beta, k = (np.asarray(theta[name], dtype=float) for name in self.theta)
        log_n, log_d = (np.log(np.asarray(v, dtype=float)) for v in x)
        total = e + a * np.exp(k * np.logaddexp(-alpha * log_n, np.log(r) - beta * log_d))
        return np.asarray(total if self.link is None else self.link.from_odds(total))

    def to_theta(self, z: FloatArray, centre: FloatArray, scale: float) -> FloatArray:
        theta = z.copy()
        k = z[..., self._k]
        theta[..., E] *= scale
        of_n, of_d = _asymptotes(z, k, centre, scale)
        theta[..., N], theta[..., D] = natural(of_n), natural((of_d - of_n) / k)
        theta[..., ALPHA] /= k
        theta[..., BETA] /= k
        return theta


def _level(z: FloatArray) -> FloatArray:
    """log T at the centre, (problem, 1)."""
    return np.asarray(np.logaddexp(z[:, N], z[:, D])[:, None])


def _balance(z: FloatArray) -> FloatArray:
    """Share of N in T at the centre, (problem, 1)."""
    return np.asarray(1.0 / (1.0 + np.exp(z[:, D] - z[:, N])))[:, None]


def _asymptotes(z: FloatArray, k: FloatArray, centre: FloatArray, scale: float) -> tuple[FloatArray, FloatArray]:
    """Logs of the coefficients of N^-α and D^-β where the other variable is infinite, in natural units."""
    shared = (1 - k) * np.logaddexp(z[..., N], z[..., D]) + np.log(scale)
    of_n = shared + k * z[..., N] + z[..., ALPHA] * centre[0]
    of_d = shared + k * z[..., D] + z[..., BETA] * centre[1]
    return of_n, of_d
