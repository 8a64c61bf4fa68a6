"""Read-outs that are trained step by step: an attentive probe of the frozen encoder, and fine-tuning all of it.

One loop for both, short and the same for every encoder. What is drawn and when it is validated is a pure function of
the seed and the recipe; each target keeps the step of its lowest validation loss, and only that step's predictions.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgscale.data.splits import TEST, TRAIN, VALIDATION
from ecgscale.hangs import progressed
from ecgscale.models.encoder import Encoder
from ecgscale.resampling import N_RESAMPLES
from ecgscale.results import TaskScore
from ecgscale.specs import ProbeSpec, ReadOutRecipe
from ecgscale.transfer.scored import Prediction, scored
from ecgscale.transfer.scores import record_losses
from ecgscale.transfer.targets import Target, targets

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class SignalPart:
    """Records of one part beside their exams.

    Attributes:
        signals: places in the part → normalised signals `(batch, lead, time)` on the encoder's device.
    """

    signals: Callable[[Rows], Tensor]
    exams: pd.DataFrame


def score_attentive(
    population: str,
    encoder: Encoder,
    parts: Mapping[str, SignalPart],
    probe: ProbeSpec,
    *,
    seed: int,
    seen_labels: tuple[str, ...],
    trained_on: tuple[str, ...] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> tuple[TaskScore, ...]:
    """Reads every task off the frozen encoder's tokens through one learned query each; nothing if not asked for.

    The targets share batches and nothing else, so they are trained together, at each label fraction.
    """
    recipe = probe.attentive
    if recipe is None:
        return ()
    frozen = copy.deepcopy(encoder).eval().requires_grad_(False)

    def fit(group: Sequence[Target]) -> list[Floats | None]:
        return _trained(AttentiveReadOut(frozen, group), group, parts, recipe, seed)

    wanted = _targets(population, parts, probe, seen_labels, trained_on)
    groups = _grouped(wanted, lambda target: target.label_fraction)
    return _scored(wanted, groups, fit, parts, "attentive", n_resamples)


def score_fine_tuned(
    population: str,
    encoder: Encoder,
    parts: Mapping[str, SignalPart],
    probe: ProbeSpec,
    *,
    seed: int,
    seen_labels: tuple[str, ...],
    trained_on: tuple[str, ...] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> tuple[TaskScore, ...]:
    """Trains a copy of the encoder and a linear head on each task and label fraction; nothing if not asked for.

    The columns of a multilabel task share one copy, as is usual.
    """
    recipe = probe.fine_tuning
    if recipe is None:
        return ()

    def fit(group: Sequence[Target]) -> list[Floats | None]:
        return _trained(FineTuned(copy.deepcopy(encoder), group), group, parts, recipe, seed)

    wanted = _targets(population, parts, probe, seen_labels, trained_on)
    groups = _grouped(wanted, lambda target: (target.task.name, target.label_fraction))
    return _scored(wanted, groups, fit, parts, "fine_tuned", n_resamples)


# --- networks ------------------------------------------------------------------------------------------------------


class AttentiveReadOut(nn.Module):
    """One query per target over the encoder's last stage, then a linear map of what it attends to.

    It starts as the constant predictor, and queries at zero: at first the mean over time, which is what the encoder
    itself pools. Tokens are normalised (a layer norm without parameters), because a ResNet's have any scale.
    """

    def __init__(self, encoder: Encoder, group: Sequence[Target]) -> None:
        super().__init__()
        self.encoder = encoder
        sizes = [_n_outputs(target) for target in group]
        device = next(encoder.parameters()).device
        self.target_of = [k for k, size in enumerate(sizes) for _ in range(size)]
        self.query = nn.Parameter(torch.zeros(len(sizes), encoder.width, device=device))
        self.weight = nn.Parameter(torch.zeros(sum(sizes), encoder.width, device=device))
        self.bias = nn.Parameter(_outputs_of_constants(group).to(device))

    def forward(self, signal: Tensor) -> Tensor:  # (B, output)
        with torch.no_grad():
            tokens = self.encoder(signal).stages[-1].transpose(1, 2).float()  # (B, T, D)
            tokens = functional.layer_norm(tokens, tokens.shape[-1:])
        attention = (tokens @ self.query.T / math.sqrt(tokens.shape[-1])).softmax(dim=1)  # (B, T, target)
        pooled = attention.transpose(1, 2) @ tokens  # (B, target, D)
        outputs: Tensor = (pooled[:, self.target_of] * self.weight).sum(dim=-1) + self.bias
        return outputs

    def train(self, mode: bool = True) -> AttentiveReadOut:
        super().train(mode)
        self.encoder.eval()
        return self


class FineTuned(nn.Module):
    """The encoder with a linear head on its pooled vector, which starts as the constant predictor."""

    def __init__(self, encoder: Encoder, group: Sequence[Target]) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        start = _outputs_of_constants(group).to(next(encoder.parameters()).device)
        self.head = nn.Linear(encoder.width, len(start), device=start.device)
        nn.init.zeros_(self.head.weight)
        self.head.bias.data.copy_(start)

    def forward(self, signal: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.encoder(signal).pooled).float()
        return outputs


# --- training ------------------------------------------------------------------------------------------------------


def _trained(
    network: nn.Module, group: Sequence[Target], parts: Mapping[str, SignalPart], recipe: ReadOutRecipe, seed: int
) -> list[Floats | None]:
    """Each target's predictions for its test records, of the step that was best on its validation records; None if
    its loss was never finite."""
    rows = np.unique(np.concatenate([target.train for target in group]))
    wanted = _training_values(group)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.n_steps)
    evaluated = {math.ceil(recipe.n_steps * k / recipe.n_evaluations) for k in range(1, recipe.n_evaluations + 1)}
    lowest = np.full(len(group), np.inf)
    best: list[Floats | None] = [None] * len(group)
    network.train()
    for step, places in enumerate(_batches(len(rows), recipe, seed), start=1):
        progressed()
        outputs = network(parts[TRAIN].signals(rows[places]))
        loss = _loss(group, outputs, torch.from_numpy(wanted[rows[places]]).to(outputs))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progressed()
        if step not in evaluated:
            continue
        network.eval()
        validation, test = (_predictions(network, group, parts[part]) for part in (VALIDATION, TEST))
        for k, target in enumerate(group):
            found = validation[k][target.rows(VALIDATION)]
            value = record_losses(target.kind, target.known(VALIDATION), found, target.variance).mean()
            if value < lowest[k]:
                lowest[k], best[k] = value, test[k][target.rows(TEST)]
        network.train()
    return best


def _batches(n_records: int, recipe: ReadOutRecipe, seed: int) -> Iterator[Rows]:
    """Places of the records of each step: one shuffled pass after the other, without a seam."""
    generator = np.random.default_rng([seed, n_records])
    size = min(recipe.batch_size, n_records)
    waiting = np.empty(0, dtype=np.intp)
    for _ in range(recipe.n_steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(n_records)])
        yield waiting[:size]
        waiting = waiting[size:]


def _training_values(group: Sequence[Target]) -> Floats:
    """`(record, target)` as the loss wants it, NaN where a read-out may not know the value."""
    values = np.full((len(group[0].values[TRAIN]), len(group)), np.nan)
    for k, target in enumerate(group):
        known = target.known(TRAIN)
        values[target.train, k] = (known - known.mean()) / known.std() if target.kind == "regression" else known
    return values


def _loss(group: Sequence[Target], outputs: Tensor, wanted: Tensor) -> Tensor:
    """Sum over the targets of each one's mean over the records that have a value."""
    losses = []
    for column, output, target in zip(wanted.T, _by_target(outputs, group), group, strict=True):
        there = ~column.isnan()
        if not there.any():
            continue
        value, predicted = column[there], output[there]
        if target.kind == "regression":
            losses.append(functional.mse_loss(predicted[:, 0], value))
        elif target.kind == "multiclass":
            losses.append(functional.cross_entropy(predicted, value.long()))
        else:
            losses.append(functional.binary_cross_entropy_with_logits(predicted[:, 0], value))
    return torch.stack(losses).sum()


@torch.no_grad()
def _predictions(network: nn.Module, group: Sequence[Target], part: SignalPart) -> list[Floats]:
    """Per target the probabilities or values of every record of a part."""
    n = len(part.exams)
    batches = []
    for start in range(0, n, EVALUATION_BATCH):
        progressed()
        batches.append(network(part.signals(np.arange(start, min(start + EVALUATION_BATCH, n)))))
    outputs = torch.cat(batches).double().cpu()
    found = []
    for output, target in zip(_by_target(outputs, group), group, strict=True):
        if target.kind == "regression":
            known = target.known(TRAIN)
            found.append(output[:, 0].numpy() * known.std() + known.mean())
        elif target.kind == "multiclass":
            found.append(output.softmax(dim=1).numpy())
        else:
            found.append(output[:, 0].sigmoid().numpy())
    return found


def _n_outputs(target: Target) -> int:
    return max(1, target.n_classes)


def _outputs_of_constants(group: Sequence[Target]) -> Tensor:
    """`(output,)`: what a network says that predicts best without looking."""
    starts = []
    for target in group:
        constant = np.atleast_1d(target.constant)
        if target.kind == "regression":
            starts.append(np.zeros(1))  # of values with their mean taken out
        else:
            starts.append(np.log(constant) if target.kind == "multiclass" else np.log(constant / (1 - constant)))
    return torch.from_numpy(np.concatenate(starts)).float()


def _by_target(outputs: Tensor, group: Sequence[Target]) -> Sequence[Tensor]:
    return torch.split(outputs, [_n_outputs(target) for target in group], dim=1)


# --- from targets to scores ----------------------------------------------------------------------------------------


def _targets(
    population: str,
    parts: Mapping[str, SignalPart],
    probe: ProbeSpec,
    seen_labels: tuple[str, ...],
    trained_on: tuple[str, ...] | None,
) -> list[Target]:
    return targets(
        population,
        probe.tasks,
        {name: part.exams for name, part in parts.items()},
        seen_labels=seen_labels,
        trained_on=trained_on,
        label_fractions=probe.label_fractions,
    )


def _grouped(wanted: Sequence[Target], key: Callable[[Target], object]) -> list[list[int]]:
    """Places of the targets that can be fitted, those with the same key together."""
    groups: dict[object, list[int]] = defaultdict(list)
    for k, target in enumerate(wanted):
        if target.why_not() is None:
            groups[key(target)].append(k)
    return list(groups.values())


def _scored(
    wanted: Sequence[Target],
    groups: Sequence[Sequence[int]],
    fit: Callable[[Sequence[Target]], list[Floats | None]],
    parts: Mapping[str, SignalPart],
    read_out: str,
    n_resamples: int,
) -> tuple[TaskScore, ...]:
    predictions: list[Prediction | None] = [None] * len(wanted)
    for group in groups:
        for k, values in zip(group, fit([wanted[k] for k in group]), strict=True):
            predictions[k] = Prediction(values) if values is not None else None
    return scored(wanted, predictions, parts[TEST].exams, read_out=read_out, n_resamples=n_resamples)
