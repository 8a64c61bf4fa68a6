"""A trial on a continuous target: trained through a head, asked on other records, and scored from what it said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_text import words

from ecgscale import encoders, prediction_files, tensor_file, trial
from ecgscale.concentrations.head_counts import n_classes, n_outputs
from ecgscale.data.populations import populations
from ecgscale.errors import DataError, SpecError
from ecgscale.execution import Execution
from ecgscale.executors import shipping
from ecgscale.plan import Plan, plan
from ecgscale.report import files, target_page, write_report
from ecgscale.results import Status, read
from ecgscale.specs import load_grid
from ecgscale.sweep_laws import sweep_study
from ecgscale.target_study import CLASSICAL, ENSEMBLE, NETWORKS, target_study
from ecgscale.trial import run_trial

SWEEP = """\
name: heads
question: Does it run?

data:
  train_on: A
  transfer_to: [B]
  n_train_records: 200
  split: {seed: 0, validation: 0.15, test: 0.2, later: {column: exam_date, share: 0.1}}

input: {fs_hz: 100, n_samples: 1024, patch_samples: 16}

axes:
  family: [transformer]
  paradigm: [target]
  rung: [20K]
  data_fraction: [1]
  target: [potassium]
  head: [mse, gaussian, {name: coral-age, kind: coral, classes: 3, buckets: quantile, age_and_sex: true}]
  seed: [0, 1]

train:
  budget: {kind: samples_seen, value: 96}
  batch_size: 16
  learning_rate:
    transformer: {base: 2e-3}
  n_evaluations: 3

corruptions: [noise-0.25mV]
"""


def planned(folder: Path, data_dir: Path, changes: dict[str, str] | None = None) -> Plan:
    text = SWEEP
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "heads.yaml"
    path.write_text(text)
    grid = load_grid(path)
    return plan(grid, populations(grid, data_dir))


@pytest.fixture(scope="module")
def heads(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """All trials of the sweep, run."""
    folder = tmp_path_factory.mktemp("heads")
    made = planned(folder, data_dir)
    for spec in made.specs:
        assert run_trial(spec, Execution(data_dir, folder / "results", "heads")).status == Status.COMPLETED
    return made, folder / "results"


def test_every_target_meets_every_head(heads):
    made, _ = heads
    assert [s.arm for s in made.specs].count("transformer-potassium-mse") == 2
    assert {s.arm for s in made.specs} == {f"transformer-potassium-{h}" for h in ("mse", "gaussian", "coral-age")}


def test_what_a_network_said_is_kept_of_every_part_and_condition(heads):
    made, results = heads
    for spec in made.specs:
        row = next(r for r in read(results) if r.trial_id == spec.trial_id)
        assert not row.failed_read_outs
        for read_out in spec.read_outs:
            path = prediction_files.prediction_path(results, spec.trial_id, read_out.population, read_out.read_out_id)
            said = prediction_files.read(path)
            assert said.outputs.shape[1] == n_outputs(spec.head, n_classes(spec.head, spec.target))
            assert np.isfinite(said.outputs).all()
            if read_out.population == "B":
                assert said.conditions == (("all", "clean"),)
            else:
                clean = [(part, "clean") for part in ("validation", "test", "later")]
                assert said.conditions == (*clean, ("test", "noise-0.25mV"))
                test, noisy = said.of("test"), said.of("test", "noise-0.25mV")
                assert test.records["exam_id"].tolist() == noisy.records["exam_id"].tolist()
                assert not np.array_equal(test.outputs, noisy.outputs)


def test_no_patient_is_in_two_parts_and_the_truth_is_the_population_s(heads, data_dir):
    made, results = heads
    spec = made.specs[0]
    path = prediction_files.prediction_path(results, spec.trial_id, "A", spec.read_outs[0].read_out_id)
    records = prediction_files.read(path).records
    assert (records.groupby("patient_id")["part"].nunique() == 1).all()
    exams = pd.read_csv(data_dir / "A" / "exams.csv").set_index("exam_id")
    assert np.allclose(exams.loc[records["exam_id"], "potassium_mmol_l"], records["truth"], atol=1e-6)


def test_scores_in_the_row_are_those_of_the_predictions(heads):
    made, results = heads
    for row in read(results):
        spec = next(s for s in made.specs if s.trial_id == row.trial_id)
        (score,) = (s for s in row.predicted if (s.population, s.part, s.condition) == ("A", "test", "clean"))
        path = prediction_files.prediction_path(results, spec.trial_id, "A", spec.read_outs[0].read_out_id)
        said = prediction_files.read(path).of("test")
        assert score.n_test == len(said)
        assert score.mae == pytest.approx(np.abs(said.predictive().mean - said.truth).mean())
        assert (score.nll is None) == (spec.head.kind == "mse")
        assert score.unit == "mmol/l"


def test_the_loss_of_a_gaussian_head_is_its_likelihood_in_standard_deviations(heads):
    """The row's loss is in nats of the standardised value, the score's in nats per unit: they differ by log sd."""
    _, results = heads
    for row in read(results):
        if row.arm.endswith("gaussian"):
            (score,) = (s for s in row.predicted if (s.population, s.part, s.condition) == ("A", "test", "clean"))
            spec = json.loads(row.spec)
            path = next((results / "predictions").glob(f"{row.trial_id}-A-*.parquet"))
            assert score.nll == pytest.approx(row.id_loss + np.log(prediction_files.read(path).scale.sd), abs=1e-4)
            assert (row.loss_unit, spec["target"]["name"]) == ("nats", "potassium")


def test_another_corruption_trains_nothing_again(heads, data_dir, tmp_path, monkeypatch):
    made, results = heads
    changed = planned(tmp_path, data_dir, {"[noise-0.25mV]": "[noise-0.25mV, dropped-50]"})
    assert {s.trial_id for s in changed.specs} == {s.trial_id for s in made.specs}
    monkeypatch.setattr(trial, "pretrain", lambda *_args: pytest.fail("it trains"))
    spec = changed.specs[0]
    row = run_trial(spec, Execution(data_dir, results, "heads"))
    assert ("test", "dropped-50") in {(s.part, s.condition) for s in row.predicted}


def test_predictions_of_kept_weights_are_the_same_to_the_bit(heads, data_dir):
    """Whether a network is asked right after its training or from the file of its weights."""
    made, results = heads
    for spec in (s for s in made.specs if s.seed == 1):
        read_out = spec.read_outs[0]
        path = prediction_files.prediction_path(results, spec.trial_id, "A", read_out.read_out_id)
        before = path.read_bytes()
        for file in (results / "transfer").glob(f"{spec.trial_id}-A-*"):
            file.unlink()
        path.unlink()
        run_trial(spec, Execution(data_dir, results, "heads"))
        assert path.read_bytes() == before
        assert encoders.encoder_path(results, spec.trial_id).exists()


def test_a_study_scores_networks_ensembles_and_classical_regression_alike(heads):
    _, results = heads
    study = target_study(results, read(results), n_resamples=20)
    test = study.scores[(study.scores["part"] == "test") & (study.scores["condition"] == "clean")]
    assert {NETWORKS, ENSEMBLE, CLASSICAL} == set(test["who"])
    mae = test[(test["score"] == "mae") & (test["recalibration"] == "")].set_index(["head", "who"])
    for head in ("mse", "gaussian", "coral-age"):
        assert mae.loc[head, ENSEMBLE]["value"] <= mae.loc[head, NETWORKS]["value"] + 1e-9  # |mean| is convex
        assert mae.loc[head, NETWORKS]["low"] < mae.loc[head, NETWORKS]["value"] < mae.loc[head, NETWORKS]["high"]
    assert mae.loc["ridge-waves", CLASSICAL]["value"] > 0
    assert {"aleatoric", "epistemic", "laplace", "oracle"} <= set(study.curves["uncertainty"])
    assert set(study.scores["part"]) == {"test", "later", "all"}


def test_a_seed_that_was_asked_something_else_since_is_reported_of_what_all_were_asked(
    heads, data_dir, tmp_path, monkeypatch
):
    _, results = heads
    folder = shutil.copytree(results, tmp_path / "heads")
    asked_again = planned(tmp_path, data_dir, {"[noise-0.25mV]": "[dropped-50]"})
    spec = next(s for s in asked_again.specs if (s.head.name, s.seed) == ("gaussian", 0))
    run_trial(spec, Execution(data_dir, folder, "heads"))
    study = target_study(folder, read(folder), n_resamples=20)
    rows = study.table(population="A", part="test", who=NETWORKS, score="mae", recalibration="")
    assert set(rows[rows["head"] == "gaussian"]["condition"]) == {"clean"}
    assert set(rows[rows["head"] == "coral-age"]["condition"]) == {"clean", "noise-0.25mV"}
    gaussian = next(n for n in study.networks if n.head.name == "gaussian")
    assert [said.conditions[-1][1] for said in gaussian.predictions("A")] == ["dropped-50", "noise-0.25mV"]
    for condition in ("noise-0.25mV", "dropped-50"):
        (note,) = (note for note in study.notes if note.startswith(f"A, test, {condition}: left out of "))
        assert "transformer-potassium-gaussian" in note
    monkeypatch.setattr(target_page, "target_study", lambda *_, **__: study)
    monkeypatch.setattr(files, "target_chapters", lambda study: [])
    (report,) = write_report(folder)
    assert "A, test, dropped-50: left out of " in words(report.files[-1].read_text(encoding="utf-8"))


def test_a_population_that_is_added_later_is_asked_of_regressions_as_well(heads, data_dir, tmp_path):
    made, results = heads
    folder = shutil.copytree(results, tmp_path / "heads")
    before = {path.name: path.read_bytes() for path in (folder / "predictions" / "classical").glob("*.parquet")}
    (spec,) = (s for s in made.specs if (s.head.name, s.seed) == ("mse", 1))
    for file in (*folder.glob("transfer/*-B-*"), *folder.glob("predictions/**/*-B-*")):
        file.unlink()
    run_trial(spec, Execution(data_dir, folder, "heads"))
    now = {path.name: path.read_bytes() for path in (folder / "predictions" / "classical").glob("*.parquet")}
    assert now == before


def test_predictions_travel_from_a_node_before_what_says_that_they_are_there(heads, tmp_path):
    made, results = heads
    node = tmp_path / "node"
    shutil.copytree(results, node)
    home = tmp_path / "home"
    trial_id = next(s.trial_id for s in made.specs if s.seed == 1)
    assert shipping.put(home, dict(shipping.taken(node, trial_id)))
    names = [name for name, _ in shipping.published(home, trial_id)]
    folders = [name.split("/")[0] for name in names]
    assert folders.index("predictions") < folders.index("transfer")
    assert len(list((home / "predictions").glob("*.parquet"))) == 2  # A and B
    assert len(list((home / "predictions" / "classical").glob("*.parquet"))) == 10
    assert list((node / "predictions" / "classical").glob("*.parquet"))  # other trials share them


def test_one_size_gives_no_law_and_says_so(heads):
    _, results = heads
    study = sweep_study(results)
    assert not study.laws
    assert any("no law can be fitted" in note for note in study.notes)


def test_records_without_a_value_are_neither_trained_nor_tested_on(data_dir, tmp_path):
    folder = tmp_path / "data"
    for name in ("A", "B"):
        (folder / name).mkdir(parents=True)
        for file in (data_dir / name).iterdir():
            if file.is_file():
                (folder / name / file.name).write_bytes(file.read_bytes())
    exams = pd.read_csv(folder / "A" / "exams.csv")
    exams.loc[::2, "potassium_mmol_l"] = np.nan
    exams.to_csv(folder / "A" / "exams.csv", index=False)
    made = planned(
        tmp_path,
        folder,
        {
            "[mse, gaussian, {name: coral-age, kind: coral, classes: 3, buckets: quantile, "
            "age_and_sex: true}]": "[mse]",
            "seed: [0, 1]": "seed: [0]",
        },
    )
    (spec,) = made.specs
    row = run_trial(spec, Execution(folder, tmp_path / "results", "heads"))
    (score,) = (s for s in row.predicted if (s.population, s.part, s.condition) == ("A", "test", "clean"))
    known = exams["potassium_mmol_l"].notna().sum()
    assert row.status == Status.COMPLETED
    assert spec.n_records + score.n_test < known < len(exams)


@pytest.fixture(scope="module")
def with_an_encoder(data_dir, tiny_plan, tmp_path_factory) -> tuple[Path, Path]:
    """A data directory that holds the weights of a self-supervised encoder, and the file."""
    folder = tmp_path_factory.mktemp("pretrained")
    for name in ("A", "B"):
        (folder / name).symlink_to(data_dir / name)
    (spec,) = (s for s in tiny_plan.specs if s.arm == "transformer-ssl" and s.data_fraction == 1)
    run_trial(spec, Execution(data_dir, folder / "ssl", "tiny"))
    path = folder / "encoders" / "ssl.ckpt"
    encoders.export(folder / "ssl", spec.trial_id, path)
    return folder, path


FROM_SSL = {
    "head: [mse, gaussian, ": "start: [scratch, {encoder: ssl}, {encoder: ssl, frozen: true}]\n  head: [mse, ",
    "seed: [0, 1]": "seed: [0]",
}


def test_a_frozen_encoder_keeps_its_weights_and_a_fine_tuned_one_begins_with_them(with_an_encoder, tmp_path):
    folder, path = with_an_encoder
    made = planned(tmp_path, folder, FROM_SSL)
    before = {k: v for k, v in tensor_file.read(path)["weights"].items() if k.startswith("encoder.")}
    moved = {}
    for spec in (s for s in made.specs if s.head.name == "mse"):
        assert run_trial(spec, Execution(folder, tmp_path / "results", "heads")).status == Status.COMPLETED
        after = tensor_file.read(encoders.encoder_path(tmp_path / "results", spec.trial_id))["weights"]
        change = sum(float((after[k].double() - v.double()).square().sum()) for k, v in before.items())
        moved[spec.arm.removeprefix("transformer-potassium-mse")] = change
    assert moved["-frozen-ssl"] == 0
    assert 0 < moved["-from-ssl"] < 0.5 * moved[""]
    costs = {t.spec.arm: t.train_flops for t in made.trials}
    assert costs["transformer-potassium-mse-frozen-ssl"] < 0.4 * costs["transformer-potassium-mse"]


def test_weights_that_are_missing_changed_or_of_another_network_are_refused(with_an_encoder, data_dir, tmp_path):
    folder, _ = with_an_encoder
    with pytest.raises(DataError, match="ecgscale export encoder"):
        planned(tmp_path, data_dir, FROM_SSL)
    made = planned(tmp_path, folder, FROM_SSL)
    spec = next(s for s in made.specs if s.start is not None)
    other = spec.model_copy(update={"start_fingerprint": "0" * 12})
    assert other.trial_id != spec.trial_id
    assert "has changed since" in run_trial(other, Execution(folder, tmp_path / "a", "heads")).reason
    larger = spec.model_copy(update={"rung": "60K"})
    reason = run_trial(larger, Execution(folder, tmp_path / "b", "heads")).reason
    assert "is not of a transformer of 60K" in reason


def test_a_damaged_prediction_file_is_named(heads, tmp_path):
    _, results = heads
    path = next((results / "predictions").glob("*.parquet"))
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=path.name):
        prediction_files.read(damaged)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target: [potassium]", "target: [kalium]", "no ready-made target is called 'kalium'; there are potassium"),
        ("head: [mse, ", "head: [ordinal, ", "no ready-made head is called 'ordinal'"),
        ("paradigm: [target]", "paradigm: [ssl]", "axes.target goes with paradigm `target`"),
        ("[noise-0.25mV]", "[static]", "no ready-made corruption is called 'static'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(tmp_path, data_dir, old, new, message):
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        planned(tmp_path, data_dir, {old: new})
