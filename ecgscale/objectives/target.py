"""Training on one continuous target through one head: loss per record, in the head's unit."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from ecgscale.concentrations.heads import Head
from ecgscale.models.encoder import Encoder
from ecgscale.objectives.batch import Batch
from ecgscale.objectives.objective import Objective, Scored


class OneTarget(Objective):
    """A head on the pooled vector.

    The targets of a batch are `(batch, 2 or 4)`: truth, weight, and age and sex for a head that sees them
    (`concentrations.records.HeadInputs`). Weights and a burn-in are for training; evaluation has neither.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.unit = head.unit

    @property
    def stage(self) -> Hashable:
        return self.head.in_burn_in(self.step_fraction)

    def forward(self, encoder: Encoder, batch: Batch) -> Scored:
        outputs, _ = self.outputs(encoder, batch)
        truth, weight = batch.targets[:, 0], batch.targets[:, 1]
        if self.training:
            losses = self.head.loss(outputs, truth, weight, self.step_fraction)
        else:
            losses = self.head.loss(outputs, truth)
        return Scored(losses.sum(), truth.new_tensor(len(truth)), outputs)

    def outputs(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, Tensor]:
        """`(batch, n_outputs)`, and what the last layer saw, `(batch, width)`."""
        age_and_sex = batch.targets[:, 2:] if self.head.spec.age_and_sex else None
        seen = self.head.seen(encoder(batch.signal).pooled, age_and_sex)
        return self.head.said(seen), seen
