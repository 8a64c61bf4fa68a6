"""The ladder's promises: close to the rung, strictly increasing, refusing what does not exist."""

import itertools

import pytest

from ecgscale.errors import SpecError
from ecgscale.ladder import RUNGS, InputShape, counts, shape

INPUTS = (InputShape(1024, 16), InputShape(4096, 64))


@pytest.mark.parametrize("input_shape", INPUTS)
@pytest.mark.parametrize(("family", "tolerance"), [("resnet", 0.03), ("transformer", 0.10)])
def test_every_rung_is_as_large_as_it_says(family, tolerance, input_shape):
    sizes = [counts(shape(family, rung, input_shape), input_shape).n_params for rung in RUNGS]
    for size, nominal in zip(sizes, RUNGS.values(), strict=True):
        assert size == pytest.approx(nominal, rel=tolerance)
    assert all(a < b for a, b in itertools.pairwise(sizes))


def test_resnet_counts_are_those_of_the_published_widths():
    # m = 1.7 and 5.38 of the published network, counted from its PyTorch code
    assert counts(shape("resnet", "20M", INPUTS[1]), INPUTS[1]).n_params == 20_017_240
    assert counts(shape("resnet", "200M", INPUTS[1]), INPUTS[1]).n_params == 199_907_044


def test_heads_divide_the_width():
    for rung in RUNGS:
        for input_shape in INPUTS:
            network = shape("transformer", rung, input_shape)
            assert network.width % network.heads == 0
            assert network.width % 8 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet", "7M", INPUTS[0]), r"'7M' does not exist.*20K.*200M"),
        (("mamba", "2M", INPUTS[0]), "'mamba' does not exist"),
        (("resnet", "2M", InputShape(1000, 10)), "multiple of the ResNet's stride 256"),
        (("transformer", "2M", InputShape(1024, 15)), "multiple of the patch 15"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(arguments, message):
    with pytest.raises(SpecError, match=message):
        shape(*arguments)
