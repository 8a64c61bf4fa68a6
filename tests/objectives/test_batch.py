"""Normalisation looks at the recorded part only, and never makes a number out of nothing."""

import numpy as np
import pytest
import torch

from ecgscale.objectives.batch import FIXED_SCALE, Batch, make_batch

SCALE = 0.001


def noise(n: int = 3, n_samples: int = 400, sd_steps: float = 300.0, seed: int = 0) -> torch.Tensor:
    """(record, lead, time) int16."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(100, sd_steps, (n, 12, n_samples)).astype(np.int16))


def batch_of(digital: torch.Tensor, start, stop, normalise="zscore", scale: float = SCALE) -> Batch:
    """Zero outside [start, stop), as the store has it."""
    digital = digital.clone()
    for record, first, last in zip(digital, start, stop, strict=True):
        record[:, :first] = 0
        record[:, last:] = 0
    start, stop = torch.tensor(start), torch.tensor(stop)
    return make_batch(digital, start, stop, torch.zeros(len(digital), 0), scale=scale, normalise=normalise, key=5)


def test_the_recorded_part_of_every_lead_gets_mean_0_and_deviation_1():
    batch = batch_of(noise(), [0, 50, 399 - 200], [400, 350, 399])
    for signal, recorded in zip(batch.signal, batch.recorded, strict=True):
        inside = signal[:, recorded]
        torch.testing.assert_close(inside.mean(dim=1), torch.zeros(12), atol=1e-5, rtol=0)
        torch.testing.assert_close(inside.std(dim=1, correction=0), torch.ones(12), atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalise", ["zscore", "fixed"])
def test_padding_stays_zero_and_is_known(normalise):
    batch = batch_of(noise(), [0, 50, 100], [400, 350, 101], normalise)
    assert batch.recorded.sum(dim=1).tolist() == [400, 300, 1]
    assert not batch.signal[1, :, :50].any() and not batch.signal[1, :, 350:].any()
    assert not batch.signal[2][:, ~batch.recorded[2]].any()
    assert batch.recorded[1].nonzero().flatten()[[0, -1]].tolist() == [50, 349]


def test_padding_does_not_change_the_signal():
    """The same 300 samples, with and without zeros around them."""
    whole = batch_of(noise(1, 300), [0], [300])
    digital = torch.zeros(1, 12, 400, dtype=torch.int16)
    digital[..., 50:350] = noise(1, 300)
    around = batch_of(digital, [50], [350])
    torch.testing.assert_close(around.signal[..., 50:350], whole.signal, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalise", ["zscore", "fixed"])
def test_a_flat_lead_is_zero_or_its_offset_and_never_nan(normalise):
    digital = noise(2)
    digital[0, 3] = 0
    digital[1, 7] = 1234
    signal = batch_of(digital, [0, 0], [400, 400], normalise).signal
    assert signal.isfinite().all()
    assert not signal[0, 3].any()
    if normalise == "zscore":
        assert not signal[1, 7].any()
    others = [lead for lead in range(12) if lead != 3]
    assert (signal[0, others].std(dim=1) > 0.5).all()


def test_a_record_of_one_sample_or_none_is_zero():
    signal = batch_of(noise(2), [10, 20], [11, 20]).signal
    assert signal.isfinite().all() and not signal.any()


@pytest.mark.parametrize("gain", [0.1, 3, 30])
def test_zscore_does_not_see_gain_or_offset(gain):
    digital = noise(sd_steps=200).clamp(-900, 900)
    other = (digital * gain + 500).to(torch.int16) if gain > 1 else digital
    scale = SCALE if gain > 1 else SCALE * gain
    before = batch_of(digital, [0] * 3, [400] * 3)
    after = batch_of(other, [0] * 3, [400] * 3, scale=scale)
    torch.testing.assert_close(after.signal, before.signal, atol=2e-4, rtol=0)


def test_fixed_keeps_millivolts_comparable_between_records():
    digital = torch.full((2, 12, 400), 500, dtype=torch.int16)
    digital[1] *= 2
    signal = batch_of(digital, [0, 0], [400, 400], "fixed").signal
    torch.testing.assert_close(signal[0], torch.full((12, 400), 0.5 / FIXED_SCALE))
    torch.testing.assert_close(signal[1], 2 * signal[0])


def test_targets_and_key_go_along():
    targets = torch.tensor([[1.0, 0.0]])
    start, stop = torch.tensor([0]), torch.tensor([400])
    batch = make_batch(noise(1), start, stop, targets, scale=SCALE, normalise="zscore", key=77)
    assert batch.targets is targets and batch.key == 77 and batch.signal.dtype == torch.float32
