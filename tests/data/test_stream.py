"""The order of batches: a pure function of (seed, step), every record once per epoch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ecgscale.data import stream as stream_module
from ecgscale.data.store import Header, PackedStore, Shards
from ecgscale.data.stream import (
    ANNOUNCED_BATCHES,
    EVALUATION_BATCH,
    EVALUATION_KEY,
    PROBED_BATCHES,
    DigitalBatch,
    RecordSource,
    TrainingStream,
)

PER_SHARD = 7


@pytest.fixture(scope="module", autouse=True)
def _stores(tmp_path_factory):
    """Where `make_store` writes; its callers need no folder of their own."""
    make_store.folder = tmp_path_factory.mktemp("stores")


def make_store(n: int) -> PackedStore:
    """Every sample of record k is k; slots run backwards."""
    folder: Path = make_store.folder / str(n)
    signals = np.broadcast_to(np.arange(n, dtype=np.int16)[::-1, None, None], (n, 12, 8))
    if not folder.exists():
        folder.mkdir()
        for k, first in enumerate(range(0, n, PER_SHARD)):
            np.save(folder / f"signals-{k:05d}.npy", signals[first : first + PER_SHARD])
    sizes = tuple((folder / f"signals-{k:05d}.npy").stat().st_size for k in range(-(-n // PER_SHARD)))
    index = pd.DataFrame(
        {"start": np.arange(n) % 3, "stop": 8 - np.arange(n) % 2, "AF": np.arange(n) % 2 == 0, "SB": np.arange(n) > 3}
    ).assign(slot=np.arange(n)[::-1])
    header = Header(2, "0", "f", "mV", (0.001,) * 12, 100.0, n, 12, 8, PER_SHARD, sizes, 0, {})
    return PackedStore(folder, header, Shards(folder, header), index)


def make_stream(n: int = 10, *, batch_size: int = 4, n_steps: int = 15, seed: int = 0, first_step: int = 0):
    source = RecordSource(make_store(n), np.arange(n))
    return TrainingStream(source, batch_size=batch_size, n_steps=n_steps, seed=seed, first_step=first_step)


def records(batch: DigitalBatch) -> list[int]:
    return batch.digital[:, 0, 0].tolist()


def order(stream: TrainingStream) -> list[tuple[list[int], int]]:
    return [(records(batch), batch.key) for batch in stream]


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    assert order(make_stream()) == order(make_stream())
    assert order(make_stream()) != order(make_stream(seed=1))


def test_a_batch_depends_on_its_step_alone():
    in_order, alone = make_stream(), make_stream()
    expected = [in_order.members(step).tolist() for step in range(15)]
    shuffled = np.random.default_rng(0).permutation(15)
    assert {int(step): alone.members(int(step)).tolist() for step in shuffled} == dict(enumerate(expected))


@pytest.mark.parametrize("first_step", [0, 1, 6, 14, 15])
def test_a_resumed_stream_goes_on_where_it_was(first_step):
    resumed = make_stream(first_step=first_step)
    assert len(resumed) == 15 - first_step
    assert order(resumed) == order(make_stream())[first_step:]


def test_a_stream_can_be_read_twice():
    stream = make_stream()
    assert order(stream) == order(stream)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (12, 4), (7, 3), (5, 5), (3, 8), (1, 4)])
def test_every_epoch_holds_every_record_once(n, batch_size):
    """Also when an epoch ends within a batch, or a batch is larger than the data."""
    n_epochs = 6
    stream = make_stream(n, batch_size=batch_size, n_steps=n_epochs * n)
    seen = [record for batch in stream for record in records(batch)]
    assert len(seen) == n_epochs * n * batch_size
    epochs = np.array(seen).reshape(-1, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()


def test_epochs_are_shuffled_anew():
    epochs = np.array([r for batch in make_stream(50, batch_size=50, n_steps=5) for r in records(batch)])
    assert len({tuple(epoch) for epoch in epochs.reshape(5, 50)}) == 5


def test_every_batch_is_full():
    assert {len(batch.digital) for batch in make_stream(7, batch_size=4)} == {4}


def test_every_step_has_a_key_of_its_own_apart_from_those_of_evaluation():
    keys = [batch.key for seed in (0, 1, 2) for batch in make_stream(seed=seed)]
    assert len(set(keys)) == len(keys)
    source = RecordSource(make_store(EVALUATION_BATCH + 1), np.arange(EVALUATION_BATCH + 1))
    evaluated = [batch.key for batch in source.in_order()]
    assert evaluated == [EVALUATION_KEY, EVALUATION_KEY + 1]
    assert not set(keys) & set(evaluated)


def test_a_batch_carries_targets_and_recorded_part_of_its_records():
    rows = np.array([8, 2, 5])
    source = RecordSource(make_store(10), rows, ("SB", "AF"))
    batch = source.batch(np.array([2, 0]), key=7)
    assert records(batch) == [5, 8]
    assert batch.digital.dtype == torch.int16
    assert batch.targets.tolist() == [[1.0, 0.0], [1.0, 1.0]]  # columns in the order asked for
    assert batch.start.tolist() == [2, 2] and batch.stop.tolist() == [7, 8]
    assert batch.key == 7


def test_without_targets_there_are_none():
    assert RecordSource(make_store(4), np.arange(4)).batch(np.array([1]), key=0).targets.shape == (1, 0)


def test_evaluation_reads_every_record_once_in_order():
    n = EVALUATION_BATCH + 20
    source = RecordSource(make_store(n), np.arange(n)[::-1].copy())
    batches = list(source.in_order())
    assert [len(batch.digital) for batch in batches] == [EVALUATION_BATCH, 20]
    assert [r for batch in batches for r in records(batch)] == list(range(n))[::-1]


def the_order_of_the_first_version(n: int, batch_size: int, n_steps: int, seed: int) -> list[list[int]]:
    epochs = [np.random.default_rng([seed, e]).permutation(n) for e in range(n_steps * batch_size // n + 1)]
    return np.concatenate(epochs)[: n_steps * batch_size].reshape(n_steps, batch_size).tolist()


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (3, 8), (1, 4), (50, 16)])
def test_the_order_is_that_of_all_earlier_results(n, batch_size):
    stream = make_stream(n, batch_size=batch_size, n_steps=20, seed=5)
    assert [records(batch) for batch in stream] == the_order_of_the_first_version(n, batch_size, 20, 5)


def test_a_batch_is_read_when_it_is_asked_for_and_no_earlier(monkeypatch):
    """What is read ahead of its use would lie in memory; what is known ahead is only announced."""
    read: list[int] = []
    real = Shards.read
    monkeypatch.setattr(Shards, "read", lambda self, slots: read.append(len(slots)) or real(self, slots))
    batches = iter(make_stream())
    assert read == []
    next(batches)
    assert len(read) == 1


def announced_steps(monkeypatch, slow: set[int]) -> list[int]:
    """Of 150 steps, those whose records were announced when records missing from memory were waited for at `slow`."""
    n_read, n_waits, announced = 0, 0, []
    real = Shards.read

    def read(self, slots):
        nonlocal n_read, n_waits
        n_waits += n_read in slow
        n_read += 1
        return real(self, slots)

    monkeypatch.setattr(Shards, "read", read)
    monkeypatch.setattr(Shards, "announce", lambda self, slots: announced.append(set(slots.tolist())))
    monkeypatch.setattr(stream_module, "_waits_for_disk", lambda: n_waits)
    stream = make_stream(60, n_steps=150)
    assert [records(batch) for batch in stream] == the_order_of_the_first_version(60, 4, 150, 0)
    slots = [set((59 - stream.members(step)).tolist()) for step in range(150)]
    return [next(step for step in range(k, 150) if found <= slots[step]) for k, found in enumerate(announced)]


def test_records_in_memory_are_announced_at_the_start_only(monkeypatch):
    assert announced_steps(monkeypatch, set()) == list(range(PROBED_BATCHES))


def test_records_are_announced_for_as_long_as_the_disk_is_waited_for(monkeypatch):
    every = set(range(150))
    assert announced_steps(monkeypatch, every) == list(every)


def test_announcing_ends_when_everything_is_in_memory_and_begins_again_when_it_is_not(monkeypatch):
    found = announced_steps(monkeypatch, {100})
    assert found[:PROBED_BATCHES] == list(range(PROBED_BATCHES))
    first = 100 + ANNOUNCED_BATCHES + 1  # the batches before it were known already when read 100 was slow
    assert found[PROBED_BATCHES:] == list(range(first, 150))


def test_two_million_records_are_shuffled_in_a_moment():
    class Many:
        def __len__(self) -> int:
            return 2_300_000

    stream = TrainingStream(Many(), batch_size=64, n_steps=10**6, seed=0)
    assert len(set(stream.members(0).tolist())) == 64
    assert stream.members(36_000).max() < 2_300_000  # of the second epoch
    assert sum(permutation.nbytes for permutation in stream._epochs.values()) < 40e6


def test_a_batch_is_a_copy_and_can_not_change_the_store():
    source = RecordSource(make_store(4), np.arange(4))
    source.batch(np.arange(4), key=0).digital.zero_()
    assert records(source.batch(np.arange(4), key=0)) == [0, 1, 2, 3]
