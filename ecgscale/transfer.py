"""A frozen encoder on another population or another task: linear read-outs fitted to convergence, and their losses.

One read-out serves SL and SSL encoders and has no learning rate to confound them: L2-regularised logistic or ridge
regression on standardised pooled features, the penalty chosen on validation patients, everything reported on test
patients. That the scaling paper read its encoders out like this is our assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, roc_auc_score

from ecgscale.data.splits import TEST, TRAIN, VALIDATION
from ecgscale.data.tasks import task_target
from ecgscale.results import TaskScore
from ecgscale.specs import ProbeSpec, TaskSpec

Floats = npt.NDArray[np.float64]
Predict = Callable[[Floats], Floats]
Loss = Callable[[Floats, Floats], float]

MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Part:
    """Features `(record, width)` of some records beside their exams."""

    features: Floats
    exams: pd.DataFrame


def score_tasks(
    population: str, parts: Mapping[str, Part], probe: ProbeSpec, *, seen_labels: tuple[str, ...]
) -> tuple[TaskScore, ...]:
    """Fits and scores every task; a task that can't be fitted here (one value, or none) is left out of the scores.

    Args:
        parts: train, validation and test records.
        seen_labels: the pre-training labels; a task on one of them is `seen`.
    """
    scaled = _standardised(parts)
    scores = []
    for task in probe.tasks:
        targets = {name: task_target(part.exams, task, population) for name, part in scaled.items()}
        data = {name: _with_value(scaled[name].features, targets[name]) for name in scaled}
        score = _score_task(population, task, data, probe.l2, seen=task.column in seen_labels)
        if score is not None:
            scores.append(score)
    return tuple(scores)


def _standardised(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Features with the mean and deviation of the training records taken out; constant features become 0."""
    mean, std = parts[TRAIN].features.mean(axis=0), parts[TRAIN].features.std(axis=0)
    std = np.where(std < 1e-12, np.inf, std)
    return {name: Part((part.features - mean) / std, part.exams) for name, part in parts.items()}


def _with_value(features: Floats, target: Floats) -> tuple[Floats, Floats]:
    there = ~np.isnan(target)
    return features[there], target[there]


def _score_task(
    population: str,
    task: TaskSpec,
    data: Mapping[str, tuple[Floats, Floats]],
    penalties: tuple[float, ...],
    *,
    seen: bool,
) -> TaskScore | None:
    y_train, y_test = data[TRAIN][1], data[TEST][1]
    binary = task.kind == "binary"
    if min(len(y) for _, y in data.values()) == 0 or len(np.unique(y_train)) < 2:
        return None
    predict = _logistic if binary else _ridge
    loss = _binary_loss if binary else _squared_loss(float(np.var(y_train)))
    candidates = [(l2, predict(data[TRAIN], l2)) for l2 in penalties]
    l2, model = min(candidates, key=lambda c: loss(data[VALIDATION][1], c[1](data[VALIDATION][0])))
    predicted = model(data[TEST][0])
    constant = np.full(len(y_test), _constant(y_train, binary))
    two_classes = binary and len(np.unique(y_test)) == 2
    return TaskScore(
        population=population,
        task=task.name,
        kind=task.kind,
        seen=seen,
        loss=loss(y_test, predicted),
        constant_loss=loss(y_test, constant),
        auroc=float(roc_auc_score(y_test, predicted)) if two_classes else None,
        l2=l2,
        n_train=len(y_train),
        n_test=len(y_test),
        n_test_positive=int(y_test.sum()) if binary else None,
    )


def _constant(target: Floats, binary: bool) -> float:
    """What predicts best without looking: the mean, for a class with one imagined record of each kind added."""
    return float((target.sum() + 1) / (len(target) + 2)) if binary else float(target.mean())


def _binary_loss(target: Floats, probability: Floats) -> float:
    """Mean cross-entropy in nats."""
    return float(log_loss(target, probability, labels=[0.0, 1.0]))


def _squared_loss(variance: float) -> Loss:
    """Mean squared error in units of the training target's variance: the constant predictor scores about 1."""

    def loss(target: Floats, predicted: Floats) -> float:
        return float(np.mean((target - predicted) ** 2) / max(variance, 1e-300))

    return loss


def _logistic(train: tuple[Floats, Floats], l2: float) -> Predict:
    """Minimises mean cross-entropy + l2/2 · |w|²."""
    features, target = train
    model = LogisticRegression(C=1.0 / (l2 * len(target)), max_iter=MAX_ITERATIONS, tol=1e-6).fit(features, target)
    return lambda x: np.asarray(model.predict_proba(x)[:, 1], dtype=np.float64)


def _ridge(train: tuple[Floats, Floats], l2: float) -> Predict:
    """Minimises mean squared error + l2 · |w|²."""
    features, target = train
    model = Ridge(alpha=l2 * len(target)).fit(features, target)
    return lambda x: np.asarray(model.predict(x), dtype=np.float64)
