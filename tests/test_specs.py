"""What a person may write in a sweep file, what is refused and how, and what makes two trials the same."""

import re

import pytest

from ecgscale.conventions import CODE_LABELS
from ecgscale.errors import SpecError
from ecgscale.ladder import RUNGS
from ecgscale.plan import plan
from ecgscale.ready_made_tasks import READY_MADE
from ecgscale.specs import AugmentSpec, Budget, FoldSpec, GridSpec, InputSpec, LearningRateRule, TrialSpec, load_grid


def refusal(grid_from, changes: dict[str, str]) -> str:
    with pytest.raises(SpecError) as caught:
        grid_from(changes)
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    """The line on which `part` first stands."""
    return text[: text.index(part)].count("\n") + 1


# --- what is refused -----------------------------------------------------------------------------------------------

UNKNOWN = [
    # (where it is added, the field's name, some of the keys that are allowed there)
    ("question:", "questoin: x\nquestion:", "questoin", ["question", "axes", "probe"]),
    ("  train_on: A", "  tran_on: A\n  train_on: A", "data.tran_on", ["train_on", "transfer_to", "split"]),
    ("{seed: 0,", "{sed: 0,", "data.split.sed", ["seed", "validation", "test"]),
    ("{fs_hz: 100,", "{fs: 100,", "input.fs", ["fs_hz", "n_samples", "bandpass_hz"]),
    ("  rung: [20K]", "  rungs: [20K]", "axes.rungs", ["family", "rung", "data_fraction"]),
    ("  batch_size: 16", "  batch: 16", "train.batch", ["batch_size", "mask_ratio", "precision"]),
    ("kind: samples_seen,", "unit: samples_seen,", "train.budget.unit", ["kind", "value"]),
    ("{base: 3e-3}", "{base: 3e-3, ref: 1}", "train.learning_rate.resnet.ref", ["base", "reference_width"]),
    ("tasks:", "task:", "probe.task", ["tasks", "fit_on", "l2"]),
    ("column: is_male}", "colum: is_male}", "probe.tasks.1.colum", ["name", "column", "above"]),
    ("{seed: 0,", "{folds: {colum: x}, seed: 0,", "data.split.folds.colum", ["column", "validation", "test"]),
    ("  batch_size: 16", "  augment: {noise: 1}\n  batch_size: 16", "train.augment.noise", ["noise_mv", "gain"]),
]


@pytest.mark.parametrize(("old", "new", "field", "allowed"), UNKNOWN, ids=[case[2] for case in UNKNOWN])
def test_an_unknown_key_is_named_with_file_line_and_what_is_allowed(
    grid_from, tiny_sweep_text, old, new, field, allowed
):
    message = refusal(grid_from, {old: new})
    line = line_of(tiny_sweep_text.replace(old, new), field.split(".")[-1] + ":")
    found = re.search(rf"changed\.yaml:{line}: {re.escape(field)}: unknown key; allowed are (.*)", message)
    assert found, message
    assert set(allowed) <= set(found[1].split(", "))


WRONG = [
    ("batch_size: 16", "batch_size: many", r":\d+: train\.batch_size: .*integer.*'many'"),
    ("batch_size: 16", "batch_size: 16.5", r":\d+: train\.batch_size: .*integer.*16\.5"),
    ("batch_size: 16", "batch_size: 1", r"train\.batch_size: .*greater than 1"),
    ("fs_hz: 100", "fs_hz: fast", r":10: input\.fs_hz: .*number.*'fast'"),
    ("fs_hz: 100", "fs_hz: .nan", r"input\.fs_hz: .*finite"),
    ("fs_hz: 100", "fs_hz: -100", r"input\.fs_hz: .*greater than 0"),
    ("rung: [20K]", "rung: 20K", r":15: axes\.rung: .*list.*'20K'"),
    ("rung: [20K]", "rung: []", r":15: axes\.rung: .*at least one value"),
    ("family: [resnet, transformer]", "family: []", r":13: axes\.family: .*at least one value"),
    ("paradigm: [sl, ssl]", "paradigm: []", r":14: axes\.paradigm: .*at least one value"),
    ("data_fraction: [1/2, 1]", "data_fraction: []", r":16: axes\.data_fraction: .*at least one value"),
    ("data_fraction: [1/2, 1]", "data_fraction: [1, 1.5]", r":16: axes\.data_fraction\.1: .*less than or equal to 1"),
    ("data_fraction: [1/2, 1]", "data_fraction: [3/2]", r":16: axes\.data_fraction\.0: .*less than or equal to 1"),
    ("data_fraction: [1/2, 1]", "data_fraction: [0]", r"axes\.data_fraction\.0: .*greater than 0"),
    ("data_fraction: [1/2, 1]", "data_fraction: [1/0]", r"axes\.data_fraction\.0: .*'1/0'"),
    ("data_fraction: [1/2, 1]", "data_fraction: [half]", r"axes\.data_fraction\.0: .*'half'"),
    ("data_fraction: [1/2, 1]", "data_fraction: [1/4, 0.25]", r"axis data_fraction names a value twice"),
    ("rung: [20K]", "rung: [20K, 60K, 20K]", r"axis rung names a value twice"),
    ("rung: [20K]", "rung: [20K]\n  seed: [0, 1, 0]", r"axis seed names a value twice"),
    ("rung: [20K]", "rung: [20K]\n  seed: [-1]", r":16: axes\.seed\.0: .*greater than or equal to 0"),
    ("rung: [20K]", "rung: [20K]\n  seed: [1_048_576]", r"axes\.seed\.0: .*less than 1048576"),
    ("tasks:", "l2: []\n  tasks:", r":27: probe\.l2: .*at least one value"),
    ("tasks:", "l2: [0]\n  tasks:", r":27: probe\.l2\.0: .*greater than 0"),
    ("rung: [20K]", "rung: [20K]\n  n_labels: [0]", r"axes\.n_labels\.0: .*greater than 0"),
    ("paradigm: [sl, ssl]", "paradigm: [clip]", r":14: axes\.paradigm\.0: .*'sl', 'ssl' or 'target'"),
    ("family: [resnet, transformer]", "family: [mamba]", r":13: axes\.family\.0: .*'resnet' or 'transformer'"),
    ("validation: 0.15", "validation: 0", r"data\.split\.validation: .*greater than 0"),
    ("n_samples: 1024", "n_samples: 1000", r"multiple of the patch 16"),
    ("n_samples: 1024", "n_samples: 1040", r"multiple of the ResNet's stride 256"),
    ("train_on: A", "train_on: ../A", r":5: data\.train_on: .*'\.\./A'"),
    ("resnet: {base:", "resnett: {base:", r"train\.learning_rate\.resnett.*'resnet' or 'transformer'"),
    ("question: Does it run?\n", "", r":1: question: is missing"),
    ("  train_on: A\n", "", r":4: data\.train_on: is missing"),
    ("above: 65}", "above: 65, kind: regression}", r"probe\.tasks\.2: task over_65: `above` makes a binary task"),
    ("column: SB}", "kind: multilabel}", r":28: probe\.tasks\.0: task SB: a multilabel task has `columns`"),
    ("column: SB}", "columns: [SB]}", r"probe\.tasks\.0: task SB: a binary task has `column`, no `columns`"),
    ("column: SB}", "kind: multilabel, columns: [SB, SB]}", r"probe\.tasks\.0: task SB: column 'SB' is named twice"),
    ("column: SB}", "kind: multiclass, column: x}", r"probe\.tasks\.0: task SB: a multiclass task lists its `classes`"),
    ("column: SB}", "kind: multiclass, column: x, classes: [a]}", r"task SB: `classes` are at least two"),
    ("column: SB}", "kind: multiclass, column: x, classes: [a, 1]}", r"all words or all whole numbers"),
    ("column: SB}", "kind: multiclass, column: x, classes: [a, a]}", r"task SB: class 'a' is named twice"),
    ("column: SB}", "kind: multiclass, column: x, classes: [yes, no]}", r"probe\.tasks\.0\.classes\.0.*True"),
    ("column: SB}", "column: SB, classes: [a, b]}", r"task SB: .* `classes`, other tasks have none"),
    ("column: SB}", "column: SB, unit: mV}", r"task SB: `unit` is that of a regression task"),
    ("kind: regression}", "kind: regression, missing: negative}", r"tasks\.3: task age: .* is for 0/1 columns"),
    ("{name: SB, column: SB}", "code7", r":28: probe\.tasks\.0: no ready-made .* 'code7'; there are code6, .*cpsc9"),
    ("{name: SB, column: SB}", "age", r"probe\.tasks: task 'age' is named twice"),
    ("patch_samples: 16}", "patch_samples: 16, store_samples: 512}", r"store_samples 512 is less than n_samples"),
    ("  batch_size: 16", "  augment: {random_crop: true}\n  batch_size: 16", r"random_crop: needs an input"),
    ("  batch_size: 16", "  augment: {gain: 0.1}\n  batch_size: 16", r"gain: zscore takes it out again"),
    ("  batch_size: 16", "  augment: {lead_dropout: 1}\n  batch_size: 16", r"augment\.lead_dropout: .*less than 1"),
    ("  batch_size: 16", "  augment: {noise_mv: -1}\n  batch_size: 16", r"augment\.noise_mv: .*greater than or equal"),
    ("{seed: 0,", "{folds: {column: x}, seed: 0,", r"data\.split\.folds: folds: names no fold"),
    ("{seed: 0,", "{folds: {column: x, test: [1], validation: [1]}, seed: 0,", r"folds: fold '1' is named twice"),
    ("{seed: 0,", "{folds: {column: x, test: 10}, seed: 0,", r"data\.split\.folds\.test: .*list in square brackets"),
    ("{seed: 0,", "{folds: {column: x, test: [1]}, temporal: day, seed: 0,", r"data\.split: folds and temporal both"),
    ("{seed: 0,", "{stratify_on: [AF, AF], seed: 0,", r"data\.split: stratify_on: column 'AF' is named twice"),
    ("transfer_to: [B]", "transfer_to: [B, C, B]", r":6: data\.transfer_to: population 'B' is named twice"),
    ("train:\n", "labels: [AF, RBBB, AF]\ntrain:\n", r":18: labels: label 'AF' is named twice"),
    ("name: over_65", "name: male", r":27: probe\.tasks: task 'male' is named twice"),
    ("tasks:", "label_fractions: [1/4]\n  tasks:", r":27: probe\.label_fractions: .* and 1 among them"),
    ("tasks:", "label_fractions: [1, 1/4, 0.25]\n  tasks:", r":27: probe\.label_fractions: .* each share once"),
    ("tasks:", "label_fractions: [1, 0]\n  tasks:", r":27: probe\.label_fractions\.1: .*greater than 0"),
    ("tasks:", "attentive: {steps: 5}\n  tasks:", r"probe\.attentive\.steps: unknown key; allowed are n_steps, .*"),
    ("tasks:", "fine_tuning: {n_steps: 0}\n  tasks:", r"probe\.fine_tuning\.n_steps: .*greater than 0"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_what_is_wrong_is_refused_with_its_place(grid_from, old, new, message):
    refused = refusal(grid_from, {old: new})
    assert re.search(message, refused), refused
    assert re.search(r"changed\.yaml:\d+: ", refused), refused


def test_a_rung_that_does_not_exist_names_the_ladder(grid_from):
    message = refusal(grid_from, {"[20K]": "[20K, 7M]"})
    assert "changed.yaml:15: axes.rung.1: rung does not exist" in message
    assert all(rung in message for rung in RUNGS)
    assert "'7M'" in message


def test_every_mistake_is_told_at_once(grid_from):
    message = refusal(grid_from, {"[20K]": "[7M]", "batch_size: 16": "batch_size: many"})
    assert len(message.splitlines()) == 2


def test_a_duplicated_key_is_refused_with_its_line(grid_from):
    message = refusal(grid_from, {"  batch_size: 16": "  batch_size: 16\n  batch_size: 32"})
    assert message.endswith("changed.yaml:21: key 'batch_size' is given twice")


def test_a_family_without_learning_rate_rule_is_refused(grid_from):
    assert "train.learning_rate has no rule for family 'transformer'" in refusal(
        grid_from, {"    transformer: {base: 2e-3}\n": ""}
    )


def test_more_labels_than_there_are_is_refused(grid_from):
    assert "asks for 7 labels, only 6 exist" in refusal(grid_from, {"rung: [20K]": "rung: [20K]\n  n_labels: [3, 7]"})


@pytest.mark.parametrize("band", ["[0.5, 50]", "[0.5, 60]", "[30, 20]", "[0, 40]"])
def test_a_band_that_is_none_or_above_nyquist_is_refused(grid_from, band):
    message = refusal(grid_from, {"fs_hz: 100": f"fs_hz: 100, bandpass_hz: {band}"})
    assert re.search(r"changed\.yaml:10: input: bandpass_hz .* low < high < 50 Hz", message), message


def test_a_band_above_what_the_records_hold_is_refused(grid_from):
    """CODE format is 400 Hz whatever the input asks for."""
    message = refusal(grid_from, {"fs_hz: 100": "fs_hz: 1000, bandpass_hz: [1, 250]"})
    assert "low < high < 200 Hz" in message


def test_a_file_that_is_not_there_or_is_no_text_is_refused_by_name(tmp_path):
    with pytest.raises(SpecError, match=r"none\.yaml: can't be read"):
        load_grid(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\x89HDF\r\n\xff\xfe")
    with pytest.raises(SpecError, match=r"binary\.yaml"):
        load_grid(tmp_path / "binary.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(SpecError, match=r"empty\.yaml:1: the sweep: "):
        load_grid(tmp_path / "empty.yaml")


# --- what is accepted ----------------------------------------------------------------------------------------------


def test_fractions_may_be_written_as_fractions(grid_from):
    assert grid_from({"[1/2, 1]": "[1/8, 0.25, 1 / 2, 1]"}).axes.data_fraction == (0.125, 0.25, 0.5, 1.0)


def test_numbers_with_exponents_are_numbers(grid_from):
    grid = grid_from({"value: 48": "value: 1e5", "n_train_records: 200": "n_train_records: 2e5"})
    assert grid.train.budget.value == 1e5
    assert grid.data.n_train_records == 200_000
    assert grid.train.learning_rate["resnet"].base == 0.003


def test_defaults_are_the_six_labels_and_one_seed(tiny_grid):
    assert tiny_grid.labels == CODE_LABELS
    assert tiny_grid.axes.n_labels == (6,)
    assert tiny_grid.axes.seed == (0,)


def test_a_ready_made_task_is_what_it_stands_for(grid_from):
    """So the identity does not know the shorthand."""
    short = grid_from({"{name: SB, column: SB}": "code6", "{name: male, column: is_male}": "sex"})
    long = grid_from(
        {
            "{name: SB, column: SB}": f"{{name: code6, kind: multilabel, columns: [{', '.join(CODE_LABELS)}]}}",
            "{name: male, column: is_male}": "{name: sex, column: is_male}",
        }
    )
    assert short == long and ids(short) == ids(long)
    assert short.probe.tasks[0].columns == CODE_LABELS


def test_read_outs_beside_the_linear_one_are_off_unless_asked_for(grid_from, tiny_grid):
    assert tiny_grid.probe.attentive is tiny_grid.probe.fine_tuning is None
    assert tiny_grid.probe.label_fractions == (1.0,)
    asked = grid_from({"tasks:": "label_fractions: [1/64, 1]\n  attentive: {}\n  fine_tuning: {n_steps: 50}\n  tasks:"})
    assert asked.probe.label_fractions == (1 / 64, 1.0)
    assert asked.probe.attentive.n_steps == 400 and asked.probe.fine_tuning.n_steps == 50
    assert asked.probe.fine_tuning.learning_rate < asked.probe.attentive.learning_rate


def test_every_ready_made_task_is_valid_and_they_go_together(grid_from):
    text = "\n    - ".join(name for name in READY_MADE if name != "age")
    tasks = grid_from({"{name: SB, column: SB}": text}).probe.tasks
    assert {task.name for task in tasks} >= set(READY_MADE)


def test_what_is_stored_is_what_is_seen_unless_more_is_asked_for(grid_from, tiny_grid):
    assert tiny_grid.input.stored_samples == 1024
    wider = grid_from({"n_samples: 1024": "n_samples: 1024, store_samples: 1200"}).input
    assert (wider.stored_samples, wider.n_samples, wider.shape) == (1200, 1024, tiny_grid.input.shape)


def test_nothing_is_augmented_unless_asked_for(tiny_grid):
    assert tiny_grid.train.augment == AugmentSpec(random_crop=False, noise_mv=0, gain=0, lead_dropout=0)


def test_folds_may_be_numbers_or_words(grid_from):
    split = grid_from({"{seed: 0,": "{seed: 0, folds: {column: site, validation: [9, b], test: [10]},"}).data.split
    assert split.folds == FoldSpec(column="site", validation=(9, "b"), test=(10,))


def test_specs_can_not_be_changed(tiny_grid):
    with pytest.raises(ValueError, match="frozen"):
        tiny_grid.input.fs_hz = 400.0


def test_a_budget_of_epochs_grows_with_the_records_and_one_of_samples_does_not():
    epochs, samples = Budget(kind="epochs", value=5), Budget(kind="samples_seen", value=1000)
    assert [epochs.n_steps(n, 10) for n in (100, 200)] == [50, 100]
    assert [samples.n_steps(n, 10) for n in (100, 200)] == [100, 100]
    assert Budget(kind="epochs", value=0.01).n_steps(10, 32) == 1  # never nothing


def test_the_rate_follows_the_width():
    rule = LearningRateRule(base=8e-3, reference_width=32, exponent=-0.5)
    assert rule.peak(32) == pytest.approx(8e-3)
    assert rule.peak(128) == pytest.approx(4e-3)


def test_the_rate_of_mup_is_the_same_at_every_width():
    rule = LearningRateRule(base=8e-3, reference_width=32, parametrisation="mup")
    assert rule.peak(32) == rule.peak(128) == 8e-3


def test_mup_has_no_exponent(grid_from):
    change = {"transformer: {base: 2e-3}": "transformer: {base: 2e-3, exponent: -1, parametrisation: mup}"}
    assert "mup has one rate for all widths; leave out the exponent" in refusal(grid_from, change)


# --- identity ------------------------------------------------------------------------------------------------------


def ids(grid: GridSpec) -> list[str]:
    return [spec.trial_id for spec in plan(grid).specs]


@pytest.mark.parametrize(
    "changes",
    [
        {"base: 3e-3": "base: 0.003", "base: 2e-3": "base: 2.0e-3"},
        {"fs_hz: 100": "fs_hz: 1e2", "value: 48": "value: 48.0"},
        {"[1/2, 1]": "[0.5, 1.0]"},
        {"resnet: {base: 3e-3}\n    transformer: {base: 2e-3}": "transformer: {base: 2e-3}\n    resnet: {base: 3e-3}"},
        {"name: tiny": "name: other", "Does it run?": "And now?"},
        {"batch_size: 16": "batch_size: 16\n  weight_decay: 0.05"},  # a default, spelled out
        {"n_train_records: 200": "n_train_records: 200  # as declared"},
        {"paradigm: [sl, ssl]": "paradigm: [ssl, sl]"},
        {"batch_size: 16": "batch_size: 16\n  augment: {random_crop: false, gain: 0}"},
        {"{seed: 0,": "{seed: 0, stratify_on: [1dAVb, RBBB, LBBB, SB, AF, ST],"},
    ],
)  # fmt: skip
def test_writing_the_same_otherwise_keeps_every_identity(grid_from, tiny_grid, changes):
    assert sorted(ids(grid_from(changes))) == sorted(ids(tiny_grid))


@pytest.mark.parametrize(
    "changes",
    [
        {"train_on: A": "train_on: C"},
        {"{seed: 0,": "{seed: 1,"},
        {"validation: 0.15": "validation: 0.2"},
        {"test: 0.25": "test: 0.2"},
        {"{seed: 0,": "{seed: 0, stratify_on: [AF],"},
        {"{seed: 0,": "{seed: 0, temporal: exam_date,"},
        {"{seed: 0,": "{seed: 0, folds: {column: strat_fold, test: [10]},"},
        {"batch_size: 16": "batch_size: 16\n  augment: {noise_mv: 0.01}"},
        {"patch_samples: 16": "patch_samples: 16, store_samples: 1200"},
        {"fs_hz: 100": "fs_hz: 200"},
        {"n_samples: 1024": "n_samples: 512"},
        {"patch_samples: 16": "patch_samples: 32"},
        {"patch_samples: 16": "patch_samples: 16, normalise: fixed"},
        {"patch_samples: 16": "patch_samples: 16, bandpass_hz: [0.5, 40]"},
        {"[20K]": "[60K]"},
        {"[1/2, 1]": "[1/4, 1/8]"},
        {"[20K]": "[20K]\n  seed: [1]"},
        {"value: 48": "value: 64"},
        {"kind: samples_seen, value: 48": "kind: epochs, value: 3"},
        {"batch_size: 16": "batch_size: 8"},
        {"base: 3e-3": "base: 4e-3", "base: 2e-3": "base: 1e-3"},
        {"batch_size: 16": "batch_size: 16\n  weight_decay: 0.1"},
        {"batch_size: 16": "batch_size: 16\n  clip_norm: 2.0"},
        {"batch_size: 16": "batch_size: 16\n  warmup_fraction: 0.2"},
        {"batch_size: 16": "batch_size: 16\n  precision: fp32"},
        {"n_evaluations: 3": "n_evaluations: 2"},
        {"n_train_records: 200": "n_train_records: 300"},
    ],
)
def test_everything_that_can_change_an_answer_changes_every_identity(grid_from, tiny_grid, changes):
    changed = ids(grid_from(changes))
    assert len(changed) == len(set(changed))
    assert not set(changed) & set(ids(tiny_grid))


@pytest.mark.parametrize(
    "changes",
    [
        {"transfer_to: [B]": "transfer_to: []"},
        {"transfer_to: [B]": "transfer_to: [C]"},
        {"above: 65": "above: 60"},
        {"tasks:": "fit_on: source\n  tasks:"},
        {"tasks:": "l2: [0.1]\n  tasks:"},
        {"tasks:": "label_fractions: [1/2, 1]\n  tasks:"},
    ],
)
def test_what_is_read_off_an_encoder_changes_what_is_read_out_and_trains_nothing(grid_from, tiny_grid, changes):
    changed = grid_from(changes)
    assert ids(changed) == ids(tiny_grid)
    before, after = (
        {r.read_out_id for spec in plan(grid).specs for r in spec.read_outs} for grid in (tiny_grid, changed)
    )
    assert len(before) == 1 and not before & after


def test_the_fingerprint_of_another_population_changes_what_is_read_out_there_alone(tiny_grid):
    (spec, *_) = plan(tiny_grid).specs
    spec = spec.model_copy(update={"transfer_to": ("B", "C"), "data_fingerprint": {"A": "a", "B": "b", "C": "c"}})
    mended = spec.model_copy(update={"data_fingerprint": {"A": "a", "B": "mended", "C": "c"}})
    assert mended.trial_id == spec.trial_id
    (b, c), (mended_b, mended_c) = (s.read_outs for s in (spec, mended))
    assert b.read_out_id != mended_b.read_out_id and b.protocol_id == mended_b.protocol_id
    assert c.read_out_id == mended_c.read_out_id
    at_the_source = spec.model_copy(update={"probe": spec.probe.model_copy(update={"fit_on": "source"})})
    assert [read_out.data_fingerprint for read_out in at_the_source.read_outs] == [
        {"A": "a", "B": "b"},
        {"A": "a", "C": "c"},
    ]


@pytest.mark.parametrize(
    ("changes", "retrained"),
    [
        ({"batch_size: 16": "batch_size: 16\n  mask_ratio: 0.75"}, {"resnet-ssl", "transformer-ssl"}),
        ({"base: 2e-3": "base: 1e-3"}, {"transformer-sl", "transformer-ssl"}),
        ({"base: 3e-3": "base: 3e-3, parametrisation: mup"}, {"resnet-sl", "resnet-ssl"}),
    ],
)
def test_what_one_arm_alone_depends_on_retrains_that_arm_alone(grid_from, tiny_grid, changes, retrained):
    before = {spec.trial_id for spec in plan(tiny_grid).specs}
    assert {spec.arm for spec in plan(grid_from(changes)).specs if spec.trial_id not in before} == retrained


def test_labels_and_their_order_are_part_of_a_supervised_identity(grid_from, tiny_grid):
    grid = grid_from({"train:\n": f"labels: [{', '.join(reversed(CODE_LABELS))}]\n\ntrain:\n"})
    before, after = plan(tiny_grid).specs, plan(grid).specs
    same = {s.arm for s in after} & {s.arm for s in before if s.trial_id in {t.trial_id for t in after}}
    assert same == {"resnet-ssl", "transformer-ssl"}


def test_the_fingerprint_of_the_data_is_part_of_the_identity(tiny_grid):
    spec = plan(tiny_grid).specs[0]
    assert spec.model_copy(update={"data_fingerprint": {"A": "x"}}).trial_id != spec.trial_id


def test_an_identity_is_12_hex_characters_and_survives_json(tiny_plan):
    for spec in tiny_plan.specs:
        assert re.fullmatch(r"[0-9a-f]{12}", spec.trial_id)
        again = TrialSpec.model_validate_json(spec.model_dump_json())
        assert again == spec
        assert again.trial_id == spec.trial_id


def test_a_trial_says_nothing_of_mup_unless_it_has_it(tiny_plan):
    spec = tiny_plan.specs[0]
    assert "mup_reference_width" not in spec.model_dump_json()
    mup = spec.model_copy(update={"mup_reference_width": 32})
    again = TrialSpec.model_validate_json(mup.model_dump_json())
    assert again == mup and again.trial_id == mup.trial_id != spec.trial_id


def test_no_path_stands_in_a_trial(tiny_plan, data_dir):
    for spec in tiny_plan.specs:
        assert str(data_dir) not in spec.model_dump_json()
        assert '"/' not in spec.model_dump_json()


def test_the_patches_of_an_input_are_counted():
    assert InputSpec(fs_hz=100, n_samples=1024, patch_samples=16).shape.n_patches == 64
