"""What every encoder is and returns, whatever its family."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Encoded:
    """Attributes:
    stages: feature maps `(batch, channel, time)`, finest first; a transformer has one.
    pooled: mean over time of the last stage, `(batch, width)`.
    """

    stages: tuple[Tensor, ...]
    pooled: Tensor


class Encoder(nn.Module):
    """Maps signals `(batch, lead, time)` to `Encoded`. N counts its parameters; heads and decoders live elsewhere."""

    width: int
    depth: int
    """Residual blocks in a row."""

    def branch_ends(self) -> tuple[nn.Module, ...]:
        """The last layer of every residual branch, in a family that has several depths."""
        return ()

    def forward(self, signal: Tensor) -> Encoded:
        raise NotImplementedError

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.parameters())
