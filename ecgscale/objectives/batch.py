"""One batch on its way into a model: cast, normalised and zero outside the recorded signal, all on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Normalise = Literal["zscore", "fixed"]

FIXED_SCALE = 0.5
"""`fixed` divides by half a millivolt, roughly the standard deviation of the leads with a large QRS (our choice)."""

FLAT_LEAD = 1e-3
"""A lead whose standard deviation is below this (1 µV, or 0.001 of a z-scored unit) carries nothing: it becomes 0."""


@dataclass(frozen=True)
class Batch:
    """Attributes:
    signal: `(batch, lead, time)` float32, normalised; zero outside the recorded part.
    recorded: `(batch, time)` bool, False where the record was padded.
    targets: `(batch, target)` float32.
    key: integer that seeds whatever is random about this batch (masks), so that a resumed trial draws the same.
    """

    signal: Tensor
    recorded: Tensor
    targets: Tensor
    key: int


def make_batch(
    digital: Tensor,
    start: Tensor,
    stop: Tensor,
    targets: Tensor,
    *,
    scale: float,
    normalise: Normalise,
    key: int,
) -> Batch:
    """Digital samples `(batch, lead, time)` int16 × `scale` → a `Batch`.

    Args:
        start: first recorded sample of each record, `(batch,)`.
        stop: one past the last recorded sample, `(batch,)`.
        scale: unit (mV, or z-score) per digital step.
        normalise: `zscore` per record and lead over the recorded part, or `fixed` for all records.
    """
    time = torch.arange(digital.shape[-1], device=digital.device)
    recorded = (time >= start[:, None]) & (time < stop[:, None])
    inside = recorded[:, None, :]
    signal = digital.to(torch.float32) * scale
    if normalise == "fixed":
        signal = signal / FIXED_SCALE
    else:
        n = inside.sum(dim=-1, keepdim=True).clamp(min=1)
        signal = signal * inside
        mean = signal.sum(dim=-1, keepdim=True) / n
        deviation = (signal - mean) * inside
        std = (deviation.square().sum(dim=-1, keepdim=True) / n).sqrt()
        signal = deviation / torch.where(std < FLAT_LEAD, torch.inf, std)
    return Batch(signal * inside, recorded, targets, key)
