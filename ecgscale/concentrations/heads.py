"""What is put on an encoder to predict a concentration, and the loss of one record.

Losses of gaussian, softmax, binary and corn heads are negative log-likelihoods in nats with all constants: of the
standardised value, or of the class. cumulative and coral sum the nats of every edge. mse and huber are squared
standardised errors, quantile is twice the mean pinball loss in standard deviations, which tends to the CRPS.
A fresh head says the same of every record: the training mean and spread, or every class alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgscale.concentrations.declared import HeadSpec, Kind
from ecgscale.concentrations.head_counts import AGE_AND_SEX_WIDTHS, n_outputs
from ecgscale.concentrations.predictive import LOG_2_PI

LOG_VARIANCE = (-9.0, 5.0)
"""Bounds of the standardised log-variance: spreads from 0.011 to 12 standard deviations of the target (our choice)."""


class Head(nn.Module, ABC):
    """Features of an encoder, perhaps with age and sex, to outputs; outputs and truth to losses.

    Attributes:
        unit: of the loss: `nats`, `sd²` or `sd` of the (logged) target.
        n_outputs: numbers per record; `decoding` says what they mean.
    """

    unit: ClassVar[str] = "nats"

    def __init__(self, width: int, spec: HeadSpec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.n_outputs = n_outputs(spec, classes)
        self.mixed = MixedIn(width) if spec.age_and_sex else None
        self.build(width if self.mixed is None else self.mixed.width)

    @abstractmethod
    def build(self, width: int) -> None:
        """Make the layers that `said` uses."""

    @abstractmethod
    def said(self, features: Tensor) -> Tensor:
        """`(batch, n_outputs)` of what `seen` gives."""

    @abstractmethod
    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor: ...

    def in_burn_in(self, step_fraction: float) -> bool:
        """The loss is another one at the beginning."""
        return step_fraction < self.spec.burn_in

    def mean_layer(self) -> nn.Linear | None:
        """The last layer of a mean in which the loss is quadratic, as last-layer Laplace needs it; None if it isn't."""
        return None

    def forward(self, features: Tensor, age_and_sex: Tensor | None = None) -> Tensor:
        """`(batch, n_outputs)`; see `seen`."""
        return self.said(self.seen(features, age_and_sex))

    def seen(self, features: Tensor, age_and_sex: Tensor | None = None) -> Tensor:
        """What the last layer sees of `(batch, width)` and, if the spec says so, `(batch, 2)` standardised.

        Raises:
            ValueError: age and sex are missing, or given to a head that doesn't see them.
        """
        if (age_and_sex is None) != (self.mixed is None):
            raise ValueError(f"head {self.spec.name}: `age_and_sex` is {self.spec.age_and_sex}")
        if self.mixed is None:
            return features
        together: Tensor = self.mixed(features, age_and_sex)
        return together

    def loss(self, outputs: Tensor, truth: Tensor, weight: Tensor | None = None, step_fraction: float = 1.0) -> Tensor:
        """`(batch,)`.

        Args:
            truth: what `TargetScale.trained_on` gives, `(batch,)`.
            weight: `(batch,)`; None in evaluation.
            step_fraction: how much of the training is done, for a burn-in; 1 in evaluation.
        """
        losses = self.record_losses(outputs.float(), truth, step_fraction)
        return losses if weight is None else losses * weight


class MixedIn(nn.Module):
    """Age and sex through a perceptron of their own, beside the features; a hidden layer lets them interact."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(AGE_AND_SEX_WIDTHS):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.perceptron = nn.Sequential(*layers[:-1])
        together = width + AGE_AND_SEX_WIDTHS[-1]
        self.width = together // 2
        self.hidden = nn.Sequential(nn.Linear(together, self.width), nn.ReLU())

    def forward(self, features: Tensor, age_and_sex: Tensor) -> Tensor:
        mixed: Tensor = self.hidden(torch.cat([features, self.perceptron(age_and_sex)], dim=1))
        return mixed


class LinearHead(Head):
    """One linear layer, which starts at constants."""

    def build(self, width: int) -> None:
        self.linear = constant_linear(width, self.start())

    def start(self) -> Tensor:
        """`(n_outputs,)`: what a fresh head says."""
        return torch.zeros(self.n_outputs)

    def said(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.linear(features)
        return outputs


def constant_linear(width: int, start: Tensor) -> nn.Linear:
    """A linear layer that says the same of every input until it has learned."""
    linear = nn.Linear(width, len(start))
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        linear.bias.copy_(start)
    return linear


class SquaredError(LinearHead):
    unit = "sd²"

    def mean_layer(self) -> nn.Linear:
        return self.linear

    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        return (outputs[:, 0] - truth).square()


class Huber(LinearHead):
    """Half the squared error up to `huber_delta`, linear beyond."""

    unit = "sd²"

    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        assert self.spec.huber_delta is not None
        return functional.huber_loss(outputs[:, 0], truth, reduction="none", delta=self.spec.huber_delta)


class Gaussian(Head):
    """Mean and log-variance; the log-variance has a hidden layer, as in von Bachmann et al. 2024.

    The log-variance is bounded from both sides by softplus (Chua et al. 2018, arXiv:1805.12114, A.1): nearly the
    identity between the bounds, and with a gradient beyond them, so that a spread that ran into a bound comes back.
    """

    def build(self, width: int) -> None:
        self.mean = constant_linear(width, torch.zeros(1))
        self.log_variance = nn.Sequential(nn.Linear(width, width), nn.ReLU(), constant_linear(width, torch.zeros(1)))

    def mean_layer(self) -> nn.Linear:
        return self.mean

    def said(self, features: Tensor) -> Tensor:
        return torch.cat([self.mean(features), bounded(self.log_variance(features))], dim=1)

    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        """-log density; during the burn-in with the variance of the target, 1."""
        mean, log_variance = outputs.unbind(dim=1)
        if self.in_burn_in(step_fraction):
            log_variance = torch.zeros_like(log_variance)
        return 0.5 * ((truth - mean).square() * torch.exp(-log_variance) + log_variance + LOG_2_PI)


def bounded(log_variance: Tensor) -> Tensor:
    """Smoothly between the bounds of `LOG_VARIANCE`."""
    low, high = LOG_VARIANCE
    below = high - functional.softplus(high - log_variance)
    return low + functional.softplus(below - low)


class QuantileValues(LinearHead):
    """A value per level, not kept from crossing in training: sorted values are never worse."""

    unit = "sd"

    def build(self, width: int) -> None:
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(self.spec.levels), persistent=False)
        super().build(width)

    def start(self) -> Tensor:
        """Those of a normal with the spread of the target."""
        values: Tensor = torch.special.ndtri(self.levels)
        return values

    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        """Pinball loss (Koenker & Bassett 1978); twice its mean over the levels is a sum for the CRPS."""
        above = truth[:, None] - outputs
        return 2 * torch.maximum(self.levels * above, (self.levels - 1) * above).mean(dim=1)


class Softmax(LinearHead):
    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        return functional.cross_entropy(outputs, truth.long(), reduction="none")


class Cumulative(LinearHead):
    """A binary question per inner edge, each with weights of its own; one edge makes a binary classifier."""

    def start(self) -> Tensor:
        """Every class alike: above edge k with odds of the classes above to those below."""
        k = torch.arange(1, self.n_outputs + 1)
        return torch.log((self.n_outputs + 1 - k) / k)

    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        return self.edge_losses(outputs, truth).sum(dim=1)

    def edge_losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Binary cross-entropies `(batch, edge)`; class c is above the edges 0 … c - 1."""
        above = truth[:, None] > torch.arange(self.n_outputs, device=truth.device)
        return functional.binary_cross_entropy_with_logits(outputs, above.float(), reduction="none")


class Coral(Cumulative):
    """One weight vector for all edges (Cao et al. 2020, Pattern Recognit Lett 140:325).

    The biases descend by construction, as positive steps down from the first: theirs do so only at the optimum.
    """

    def build(self, width: int) -> None:
        start = self.start()
        self.linear = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.first = nn.Parameter(start[:1].clone())
        self.steps = nn.Parameter(torch.log(torch.expm1(start[:-1] - start[1:])))  # softplus backwards

    def said(self, features: Tensor) -> Tensor:
        down = torch.cumsum(functional.softplus(self.steps), dim=0)
        biases = torch.cat([self.first, self.first - down])
        outputs: Tensor = self.linear(features) + biases
        return outputs


class Corn(Cumulative):
    """ "Above edge k, given above edge k - 1" (Shi et al. 2023, Pattern Anal Appl 26:941).

    A record counts for the edges up to its class, so that the sum is exactly -log p(class). Their loss averages over
    all questions of a batch instead, which weighs a record by its company.
    """

    def start(self) -> Tensor:
        k = torch.arange(1, self.n_outputs + 1)
        return torch.log((self.n_outputs + 1 - k).float())

    def record_losses(self, outputs: Tensor, truth: Tensor, step_fraction: float) -> Tensor:
        asked = truth[:, None] >= torch.arange(self.n_outputs, device=truth.device)
        return (self.edge_losses(outputs, truth) * asked).sum(dim=1)


HEADS: dict[Kind, type[Head]] = {
    "mse": SquaredError,
    "huber": Huber,
    "gaussian": Gaussian,
    "quantile": QuantileValues,
    "softmax": Softmax,
    "cumulative": Cumulative,
    "binary": Cumulative,
    "coral": Coral,
    "corn": Corn,
}


def build_head(width: int, spec: HeadSpec, classes: int) -> Head:
    """A fresh head on features of `width` (seed torch before).

    Args:
        classes: `head_counts.n_classes` of its target, 1 for a head that predicts the number.
    """
    return HEADS[spec.kind](width, spec, classes)
