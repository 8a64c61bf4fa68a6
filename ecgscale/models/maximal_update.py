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
docs/learning_rates.md). Depth, which grows along the ladder as well, is left alone. Both are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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


@torch.no_grad()
def redraw(network: nn.Module, found: Mapping[str, Growth], ratio: float) -> None:
    """Changes the spread of freshly drawn input and read-out layers.

    Args:
        ratio: m.
    """
    for name, weight in network.named_parameters():
        grows = found.get(name)
        if grows == Growth(inputs=False, outputs=True):
            weight.mul_(_spread(weight, weight.shape[0] / ratio) / _spread(weight, weight.shape[0]))
        elif grows == Growth(inputs=True, outputs=False):
            weight.mul_(1 / math.sqrt(ratio))


def _spread(weight: Tensor, n_outputs: float) -> float:
    """Up to a factor, the deviation that an input layer of so many outputs is drawn with: by He et al. over the outputs
    if it is a convolution, else by Glorot and Bengio."""
    return 1 / math.sqrt(n_outputs if weight.ndim == 3 else weight.shape[1] + n_outputs)


def optimizer_groups(
    weights: Mapping[str, Tensor], found: Mapping[str, Growth], ratio: float, *, peak_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW's groups: weights that decay, biases and norms, and with µP the weights that learn slower.

    Args:
        weights: those that learn.
        found: empty for the standard parametrisation, which has no third group.
        ratio: m.
    """
    decayed = {name: weight for name, weight in weights.items() if weight.ndim > 1}
    slower = {name: weight for name, weight in decayed.items() if found and found[name].inputs}
    groups: list[dict[str, Any]] = [
        {"params": [weight for name, weight in decayed.items() if name not in slower], "weight_decay": weight_decay},
        {"params": [weight for weight in weights.values() if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if slower:
        scaled = {"weight_decay": weight_decay * ratio, "lr": peak_lr / ratio}
        groups.append({"params": list(slower.values())} | scaled)
    return groups
