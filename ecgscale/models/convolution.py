"""Convolution over time of `(batch, channel, 1, time)` whose channels lie together in memory.

torch has this layout for images only; in it narrow convolutions, those of the small rungs, are about twice as fast on a
CPU as one-dimensional ones.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

NARROW = 64
"""Channels up to which the weight gradient is one matrix product on a CPU. Measured against the library's own: 5 × as
fast from 12 to 6 channels, 1.2 × at 44, and its copy of the input grows with the width."""

OUTPUTS_PER_BLOCK = 4
"""Outputs that share one copied stretch of the input. More are copied less and multiply more zeros; the best of 2, 4,
8, 16 and 32 from 4 to 44 channels. Of a convolution of stride 4, whose stretches overlap less, one at a time: within
25 % of the best of 1, 2 and 4."""


class Convolution(nn.Conv1d):
    """Without bias; the output is exactly `time / stride` long."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride=stride, padding=(kernel - stride + 1) // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], int(self.padding[0])
        if x.device.type == "cpu" and max(self.in_channels, self.out_channels) <= NARROW:
            convolved: Tensor = _Narrow.apply(x, self.weight, stride, padding)  # type: ignore[no-untyped-call]
            return convolved
        return _convolved(x, self.weight, stride, padding)


def _convolved(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    return functional.conv2d(x, weight.unsqueeze(2), stride=(1, stride), padding=(0, padding))


class _Narrow(torch.autograd.Function):
    """The same convolution with a weight gradient of our own."""

    generate_vmap_rule = True  # of the passes as they stand, for `torch.func`

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        return _convolved(x, weight, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        x, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x, _, _ = torch.ops.aten.convolution_backward(
                grad, x, weight.unsqueeze(2), None, [1, ctx.stride], [0, ctx.padding], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(x, grad, weight.shape[2], ctx.stride, ctx.padding)
        return to_x, to_weight, None, None


# torch inspects the signature at every call, which would be a twentieth of a step of the smallest network
_Narrow.forward.__signature__ = inspect.signature(_Narrow.forward)  # type: ignore[attr-defined]


def _weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """`(c_out, c_in, kernel)`: blocks of neighbouring outputs against the stretch of input that they saw, as one matrix
    product, of which the diagonals are summed: input sample `stride · j + k` of a stretch met output j at tap k."""
    batch, c_in, _, _ = x.shape
    c_out, length = grad.shape[1], grad.shape[3]
    outputs = max(1, OUTPUTS_PER_BLOCK // stride if kernel > 1 else 1)
    while length % outputs:
        outputs //= 2
    inputs = stride * (outputs - 1) + kernel
    padded = functional.pad(x.squeeze(2).transpose(1, 2).contiguous(), (0, 0, padding, padding))  # (B, time, c_in)
    blocks = (batch, length // outputs, inputs * c_in)
    stretches = padded.as_strided(blocks, (padded.stride(0), outputs * stride * c_in, 1))
    outputs_of = grad.squeeze(2).transpose(1, 2).reshape(-1, outputs * c_out)
    product = outputs_of.t() @ stretches.reshape(-1, inputs * c_in)  # (output · c_out, input · c_in)
    diagonals = product.as_strided(
        (outputs, c_out, kernel, c_in), ((c_out * inputs + stride) * c_in, inputs * c_in, c_in, 1)
    )
    return diagonals.sum(dim=0).transpose(1, 2)
