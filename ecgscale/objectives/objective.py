"""What an objective promises: a score of one batch that adds up exactly over any number of batches."""

from __future__ import annotations

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


class Objective(nn.Module):
    """A head or decoder with its loss. `n_params` counts it apart from the encoder's N.

    Attributes:
        step_fraction: how much of the training is done, set before every step.
    """

    unit: str
    step_fraction: float = 0.0

    def forward(self, encoder: Encoder, batch: Batch) -> Scored:
        raise NotImplementedError

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.parameters())
