"""Linear read-outs with known answers: separable features, pure noise, few labels, missing and useless targets."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ecgscale.data.splits import TEST, TRAIN, VALIDATION
from ecgscale.errors import DataError
from ecgscale.results import TaskScore
from ecgscale.specs import ProbeSpec, TaskSpec
from ecgscale.transfer import Part, beside, score_tasks, score_zero_shot
from ecgscale.transfer.targets import labelled

SIZES = {TRAIN: 400, VALIDATION: 200, TEST: 400}


def make_parts(width: int = 8, seed: int = 0, sizes: dict[str, int] = SIZES, **columns) -> dict[str, Part]:
    """Normal features; a column is a function of (rng, features) → values."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, n in sizes.items():
        features = rng.normal(size=(n, width))
        parts[name] = Part(features, pd.DataFrame({key: make(rng, features) for key, make in columns.items()}))
    return parts


def score(parts: dict[str, Part], *tasks: TaskSpec, **probe) -> tuple[TaskScore, ...]:
    return score_tasks("B", parts, ProbeSpec(tasks=tasks, **probe), seen_labels=("AF", "SB"))


AF = TaskSpec(name="AF", column="AF")
AGE = TaskSpec(name="age", column="age", kind="regression")


def test_a_class_that_can_be_read_off_is_read_off():
    (found,) = score(make_parts(AF=lambda rng, x: x[:, 2] - x[:, 5] > 0), AF)
    assert found.auroc == pytest.approx(1.0, abs=1e-3)
    assert found.loss < 0.1
    assert found.constant_loss == pytest.approx(math.log(2), abs=0.02)
    assert found.l2 == 1e-4  # nothing to be afraid of
    assert (found.population, found.task, found.kind, found.n_train, found.n_test) == ("B", "AF", "binary", 400, 400)
    assert 150 < found.n_test_positive < 250


def test_noise_is_not_read_off():
    (found,) = score(make_parts(width=40, AF=lambda rng, x: rng.random(len(x)) < 0.2), AF)
    assert found.auroc == pytest.approx(0.5, abs=0.08)
    assert found.loss == pytest.approx(found.constant_loss, rel=0.05)
    assert found.l2 == 1.0  # the strongest penalty was chosen on the validation records


def test_the_constant_predictor_is_the_training_prevalence_on_the_test_records():
    parts = make_parts(AF=lambda rng, x: np.arange(len(x)) < 0.1 * len(x))
    parts[TEST] = Part(parts[TEST].features, parts[TEST].exams.assign(AF=np.arange(400) < 200))
    (found,) = score(parts, AF)
    p = (40 + 1) / (400 + 2)
    assert found.constant_loss == pytest.approx(-0.5 * math.log(p) - 0.5 * math.log(1 - p), rel=1e-9)
    assert found.n_test_positive == 200


def test_a_number_that_can_be_read_off_is_read_off():
    (found,) = score(make_parts(age=lambda rng, x: 60 + 15 * x[:, 1]), AGE)
    assert found.loss < 1e-3
    assert found.constant_loss == pytest.approx(1.0, abs=0.15)
    assert found.auroc is None and found.n_test_positive is None


def test_regression_losses_do_not_depend_on_the_unit():
    years = make_parts(age=lambda rng, x: 60 + 15 * (x[:, 1] + rng.normal(size=len(x))))
    days = {name: Part(part.features, part.exams * 365.25) for name, part in years.items()}
    (in_years,), (in_days,) = score(years, AGE), score(days, AGE)
    assert in_days.loss == pytest.approx(in_years.loss, rel=1e-6)
    assert 0.4 < in_years.loss < 0.65  # half of the variance is noise
    assert in_days.constant_loss == pytest.approx(in_years.constant_loss, rel=1e-6)


def test_features_may_have_any_scale_and_be_constant():
    parts = make_parts(AF=lambda rng, x: x[:, 2] > 0)
    stretched = {n: Part(p.features * np.logspace(-6, 6, 8) + 7, p.exams) for n, p in parts.items()}
    constant = {n: Part(np.hstack([p.features, np.full((len(p.features), 2), 3.0)]), p.exams) for n, p in parts.items()}
    (plain,) = score(parts, AF)
    for other in (stretched, constant):
        (found,) = score(other, AF)
        assert found.loss == pytest.approx(plain.loss, rel=1e-3)


def test_a_threshold_makes_classes_of_a_number():
    parts = make_parts(age=lambda rng, x: 65.0 + np.round(10 * x[:, 0]))
    (found,) = score(parts, TaskSpec(name="over_65", column="age", above=65))
    assert found.n_test_positive == (parts[TEST].exams["age"] > 65).sum()  # 65 itself is not above
    assert found.auroc > 0.99


def test_records_without_a_value_are_left_out_of_every_part():
    def with_gaps(rng, x):
        return np.where(np.arange(len(x)) % 4 == 0, np.nan, 60 + 15 * x[:, 1])

    parts = make_parts(age=with_gaps, AF=lambda rng, x: x[:, 0] > 0)
    over = TaskSpec(name="over", column="age", above=60)
    age, over, af = score(parts, AGE, over, AF)
    for found in (age, over):
        assert (found.n_train, found.n_test) == (300, 300)
    assert (af.n_train, af.n_test) == (400, 400)
    # and the gaps change nothing for those that are there
    assert age.loss < 1e-3 and over.auroc > 0.99


def test_nullable_columns_of_a_table_may_be_empty():
    parts = make_parts(male=lambda rng, x: pd.array(np.where(np.arange(len(x)) % 5 == 0, None, x[:, 0] > 0), "boolean"))
    (found,) = score(parts, TaskSpec(name="male", column="male"))
    assert found.n_test == 320


USELESS = {
    "one class": lambda rng, x: np.zeros(len(x)),
    "no value": lambda rng, x: np.full(len(x), np.nan),
}


@pytest.mark.parametrize("why", USELESS)
def test_a_task_that_can_not_be_fitted_here_says_why_and_the_others_are_scored(why):
    parts = make_parts(AF=USELESS[why], SB=lambda rng, x: x[:, 0] > 0)
    not_fitted, fitted = score(parts, AF, TaskSpec(name="SB", column="SB"))
    reasons = {"one class": "every training record has the same value", "no value": "no train record has a value"}
    assert (not_fitted.task, not_fitted.reason) == ("AF", reasons[why])
    assert not_fitted.loss is not_fitted.constant_loss is not_fitted.auroc is not_fitted.l2 is None
    assert fitted.task == "SB" and fitted.loss < 0.1 and fitted.reason is None


def test_a_number_that_never_varies_has_no_loss():
    (found,) = score(make_parts(age=lambda rng, x: np.full(len(x), 65.3)), AGE)
    assert found.loss is None and found.reason == "every training record has the same value"


@pytest.mark.parametrize("part", [VALIDATION, TEST])
def test_a_part_without_values_is_named(part):
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0)
    parts[part] = Part(parts[part].features, parts[part].exams.assign(AF=np.nan))
    (found,) = score(parts, AF)
    assert found.loss is None and found.reason == f"no {part} record has a value"


def test_a_test_set_of_one_class_has_a_loss_and_no_auroc():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0)
    parts[TEST] = Part(parts[TEST].features, parts[TEST].exams.assign(AF=False))
    (found,) = score(parts, AF)
    assert found.auroc is None and math.isfinite(found.loss) and found.n_test_positive == 0


def test_a_task_is_seen_when_its_column_is_a_pretraining_label():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0, male=lambda rng, x: x[:, 1] > 0)
    seen, unseen = score(parts, TaskSpec(name="flutter", column="AF"), TaskSpec(name="male", column="male"))
    assert seen.seen and not unseen.seen


def test_the_penalty_is_chosen_on_the_validation_records_alone():
    """Test records that would like another penalty are not asked."""
    parts = make_parts(width=40, AF=lambda rng, x: rng.random(len(x)) < 0.2)
    (before,) = score(parts, AF)
    parts[TEST] = Part(parts[TRAIN].features, parts[TRAIN].exams)
    (after,) = score(parts, AF)
    assert after.l2 == before.l2 == 1.0


def test_one_extreme_test_record_does_not_make_the_loss_infinite():
    parts = make_parts(AF=lambda rng, x: x[:, 2] > 0)
    features = parts[TEST].features.copy()
    features[0] = -1e6 * np.sign(2.0 * parts[TEST].exams["AF"].iloc[0] - 1)
    (found,) = score(parts | {TEST: Part(features, parts[TEST].exams)}, AF)
    assert math.isfinite(found.loss)


# --- several labels, several classes -------------------------------------------------------------------------------


def test_a_multilabel_task_is_read_out_column_by_column():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0, MI=lambda rng, x: x[:, 1] > 1, ST=lambda rng, x: np.zeros(len(x)))
    both = TaskSpec(name="both", kind="multilabel", columns=("AF", "MI", "ST"))
    af, mi, st = score(parts, both)
    assert [s.task for s in (af, mi, st)] == ["both:AF", "both:MI", "both:ST"]
    assert {s.kind for s in (af, mi, st)} == {"binary"}
    assert (af.seen, mi.seen) == (True, False)
    assert af.auroc > 0.99 and mi.auroc > 0.99
    assert st.loss is None and st.reason  # a column of one value is marked, and spoils no other
    (alone,) = score(parts, AF)
    for name in ("loss", "auroc", "auroc_low", "auroc_high", "auprc", "l2", "constant_loss"):
        assert getattr(alone, name) == pytest.approx(getattr(af, name), rel=1e-6)


def test_columns_of_a_multilabel_task_lack_values_each_by_itself():
    def with_gaps(rng, x):
        return np.where(np.arange(len(x)) % 4 == 0, np.nan, x[:, 1] > 0)

    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0, MI=with_gaps)
    af, mi = score(parts, TaskSpec(name="both", kind="multilabel", columns=("AF", "MI")))
    assert (af.n_test, mi.n_test) == (400, 300)


RHYTHM = TaskSpec(name="rhythm", kind="multiclass", column="rhythm", classes=("SR", "AFIB", "PACE"))


def three_rhythms(rng, x):
    return np.array(RHYTHM.classes)[(x[:, 0] > 0).astype(int) + (x[:, 0] > 1)]


def test_classes_that_can_be_read_off_are_read_off():
    (found,) = score(make_parts(rhythm=three_rhythms), RHYTHM)
    assert (found.kind, found.task, found.n_test_positive, found.mae) == ("multiclass", "rhythm", None, None)
    assert found.loss < 0.2 and found.auroc > 0.97
    share = np.array([0.5, 0.341, 0.159])
    assert found.constant_loss == pytest.approx(-(share * np.log(share)).sum(), abs=0.05)


def test_classes_of_noise_cost_what_their_frequencies_do():
    (found,) = score(make_parts(width=40, rhythm=lambda rng, x: rng.choice(RHYTHM.classes, len(x))), RHYTHM)
    assert found.loss == pytest.approx(math.log(3), rel=0.05)
    assert found.constant_loss == pytest.approx(math.log(3), rel=0.02)
    assert found.auroc == pytest.approx(0.5, abs=0.06)


def test_the_order_of_the_classes_changes_no_loss():
    parts = make_parts(rhythm=three_rhythms)
    (one,) = score(parts, RHYTHM)
    (other,) = score(parts, RHYTHM.model_copy(update={"classes": ("PACE", "SR", "AFIB")}))
    assert other.loss == pytest.approx(one.loss, rel=1e-3) and other.auroc == pytest.approx(one.auroc, rel=1e-4)


def test_a_class_that_training_lacks_costs_much_but_not_everything():
    parts = make_parts(rhythm=three_rhythms)
    for name in (TRAIN, VALIDATION):
        parts[name] = Part(parts[name].features, parts[name].exams.replace("PACE", "AFIB"))
    (found,) = score(parts, RHYTHM)
    n_unknown = (parts[TEST].exams["rhythm"] == "PACE").sum()
    assert found.loss == pytest.approx(n_unknown / 400 * math.log(403), rel=0.1)
    assert math.isfinite(found.constant_loss)


def test_numbers_have_their_error_in_their_unit():
    parts = make_parts(age=lambda rng, x: 60 + 15 * x[:, 1] + rng.choice([-4.0, 4.0], len(x)))
    (found,) = score(parts, AGE.model_copy(update={"unit": "years"}))
    assert found.mae == pytest.approx(4, abs=0.3) and found.unit == "years"


# --- marks and intervals -------------------------------------------------------------------------------------------


def test_every_score_has_its_interval():
    parts = make_parts(AF=lambda rng, x: x[:, 0] + rng.normal(size=len(x)) > 1, age=lambda rng, x: 60 + 15 * x[:, 1])
    af, age = score(parts, AF, AGE)
    assert af.loss_low < af.loss < af.loss_high
    assert af.auroc_low < af.auroc < af.auroc_high
    assert af.n_test_positive / af.n_test < af.auprc_low < af.auprc < af.auprc_high
    assert age.loss_low < age.loss < age.loss_high and age.auroc_low is age.auprc is None


def test_intervals_are_those_of_patients_not_of_records():
    """Every test record three times: one patient's three records tell no more than one."""
    parts = make_parts(AF=lambda rng, x: x[:, 0] + rng.normal(size=len(x)) > 1)
    (before,) = score(parts, AF)
    test = Part(np.repeat(parts[TEST].features, 3, axis=0), parts[TEST].exams.loc[np.repeat(np.arange(400), 3)])
    same_patients = Part(test.features, test.exams.assign(patient_id=np.repeat(np.arange(400), 3)))
    (records,), (patients,) = (score(parts | {TEST: part}, AF) for part in (test, same_patients))
    width = before.auroc_high - before.auroc_low
    assert patients.auroc_high - patients.auroc_low == pytest.approx(width, rel=1e-6)
    assert records.auroc_high - records.auroc_low == pytest.approx(width / math.sqrt(3), rel=0.15)


@pytest.mark.parametrize(("n_positive", "few"), [(4, True), (5, False), (395, False), (396, True)])
def test_tasks_with_few_test_records_of_a_class_are_marked(n_positive, few):
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0)
    parts[TEST] = Part(parts[TEST].features, parts[TEST].exams.assign(AF=np.arange(400) < n_positive))
    (found,) = score(parts, AF)
    assert found.few_positives == few and found.loss is not None
    (age,) = score(make_parts(age=lambda rng, x: 60 + x[:, 1]), AGE)
    assert not age.few_positives


def test_whether_a_task_is_seen_is_the_grids_matter_and_what_was_trained_on_the_encoders():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0, SB=lambda rng, x: x[:, 1] > 0)
    tasks = ProbeSpec(tasks=(AF, TaskSpec(name="SB", column="SB")))
    for trained_on, expected in ((("AF",), [True, False]), ((), [False, False]), (None, [None, None])):
        found = score_tasks("B", parts, tasks, seen_labels=("AF", "SB"), trained_on=trained_on)
        assert [s.seen for s in found] == [True, True]
        assert [s.trained_on for s in found] == expected


def test_a_feature_that_could_not_be_measured_counts_as_its_mean():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0)
    (whole,) = score(parts, AF)
    rng = np.random.default_rng(1)
    holed = {
        n: Part(np.where(rng.random(p.features.shape) < 0.2, np.nan, p.features), p.exams) for n, p in parts.items()
    }
    never = {n: Part(np.hstack([p.features, np.full((len(p.features), 1), np.nan)]), p.exams) for n, p in parts.items()}
    (found,), (same,) = score(holed, AF), score(never, AF)
    assert whole.loss < found.loss < 0.6 * found.constant_loss
    assert same.loss == pytest.approx(whole.loss, rel=1e-6)


# --- few labels ----------------------------------------------------------------------------------------------------

FRACTIONS = (1 / 16, 1 / 4, 1.0)


def test_a_few_shot_curve_falls_and_ends_at_the_read_out_of_every_label():
    parts = make_parts(width=20, AF=lambda rng, x: x[:, 0] - x[:, 3] + 0.5 * rng.normal(size=len(x)) > 1)
    few, some, every = score(parts, AF, label_fractions=FRACTIONS)
    assert [s.label_fraction for s in (few, some, every)] == list(FRACTIONS)
    assert [s.is_main for s in (few, some, every)] == [False, False, True]
    assert (few.n_train, some.n_train, every.n_train) == (pytest.approx(25, abs=1), pytest.approx(100, abs=1), 400)
    assert few.loss > some.loss > every.loss
    (alone,) = score(parts, AF)
    assert every.loss == pytest.approx(alone.loss, rel=1e-9)


def test_a_smaller_share_of_labels_lies_within_every_larger_one_and_has_its_part_of_the_rare_class():
    exams = pd.DataFrame({"patient_id": np.arange(1600) // 2})
    rare = (np.arange(1600) // 2 % 25 == 0).astype(float)  # 32 patients, 64 records
    rare[100:140] = np.nan
    drawn = [labelled(rare, exams, fraction, "binary", "AF") for fraction in (1 / 16, 1 / 4, 1 / 2, 1.0)]
    for small, large in itertools.pairwise(drawn):
        assert set(small) < set(large)
    for rows, fraction in zip(drawn, (1 / 16, 1 / 4, 1 / 2), strict=False):
        assert len(rows) == pytest.approx(1560 * fraction, abs=4)
        assert rare[rows].sum() == pytest.approx(np.nansum(rare) * fraction, abs=2)
        assert len({*exams["patient_id"][rows]}) == len(rows) / 2  # with all exams of a patient, or with none
    other = labelled(rare, exams, 1 / 4, "binary", "SB")
    assert set(other) != set(drawn[1])


def test_too_few_labels_are_a_reason_and_the_rest_of_the_curve_stands():
    parts = make_parts(AF=lambda rng, x: np.arange(len(x)) % 100 == 0)
    few, every = score(parts, AF, label_fractions=(1 / 64, 1.0))
    assert few.loss is None and few.reason == "every training record has the same value"
    assert every.loss is not None


# --- beside --------------------------------------------------------------------------------------------------------


def test_scores_stand_beside_those_of_the_untrained_encoder_and_of_hand_made_features():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0, SB=lambda rng, x: x[:, 1] > 0)
    noise = {n: Part(np.random.default_rng(2).normal(size=p.features.shape), p.exams) for n, p in parts.items()}
    tasks = (AF, TaskSpec(name="SB", column="SB"))
    own, random = score(parts, *tasks, label_fractions=(0.25, 1.0)), score(noise, *tasks)
    found = beside(own, random=random, handmade=score(parts, AF))
    for before, after in zip(own, found, strict=True):
        assert after.loss == before.loss
        assert (after.random_loss is not None) == (after.label_fraction == 1)
        assert (after.handmade_loss is not None) == (after.label_fraction == 1 and after.task == "AF")
    assert found[1].random_auroc == pytest.approx(0.5, abs=0.1)
    assert found[1].handmade_loss == pytest.approx(own[1].loss, rel=1e-6)


def test_the_supervised_head_is_scored_as_it_is_on_the_labels_it_was_trained_on():
    parts = make_parts(AF=lambda rng, x: x[:, 0] > 0, SB=lambda rng, x: x[:, 1] > 0, ST=lambda rng, x: x[:, 2] > 0)
    three = TaskSpec(name="three", kind="multilabel", columns=("AF", "SB", "ST"))
    probe = ProbeSpec(tasks=(three, TaskSpec(name="male", column="AF")), label_fractions=(0.5, 1.0))
    exams = {name: part.exams for name, part in parts.items()}
    logits = 3 * parts[TEST].features[:, [1, 0]]
    labels = {"seen_labels": ("AF", "SB", "ST"), "trained_on": ("SB", "AF")}
    found = score_zero_shot("B", exams, logits, probe, **labels)
    assert [s.task for s in found] == ["three:AF", "three:SB", "male"]
    for s in found:
        assert (s.read_out, s.label_fraction, s.n_train, s.n_test, s.l2) == ("zero_shot", 0.0, 0, 400, None)
        assert s.auroc == 1.0 and s.loss < s.constant_loss and not s.is_main
    other = TaskSpec(name="ST", column="ST")  # a label of the grid that this encoder was not trained on
    assert not score_zero_shot("B", exams, logits, ProbeSpec(tasks=(other,)), **labels)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_column_that_is_not_there_is_named_with_task_and_population():
    with pytest.raises(DataError, match=r"population 'B': task 'AF' wants column 'AF'; exams\.csv has none"):
        score(make_parts(SB=lambda rng, x: x[:, 0] > 0), AF)
