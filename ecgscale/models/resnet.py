"""The Uppsala ECG ResNet at any width: five residual stages, kernel 17, global average pooling.

After the PyTorch network of antonior92/ecg-age-prediction (Lima et al. 2021; Ribeiro et al. 2020). The published
network ends in a flatten layer; pooling replaces it, so that N does not depend on the input's length.
Inside, a signal has the layout of `convolution`.
"""

from __future__ import annotations

from torch import Tensor, nn

from ecgscale.ladder import N_LEADS, RESNET_KERNEL, RESNET_STRIDES, ResNetShape
from ecgscale.models.convolution import Convolution
from ecgscale.models.encoder import Encoded, Encoder


class ResidualStage(nn.Module):
    """Two convolutions beside a skip path. The un-normalised sum feeds the next skip, as in the published network."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(c_in, c_out, RESNET_KERNEL)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = Convolution(c_out, c_out, RESNET_KERNEL, stride)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.activation = nn.ReLU()
        skip: list[nn.Module] = [nn.MaxPool2d((1, stride))] if stride > 1 else []
        if c_in != c_out:
            skip.append(Convolution(c_in, c_out, kernel=1))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        x = self.activation(self.norm1(self.conv1(x)))
        total = self.conv2(x) + self.skip(skip)
        return self.activation(self.norm2(total)), total


class ResNet(Encoder):
    """`(batch, 12, time)` → five stages of `time / (1, 4, 16, 64, 256)` samples."""

    def __init__(self, shape: ResNetShape) -> None:
        super().__init__()
        self.width = shape.width
        self.depth = len(shape.channels)
        c_in = shape.channels[0]
        self.stem = nn.Sequential(Convolution(N_LEADS, c_in, RESNET_KERNEL), nn.BatchNorm2d(c_in))
        stages = []
        for c_out, stride in zip(shape.channels, RESNET_STRIDES, strict=True):
            stages.append(ResidualStage(c_in, c_out, stride))
            c_in = c_out
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, signal: Tensor) -> Encoded:
        # channels last, in words that `torch.func` can map over several networks
        image = signal.transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(2)
        x = skip = self.stem(image)
        outputs = []
        for stage in self.stages:
            x, skip = stage(x, skip)
            outputs.append(x.squeeze(2))
        return Encoded(tuple(outputs), outputs[-1].mean(dim=-1))
