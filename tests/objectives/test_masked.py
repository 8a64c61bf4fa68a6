"""Masked reconstruction: what is masked, what is scored, what the number means."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from ecgscale.ladder import InputShape, shape
from ecgscale.models import Encoded, build_encoder
from ecgscale.objectives import build_objective
from ecgscale.objectives.batch import Batch, make_batch
from ecgscale.objectives.masked import MaskedReconstruction, draw_mask
from ecgscale.objectives.objective import Scored

INPUT = InputShape(256, 16)
FAMILIES = ("resnet", "transformer")


def make_pair(family: str, mask_ratio: float = 0.5) -> tuple[nn.Module, MaskedReconstruction]:
    torch.manual_seed(0)
    network = shape(family, "20K", INPUT)
    objective = build_objective("ssl", network, INPUT, n_labels=0, mask_ratio=mask_ratio)
    return build_encoder(network, INPUT).eval(), objective.eval()


def make_signal(n: int = 6, start: int = 0, stop: int = 256, key: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    digital = (torch.randn(n, 12, 256, generator=generator) * 300).to(torch.int16)
    digital[..., :start] = 0
    digital[..., stop:] = 0
    extent = torch.full((n,), start), torch.full((n,), stop)
    return make_batch(digital, *extent, torch.zeros(n, 0), scale=0.001, normalise="zscore", key=key)


def scored_by(objective: MaskedReconstruction, encoder: nn.Module, batch: Batch) -> Scored:
    return objective(encoder, objective.drawn(batch))


def hidden_samples(batch: Batch, mask_ratio: float = 0.5) -> torch.Tensor:
    """(record, time)"""
    return draw_mask(len(batch.signal), INPUT.n_patches, mask_ratio, batch.key).repeat_interleave(16, dim=1)


def with_signal(batch: Batch, signal: torch.Tensor) -> Batch:
    return dataclasses.replace(batch, signal=signal)


class Blind(nn.Module):
    """Sees nothing: its output does not depend on the signal."""

    def forward(self, signal: torch.Tensor) -> Encoded:
        zeros = torch.zeros(len(signal), 8, INPUT.n_patches)
        return Encoded((zeros,), zeros.mean(dim=-1))


class Zero(nn.Module):
    def forward(self, encoded: Encoded) -> torch.Tensor:
        return torch.zeros(len(encoded.pooled), INPUT.n_patches, 12 * 16)


# --- the mask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask_ratio", "n_masked"), [(0.5, 32), (0.75, 48), (0.25, 16), (0.001, 1)])
def test_every_record_has_equally_many_masked_patches(mask_ratio, n_masked):
    mask = draw_mask(100, 64, mask_ratio, key=0)
    assert mask.dtype == torch.bool and mask.shape == (100, 64)
    assert (mask.sum(dim=1) == n_masked).all()


def test_the_mask_is_a_pure_function_of_its_key():
    state = torch.get_rng_state()
    first = draw_mask(8, 64, 0.5, key=11)
    torch.rand(1000)
    assert torch.equal(first, draw_mask(8, 64, 0.5, key=11))
    assert not torch.equal(first, draw_mask(8, 64, 0.5, key=12))
    torch.set_rng_state(state)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    draw_mask(8, 64, 0.5, key=11)
    assert torch.equal(torch.rand(1), expected)  # and it draws from no stream of others


def test_masks_cover_every_patch_alike():
    share = draw_mask(4000, 16, 0.5, key=0).float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((16,), 0.5), atol=0.04, rtol=0)


# --- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_sees_no_masked_sample(family):
    """What is hidden may change the loss's target, never what is predicted."""
    encoder, objective = make_pair(family)
    batch = make_signal()
    seen: list[torch.Tensor] = []
    encoder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    scored_by(objective, encoder, batch)
    hidden = hidden_samples(batch)[:, None, :].expand_as(batch.signal)
    assert not seen[0][hidden].any()
    assert torch.equal(seen[0][~hidden], batch.signal[~hidden])


def test_the_loss_is_of_masked_samples_only():
    """Against an encoder that sees nothing, changing the target of an unmasked sample changes nothing."""
    _, objective = make_pair("transformer")
    objective.decoder = Zero()
    batch = make_signal()
    hidden = hidden_samples(batch)[:, None, :].expand_as(batch.signal)
    before = scored_by(objective, Blind(), batch)
    unmasked = scored_by(objective, Blind(), with_signal(batch, torch.where(hidden, batch.signal, 99.0)))
    masked = scored_by(objective, Blind(), with_signal(batch, torch.where(hidden, 2 * batch.signal, batch.signal)))
    assert float(unmasked.loss_sum) == float(before.loss_sum)
    assert float(masked.loss_sum) == pytest.approx(4 * float(before.loss_sum), rel=1e-5)
    assert float(before.weight) == 6 * 12 * 256 / 2


def test_padding_is_not_scored():
    _, objective = make_pair("transformer")
    objective.decoder = Zero()
    batch = make_signal(start=40, stop=200)
    scored = scored_by(objective, Blind(), batch)
    expected = (hidden_samples(batch) & batch.recorded).sum() * 12
    assert float(scored.weight) == float(expected) < 6 * 12 * 256 / 2
    poisoned = torch.where(batch.recorded[:, None, :], batch.signal, 99.0)
    assert float(scored_by(objective, Blind(), with_signal(batch, poisoned)).loss_sum) == float(scored.loss_sum)


@pytest.mark.parametrize(("start", "stop"), [(0, 256), (40, 200)])
def test_predicting_zero_costs_about_one(start, stop):
    _, objective = make_pair("transformer")
    objective.decoder = Zero()
    scored = scored_by(objective, Blind(), make_signal(64, start, stop))
    assert float(scored.loss_sum / scored.weight) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scores_add_up_over_batches(family):
    encoder, objective = make_pair(family, mask_ratio=0.999)  # all patches, whatever the key
    batch = make_signal(6, 40, 200)
    whole = scored_by(objective, encoder, batch)
    parts = [
        scored_by(
            objective,
            encoder,
            Batch(batch.signal[i : i + 2], batch.recorded[i : i + 2], batch.targets[i : i + 2], key=i),
        )
        for i in (0, 2, 4)
    ]
    assert float(sum(p.loss_sum for p in parts)) == pytest.approx(float(whole.loss_sum), rel=1e-5)
    assert float(sum(p.weight for p in parts)) == float(whole.weight)
    assert whole.logits is None


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_to_fill_in_a_regular_wave(family):
    """A sine with a phase of its own per record, one period per patch: the visible patches tell what is hidden."""
    n = 16
    phase = torch.rand(n, generator=torch.Generator().manual_seed(0)) * 6.28
    wave = 1000 * torch.sin(2 * torch.pi * torch.arange(256) / 16 + phase[:, None])
    digital = wave[:, None, :].expand(-1, 12, -1).to(torch.int16)
    extent = torch.zeros(n, dtype=torch.long), torch.full((n,), 256)
    encoder, objective = make_pair(family)
    encoder.train(), objective.train()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=1e-2)
    losses = []
    for step in range(30):
        batch = make_batch(digital, *extent, torch.zeros(n, 0), scale=0.001, normalise="zscore", key=step)
        scored = scored_by(objective, encoder, batch)
        loss = scored.loss_sum / scored.weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 < 0.9 < losses[0]


def test_evaluation_and_training_hide_different_patches():
    """PyTorch's generator looks at 32 bits of a seed only: keys that differ above them must not share masks."""
    masks = [draw_mask(4, 64, 0.5, key) for key in (3, 2**40 + 3, (4096 << 20) + 3)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(masks, 2))
