"""What a head says of a record: every distribution against numerical integration, scipy and the published forms."""

import numpy as np
import pytest
from scipy import integrate, stats

from ecgscale.concentrations.predictive import (
    Histogram,
    Logged,
    Normal,
    NormalMixture,
    NoSpread,
    Point,
    Predictive,
    Quantiles,
    ensemble,
)

EDGES = np.array([2.0, 3.5, 4.0, 5.0, 8.0])
MIXED = (np.array([3.9, 4.3, 5.2]), np.array([0.3, 0.5, 0.2]))
LOG_MIXED = (np.array([4.2, 4.5, 4.4]), np.array([0.3, 0.2, 0.4]))
LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
KINDS = ["normal", "mixture", "logged", "logged_mixture", "histogram", "histogram_tails", "quantiles"]


def rows(values: np.ndarray, n: int) -> np.ndarray:
    return np.tile(values, (n, 1))


def said(kind: str, n: int) -> Predictive:
    """The same distribution of n records, so that a whole grid is asked at once."""
    if kind == "normal":
        return Normal(np.full(n, 4.2), np.full(n, 0.4))
    if kind == "logged":
        return Logged(Normal(np.full(n, 4.3), np.full(n, 0.35)))
    if kind in ("mixture", "logged_mixture"):
        means, sds = (rows(values, n).T for values in (MIXED if kind == "mixture" else LOG_MIXED))
        return NormalMixture(means, sds) if kind == "mixture" else Logged(NormalMixture(means, sds))
    if kind == "quantiles":
        return Quantiles(LEVELS, rows(np.array([3.1, 3.9, 4.1, 4.6, 6.0]), n))
    tails = (0.4, 0.8) if kind == "histogram_tails" else None
    return Histogram(EDGES, rows(np.array([0.1, 0.4, 0.3, 0.2]), n), tails)


def grid_of(kind: str, n: int = 200_001) -> tuple[np.ndarray, np.ndarray, Predictive]:
    """Places from one end of the distribution to the other, its distribution function there, the distribution."""
    one = said(kind, 1)
    at = np.linspace(one.quantile(1e-9)[0], one.quantile(1 - 1e-9)[0], n)
    distribution = said(kind, n)
    return at, distribution.cdf(at), distribution


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_function_rises_from_0_to_1_and_its_quantiles_undo_it(kind):
    _, cdf, _ = grid_of(kind)
    assert (np.diff(cdf) >= 0).all()
    assert cdf[0] == pytest.approx(0, abs=1e-8)
    assert cdf[-1] == pytest.approx(1, abs=1e-8)
    for level in (0.001, 0.025, 0.1, 0.5, 0.77, 0.95, 0.999):
        assert said(kind, 2).cdf(said(kind, 2).quantile(level)) == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_spread_are_those_of_the_distribution_function(kind):
    at, cdf, distribution = grid_of(kind)
    mean = at[-1] - integrate.trapezoid(cdf, at)
    square = at[-1] ** 2 - integrate.trapezoid(2 * at * cdf, at)
    assert distribution.mean[0] == pytest.approx(mean, rel=1e-5)
    assert distribution.sd[0] == pytest.approx(np.sqrt(square - mean**2), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_the_slope_of_the_distribution_function(kind):
    at, cdf, distribution = grid_of(kind)
    middle = (at[1:] + at[:-1]) / 2
    slope = np.diff(cdf) / np.diff(at)
    density = np.exp(said(kind, len(middle)).log_density(middle))
    steps = np.abs(np.diff(slope, prepend=slope[0], append=slope[-1])) < 1e-3 * slope.max()
    smooth = steps[1:] & steps[:-1]  # not across an edge
    assert smooth.mean() > 0.999
    np.testing.assert_allclose(density[smooth], slope[smooth], rtol=1e-3, atol=1e-3 * slope.max())
    assert distribution.n == len(at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [1e-4, 0.02, 0.5, 0.9, 0.9999])
def test_the_crps_is_its_integral(kind, level):
    at, cdf, _ = grid_of(kind)
    one = said(kind, 1)
    k = int(np.searchsorted(cdf, level))
    by_hand = integrate.trapezoid(cdf[: k + 1] ** 2, at[: k + 1]) + integrate.trapezoid((1 - cdf[k:]) ** 2, at[k:])
    assert one.crps(at[k : k + 1])[0] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_far_from_everything_the_crps_grows_with_the_distance(kind):
    one = said(kind, 1)
    far, farther = one.crps(np.array([500.0])), one.crps(np.array([501.0]))
    assert farther - far == pytest.approx(1, abs=2e-3)


def test_normals_are_those_of_scipy_with_every_constant():
    rng = np.random.default_rng(0)
    mean, sd, y = rng.normal(4, 1, 50), rng.uniform(0.01, 3, 50), rng.normal(4, 2, 50)
    normal, reference = Normal(mean, sd), stats.norm(mean, sd)
    np.testing.assert_allclose(normal.log_density(y), reference.logpdf(y), rtol=1e-12)
    np.testing.assert_allclose(normal.cdf(y), reference.cdf(y), rtol=1e-12)
    np.testing.assert_allclose(normal.quantile(0.9), reference.ppf(0.9), rtol=1e-12)
    z = (y - mean) / sd
    published = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(normal.crps(y), published, rtol=1e-10)


def test_log_normals_are_those_of_scipy_in_the_unit():
    mean, sd, y = np.array([4.4, 4.0]), np.array([0.2, 0.6]), np.array([90.0, 300.0])
    logged, reference = Logged(Normal(mean, sd)), stats.lognorm(sd, scale=np.exp(mean))
    np.testing.assert_allclose(logged.log_density(y), reference.logpdf(y), rtol=1e-12)
    np.testing.assert_allclose(logged.mean, reference.mean(), rtol=1e-12)
    np.testing.assert_allclose(logged.sd, reference.std(), rtol=1e-12)
    np.testing.assert_allclose(logged.quantile(0.05), reference.ppf(0.05), rtol=1e-12)


def test_a_log_normal_says_that_nothing_lies_at_or_below_0():
    logged = said("logged", 2)
    nowhere = np.array([0.0, -3.0])
    assert (logged.cdf(nowhere) == 0).all()
    assert (logged.log_density(nowhere) == -np.inf).all()
    np.testing.assert_allclose(logged.crps(nowhere) - logged.crps(np.zeros(2)), [0, 3])


def test_a_histogram_is_that_of_scipy():
    histogram, reference = said("histogram", 5), stats.rv_histogram((np.array([1, 4, 3, 2]), EDGES), density=False)
    y = np.array([2.3, 3.7, 4.1, 4.9, 7.5])
    np.testing.assert_allclose(histogram.cdf(y), reference.cdf(y))
    np.testing.assert_allclose(histogram.log_density(y), reference.logpdf(y))
    np.testing.assert_allclose(histogram.mean, reference.mean())
    np.testing.assert_allclose(histogram.sd, reference.std())


def test_outside_its_buckets_a_histogram_has_a_density_only_with_tails():
    outside, ends = np.array([1.0, 9.0]), np.array([2.0, 8.0])
    assert (said("histogram", 2).log_density(outside) == -np.inf).all()
    assert np.isfinite(said("histogram", 2).log_density(ends)).all()
    assert np.isfinite(said("histogram_tails", 2).log_density(outside)).all()


def test_a_bucket_without_probability_does_no_harm():
    histogram = Histogram(EDGES, np.array([[0.0, 0.5, 0.0, 0.5]]))
    assert histogram.quantile(0.5) == pytest.approx(4.0)
    assert histogram.quantile(0.75) == pytest.approx(6.5)
    assert histogram.log_density(np.array([4.5])) == -np.inf
    with_tails = Histogram(EDGES, np.array([[0.0, 0.5, 0.5, 0.0]]), (0.4, 0.8))
    np.testing.assert_allclose([with_tails.quantile(q)[0] for q in (0.001, 0.5, 0.999)], [3.501, 4.0, 4.998])
    assert np.isfinite(with_tails.crps(np.array([4.5]))).all()


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.5, 0.2, 0.2, 0.2], [1.2, -0.2, 0, 0]])
def test_probabilities_of_buckets_are_probabilities(p):
    with pytest.raises(ValueError, match="buckets need as many probabilities per record, which sum to 1"):
        Histogram(EDGES, np.array([p]))


def test_quantiles_are_what_was_said_sorted():
    crossed = Quantiles(np.array([0.1, 0.5, 0.9]), np.array([[4.0, 3.8, 5.0], [1.0, 2.0, 3.0]]))
    np.testing.assert_allclose([crossed.quantile(q)[0] for q in (0.1, 0.5, 0.9)], [3.8, 4.0, 5.0])
    np.testing.assert_allclose([crossed.quantile(q)[1] for q in (0.1, 0.3, 0.5, 0.9)], [1.0, 1.5, 2.0, 3.0])


def test_the_tails_of_quantiles_continue_the_density_at_either_end():
    quantiles = said("quantiles", 4)
    density = quantiles.log_density(np.array([3.1 - 1e-9, 3.1 + 1e-9, 6.0 - 1e-9, 6.0 + 1e-9]))
    assert density[0] == pytest.approx(density[1], abs=1e-6)
    assert density[2] == pytest.approx(density[3], abs=1e-6)


def test_equal_quantiles_keep_every_score_finite():
    same = Quantiles(np.array([0.1, 0.5, 0.9]), np.array([[4.0, 4.0, 4.0], [0.0, 0.0, 1.0]]))
    y = np.array([4.5, 0.5])
    assert np.isfinite(same.crps(y)).all()
    assert not np.isnan(same.log_density(y)).any()
    assert same.crps(y)[0] == pytest.approx(0.5, abs=1e-6)


def test_a_point_is_scored_by_its_error_and_has_no_spread():
    point, y = Point(np.array([4.0, 5.0])), np.array([4.5, 3.0])
    assert point.crps(y).tolist() == [0.5, 2.0]
    assert point.cdf(4.5).tolist() == [1.0, 0.0]
    assert not point.has_spread
    asked = (lambda: point.sd, lambda: point.aleatoric_sd, lambda: point.quantile(0.5), lambda: point.log_density(y))
    for ask in asked:
        with pytest.raises(NoSpread, match="a point has no"):
            ask()


@pytest.mark.parametrize("sd", [0.0, -1.0, np.nan, np.inf])
def test_a_normal_needs_a_spread(sd):
    with pytest.raises(ValueError, match="standard deviations finite and above 0"):
        Normal(np.array([4.0]), np.array([sd]))


# --- ensembles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_identical_members_say_what_one_says_and_disagree_about_nothing(kind):
    one, y = said(kind, 3), np.array([3.3, 4.4, 6.6])
    together = ensemble([said(kind, 3)] * 4)
    own = 0.0 if one.epistemic_sd is None else one.epistemic_sd
    np.testing.assert_allclose(together.epistemic_sd, own, atol=1e-9)
    np.testing.assert_allclose(together.sd, one.sd, rtol=1e-9)
    np.testing.assert_allclose(together.aleatoric_sd, one.aleatoric_sd, rtol=1e-9)
    np.testing.assert_allclose(together.crps(y), one.crps(y), rtol=1e-9)
    np.testing.assert_allclose(together.log_density(y), one.log_density(y), rtol=1e-9)
    np.testing.assert_allclose(together.quantile(0.9), one.quantile(0.9), rtol=1e-9)


def test_the_variance_of_an_ensemble_is_the_noise_and_the_disagreement():
    members = [Normal(np.array([m]), np.array([s])) for m, s in zip(*MIXED, strict=True)]
    together = ensemble(members)
    assert together.aleatoric_sd == pytest.approx(np.sqrt(np.mean(MIXED[1] ** 2)))
    assert together.epistemic_sd == pytest.approx(np.std(MIXED[0]))
    assert together.sd**2 == pytest.approx(together.aleatoric_sd**2 + together.epistemic_sd**2)
    assert together.log_density(np.array([4.0])) == pytest.approx(said("mixture", 1).log_density(np.array([4.0])))


def test_in_the_unit_of_a_logged_target_too():
    members = [Logged(Normal(np.array([m]), np.array([s]))) for m, s in zip(*LOG_MIXED, strict=True)]
    together = ensemble(members)
    own = np.array([member.sd[0] for member in members])
    assert together.aleatoric_sd == pytest.approx(np.sqrt(np.mean(own**2)))
    assert together.epistemic_sd == pytest.approx(np.std([member.mean for member in members]))


def test_what_laplace_does_not_know_is_counted_once():
    """A spread of 5 with 3 from not knowing the weights, of two networks that are 8 apart."""
    members = [Normal(np.array([m]), np.array([5.0]), epistemic_sd=np.array([3.0])) for m in (0.0, 8.0)]
    assert members[0].aleatoric_sd == pytest.approx(4.0)
    together = ensemble(members)
    assert together.aleatoric_sd == pytest.approx(4.0)
    assert together.epistemic_sd == pytest.approx(5.0)


def test_what_laplace_does_not_know_of_a_logged_target_is_that_of_its_median_and_noise():
    rng = np.random.default_rng(0)
    logged = Logged(Normal(np.array([4.0]), np.array([0.5]), epistemic_sd=np.array([0.3])))
    center = 4.0 + 0.3 * rng.standard_normal(2_000_000)
    means = np.exp(center + (0.5**2 - 0.3**2) / 2)
    assert logged.epistemic_sd == pytest.approx(means.std(), rel=5e-3)


def test_an_ensemble_of_histograms_is_their_mean():
    rng = np.random.default_rng(1)
    members = [Histogram(EDGES, rng.dirichlet(np.ones(4), size=6)) for _ in range(3)]
    together = ensemble(members)
    for at in (3.0, 4.5, 6.0):
        np.testing.assert_allclose(together.cdf(at), np.mean([member.cdf(at) for member in members], axis=0))
    np.testing.assert_allclose(together.aleatoric_sd**2, np.mean([member.sd**2 for member in members], axis=0))


def test_an_ensemble_of_points_knows_what_it_disagrees_about():
    together = ensemble([Point(np.array([4.0, 4.0])), Point(np.array([4.0, 5.0]))])
    assert together.mean.tolist() == [4.0, 4.5]
    assert together.epistemic_sd is not None and together.epistemic_sd.tolist() == [0.0, 0.5]


def test_an_ensemble_of_quantiles_averages_them():
    first = Quantiles(np.array([0.25, 0.75]), np.array([[3.0, 4.0]]))
    second = Quantiles(np.array([0.25, 0.75]), np.array([[5.0, 8.0]]))
    together = ensemble([first, second])
    assert together.quantile(0.25) == pytest.approx(4.0)
    assert together.quantile(0.75) == pytest.approx(6.0)
    assert together.epistemic_sd == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "at least one member"),
        ([said("normal", 2), Point(np.zeros(2))], "members of one kind, not NormalMixture, Point"),
        ([said("normal", 2), said("normal", 3)], "of the same records, not 2, 3"),
        ([said("normal", 2), said("mixture", 2)], "the same number of members"),
        ([said("histogram", 2), said("histogram_tails", 2)], "the same buckets"),
        ([said("quantiles", 1), Quantiles(np.array([0.1, 0.9]), np.array([[1.0, 2.0]]))], "the same levels"),
    ],
)
def test_members_that_do_not_fit_are_refused(members, message):
    with pytest.raises(ValueError, match=message):
        ensemble(members)
