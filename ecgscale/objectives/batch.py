"""One batch on its way into a model: cropped, cast, normalised and zero outside the recorded signal, on the device.

Training may ask for random changes on the way (`objectives.augmentation`); evaluation never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ecgscale.objectives.augmentation import crop, disturbed, kept_leads
from ecgscale.specs import AugmentSpec

Normalise = Literal["zscore", "fixed"]
Damage = Callable[[Tensor, Tensor], Tensor]

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
    key: integer that seeds whatever is random about this batch (masks, augmentation), so that a resumed trial draws
        the same.
    masked: `(batch, patch)` bool, True where an objective hides a patch from the encoder; None until it has drawn that
        (`Objective.drawn`).
    """

    signal: Tensor
    recorded: Tensor
    targets: Tensor
    key: int
    masked: Tensor | None = None

    def split(self, size: int) -> Iterator[Batch]:
        """Parts of `size` records, the last perhaps smaller, with what was drawn for the whole batch."""
        for first in range(0, len(self.signal), size):
            rows = slice(first, first + size)
            masked = self.masked[rows] if self.masked is not None else None
            yield Batch(self.signal[rows], self.recorded[rows], self.targets[rows], self.key, masked)


def make_batch(
    digital: Tensor,
    start: Tensor,
    stop: Tensor,
    targets: Tensor,
    *,
    scale: float | Sequence[float] | Tensor,
    normalise: Normalise,
    key: int,
    n_samples: int | None = None,
    augment: AugmentSpec | None = None,
    damage: Damage | None = None,
) -> Batch:
    """Digital samples `(batch, lead, time)` int16 × `scale` → a `Batch`.

    Args:
        start: first recorded sample of each record, `(batch,)`.
        stop: one past the last recorded sample, `(batch,)`.
        scale: unit (mV, or z-score) per digital step, one number or one per lead.
        normalise: `zscore` per record and lead over the recorded part, or `fixed` for all records.
        n_samples: what the model sees of a store that holds more; None for all of it.
        augment: what changes at random, in training; None for nothing.
        damage: `(batch, lead, time)` in the unit of the records, `(batch, time)` where they are recorded → damaged.
    """
    at_random = augment is not None and augment.random_crop
    digital, start, stop = crop(digital, start, stop, n_samples or digital.shape[-1], key=key, at_random=at_random)
    time = torch.arange(digital.shape[-1], device=digital.device)
    recorded = (time >= start[:, None]) & (time < stop[:, None])
    inside = recorded[:, None, :].to(torch.float32)
    per_lead = torch.as_tensor(scale, dtype=torch.float32, device=digital.device).reshape(-1, 1)
    signal = digital.to(torch.float32).mul_(per_lead).mul_(inside)
    if damage is not None:
        signal = damage(signal, recorded)
    if augment is not None:
        signal = disturbed(signal, augment, key)
    if damage is not None or augment is not None:
        signal = signal * inside
    if normalise == "fixed":
        signal = signal / FIXED_SCALE
    else:
        n = inside.sum(dim=-1, keepdim=True).clamp(min=1)
        mean = signal.sum(dim=-1, keepdim=True) / n
        deviation = (signal - mean).mul_(inside)
        std = torch.linalg.vector_norm(deviation, dim=-1, keepdim=True) / n.sqrt()
        signal = deviation.div_(torch.where(std < FLAT_LEAD, torch.inf, std))
    if augment is not None and augment.lead_dropout:
        kept = kept_leads(len(signal), signal.shape[1], augment, key)
        signal = signal * kept[..., None].to(signal.device)
    return Batch(signal, recorded, targets, key)
