"""Every law: its derivatives are right, its coordinates invert, its prediction is the formula."""

from dataclasses import replace

import numpy as np
import pytest

from ecgscale.errors import FitError
from ecgscale.laws import LAWS, get_law
from ecgscale.laws.forms import with_floor
from ecgscale.laws.link import Logit

WORKING = {  # working coordinates: E, log-contributions, exponents, outer exponent
    "chinchilla": [0.6, -1.4, -2.0, 0.31, 0.45],
    "chinchilla_tied": [0.6, -1.4, -2.0, 0.31],
    "kaplan": [0.6, -1.4, -2.0, 0.31, 0.45],
    "skaling": [0.6, -1.4, -2.0, 0.31, 0.45, 1.7],
    "multiplicative": [0.6, -0.9, 0.31, 0.45],
    "power_floor": [0.6, -0.9, 0.31],
    "power": [0.1, 0.31],
    "sigmoid": [0.1, 0.31],
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
    inner, outer = np.random.default_rng(1).normal(size=(2, 1, x.shape[1]))
    numeric = central_difference(lambda z: (law.jet(z, x)[1] * inner[:, None, :]).sum(axis=2), z)
    gradient = law.jet(z, x)[1]
    numeric += (gradient * outer[:, None, :]) @ gradient.transpose(0, 2, 1)
    np.testing.assert_allclose(law.hessian(z, gradient, x, outer, inner), numeric, atol=1e-8)


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
    odds = predicted if law.link is None else law.link.to_odds(predicted)
    np.testing.assert_allclose(np.log(odds / scale), law.jet(z, x)[0][0], atol=1e-12)


def test_level_and_slopes_at_the_centre_do_not_depend_on_the_coupling():
    """What lets a coupled law start from the additive one."""
    chinchilla, skaling, at_centre = get_law("chinchilla"), get_law("skaling"), np.zeros((2, 1))
    steps = np.array([[1e-5, 0.0], [0.0, 1e-5]])
    for k in (0.2, 1.0, 7.0):
        z = np.array([[0.6, -1.4, -2.0, 0.31, 0.45, k]])
        assert skaling.jet(z, at_centre)[0] == pytest.approx(chinchilla.jet(z[:, :5], at_centre)[0])
        slopes = [(law.jet(z[:, : len(law.theta)], steps)[0] - np.log(0.6 + np.exp(-1.4) + np.exp(-2.0))) / 1e-5
                  for law in (chinchilla, skaling)]  # fmt: skip
        np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-4)


def test_skaling_contains_chinchilla_kaplan_and_in_the_limit_the_product():
    n, d = np.geomspace(1e5, 1e9, 5)[:, None], np.geomspace(1e4, 1e7, 4)
    chinchilla = {"E": 0.5, "A": 20.0, "B": 15.0, "alpha": 0.3, "beta": 0.35}
    as_skaling = {"E": 0.5, "A": 20.0, "R": 0.75, "alpha": 0.3, "beta": 0.35, "k": 1.0}
    loss = get_law("skaling").loss
    np.testing.assert_allclose(loss(as_skaling, n, d), get_law("chinchilla").loss(chinchilla, n, d), rtol=1e-14)
    kaplan = {"E": 0.5, "A": 1e4, "B": 300.0, "alpha": 0.3, "beta": 0.35}
    inner = 0.3 / 0.35
    as_skaling = {"E": 0.5, "A": 1e4**0.3, "R": 300 / 1e4**inner, "alpha": inner, "beta": 1.0, "k": 0.35}
    np.testing.assert_allclose(loss(as_skaling, n, d), get_law("kaplan").loss(kaplan, n, d), rtol=1e-13)
    # In natural units the coefficient of the limit is not a float, so it is taken in working coordinates.
    z, x = np.array([[0.5, -1.2, -1.2, 0.6, 0.7, 1e5]]), np.random.default_rng(0).normal(size=(2, 9))
    product = get_law("multiplicative").jet(np.array([[0.5, np.log(2) - 1.2, 0.3, 0.35]]), x)[0]
    np.testing.assert_allclose(get_law("skaling").jet(z, x)[0], product, rtol=1e-4)


def test_chinchilla_is_the_published_formula():
    # Hoffmann et al. 2022, section 3.3: Chinchilla itself, 70e9 parameters and 1.4e12 tokens.
    theta = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
    expected = 1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28
    assert get_law("chinchilla").loss(theta, 70e9, 1.4e12) == pytest.approx(expected, rel=1e-14)


def test_kaplan_is_the_published_formula():
    # Kaplan et al. 2020, equation 1.5: N_c = 6.4e13, D_c = 1.8e13, exponents 0.076 and 0.103, no floor.
    theta = {"E": 0.0, "A": 6.4e13, "B": 1.8e13, "alpha": 0.076, "beta": 0.103}
    expected = ((6.4e13 / 1e9) ** (0.076 / 0.103) + 1.8e13 / 2e10) ** 0.103
    assert get_law("kaplan").loss(theta, 1e9, 2e10) == pytest.approx(expected, rel=1e-13)


def test_multiplicative_and_sigmoid_are_their_formulas():
    theta = {"E": 0.5, "A": 30.0, "alpha": 0.1, "beta": 0.2}
    assert get_law("multiplicative").loss(theta, 1e6, 1e5) == pytest.approx(0.5 + 30 * 1e6**-0.1 * 1e5**-0.2)
    odds = 40 * 1e6**-0.3
    assert get_law("sigmoid").loss({"A": 40.0, "alpha": 0.3}, 1e6) == pytest.approx(1 / (1 + odds))
    auroc = get_law("sigmoid", bounded=(0.5, 1.0)).loss({"A": 40.0, "alpha": 0.3}, 1e6)
    assert auroc == pytest.approx(0.5 + 0.5 / (1 + odds))


def test_any_law_can_be_bounded():
    theta = {"E": 0.1, "A": 20.0, "B": 15.0, "alpha": 0.3, "beta": 0.35}
    odds = get_law("chinchilla").loss(theta, 1e6, 1e5)
    assert get_law("chinchilla", bounded=(0.0, 0.9)).loss(theta, 1e6, 1e5) == pytest.approx(0.9 / (1 + odds))


def test_error_odds_and_scores_are_inverse_for_scores_that_rise_or_fall():
    for link, score in ((Logit(0.5, 1.0), 0.93), (Logit(1.0, 0.0), 0.07)):
        assert link.from_odds(link.to_odds(score)) == pytest.approx(score)
    assert Logit(1.0, 0.0).to_odds(0.2) == pytest.approx(0.25)  # errors per success


def test_scores_at_a_bound_are_refused_by_row():
    with pytest.raises(FitError, match="row 1 is 1"):
        Logit(0.5, 1.0).to_odds([0.7, 1.0])
    with pytest.raises(FitError, match="two different finite ends"):
        Logit(1.0, 1.0)


def test_a_given_floor_needs_a_law_that_has_one():
    assert with_floor("kaplan", 0.3).given_floor == 0.3
    with pytest.raises(FitError, match="power has no floor"):
        with_floor("power", 0.3)
    with pytest.raises(FitError, match="zero or a positive"):
        with_floor("chinchilla", -0.1)


def test_bounds_are_for_laws_by_name():
    own = replace(LAWS["chinchilla"], name="mine")
    with pytest.raises(FitError, match="object of its own"):
        get_law(own, bounded=(0.0, 1.0))


def test_unknown_law_names_the_known_ones():
    with pytest.raises(FitError, match="chinchilla, chinchilla_tied, kaplan, skaling, multiplicative, power_floor"):
        get_law("chinchila")
