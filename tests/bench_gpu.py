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
from ecgscale.console_plan import show_profiles
from ecgscale.data.embedded import write_population
from ecgscale.data.packing import packed
from ecgscale.data.splits import TRAIN, fraction_rows, split_rows
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.execution import Execution
from ecgscale.executors import inprocess, worker
from ecgscale.plan import plan
from ecgscale.results import Status, read
from ecgscale.side_by_side import SideBySide
from ecgscale.specs import load_grid

ON_GPU = torch.cuda.is_available()
SWEEP = Path("sweeps/grid_paper.yaml" if ON_GPU else "sweeps/grid_small.yaml")
LARGE = ("60M", "200M") if ON_GPU else ("20K", "60K")
SMALL = ("20K", "60K", "200K", "600K") if ON_GPU else ("20K",)
N_STEPS = 1000 if ON_GPU else 40
"""Of the small trials: enough that building and scoring a network is a small part."""


def profiles(grid):
    """Of both families at large rungs: the Transformer's share of the matrix product, the ResNet's of its roofline."""
    cells = [t for t in plan(grid).trials if t.spec.rung in LARGE and t.spec.paradigm == "ssl"]
    found = []

    def report(name, step_s, why_not):
        if why_not:
            print(f"  {name}: {why_not}")

    with tempfile.TemporaryDirectory() as nothing:
        calibrate(cells, Path(nothing), threads=1, limit_s=600, report=report, profiles=found)
    return found


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


def records_per_s(specs, data, run):
    """All records over the time from the first trial's start to the last one's end."""
    with tempfile.TemporaryDirectory() as folder:
        run(specs, Execution(data, Path(folder), "bench"), lambda end: None)
        rows = read(Path(folder))
    assert [row.status for row in rows] == [Status.COMPLETED] * len(specs), rows
    wall = max(row.ended_at for row in rows) - min(row.started_at for row in rows)
    return sum(row.n_samples_seen for row in rows) / wall.total_seconds()


def in_turns(specs, execution, report):
    inprocess.run(specs, execution, report, together=SideBySide({spec.trial_id: len(specs) for spec in specs}))


def in_processes(specs, execution, report):
    worker.run(specs, execution, report, processes=min(len(specs), os.cpu_count()))


def main():
    grid = load_grid(SWEEP)
    if not ON_GPU:
        print("no GPU here: two rungs on one CPU thread, to show that the command works\n")
    found = profiles(grid)
    if found:
        show_profiles(found)
    print("\nwanted on a GPU: Transformers at 40 % of the matrix product, ResNets at 67 % of the roofline\n")
    print(f"{'rung':<6} {'one by one':>11} {'in turns':>10} {'ratio':>6} {'processes':>10} {'ratio':>6}   records/s")
    with tempfile.TemporaryDirectory() as folder:
        for rung, specs in small_trials(grid, Path(folder)).items():
            alone = records_per_s(specs, Path(folder), inprocess.run)
            turns = records_per_s(specs, Path(folder), in_turns)
            processes = records_per_s(specs, Path(folder), in_processes)
            print(
                f"{rung:<6} {alone:>11,.0f} {turns:>10,.0f} {turns / alone:>6.2f} "
                f"{processes:>10,.0f} {processes / alone:>6.2f}   {len(specs)} trials"
            )
    print("\nwanted on a GPU: 5 × one by one")


if __name__ == "__main__":
    sys.exit(main())
