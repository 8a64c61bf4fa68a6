"""From predictions to rows: one `TaskScore` per target, by the same formulas for every read-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.data.splits import TEST
from ecgscale.resampling import N_RESAMPLES, Score
from ecgscale.results import TaskScore
from ecgscale.transfer.scores import Measured, Predicted, measure
from ecgscale.transfer.targets import Target, patients

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What a read-out says of a target's test records.

    Attributes:
        values: `(record,)` probabilities or values, `(record, class)` probabilities; of the records with a value.
        l2: the penalty that was chosen, if there was a choice.
        converged: whether a linear read-out has reached its optimum.
    """

    values: Floats
    l2: float | None = None
    converged: bool | None = None


def scored(
    targets: Sequence[Target],
    predictions: Sequence[Prediction | None],
    test_exams: pd.DataFrame,
    *,
    read_out: str,
    n_resamples: int = N_RESAMPLES,
) -> tuple[TaskScore, ...]:
    """Scores in the order of the targets; one without a prediction has no loss and the reason in its place.

    Args:
        read_out: linear, attentive, fine_tuned or zero_shot.
        n_resamples: of the test patients, for intervals; 0 for none.
    """
    given = {k: _predicted(targets[k], p.values) for k, p in enumerate(predictions) if p is not None}
    seed = targets[0].population if targets else ""
    found = measure(list(given.values()), patients(test_exams), seed, n_resamples)
    measured = dict(zip(given, found, strict=True))
    return tuple(
        _score(target, read_out, prediction, measured.get(k))
        for k, (target, prediction) in enumerate(zip(targets, predictions, strict=True))
    )


def beside(
    scores: Sequence[TaskScore], *, random: Sequence[TaskScore] = (), handmade: Sequence[TaskScore] = ()
) -> tuple[TaskScore, ...]:
    """The same scores with what knows nothing of the pre-training beside them, where it was scored.

    Args:
        random: of the same read-outs of the untrained encoder.
        handmade: of the linear read-out of hand-made features; stands beside every kind of read-out.
    """
    untrained = {(s.population, s.task, s.read_out, s.label_fraction): s for s in random}
    features = {(s.population, s.task, s.label_fraction): s for s in handmade}
    found = []
    for score in scores:
        other = untrained.get((score.population, score.task, score.read_out, score.label_fraction))
        by_hand = features.get((score.population, score.task, score.label_fraction))
        update = {"random_loss": other.loss, "random_auroc": other.auroc} if other is not None else {}
        if by_hand is not None:
            update |= {"handmade_loss": by_hand.loss, "handmade_auroc": by_hand.auroc}
        found.append(score.model_copy(update=update))
    return tuple(found)


def _predicted(target: Target, values: Floats) -> Predicted:
    return Predicted(target.kind, target.known(TEST), values, target.variance, target.rows(TEST))


def _score(target: Target, read_out: str, prediction: Prediction | None, measured: Measured | None) -> TaskScore:
    y = target.known(TEST)
    found: dict[str, float | None] = {"loss": None, "constant_loss": None, "auroc": None, "l2": None}
    if prediction is not None and measured is not None:
        constant = np.repeat(target.constant[None], len(y), axis=0)
        found = {
            **_with_bounds("loss", measured.loss),
            **_with_bounds("auroc", measured.auroc),
            **_with_bounds("auprc", measured.auprc),
            "constant_loss": float(_predicted(target, constant).losses.mean()),
            "mae": float(np.abs(y - prediction.values).mean()) if target.kind == "regression" else None,
            "l2": prediction.l2,
            "converged": prediction.converged,
        }
    zero_shot = read_out == "zero_shot"
    return TaskScore(
        population=target.population,
        task=target.name,
        kind=target.kind,
        read_out=read_out,
        label_fraction=0.0 if zero_shot else target.label_fraction,
        seen=target.seen,
        trained_on=target.trained_on,
        unit=target.task.unit,
        n_train=0 if zero_shot else len(target.train),
        n_test=len(y),
        n_test_positive=int(y.sum()) if target.kind == "binary" else None,
        reason=(target.why_not() or "its training diverged") if prediction is None else None,
        **found,
    )


def _with_bounds(name: str, score: Score) -> dict[str, float | None]:
    bounds = {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    return {key: value if np.isfinite(value) else None for key, value in bounds.items()}
