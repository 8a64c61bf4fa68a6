"""What a sweep costs besides its trials: `make bench-sweep`. Prints medians and ratios.

(a) 60 trials of about 0.2 s on two slots, against plain Ray Tune and `TorchTrainer` with the same trials. Repeats of
ours and of Tune with reused actors are interleaved; what takes seconds per trial runs a few and is scaled to 60.
(b) Plan and store of 10,000 trials, and what the driver keeps of as many ends.
(c) The simulated sweep of 540 trials whose times are misjudged.
"""

import contextlib
import datetime
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ecgscale.console import out
from ecgscale.console_plan import show_plan
from ecgscale.console_status import view
from ecgscale.data.embedded import write_population
from ecgscale.data.populations import populations
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.execution import Execution
from ecgscale.executors import ray as executor
from ecgscale.plan import plan
from ecgscale.results import append, new_attempt, outcomes, read
from ecgscale.row_cache import CACHE_FILE
from ecgscale.schedule import Job, simulate
from ecgscale.specs import GridSpec, load_grid
from ecgscale.status import Watched
from ecgscale.sweep import SWEEP_FILE, backlog, execute

N_TRIALS, N_SLOTS, REPEATS = 60, 2, 3
N_FRESH, N_TORCH_TRAINER = 6, 2
N_ROWS = 10_000

SWEEP = """\
name: bench
question: What does a sweep cost besides its trials?
data:
  train_on: A
  transfer_to: [B]
  n_train_records: 200
  split: {seed: 0, validation: 0.15, test: 0.25}
input: {fs_hz: 100, n_samples: 1024, patch_samples: 16}
axes: AXES
train:
  budget: {kind: samples_seen, value: 192}
  batch_size: 16
  learning_rate: {resnet: {base: 3e-3}, transformer: {base: 2e-3}}
  n_evaluations: 2
probe:
  tasks: [{name: SB, column: SB}, {name: male, column: is_male}, {name: age, column: age, kind: regression}]
"""
SHORT = {
    "family": ["transformer"],
    "paradigm": ["sl"],
    "rung": ["20K"],
    "data_fraction": [1],
    "seed": list(range(N_TRIALS)),
}
MANY = {
    "family": ["resnet", "transformer"],
    "paradigm": ["sl", "ssl"],
    "rung": ["20K", "60K", "200K", "600K", "2M"],
    "data_fraction": [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1],
    "seed": list(range(N_ROWS // 100)),
}


def planned(folder, axes):
    """The plan of those axes over the data in `folder`; the sweep file is kept in `folder/results`."""
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / SWEEP_FILE).write_text(SWEEP.replace("AXES", json.dumps(axes)))
    grid = load_grid(folder / "results" / SWEEP_FILE)
    return plan(grid, populations(grid, folder / "data"))


# --- (a) short trials ------------------------------------------------------------------------------------------------


def measured(name, run, specs, folder):
    """Runs these trials into a folder of their own: (rows, start-up s, s from the first start to the last end)."""
    execution = Execution(folder / "data", folder / name, "bench")
    called = datetime.datetime.now(datetime.UTC)
    run(specs, execution)
    over = datetime.datetime.now(datetime.UTC)
    rows = read(execution.results)
    assert sorted(row.trial_id for row in rows) == sorted(spec.trial_id for spec in specs)
    assert {row.status for row in rows} == {"completed"}
    first = min(row.started_at for row in rows)
    return rows, (first - called).total_seconds(), (over - first).total_seconds()


def ours(specs, execution):
    executor.run(specs, execution, lambda end: None)


def in_tune(specs, execution, reuse):
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    from ray import tune  # here, so that the driver of ours is measured without it

    def train(config):
        from ecgscale.trial import run_trial

        tune.report({"loss": run_trial(specs[config["number"]], execution).id_loss})

    tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        param_space={"number": tune.grid_search(list(range(len(specs))))},
        tune_config=tune.TuneConfig(reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(execution.results / "tune"), verbose=0),
    ).fit()


def in_torch_trainer(specs, execution):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    for number, spec in enumerate(specs):

        def train(spec=spec):
            from ecgscale.trial import run_trial

            run_trial(spec, execution)

        storage = RunConfig(name=f"{number}", storage_path=str(execution.results / "train"))
        TorchTrainer(train, scaling_config=ScalingConfig(num_workers=1), run_config=storage).fit()


def measure_trials(folder):
    """Prints the table; returns a row."""
    specs = planned(folder, SHORT).specs
    executor.start(executor.Cluster(cpus=N_SLOTS))
    ways = {
        "ecgscale": (ours, specs),
        "Tune, reused actors": (lambda s, e: in_tune(s, e, reuse=True), specs),
    }
    slow = {
        "Tune, fresh actors": (lambda s, e: in_tune(s, e, reuse=False), specs[:N_FRESH]),
        "TorchTrainer per trial": (in_torch_trainer, specs[:N_TORCH_TRAINER]),
    }
    found = {name: [] for name in ways | slow}
    for repeat in range(REPEATS):
        for name, (run, trials) in ways.items():
            found[name].append(measured(f"{name}-{repeat}", run, trials, folder))
    for name, (run, trials) in slow.items():
        found[name].append(measured(name, run, trials, folder))
    executor.stop()
    losses = {}
    for rows, _, _ in (run for runs in found.values() for run in runs):
        for row in rows:
            assert losses.setdefault(row.trial_id, row.id_loss) == row.id_loss, f"{row.label}: another loss"
    own_s = [[row.wall_s + (row.read_outs_s or 0.0) for row in rows] for rows, _, _ in found["ecgscale"]]
    trial_s = statistics.median(map(statistics.mean, own_s))
    train_s = statistics.median(row.train_s for rows, _, _ in found["ecgscale"] for row in rows)
    bound_s = N_TRIALS * trial_s / N_SLOTS
    print(f"{N_TRIALS} trials of {trial_s:.3f} s, {train_s:.3f} s of them training steps; all losses equal\n")
    print(f"| {N_TRIALS} trials on {N_SLOTS} slots | wall s | / bound | until the first trial, s | trials run |")
    print("|---|---|---|---|---|")
    print(f"| bound: sum of trials / slots | {bound_s:.1f} | 1 | | |")
    for name, runs in found.items():
        n, start_s = len(runs[0][0]), statistics.median(start for _, start, _ in runs)
        if name in ways:
            wall_s = statistics.median(wall for _, _, wall in runs)
        else:  # every trial waits for a process: what counts is the time from one start to the next on the same slot
            at_once = 1 if name.startswith("TorchTrainer") else N_SLOTS
            starts = sorted(row.started_at for row in runs[0][0])
            turns = [(b - a).total_seconds() for a, b in zip(starts, starts[at_once:], strict=False)]
            wall_s = statistics.median(turns) * N_TRIALS / N_SLOTS
        print(f"| {name} | {wall_s:.1f} | {wall_s / bound_s:.2f} × | {start_s:.1f} | {len(runs)} × {n} |", flush=True)
    return found["ecgscale"][0][0][0]


# --- (b) ten thousand rows -------------------------------------------------------------------------------------------


def write_rows(cells, folder, like):
    """One completed row per trial, each a minute after the one before."""
    draw = random.Random(0)
    started = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for number, cell in enumerate(cells):
        spec, wall_s = cell.spec, cell.cpu_s * math.exp(draw.gauss(0, 0.3))
        names = ("trial_id", "label", "family", "paradigm", "rung", "arm", "data_fraction", "seed", "n_records")
        fields = {name: getattr(spec, name) for name in names} | {"spec": spec.model_dump_json()}
        fields |= {"read_outs": tuple(read_out.read_out_id for read_out in spec.read_outs)}
        fields |= {"attempt": new_attempt(), "id_loss": draw.random(), "wall_s": wall_s, "train_s": 0.8 * wall_s}
        fields |= {"started_at": started + datetime.timedelta(minutes=number), "ended_at": None}
        append(folder, like.model_copy(update=fields))


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rss_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def timed(what):
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def reading_s(folder):
    """Medians of what `read`, `status` and `plan` do after their imports; the memory that they take."""
    rows = folder / "results"
    found = {"first read": [timed(lambda: read(rows))]}
    steps = {
        "read": lambda: read(rows),
        "outcomes": lambda: outcomes(rows),
        "status": lambda: out.print(view(Watched(rows).progress())),
        "plan": lambda: show_plan(backlog(planned(folder, MANY), rows), as_json=False),
    }
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for name, step in steps.items():
            found[name] = [timed(step) for _ in range(REPEATS)]
    return {name: statistics.median(seconds) for name, seconds in found.items()} | {"peak_mb": peak_mb()}


def driver_mb(folder):
    """Of a driver whose trials all turn out to be done: memory after 1,000 and after all ends, and seconds per end."""
    specs = planned(folder, MANY).specs
    executor.start(executor.Cluster(cpus=N_SLOTS))
    ended, memory_mb, started = [], {}, time.perf_counter()

    def note(end):
        ended.append(end)
        if len(ended) in (N_ROWS // 10, N_ROWS):
            memory_mb[len(ended)] = rss_mb()

    execute(specs, Execution(folder / "data", folder / "results", "bench"), note, executor="ray")
    per_end_s = (time.perf_counter() - started) / len(ended)
    executor.stop()
    return {"memory_mb": list(memory_mb.values()), "per_end_s": per_end_s, "n": len(ended)}


def in_process(function, folder):
    call = f"import json, sys; from pathlib import Path; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    call += f"import bench_sweep as b; print(json.dumps(b.{function.__name__}(Path({str(folder)!r}))))"
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}  # Ray Train has set it
    told = subprocess.run([sys.executable, "-c", call], stdout=subprocess.PIPE, text=True, check=True, env=alone)
    return json.loads(told.stdout)


def measure_store(folder, like):
    write_s = timed(lambda: write_rows(planned(folder, MANY).trials, folder / "results", like))
    found = in_process(reading_s, folder)
    size = sum(path.stat().st_size for path in (folder / "results" / "rows").iterdir()) / N_ROWS
    cache = (folder / "results" / CACHE_FILE).stat().st_size
    print(f"\n| {N_ROWS:,} trials, all done | seconds |\n|---|---|")
    print(f"| `plan` with the folder | {found['plan']:.2f} |")
    print(f"| `status` | {found['status']:.2f} |")
    print(f"| reading all rows | {found['read']:.2f} |")
    print(f"| reading what `status` needs of them | {found['outcomes']:.2f} |")
    print(f"| the first reading, row by row | {found['first read']:.2f} |")
    per_row = f"{write_s / N_ROWS * 1e3:.2f} ms to write, {size / 1e3:.1f} kB"
    print(
        f"a row: {per_row}; the cache: {cache / 1e6:.1f} MB; these readers: at most {found['peak_mb']:.0f} MB of memory"
    )
    driver = in_process(driver_mb, folder)
    before, after = driver["memory_mb"]
    print(f"driver on Ray: {before:.0f} MB after {N_ROWS // 10:,} ends, {after:.0f} MB after {driver['n']:,}; ", end="")
    print(f"{driver['per_end_s'] * 1e3:.1f} ms per trial that is done already")


# --- (c) order -------------------------------------------------------------------------------------------------------


def simulate_540():
    """The sweep of `tests/test_schedule.py`: estimates off by e^N(0, 0.5)."""
    grid = load_grid(Path(__file__).parent.parent / "sweeps" / "grid_paper.yaml").model_dump()
    grid["axes"] |= {"rung": ["20K", "60K", "200K", "600K", "2M", "6M", "20M", "60M", "200M"]}
    grid["axes"] |= {"data_fraction": [1 / 64, 1 / 16, 1 / 4, 1 / 2, 1], "seed": [0, 1, 2]}
    true_s = [cell.gpu_s for cell in plan(GridSpec.model_validate(grid)).trials]
    worst = {}
    for n_devices in (2, 4, 8, 16, 32):
        ratios = []
        for seed in range(10):
            draw = random.Random(seed)
            by_estimate = sorted(true_s, key=lambda s: -s * math.exp(draw.gauss(0, 0.5)))
            found = simulate([Job(s) for s in by_estimate], n_devices)
            ratios.append(found.makespan_s / found.lower_bound_s)
        worst[n_devices] = max(ratios)
    words = ", ".join(f"{ratio:.3f} on {n}" for n, ratio in worst.items())
    print(f"\nsimulated, {len(true_s)} trials: makespan / lower bound {words} (the worst of ten draws)")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for population, n_records in (("A", 300), ("B", 150)):
            write_population(folder / "data" / population, POPULATIONS[population], n_records=n_records, seed=0, jobs=1)
        like = measure_trials(folder)
        measure_store(folder, like)
    simulate_540()


if __name__ == "__main__":
    main()
