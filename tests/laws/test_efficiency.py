"""Two arms: planted multipliers and exponent ratios come back, paired draws are narrower, and "never" is an answer."""

import json
import math

import numpy as np
import pytest
from planted_sweep import sweep_grid

from ecgscale.errors import FitError
from ecgscale.laws import fit
from ecgscale.laws.bracket import crossing
from ecgscale.laws.efficiency import compare_arms, equal_loss
from ecgscale.laws.forms import LAWS
from ecgscale.laws.inverse import size_at_loss
from ecgscale.laws.ratios import exponent_ratios


def surface(n, d, factor_n=1.0, factor_d=1.0, alpha=0.3, beta=0.35):
    """An arm that uses its parameters and data as if they were `factor` times as many."""
    return 0.5 + 0.2 * (n * factor_n / 2e6) ** -alpha + 0.2 * (d * factor_d / 2.3e5) ** -beta


def arms(factor_n=1.0, factor_d=1.0, shared=0.0, own=0.0, bootstrap=0, seed=0, **b_exponents):
    """Fits of arm a, `factor` times as efficient, and of b on the same grid; noise shared by both and of each."""
    n, d = sweep_grid(6, 5)
    rng = np.random.default_rng(seed)
    common = shared * rng.standard_normal(len(n))
    losses = surface(n, d, factor_n, factor_d), surface(n, d, **b_exponents)
    noisy = (loss * np.exp(common + own * rng.standard_normal(len(n))) for loss in losses)
    return [fit("chinchilla", n, d, loss, bootstrap=bootstrap) for loss in noisy]


def test_planted_multipliers_are_recovered_without_noise():
    a, b = arms(factor_n=2.5, factor_d=1.0)
    by_n = equal_loss(a, b, axis="N")
    assert by_n.axis == "N"
    assert by_n.at == pytest.approx(2.3e6)
    np.testing.assert_allclose([m.value for m in by_n.curve], 2.5, rtol=1e-4)
    assert by_n.span == pytest.approx((2.5, 2.5), rel=1e-4)
    # At one N the data needed to make up for a less efficient model grow as the loss falls.
    by_d = equal_loss(a, b, axis="d", at=2e6)
    values = [m.value for m in by_d.curve]
    assert all(v > 1 for v in values)
    assert values == sorted(values, reverse=True)
    for m in by_d.curve:
        assert a.predict(2e6, m.size_a).value == pytest.approx(m.loss, rel=1e-9)
        assert b.predict(2e6, m.size_b).value == pytest.approx(m.loss, rel=1e-9)
    _, d_only = compare_arms(*arms(factor_d=4.0)).equal_loss
    assert d_only.middle.value == pytest.approx(4.0, rel=1e-4)


def test_the_curve_stays_within_what_both_observed():
    a, b = arms(factor_n=2.5)
    found = equal_loss(a, b)
    for m in found.curve:
        assert 2e4 * (1 - 1e-6) <= m.size_a <= 2e8 * (1 + 1e-6)
        assert 2e4 * (1 - 1e-6) <= m.size_b <= 2e8 * (1 + 1e-6)
    assert found.overlap == pytest.approx((b.predict(2e8, 2.3e6).value, a.predict(2e4, 2.3e6).value))


def test_a_loss_that_an_arm_never_reached_has_a_reason():
    a, b = arms(factor_n=30.0, own=0.002, bootstrap=60)
    best_of_a = float(a.predict(2e8, 2.3e6).value)
    found = equal_loss(a, b, losses=[best_of_a * 1.0001, 0.8])
    first, second = found.curve
    assert math.isnan(first.value)
    assert "arm b observed" in first.reason
    assert "arm a" not in first.reason
    assert first.reached < 0.05
    assert second.reason is None
    assert second.reached == 1.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_arms_without_a_common_loss_are_not_reached_in_range():
    n, d = sweep_grid(6, 5)
    a, b = (fit("chinchilla", n, d, scale * surface(n, d), bootstrap=0) for scale in (1.0, 9.0))
    found = equal_loss(a, b)
    assert found.overlap is None
    assert found.middle is None
    assert found.curve == ()
    assert "no_overlap" in found.flags
    assert "not reached in range" in found.describe()
    assert math.isnan(equal_loss(a, b, losses=1.0).curve[0].value)
    json.dumps(compare_arms(a, b).to_dict(), allow_nan=False)


def test_draws_that_never_get_there_open_the_interval():
    """Arm b saturates just below the loss: in many draws its floor lies above it."""
    x = np.geomspace(1e4, 1e8, 14)
    rng = np.random.default_rng(4)
    a = fit("power_floor", x, (0.3 + 20 * x**-0.4) * np.exp(0.02 * rng.standard_normal(14)), bootstrap=200)
    b = fit("power_floor", x, (0.4 + 20 * x**-0.4) * np.exp(0.02 * rng.standard_normal(14)), bootstrap=200)
    low_end = equal_loss(a, b).curve[0]
    assert low_end.value > 1
    assert low_end.high == math.inf
    assert low_end.reached < 1
    assert "open_interval" in equal_loss(a, b).flags
    assert equal_loss(a, b).to_dict()["curve"][0]["high"] is None


def test_equal_arms_have_one_inside_the_interval():
    a, b = arms(own=0.01, bootstrap=300)
    found = compare_arms(a, b)
    for item in found.equal_loss:
        assert item.middle.low < 1 < item.middle.high
        assert item.middle.reached == 1.0
    for ratio in found.exponents:
        assert ratio.estimate.low < 1 < ratio.estimate.high
    same = compare_arms(a, a)
    assert same.equal_loss[0].middle.low == pytest.approx(1) == same.equal_loss[0].middle.high
    assert same.exponents[0].estimate.low == pytest.approx(1) == same.exponents[0].estimate.high


def test_paired_draws_are_narrower_where_noise_is_shared():
    a, b = arms(factor_n=2.0, shared=0.01, own=0.001, bootstrap=300)
    paired = equal_loss(a, b).middle
    rng = np.random.default_rng(0)
    shuffled = type(b)(**{**vars(b), "draws": rng.permutation(b.draws)})
    unpaired = equal_loss(a, shuffled).middle
    assert paired.low < 2.0 < paired.high
    assert math.log(paired.high / paired.low) < 0.5 * math.log(unpaired.high / unpaired.low)
    width = [r.estimate.high - r.estimate.low for r in (exponent_ratios(a, b)[0], exponent_ratios(a, shuffled)[0])]
    assert width[0] < 0.5 * width[1]


def test_intervals_cover_in_a_small_simulation():
    """Nominal 95 %; 60 worlds of 150 paired draws."""
    hits = {"N": 0, "D": 0, "alpha": 0}
    for world in range(60):
        a, b = arms(factor_n=2.0, factor_d=3.0, shared=0.005, own=0.005, bootstrap=150, seed=world)
        for axis in ("N", "D"):
            at = 2.3e6 if axis == "N" else 2e8
            m = equal_loss(a, b, axis=axis, at=at, losses=0.68).curve[0]
            truth = planted_shift(axis, at, 0.68)
            hits[axis] += m.low <= truth <= m.high
        low_high = exponent_ratios(a, b)[0].estimate
        hits["alpha"] += low_high.low <= 1 <= low_high.high
    assert min(hits.values()) >= 50, hits


def planted_shift(axis, at, loss):
    """Of factors 2 and 3, on paper: the loss is left for one term after the floor and the other."""
    shifts = []
    for factor_n, factor_d in ((1, 1), (2, 3)):
        if axis == "N":
            left = loss - 0.5 - 0.2 * (at * factor_d / 2.3e5) ** -0.35
            shifts.append(2e6 / factor_n * (left / 0.2) ** (-1 / 0.3))
        else:
            left = loss - 0.5 - 0.2 * (at * factor_n / 2e6) ** -0.3
            shifts.append(2.3e5 / factor_d * (left / 0.2) ** (-1 / 0.35))
    return shifts[0] / shifts[1]


def test_one_variable_laws():
    x = np.geomspace(1e4, 1e8, 8)
    for law, floor in (("power", 0.0), ("power_floor", 0.4)):
        a, b = (fit(law, x, floor + 30 * (x * f) ** -0.4, bootstrap=0) for f in (16.0, 1.0))
        found = compare_arms(a, b)
        assert len(found.equal_loss) == 1
        assert found.equal_loss[0].at is None
        assert found.equal_loss[0].middle.value == pytest.approx(16.0, rel=1e-4)
        assert found.exponents[0].estimate.value == pytest.approx(1.0, rel=1e-4)


def test_any_law_can_be_inverted_by_search():
    """The closed form and a bracketed search on the law's own loss agree."""
    law = LAWS["chinchilla"]
    rows = np.array([[0.5, 15.5, 15.0, 0.3, 0.35], [0.4, 12.0, 19.0, 0.25, 0.4]])
    support = {"N": (2e4, 2e8), "D": (2.3e4, 2.3e6)}
    losses = np.array([0.7, 0.8, 1.2, 0.45])
    names = list(law.theta)

    class Opaque:
        """Knows nothing but its loss."""

        name, theta, variables, link = "opaque", law.theta, law.variables, None

        def loss(self, theta, *x):
            assert list(theta) == names
            return law.loss(theta, *x)

    for axis, at in ((0, 1e6), (1, 1e7)):
        closed, searched = (size_at_loss(form, rows, losses, axis, at, support) for form in (law, Opaque()))
        limit = np.log(support[law.variables[axis]][1] * 1e6)
        np.testing.assert_allclose(searched[closed < limit], closed[closed < limit], rtol=1e-9)
        assert np.isinf(searched[closed >= limit]).all()


def test_a_held_value_outside_the_data_is_flagged():
    a, b = arms()
    assert "extrapolating:D" in equal_loss(a, b, axis="N", at=1e9).flags
    assert "extrapolating:D" not in equal_loss(a, b, axis="N", at=1e5).flags


def test_planted_exponent_ratios():
    a, b = arms(alpha=0.15, beta=0.7)
    alpha, beta = exponent_ratios(a, b)
    assert alpha.name == "alpha_a/alpha_b"
    assert alpha.estimate.value == pytest.approx(2.0, rel=1e-4)
    assert beta.estimate.value == pytest.approx(0.5, rel=1e-4)
    assert "no_interval" in alpha.flags


def test_an_exponent_near_zero_gives_no_interval():
    x = np.geomspace(1e4, 1e8, 14)
    rng = np.random.default_rng(2)
    a = fit("power", x, 30 * x**-0.3 * np.exp(0.01 * rng.standard_normal(14)), bootstrap=200)
    b = fit("power", x, 1.0 * np.exp(0.01 * rng.standard_normal(14)), bootstrap=200)
    (ratio,) = exponent_ratios(a, b)
    assert "near_zero" in ratio.flags
    assert ratio.estimate.low is None


def test_unidentified_arms_are_named():
    a, _ = arms()
    n, d = sweep_grid(2, 5)
    b = fit("chinchilla", n, d, surface(n, d), bootstrap=0)
    (alpha, _beta), shift = exponent_ratios(a, b), equal_loss(a, b)
    assert "b:too_few_levels:N" in alpha.flags
    assert "b:too_few_levels:N" in shift.flags
    assert not any(flag.startswith("a:") for flag in alpha.flags)


@pytest.mark.parametrize("law", ["kaplan", "skaling", "multiplicative"])
def test_every_form_of_two_variables_is_compared(law):
    """Arm a uses its parameters as if they were three times as many; under every form that is a multiplier of 3."""
    n, d = sweep_grid(6, 5)
    form = LAWS[law]
    theta = {"E": 0.5, "A": 50.0, "B": 1e4, "alpha": 0.3, "beta": 0.35}
    theta |= {"skaling": {"A": 15.0, "R": 1.0, "alpha": 0.6, "beta": 0.7, "k": 0.5}}.get(law, {})
    theta |= {"multiplicative": {"A": 500.0}}.get(law, {})
    theta = {name: theta[name] for name in form.theta}
    a, b = (fit(law, n, d, form.loss(theta, n * f, d), bootstrap=0) for f in (3.0, 1.0))
    assert equal_loss(a, b, at=1e6).middle.value == pytest.approx(3.0, rel=1e-3)
    assert [r.name for r in exponent_ratios(a, b)] == ["alpha_a/alpha_b", "beta_a/beta_b"]


def test_different_designs_are_flagged_as_unpaired():
    a, _ = arms(own=0.01, bootstrap=100)
    n, d = sweep_grid(5, 5)
    b = fit(
        "chinchilla", n, d, surface(n, d) * np.exp(0.01 * np.random.default_rng(9).standard_normal(25)), bootstrap=80
    )
    shift = equal_loss(a, b)
    assert "unpaired" in shift.flags
    assert shift.middle.low < 1 < shift.middle.high


def test_refusals():
    a, _ = arms()
    x = np.geomspace(1e4, 1e8, 8)
    with pytest.raises(FitError, match="under one law"):
        compare_arms(a, fit("power", x, x**-0.3, bootstrap=0))
    with pytest.raises(FitError, match="no axis"):
        equal_loss(a, a, axis="C")
    with pytest.raises(FitError, match="positive"):
        equal_loss(a, a, losses=[0.0])


def test_crossing_is_the_inverse_of_a_rising_law():
    """A score that grows with size: searched like any other."""
    assert crossing(lambda x: 1 / (1 + np.exp(-x)), np.array([0.5]), -9.0, 9.0) == pytest.approx(0.0, abs=1e-9)


def test_bounded_metrics_are_compared_as_scores():
    x = np.geomspace(1e4, 1e8, 8)
    a, b = (
        fit("power_floor", x, 1 - 0.5 * (0.1 + f * x**-0.4) / (1 + 0.1 + f * x**-0.4), bounded=(0.5, 1.0), bootstrap=0)
        for f in (10.0, 20.0)
    )
    found = equal_loss(a, b)
    assert 0.5 < found.overlap[0] < found.overlap[1] < 1.0
    assert found.middle.value == pytest.approx(2 ** (1 / 0.4), rel=1e-3)
    assert a.predict(found.middle.size_a).value == pytest.approx(found.middle.loss, rel=1e-6)
