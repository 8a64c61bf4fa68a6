"""Training throughput against a bare loop in the same run: `make bench-train`. Prints medians and ratios.

Baseline: forward, backward, clip and step over tensors that lie normalised in memory; no Lightning, no store.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from ecgscale.data.embedded import write_population
from ecgscale.data.populations import populations
from ecgscale.data.splits import TRAIN, VALIDATION, split_rows
from ecgscale.data.store import open_store, store_name
from ecgscale.data.stream import RecordSource, TrainingStream
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.ladder import shape
from ecgscale.models import build_encoder
from ecgscale.objectives import build_objective
from ecgscale.plan import plan
from ecgscale.specs import load_grid
from ecgscale.training import Pretraining, fit

N_STEPS = 40
REPEATS = 3


def module_of(spec, scale):
    torch.manual_seed(0)
    network = shape(spec.family, spec.rung, spec.input.shape)
    objective = build_objective(
        spec.paradigm, network, spec.input.shape, n_labels=len(spec.labels), mask_ratio=spec.mask_ratio
    )
    return Pretraining(build_encoder(network, spec.input.shape), objective, spec, scale)


def bare_s(spec, stream, scale):
    module = module_of(spec, scale)
    batches = [module.normalised(batch) for batch in stream]
    optimizer = torch.optim.AdamW(module.parameters(), lr=spec.peak_lr)
    started = time.perf_counter()
    for batch in batches:
        scored = module.objective(module.encoder, batch)
        (scored.loss_sum / scored.weight).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), spec.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


def main():
    torch.set_num_threads(1)
    grid = load_grid(Path("sweeps/grid_small.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("A", "B"):
            write_population(Path(folder) / name, POPULATIONS[name], n_records=400, seed=0)
        specs = plan(grid, populations(grid, Path(folder))).specs
        store = open_store(Path(folder) / "A" / "packed" / store_name(grid.input))
        parts = split_rows(store.index, grid.data.split)
        print(f"{'trial':<28} {'bare loop':>12} {'ecgscale':>12} {'ratio':>6}   records/s, one CPU thread")
        for spec in [s for s in specs if s.data_fraction == 1]:
            spec = spec.model_copy(update={"n_steps": N_STEPS})
            spec = spec.model_copy(update={"train": spec.train.model_copy(update={"n_evaluations": 1})})
            source = RecordSource(store, parts[TRAIN], spec.labels)
            validation = RecordSource(store, parts[VALIDATION], spec.labels)
            stream = TrainingStream(source, batch_size=spec.train.batch_size, n_steps=N_STEPS, seed=0)
            scale = store.header.scale
            bare, ours = [], []
            for _ in range(REPEATS):
                bare.append(bare_s(spec, stream, scale))
                ours.append(fit(module_of(spec, scale), stream, validation, accelerator="cpu")[1])
            seen = N_STEPS * spec.train.batch_size
            rates = [seen / statistics.median(times) for times in (bare, ours)]
            print(f"{spec.label:<28} {rates[0]:>12.0f} {rates[1]:>12.0f} {rates[1] / rates[0]:>6.2f}")


if __name__ == "__main__":
    main()
