"""Every rung of both families, built on the meta device, against the ladder's closed forms."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecgscale.ladder import RUNGS, InputShape, classifier_counts, counts, decoder_counts, shape
from ecgscale.models import build_encoder
from ecgscale.objectives.masked import decoder_for

INPUTS = (InputShape(1024, 16), InputShape(4096, 64))
CASES = [(family, rung, i) for family in ("resnet", "transformer") for rung in RUNGS for i in INPUTS]
BATCH = 2


def counted_train_flops(encoder, signal, head) -> int:
    # the math backend, because fused attention recomputes in its backward and would be counted for it
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        head(encoder(signal)).sum().backward()
    return counter.get_total_flops()


def saved_floats(encoder, signal) -> int:
    """Distinct storages that autograd keeps for the backward pass, parameters left out, in 32-bit numbers."""
    parameters = {p.untyped_storage()._cdata for p in encoder.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = tensor  # holds the tensor, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        encoder(signal)
    return sum(t.untyped_storage().nbytes() for t in kept.values()) // 4


@pytest.mark.parametrize(("family", "rung", "input_shape"), CASES)
def test_built_encoder_has_the_counts_of_the_ladder(family, rung, input_shape):
    network = shape(family, rung, input_shape)
    expected = counts(network, input_shape)
    with torch.device("meta"):
        encoder = build_encoder(network, input_shape)
        head = nn.Linear(encoder.width, 6)
        signal = torch.empty(BATCH, 12, input_shape.n_samples)
    head_params, head_flops = classifier_counts(network, 6)
    assert encoder.n_params == expected.n_params
    assert sum(p.numel() for p in head.parameters()) == head_params
    measured = counted_train_flops(encoder, signal, lambda encoded: head(encoded.pooled))
    assert measured == BATCH * (expected.train_flops + head_flops)


@pytest.mark.parametrize(("family", "rung", "input_shape"), CASES)
def test_decoder_has_the_counts_of_the_ladder(family, rung, input_shape):
    network = shape(family, rung, input_shape)
    with torch.device("meta"):
        encoder = build_encoder(network, input_shape)
        decoder = decoder_for(network, input_shape)
        signal = torch.empty(BATCH, 12, input_shape.n_samples)
    params, flops = decoder_counts(network, input_shape)
    assert sum(p.numel() for p in decoder.parameters()) == params
    assert counted_train_flops(encoder, signal, decoder) == BATCH * (counts(network, input_shape).train_flops + flops)


@pytest.mark.parametrize("family", ["resnet", "transformer"])
@pytest.mark.parametrize("rung", ["20K", "600K", "20M"])
@pytest.mark.parametrize("input_shape", INPUTS)
def test_activation_estimate_is_within_15_percent(family, rung, input_shape):
    network = shape(family, rung, input_shape)
    encoder = build_encoder(network, input_shape)
    measured = saved_floats(encoder, torch.randn(BATCH, 12, input_shape.n_samples)) / BATCH
    assert counts(network, input_shape).activation_floats == pytest.approx(measured, rel=0.15)


def test_resnet_lengths_are_the_published_ones():
    network = shape("resnet", "20K", InputShape(4096, 64))
    encoder = build_encoder(network, InputShape(4096, 64))
    lengths = [stage.shape[-1] for stage in encoder(torch.randn(2, 12, 4096)).stages]
    assert lengths == [4096, 1024, 256, 64, 16] == list(network.stage_lengths(4096))
