"""Every law: its derivatives are right, its coordinates invert, its prediction is the formula."""

import numpy as np
import pytest

from ecgscale.errors import FitError
from ecgscale.laws import LAWS, get_law

WORKING = {  # working coordinates: E, log-contributions, exponents
    "chinchilla": [0.6, -1.4, -2.0, 0.31, 0.45],
    "chinchilla_tied": [0.6, -1.4, -2.0, 0.31],
    "power_floor": [0.6, -0.9, 0.31],
    "power": [0.1, 0.31],
}


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


@pytest.fixture
def z(law):
    return np.array([WORKING[law.name]])


@pytest.fixture
def x(law):
    return np.random.default_rng(0).normal(size=(len(law.variables), 7))


def central_difference(function, z, step=1e-6):
    columns = []
    for i in range(z.shape[1]):
        up, down = z.copy(), z.copy()
        up[:, i] += step
        down[:, i] -= step
        columns.append((function(up) - function(down)) / (2 * step))
    return np.stack(columns, axis=-1)


def test_gradient_agrees_with_central_differences(law, z, x):
    numeric = central_difference(lambda z: law.jet(z, x)[0], z)  # (1, point, p)
    np.testing.assert_allclose(law.jet(z, x)[1][0], numeric[0].T, atol=1e-8)


def test_hessian_agrees_with_central_differences_of_the_gradient(law, z, x):
    inner = np.random.default_rng(1).normal(size=(1, x.shape[1]))
    numeric = central_difference(lambda z: (law.jet(z, x)[1] * inner[:, None, :]).sum(axis=2), z)
    analytic = law.hessian(law.jet(z, x)[1], x, np.zeros_like(inner), inner)
    np.testing.assert_allclose(analytic, numeric, atol=1e-8)


def test_straight_coordinates_invert_and_have_the_stated_derivatives(law, z, x):
    w = law.straighten(z)
    np.testing.assert_allclose(law.bend(w), z, rtol=1e-14)
    slope = np.random.default_rng(2).normal(size=z.shape)
    jacobian, curvature = law.bending(z, slope)
    np.testing.assert_allclose(jacobian, central_difference(law.bend, w), atol=1e-7)

    def slope_along(w):
        return (slope[:, None, :] @ law.bending(law.bend(w), slope)[0])[:, 0]

    np.testing.assert_allclose(curvature, central_difference(slope_along, w), atol=1e-7)


def test_natural_parameters_predict_the_same_loss(law, z, x):
    centre, scale = np.array([14.0, 11.0])[: len(x)], 3.3
    theta = law.to_theta(z, centre, scale)
    named = dict(zip(law.theta, theta[0], strict=True))
    predicted = law.loss(named, *np.exp(x + centre[:, None]))
    np.testing.assert_allclose(np.log(predicted / scale), law.jet(z, x)[0][0], atol=1e-13)


def test_chinchilla_is_the_published_formula():
    # Hoffmann et al. 2022, section 3.3: Chinchilla itself, 70e9 parameters and 1.4e12 tokens.
    theta = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
    expected = 1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28
    assert get_law("chinchilla").loss(theta, 70e9, 1.4e12) == pytest.approx(expected, rel=1e-14)


def test_unknown_law_names_the_known_ones():
    with pytest.raises(FitError, match="chinchilla, chinchilla_tied, power_floor, power"):
        get_law("chinchila")
