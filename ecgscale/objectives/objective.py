"""What an objective promises: a score of one batch that adds up exactly over any number of batches."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor, nn

from ecgscale.models.encoder import Encoder
from ecgscale.objectives.batch import Batch


@dataclass(frozen=True)
class Scored:
    """Attributes:
    loss_sum: sum of the loss over everything that was scored (differentiable).
    weight: how much was scored; `loss_sum / weight` is the loss, also after summing both over batches.
    logits: `(batch, target)` of a supervised objective, else None.
    """

    loss_sum: Tensor
    weight: Tensor
    logits: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        return self.loss_sum / self.weight.clamp(min=1)


class Objective(nn.Module):
    """A head or decoder with its loss. `n_params` counts it apart from the encoder's N.

    Attributes:
        step_fraction: how much of the training is done, set before every step.
    """

    unit: str
    step_fraction: float = 0.0

    @property
    def stage(self) -> Hashable:
        """What of the training's progress its loss depends on; equal where the same is computed."""
        return None

    def drawn(self, batch: Batch) -> Batch:
        """A whole batch with what is drawn at random for it, a pure function of its key."""
        return batch

    def forward(self, encoder: Encoder, batch: Batch) -> Scored:
        """Of a batch, or a part of one, that has gone through `drawn`."""
        raise NotImplementedError

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.parameters())
