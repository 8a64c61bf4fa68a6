"""Which part of a stored record a batch shows, and the random changes that training may ask for.

Everything random is a pure function of the batch's key, so a resumed trial draws what the uninterrupted one drew. What
is drawn per record or lead is drawn on the CPU and is the same on every device; only the noise, one number per sample,
is drawn on the device itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecgscale.objectives.keyed_random import generator
from ecgscale.specs import AugmentSpec


def crop(
    digital: Tensor, start: Tensor, stop: Tensor, n_samples: int, *, key: int, at_random: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`n_samples` of every stored record, and where its recorded part lies in them.

    Args:
        digital: `(batch, lead, time)`.
        start: first recorded sample, `(batch,)`; `stop`: one past the last.
        at_random: a uniform place within the recorded part, or, when that is shorter than `n_samples`, one that holds
            all of it; otherwise the middle of the store, where the recorded part's middle is.
    """
    spare = digital.shape[-1] - n_samples
    if spare == 0:
        return digital, start, stop
    if at_random:
        one = start.clamp(0, spare)
        other = (stop - n_samples).clamp(0, spare)
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        share = torch.rand(len(digital), generator=generator(key, "crop"), dtype=torch.float64).to(digital.device)
        offset = low + (share * (high - low + 1)).long()
        time = offset[:, None] + torch.arange(n_samples, device=digital.device)
        cropped = digital.gather(-1, time[:, None, :].expand(-1, digital.shape[1], -1))
    else:
        offset = torch.full_like(start, spare // 2)
        cropped = digital[..., spare // 2 : spare // 2 + n_samples]
    return cropped, (start - offset).clamp(0, n_samples), (stop - offset).clamp(0, n_samples)


def disturbed(signal: Tensor, augment: AugmentSpec, key: int) -> Tensor:
    """`(batch, lead, time)` in mV with the gain and noise of `augment`."""
    if augment.gain:
        z = torch.randn(len(signal), 1, 1, generator=generator(key, "gain"))
        signal = signal * (augment.gain * z).exp().to(signal.device)
    if augment.noise_mv:
        drawn = generator(key, "noise", signal.device)
        signal = signal + augment.noise_mv * torch.randn(signal.shape, generator=drawn, device=signal.device)
    return signal


def kept_leads(n_records: int, n_leads: int, augment: AugmentSpec, key: int) -> Tensor:
    """`(record, lead)` bool on the CPU, False where `augment` sets the lead to zero."""
    return torch.rand(n_records, n_leads, generator=generator(key, "leads")) >= augment.lead_dropout
