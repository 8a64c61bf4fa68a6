"""Classical regression on ECG features, beside which a network has to stand: ridge, random forest, gradient boosting.

Every setting is chosen on validation patients and every draw has a seed, as for the networks. What comes out has the
form of a Gaussian head's outputs, with one variance for all records, so that the same code scores both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ecgscale.concentrations.predictive import Floats
from ecgscale.concentrations.target import TargetScale
from ecgscale.data.splits import TRAIN, VALIDATION
from ecgscale.errors import DataError
from ecgscale.hangs import progressed

Kind = Literal["ridge", "forest", "boosting"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 11))
FARTHEST_SD = 5.0
"""Ridge sees a feature no farther from its mean: one wrong delineation must not move a line (our choice)."""
N_TREES, SMALLEST_LEAVES, SHARE_OF_FEATURES = 200, (5, 20), 1 / 3
MOST_ROUNDS, LEARNING_RATE, LEAVES = 300, 0.05, (4, 16)


@dataclass(frozen=True)
class Baseline:
    """Attributes:
    settings: those that did best in validation.
    outputs: part → `(n, 2)`: standardised value and log-variance, that of the validation errors, which settings were
        chosen by and which is therefore a little small.
    """

    kind: Kind
    settings: dict[str, float]
    outputs: dict[str, Floats]


@dataclass(frozen=True)
class _Candidate:
    settings: dict[str, float]
    predict: Callable[[pd.DataFrame], Floats]


def fit_baseline(
    kind: Kind,
    features: Mapping[str, pd.DataFrame],
    values: Mapping[str, Floats],
    scale: TargetScale,
    *,
    seed: int,
    threads: int = 1,
) -> Baseline:
    """Fits on the training records that have a value, and predicts every record of every part.

    Args:
        features: part → one row per record; NaN where a feature could not be measured.
        values: train and validation → `(n,)` in the unit of the target, NaN where it was not measured.
        threads: of the forest; the answer does not depend on it.

    Raises:
        DataError: training or validation has no value.
    """
    known = {part: np.isfinite(values[part]) for part in (TRAIN, VALIDATION)}
    for part, there in known.items():
        if not there.any():
            raise DataError(f"baseline {kind}: no {part} record has a value")
    measured = [name for name in features[TRAIN] if features[TRAIN][name][known[TRAIN]].notna().any()]
    x = {part: features[part].loc[there, measured] for part, there in known.items()}
    z = {part: scale.to_model(values[part][there]) for part, there in known.items()}
    best, lowest = None, np.inf
    for candidate in _candidates(kind, x, z, seed, threads):
        progressed()
        mse = float(np.mean((candidate.predict(x[VALIDATION]) - z[VALIDATION]) ** 2))
        if mse < lowest:
            best, lowest = candidate, mse
    assert best is not None
    outputs = {}
    for part, table in features.items():
        mean = best.predict(table[measured])
        outputs[part] = np.stack([mean, np.full(len(mean), np.log(max(lowest, 1e-12)))], axis=1)
    return Baseline(kind, best.settings, outputs)


def with_age_and_sex(features: pd.DataFrame, exams: pd.DataFrame) -> pd.DataFrame:
    """Two more features, from the same rows of the index."""
    found = {
        name: exams[column].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        for name, column in (("age_years", "age"), ("is_male", "is_male"))
    }
    return features.assign(**found)


def _candidates(
    kind: Kind, x: Mapping[str, pd.DataFrame], z: Mapping[str, Floats], seed: int, threads: int
) -> Iterator[_Candidate]:
    if kind == "ridge":
        steps = (SimpleImputer(strategy="median"), StandardScaler(), FunctionTransformer(_clipped))
        prepared = make_pipeline(*steps).fit(x[TRAIN])
        train = prepared.transform(x[TRAIN])
        for penalty in PENALTIES:
            line = Ridge(penalty).fit(train, z[TRAIN])
            yield _Candidate({"penalty": penalty}, make_pipeline(prepared, line).predict)
    elif kind == "forest":
        for smallest_leaf in SMALLEST_LEAVES:
            forest = RandomForestRegressor(
                N_TREES,
                min_samples_leaf=smallest_leaf,
                max_features=SHARE_OF_FEATURES,
                random_state=seed,
                n_jobs=threads,
            )
            forest.fit(x[TRAIN], z[TRAIN]).set_params(n_jobs=1)  # with more, trees are summed as they finish
            yield _Candidate({"smallest_leaf": smallest_leaf}, forest.predict)
    else:
        for leaves in LEAVES:
            n_rounds = _best_rounds(_boosted(leaves, MOST_ROUNDS, seed).fit(x[TRAIN], z[TRAIN]), x, z)
            boosted = _boosted(leaves, n_rounds, seed).fit(x[TRAIN], z[TRAIN])
            yield _Candidate({"leaves": leaves, "rounds": n_rounds}, boosted.predict)


def _clipped(standardised: Floats) -> Floats:
    return np.clip(standardised, -FARTHEST_SD, FARTHEST_SD)


def _boosted(leaves: int, n_rounds: int, seed: int) -> Any:
    return HistGradientBoostingRegressor(
        learning_rate=LEARNING_RATE,
        max_iter=n_rounds,
        max_leaf_nodes=leaves,
        early_stopping=False,  # it would choose by records of training, not by patients of validation
        random_state=seed,
    )


def _best_rounds(boosted: Any, x: Mapping[str, pd.DataFrame], z: Mapping[str, Floats]) -> int:
    errors = [np.mean((z[VALIDATION] - said) ** 2) for said in boosted.staged_predict(x[VALIDATION])]
    return int(np.argmin(errors)) + 1
