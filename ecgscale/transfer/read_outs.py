"""A frozen encoder on another population or another task: linear read-outs fitted to convergence, and their losses.

One read-out serves SL and SSL encoders and has no learning rate to confound them: L2-regularised logistic, multinomial
or ridge regression on standardised pooled features, the penalty chosen on validation patients, everything reported on
test patients. That the scaling paper read its encoders out like this is our assumption. Features may as well be those
of an untrained encoder, or made by hand (`ecgscale.data.handmade`): `beside` puts their scores next to each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.data.splits import TEST, TRAIN, VALIDATION
from ecgscale.hangs import progressed
from ecgscale.resampling import N_RESAMPLES
from ecgscale.results import TaskScore
from ecgscale.specs import ProbeSpec
from ecgscale.transfer.linear import Whitened, logistic, multinomial, ridge
from ecgscale.transfer.scored import Prediction, scored
from ecgscale.transfer.scores import record_losses
from ecgscale.transfer.targets import Target, targets

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Features `(record, width)` of some records beside their exams; a feature that is NaN counts as its mean."""

    features: Floats
    exams: pd.DataFrame


def score_tasks(
    population: str,
    parts: Mapping[str, Part],
    probe: ProbeSpec,
    *,
    seen_labels: tuple[str, ...],
    trained_on: tuple[str, ...] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> tuple[TaskScore, ...]:
    """Fits and scores every task at every label fraction; what can't be fitted here has the reason in its place.

    A multilabel task is one score per column, called `task:column`. With fewer labels the penalty is still chosen on
    all validation patients.

    Args:
        parts: train, validation and test records.
        seen_labels: the labels of the grid's supervised arms; a task on one of them is `seen`, for every encoder.
        trained_on: the labels that this encoder was trained on.
        n_resamples: of the test patients, for intervals; 0 for none.

    Raises:
        DataError: a task's column is missing or can't be understood.
    """
    wanted = targets(
        population,
        probe.tasks,
        {name: part.exams for name, part in parts.items()},
        seen_labels=seen_labels,
        trained_on=trained_on,
        label_fractions=probe.label_fractions,
    )
    features = _standardised(parts)
    predictions: list[Prediction | None] = [None] * len(wanted)
    for together in _same_records(wanted):
        whitened = Whitened(features[TRAIN][wanted[together[0]].train])
        for group in _same_model(wanted, together):
            progressed()
            found = _read_out([wanted[k] for k in group], features, whitened, probe.l2)
            for k, prediction in zip(group, found, strict=True):
                predictions[k] = prediction
    return scored(wanted, predictions, parts[TEST].exams, read_out="linear", n_resamples=n_resamples)


def score_zero_shot(
    population: str,
    exams: Mapping[str, pd.DataFrame],
    logits: Floats,
    probe: ProbeSpec,
    *,
    seen_labels: tuple[str, ...],
    trained_on: tuple[str, ...],
    n_resamples: int = N_RESAMPLES,
) -> tuple[TaskScore, ...]:
    """Scores the supervised head as it is, on the binary tasks and columns that are labels it was trained on.

    Args:
        exams: part → its exams; those of train and validation only serve the constant predictor.
        logits: `(record, label)` of the test records, labels in the order of `trained_on`.
    """
    every = targets(
        population, probe.tasks, exams, seen_labels=seen_labels, trained_on=trained_on, label_fractions=(1.0,)
    )
    known = [t for t in every if t.kind == "binary" and t.trained_on and t.task.above is None]
    probabilities = 1.0 / (1.0 + np.exp(-np.clip(np.asarray(logits, dtype=np.float64), -700.0, 700.0)))
    predictions = [
        Prediction(probabilities[t.rows(TEST), trained_on.index(t.column)]) if t.why_not() is None else None
        for t in known
    ]
    return scored(known, predictions, exams[TEST], read_out="zero_shot", n_resamples=n_resamples)


def _same_records(wanted: Sequence[Target]) -> Iterable[list[int]]:
    """The targets that can be fitted, by their training records."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for k, target in enumerate(wanted):
        if target.why_not() is None:
            groups[target.train.tobytes()].append(k)
    return groups.values()


def _same_model(wanted: Sequence[Target], members: Sequence[int]) -> Iterable[list[int]]:
    """By their kind; a multinomial read-out shares its unknowns with no other."""
    groups: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for k in members:
        kind = wanted[k].kind
        groups[kind, k if kind == "multiclass" else None].append(k)
    return groups.values()


def _standardised(parts: Mapping[str, Part]) -> dict[str, Floats]:
    """Features with the mean and deviation of the training records taken out; constant features become 0."""
    train = parts[TRAIN].features
    there = np.isfinite(train)
    n = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, train, 0.0).sum(axis=0) / n
    std = np.sqrt((np.where(there, train - mean, 0.0) ** 2).sum(axis=0) / n)
    std = np.where(std < 1e-12, np.inf, std)
    standard = {name: (part.features - mean) / std for name, part in parts.items()}
    return {name: np.where(np.isfinite(values), values, 0.0) for name, values in standard.items()}


def _read_out(
    group: Sequence[Target], features: Mapping[str, Floats], whitened: Whitened, l2: tuple[float, ...]
) -> list[Prediction]:
    """Targets of one kind and the same training records, fitted together; each takes the penalty that suits it."""
    kind, penalties = group[0].kind, np.array(l2)
    if kind == "multiclass":
        (target,) = group
        return [_multiclass(target, features, whitened, penalties)]
    values = np.stack([target.known(TRAIN) for target in group], axis=1)
    model = (ridge if kind == "regression" else logistic)(whitened, values, penalties)
    validation, test = model(features[VALIDATION]), model(features[TEST])
    found = []
    for k, target in enumerate(group):
        seen, unseen = validation[target.rows(VALIDATION), :, k], test[target.rows(TEST), :, k]
        if kind == "binary":
            seen, unseen = _probability(seen), _probability(unseen)
        best = _best(target, [seen[:, p] for p in range(len(l2))])
        found.append(Prediction(unseen[:, best], l2[best], bool(model.converged[best, k])))
    return found


def _multiclass(target: Target, features: Mapping[str, Floats], whitened: Whitened, penalties: Floats) -> Prediction:
    """A class that training lacks counts as one imagined record of it."""
    classes, number = np.unique(target.known(TRAIN).astype(np.intp), return_inverse=True)
    model = multinomial(whitened, number, len(classes), penalties)
    imagined = 1.0 / (len(number) + target.n_classes)

    def probability(part: str) -> Floats:
        score = model(features[part][target.rows(part)])  # (record, penalty, known class)
        score = np.exp(score - score.max(axis=2, keepdims=True))
        whole = np.full((*score.shape[:2], target.n_classes), imagined)
        share = 1.0 - imagined * (target.n_classes - len(classes))
        whole[:, :, classes] = score / score.sum(axis=2, keepdims=True) * share
        return whole

    best = _best(target, list(probability(VALIDATION).swapaxes(0, 1)))
    return Prediction(probability(TEST)[:, best], float(penalties[best]), bool(model.converged[best].all()))


def _best(target: Target, candidates: Sequence[Floats]) -> int:
    """The candidate with the lowest validation loss, the first of equals."""
    y = target.known(VALIDATION)
    return int(np.argmin([record_losses(target.kind, y, p, target.variance).mean() for p in candidates]))


def _probability(log_odds: Floats) -> Floats:
    rest = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, rest) / (1.0 + rest)
