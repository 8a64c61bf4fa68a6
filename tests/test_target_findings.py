"""The pattern of the electrolyte study, looked for in planted tables: seen, not seen, undecided, and what lacks."""

import math
from pathlib import Path

import pandas as pd
import pytest

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.findings import Verdict
from ecgscale.prediction_files import CLASSICAL
from ecgscale.specs import Axes
from ecgscale.target_findings import (
    CHECKS,
    aleatoric_sorts_best,
    best_regressor,
    few_classes_easy,
    laplace_sorts_worst,
    networks_beat_features,
    not_calibrated,
    ordinal_holds_up,
    others_hardly,
    potassium_readable,
    predictions_shrink,
    target_conclusions,
)
from ecgscale.target_study import ENSEMBLE, NETWORKS, Networks, TargetStudy

SEEN, NOT_SEEN, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


def planted(scores, targets=("potassium",), heads=("mse", "gaussian")) -> TargetStudy:
    """A study of these scores.

    Args:
        scores: (target, head, score[, who[, recalibration]]) → (value, low, high).
    """
    axes = Axes(
        family=["resnet"], paradigm=["target"], rung=["20K"], data_fraction=[1], seed=[0], target=targets, head=heads
    )
    rows = []
    for (target, head, score, *rest), (value, low, high) in scores.items():
        who, recalibration = (*rest, *(NETWORKS, "")[len(rest) :])
        row = {
            "family": CLASSICAL if who == CLASSICAL else "resnet",
            "target": target,
            "head": head,
            "population": "A",
            "part": "test",
        }
        row |= {"condition": "clean", "who": who, "recalibration": recalibration, "score": score}
        rows.append(row | {"value": value, "low": low, "high": high, "constant": 2 * value})
    columns = ["family", "target", "head", "population", "part", "condition", "who", "recalibration", "score"]
    table = pd.DataFrame(rows, columns=[*columns, "value", "low", "high", "constant"])
    networks = tuple(network(target, head) for target in axes.target for head in axes.head)
    nothing = pd.DataFrame()
    return TargetStudy(
        name="planted",
        folder=Path("planted"),
        train_on="A",
        networks=networks,
        scores=table,
        curves=nothing,
        coverage=nothing,
        spreads=nothing,
        points=nothing,
        notes=(),
    )


def network(target: TargetSpec, head: HeadSpec) -> Networks:
    return Networks("resnet", "20K", 20_000, 1000, target, head, {"A": (Path("one"),)})


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.3, 0.2, 0.4), SEEN), ((-0.2, -0.3, -0.1), NOT_SEEN), ((0.1, -0.05, 0.2), UNDECIDED)],
)
def test_potassium_is_readable_where_the_skill_is_above_zero(interval, verdict):
    scores = {("potassium", "mse", "skill"): interval, ("potassium", "mse", "mae"): (0.3, 0.2, 0.4)}
    found = potassium_readable(planted(scores))
    assert found.verdict is verdict
    assert "MAE 0.3 [0.2, 0.4] mmol/l, the constant's 0.6" in found.findings[0].reason
    (finding,) = found.findings
    assert (finding.value, finding.low, finding.high) == interval
    assert f"potassium {interval[0]:.3g}".replace("-", "−") in found.summary


def test_the_head_that_stands_for_regression_is_not_picked_by_its_score():
    scores = {
        ("potassium", "gaussian", "skill"): (0.4, 0.3, 0.5),
        ("potassium", "gaussian", "mae", ENSEMBLE): (0.3, 0.2, 0.4),
        ("potassium", "mse", "skill"): (0.0, -0.1, 0.1),
        ("potassium", "mse", "mae", ENSEMBLE): (0.5, 0.4, 0.6),
    }
    study = planted(scores, heads=("gaussian", "mse"))
    assert potassium_readable(study).verdict is UNDECIDED
    assert best_regressor(study, "resnet", "potassium") == "gaussian"  # which figures may show


def test_differences_carry_the_intervals_of_both():
    scores = {
        ("potassium", "mse", "skill"): (0.4, 0.3, 0.6),
        ("sodium", "mse", "skill"): (0.1, 0.05, 0.2),
        ("creatinine", "mse", "skill"): (0.5, 0.4, 0.6),
    }
    found = others_hardly(planted(scores, ("potassium", "sodium", "creatinine")))
    sodium, creatinine = found.findings
    assert sodium.value == pytest.approx(0.3)
    assert sodium.low == pytest.approx(0.3 - math.hypot(0.1, 0.1))
    assert sodium.high == pytest.approx(0.3 + math.hypot(0.2, 0.05))
    assert (sodium.verdict, creatinine.verdict) == (SEEN, UNDECIDED)
    assert found.verdict is UNDECIDED  # not both are seen


def test_a_target_that_is_missing_is_named():
    study = planted({("potassium", "mse", "skill"): (0.4, 0.3, 0.6)})
    assert {f.reason for f in others_hardly(study).findings} == {
        "no sodium with this head",
        "no creatinine with this head",
    }
    age = planted({("age", "mse", "skill"): (0.4, 0.3, 0.6)}, ("age",))
    found = potassium_readable(age)
    assert found.verdict is UNDECIDED
    assert "no target potassium" in found.summary
    assert "age" in found.summary


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [((0.4, 0.3, 0.5), SEEN), ((1.3, 1.2, 1.4), NOT_SEEN), ((0.9, 0.7, 1.1), UNDECIDED)],
)
def test_shrinkage_is_a_slope_below_one(slope, verdict):
    found = predictions_shrink(planted({("potassium", "mse", "slope"): slope}))
    assert found.verdict is verdict
    assert found.findings[0].low == pytest.approx(1 - slope[2])


def test_targets_of_another_study_are_all_looked_at():
    found = predictions_shrink(planted({("age", "mse", "slope"): (0.4, 0.3, 0.5)}, ("age",)))
    assert [f.target for f in found.findings] == ["age"]
    assert found.verdict is SEEN


SOFTMAX_AND_ORDINAL = ("softmax-2", "softmax-4", "softmax-8", "ordinal-4", "ordinal-8", "coral-8")


def classes(**by_head):
    return {("potassium", head.replace("_", "-"), "own_auroc"): (v, v - 0.02, v + 0.02) for head, v in by_head.items()}


def test_few_classes_are_compared_with_the_most():
    scores = classes(softmax_2=0.85, softmax_4=0.6, softmax_8=0.75)
    (finding,) = few_classes_easy(planted(scores, heads=SOFTMAX_AND_ORDINAL)).findings
    assert finding.verdict is SEEN
    assert finding.value == pytest.approx(0.1)
    scores = classes(softmax_2=0.6, softmax_8=0.75)
    assert few_classes_easy(planted(scores, heads=SOFTMAX_AND_ORDINAL)).verdict is NOT_SEEN
    assert "fewer than two" in few_classes_easy(planted(classes(softmax_8=0.7), heads=SOFTMAX_AND_ORDINAL)).summary


def test_ordinal_is_compared_at_the_most_classes_that_both_have():
    scores = classes(softmax_2=0.85, softmax_4=0.7, softmax_8=0.6, ordinal_4=0.8, coral_8=0.9)
    (finding,) = ordinal_holds_up(planted(scores, heads=SOFTMAX_AND_ORDINAL)).findings
    assert finding.verdict is SEEN
    assert finding.value == pytest.approx(0.1)
    assert "4 classes" in finding.subject
    without = ordinal_holds_up(planted(classes(softmax_8=0.6, coral_8=0.9), heads=SOFTMAX_AND_ORDINAL))
    assert without.verdict is UNDECIDED


def sorting(*, aleatoric, ensemble=None, laplace=None):
    def around(v):
        return (v, v - 0.05, v + 0.05)

    found = {("potassium", "gaussian", "aleatoric_share", ENSEMBLE): around(aleatoric)}
    if ensemble is None:  # one network's spread is all aleatoric, and called so nowhere
        found = {("potassium", "gaussian", "total_share", ENSEMBLE): around(aleatoric)}
    else:
        found["potassium", "gaussian", "epistemic_share", ENSEMBLE] = around(ensemble)
    if laplace is not None:
        found["potassium", "gaussian", "epistemic_share", NETWORKS, "laplace"] = around(laplace)
    return planted(found)


def test_the_uncertainty_with_the_smaller_area_sorts_better():
    as_published = sorting(aleatoric=0.5, ensemble=0.7, laplace=0.9)
    assert aleatoric_sorts_best(as_published).verdict is SEEN
    assert laplace_sorts_worst(as_published).verdict is SEEN
    the_other_way = sorting(aleatoric=0.9, ensemble=0.7, laplace=0.5)
    assert aleatoric_sorts_best(the_other_way).verdict is NOT_SEEN
    assert laplace_sorts_worst(the_other_way).verdict is NOT_SEEN


def test_one_seed_has_no_ensemble_and_says_so():
    ensemble, laplace = aleatoric_sorts_best(sorting(aleatoric=0.5, laplace=0.9)).findings
    assert (ensemble.verdict, ensemble.reason) == (UNDECIDED, "one seed has no ensemble")
    assert laplace.verdict is SEEN


@pytest.mark.parametrize(
    ("covered", "verdict", "words"),
    [
        ((0.8, 0.77, 0.83), SEEN, "too narrow"),
        ((0.97, 0.95, 0.99), SEEN, "too wide"),
        ((0.905, 0.89, 0.915), NOT_SEEN, "right within 2 points"),
        ((0.91, 0.905, 0.915), NOT_SEEN, "right within 2 points"),
        ((0.88, 0.8, 0.95), UNDECIDED, "too few patients"),
    ],
)
def test_calibration_is_wrong_right_or_not_known(covered, verdict, words):
    found = not_calibrated(planted({("potassium", "gaussian", "covered_0.9", ENSEMBLE): covered}))
    assert found.verdict is verdict
    assert words in found.findings[0].reason


def test_the_network_is_compared_with_the_best_baseline():
    own = {("potassium", "mse", "mae"): (0.3, 0.29, 0.31)}
    assert "no regression on ECG features" in networks_beat_features(planted(own)).summary
    beside = {
        ("potassium", "ridge-waves", "mae", CLASSICAL): (0.5, 0.45, 0.55),
        ("potassium", "boosting-beat", "mae", CLASSICAL): (0.36, 0.35, 0.37),
    }
    (finding,) = networks_beat_features(planted(own | beside)).findings
    assert finding.verdict is SEEN
    assert finding.value == pytest.approx(1.2)
    assert "boosting-beat" in finding.reason


def test_every_check_answers_of_an_empty_table_and_of_heads_without_a_spread():
    for heads in (("mse",), ("gaussian",), ("softmax-4",)):
        found = target_conclusions(planted({}, heads=heads))
        assert len(found) == len(CHECKS)
        assert {c.verdict for c in found} == {UNDECIDED}
        assert all(c.summary and c.published and c.findings for c in found)
