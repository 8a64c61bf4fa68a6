"""What a law is: a shape with named parameters. It knows no data set, no objective and no optimiser.

The solver sees a law in *working coordinates*: the floor E and the log-contribution of each term at the centre of
the data, both in units of the typical loss, and the exponents. In them a change of the unit of N, D or the loss
changes nothing, and the ridge between a coefficient and its exponent is as short as the data allow.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.link import Logit

EXPONENT_BOUNDS = (1e-3, 10.0)
"""For laws with a floor. Our assumption: published exponents lie between 0.02 and 2; at 10 the coefficient of a
variable up to 1e28 still is a finite float."""

SLOPE_BOUNDS = (-10.0, 10.0)
"""For laws without a floor, which are straight lines in logs and may rise: N* grows with C."""

LOG_CONTRIBUTION_BOUNDS = (-30.0, 30.0)
"""Log of a term at the centre, in units of the typical loss: 1e-13 of a loss is nothing, 1e13 of it is absurd."""

LOG_FINITE = 700.0
"""Natural coefficients are kept within e^±700, so that they are floats; only laws that are flagged get there."""


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
    def exponents(self) -> tuple[str, ...]:
        """Parameters that are slopes in logs, far from the data if nowhere else. Their working coordinates too."""

    @property
    def has_floor(self) -> bool:
        """Whether theta[0] is E, an additive floor bounded by zero."""

    @property
    def given_floor(self) -> float | None:
        """The floor where it is known, in loss units: E keeps this value and is not fitted."""

    @property
    def link(self) -> Logit | None:
        """For a bounded metric: the law holds for its error odds, and `loss` gives the metric back."""

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper box bounds of the working coordinates, each (p,)."""

    def loss(self, theta: Mapping[str, ArrayLike], *x: ArrayLike) -> FloatArray:
        """Predicted loss in natural units; everything broadcasts."""

    def jet(self, z: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log loss (problem, point) and its gradient in z (problem, p, point)."""

    def hessian(
        self, z: FloatArray, gradient: FloatArray, x: FloatArray, outer: FloatArray, inner: FloatArray
    ) -> FloatArray:
        """Sum over points of outer * g gᵀ + inner * ∂²(log loss), (problem, p, p); outer, inner (problem, point)."""

    def straighten(self, z: FloatArray) -> FloatArray:
        """Coordinates in which the law's ridge is straight; exponents must stay themselves. Identity if it has none."""

    def bend(self, w: FloatArray) -> FloatArray:
        """The inverse of `straighten`."""

    def bending(self, z: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Jacobian ∂z/∂w and Σ slope_k ∂²z_k/∂w², both (problem, p, p)."""

    def to_theta(self, z: FloatArray, centre: FloatArray, scale: float) -> FloatArray:
        """Working coordinates to natural parameters; the centre is in log units, the scale in loss units."""

    def starts(
        self, x: FloatArray, loss: FloatArray, weights: FloatArray, n_starts: int, floor: float | None = None
    ) -> FloatArray:
        """Deterministic, wide starting points (start, p), best first, for centred data and losses in typical units;
        all of them at `floor`, in the same units, if given."""


def free_parameters(law: Law) -> tuple[str, ...]:
    """The parameters that are fitted: all of `theta`, less a floor that is given."""
    return law.theta if law.given_floor is None else law.theta[1:]


def natural(log_coefficient: FloatArray) -> FloatArray:
    """A coefficient from its logarithm, always finite."""
    return np.asarray(np.exp(np.clip(log_coefficient, -LOG_FINITE, LOG_FINITE)))
