"""Encoders: (batch, lead, time) in, feature maps and a pooled vector out. One file per family."""

from ecgscale.ladder import InputShape, ResNetShape, Shape
from ecgscale.models.encoder import Encoded, Encoder
from ecgscale.models.resnet import ResNet
from ecgscale.models.transformer import Transformer

__all__ = ["BATCH_STATISTICS", "Encoded", "Encoder", "build_encoder"]

BATCH_STATISTICS = frozenset({"resnet"})
"""Families that normalise over the records of a batch: parts of a batch would train another model."""


def build_encoder(network: Shape, input_shape: InputShape) -> Encoder:
    """The encoder of a ladder shape, with freshly drawn weights (seed torch before)."""
    if isinstance(network, ResNetShape):
        return ResNet(network)
    return Transformer(network, input_shape)
