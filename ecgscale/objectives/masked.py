"""Self-supervised pre-training (SSL): masked reconstruction, the same for both families.

Whole time patches of all leads are set to zero in the input (as SimMIM does, Xie et al. 2022, with zeros for the mask
token) and a light decoder reconstructs them; the loss is the mean squared error on masked, recorded samples of the
normalised signal. The scaling paper does not say which SSL method it used: this one is our assumption, chosen because
its loss means the same at every N and D and for both encoders.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgscale.ladder import N_LEADS, InputShape, ResNetShape, Shape, decoded_stages
from ecgscale.models.encoder import Encoded, Encoder
from ecgscale.models.transformer import to_patches
from ecgscale.objectives.batch import Batch
from ecgscale.objectives.keyed_random import generator
from ecgscale.objectives.objective import Objective, Scored


def draw_mask(n_records: int, n_patches: int, mask_ratio: float, key: int) -> Tensor:
    """`(record, patch)` bool on the CPU, True where masked: equally many in every record, a pure function of `key`."""
    noise = torch.rand(n_records, n_patches, generator=generator(key, "mask"))
    n_masked = max(1, round(mask_ratio * n_patches))
    rank = noise.argsort(dim=1).argsort(dim=1)
    return rank < n_masked


class TokenDecoder(nn.Module):
    """One linear map from a token to its patch."""

    def __init__(self, width: int, patch_values: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, patch_values)

    def forward(self, encoded: Encoded) -> Tensor:
        patches: Tensor = self.out(encoded.stages[-1].transpose(1, 2))
        return patches


class StageDecoder(nn.Module):
    """Sums the ResNet's stages at patch resolution, the coarse ones repeated, then maps linearly to patches.

    Without the finer stages a single vector would have to describe 256 samples of 12 leads.
    """

    def __init__(self, channels: tuple[int, ...], width: int, n_patches: int, patch_values: int) -> None:
        super().__init__()
        self.n_patches = n_patches
        self.lateral = nn.ModuleList(nn.Conv1d(c, width, 1) for c in channels)
        self.out = nn.Linear(width, patch_values)

    def forward(self, encoded: Encoded) -> Tensor:
        read = encoded.stages[-len(self.lateral) :]
        maps = [
            functional.interpolate(lateral(stage), size=self.n_patches)
            for lateral, stage in zip(self.lateral, read, strict=True)
        ]
        patches: Tensor = self.out(functional.gelu(torch.stack(maps).sum(dim=0)).transpose(1, 2))
        return patches


def decoder_for(network: Shape, input_shape: InputShape) -> nn.Module:
    """The light decoder of a family: `Encoded` → `(batch, patch, lead · patch_samples)`."""
    patch_values = N_LEADS * input_shape.patch_samples
    if isinstance(network, ResNetShape):
        channels = tuple(c for c, _ in decoded_stages(network, input_shape))
        return StageDecoder(channels, network.width, input_shape.n_patches, patch_values)
    return TokenDecoder(network.width, patch_values)


class MaskedReconstruction(Objective):
    """Mean squared error on masked patches; unit: squared normalised signal (1 is what predicting zero costs)."""

    unit = "mse"

    def __init__(self, network: Shape, input_shape: InputShape, mask_ratio: float) -> None:
        super().__init__()
        self.patch_samples = input_shape.patch_samples
        self.mask_ratio = mask_ratio
        self.decoder = decoder_for(network, input_shape)

    def drawn(self, batch: Batch) -> Batch:
        n_records, _, n_samples = batch.signal.shape
        masked = draw_mask(n_records, n_samples // self.patch_samples, self.mask_ratio, batch.key)
        return replace(batch, masked=masked.to(batch.signal.device))

    def forward(self, encoder: Encoder, batch: Batch) -> Scored:
        signal = batch.signal
        assert batch.masked is not None
        hidden = batch.masked.repeat_interleave(self.patch_samples, dim=1)  # (B, time)
        predicted = self.decoder(encoder(signal.masked_fill(hidden[:, None, :], 0.0)))
        n_records, n_leads, _ = signal.shape
        n_patches = batch.masked.shape[1]
        scored = hidden & batch.recorded  # (B, time), the same for every lead
        weight = scored.reshape(n_records, n_patches, 1, self.patch_samples).to(torch.float32)
        error = (predicted.float() - to_patches(signal, self.patch_samples)).square()
        by_lead = error.reshape(n_records, n_patches, n_leads, self.patch_samples)
        return Scored((by_lead * weight).sum(), n_leads * scored.sum())
