"""µP: weights are drawn, and learn, so that every layer's outputs change alike at every width, and one rate serves all.

After Yang et al. 2021 (Tensor Programs V, arXiv 2203.03466), table 3 for Adam, relative to a reference width at which
nothing differs from the standard parametrisation. With m = width / reference width:

    weights whose inputs grow with the width (hidden, read-out)    rate ÷ m, weight decay × m
    read-out: only the inputs grow                                 drawn narrower by a further √m
    input layers: only the outputs grow                            drawn as at the reference width, rate as it is
    biases, norms, and weights of one size                         as they are

The product of rate and weight decay is the same at every width, as in the authors' own package. Attention keeps 1/√d of
a head's width d, where µP has 1/d: a trained encoder is then the same function whatever it was trained with. On our
ladder d grows from 12 to 64 only, and with heads of 8 to 64 the outputs of attention still change alike (measured:
docs/learning_rates.md). That is our choice.

Depth, where a rule names a reference depth, after Dey et al. 2025 (CompleteP, arXiv 2505.01618): with l = depth /
reference depth, a residual branch counts 1 / l. Their factor stands in the forward pass; here, again so that the
function stays the same, the last layer of each branch is drawn narrower by l, learns slower by l and decays faster by
l, its bias too, which with Adam comes to the same. Their ε of AdamW, which shrinks with l as well, stays (our choice).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Growth:
    """Which sides of a weight grow with the width of the network."""

    inputs: bool
    outputs: bool


def growth(network: nn.Module, wider: nn.Module) -> dict[str, Growth]:
    """Name → growth of every weight that is no bias and no norm: what differs in size between two networks."""
    sizes = {name: weight.shape for name, weight in wider.named_parameters()}
    return {
        name: Growth(inputs=sizes[name][1] > weight.shape[1], outputs=sizes[name][0] > weight.shape[0])
        for name, weight in network.named_parameters()
        if weight.ndim > 1
    }


@dataclass(frozen=True)
class Parametrisation:
    """How the weights of one network are drawn, and learn, beside those of the reference. As it stands, the standard
    one, in which all are drawn and learn alike.

    Attributes:
        growth: of every weight that is no bias and no norm; empty without µP.
        width_ratio: m.
        branch_ends: names of the weights and biases that end a residual branch.
        depth_ratio: l.
    """

    growth: Mapping[str, Growth] = field(default_factory=dict)
    width_ratio: float = 1.0
    branch_ends: frozenset[str] = frozenset()
    depth_ratio: float = 1.0

    def slowdown(self, name: str) -> float:
        """By what its rate is divided, and its decay multiplied."""
        grows = self.growth.get(name)
        by_width = self.width_ratio if grows is not None and grows.inputs else 1.0
        return by_width * (self.depth_ratio if name in self.branch_ends else 1.0)

    @torch.no_grad()
    def redraw(self, network: nn.Module) -> None:
        """Changes the spread of freshly drawn weights."""
        for name, weight in network.named_parameters():
            grows = self.growth.get(name)
            if grows == Growth(inputs=False, outputs=True):
                n_outputs = weight.shape[0]
                weight.mul_(_spread(weight, n_outputs / self.width_ratio) / _spread(weight, n_outputs))
            elif grows == Growth(inputs=True, outputs=False):
                weight.mul_(1 / math.sqrt(self.width_ratio))
            if name in self.branch_ends:
                weight.mul_(1 / self.depth_ratio)

    def optimizer_groups(
        self, weights: Mapping[str, Tensor], *, peak_lr: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """AdamW's groups: weights that decay, biases and norms, then those that learn slower.

        Args:
            weights: those that learn.
        """
        slower: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
        for name, weight in weights.items():
            slower.setdefault((self.slowdown(name), weight.ndim > 1), []).append(weight)
        return [
            {"params": some, "lr": peak_lr / by, "weight_decay": weight_decay * by if decays else 0.0}
            for (by, decays), some in slower.items()
        ]


def _spread(weight: Tensor, n_outputs: float) -> float:
    """Up to a factor, the deviation that an input layer of so many outputs is drawn with: by He et al. over the outputs
    if it is a convolution, else by Glorot and Bengio."""
    return 1 / math.sqrt(n_outputs if weight.ndim == 3 else weight.shape[1] + n_outputs)
