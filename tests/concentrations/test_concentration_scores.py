"""Scores against scikit-learn's and against planted errors, with intervals over patients; honest and dishonest spreads
are told apart."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LinearRegression
from sklearn.metrics import brier_score_loss, mean_absolute_error, mean_squared_error, r2_score, roc_auc_score

from ecgscale.concentrations.classification import CutOffs, probability_scores
from ecgscale.concentrations.measures import Errors, Spread
from ecgscale.concentrations.predictive import Histogram, Normal, Point
from ecgscale.concentrations.scores import Comparison, ConcentrationScores, differences, measure, scores

CUTS = (3.5, 5.0)


def planted(n=800, overconfident=1.0, seed=0):
    """Potassium, what a head says of it, and its patients, two records each: true spreads differ between records."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(4.2, 0.5, size=n)
    sd = 0.4 * np.exp(0.5 * rng.normal(size=n))
    truth = mean + sd * rng.normal(size=n)
    return truth, Normal(mean, sd / overconfident), np.arange(n) // 2


def constant(truth):
    return Normal(np.full_like(truth, truth.mean()), np.full_like(truth, truth.std()))


def test_errors_are_those_of_scikit_learn():
    truth, said, patients = planted()
    found = measure(truth, said, patients, CUTS, "A", n_resamples=0).scores()
    assert found.mae.value == pytest.approx(mean_absolute_error(truth, said.mean), rel=1e-12)
    assert found.mse.value == pytest.approx(mean_squared_error(truth, said.mean), rel=1e-12)
    assert found.r2.value == pytest.approx(r2_score(truth, said.mean), rel=1e-12)
    slope = LinearRegression().fit(truth[:, None], said.mean).coef_[0]
    assert found.slope.value == pytest.approx(slope, rel=1e-12)
    by_truth = (said.mean - truth)[np.argsort(truth)]
    assert found.bias_lowest.value == pytest.approx(by_truth[:40].mean(), rel=1e-12)
    assert found.bias_highest.value == pytest.approx(by_truth[-40:].mean(), rel=1e-12)
    assert found.bias_lowest.value > 0.2 and found.bias_highest.value < -0.2  # the noise is what makes them extreme
    assert found.nll.value == pytest.approx(-norm.logpdf(truth, said.mean, said.sd).mean(), rel=1e-12)
    assert (found.n_records, found.n_patients) == (800, 400)
    assert found.mae.low is None  # no draws were asked for


def test_a_draw_of_patients_is_scored_as_the_records_it_holds():
    """A record of weight 2 is two records, one of weight 0 is none."""
    truth, said, _ = planted(n=100)
    weights = np.random.default_rng(1).integers(0, 4, size=100)
    copied, spread = (np.repeat(a, weights) for a in (truth, said.sd))
    again = Normal(np.repeat(said.mean, weights), spread)
    for of in (Errors, Spread):
        weighted = of(truth, said).measured(weights[:, None].astype(float))
        copies = of(copied, again).measured(np.ones((len(copied), 1)))
        for name in set(weighted) - {"bias_lowest", "bias_highest", "bin_sd", "bin_rmse"}:  # cut where all records say
            assert weighted[name] == pytest.approx(copies[name], rel=1e-9), name
    cuts = [CutOffs(t, p, CUTS) for t, p in ((truth, said), (copied, again))]
    weighted, copies = cuts[0].measured(weights[:, None].astype(float)), cuts[1].measured(np.ones((len(copied), 1)))
    assert weighted["cut_auroc"] == pytest.approx(copies["cut_auroc"], rel=1e-9)
    assert weighted["cut_brier"] == pytest.approx(copies["cut_brier"], rel=1e-9)


def test_every_head_is_a_classifier_at_the_same_cut_offs():
    truth, said, patients = planted()
    found = measure(truth, said, patients, CUTS, "A", n_resamples=20).scores()
    by_number = measure(truth, Point(said.mean), patients, CUTS, "A", n_resamples=20).scores()
    for cut, own, points in zip(CUTS, found.cuts, by_number.cuts, strict=True):
        probability = norm.sf(cut, said.mean, said.sd)
        assert own.auroc.value == pytest.approx(roc_auc_score(truth > cut, probability), abs=1e-12)
        assert own.brier.value == pytest.approx(brier_score_loss(truth > cut, probability), rel=1e-12)
        assert points.auroc.value == pytest.approx(roc_auc_score(truth > cut, said.mean), abs=1e-12)
        assert own.n_above == points.n_above == (truth > cut).sum()
        assert points.brier is None and points.ece is None
    assert found.auroc.value == pytest.approx(np.mean([cut.auroc.value for cut in found.cuts]), abs=1e-12)
    assert found.auroc.value > by_number.auroc.value  # the spread says who may be above a cut-off


def test_a_cut_off_with_few_patients_is_marked_and_one_without_has_no_auroc():
    truth, said, patients = planted(n=400)
    ninth = np.sort(truth)[-9]
    few, nobody, many = measure(truth, said, patients, (ninth - 1e-9, 99.0, 4.2), "A", n_resamples=5).scores().cuts
    assert few.n_above == 9 and few.too_few and few.auroc.value is not None
    assert nobody.n_patients_above == 0 and nobody.too_few and nobody.auroc.value is None
    assert not many.too_few
    # several records of one patient are one patient
    same = measure(truth, said, np.where(truth > 4.2, 0, np.arange(400)), (4.2,), "A", n_resamples=5).scores().cuts[0]
    assert same.n_above > 100 and same.n_patients_above == 1 and same.too_few


def test_a_classifier_with_buckets_is_scored_as_a_regressor():
    truth, said, patients = planted()
    edges = np.array([1.0, 3.5, 5.0, 8.0])
    p = np.diff(norm.cdf(edges[:, None], said.mean, said.sd), axis=0).T
    found = measure(truth, Histogram(edges, p / p.sum(axis=1, keepdims=True)), patients, CUTS, "A", 20).scores()
    whole = measure(truth, said, patients, CUTS, "A", 20).scores()
    for own, cut in zip(found.cuts, whole.cuts, strict=True):
        assert own.auroc.value == pytest.approx(cut.auroc.value, abs=0.01)
    assert found.mae.value > whole.mae.value and found.crps.value > whole.crps.value


def test_an_honest_spread_covers_and_an_overconfident_one_is_exposed():
    truth, said, patients = planted(n=4000)
    honest = measure(truth, said, patients, CUTS, "A", 100).scores()
    for one in honest.coverage:
        assert one.covered.low - 0.01 <= one.level <= one.covered.high + 0.01
        assert one.width.value == pytest.approx((2 * norm.ppf((1 + one.level) / 2) * said.sd).mean(), rel=1e-9)
    assert honest.error_over_sd.value == pytest.approx(1, abs=0.03)
    assert honest.ence.value < honest.ence.by_chance < 0.1
    assert all(share.low - 0.01 <= 0.1 <= share.high + 0.01 for share in honest.pit)
    assert all(b.rmse.value == pytest.approx(b.sd.value, rel=0.15) for b in honest.sd_bins)
    sds = [b.sd.value for b in honest.sd_bins]
    assert sds == sorted(sds) and sds[-1] > 4 * sds[0] and len(sds) == 10

    truth, said, patients = planted(n=4000, overconfident=2.0)
    too_sure = measure(truth, said, patients, CUTS, "A", 100).scores()
    assert all(one.covered.high < one.level for one in too_sure.coverage)
    assert too_sure.error_over_sd.low < 2 < too_sure.error_over_sd.high
    assert too_sure.ence.value > 10 * too_sure.ence.by_chance
    assert too_sure.pit[0].low > 0.15 and too_sure.pit[-1].low > 0.15  # both ends are hit too often
    assert too_sure.nll.value > honest.nll.value and too_sure.crps.value > honest.crps.value
    assert too_sure.mae == honest.mae


def test_chance_alone_stays_below_what_is_called_chance():
    """ECE and ENCE of honest predictors exceed the stated value in 5 % of the cases, whatever their size."""
    above = np.zeros(2)
    for seed in range(100):
        truth, said, patients = planted(n=200, seed=seed)
        found = measure(truth, said, patients, (4.2,), str(seed), n_resamples=0).scores()
        ece = found.cuts[0].ece
        above += (found.ence.value > found.ence.by_chance, ece.value > ece.by_chance)
    assert (above <= 12).all() and above.sum() > 0  # binomial: 99.9 % of 100 draws at 5 %


def test_a_point_has_errors_and_nothing_that_needs_a_spread():
    truth, said, patients = planted()
    found = measure(truth, Point(said.mean), patients, CUTS, "A", 20).scores()
    assert found.crps.value == found.mae.value
    assert found.nll is None and found.ence is None and found.error_over_sd is None and found.n_impossible is None
    assert found.coverage == found.sd_bins == found.pit == found.sparsification == ()


def test_what_a_head_called_impossible_is_counted_and_has_no_likelihood():
    truth = np.array([4.0, 4.5, 9.0])
    said = Histogram(np.array([3.0, 4.2, 5.0]), np.full((3, 2), 0.5))
    found = measure(truth, said, np.arange(3), (), "A", 10).scores()
    assert found.n_impossible == 1 and found.nll.value is None
    assert found.crps.value > 1 and found.auroc.value is None


def test_the_constant_stands_beside_with_paired_differences():
    truth, said, patients = planted()
    found = scores(truth, said, patients, CUTS, constant(truth), "A", 200)
    assert found.constant.r2.value == pytest.approx(0, abs=1e-9) and found.constant.slope.value == 0
    assert found.constant.auroc.value == 0.5
    assert found.beyond_constant["mae"].high < 0 and found.beyond_constant["auroc"].low > 0
    assert found.beyond_constant["mae"].value == pytest.approx(found.scores.mae.value - found.constant.mae.value)
    paired = found.beyond_constant["mae"].high - found.beyond_constant["mae"].low
    assert paired < found.constant.mae.high - found.constant.mae.low  # the same draws of patients
    written = json.loads(found.model_dump_json())
    assert Comparison.model_validate(written) == found
    (one_bin,) = found.constant.sd_bins
    assert one_bin.n_records == 800


def test_differences_are_of_the_same_draws():
    truth, said, patients = planted()
    one = measure(truth, said, patients, CUTS, "A", 20)
    itself = differences(one, one)
    assert {"mae", "nll", "crps", "r2", "auroc"} <= set(itself)
    assert all(of.value == of.low == of.high == 0 for of in itself.values())
    with pytest.raises(ValueError, match="same draws"):
        differences(one, measure(truth, said, patients, CUTS, "B", 20))
    with pytest.raises(ValueError, match="same draws"):
        differences(one, measure(truth, said, patients[::-1], CUTS, "A", 20))


def test_intervals_are_over_patients():
    """Copies of a record are no new evidence."""
    truth, said, _ = planted(n=200)
    alone = measure(truth, said, np.arange(200), CUTS, "A", 200).scores()
    truth, mean, sd, patients = (np.repeat(a, 5) for a in (truth, said.mean, said.sd, np.arange(200)))
    copied = measure(truth, Normal(mean, sd), patients, CUTS, "A", 200).scores()
    for name in ("mae", "r2", "slope", "nll", "crps", "auroc"):
        before, after = getattr(alone, name), getattr(copied, name)
        assert (after.value, after.low, after.high) == pytest.approx((before.value, before.low, before.high), abs=1e-9)


def test_records_that_cannot_be_scored_are_refused():
    truth, said, patients = planted()
    with pytest.raises(ValueError, match="finite"):
        measure(np.where(truth > 5, np.nan, truth), said, patients, CUTS, "A")
    with pytest.raises(ValueError, match="799"):
        measure(truth[1:], said, patients[1:], CUTS, "A")
    with pytest.raises(ValueError, match=r"\(0,\)"):
        measure(truth[:0], Point(truth[:0]), patients[:0], CUTS, "A")


def test_scores_are_written_without_what_json_cannot_hold():
    truth, said, patients = planted(n=40)
    found = measure(truth, said, patients, (99.0,), "A", 5).scores()
    text = found.model_dump_json()
    assert "NaN" not in text and "Infinity" not in text
    assert ConcentrationScores.model_validate_json(text) == found


# --- probabilities of a class of its own ----------------------------------------------------------------------------


def test_ece_is_the_mean_distance_over_the_bins_by_their_records():
    """30 records of which 20 % are announced and 10 % come, 10 of which 80 % are announced and come."""
    probability = np.repeat([0.2, 0.8], [30, 10])
    positive = np.concatenate([np.arange(30) < 3, np.arange(10) < 8])
    found = probability_scores(positive, probability, np.arange(40), "A", 0)
    assert [b.n_records for b in found.bins] == [30, 10]
    assert [b.frequency.value for b in found.bins] == pytest.approx([0.1, 0.8])
    assert found.ece.value == pytest.approx(0.75 * 0.1)


def test_reliability_of_a_probability():
    rng = np.random.default_rng(3)
    probability = rng.beta(1, 4, size=3000)
    honest = probability_scores(rng.random(3000) < probability, probability, np.arange(3000), "A", 100)
    assert honest.ece.value < honest.ece.by_chance
    assert all(b.frequency.low - 0.02 <= b.probability.value <= b.frequency.high + 0.02 for b in honest.bins)
    assert sum(b.n_records for b in honest.bins) == 3000
    # the same ranks, said with too much confidence
    odds = (probability / (1 - probability)) ** 3
    too_sure = probability_scores(rng.random(3000) < probability, odds / (1 + odds), np.arange(3000), "A", 100)
    assert too_sure.ece.value > 2 * too_sure.ece.by_chance
    assert too_sure.nll.low > honest.nll.high and too_sure.brier.value > honest.brier.value


def test_a_probability_lies_between_0_and_1():
    with pytest.raises(ValueError, match="between 0 and 1"):
        probability_scores(np.array([True, False]), np.array([0.5, 1.5]), np.arange(2), "A")
