"""Heads on vectors: planted truths are recovered, ordinal heads do not contradict themselves, losses are nats.

One test for each defect of the published code that a head could have (heads; `paper` is von Bachmann et al. 2024).
"""

import math

import numpy as np
import pytest
import torch
from coral_pytorch.dataset import levels_from_labelbatch
from coral_pytorch.losses import coral_loss, corn_loss
from scipy import stats
from torch import nn

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.decoding import class_probabilities, predictive
from ecgscale.concentrations.head_counts import head_counts
from ecgscale.concentrations.heads import LOG_VARIANCE, Head, bounded, build_head
from ecgscale.concentrations.target import TargetScale
from ecgscale.concentrations.weights import training_weights

TARGET = TargetSpec(name="potassium", column="k", unit="mmol/l", cuts=(3.5, 5.0))
VALUES = np.random.default_rng(0).normal(4.2, 0.6, 5000)
WIDTH = 8
LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)

NUMBERS = [
    HeadSpec(name="mse", kind="mse"),
    HeadSpec(name="huber", kind="huber", huber_delta=1.0),
    HeadSpec(name="gaussian", kind="gaussian"),
    HeadSpec(name="quantile", kind="quantile", levels=LEVELS),
]
CLASSIFIERS = [
    HeadSpec(name=kind, kind=kind, buckets="quantile", classes=5) for kind in ("softmax", "cumulative", "coral", "corn")
]
BINARY = HeadSpec(name="binary", kind="binary", buckets=(4.0,))


def named(heads: list[HeadSpec]) -> object:
    return pytest.mark.parametrize("spec", heads, ids=[head.name for head in heads])


def made(spec: HeadSpec, width: int = WIDTH) -> tuple[Head, TargetScale]:
    torch.manual_seed(0)
    scale = TargetScale.fit(VALUES, TARGET, spec)
    return build_head(width, spec, scale.n_classes), scale


def disturbed(head: Head, scale: float = 1.0) -> Head:
    """As after some training: no weight or bias is where it started."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return head


def features(n: int) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(2))


def truth_of(scale: TargetScale, n: int) -> torch.Tensor:
    return torch.from_numpy(scale.trained_on(VALUES[:n]))


def train(body: nn.Module, head: Head, inputs: torch.Tensor, truth: torch.Tensor, n_steps: int, batch: int = 0) -> None:
    """On all records at every step, or on `batch` of them after another."""
    optimiser = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for step in range(n_steps):
        first = step * batch % len(inputs)
        rows = slice(first, first + batch) if batch else slice(None)
        optimiser.zero_grad()
        head.loss(head(body(inputs[rows])), truth[rows], None, step / n_steps).mean().backward()
        optimiser.step()
        schedule.step()


# --- every head ------------------------------------------------------------------------------------------------------


@named([*NUMBERS, *CLASSIFIERS, BINARY])
def test_a_fresh_head_says_the_same_of_everybody_and_every_output_learns(spec):
    head, scale = made(spec)
    outputs = head(features(64))
    assert outputs.shape == (64, head.n_outputs)
    assert (outputs == outputs[0]).all()
    losses = head.loss(outputs, truth_of(scale, 64))
    assert losses.shape == (64,)
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert (gradient != 0).any(dim=0).all()


@named([*NUMBERS, *CLASSIFIERS, BINARY])
def test_weights_multiply_the_loss_of_their_record(spec):
    head, scale = made(spec)
    outputs, truth = disturbed(head)(features(8)), truth_of(scale, 8)
    weight = torch.arange(8.0)
    torch.testing.assert_close(head.loss(outputs, truth, weight), head.loss(outputs, truth) * weight)


@named([*NUMBERS, *CLASSIFIERS, BINARY])
def test_a_head_learns_a_line_and_says_it_in_the_unit(spec):
    """Planted: 4.2 + 0.5 x + noise of 0.3, of which a line explains 74 %."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 2)).astype(np.float32)
    line = 4.2 + 0.5 * x[:, 0]
    values = line + rng.normal(0, 0.3, len(x))
    torch.manual_seed(0)
    scale = TargetScale.fit(values, TARGET, spec)
    head = build_head(2, spec, scale.n_classes)
    truth = torch.from_numpy(scale.trained_on(values))
    train(nn.Identity(), head, torch.from_numpy(x), truth, n_steps=400)
    with torch.no_grad():
        said = predictive(head(torch.from_numpy(x)).numpy(), spec, scale)
    r2 = np.corrcoef(said.mean, line)[0, 1] ** 2
    assert r2 > (0.6 if spec.kind == "binary" else 0.9)
    assert said.mean.mean() == pytest.approx(values.mean(), abs=0.03)


@named([*NUMBERS, *CLASSIFIERS, BINARY])
def test_half_precision_outputs_have_a_full_precision_loss(spec):
    head, scale = made(spec)
    outputs, truth = disturbed(head)(features(8)).detach(), truth_of(scale, 8)
    half = head.loss(outputs.bfloat16(), truth)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, head.loss(outputs.bfloat16().float(), truth))


@pytest.mark.parametrize("age_and_sex", [False, True], ids=["ecg", "ecg_age_sex"])
@named([*NUMBERS, *CLASSIFIERS, BINARY])
def test_the_parameters_of_a_plan_are_those_of_the_head(spec, age_and_sex):
    spec = spec.model_copy(update={"age_and_sex": age_and_sex})
    built, _ = made(spec)
    assert sum(parameter.numel() for parameter in built.parameters()) == head_counts(WIDTH, spec, TARGET)[0]


@named([*NUMBERS, *CLASSIFIERS, BINARY])
def test_the_last_layer_of_a_mean_is_what_laplace_asks_for(spec):
    spec = spec.model_copy(update={"age_and_sex": True})
    head, _ = made(spec)
    disturbed(head, 0.1)
    layer = head.mean_layer()
    assert (layer is not None) == (spec.kind in ("mse", "gaussian"))
    if layer is not None:
        x, who = features(5), torch.zeros(5, 2)
        torch.testing.assert_close(layer(head.seen(x, who))[:, 0], head(x, who)[:, 0])


# --- gaussian --------------------------------------------------------------------------------------------------------


def test_a_gaussian_head_recovers_planted_noise_at_every_decile_of_the_input():
    """Noise of 0.1 to 0.8 mmol/l, a factor of 8, about a curve; intervals cover within 2 points everywhere."""
    rng = np.random.default_rng(4)

    def planted(n: int) -> tuple[torch.Tensor, np.ndarray]:
        x = rng.uniform(-1, 1, n)
        y = 4.2 + 0.6 * np.sin(2.5 * x) + 0.8 * 8 ** ((x - 1) / 2) * rng.standard_normal(n)
        return torch.tensor(x[:, None], dtype=torch.float32), y

    spec = HeadSpec(name="gaussian", kind="gaussian", burn_in=0.2)
    inputs, values = planted(100_000)
    torch.manual_seed(0)
    scale = TargetScale.fit(values, TARGET, spec)
    body = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
    head = build_head(16, spec, scale.n_classes)
    train(body, head, inputs, torch.from_numpy(scale.trained_on(values)), n_steps=1000, batch=4000)
    fresh, truth = planted(200_000)
    with torch.no_grad():
        said = predictive(head(body(fresh)).numpy(), spec, scale)
    decile = np.digitize(fresh[:, 0].numpy(), np.quantile(fresh[:, 0].numpy(), np.arange(0.1, 1, 0.1)))
    for level in (0.5, 0.8, 0.9, 0.95):
        inside = (truth > said.quantile((1 - level) / 2)) & (truth < said.quantile((1 + level) / 2))
        covered = np.array([inside[decile == k].mean() for k in range(10)])
        np.testing.assert_allclose(covered, level, atol=0.02, err_msg=f"coverage of {level:.0%} intervals by decile")


def test_the_gaussian_loss_is_the_negative_log_density_with_all_constants():
    """Paper's code drops 1/2 and log 2π. In the unit it differs by the logarithm of the scale, exactly."""
    spec = NUMBERS[2]
    head, scale = made(spec)
    outputs, truth = disturbed(head)(features(200)).detach(), truth_of(scale, 200)
    mean, sd = outputs[:, 0].double(), torch.exp(outputs[:, 1].double() / 2)
    losses = head.loss(outputs, truth)
    np.testing.assert_allclose(losses, -stats.norm.logpdf(truth, mean, sd), rtol=1e-4)
    in_unit = -predictive(outputs.numpy(), spec, scale).log_density(VALUES[:200])
    np.testing.assert_allclose(losses + np.log(scale.sd), in_unit, rtol=1e-4)


@pytest.mark.parametrize("error", [1e-3, 0.1, 1.0, 30.0])
def test_small_losses_have_gradients(error):
    """Paper's code ends with `clamp(loss, 10000)`, a minimum: every loss below 10,000 had the gradient 0."""
    head, _ = made(NUMBERS[2])
    outputs = torch.tensor([[0.3, -0.5]], requires_grad=True)
    loss = head.loss(outputs, outputs[:, 0].detach() + error)
    assert abs(loss.item()) < 10_000
    (gradient,) = torch.autograd.grad(loss.sum(), outputs)
    by_hand = [-error * math.exp(0.5), 0.5 * (1 - error**2 * math.exp(0.5))]
    np.testing.assert_allclose(gradient[0], by_hand, rtol=1e-4)


def test_the_log_variance_is_bounded_and_comes_back_from_its_bounds():
    low, high = LOG_VARIANCE
    raw = torch.linspace(low - 40, high + 40, 500, requires_grad=True)
    inside = bounded(raw)
    assert (inside >= low - 1e-3).all() and (inside <= high + 1e-3).all()
    (slope,) = torch.autograd.grad(inside.sum(), raw)
    assert (slope > 0).all()
    well_inside = (raw > low + 3) & (raw < high - 3)
    assert (slope[well_inside] > 0.9).all()
    torch.testing.assert_close(inside[well_inside], raw[well_inside], atol=0.06, rtol=0)
    # far below the lower bound a record that is missed by one standard deviation still pulls the spread up
    sure = torch.tensor([low - 10.0], requires_grad=True)
    head, _ = made(NUMBERS[2])
    loss = head.loss(torch.stack([torch.zeros(1), bounded(sure)], dim=1), torch.ones(1))
    (pull,) = torch.autograd.grad(loss.sum(), sure)
    assert float(pull) < -0.1


def test_during_the_burn_in_only_the_mean_learns():
    spec = HeadSpec(name="gaussian", kind="gaussian", burn_in=0.25)
    head, scale = made(spec)
    truth = truth_of(scale, 16)
    outputs = disturbed(head)(features(16)).detach().requires_grad_()
    (early,) = torch.autograd.grad(head.loss(outputs, truth, step_fraction=0.2).sum(), outputs)
    assert (early[:, 1] == 0).all()
    torch.testing.assert_close(early[:, 0], outputs[:, 0] - truth)
    (late,) = torch.autograd.grad(head.loss(outputs, truth, step_fraction=0.25).sum(), outputs)
    assert (late[:, 1] != 0).all()


# --- classes ---------------------------------------------------------------------------------------------------------


@named([head for head in CLASSIFIERS if head.kind != "cumulative"])
def test_the_loss_of_a_class_is_its_negative_log_probability(spec):
    if spec.kind == "coral":
        spec = spec.model_copy(update={"classes": 2})  # with more edges it is a sum over edges, no likelihood
    head, scale = made(spec)
    outputs, truth = disturbed(head)(features(100)).detach(), truth_of(scale, 100)
    p = class_probabilities(outputs.double().numpy(), spec)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    chosen = np.take_along_axis(p, truth.numpy().astype(int)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(head.loss(outputs, truth), -np.log(chosen), rtol=1e-4, atol=1e-6)
    assert head.unit == "nats"


@named(CLASSIFIERS)
def test_a_fresh_classifier_takes_every_class_for_equally_likely(spec):
    head, _ = made(spec)
    np.testing.assert_allclose(class_probabilities(head(features(3)).detach().numpy(), spec), 0.2, rtol=1e-5)


@pytest.mark.parametrize("kind", ["cumulative", "coral", "corn"])
def test_an_ordinal_head_with_two_classes_is_the_binary_one(kind):
    """Outputs, loss and what is said; of CORAL and CORN too."""
    binary, scale = made(BINARY)
    spec = HeadSpec(name=kind, kind=kind, buckets=(4.0,))
    ordinal, _ = made(spec)
    with torch.no_grad():
        disturbed(binary)
        ordinal.linear.weight.copy_(binary.linear.weight)
        (ordinal.first if kind == "coral" else ordinal.linear.bias).copy_(binary.linear.bias)
    x, truth = features(50), truth_of(scale, 50)
    outputs, expected = ordinal(x), binary(x)
    assert outputs.shape == (50, 1)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(ordinal.loss(outputs, truth), binary.loss(expected, truth))
    by_hand = nn.functional.binary_cross_entropy_with_logits(expected[:, 0], truth, reduction="none")
    torch.testing.assert_close(binary.loss(expected, truth), by_hand)
    said = predictive(outputs.detach().numpy(), spec, scale)
    np.testing.assert_allclose(1 - said.cdf(4.0), torch.sigmoid(expected[:, 0]).detach(), rtol=1e-5)


def test_softmax_over_two_classes_is_binary_in_the_difference_of_its_logits():
    binary, scale = made(BINARY)
    softmax, _ = made(HeadSpec(name="softmax", kind="softmax", buckets=(4.0,)))
    outputs, truth = disturbed(softmax)(features(50)), truth_of(scale, 50)
    torch.testing.assert_close(softmax.loss(outputs, truth), binary.loss(outputs.diff(dim=1), truth))


@pytest.mark.parametrize("kind", ["cumulative", "coral", "corn"])
def test_one_edge_makes_one_output(kind):
    """Paper's `--task ordinal` with one edge builds a head with none."""
    head, _ = made(HeadSpec(name=kind, kind=kind, buckets=(4.0,)))
    assert head.n_outputs == 1
    assert head(features(3)).shape == (3, 1)


def test_coral_and_corn_losses_are_the_published_ones():
    """CORN's is published as the mean over all questions of a batch; ours is per record, their sum is the same."""
    (coral, scale), (corn, _) = made(CLASSIFIERS[2]), made(CLASSIFIERS[3])
    truth = truth_of(scale, 200)
    outputs = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(3))
    levels = levels_from_labelbatch(truth.int(), num_classes=5)
    torch.testing.assert_close(coral.loss(outputs, truth), coral_loss(outputs, levels, reduction=None))
    n_questions = torch.clamp(truth + 1, max=4).sum()
    torch.testing.assert_close(corn.loss(outputs, truth).sum(), corn_loss(outputs, truth, 5) * n_questions)


def test_coral_shares_one_weight_vector():
    """Paper's "CORAL" has one per edge."""
    assert made(CLASSIFIERS[2])[0].linear.weight.shape == (1, WIDTH)
    assert made(CLASSIFIERS[1])[0].linear.weight.shape == (4, WIDTH)


def test_class_weights_reach_the_training_of_a_classifier():
    """Paper's trainer needs weights that its script never sets. Weighted, rare classes are predicted as often."""
    spec = HeadSpec(name="h", kind="softmax", buckets="cuts", weights="inverse_frequency", max_weight=100)
    head, scale = made(spec)
    weight = torch.from_numpy(training_weights(VALUES, spec, scale))
    outputs = torch.zeros(1, 3, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(
            head.loss(outputs.expand(len(VALUES), 3), truth_of(scale, len(VALUES)), weight).mean(), outputs
        )
        outputs = (outputs - 2 * gradient).detach().requires_grad_()
    np.testing.assert_allclose(class_probabilities(outputs.detach().numpy(), spec), 1 / 3, atol=0.01)


# --- quantiles and robust losses -------------------------------------------------------------------------------------


def test_quantile_heads_find_the_quantiles_of_skewed_noise():
    spec = NUMBERS[3]
    values = 3 + np.random.default_rng(5).exponential(0.5, 4000)
    torch.manual_seed(0)
    scale = TargetScale.fit(values, TARGET, spec)
    head = build_head(1, spec, scale.n_classes)
    train(nn.Identity(), head, torch.zeros(4000, 1), torch.from_numpy(scale.trained_on(values)), n_steps=800)
    said = predictive(head(torch.zeros(1, 1)).detach().numpy(), spec, scale)
    for level in LEVELS:
        assert said.quantile(level)[0] == pytest.approx(np.quantile(values, level), abs=0.05)


def test_the_quantile_loss_tends_to_the_crps():
    many = tuple(np.arange(0.005, 1, 0.01).round(4).tolist())
    spec = HeadSpec(name="quantile", kind="quantile", levels=many)
    head, scale = made(spec)
    loss = head.loss(head(features(30)), truth_of(scale, 30)).detach()
    z = scale.to_model(VALUES[:30])
    crps = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(loss, crps, atol=5e-3)
    assert head.unit == "sd"


def test_huber_hears_an_outlier_less_than_the_squared_error():
    (huber, _), (squared, _) = made(NUMBERS[1]), made(NUMBERS[0])
    outputs = torch.zeros(3, 1, requires_grad=True)
    truth = torch.tensor([0.5, 2.0, 100.0])
    assert huber.loss(outputs, truth).tolist() == pytest.approx([0.125, 1.5, 99.5])
    assert squared.loss(outputs, truth).tolist() == [0.25, 4.0, 10_000.0]


# --- age and sex -----------------------------------------------------------------------------------------------------


@named([NUMBERS[0], NUMBERS[2], CLASSIFIERS[2]])
def test_age_and_sex_reach_the_outputs_of_a_head_that_sees_them(spec):
    head, _ = made(spec.model_copy(update={"age_and_sex": True}))
    disturbed(head, 0.1)
    x, who = features(4), torch.randn(4, 2, generator=torch.Generator().manual_seed(3))
    who.requires_grad_()
    (gradient,) = torch.autograd.grad(head(x, who).square().sum(), who)
    assert (gradient != 0).all()
    with pytest.raises(ValueError, match="`age_and_sex` is True"):
        head(x)
    with pytest.raises(ValueError, match="`age_and_sex` is False"):
        made(spec)[0](x, who)
