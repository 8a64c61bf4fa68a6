"""The best rate of a ladder of trainings, and the rule through the best of several widths, on planted truths."""

import math

import numpy as np
import pytest

from ecgscale.learning_rates import NoOptimum, Optimum, optimum, rule

RATES = [2.0**k for k in range(-9, -4)]


def ladder(best, *, rates=RATES, seeds=(0, 1), curvature=0.03, noise=0.0, seed_spread=0.0, draw=0):
    """(rates, seeds, losses) of trainings whose loss is a parabola in log2 rate."""
    random = np.random.default_rng(draw)
    rows = [
        (rate, seed, 0.5 + seed_spread * seed + curvature * math.log2(rate / best) ** 2 + noise * random.normal())
        for rate in rates
        for seed in seeds
    ]
    return tuple(zip(*rows, strict=True))


def test_a_planted_optimum_is_found_whatever_the_seeds_add():
    found = optimum(*ladder(0.009, seed_spread=0.3))
    assert found.rate == pytest.approx(0.009, rel=1e-6)
    assert found.loss == pytest.approx(0.5 + 0.15)
    assert found.curvature == pytest.approx(0.03)
    assert found.interval == pytest.approx((0.009, 0.009), rel=1e-4)
    assert found.reach == (2**-8, 2**-6)
    assert found.excess(0.009 * 2**0.5) == pytest.approx(0.03 / 4)  # half an octave off
    assert found.excess(1.0) == found.excess(2**-6)  # out of reach: at least that


def test_a_rate_costs_as_much_where_losses_are_below_zero():
    rates, seeds, losses = ladder(0.009)
    found = optimum(rates, seeds, [loss - 0.5 for loss in losses])  # as log-likelihoods may be; the best is 0
    assert found.loss == pytest.approx(0, abs=1e-12)
    assert found.excess(0.009 * 2**0.5) == pytest.approx(0.03 / 4)
    below = optimum(rates, seeds, [loss - 2 for loss in losses])
    assert below.excess(0.009 * 2**0.5) == pytest.approx(0.03 / 4)


def test_the_order_of_the_trainings_moves_nothing():
    columns = ladder(0.009, noise=0.004)
    shuffled = np.random.default_rng(1).permutation(len(columns[0]))
    again = optimum(*([column[k] for k in shuffled] for column in columns))
    assert again.rate == pytest.approx(optimum(*columns).rate)
    assert again.interval == pytest.approx(optimum(*columns).interval)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = []
    for draw in range(400):
        low, high = optimum(*ladder(0.0078, noise=0.006, seed_spread=0.1, draw=draw)).interval
        held.append(low <= 0.0078 <= high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_a_single_seed_of_three_rates_has_no_interval():
    found = optimum(*ladder(0.009, rates=RATES[1:4], seeds=(0,)))
    assert found.rate == pytest.approx(0.009, rel=1e-6)
    assert found.interval == (0, math.inf)


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (0.0005, r"lowest, 0.00195; add a lower one: 0.000977"),
        (0.2, r"highest, 0.0312; add a higher one: 0.0625"),
    ],
)
def test_an_optimum_at_an_edge_is_refused_with_what_to_add(best, said):
    with pytest.raises(NoOptimum, match=said):
        optimum(*ladder(best))


def test_a_rate_next_to_one_that_diverges_is_refused_with_one_between():
    rates, seeds, losses = ladder(0.009)
    diverged = [
        math.inf if rate > 0.01 and seed == 1 else loss for rate, seed, loss in zip(rates, seeds, losses, strict=True)
    ]
    with pytest.raises(NoOptimum, match=r"0.00781, is the last that does not diverge; add one between: 0.011"):
        optimum(rates, seeds, diverged)


def test_a_rate_that_diverges_beyond_a_neighbour_is_left_out():
    rates, seeds, losses = ladder(0.009)
    diverged = [math.inf if rate > 0.03 else loss for rate, loss in zip(rates, losses, strict=True)]
    assert optimum(rates, seeds, diverged).rate == pytest.approx(0.009, rel=1e-6)


def test_losses_that_bend_the_wrong_way_are_refused():
    rates = [0.004, 0.006, 0.008, 0.012, 0.016]
    with pytest.raises(NoOptimum, match=r"no minimum from 0.004 to 0.016; add seeds, or rates between"):
        optimum(rates, [0] * 5, [0.5, 0.7, 0.49, 0.7, 0.5])


def test_a_cliff_further_up_moves_nothing():
    rates, seeds, losses = ladder(0.009)
    cliff = [loss + 3 * (rate > 0.03) for rate, loss in zip(rates, losses, strict=True)]
    assert optimum(rates, seeds, cliff).rate == pytest.approx(0.009, rel=1e-6)


def test_rates_far_apart_are_compared_with_their_neighbours_all_the_same():
    assert optimum(*ladder(0.009, rates=[1e-4, 1e-2, 1.0])).rate == pytest.approx(0.009, rel=1e-6)


def found_at(rate):
    return Optimum(rate, (rate, rate), (rate / 2, rate * 2), 0.5, 0.03)


def test_a_planted_rule_is_found():
    widths = [24, 48, 56, 24, 48, 56]
    fitted = rule(widths, [found_at(6e-3 * (w / 32) ** -0.7) for w in widths], reference_width=32)
    assert fitted.base == pytest.approx(6e-3)
    assert fitted.exponent == pytest.approx(-0.7)
    assert fitted.base_interval == pytest.approx((6e-3, 6e-3))
    assert fitted.exponent_interval == pytest.approx((-0.7, -0.7))


def test_arms_that_disagree_widen_the_interval():
    widths = [24, 48, 96] * 2
    rates = [6e-3 * (w / 32) ** -0.7 * factor for w, factor in zip(widths, [1, 1, 1, 2, 2, 2], strict=True)]
    fitted = rule(widths, [found_at(rate) for rate in rates], reference_width=32)
    assert fitted.base == pytest.approx(6e-3 * math.sqrt(2))
    low, high = fitted.base_interval
    assert low < 6e-3 and high > 12e-3


def test_with_a_given_exponent_the_base_alone_is_fitted():
    fitted = rule([24, 96], [found_at(2e-3), found_at(8e-3)], reference_width=32, exponent=0.0)
    assert fitted.base == pytest.approx(4e-3)
    assert (fitted.exponent, fitted.exponent_interval) == (0.0, None)
    low, high = fitted.base_interval
    assert low < 2e-3 and high > 8e-3


def test_one_width_has_no_exponent():
    with pytest.raises(NoOptimum, match="at least two widths; add rungs"):
        rule([24, 24], [found_at(2e-3), found_at(8e-3)], reference_width=32)


def test_a_line_through_two_points_has_no_interval():
    fitted = rule([24, 48], [found_at(4e-3), found_at(2e-3)], reference_width=24)
    assert fitted.exponent == pytest.approx(-1)
    assert fitted.exponent_interval == (-math.inf, math.inf)
