"""Supervised pre-training (SL): multi-label binary cross-entropy on the pooled vector, in nats per label."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from ecgscale.models.encoder import Encoder
from ecgscale.objectives.batch import Batch
from ecgscale.objectives.objective import Objective, Scored


class MultiLabel(Objective):
    """A linear head with one logit per label."""

    unit = "nats"

    def __init__(self, width: int, n_labels: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, n_labels)
        # zero logits: training starts at log 2 per label whatever the width
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, encoder: Encoder, batch: Batch) -> Scored:
        logits = self.head(encoder(batch.signal).pooled)
        loss_sum = functional.binary_cross_entropy_with_logits(logits.float(), batch.targets, reduction="sum")
        return Scored(loss_sum, batch.targets.new_tensor(batch.targets.numel()), logits)
