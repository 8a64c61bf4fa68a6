"""Damaged ECGs are damaged as declared, in mV, the same in any batch, and the caller's signal stays whole."""

import pytest
import torch
from pydantic import ValidationError

from ecgscale.concentrations.corruptions import CORRUPTIONS, Corruption
from ecgscale.concentrations.damage import corrupt

N, LEADS, TIME = 6, 12, 1000
KEYS = torch.tensor([1_000_001, 7, 2**40 + 7, 4, 5, 6])


@pytest.fixture
def ecg():
    """Records of different lengths in the middle of zeros, nowhere 0 where recorded; mV."""
    length = torch.tensor([1000, 700, 700, 640, 1000, 900])
    time, start = torch.arange(TIME), (TIME - length) // 2
    recorded = (time >= start[:, None]) & (time < (start + length)[:, None])
    signal_mv = (1.5 * torch.sin(time / 7.3) + 0.01).expand(N, LEADS, TIME) * recorded[:, None, :]
    return signal_mv.contiguous(), recorded


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
def test_a_record_is_damaged_alike_in_any_batch_and_the_original_stays(ecg, corruption):
    signal_mv, recorded = ecg
    before = signal_mv.clone()
    found = corrupt(signal_mv, recorded, corruption, KEYS)
    assert torch.equal(signal_mv, before) and not torch.equal(found, before)
    assert (found * ~recorded[:, None, :] == 0).all()
    order = torch.tensor([3, 0, 5])
    assert torch.equal(found[order], corrupt(signal_mv[order], recorded[order], corruption, KEYS[order]))


@pytest.mark.parametrize("sd_mv", [0.1, 0.25])
def test_noise_has_its_size_in_mv_and_is_of_each_record_and_lead_its_own(ecg, sd_mv):
    signal_mv, recorded = ecg
    noise = corrupt(signal_mv, recorded, Corruption(name="n", noise_mv=sd_mv), KEYS) - signal_mv
    inside = noise.transpose(1, 2)[recorded]  # (sample, lead)
    assert inside.std(dim=0) == pytest.approx(torch.full((LEADS,), sd_mv).numpy(), rel=0.05)
    assert (torch.corrcoef(inside.T) - torch.eye(LEADS)).abs().max() < 0.08
    full = noise[[0, 4]].flatten(1)
    assert torch.corrcoef(full)[0, 1].abs() < 0.05
    tripled = corrupt(3 * signal_mv, recorded, Corruption(name="n", noise_mv=sd_mv), KEYS) - 3 * signal_mv
    assert torch.allclose(tripled, noise, atol=1e-6)  # noise in mV does not grow with the ECG


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_one_stretch_of_the_recorded_part_is_dropped_in_all_leads(ecg, share):
    signal_mv, recorded = ecg
    found = corrupt(signal_mv, recorded, Corruption(name="d", dropped=share), KEYS)
    gone = (found == 0) & recorded[:, None, :]
    assert (gone == gone[:, :1]).all()
    gone = gone[:, 0]
    assert gone.sum(dim=1).tolist() == (share * recorded.sum(dim=1)).round().int().tolist()
    assert (gone.int().diff(dim=1) == 1).sum(dim=1).max() <= 1 and (gone.int().diff(dim=1) == -1).sum(dim=1).max() <= 1
    assert torch.equal(found.masked_fill(gone[:, None], 0), signal_mv.masked_fill(gone[:, None], 0))
    assert len({int(row.int().argmax()) for row in gone}) > 3  # not the same place in every record


def test_a_stretch_may_begin_anywhere():
    keys = torch.arange(2000)
    signal_mv, recorded = torch.ones(2000, 1, 40), torch.ones(2000, 40, dtype=torch.bool)
    begins = (corrupt(signal_mv, recorded, Corruption(name="d", dropped=0.5), keys)[:, 0] == 0).int().argmax(dim=1)
    assert torch.bincount(begins, minlength=21) == pytest.approx(torch.full((21,), 2000 / 21).numpy(), abs=40)


def test_clipping_cuts_both_ways_at_its_mv(ecg):
    signal_mv, recorded = ecg
    found = corrupt(signal_mv, recorded, Corruption(name="c", clip_mv=0.5), KEYS)
    assert float(found.max()) == 0.5 and float(found.min()) == -0.5
    small = signal_mv.abs() < 0.5
    assert torch.equal(found[small], signal_mv[small])


@pytest.mark.parametrize("fields", [{}, {"noise_mv": 0.1, "clip_mv": 1.0}, {"dropped": 1.0}, {"noise_mv": 0.0}])
def test_a_corruption_does_one_possible_thing(fields):
    with pytest.raises(ValidationError):
        Corruption(name="x", **fields)
