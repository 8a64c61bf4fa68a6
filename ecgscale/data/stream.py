"""Batches in an order that is a pure function of (seed, step), so that a trial resumed at any step sees the same data.

The epochs' permutations follow each other without a seam and are cut into full batches; nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgscale.data.store import PackedStore

EVALUATION_BATCH = 256
EVALUATION_KEY = 2**40
"""Masks of evaluation batches come from their own range of keys, the same for every trial and seed."""


@dataclass(frozen=True)
class DigitalBatch:
    """Records as they lie in the store; cast and normalised on the device by `objectives.batch.make_batch`."""

    digital: Tensor  # (B, lead, time) int16
    start: Tensor  # (B,)
    stop: Tensor  # (B,)
    targets: Tensor  # (B, target) float32
    key: int

    def to(self, device: torch.device) -> DigitalBatch:
        digital, start, stop, targets = (
            t.to(device, non_blocking=True) for t in (self.digital, self.start, self.stop, self.targets)
        )
        return DigitalBatch(digital, start, stop, targets, self.key)


class RecordSource:
    """Rows of a store with the target columns that go along.

    Args:
        targets: column names of the index, cast to float32; may be empty.
    """

    def __init__(self, store: PackedStore, rows: npt.NDArray[np.int64], targets: tuple[str, ...] = ()) -> None:
        self.store = store
        self.rows = rows
        columns = store.index.loc[:, list(targets)].to_numpy(dtype=np.float32)
        self.targets = columns[rows]
        self._extent = store.index[["start", "stop"]].to_numpy(dtype=np.int64)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, members: npt.NDArray[np.int64], key: int) -> DigitalBatch:
        """The batch of `members`, positions within `rows`."""
        extent = torch.from_numpy(self._extent[members])
        return DigitalBatch(
            torch.from_numpy(self.store.signals[self.rows[members]]),
            extent[:, 0],
            extent[:, 1],
            torch.from_numpy(self.targets[members]),
            key,
        )

    def in_order(self) -> Iterator[DigitalBatch]:
        """All records once, in order, with the evaluation's keys."""
        for number, first in enumerate(range(0, len(self), EVALUATION_BATCH)):
            members = np.arange(first, min(first + EVALUATION_BATCH, len(self)))
            yield self.batch(members, EVALUATION_KEY + number)


class TrainingStream:
    """`n_steps` shuffled batches of `batch_size` records, from `first_step` on."""

    def __init__(self, source: RecordSource, *, batch_size: int, n_steps: int, seed: int, first_step: int = 0) -> None:
        self.source = source
        self.batch_size = batch_size
        self.n_steps = n_steps
        self.seed = seed
        self.first_step = first_step
        self._epochs: dict[int, npt.NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return self.n_steps - self.first_step

    def __iter__(self) -> Iterator[DigitalBatch]:
        for step in range(self.first_step, self.n_steps):
            yield self.source.batch(self.members(step), key=(self.seed << 20) + step)

    def members(self, step: int) -> npt.NDArray[np.int64]:
        """Positions of the records of one step: a pure function of (seed, step)."""
        n = len(self.source)
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = position // n
        return np.concatenate(
            [self._permutation(int(epoch))[position[epochs == epoch] % n] for epoch in np.unique(epochs)]
        )

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._epochs:
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = np.random.default_rng([self.seed, epoch]).permutation(len(self.source))
        return self._epochs[epoch]
