"""Random changes of training batches: what each does, that they repeat, and that none is made unasked."""

import numpy as np
import pytest
import torch

from ecgscale.objectives.augmentation import crop, generator
from ecgscale.objectives.batch import FIXED_SCALE, Batch, make_batch
from ecgscale.specs import AugmentSpec

N, STORED, SEEN = 64, 400, 256


def ramp(start=0, stop=STORED) -> torch.Tensor:
    """(record, lead, time) int16: every recorded sample is 100 + its place."""
    digital = torch.zeros(N, 12, STORED, dtype=torch.int16)
    digital[..., start:stop] = torch.arange(100 + start, 100 + stop, dtype=torch.int16)
    return digital


def batch_of(
    augment=None, *, start=0, stop=STORED, key=5, normalise="fixed", scale=0.001, n_samples=SEEN, n=N
) -> Batch:
    extent = torch.full((n,), start), torch.full((n,), stop)
    digital = ramp(start, stop)[:n]
    how = {"scale": scale, "normalise": normalise, "key": key, "n_samples": n_samples, "augment": augment}
    return make_batch(digital, *extent, torch.zeros(n, 0), **how)


def places(batch: Batch) -> torch.Tensor:
    """Where in the store every visible sample was; (record, time)."""
    return (batch.signal[:, 0] * FIXED_SCALE / 0.001).round().int() - 100


# --- cropping ------------------------------------------------------------------------------------------------------


def test_evaluation_sees_the_middle_of_what_is_stored():
    batch = batch_of()
    assert batch.signal.shape == (N, 12, SEEN) and batch.recorded.all()
    assert (places(batch) == torch.arange(72, 72 + SEEN)).all()


@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(100, 300, (28, 228)), (72, 328, (0, 256)), (30, 200, (0, 128))]
)
def test_the_recorded_part_moves_with_the_crop(start, stop, expected):
    batch = batch_of(start=start, stop=stop)
    where = batch.recorded[0].nonzero().flatten()
    assert (int(where[0]), int(where[-1]) + 1) == expected
    assert (places(batch)[:, batch.recorded[0]] == torch.arange(72 + expected[0], 72 + expected[1])).all()
    assert not batch.signal[..., ~batch.recorded[0]].any()


def test_a_random_crop_is_anywhere_and_of_its_own_in_every_record():
    first = places(batch_of(AugmentSpec(random_crop=True)))[:, 0]
    assert len(set(first.tolist())) > 30
    assert first.min() < 20 and first.max() > STORED - SEEN - 20 and first.max() <= STORED - SEEN
    shown = places(batch_of(AugmentSpec(random_crop=True)))
    assert (shown == shown[:, :1] + torch.arange(SEEN)).all()  # in one piece, the same in all leads
    leads = batch_of(AugmentSpec(random_crop=True)).signal
    assert (leads == leads[:, :1]).all()


@pytest.mark.parametrize(("start", "stop"), [(20, 380), (10, 300), (100, 400)])
def test_a_random_crop_of_a_long_enough_record_shows_no_padding(start, stop):
    batch = batch_of(AugmentSpec(random_crop=True), start=start, stop=stop)
    assert batch.recorded.all()
    first = places(batch)[:, 0]
    assert start <= first.min() and first.max() + SEEN <= stop
    assert len(set(first.tolist())) > 1


@pytest.mark.parametrize(("start", "stop"), [(100, 300), (190, 210), (0, 150), (399, 400)])
def test_a_random_crop_of_a_short_record_shows_all_of_it(start, stop):
    batch = batch_of(AugmentSpec(random_crop=True), start=start, stop=stop)
    assert (batch.recorded.sum(dim=1) == stop - start).all()
    assert (places(batch)[batch.recorded].reshape(N, -1) == torch.arange(start, stop)).all()
    begins = batch.recorded.int().argmax(dim=1)
    if 0 < start and stop < STORED:  # as the store has it, in the middle
        assert len(set(begins.tolist())) > 10  # and not always at the same place


@pytest.mark.parametrize("at_random", [False, True])
def test_nothing_is_cropped_when_nothing_is_spare(at_random):
    digital, start, stop = ramp(), torch.zeros(N, dtype=torch.long), torch.full((N,), STORED)
    cropped = crop(digital, start, stop, STORED, key=1, at_random=at_random)
    assert cropped[0] is digital and cropped[1] is start and cropped[2] is stop


# --- noise, gain, leads --------------------------------------------------------------------------------------------


def test_noise_has_its_deviation_in_millivolts_and_stays_out_of_the_padding():
    plain = batch_of(start=100, stop=300)
    noisy = batch_of(AugmentSpec(noise_mv=0.05), start=100, stop=300)
    added_mv = (noisy.signal - plain.signal) * FIXED_SCALE
    inside = added_mv[..., plain.recorded[0]]
    assert float(inside.std()) == pytest.approx(0.05, rel=0.02) and float(inside.mean()) == pytest.approx(0, abs=1e-3)
    assert not noisy.signal[..., ~plain.recorded[0]].any()
    flat = inside.permute(1, 0, 2).reshape(12, -1).numpy()
    assert np.abs(np.corrcoef(flat) - np.eye(12)).max() < 0.05  # every lead its own


def test_gain_is_one_factor_per_record():
    factor = batch_of(AugmentSpec(gain=0.2)).signal / batch_of().signal
    assert (factor.amax(dim=(1, 2)) / factor.amin(dim=(1, 2))).max() < 1 + 1e-5
    log = factor[:, 0, 0].log()
    assert float(log.std()) == pytest.approx(0.2, rel=0.3) and float(log.mean()) == pytest.approx(0, abs=0.08)


@pytest.mark.parametrize("normalise", ["zscore", "fixed"])
def test_dropped_leads_are_zero_and_the_others_as_they_were(normalise):
    plain = batch_of(normalise=normalise).signal
    dropped = batch_of(AugmentSpec(lead_dropout=0.25), normalise=normalise).signal
    gone = ~dropped.any(dim=-1)
    assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.05)
    assert torch.equal(dropped[~gone], plain[~gone])


# --- repeatable ----------------------------------------------------------------------------------------------------

EVERYTHING = AugmentSpec(random_crop=True, noise_mv=0.02, gain=0.1, lead_dropout=0.1)


def test_changes_are_a_pure_function_of_the_key():
    state = torch.get_rng_state()
    first = batch_of(EVERYTHING, key=11).signal
    torch.rand(1000)
    assert torch.equal(first, batch_of(EVERYTHING, key=11).signal)
    assert not torch.equal(first, batch_of(EVERYTHING, key=12).signal)
    torch.set_rng_state(state)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    batch_of(EVERYTHING)
    assert torch.equal(torch.rand(1), expected)  # and draw from no stream of others


def test_keys_that_differ_in_high_bits_only_are_different():
    """PyTorch's CPU generator looks at 32 bits of a seed; keys have 20 bits of seed above 20 bits of step."""
    drawn = [torch.rand(4, generator=generator(key, "crop")) for key in (3, 3 + 2**32, 3 + 2**40)]
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], torch.rand(4, generator=generator(3, "gain")))


@pytest.mark.parametrize("normalise", ["zscore", "fixed"])
@pytest.mark.parametrize("n_samples", [None, STORED])
def test_a_spec_that_asks_for_nothing_changes_nothing(normalise, n_samples):
    plain = batch_of(normalise=normalise, n_samples=None)
    same = batch_of(AugmentSpec(), normalise=normalise, n_samples=n_samples)
    assert torch.equal(plain.signal, same.signal) and torch.equal(plain.recorded, same.recorded)


@pytest.mark.parametrize("scale", [[0.001 * (k + 1) for k in range(12)], torch.arange(1, 13) * 0.001])
def test_every_lead_may_have_its_scale(scale):
    signal = batch_of(scale=scale).signal
    torch.testing.assert_close(signal, batch_of().signal * torch.arange(1, 13)[:, None])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_crops_scales_and_drops_as_a_cpu_does():
    augment = AugmentSpec(random_crop=True, gain=0.1, lead_dropout=0.1)
    extent = torch.zeros(N, dtype=torch.long), torch.full((N,), STORED)
    how = {"scale": 0.001, "normalise": "fixed", "key": 3, "n_samples": SEEN, "augment": augment}
    here = make_batch(ramp(), *extent, torch.zeros(N, 0), **how)
    there = make_batch(ramp().cuda(), *(t.cuda() for t in extent), torch.zeros(N, 0).cuda(), **how)
    torch.testing.assert_close(there.signal.cpu(), here.signal)
    noisy = [
        make_batch(
            ramp().cuda(), *(t.cuda() for t in extent), torch.zeros(N, 0).cuda(), **how | {"augment": EVERYTHING}
        ).signal
        for _ in range(2)
    ]
    assert torch.equal(*noisy)
