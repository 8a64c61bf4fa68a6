"""What training reaches on a GPU: `make bench-gpu`. Shares of the measured ceilings, and small trials side by side.

Without a GPU it prints the same columns for two rungs on one CPU thread, so that the command is known to work; those
are not the figures. Ceilings: the fastest bf16 matrix product and the fastest copy of this device, in the same run.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch

from ecgscale.calibrating import calibrate
from ecgscale.calibration import SIDE_BY_SIDE
from ecgscale.console_plan import show_profiles
from ecgscale.data.embedded import write_population
from ecgscale.data.packing import packed
from ecgscale.data.splits import TRAIN, fraction_rows, split_rows
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.execution import Execution
from ecgscale.executors import inprocess, worker
from ecgscale.plan import CPU_CORE, GPU, plan
from ecgscale.results import Status, read
from ecgscale.side_by_side import SideBySide
from ecgscale.specs import load_grid

ON_GPU = torch.cuda.is_available()
SWEEP = Path("sweeps/grid_paper.yaml" if ON_GPU else "sweeps/grid_small.yaml")
LARGE = ("60M", "200M") if ON_GPU else ("20K", "60K")
SMALL = ("20K", "60K", "200K", "600K") if ON_GPU else ("20K",)
N_STEPS = 500 if ON_GPU else 40
"""Of the small trials: enough that building and scoring a network is a small part."""

N_ALONE, N_STACKED = (2, 8) if ON_GPU else (1, 2)
"""Seeds of one trial: one by one, and stacked in each of two processes."""


def probed(cells, **how):
    """Calibration of these cells, on noise."""

    def report(name, step_s, why_not):
        if why_not:
            print(f"  {name}: {why_not}")

    with tempfile.TemporaryDirectory() as nothing:
        return calibrate(cells, Path(nothing), threads=1, limit_s=600, report=report, **how).measurements


def show_profiles_of_large_rungs(grid):
    """Of both families: the Transformer's share of the matrix product, the ResNet's of its roofline."""
    found = []
    probed([t for t in plan(grid).trials if t.spec.rung in LARGE and t.spec.paradigm == "ssl"], profiles=found)
    if found:
        show_profiles(found)


def show_ways(grid):
    """Of small rungs: a step as it stands, compiled (on a GPU with CUDA graphs), and its share of a stacked one."""
    n = SIDE_BY_SIDE[(GPU if ON_GPU else CPU_CORE).name]
    stacked = f"{n} stacked"
    print(f"\n{'milliseconds':<22} {'step':>8} {'compiled':>8} {'ratio':>6} {'cost, s':>8} {stacked:>9} {'ratio':>6}")
    for m in probed([t for t in plan(grid).trials if t.spec.rung in SMALL], compiling=True, stacking=True):
        compiled, stacked = (m.step_s - (saved or 0.0) for saved in (m.saved_s, m.stacked_saved_s))
        print(
            f"{m.cell.family}-{m.cell.paradigm}-{m.cell.rung:<8} {m.step_s * 1e3:>8.1f} {compiled * 1e3:>8.1f} "
            f"{m.step_s / compiled:>6.2f} {m.compile_s or 0.0:>8.0f} {stacked * 1e3:>9.1f} {m.step_s / stacked:>6.2f}"
        )


def small_trials(grid, data):
    """Rung → one trial of every arm, all on one stream."""
    write_population(data / grid.data.train_on, POPULATIONS["A"], n_records=600, seed=0)
    index = packed(data / grid.data.train_on, grid.input).index
    n = len(fraction_rows(index, split_rows(index, grid.data.split)[TRAIN], 1.0, grid.data.split))
    changes = {"transfer_to": (), "data_fingerprint": {}, "data_fraction": 1.0, "n_records": n, "n_steps": N_STEPS}
    found = {rung: {} for rung in SMALL}
    for spec in plan(grid).specs:
        if spec.rung in found:
            train = spec.train.model_copy(update={"n_evaluations": 1})
            found[spec.rung][spec.arm] = spec.model_copy(update=changes | {"train": train, "seed": 0})
    return {rung: tuple(arms.values()) for rung, arms in found.items()}


def records_per_s(specs, data, run, way="eager"):
    """All records over the time from the first trial's start to the last one's end."""
    ways = dict.fromkeys((spec.trial_id for spec in specs), way)
    with tempfile.TemporaryDirectory() as folder:
        run(specs, Execution(data, Path(folder), "bench", ways=ways), lambda end: None)
        rows = read(Path(folder))
    assert [row.status for row in rows] == [Status.COMPLETED] * len(specs), rows
    wall = max(row.ended_at for row in rows) - min(row.started_at for row in rows)
    return sum(row.n_samples_seen for row in rows) / wall.total_seconds()


def in_turns(specs, execution, report):
    inprocess.run(specs, execution, report, together=SideBySide({spec.trial_id: len(specs) for spec in specs}))


def in_processes(specs, execution, report):
    worker.run(specs, execution, report, processes=min(len(specs), os.cpu_count()))


def stacks(specs):
    ids = [spec.trial_id for spec in specs]
    return SideBySide(dict.fromkeys(ids, N_STACKED), frozenset(ids))


def in_a_stack(specs, execution, report):
    inprocess.run(specs, execution, report, together=stacks(specs))


def in_two_stacks(specs, execution, report):
    worker.run(specs, execution, report, processes=2, together=stacks(specs))


def with_seeds(spec, n):
    return tuple(spec.model_copy(update={"seed": seed}) for seed in range(n))


def show(name, alone, *others):
    ratios = (f"{rate:>10,.0f} {rate / alone:>6.2f}" for rate in others)
    print(f"{name:<22} {alone:>11,.0f} {' '.join(ratios)}", flush=True)


def main():
    grid = load_grid(SWEEP)
    if not ON_GPU:
        print("no GPU here: two rungs on one CPU thread, to show that the command works\n")
    show_profiles_of_large_rungs(grid)
    print("\nwanted on a GPU: Transformers at 40 % of the matrix product, ResNets at 67 % of the roofline")
    show_ways(grid)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        trials = small_trials(grid, data)
        print("\nrecords/s and ratios to one by one; wanted on a GPU: 5 ×")
        print(f"\n{'all arms of a rung':<22} {'one by one':>11} {'in turns':>17} {'in processes':>17}")
        for rung, specs in trials.items():
            rates = (records_per_s(specs, data, run) for run in (inprocess.run, in_turns, in_processes))
            show(rung, *rates)
        stacked = f"{N_STACKED} stacked"
        print(f"\n{'seeds of a trial':<22} {'one by one':>11} {stacked:>17} {'two such stacks':>17}")
        for specs in trials.values():
            for spec in specs:
                alone, many = with_seeds(spec, N_ALONE), with_seeds(spec, 2 * N_STACKED)
                show(
                    f"{spec.arm}-{spec.rung}",
                    records_per_s(alone, data, inprocess.run),
                    records_per_s(many[:N_STACKED], data, in_a_stack, "stacked"),
                    records_per_s(many, data, in_two_stacks, "stacked"),
                )


if __name__ == "__main__":
    sys.exit(main())
