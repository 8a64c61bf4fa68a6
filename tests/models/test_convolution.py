"""The convolution of the ResNet is that of torch's own one-dimensional layer, values and gradients."""

import pytest
import torch
from torch.nn import functional

from ecgscale.models.convolution import NARROW, Convolution


def as_image(signal):
    return signal.unsqueeze(2).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [(12, 6), (1, 3), (22, 22), (NARROW, 5), (NARROW + 2, 4)])
@pytest.mark.parametrize(("kernel", "stride", "time"), [(17, 1, 64), (17, 4, 64), (17, 1, 2), (17, 4, 4), (1, 1, 16)])
def test_values_and_gradients_are_those_of_a_one_dimensional_layer(channels, kernel, stride, time):
    torch.manual_seed(0)
    convolution = Convolution(*channels, kernel, stride)
    signal = torch.randn(3, channels[0], time)
    ours_in, theirs_in = signal.clone().requires_grad_(), signal.clone().requires_grad_()
    ours = convolution(as_image(ours_in)).squeeze(2)
    theirs = functional.conv1d(theirs_in, convolution.weight, stride=stride, padding=(kernel - stride + 1) // 2)
    assert ours.shape[-1] == time // stride
    torch.testing.assert_close(ours, theirs)
    downstream = torch.randn_like(theirs)
    found = torch.autograd.grad(ours, (ours_in, convolution.weight), downstream)
    expected = torch.autograd.grad(theirs, (theirs_in, convolution.weight), downstream)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


def test_the_layout_of_what_comes_in_and_back_does_not_matter():
    torch.manual_seed(0)
    convolution, signal = Convolution(4, 6, 17), torch.randn(2, 4, 1, 32)
    gradients = []
    for laid in (signal, signal.contiguous(memory_format=torch.channels_last)):
        total = (convolution(laid) * torch.arange(32.0)).sum()  # a gradient in whatever layout the product has
        gradients.append(torch.autograd.grad(total, convolution.weight)[0])
    torch.testing.assert_close(*gradients)


def test_a_frozen_weight_and_a_signal_without_gradient_cost_none():
    convolution, signal = Convolution(4, 6, 17), torch.randn(2, 4, 1, 32)
    convolution(signal).sum().backward()
    assert signal.grad is None
    assert convolution.weight.grad is not None
    convolution.requires_grad_(False)
    assert not convolution(signal).requires_grad
