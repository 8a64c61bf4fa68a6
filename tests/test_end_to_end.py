"""The whole arrow as a user runs it, on simulated and on real records."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecgscale.results import read

ROOT = Path(__file__).parent.parent
REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real_records = pytest.mark.skipif(not REAL.is_absolute() or not REAL.is_dir(), reason="needs ECGSCALE_REAL_DATA")


def ecgscale(*arguments, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "ecgscale.cli", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.ray
def test_grid_tiny_from_records_to_figures_and_again(tmp_path, data_dir):
    sweep = ("sweep", "sweeps/grid_tiny.yaml", "--data", data_dir, "--out", tmp_path / "r" / "grid_tiny")
    first = json.loads(ecgscale(*sweep, "--json").stdout)
    assert first == {"n_trials": 24, "already_done": 0, "diverged_before": 0, "ended": {"completed": 24}}
    rows = {r.trial_id: r.id_loss for r in read(tmp_path / "r" / "grid_tiny")}
    assert len(rows) == 24

    again = json.loads(ecgscale(*sweep, "--json").stdout)
    assert again == {"n_trials": 24, "already_done": 24, "diverged_before": 0, "ended": {}}
    assert "nothing is missing" in ecgscale(*sweep).stdout

    # a lost row is made again, with the same numbers
    lost = next((tmp_path / "r" / "grid_tiny" / "rows").glob("*.parquet"))
    lost.unlink()
    assert json.loads(ecgscale(*sweep, "--json", "--executor", "inprocess").stdout)["ended"] == {"completed": 1}
    assert {r.trial_id: r.id_loss for r in read(tmp_path / "r" / "grid_tiny")} == rows

    table = ecgscale("fit-laws", tmp_path / "r", "--bootstrap", "100").stdout
    assert "resnet-ssl" in table
    assert "transfer to B, unseen tasks" in table
    figures = tmp_path / "r" / "grid_tiny" / "figures"
    assert {"scaling-in-distribution.pdf", "surface-in-distribution.pdf", "loss-to-loss.pdf"} <= {
        p.name for p in figures.iterdir()
    }
    assert "Warning" not in ecgscale("report", tmp_path / "r" / "grid_tiny", "--bootstrap", "100").stderr
    assert "24 completed" in ecgscale("status", tmp_path / "r" / "grid_tiny").stdout


@pytest.mark.slow
def test_failing_trials_leave_rows_and_an_exit_status(tmp_path, data_dir, tiny_sweep_text):
    data = tmp_path / "data"
    shutil.copytree(data_dir, data)
    broken = tmp_path / "broken.yaml"
    # a learning rate that overflows float32 within three steps, for one of the two families
    broken.write_text(tiny_sweep_text.replace("transformer: {base: 2e-3}", "transformer: {base: 1e30}"))
    out = tmp_path / "out"
    run = ("sweep", broken, "--data", data, "--out", out, "--executor", "inprocess", "--json")
    ended = json.loads(ecgscale(*run, expect=3).stdout)["ended"]
    assert ended == {"completed": 4, "diverged": 4}
    by_family = {(r.family, r.status) for r in read(out)}
    assert by_family == {("resnet", "completed"), ("transformer", "diverged")}


@pytest.mark.slow
@needs_real_records
def test_real_records_train_and_transfer(tmp_path):
    data = tmp_path / "data"
    ecgscale("data", "import", REAL / "ptbxl-zscored", "--kind", "ptbxl-zscored", "--out", data / "ptbxl")
    ecgscale("data", "import", REAL / "ludb", "--out", data / "ludb")
    ecgscale("data", "import", REAL / "cinc2021-sample", "--records", "E*", "--out", data / "georgia")
    text = (ROOT / "sweeps" / "ptbxl_small.yaml").read_text()
    text = text.replace("rung: [20K, 60K, 200K]", "rung: [20K]").replace("[1/8, 1/4, 1/2, 1]", "[1]")
    text = text.replace("seed: [0, 1, 2]", "seed: [0]")
    text = text.replace("family: [resnet, transformer]", "family: [resnet]").replace("value: 10}", "value: 3}")
    sweep = tmp_path / "one.yaml"
    sweep.write_text(text)
    ecgscale("sweep", sweep, "--data", data, "--out", tmp_path / "out", "--executor", "inprocess")
    for row in read(tmp_path / "out"):
        assert row.status == "completed"
        assert row.id_loss < row.id_constant_loss
        populations = {score.population for score in row.transfer}
        assert populations == {"ludb", "georgia"}
        assert all(score.n_test in (200, 199, 59) for score in row.transfer)
