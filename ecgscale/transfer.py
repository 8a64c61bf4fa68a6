"""A frozen encoder on another population or another task: linear read-outs fitted to convergence, and their losses.

One read-out serves SL and SSL encoders and has no learning rate to confound them: L2-regularised logistic, multinomial
or ridge regression on standardised pooled features, the penalty chosen on validation patients, everything reported on
test patients. That the scaling paper read its encoders out like this is our assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, roc_auc_score

from ecgscale.data.splits import PARTS, TEST, TRAIN, VALIDATION
from ecgscale.data.tasks import task_target
from ecgscale.results import TaskScore
from ecgscale.specs import ProbeSpec, TaskSpec

Floats = npt.NDArray[np.float64]
Examples = tuple[Floats, Floats]
"""Features `(record, width)` and targets `(record,)` of the records that have a value."""
Predict = Callable[[Floats], Floats]

MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Part:
    """Features `(record, width)` of some records beside their exams."""

    features: Floats
    exams: pd.DataFrame


@dataclass(frozen=True)
class ReadOut:
    """How one kind of target is fitted and scored. A prediction is `(record,)`, or `(record, class)` for multiclass."""

    fit: Callable[[Examples, float], Predict]
    """Training examples and penalty → predictor."""
    loss: Callable[[Floats, Floats], float]
    """Target and prediction → test loss."""
    constant: Floats
    """What predicts best without looking."""
    auroc: Callable[[Floats, Floats], float | None]


def score_tasks(
    population: str, parts: Mapping[str, Part], probe: ProbeSpec, *, seen_labels: tuple[str, ...]
) -> tuple[TaskScore, ...]:
    """Fits and scores every task; one that can't be fitted here has no loss and the reason in its place.

    A multilabel task is one score per column, called `task:column`.

    Args:
        parts: train, validation and test records.
        seen_labels: the pre-training labels; a task on one of them is `seen`.
    """
    scaled = _standardised(parts)
    return tuple(score for task in probe.tasks for score in _scores(population, task, scaled, probe.l2, seen_labels))


def _scores(
    population: str,
    task: TaskSpec,
    parts: Mapping[str, Part],
    penalties: tuple[float, ...],
    seen_labels: tuple[str, ...],
) -> Iterator[TaskScore]:
    targets = {name: task_target(part.exams, task, population) for name, part in parts.items()}
    if task.kind != "multilabel":
        data = {name: _with_value(parts[name].features, targets[name]) for name in parts}
        yield _score(population, task, task.name, data, penalties, seen=task.column in seen_labels)
        return
    for k, column in enumerate(task.columns):
        data = {name: _with_value(parts[name].features, targets[name][:, k]) for name in parts}
        yield _score(population, task, f"{task.name}:{column}", data, penalties, seen=column in seen_labels)


def _standardised(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Features with the mean and deviation of the training records taken out; constant features become 0."""
    mean, std = parts[TRAIN].features.mean(axis=0), parts[TRAIN].features.std(axis=0)
    std = np.where(std < 1e-12, np.inf, std)
    return {name: Part((part.features - mean) / std, part.exams) for name, part in parts.items()}


def _with_value(features: Floats, target: Floats) -> Examples:
    there = ~np.isnan(target)
    return features[there], target[there]


def _score(
    population: str,
    task: TaskSpec,
    name: str,
    data: Mapping[str, Examples],
    penalties: tuple[float, ...],
    *,
    seen: bool,
) -> TaskScore:
    """One score of one column: fitted on train, penalty by validation, reported on test."""
    kind = "binary" if task.kind == "multilabel" else task.kind
    x_test, y_test = data[TEST]
    score = TaskScore(
        population=population,
        task=name,
        kind=kind,
        seen=seen,
        loss=None,
        constant_loss=None,
        auroc=None,
        mae=None,
        unit=task.unit,
        l2=None,
        n_train=len(data[TRAIN][1]),
        n_test=len(y_test),
        n_test_positive=int(y_test.sum()) if kind == "binary" else None,
        reason=_why_not(data),
    )
    if score.reason is not None:
        return score
    read_out = _read_out(kind, data[TRAIN][1], len(task.classes))
    candidates = [(l2, read_out.fit(data[TRAIN], l2)) for l2 in penalties]
    x_validation, y_validation = data[VALIDATION]
    l2, model = min(candidates, key=lambda c: read_out.loss(y_validation, c[1](x_validation)))
    predicted = model(x_test)
    found = {
        "loss": read_out.loss(y_test, predicted),
        "constant_loss": read_out.loss(y_test, np.repeat(read_out.constant[None], len(y_test), axis=0)),
        "auroc": read_out.auroc(y_test, predicted),
        "mae": float(np.abs(y_test - predicted).mean()) if kind == "regression" else None,
        "l2": l2,
    }
    return TaskScore(**score.model_dump() | found)


def _why_not(data: Mapping[str, Examples]) -> str | None:
    """Why nothing can be fitted or scored here, if so."""
    for name in PARTS:
        if not len(data[name][1]):
            return f"no {name} record has a value"
    return "every training record has the same value" if len(np.unique(data[TRAIN][1])) < 2 else None


def _read_out(kind: str, y_train: Floats, n_classes: int) -> ReadOut:
    if kind == "regression":
        return ReadOut(_ridge, _squared_loss(float(np.var(y_train))), np.asarray(y_train.mean()), lambda y, p: None)
    if kind == "multiclass":
        classes = np.arange(n_classes)
        share = (np.bincount(y_train.astype(int), minlength=n_classes) + 1) / (len(y_train) + n_classes)
        return ReadOut(
            lambda train, l2: _multinomial(train, l2, n_classes),
            lambda y, p: float(log_loss(y, p, labels=classes)),
            share,
            _mean_auroc,
        )
    # the prevalence with one imagined record of each kind added
    share = np.asarray((y_train.sum() + 1) / (len(y_train) + 2))
    return ReadOut(_logistic, lambda y, p: float(log_loss(y, p, labels=[0.0, 1.0])), share, _auroc)


def _auroc(target: Floats, probability: Floats) -> float | None:
    """None when the test records are of one class."""
    return float(roc_auc_score(target, probability)) if len(np.unique(target)) == 2 else None


def _mean_auroc(target: Floats, probability: Floats) -> float | None:
    """Mean over the classes of one against the rest, of the classes that are there and are not everything."""
    one_by_one = [_auroc((target == k).astype(np.float64), p) for k, p in enumerate(probability.T)]
    found = [auroc for auroc in one_by_one if auroc is not None]
    return float(np.mean(found)) if found else None


def _squared_loss(variance: float) -> Callable[[Floats, Floats], float]:
    """Mean squared error in units of the training target's variance: the constant predictor scores about 1."""

    def loss(target: Floats, predicted: Floats) -> float:
        return float(np.mean((target - predicted) ** 2) / max(variance, 1e-300))

    return loss


def _logistic(train: Examples, l2: float) -> Predict:
    """Minimises mean cross-entropy + l2/2 · |w|²."""
    features, target = train
    model = LogisticRegression(C=1.0 / (l2 * len(target)), max_iter=MAX_ITERATIONS, tol=1e-6).fit(features, target)
    return lambda x: np.asarray(model.predict_proba(x)[:, 1], dtype=np.float64)


def _multinomial(train: Examples, l2: float, n_classes: int) -> Predict:
    """Minimises mean cross-entropy + l2/2 · |W|²; a class that training lacks counts as one imagined record of it."""
    features, target = train
    model = LogisticRegression(C=1.0 / (l2 * len(target)), max_iter=MAX_ITERATIONS, tol=1e-6).fit(features, target)
    known = model.classes_.astype(int)
    imagined = 1.0 / (len(target) + n_classes)

    def predict(x: Floats) -> Floats:
        probability = np.full((len(x), n_classes), imagined)
        found = model.predict_proba(x)
        probability[:, known] = found * (1.0 - imagined * (n_classes - len(known)))
        return probability

    return predict


def _ridge(train: Examples, l2: float) -> Predict:
    """Minimises mean squared error + l2 · |w|²."""
    features, target = train
    model = Ridge(alpha=l2 * len(target)).fit(features, target)
    return lambda x: np.asarray(model.predict(x), dtype=np.float64)
