"""How well a law would be known from a design that has not been run: Fisher information, linearised at the fit.

Covariance = σ² (JᵀJ)⁻¹ with J the derivatives of log L at the points of the design by the log parameters, σ the
standard deviation of the log residuals (Seber & Wild 1989, Nonlinear Regression, section 2.1). Wrong by what the law
bends within the interval, so use it for ratios: how much narrower an interval becomes.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.result import LawFit

STEP = 1e-5
"""Of central differences in log parameters."""

Theta = Mapping[str, float]


def covariance(fitted: LawFit, *columns: FloatArray) -> FloatArray:
    """Of the log parameters (p, p), for a design given as columns of the law's variables."""
    law = fitted.form

    def log_loss(theta: Theta) -> FloatArray:
        return np.asarray(np.log(law.loss(theta, *columns)))

    jacobian = np.stack([_slope(log_loss, fitted.theta, name) for name in law.theta])
    scatter = 1.0 if fitted.residuals is None else float(np.std(fitted.residuals))
    # without a floor that could fall to zero, a parameter the design does not see would make this singular
    return np.asarray(scatter**2 * np.linalg.pinv(jacobian @ jacobian.T, rcond=1e-14, hermitian=True))


def variance(fitted: LawFit, quantity: Callable[[Theta], float], *columns: FloatArray) -> float:
    """Of a quantity that follows from the parameters, if the law were fitted to this design."""
    gradient = np.array([_slope(quantity, fitted.theta, name) for name in fitted.form.theta])
    return float(gradient @ covariance(fitted, *columns) @ gradient)


def _slope(function: Callable[[Theta], ArrayLike], theta: Theta, name: str) -> FloatArray:
    """Derivative by the log of one parameter."""
    up, down = ({**theta, name: theta[name] * math.exp(sign * STEP)} for sign in (1, -1))
    above, below = np.asarray(function(up), dtype=float), np.asarray(function(down), dtype=float)
    return np.asarray((above - below) / (2 * STEP))
