"""What a trial holds of a GPU."""

import os

import pytest

from ecgscale.executors.slots import Slots
from ecgscale.plan import plan, planned


def test_a_trial_holds_what_the_plan_says_unless_told_otherwise(tiny_grid):
    spec = plan(tiny_grid).specs[0]
    assert Slots().share(spec, 80) == planned(spec).gpu_share(80) == 1 / 8
    assert Slots().share(spec, 1) == planned(spec).gpu_share(1) > 1 / 8
    assert Slots(trials_per_gpu=3).share(spec, 80) == 1 / 3
    assert Slots(trials_per_gpu=3, alone=True).share(spec, 80) == 1


def test_a_stack_holds_what_all_of_it_need_at_once(tiny_grid):
    group = tuple(spec for spec in plan(tiny_grid).specs if spec.arm == "transformer-sl") * 4
    cost = planned(group[0])
    gib = (cost.memory_bytes + 7 * 1.15 * cost.state_bytes) * 1.01 / 2**30  # for all of them, one computing
    assert Slots().group_share(group, gib) == 1 / 1
    assert Slots().group_share(group, 8 * gib) == 1 / 8
    assert Slots().group_share(group, 8 * gib, stacked=True) > 1 / 8


def test_nobody_shares_a_gpu_whose_memory_is_unknown(tiny_grid):
    assert Slots().share(plan(tiny_grid).specs[0], None) == 1


@pytest.mark.parametrize(("told", "gib"), [("81559\n24576\n", 24), ("[N/A]\n", None), ("", None)])
def test_the_smallest_gpu_of_a_node_counts(told, gib, tmp_path, monkeypatch):
    ray_slot = pytest.importorskip("ecgscale.executors.ray_slot")
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\nprintf '{told}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert ray_slot.gpu_memory_gib() == gib


def test_without_nvidias_tool_nobody_knows(tmp_path, monkeypatch):
    ray_slot = pytest.importorskip("ecgscale.executors.ray_slot")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ray_slot.gpu_memory_gib() is None
