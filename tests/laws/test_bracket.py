"""Bracketed searches: crossings and minima of many functions at once, and what lies outside the bracket."""

import numpy as np
import pytest

from ecgscale.laws.bracket import crossing, minimum


def test_crossings_of_falling_and_rising_functions():
    shift = np.linspace(-3, 3, 41)
    for sign in (-1, 1):
        found = crossing(lambda x, s=sign: s * (x + 0.3 * np.sin(x)), sign * (shift + 0.3 * np.sin(shift)), -5.0, 5.0)
        np.testing.assert_allclose(found, shift, atol=1e-12)


def test_very_curved_functions_and_targets_at_the_ends_are_found():
    target = np.exp(np.array([-30.0, -10.0, 0.0, 30.0]))
    np.testing.assert_allclose(np.exp(crossing(np.exp, target, -30.0, 30.0)), target, rtol=1e-7)


@pytest.mark.parametrize(("sign", "expected"), [(1, [-np.inf, np.inf]), (-1, [np.inf, -np.inf])])
def test_targets_outside_say_on_which_side(sign, expected):
    found = crossing(lambda x: sign * x, np.array([-7.0, 7.0]), -5.0, 5.0)
    np.testing.assert_array_equal(found, expected)


def test_no_value_gives_nan():
    assert np.isnan(crossing(lambda x: x * np.nan, np.zeros(1), -1.0, 1.0)).all()


def test_minima():
    where = np.linspace(-2, 2, 9)
    found = minimum(lambda x: np.cosh(x - where), np.full(9, -4.0), np.full(9, 5.0))
    np.testing.assert_allclose(found, where, atol=1e-7)
