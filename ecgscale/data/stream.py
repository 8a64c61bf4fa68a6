"""Batches in an order that is a pure function of (seed, step), so that a trial resumed at any step sees the same data.

The epochs' permutations follow each other without a seam and are cut into full batches; nothing is dropped. Records are
read by the process that trains: measured, a thread or processes that read ahead only add hand-overs. What is not in the
system's cache yet is asked for two batches before it is needed.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgscale.data.store import PackedStore
from ecgscale.turns import at_step, is_alone, once

EVALUATION_BATCH = 256
EVALUATION_KEY = 2**40
"""Masks of evaluation batches come from their own range of keys, the same for every trial and seed."""

ANNOUNCED_BATCHES = 2
"""How many batches ahead the disk is asked: 1,900 cold records/s become about 10,000 (measured on a virtual disk)."""

COLD_BATCHES, PROBED_BATCHES = 64, 16
"""Asking costs a third of a read that is in memory already. So it is done for 16 batches, and for 64 more whenever a
record that was not asked for had to be waited for; every 16th batch leaves one record out to find that out."""

STEP_BITS = 20
"""Of the key of a training batch; the bits above them are the seed."""

Members = npt.NDArray[np.int64]


def step_of(key: int) -> int:
    """The step that a training batch belongs to."""
    return key & (1 << STEP_BITS) - 1


@dataclass(frozen=True)
class DigitalBatch:
    """Records as they lie in the store; cast and normalised on the device by `objectives.batch.make_batch`.

    Attributes:
        made: what has been made of the signals, for trials that take turns with them (`turns`); None in one that is
            alone, which needs nothing twice.
    """

    digital: Tensor  # (B, lead, time) int16
    start: Tensor  # (B,)
    stop: Tensor  # (B,)
    targets: Tensor  # (B, target) float32
    key: int
    made: dict[Any, Any] | None = None

    def to(self, device: torch.device) -> DigitalBatch:
        """On a GPU from pinned memory: the copy goes on while the step before it is computed."""
        pinned = device.type == "cuda"
        digital, start, stop, targets = (
            (part.pin_memory() if pinned else part).to(device, non_blocking=True)
            for part in (self.digital, self.start, self.stop, self.targets)
        )
        return DigitalBatch(digital, start, stop, targets, self.key, self.made)


class RecordSource:
    """Rows of a store with the target columns that go along.

    Args:
        targets: column names of the index, cast to float32; may be empty. Or the values of the rows themselves,
            `(row, target)`.
    """

    def __init__(
        self, store: PackedStore, rows: Members, targets: tuple[str, ...] | npt.NDArray[np.float32] = ()
    ) -> None:
        self.store = store
        self.rows = rows
        if isinstance(targets, np.ndarray):
            self.targets = targets
        else:
            self.targets = np.empty((len(rows), len(targets)), np.float32)
            for k, name in enumerate(targets):
                self.targets[:, k] = store.index[name].to_numpy(dtype=np.float32)[rows]
        self._slots = store.index["slot"].to_numpy()[rows]
        self._start = store.index["start"].to_numpy()[rows]
        self._stop = store.index["stop"].to_numpy()[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, members: Members, key: int) -> DigitalBatch:
        """The batch of `members`, positions within `rows`."""
        slots = self._slots[members]

        def read() -> tuple[Tensor, dict[Any, Any] | None]:
            return torch.from_numpy(self.store.shards.read(slots)), None if is_alone() else {}

        digital, made = once((self.store.path, key, slots.tobytes()), read)
        return DigitalBatch(
            digital,
            torch.from_numpy(self._start[members].astype(np.int64)),
            torch.from_numpy(self._stop[members].astype(np.int64)),
            torch.from_numpy(self.targets[members]),
            key,
            made,
        )

    def batches(self, wanted: Iterable[tuple[Members, int]]) -> Iterator[DigitalBatch]:
        """A batch for each (members, key), in order; records that are not in memory are fetched ahead."""
        n_to_announce = PROBED_BATCHES
        waiting: deque[tuple[Members, int, bool]] = deque()

        def read() -> DigitalBatch:
            nonlocal n_to_announce
            members, key, probes = waiting.popleft()
            at_step(step_of(key) if key < EVALUATION_KEY else None)
            waits_before = _waits_for_disk()
            batch = self.batch(members, key)
            if probes and _waits_for_disk() > waits_before:
                n_to_announce = COLD_BATCHES
            return batch

        for members, key in wanted:
            probes = n_to_announce == 0 or n_to_announce % PROBED_BATCHES == PROBED_BATCHES // 2
            if n_to_announce:
                self.store.shards.announce(self._slots[members[1:] if probes else members])
                n_to_announce -= 1
            waiting.append((members, key, probes))
            if len(waiting) > ANNOUNCED_BATCHES:
                yield read()
        while waiting:
            yield read()

    def in_order(self) -> Iterator[DigitalBatch]:
        """All records once, in order, with the evaluation's keys."""
        firsts = range(0, len(self), EVALUATION_BATCH)
        return self.batches(
            (np.arange(first, min(first + EVALUATION_BATCH, len(self))), EVALUATION_KEY + number)
            for number, first in enumerate(firsts)
        )


class TrainingStream:
    """`n_steps` shuffled batches of `batch_size` records, from `first_step` on."""

    def __init__(self, source: RecordSource, *, batch_size: int, n_steps: int, seed: int, first_step: int = 0) -> None:
        self.source = source
        self.batch_size = batch_size
        self.n_steps = n_steps
        self.seed = seed
        self.first_step = first_step
        self._epochs: dict[int, Members] = {}

    def __len__(self) -> int:
        return self.n_steps - self.first_step

    def __iter__(self) -> Iterator[DigitalBatch]:
        steps = range(self.first_step, self.n_steps)
        return self.source.batches((self.members(step), (self.seed << STEP_BITS) + step) for step in steps)

    def members(self, step: int) -> Members:
        """Positions of the records of one step: a pure function of (seed, step)."""
        n = len(self.source)
        first, last = step * self.batch_size, (step + 1) * self.batch_size
        pieces = []
        while first < last:
            epoch, place = divmod(first, n)
            pieces.append(self._permutation(epoch)[place : place + last - first])
            first += len(pieces[-1])
        return np.concatenate(pieces)

    def _permutation(self, epoch: int) -> Members:
        if epoch not in self._epochs:
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = np.random.default_rng([self.seed, epoch]).permutation(len(self.source))
        return self._epochs[epoch]


def _waits_for_disk() -> int:
    """How often this process has waited for a page that was not in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
