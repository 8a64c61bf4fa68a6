"""The size ladder: rungs, and the shape, parameter, FLOP and activation counts of each family at each rung.

Everything is closed form, so that `plan` needs no torch; tests compare every rung with the built network. The ladder is
the only place where a rung is mapped to a shape: nothing else may retype the list.

Counting conventions. N is the encoder without heads and decoders. One multiply-add is two FLOPs; normalisations,
activations and pooling are not counted (nor are they by torch's `FlopCounterMode`, which a test compares with).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from ecgscale.conventions import LEADS
from ecgscale.errors import SpecError

Family = Literal["resnet", "transformer"]
Rung = Literal["20K", "60K", "200K", "600K", "2M", "6M", "20M", "60M", "200M"]

RUNGS: dict[Rung, int] = {
    "20K": 20_000,
    "60K": 60_000,
    "200K": 200_000,
    "600K": 600_000,
    "2M": 2_000_000,
    "6M": 6_000_000,
    "20M": 20_000_000,
    "60M": 60_000_000,
    "200M": 200_000_000,
}
"""Nominal encoder parameters: a factor of about 3 from rung to rung over four decades."""

N_LEADS = len(LEADS)

# --- ResNet: the Uppsala network times a width multiplier ---------------------------------------------------------

RESNET_KERNEL = 17
RESNET_STRIDES = (1, 4, 4, 4, 4)
RESNET_BASE_CHANNELS = (64, 128, 196, 256, 320)
"""Kernel, strides and channels of the published PyTorch network (antonior92/ecg-age-prediction), width multiplier 1."""

RESNET_WIDTH_MULTIPLIER: dict[Rung, float] = {
    "20K": 0.051,
    "60K": 0.090,
    "200K": 0.170,
    "600K": 0.295,
    "2M": 0.540,
    "6M": 0.930,
    "20M": 1.700,
    "60M": 2.945,
    "200M": 5.380,
}
"""Chosen so that N hits the rung within 3 %; our assumption, the scaling paper does not publish its widths."""

# --- Transformer: pre-norm ViT-1D over time patches of all leads ---------------------------------------------------

TRANSFORMER_LAYERS: dict[Rung, int] = {
    "20K": 2,
    "60K": 2,
    "200K": 4,
    "600K": 5,
    "2M": 6,
    "6M": 8,
    "20M": 12,
    "60M": 12,
    "200M": 16,
}
"""Preferred depth: width and depth grow together (our assumption, after Yao et al. 2025, arXiv 2410.12360)."""

TRANSFORMER_MLP_RATIO = 4


def _width_step(rung: Rung) -> int:
    """Widths are multiples of 8 (tensor cores); above 1M of a whole head, 32 dimensions, and above 10M 64."""
    return 8 if RUNGS[rung] < 1_000_000 else 32 if RUNGS[rung] < 10_000_000 else 64


@dataclass(frozen=True)
class InputShape:
    """What an encoder sees: `n_samples` per lead, cut into patches of `patch_samples` for tokens and masks."""

    n_samples: int
    patch_samples: int

    @property
    def n_patches(self) -> int:
        return self.n_samples // self.patch_samples


@dataclass(frozen=True)
class ResNetShape:
    channels: tuple[int, ...]

    @property
    def width(self) -> int:
        """Channels of the last stage, which is the size of the pooled vector."""
        return self.channels[-1]

    def stage_lengths(self, n_samples: int) -> tuple[int, ...]:
        """Samples per stage after its stride."""
        lengths = []
        for stride in RESNET_STRIDES:
            n_samples //= stride
            lengths.append(n_samples)
        return tuple(lengths)


@dataclass(frozen=True)
class TransformerShape:
    width: int
    layers: int
    heads: int


Shape = ResNetShape | TransformerShape


@dataclass(frozen=True)
class Counts:
    """What one encoder costs. FLOPs and activations are per record."""

    n_params: int
    forward_flops: int
    train_flops: int
    """Forward plus backward. Twice the forward for the backward, less the gradient with respect to the input."""
    activation_floats: int
    """Numbers kept for the backward pass; an estimate, within 15 % of autograd's saved tensors (tested)."""


@lru_cache(maxsize=1024)  # asked once per cell of a sweep
def shape(family: Family, rung: Rung, input_shape: InputShape) -> Shape:
    """The network of `family` at `rung`.

    Raises:
        SpecError: the rung or family does not exist, or the input can't be divided by the strides or the patch.
    """
    if rung not in RUNGS:
        raise SpecError(f"rung {rung!r} does not exist; the ladder has {', '.join(RUNGS)}")
    if input_shape.n_samples % input_shape.patch_samples:
        raise SpecError(f"n_samples {input_shape.n_samples} is not a multiple of the patch {input_shape.patch_samples}")
    if family == "resnet":
        stride = math.prod(RESNET_STRIDES)
        if input_shape.n_samples % stride:
            raise SpecError(f"n_samples {input_shape.n_samples} is not a multiple of the ResNet's stride {stride}")
        return _resnet_shape(rung)
    if family == "transformer":
        return _transformer_shape(rung, input_shape.patch_samples)
    raise SpecError(f"family {family!r} does not exist; there are resnet and transformer")


def counts(network: Shape, input_shape: InputShape) -> Counts:
    """Closed-form parameter, FLOP and activation counts of an encoder."""
    if isinstance(network, ResNetShape):
        return _resnet_counts(network, input_shape)
    return _transformer_counts(network, input_shape)


def twice_as_wide(network: Shape) -> Shape:
    """Of the same depth, and with as many heads."""
    if isinstance(network, ResNetShape):
        return ResNetShape(tuple(2 * channels for channels in network.channels))
    return replace(network, width=2 * network.width)


# --- heads and decoders, counted apart from N ----------------------------------------------------------------------


def classifier_counts(network: Shape, n_outputs: int) -> tuple[int, int]:
    """(parameters, training FLOPs per record) of a linear head on the pooled vector."""
    return network.width * n_outputs + n_outputs, 3 * 2 * network.width * n_outputs


def decoder_counts(network: Shape, input_shape: InputShape) -> tuple[int, int]:
    """(parameters, training FLOPs per record) of the light decoder that reconstructs the patches of all leads."""
    tokens, out = input_shape.n_patches, N_LEADS * input_shape.patch_samples
    params = network.width * out + out
    flops = 2 * tokens * network.width * out
    if isinstance(network, ResNetShape):
        for channels, length in decoded_stages(network, input_shape):
            params += channels * network.width + network.width
            flops += 2 * length * channels * network.width
    return params, 3 * flops


def decoded_stages(network: ResNetShape, input_shape: InputShape) -> tuple[tuple[int, int], ...]:
    """(channels, length) of the stages the masked decoder reads: those no finer than one patch."""
    lengths = network.stage_lengths(input_shape.n_samples)
    stages = zip(network.channels, lengths, strict=True)
    return tuple((c, length) for c, length in stages if length <= input_shape.n_patches)


# --- ResNet --------------------------------------------------------------------------------------------------------


def _resnet_shape(rung: Rung) -> ResNetShape:
    multiplier = RESNET_WIDTH_MULTIPLIER[rung]
    return ResNetShape(tuple(2 * round(base * multiplier / 2) for base in RESNET_BASE_CHANNELS))


def _resnet_counts(network: ResNetShape, input_shape: InputShape) -> Counts:
    k, length = RESNET_KERNEL, input_shape.n_samples
    c_in = network.channels[0]
    stem_flops = 2 * N_LEADS * c_in * k * length
    n_params = N_LEADS * c_in * k + 2 * c_in  # convolution without bias, batch norm
    forward = stem_flops
    saved = (N_LEADS + 2 * c_in) * length  # inputs of the stem, its norm and the first stage
    for c_out, stride in zip(network.channels, RESNET_STRIDES, strict=True):
        shorter = length // stride
        n_params += c_in * c_out * k + c_out * c_out * k + 4 * c_out
        forward += 2 * c_in * c_out * k * length + 2 * c_out * c_out * k * shorter
        # inputs of the norms and outputs of the ReLUs behind both convolutions
        saved += 2 * c_out * length + 2 * c_out * shorter
        if stride > 1:
            saved += 2 * c_in * shorter  # 64-bit indices of the max-pool
        if c_in != c_out:
            n_params += c_in * c_out
            forward += 2 * c_in * c_out * shorter
            saved += c_in * shorter
        c_in, length = c_out, shorter
    return Counts(n_params, forward, 3 * forward - stem_flops, saved)


# --- Transformer ---------------------------------------------------------------------------------------------------


def _transformer_params(width: int, layers: int, patch_samples: int) -> int:
    embed = N_LEADS * patch_samples * width + width
    block = 12 * width * width + 13 * width  # attention 4d² + 4d, MLP 8d² + 5d, two norms 4d
    return embed + layers * block + 2 * width


def _transformer_shape(rung: Rung, patch_samples: int) -> TransformerShape:
    """Depth from the table, then the allowed width that comes closest to the rung.

    Widths are coarse, so a depth one larger or one smaller is taken where the preferred one misses by more than 5 %.
    """
    target, preferred, step = RUNGS[rung], TRANSFORMER_LAYERS[rung], _width_step(rung)

    def closest(layers: int) -> tuple[float, int, int]:
        # 12·L·d² + (12·patch + 3 + 13·L)·d = target, rounded to the allowed widths
        a, b = 12 * layers, N_LEADS * patch_samples + 3 + 13 * layers
        exact = (-b + math.sqrt(b * b + 4 * a * target)) / (2 * a)
        below = max(1, math.floor(exact / step)) * step
        return min(
            (abs(_transformer_params(width, layers, patch_samples) / target - 1), width, layers)
            for width in (below, below + step)
        )

    best = closest(preferred)
    if best[0] > 0.05:
        best = min(closest(layers) for layers in (preferred, preferred + 1, max(2, preferred - 1)))
    _, width, layers = best
    heads = width // step if step > 8 else 2 if width < 48 else 4
    return TransformerShape(width, layers, heads)


def _transformer_counts(network: TransformerShape, input_shape: InputShape) -> Counts:
    d, tokens = network.width, input_shape.n_patches
    embed_flops = 2 * tokens * N_LEADS * input_shape.patch_samples * d
    attention = 2 * 2 * tokens * tokens * d
    block_flops = 2 * tokens * 12 * d * d + attention
    forward = embed_flops + network.layers * block_flops
    # norm in, qkv in, q k v, attention out, norm in, MLP in, MLP hidden before and after the activation
    block_saved = tokens * d * (1 + 1 + 3 + 1 + 1 + 1 + 2 * TRANSFORMER_MLP_RATIO)
    saved = N_LEADS * input_shape.n_samples + network.layers * block_saved + tokens * d
    n_params = _transformer_params(d, network.layers, input_shape.patch_samples)
    return Counts(n_params, forward, 3 * forward - embed_flops, saved)
