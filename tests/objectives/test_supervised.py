"""Multi-label cross-entropy in nats per label."""

import math

import pytest
import torch
from torch import nn

from ecgscale.ladder import InputShape, shape
from ecgscale.models import Encoded, build_encoder
from ecgscale.objectives import build_objective
from ecgscale.objectives.batch import Batch
from ecgscale.objectives.objective import Scored

INPUT = InputShape(256, 16)


def make_labels(n: int, n_labels: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(n, 12, 256, generator=generator)
    targets = (torch.rand(n, n_labels, generator=generator) < 0.3).float()
    return Batch(signal, torch.ones(n, 256, dtype=torch.bool), targets, key=0)


def loss_of(scored: Scored) -> float:
    return float((scored.loss_sum / scored.weight).detach())


class Looks(nn.Module):
    """An "encoder" whose pooled vector is the first lead's first samples."""

    def forward(self, signal: torch.Tensor) -> Encoded:
        return Encoded((signal,), signal[:, 0, :8])


@pytest.mark.parametrize("family", ["resnet", "transformer"])
@pytest.mark.parametrize("rung", ["20K", "200K"])
@pytest.mark.parametrize("n_labels", [1, 3, 6])
def test_training_starts_at_log_2_per_label(family, rung, n_labels):
    network = shape(family, rung, INPUT)
    objective = build_objective("sl", network, INPUT, n_labels=n_labels, mask_ratio=0.5)
    scored = objective(build_encoder(network, INPUT), make_labels(4, n_labels))
    assert loss_of(scored) == pytest.approx(math.log(2), rel=1e-6)
    assert float(scored.weight) == 4 * n_labels
    assert scored.logits.shape == (4, n_labels)
    assert objective.unit == "nats"


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_every_label():
    network = shape("transformer", "20K", INPUT)
    objective = build_objective("sl", network, INPUT, n_labels=2, mask_ratio=0.5)
    objective.head = nn.Linear(8, 2)
    batch = make_labels(5, 2)
    scored = objective(Looks(), batch)
    p = torch.sigmoid(objective.head(batch.signal[:, 0, :8])).double()
    by_hand = -(batch.targets * p.log() + (1 - batch.targets) * (1 - p).log()).sum()
    assert float(scored.loss_sum) == pytest.approx(float(by_hand), rel=1e-5)


@torch.no_grad()
def test_scores_add_up_over_batches():
    network = shape("transformer", "20K", INPUT)
    objective = build_objective("sl", network, INPUT, n_labels=6, mask_ratio=0.5)
    objective.head = nn.Linear(8, 6)
    batch = make_labels(10, 6)
    whole = objective(Looks(), batch)
    parts = [
        objective(Looks(), Batch(batch.signal[rows], batch.recorded[rows], batch.targets[rows], key=1))
        for rows in (slice(0, 3), slice(3, 10))
    ]
    assert float(sum(p.loss_sum for p in parts)) == pytest.approx(float(whole.loss_sum), rel=1e-5)
    assert float(sum(p.weight for p in parts)) == float(whole.weight)


@torch.no_grad()
def test_extreme_logits_cost_much_and_stay_finite():
    network = shape("transformer", "20K", INPUT)
    objective = build_objective("sl", network, INPUT, n_labels=1, mask_ratio=0.5)
    nn.init.constant_(objective.head.bias, 500.0)
    batch = make_labels(4, 1)
    scored = objective(build_encoder(network, INPUT), batch)
    assert float(scored.loss_sum) == pytest.approx(500.0 * float((1 - batch.targets).sum()))


def test_heads_and_decoders_are_counted_apart_from_the_encoder():
    network = shape("transformer", "20K", INPUT)
    assert build_objective("sl", network, INPUT, n_labels=6, mask_ratio=0.5).n_params == 6 * network.width + 6
