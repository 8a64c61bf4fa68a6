"""Damages ECGs as a `Corruption` says, in mV, before they are normalised.

The electrolyte study's code adds noise in an unspecified unit and zeroes the caller's own batch. Here the result is a
copy, and what happens to a record depends on its key alone, not on its batch or device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecgscale.concentrations.corruptions import Corruption
from ecgscale.objectives.keyed_random import generator


def corrupt(signal_mv: Tensor, recorded: Tensor, corruption: Corruption, keys: Tensor) -> Tensor:
    """A damaged copy.

    Args:
        signal_mv: `(batch, lead, time)`; zero outside the recorded part, and so it stays.
        recorded: `(batch, time)` bool, one stretch per record.
        keys: `(batch,)` one whole number per record, such as its exam_id.
    """
    if corruption.clip_mv is not None:
        return signal_mv.clamp(-corruption.clip_mv, corruption.clip_mv)
    if corruption.noise_mv is not None:
        shape = signal_mv.shape[1:]
        drawn = torch.stack([torch.randn(shape, generator=generator(int(key), "white noise")) for key in keys])
        return signal_mv + corruption.noise_mv * drawn.to(signal_mv) * recorded[:, None, :]
    assert corruption.dropped is not None
    n_recorded = recorded.sum(dim=1)
    n_dropped = (corruption.dropped * n_recorded).round().long()
    place = torch.stack([torch.rand((), generator=generator(int(key), "dropped stretch")) for key in keys])
    begins = recorded.int().argmax(dim=1) + (place.to(signal_mv.device) * (n_recorded - n_dropped + 1)).long()
    time = torch.arange(signal_mv.shape[-1], device=signal_mv.device)
    dropped = (time >= begins[:, None]) & (time < (begins + n_dropped)[:, None])
    return signal_mv.masked_fill(dropped[:, None, :], 0.0)
