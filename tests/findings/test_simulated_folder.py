"""A simulated results folder has the rows of its sweep, with the planted losses, and can't be taken for a real one."""

import pytest
from planted_truths import EFFICIENT, LARGEST_N, grid, law, truth

from ecgscale import results
from ecgscale.errors import EcgscaleError
from ecgscale.plan import plan
from ecgscale.planted import load_truth, simulate, write_simulated

SWEEP = """\
name: tiny
question: Would it decide?
data: {train_on: A, transfer_to: [B], n_train_records: 2000}
input: {fs_hz: 100, n_samples: 1024, patch_samples: 16}
axes:
  family: [resnet]
  paradigm: [sl]
  rung: [20K, 60K]
  data_fraction: [1/2, 1]
train:
  budget: {kind: epochs, value: 4}
  learning_rate: {resnet: {base: 8e-3}}
probe:
  tasks: [code6, sex]
"""

TRUTH = """\
arms:
  resnet-sl:
    in_distribution: {E: 0.2, A: 4, alpha: 0.3, B: 3, beta: 0.3}
    seen: {floor: 0.3}
    unseen: {floor: 0.4, kappa: 0.8, parameters: 2}
noise: {trial: 0.01}
failed: 0.05
"""


@pytest.fixture
def files(tmp_path):
    sweep, planted = tmp_path / "sweep.yaml", tmp_path / "truth.yaml"
    sweep.write_text(SWEEP)
    planted.write_text(TRUTH)
    return sweep, planted


def test_folder_holds_the_rows_of_the_plan(files, tmp_path):
    sweep, planted = files
    n_rows = write_simulated(sweep, load_truth(planted), tmp_path / "out")
    records = results.read(tmp_path / "out")
    assert n_rows == len(records) == 4
    assert {r.device for r in records} == {"simulated"}
    completed = next(r for r in records if r.status == results.Status.COMPLETED)
    assert {s.task for s in completed.transfer} == {"code6:AF", "sex"} | {s.task for s in completed.transfer if s.seen}
    assert [s.seen for s in completed.transfer if s.task == "sex"] == [False]
    assert (tmp_path / "out" / "sweep.yaml").read_text() == SWEEP
    with pytest.raises(EcgscaleError, match="holds results already"):
        write_simulated(sweep, load_truth(planted), tmp_path / "out")


def test_losses_are_the_planted_laws():
    noiseless = truth(laws={"resnet-sl": law(0.02, 0.05)}, transfer={("resnet-sl", "seen"): {"kappa": 2.0}}, noise=0)
    rows = [r for r in simulate(grid(), noiseless) if r.arm == "resnet-sl"]
    largest = max(rows, key=lambda r: (r.n_params, r.n_records))
    assert largest.n_params == pytest.approx(LARGEST_N, rel=0.1)
    assert largest.id_loss == pytest.approx(0.2 + 0.02 + 0.05, rel=0.01)
    seen = next(s for s in largest.transfer if s.seen)
    assert seen.loss == pytest.approx(0.3 + 0.07**2, rel=0.01)


def test_sizes_and_trials_are_those_of_the_plan():
    rows, trials = simulate(grid(), EFFICIENT), plan(grid()).trials
    assert {(r.trial_id, r.n_params, r.n_records, r.train_flops) for r in rows} == {
        (t.spec.trial_id, t.n_params, t.spec.n_records, t.train_flops) for t in trials
    }


def test_same_seed_same_rows():
    assert simulate(grid(), EFFICIENT, seed=1) == simulate(grid(), EFFICIENT, seed=1)
    assert simulate(grid(), EFFICIENT, seed=1) != simulate(grid(), EFFICIENT, seed=2)


def test_planted_failures_fail():
    rows = simulate(grid(), truth(failed=0.3))
    failed = [r for r in rows if r.status == results.Status.FAILED]
    assert 0.2 < len(failed) / len(rows) < 0.4
    assert all(r.id_loss is None and not r.transfer for r in failed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("kappa", "kapa"), r"truth.yaml:5: arms.resnet-sl.unseen.kapa: unknown key"),
        (("resnet-sl", "resnet"), "'resnet' is none"),
        (("failed: 0.05", "failed: 2"), r"truth.yaml:7: failed: Input should be less than 1"),
        (("resnet-sl", "transformer-sl"), "has no arm resnet-sl"),
    ],
)
def test_a_wrong_truth_is_refused(files, tmp_path, change, says):
    sweep, planted = files
    planted.write_text(TRUTH.replace(*change))
    with pytest.raises(EcgscaleError, match=says):
        write_simulated(sweep, load_truth(planted), tmp_path / "out")
    assert not (tmp_path / "out").exists()
