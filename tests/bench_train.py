"""Training throughput beside two baselines in the same run: `make bench-train`. Prints medians and ratios.

- bare loop: forward, backward, clip and step over batches that lie normalised in memory, with the same network and the
  same fused optimiser; no Lightning, no store.
- field code: plain Lightning over a DataLoader that reads each record from the CODE-format HDF5 file (gzip, 400 Hz, one
  record per chunk), resamples and z-scores it; torch's default AdamW, and the ResNet of one-dimensional layers.
"""

import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import lightning.pytorch as pl
import numpy as np
import torch
from scipy.signal import resample_poly
from torch import nn
from torch.nn import functional

from ecgscale.conventions import CODE_FS_HZ
from ecgscale.data.embedded import write_population
from ecgscale.data.populations import populations
from ecgscale.data.splits import TRAIN, VALIDATION, split_rows
from ecgscale.data.store import open_store, store_name
from ecgscale.data.stream import RecordSource, TrainingStream
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.ladder import RESNET_KERNEL, RESNET_STRIDES, shape
from ecgscale.models import build_encoder
from ecgscale.models.encoder import Encoded
from ecgscale.objectives import build_objective
from ecgscale.objectives.batch import Batch
from ecgscale.plan import plan
from ecgscale.specs import load_grid
from ecgscale.training import Pretraining, fit

N_RECORDS = 400
N_STEPS = {"20K": 40, "60K": 40, "200K": 30, "2M": 10}
REPEATS = 5


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
    optimizer = torch.optim.AdamW(module.parameters(), lr=spec.peak_lr, fused=True)
    started = time.perf_counter()
    for batch in batches:
        module.objective(module.encoder, module.objective.drawn(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), spec.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


# --- as field code does it -------------------------------------------------------------------------------------------


class PublishedStage(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = convolution(c_in, c_out, 1)
        self.norm1 = nn.BatchNorm1d(c_out)
        self.conv2 = convolution(c_out, c_out, stride)
        self.norm2 = nn.BatchNorm1d(c_out)
        skip = [nn.MaxPool1d(stride)] if stride > 1 else []
        skip += [nn.Conv1d(c_in, c_out, 1, bias=False)] if c_in != c_out else []
        self.skip = nn.Sequential(*skip)

    def forward(self, x, skip):
        total = self.conv2(functional.relu(self.norm1(self.conv1(x)))) + self.skip(skip)
        return functional.relu(self.norm2(total)), total


class PublishedResNet(nn.Module):
    """The same network of one-dimensional layers."""

    def __init__(self, network):
        super().__init__()
        self.stem = nn.Sequential(convolution(12, network.channels[0], 1), nn.BatchNorm1d(network.channels[0]))
        c_in = (network.channels[0], *network.channels)
        self.stages = nn.ModuleList(map(PublishedStage, c_in, network.channels, RESNET_STRIDES))

    def forward(self, signal):
        x = skip = self.stem(signal)
        outputs = []
        for stage in self.stages:
            x, skip = stage(x, skip)
            outputs.append(x)
        return Encoded(tuple(outputs), x.mean(dim=-1))


def convolution(c_in, c_out, stride):
    return nn.Conv1d(c_in, c_out, RESNET_KERNEL, stride=stride, padding=(RESNET_KERNEL - stride + 1) // 2, bias=False)


class Hdf5Records(torch.utils.data.Dataset):
    def __init__(self, path, rows, targets, input_):
        self.file, self.rows, self.targets, self.input = h5py.File(path)["tracings"], rows, targets, input_

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, k):
        signal = resample_poly(self.file[self.rows[k]], int(self.input.fs_hz), CODE_FS_HZ, axis=0).T
        signal = signal[:, : self.input.n_samples]
        signal = (signal - signal.mean(axis=1, keepdims=True)) / (signal.std(axis=1, keepdims=True) + 1e-8)
        return torch.from_numpy(signal.astype(np.float32)), self.targets[k]


class PlainModule(pl.LightningModule):
    def __init__(self, encoder, objective, lr):
        super().__init__()
        self.encoder, self.objective, self.lr = encoder, objective, lr

    def training_step(self, batch, batch_idx):
        signal, targets = batch
        recorded = torch.ones(len(signal), signal.shape[-1], dtype=torch.bool)
        batch = self.objective.drawn(Batch(signal, recorded, targets, batch_idx))
        loss = self.objective(self.encoder, batch).loss
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Clock(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        self.started = time.perf_counter()

    def on_train_end(self, trainer, pl_module):
        self.seconds = time.perf_counter() - self.started


def field_code_s(spec, path, source):
    module = module_of(spec, 1.0)
    network = shape(spec.family, spec.rung, spec.input.shape)
    encoder = PublishedResNet(network) if spec.family == "resnet" else module.encoder
    records = Hdf5Records(path, source.rows, torch.from_numpy(source.targets), spec.input)
    loader = torch.utils.data.DataLoader(records, batch_size=spec.train.batch_size, shuffle=True, drop_last=True)
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=spec.n_steps,
        gradient_clip_val=spec.train.clip_norm,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(PlainModule(encoder, module.objective, spec.peak_lr), loader)
    return clock.seconds


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    grid = load_grid(Path("sweeps/grid_small.yaml"))
    axes = grid.axes.model_copy(update={"rung": tuple(N_STEPS), "data_fraction": (1.0,), "seed": (0,)})
    grid = grid.model_copy(update={"axes": axes})
    with tempfile.TemporaryDirectory() as folder:
        for name in ("A", "B"):
            write_population(Path(folder) / name, POPULATIONS[name], n_records=N_RECORDS, seed=0)
        specs = plan(grid, populations(grid, Path(folder))).specs
        store = open_store(Path(folder) / "A" / "packed" / store_name(grid.input))
        (hdf5,) = (Path(folder) / "A").glob("*.hdf5")
        parts = split_rows(store.index, grid.data.split)
        print("records/s, one CPU thread; medians, and the medians of the ratios of neighbours")
        print(f"{'arm and rung':<22} {'ecgscale':>9} {'bare loop':>10} {'ratio':>6} {'field code':>11} {'ratio':>6}")
        for spec in sorted(specs, key=lambda s: (s.arm, list(N_STEPS).index(s.rung))):
            train = spec.train.model_copy(update={"n_evaluations": 1})
            spec = spec.model_copy(update={"n_steps": N_STEPS[spec.rung], "train": train})
            source = RecordSource(store, parts[TRAIN], spec.labels)
            validation = RecordSource(store, parts[VALIDATION][:16], spec.labels)
            stream = TrainingStream(source, batch_size=spec.train.batch_size, n_steps=spec.n_steps, seed=0)
            scale = store.header.scale
            found = []
            for _ in range(REPEATS):
                ours = fit(module_of(spec, scale), stream, validation, accelerator="cpu")[1]
                found.append((ours, bare_s(spec, stream, scale), field_code_s(spec, hdf5, source)))
            seen = spec.n_steps * spec.train.batch_size
            ours, bare, field = (seen / statistics.median(times) for times in zip(*found, strict=True))
            to_bare, to_field = (statistics.median(times[k] / times[0] for times in found) for k in (1, 2))
            print(
                f"{f'{spec.arm}-{spec.rung}':<22} {ours:>9.0f} {bare:>10.0f} {to_bare:>6.2f} {field:>11.0f}"
                f" {to_field:>6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
