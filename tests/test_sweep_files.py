"""Every sweep we ship can be planned and is as large as it says."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgscale.ladder import RUNGS
from ecgscale.plan import Plan, plan
from ecgscale.specs import load_grid

SWEEPS = Path(__file__).parent.parent / "sweeps"
FILES = sorted(SWEEPS.glob("*.yaml"))


def planned_file(name: str) -> Plan:
    return plan(load_grid(SWEEPS / f"{name}.yaml"))


def test_the_promised_sweeps_are_there():
    grids = {"grid_tiny", "grid_small", "grid_cpu", "grid_medium", "grid_paper", "ptbxl_small"}
    assert grids | {"electrolytes_small", "electrolytes_paper"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_sweep_file_plans(path):
    made = plan(load_grid(path))
    grid, axes = made.grid, made.grid.axes
    assert grid.name == path.stem  # the results folder is found by the file's name
    assert grid.question.endswith("?")
    taught = {"sl": len(axes.n_labels), "ssl": 1, "target": len(axes.target) * len(axes.head) * len(axes.start)}
    n_arms = len(axes.family) * sum(taught[paradigm] for paradigm in axes.paradigm)
    assert len(made.trials) == n_arms * len(axes.rung) * len(axes.data_fraction) * len(axes.seed)
    assert len({s.trial_id for s in made.specs}) == len({s.label for s in made.specs}) == len(made.trials)
    for family in axes.family:
        sizes = [{t.n_params for t in made.trials if (t.spec.family, t.spec.rung) == (family, r)} for r in axes.rung]
        assert all(len(size) == 1 for size in sizes)  # N does not depend on paradigm, D or seed
        ascending = [size.pop() for _, size in sorted(zip(axes.rung, sizes, strict=True), key=lambda x: RUNGS[x[0]])]
        assert all(a < b for a, b in itertools.pairwise(ascending))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_sweep_file_starts_with_what_it_answers_how_and_at_what_cost(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(header) >= 3
    assert any("Command:" in line and path.stem in line for line in header)
    assert any("Cost:" in line for line in header)


def test_grid_tiny_takes_seconds():
    made = planned_file("grid_tiny")
    assert len(made.trials) == 2 * 2 * 2 * 3
    assert made.grid.input.shape.n_samples == 1024
    assert max(t.cpu_s for t in made.trials) < 10


def test_grid_small_has_48_trials_of_three_rungs_at_100_hz():
    made = planned_file("grid_small")
    assert len(made.trials) == 48
    assert made.grid.axes.rung == ("20K", "60K", "200K")
    assert len(made.grid.axes.data_fraction) == 4
    assert (made.grid.input.fs_hz, made.grid.input.n_samples) == (100, 1024)
    assert {s.arm for s in made.specs} == {"resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl"}


def test_grid_paper_has_128_trials_from_20k_to_200m_at_400_hz():
    made = planned_file("grid_paper")
    assert len(made.trials) == 128
    assert (made.grid.input.fs_hz, made.grid.input.n_samples) == (400, 4096)
    n = [t.n_params for t in made.trials]
    assert min(n) == pytest.approx(20_000, rel=0.1)
    assert max(n) == pytest.approx(200_000_000, rel=0.1)
    assert len({(t.spec.family, t.n_params) for t in made.trials}) == 2 * 8


def test_ptbxl_small_has_both_paradigms_and_families_at_three_sizes_and_fractions():
    made = planned_file("ptbxl_small")
    axes = made.grid.axes
    assert set(axes.family) == {"resnet", "transformer"} and set(axes.paradigm) == {"sl", "ssl"}
    assert len(axes.rung) >= 3 and len(axes.data_fraction) >= 3
    assert len(made.grid.data.transfer_to) >= 2


def run_plan(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "ecgscale.cli", "plan", str(SWEEPS / "grid_paper.yaml"), *arguments]
    # a wide terminal, so that no cell of the table is cut
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_plan_prints_every_trial_of_grid_paper_and_its_makespan_on_1_8_and_64_gpus(tmp_path):
    printed = run_plan(folder=tmp_path)
    made = planned_file("grid_paper")
    for spec in made.specs:
        assert spec.label in printed
    assert "128 trials; N " in printed  # which of them are done nobody knows without the data
    assert " done" not in printed
    makespan = next(line for line in printed.splitlines() if line.startswith("makespan, one H100-class GPU"))
    assert [f" on {k}" in makespan for k in (1, 8, 64)] == [True] * 3
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind

    as_json = json.loads(run_plan("--json", folder=tmp_path))
    assert len(as_json["trials"]) == as_json["n_trials"] == 128
    gpu = as_json["makespan_s"]["gpu"]
    # with 8 the largest trial alone may take longest
    assert gpu["1"] > gpu["8"] >= gpu["64"] == max(t["gpu_s"] for t in as_json["trials"])
    # small trials share a GPU: shorter than one after the other, and no shorter than the time they need of it
    needed_s = sum(t["gpu_s"] * t["gpu_share"] for t in as_json["trials"])
    assert needed_s <= gpu["1"] <= min(1.05 * needed_s, sum(t["gpu_s"] for t in as_json["trials"]))
    assert all(t["memory_bytes"] > 0 and t["train_flops"] > 0 for t in as_json["trials"])
