"""Trainings of one form, computed as one: weights and batches of all are stacked, and `torch.func` maps one network's
loss and gradients over them. Small networks, whose time on a GPU goes into launches, so launch once for all.

Everything else of a trial is its own: its records, optimiser, clipping and evaluation. Sums are added in another order
than alone, but, on a CPU, in the same whoever else is there (tested); so a trial whose steps are stacked ends with the
same numbers when it was stopped and goes on by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ecgscale.failures import FailureClass, classify
from ecgscale.objectives.batch import Batch

LEAST = 2
"""A stack of one is filled up with the same once more: a convolution of one network alone is another kernel."""

Named = dict[str, Tensor]


class TooLarge(MemoryError):
    """A stack, maybe not each of its trials."""


@dataclass(frozen=True)
class Step:
    """What one trial brings.

    Attributes:
        network: from a batch to its loss. Its buffers are changed as in a step alone.
        batch: with what was drawn for it.
        form: equal where networks differ in nothing but their numbers, and compute the same loss.
    """

    network: nn.Module
    batch: Batch
    form: Hashable

    @property
    def key(self) -> Hashable:
        """Equal for steps that can be stacked."""
        return self.form, tuple((name, tensor.shape) for name, tensor in self.tensors.items())

    @property
    def tensors(self) -> Named:
        """Of the batch."""
        found = {field.name: getattr(self.batch, field.name) for field in fields(self.batch)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def weights(self, *, learned: bool) -> dict[str, nn.Parameter]:
        """Those that learn, or those that are frozen."""
        return {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad == learned}


def losses(steps: Sequence[Step]) -> list[Tensor]:
    """The loss of each step, whose `backward` gives the weights of its own network their gradients; those that are
    alike are stacked.

    Raises:
        TooLarge: a stack does not fit into the memory of its device.
    """
    alike: dict[Hashable, list[Step]] = defaultdict(list)
    for step in steps:
        alike[step.key].append(step)
    try:
        found = {key: iter(_stacked(some)) for key, some in alike.items()}
    except Exception as error:
        if classify(error) is not FailureClass.OUT_OF_MEMORY:
            raise
        why = str(error)
    else:
        return [next(found[step.key]) for step in steps]
    raise TooLarge(why)  # out here, so that what the stack held is freed before anybody tries again


def _stacked(steps: Sequence[Step]) -> list[Tensor]:
    first = steps[0]
    filled = [*steps, *[steps[-1]] * (LEAST - len(steps))]
    weights = [step.weights(learned=True) for step in filled]
    own_buffers = [dict(step.network.named_buffers()) for step in filled]
    learned, buffers = _stack(weights), _stack(own_buffers)
    frozen = _stack([step.weights(learned=False) for step in filled])

    def loss(learned: Named, frozen: Named, buffers: Named, tensors: Named) -> Tensor:
        batch = Batch(**tensors, key=first.batch.key)
        of_one: Tensor = functional_call(first.network, learned | frozen | buffers, (batch,))
        return of_one

    # attention as matrix products: of the fused kinds torch would map the backward pass one by one
    with sdpa_kernel(SDPBackend.MATH):
        mapped = vmap(grad_and_value(loss))
        gradients, values = mapped(learned, frozen, buffers, _stack([step.tensors for step in filled]))
    n = len(steps)
    _copy_back(buffers, own_buffers[:n])
    found = []
    for place, own in enumerate(weights[:n]):
        known = [gradients[name][place] for name in own]
        found.append(_Known.apply(values[place], known, *own.values()))  # type: ignore[no-untyped-call]
    return found


def _stack(named: Sequence[dict[str, Any]]) -> Named:
    return {name: torch.stack([own[name].detach() for own in named]) for name in named[0]}


@torch.no_grad()
def _copy_back(stacked: Named, named: Sequence[Named]) -> None:
    """What a step has changed, in one launch for all that have one type."""
    pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for place, own in enumerate(named):
        for name, tensor in own.items():
            to, since = pairs.setdefault(tensor.dtype, ([], []))
            to.append(tensor)
            since.append(stacked[name][place])
    for to, since in pairs.values():
        torch._foreach_copy_(to, since)


class _Known(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(ctx.gradients, grad)
