"""Bracketed searches in one dimension, many at once: where a monotone function takes a value, and where a function has
its minimum. Laws without a closed form need them; they never leave the bracket and never differentiate.
"""

from collections.abc import Callable

import numpy as np

from ecgscale.laws.arrays import FloatArray

Function = Callable[[FloatArray], FloatArray]
"""Elementwise; what it returns has the shape of its argument."""

MAX_ITERATIONS = 99
CLOSE_ENOUGH = 1e-13
"""Width of the bracket, or distance from the target, at which a crossing is found. Arguments are logarithms."""

GOLDEN = (np.sqrt(5.0) - 1) / 2
GOLDEN_STEPS = 40
"""The bracket shrinks to 4e-9 of itself; below 1e-8 a minimum is flat to rounding."""


def crossing(function: Function, target: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Where a monotone function equals the target, elementwise, between lower and upper.

    Regula falsi with the Illinois rule, falling back on halving: a handful of steps for what is nearly straight in
    logs, as laws and costs are. −inf where the target lies before the lower end, +inf where it lies beyond the upper
    end, nan where the function has no value.
    """
    target, low, high = (np.array(v, dtype=float) for v in np.broadcast_arrays(target, lower, upper))
    at_low, at_high = function(low) - target, function(high) - target
    rising = at_high >= at_low
    before = np.where(rising, at_low > 0, at_low < 0)
    beyond = np.where(rising, at_high < 0, at_high > 0)
    broken = ~(np.isfinite(at_low) & np.isfinite(at_high))
    outside = before | beyond | broken
    low[outside], at_low[outside], at_high[outside] = high[outside], 0.0, 0.0
    for iteration in range(MAX_ITERATIONS):
        difference = at_high - at_low
        share = np.where(difference == 0, 0.5, -at_low / np.where(difference == 0, 1.0, difference))
        if iteration % 4 == 3:
            share = np.full_like(share, 0.5)
        middle = low + share * (high - low)
        at_middle = function(middle) - target
        same_side = np.sign(at_middle) == np.sign(at_low)
        # Illinois: the end that stays is halved in weight, so that both ends move.
        at_low, at_high = np.where(same_side, at_middle, 0.5 * at_low), np.where(same_side, 0.5 * at_high, at_middle)
        low, high = np.where(same_side, middle, low), np.where(same_side, high, middle)
        if (outside | (np.abs(high - low) < CLOSE_ENOUGH) | (np.abs(at_middle) < CLOSE_ENOUGH)).all():
            break
    found = np.where(before, -np.inf, np.where(beyond, np.inf, middle))
    return np.where(broken, np.nan, found)


def minimum(function: Function, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Where a function with one valley between lower and upper is smallest, elementwise, by golden section."""
    low, high = (np.array(v, dtype=float) for v in np.broadcast_arrays(lower, upper))
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(GOLDEN_STEPS):
        to_left = at_left <= at_right
        low, high = np.where(to_left, low, left), np.where(to_left, right, high)
        new = np.where(to_left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        at_new = function(new)
        left, right = np.where(to_left, new, right), np.where(to_left, left, new)
        at_left, at_right = np.where(to_left, at_new, at_right), np.where(to_left, at_left, at_new)
    return np.asarray(0.5 * (low + high))
