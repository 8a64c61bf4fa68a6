"""The scale of a target and its buckets: fitted on training values, in the unit, and honest about what they hold."""

import json

import numpy as np
import pytest
from scipy import stats

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.target import AgeAndSexScale, TargetScale
from ecgscale.errors import DataError

POTASSIUM = TargetSpec(name="potassium", column="k", unit="mmol/l", cuts=(3.5, 5.0))
CREATININE = TargetSpec(name="creatinine", column="c", unit="µmol/l", log=True, cuts=(110.0,))
MSE = HeadSpec(name="mse", kind="mse")


def potassium(n: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).normal(4.2, 0.6, n)


def creatinine(n: int = 4000) -> np.ndarray:
    return np.random.default_rng(1).lognormal(4.4, 0.5, n)


def classes(rule: object, n: int | None = None) -> HeadSpec:
    return HeadSpec(name="h", kind="softmax", buckets=rule, classes=n)


@pytest.mark.parametrize(("values", "target"), [(potassium(), POTASSIUM), (creatinine(), CREATININE)])
def test_a_network_sees_values_with_mean_0_and_spread_1(values, target):
    scale = TargetScale.fit(values, target, MSE)
    z = scale.to_model(values)
    assert z.mean() == pytest.approx(0, abs=1e-12)
    assert z.std() == pytest.approx(1)
    np.testing.assert_allclose(scale.to_unit(z), values)
    np.testing.assert_allclose(scale.trained_on(values), z, rtol=1e-5, atol=1e-6)
    if target.log:
        assert abs(stats.skew(z)) < 0.1 < stats.skew(values)


@pytest.mark.parametrize("n_classes", [2, 3, 8])
def test_quantile_buckets_hold_equal_counts(n_classes):
    scale = TargetScale.fit(potassium(), POTASSIUM, classes("quantile", n_classes))
    counts = np.bincount(scale.classes(potassium()))
    assert len(counts) == scale.n_classes == n_classes
    assert np.ptp(counts) <= 2
    assert (scale.edges[0], scale.edges[-1]) == (potassium().min(), potassium().max())


def test_buckets_of_equal_width_are_that_in_the_unit_also_of_a_logged_target():
    for values, target in ((potassium(), POTASSIUM), (creatinine(), CREATININE)):
        scale = TargetScale.fit(values, target, classes("width", 5))
        np.testing.assert_allclose(np.diff(scale.edges[1:-1], n=2), 0, atol=1e-9)
        assert np.bincount(scale.classes(values)).min() > 0


@pytest.mark.parametrize(
    ("rule", "inner"), [("cuts", (3.5, 5.0)), ("lowest_cut", (3.5,)), ("highest_cut", (5.0,)), ((3.0, 4.0), (3.0, 4.0))]
)
def test_buckets_meet_at_the_cut_offs_of_the_target_or_where_they_are_told(rule, inner):
    scale = TargetScale.fit(potassium(), POTASSIUM, classes(rule))
    assert scale.edges[1:-1] == inner


def test_a_class_is_above_its_edges_and_a_value_on_an_edge_is_not():
    scale = TargetScale.fit(potassium(), POTASSIUM, classes("cuts"))
    values = np.array([1.0, 3.5, 3.501, 5.0, 5.001, 99.0])
    assert scale.classes(values).tolist() == [0, 0, 1, 1, 2, 2]
    assert scale.trained_on(values).tolist() == [0, 0, 1, 1, 2, 2]


def test_values_rounded_to_whole_numbers_do_not_shift_the_mean():
    sodium = np.round(np.random.default_rng(2).normal(140, 3, 3000))
    scale = TargetScale.fit(sodium, TargetSpec(name="na", column="na", unit="mmol/l"), classes("quantile", 3))
    assert all(edge % 1 == 0.5 for edge in scale.edges[1:-1])
    assert scale.marginal(1).mean == pytest.approx(sodium.mean(), abs=0.05)


@pytest.mark.parametrize(("values", "target"), [(potassium(), POTASSIUM), (creatinine(), CREATININE)])
@pytest.mark.parametrize("head", [MSE, classes("quantile", 2), classes("quantile", 8), classes("cuts")])
def test_what_training_values_are_like_does_not_depend_on_the_number_of_classes(values, target, head):
    """Otherwise few classes would look worse as regressors because of their buckets, not of what they learned."""
    marginal = TargetScale.fit(values, target, head).marginal(3)
    assert marginal.mean == pytest.approx(values.mean(), rel=0.005)
    assert marginal.sd == pytest.approx(values.std(), rel=0.05)
    assert marginal.quantile(0.9) == pytest.approx(np.quantile(values, 0.9), rel=0.01)


@pytest.mark.parametrize(("values", "target"), [(potassium(), POTASSIUM), (creatinine(), CREATININE)])
def test_a_sure_class_has_the_mean_of_its_training_values(values, target):
    scale = TargetScale.fit(values, target, classes("quantile", 4))
    means = [values[scale.classes(values) == k].mean() for k in range(4)]
    np.testing.assert_allclose(scale.histogram(np.eye(4)).mean, means, rtol=0.02)


def test_the_probability_of_a_class_is_that_between_its_edges():
    scale = TargetScale.fit(potassium(), POTASSIUM, classes("cuts"))
    said = scale.histogram(np.array([[0.1, 0.7, 0.2]]))
    assert 1 - said.cdf(5.0) == pytest.approx(0.2)
    assert said.cdf(3.5) == pytest.approx(0.1)
    beyond = scale.histogram(np.tile([0.1, 0.7, 0.2], (2, 1))).log_density(np.array([0.5, 9.5]))
    assert np.isfinite(beyond).all()


@pytest.mark.parametrize("head", [MSE, classes("quantile", 3)])
def test_a_scale_survives_the_way_through_json(head):
    scale = TargetScale.fit(creatinine(), CREATININE, head)
    assert TargetScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@pytest.mark.parametrize(
    ("values", "target", "head", "message"),
    [
        (potassium(19), POTASSIUM, MSE, "at least 20 values, all of them finite"),
        (np.append(potassium(), np.nan), POTASSIUM, MSE, "all of them finite"),
        (np.full(50, 4.0), POTASSIUM, MSE, "all 50 training values are 4"),
        (np.append(creatinine(), [0, -1]), CREATININE, MSE, "2 values are not above 0, so `log` is impossible"),
        (potassium(), POTASSIUM, classes((3.5, 50.0)), "no training value in the bucket 50 to above mmol/l"),
        (potassium(), POTASSIUM, classes((0.5, 4.0)), "no training value in the bucket below to 0.5 mmol/l"),
        (potassium(), POTASSIUM, classes((4.0, 4.0 + 1e-9)), "no training value in the bucket 4 to 4 mmol/l"),
        (np.repeat([4.0, 5.0], 50), POTASSIUM, classes("quantile", 4), "2 distinct training values do not give 4"),
    ],
)
def test_values_that_cannot_be_learned_are_refused(values, target, head, message):
    with pytest.raises(DataError, match=message):
        TargetScale.fit(values, target, head)


def test_cut_offs_that_the_target_lacks_are_refused():
    with pytest.raises(DataError, match="head h has `buckets: highest_cut`, but target age has no `cuts`"):
        TargetScale.fit(potassium(), TargetSpec(name="age", column="age", unit="years"), classes("highest_cut"))


def test_age_and_sex_are_standardised_and_unknown_is_average():
    age, male = np.array([40.0, 60.0, np.nan, 80.0]), np.array([0.0, 1.0, 1.0, np.nan])
    seen = AgeAndSexScale.fit(age, male).to_model(age, male)
    assert seen.shape == (4, 2)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-6)
    assert seen[2, 0] == 0 and seen[3, 1] == 0
    assert (AgeAndSexScale.fit(age, np.ones(4)).to_model(age, np.ones(4))[:, 1] == 0).all()
    with pytest.raises(DataError, match="nobody's age, or nobody's sex, is known"):
        AgeAndSexScale.fit(age, np.full(4, np.nan))
