"""What validation records repair: spreads that are too small, distributions of a wrong shape, any head's intervals."""

import numpy as np
import pytest
from scipy.stats import binom, lognorm, norm, t

from ecgscale.concentrations.predictive import Histogram, Logged, Normal, NormalMixture, Point, Quantiles, ensemble
from ecgscale.concentrations.recalibration import CONFORMAL_LEVELS, Conformal, Isotonic, VarianceScaling
from ecgscale.concentrations.scores import measure


def planted(n, rng, overconfident=1.0, noise=None):
    """Truth and what a head says, which states its spread too small by a factor."""
    mean, sd = rng.normal(140, 3, size=n), 2 * np.exp(0.5 * rng.normal(size=n))
    error = rng.normal(size=n) if noise is None else noise(n)
    return mean + sd * error, Normal(mean, sd / overconfident)


def score(truth, said):
    return measure(truth, said, np.arange(len(truth)), (), "A", 0).scores()


# --- one factor ------------------------------------------------------------------------------------------------------


def test_variance_scaling_makes_an_overconfident_normal_honest():
    rng = np.random.default_rng(0)
    scaling = VarianceScaling.fit(*planted(4000, rng, overconfident=3.0))
    assert scaling.factor == pytest.approx(3, rel=0.04)
    truth, said = planted(4000, rng, overconfident=3.0)
    before, after = score(truth, said), score(truth, scaling.apply(said))
    assert before.coverage[2].covered.value < 0.5
    for one in after.coverage:
        assert one.covered.value == pytest.approx(one.level, abs=0.02)
    assert after.error_over_sd.value == pytest.approx(1, abs=0.04)
    assert after.nll.value < before.nll.value - 1 and after.crps.value < before.crps.value
    assert after.mae == before.mae


def test_the_factor_is_the_likeliest():
    truth, said = planted(300, np.random.default_rng(1), overconfident=2.0)
    best = VarianceScaling.fit(truth, said)

    def nll(factor):
        return -VarianceScaling(factor, log=False).apply(said).log_density(truth).mean()

    assert nll(best.factor) < min(nll(best.factor * 1.01), nll(best.factor / 1.01))


def test_a_point_gets_a_spread():
    rng = np.random.default_rng(2)
    truth, said = planted(1000, rng)
    scaled = VarianceScaling.fit(truth, Point(said.mean)).apply(Point(said.mean))
    assert (scaled.sd == np.sqrt(np.mean((truth - said.mean) ** 2))).all()
    assert score(truth, scaled).error_over_sd.value == pytest.approx(1, rel=1e-12)
    # of a logged target: a log-normal around the point, which is a median
    truth = lognorm.rvs(0.4, scale=80, size=1000, random_state=3)
    scaled = VarianceScaling.fit(truth, Point(np.full(1000, 80.0)), log=True).apply(Point(np.full(5, 80.0)))
    assert scaled.quantile(0.9) == pytest.approx(np.full(5, lognorm.ppf(0.9, 0.4, scale=80)), rel=0.03)
    assert scaled.quantile(0.5) == pytest.approx(np.full(5, 80.0))


def test_logged_targets_are_stretched_in_the_logarithm():
    rng = np.random.default_rng(4)
    mean = rng.normal(4.4, 0.3, size=3000)
    truth = np.exp(mean + 0.4 * rng.normal(size=3000))
    said = Logged(Normal(mean, np.full(3000, 0.2)))
    scaling = VarianceScaling.fit(truth, said)
    assert scaling.factor == pytest.approx(2, rel=0.03)
    assert (scaling.apply(said).quantile(0.001) > 0).all()
    assert score(truth, scaling.apply(said)).coverage[2].covered.value == pytest.approx(0.9, abs=0.015)


def distributions(n=12):
    """One of each kind that is stretched in its own way."""
    rng = np.random.default_rng(5)
    mean, sd = rng.normal(4, 0.5, size=n), np.full(n, 0.4)
    edges = np.linspace(1, 7, 13)
    p = np.diff(norm.cdf(edges[:, None], mean, sd), axis=0).T
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    return {
        "normal": Normal(mean, sd),
        "mixture": NormalMixture(np.stack([mean - 0.3, mean + 0.5]), np.stack([sd, sd / 2])),
        "histogram": Histogram(edges, p / p.sum(axis=1, keepdims=True)),
        "quantiles": Quantiles(levels, norm.ppf(levels[None], mean[:, None], sd[:, None])),
    }


@pytest.mark.parametrize("kind", distributions())
def test_a_stretched_distribution_is_a_distribution(kind):
    """Quantiles, distribution function, density and CRPS are of one and the same distribution."""
    inner = distributions()[kind]
    said = VarianceScaling(1.7, log=False).apply(inner)
    assert said.mean == pytest.approx(inner.mean, rel=1e-12)
    assert said.sd == pytest.approx(1.7 * inner.sd, rel=1e-12)
    agrees_with_itself(said)


def agrees_with_itself(said):
    for level in (0.02, 0.3, 0.5, 0.9):
        assert said.cdf(said.quantile(level)) == pytest.approx(np.full(said.n, level), abs=1e-9)
    grid = np.linspace(-6, 14, 4001)
    cdf = np.stack([said.cdf(float(x)) for x in grid])
    density = np.exp(np.stack([said.log_density(np.full(said.n, x)) for x in grid]))
    step = grid[1] - grid[0]
    # a jump of the density is hit or missed by half a step of the grid
    assert density.sum(axis=0) * step == pytest.approx(np.ones(said.n), abs=0.01)
    assert grid[-1] - cdf.sum(axis=0) * step == pytest.approx(said.mean, abs=5e-3)
    y = said.quantile(0.8)
    assert ((cdf - (grid[:, None] >= y)) ** 2).sum(axis=0) * step == pytest.approx(said.crps(y), abs=2e-3)


# --- the whole distribution function ---------------------------------------------------------------------------------


def skewed(rng):
    return lambda n: rng.exponential(size=n) - 1


def test_isotonic_repairs_the_shape_that_a_factor_cannot():
    rng = np.random.default_rng(6)
    validation, test = planted(4000, rng, noise=skewed(rng)), planted(4000, rng, noise=skewed(rng))
    scaled = score(test[0], VarianceScaling.fit(*validation).apply(test[1]))
    mapped = score(test[0], Isotonic.fit(*validation).apply(test[1]))
    assert max(abs(share.value - 0.1) for share in scaled.pit) > 0.04
    assert max(abs(share.value - 0.1) for share in mapped.pit) < 0.025
    assert mapped.nll.value < scaled.nll.value - 0.1 and mapped.crps.value < scaled.crps.value


@pytest.mark.parametrize("kind", distributions())
def test_a_mapped_distribution_is_a_distribution(kind):
    bent = Isotonic(at=(0.0, 0.1, 0.4, 0.8, 1.0), level=(0.0, 0.02, 0.5, 0.7, 1.0))
    agrees_with_itself(bent.apply(distributions()[kind]))


def test_a_map_of_honest_distributions_changes_little():
    rng = np.random.default_rng(8)
    truth, said = planted(4000, rng)
    mapped = Isotonic.fit(truth, said).apply(said)
    assert mapped.mean == pytest.approx(said.mean, abs=0.35)
    assert mapped.sd == pytest.approx(said.sd, rel=0.06)
    exact = Isotonic((0.0, 0.25, 1.0), (0.0, 0.25, 1.0)).apply(said)
    assert (np.abs(exact.mean - said.mean) < 3e-4 * said.sd).all()
    assert exact.sd == pytest.approx(said.sd, rel=2e-3)
    assert exact.crps(truth) == pytest.approx(said.crps(truth), rel=0.02, abs=0.02)


def test_truths_outside_of_everything_held_possible_leave_a_map():
    said = Histogram(np.array([0.0, 1.0]), np.ones((40, 1)))
    truth = np.concatenate([np.full(5, -1.0), np.linspace(0.1, 0.9, 30), np.full(5, 2.0)])
    mapped = Isotonic.fit(truth, said)
    assert mapped.at[0] == 0 < mapped.at[1] and mapped.at[-2] < 1 == mapped.at[-1]
    assert np.isfinite(mapped.apply(said).log_density(np.full(40, 0.5))).all()


def test_a_head_that_was_all_but_certain_of_the_wrong_leaves_a_map():
    """Its distribution function differs from 1 in the last digits only at many truths: no quantile is infinite."""
    said = Normal(np.zeros(40), np.ones(40))
    truth = np.concatenate([np.linspace(-1, 1, 20), np.linspace(7, 8.2, 20)])
    mapped = Isotonic.fit(truth, said).apply(said)
    assert np.isfinite(mapped.mean).all() and np.isfinite(mapped.sd).all() and np.isfinite(mapped.crps(truth)).all()
    assert mapped.quantile(0.25) == pytest.approx(np.zeros(40), abs=0.1)  # half of the truths that it had in mind


def test_a_map_needs_as_many_records_as_pieces():
    truth, said = planted(19, np.random.default_rng(0))
    with pytest.raises(ValueError, match="19"):
        Isotonic.fit(truth, said)


# --- conformal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("n", [19, 60])
def test_conformal_intervals_cover_at_the_stated_rate(normalised, n):
    """Over many validation sets, of a head whose spreads and shape are wrong: between level and level + 1 / (n + 1)."""
    rng = np.random.default_rng(9)
    repeats, n_test = 800, 1
    covered = dict.fromkeys((0.5, 0.8, 0.9, 0.95), 0)
    for _ in range(repeats):
        draw = planted(n + n_test, rng, overconfident=4.0, noise=lambda size: t.rvs(3, size=size, random_state=rng))
        truth, said = draw
        fitted = Conformal.fit(truth[:n], Normal(said.mean[:n], said.sd[:n]), normalised)
        interval = fitted.apply(Normal(said.mean[n:], said.sd[n:]))
        for level in covered:
            low, high = interval.quantile((1 - level) / 2), interval.quantile((1 + level) / 2)
            covered[level] += int(low[0] <= truth[n] <= high[0])
    for level, count in covered.items():
        assert binom.ppf(5e-4, repeats, level) <= count
        assert count <= binom.ppf(1 - 5e-4, repeats, min(level + 1 / (n + 1), 1))


def test_conformal_intervals_are_as_wide_as_the_errors():
    """Normalised ones are narrow where the head is sure, and narrower on average; of a point all are the same."""
    rng = np.random.default_rng(10)
    validation, (truth, said) = planted(2000, rng, overconfident=4.0), planted(2000, rng, overconfident=4.0)
    same = Conformal.fit(*validation, normalised=False).apply(said)
    own = Conformal.fit(*validation, normalised=True).apply(said)
    widths = {name: d.quantile(0.95) - d.quantile(0.05) for name, d in (("same", same), ("own", own))}
    assert np.ptp(widths["same"]) < 1e-6
    assert np.corrcoef(widths["own"], said.sd)[0, 1] > 0.999
    assert widths["own"].mean() < 0.95 * widths["same"].mean()
    found = score(truth, own)
    assert found.coverage[2].covered.value == pytest.approx(0.9, abs=0.02)
    assert found.mae.value == pytest.approx(score(truth, said).mae.value, rel=1e-6)
    of_point = Conformal.fit(validation[0], Point(validation[1].mean), normalised=False)
    assert of_point.apply(Point(said.mean)).quantile(0.9) == pytest.approx(same.quantile(0.9))


def test_the_rank_is_that_of_the_finite_sample():
    """Of 19 errors the 95 % interval reaches to the 19th, the 90 % interval to the 18th, the 50 % one to the 10th."""
    fitted = Conformal.fit(np.arange(1.0, 20.0), Point(np.zeros(19)), normalised=False)
    reach = dict(zip(CONFORMAL_LEVELS, fitted.half_widths, strict=True))
    assert (reach[0.95], reach[0.9], reach[0.8], reach[0.5]) == (19, 18, 16, 10)
    with pytest.raises(ValueError, match="95% intervals need 19 validation records, there are 18"):
        Conformal.fit(np.arange(18.0), Point(np.zeros(18)), normalised=False)


def test_members_are_pooled_before_they_are_recalibrated():
    said = Isotonic.fit(*planted(100, np.random.default_rng(0))).apply(planted(5, np.random.default_rng(1))[1])
    with pytest.raises(ValueError, match="pooled first"):
        ensemble([said, said])
