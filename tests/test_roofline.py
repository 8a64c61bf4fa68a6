"""What bounds a step is named after what takes most of it, and every share is of something that was measured."""

import pytest

from ecgscale.console_plan import show_profiles
from ecgscale.plan import CPU_CORE, GPU, plan
from ecgscale.roofline import Ceiling, Profile, StepWork

CEILING = Ceiling(flops_per_s=100e9, bytes_per_s=10e9)


def profile(work=(4e9, 1e8), **seconds) -> Profile:
    """A step of 100 ms, all of it in the passes unless told otherwise."""
    parts = {"data_s": 0.0, "forward_s": 0.03, "backward_s": 0.07, "optimiser_s": 0.0, "fixed_s": 0.0} | seconds
    return Profile("arm-20K", 20_000, 16, StepWork(*work), CEILING, step_s=0.1, **parts)


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        ("compute", profile()),
        ("memory", profile(work=(4e8, 8e8))),
        ("launches", profile(fixed_s=0.06)),
        ("launches", profile(forward_s=0.01, backward_s=0.02)),  # the rest is the loop's
        ("data", profile(data_s=0.05, forward_s=0.02, backward_s=0.02)),
    ],
)
def test_what_takes_most_bounds_the_step(bound, found):
    assert found.bound_by == bound


def test_shares_are_of_the_ceilings_and_of_the_step():
    found = profile(data_s=0.02, forward_s=0.01, backward_s=0.03, optimiser_s=0.01)
    assert found.rest_s == pytest.approx(0.03)
    assert found.records_per_s == pytest.approx(160)
    assert found.of_ceiling == pytest.approx(4e9 / 0.1 / 100e9)
    assert profile(work=(4e8, 8e8)).of_roofline == pytest.approx(0.8)  # 80 ms of copying at least
    parts = (found.data_s, found.forward_s, found.backward_s, found.optimiser_s, found.rest_s)
    assert sum(map(found.share, parts)) == pytest.approx(1)
    overlapping = profile(data_s=0.1)  # twice what the loop takes, which does both at once
    assert overlapping.rest_s == 0 and overlapping.share(overlapping.data_s) == pytest.approx(0.5)


def test_the_counted_work_is_that_of_the_plan(tiny_grid):
    trial = plan(tiny_grid).trials[0]
    cpu, gpu = StepWork.of(trial, CPU_CORE), StepWork.of(trial, GPU)
    assert cpu.flops == gpu.flops == trial.train_flops / trial.spec.n_steps
    assert gpu.bytes_moved == 2 * (trial.activation_bytes + trial.state_bytes)
    assert cpu.bytes_moved == 2 * (2 * trial.activation_bytes + trial.state_bytes)  # float32, not bfloat16


def test_the_table_names_what_bounds(capsys, monkeypatch):
    from rich.console import Console

    from ecgscale import console_plan

    monkeypatch.setattr(console_plan, "out", Console(width=200))
    show_profiles([profile(fixed_s=0.06)])
    shown = capsys.readouterr().out
    assert "100 GFLOP/s" in shown and "10 GB/s" in shown
    assert "launches" in shown and "30%" in shown and "70%" in shown
