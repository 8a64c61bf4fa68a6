"""What a results folder can't answer is undecided with its reason, whatever is missing from it; nothing raises."""

import importlib.resources
import json
from dataclasses import replace

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_truths import EFFICIENT, grid

from ecgscale import results
from ecgscale.findings import Verdict, conclusions
from ecgscale.fitted import Method
from ecgscale.planted import simulate
from ecgscale.study import ID_TARGET, JOINT
from ecgscale.sweep_laws import records_study, sweep_study

FEW = Method(bootstrap=30)
SCHEMA = json.loads((importlib.resources.files("ecgscale") / "fits.schema.json").read_text())


@pytest.fixture(scope="module")
def records():
    return simulate(grid(rungs=("20K", "200K", "2M"), fractions=3, seeds=1), EFFICIENT)


@pytest.fixture(scope="module")
def one_loss(records):
    """One arm, in distribution only: enough where it is the rows that matter."""
    return [r.model_copy(update={"transfer": ()}) for r in records if r.arm == "resnet-sl"]


def decided(records):
    """Conclusion by name, after checking that all of it can be written down."""
    made = {c.name: c for c in conclusions(records_study("x", None, records, FEW))}
    for conclusion in made.values():
        json.dumps(conclusion.to_dict(), allow_nan=False)
        assert conclusion.findings
        assert conclusion.summary
        assert all(finding.reason for finding in conclusion.findings)
    return made


def reasons(conclusion):
    return " | ".join(finding.reason for finding in conclusion.findings)


def test_one_arm_only(records):
    made = decided([r for r in records if r.arm == "resnet-sl"])
    assert {c.verdict for c in made.values()} - {Verdict.UNDECIDED} <= {made["data_bottleneck"].verdict}
    assert "no completed trial of transformer-sl" in reasons(made["parameter_efficiency"])
    assert "no completed trial of resnet-ssl" in reasons(made["data_efficiency"])
    assert "no completed trial of a self-supervised arm" in reasons(made["ssl_improves"])
    assert "same labels" in reasons(made["labels_in_distribution"])


def test_one_size_only(records):
    made = decided([r for r in records if r.rung == "200K"])
    assert {c.verdict for c in made.values()} == {Verdict.UNDECIDED}
    assert "needs at least 6 points" in reasons(made["parameter_efficiency"])


def test_missing_cells_and_missing_losses(records):
    holes = [r.model_copy(update={"id_loss": None}) if k % 5 == 0 else r for k, r in enumerate(records) if k % 7]
    decided(holes)


def test_laws_of_tasks_are_in_the_json_and_in_a_table_of_their_own(records):
    study = records_study("x", None, [r for r in records if r.arm == "resnet-ssl"], FEW)
    jsonschema.validate(json.loads(json.dumps(study.to_dict(), allow_nan=False)), SCHEMA)
    assert "B: AF" in {fit["target"] for fit in study.to_dict()["fits"]}
    assert set(study.task_table()["target"]) >= {"B: AF", "B: new_0"}
    assert not set(study.law_table()["target"]) & {"B: AF", "B: new_0"}


def test_no_transfer(records):
    made = decided([r.model_copy(update={"transfer": ()}) for r in records])
    for name in ("parameter_efficiency", "data_efficiency", "transfer_efficiency", "lowest_loss", "overtaking"):
        assert made[name].verdict is Verdict.UNDECIDED
        assert "task on another population" in reasons(made[name])


def test_mixed_data_are_not_mixed(one_loss):
    """Fewer trials on other data, with ten times the loss: they move nothing, and are said to be left out."""
    others = [
        r.model_copy(update={"trial_id": f"other{k}", "data_fingerprint": '{"A": "mended"}', "id_loss": 10 * r.id_loss})
        for k, r in enumerate(one_loss[:4])
    ]
    alone, mixed = (records_study("x", None, rows, FEW) for rows in (one_loss, [*one_loss, *others]))
    for law in alone.laws:
        there = mixed.law(law.group, law.target, law.law, law.kind)
        assert there.fit == law.fit
    assert any("4 completed trials were trained or tested on other data" in note for note in mixed.notes)
    assert mixed.law("resnet-sl", ID_TARGET, "chinchilla", JOINT).fit.n_points == len(one_loss)


def test_nan_rows_on_disk_are_put_aside(one_loss, tmp_path):
    for record in one_loss:
        results.append(tmp_path / "x", record)
    rows = sorted((tmp_path / "x" / "rows").iterdir())
    table = pq.read_table(rows[0]).to_pylist()[0] | {"id_loss": float("nan")}
    pq.write_table(pa.Table.from_pylist([table], schema=results.ROW_SCHEMA), rows[0])
    made = conclusions(sweep_study(tmp_path / "x", FEW))
    assert len(made) == 9
    assert results.quarantined(tmp_path / "x")


def test_a_table_has_groups_and_no_arms(one_loss):
    study = replace(records_study("x", None, one_loss, FEW), arms=(), transfers=())
    made = conclusions(study)
    assert {c.verdict for c in made} == {Verdict.UNDECIDED}
