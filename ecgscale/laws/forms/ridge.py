"""The ridge of a law with a floor, and the coordinates in which it is straight.

Along the ridge E falls, a coefficient rises, its exponent falls, and the level and the slope at the centre stay. In
w = (loss at the centre, log slopes at the centre, exponents, …) only the exponent moves. This module knows which
columns are contributions and exponents, and nothing else of the law.
"""

from collections.abc import Sequence

import numpy as np

from ecgscale.laws.arrays import FloatArray


class Ridge:
    """The map between z, in which column 0 is E and the next are the log-contributions at the centre, and w.

    Args:
        n_parameters: Columns of z.
        exponents: Per contribution, the columns of its exponents. Several of them (a product of powers) count with
            their sum.
    """

    def __init__(self, n_parameters: int, exponents: Sequence[Sequence[int]]):
        identity = np.eye(n_parameters)
        self.terms = slice(1, 1 + len(exponents))
        self.exponents = np.stack([identity[list(columns)].sum(axis=0) for columns in exponents], axis=1)  # (p, term)
        self.identity = identity

    def straighten(self, z: FloatArray) -> FloatArray:
        w = z.copy()
        w[:, 0] += np.add.reduce(np.exp(z[:, self.terms]), axis=1)
        w[:, self.terms] += np.log(z @ self.exponents)
        return w

    def bend(self, w: FloatArray) -> FloatArray:
        z = w.copy()
        z[:, self.terms] -= np.log(w @ self.exponents)
        z[:, 0] -= np.add.reduce(np.exp(z[:, self.terms]), axis=1)
        return z

    def bending(self, z: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Jacobian ∂z/∂w and Σ slope_k ∂²z_k/∂w², both (problem, p, p)."""
        inverse = 1.0 / (z @ self.exponents)  # (problem, term)
        contribution = np.exp(z[:, self.terms])
        # ∂z_c/∂w: the coefficient's own unit vector less 1/s along its exponents; ∂z_0/∂w: minus Σ contribution * that.
        jacobian = np.empty((len(z), *self.identity.shape))
        jacobian[:] = self.identity
        rows = jacobian[:, self.terms]  # a view
        rows -= inverse[:, :, None] * self.exponents.T
        jacobian[:, 0] -= (contribution[:, None, :] @ rows)[:, 0]
        # ∂²z_c = s⁻² on its exponents; ∂²(−e^{z_c}) = −e^{z_c} (∂z_c ∂z_cᵀ + ∂²z_c).
        fall = slope[:, :1] * contribution
        own = (slope[:, self.terms] - fall) * inverse * inverse
        curvature = (self.exponents * own[:, None, :]) @ self.exponents.T
        curvature -= (rows * fall[:, :, None]).transpose(0, 2, 1) @ rows
        return jacobian, curvature
