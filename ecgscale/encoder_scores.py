"""One trained encoder on another population: all its read-outs, beside what knows nothing of the pre-training.

Beside them stand the same read-outs of the untrained encoder, whose weights the trial started from, and the linear
read-out of hand-made features. Many trials share these, so their scores are kept in the results folder.

    results/X/baselines/KEY.json    derivable, and safe to delete; for features, see `feature_files`
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.handmade import handmade_features
from ecgscale.data.splits import TEST, split_rows
from ecgscale.data.store import PackedStore
from ecgscale.data.stream import EVALUATION_BATCH, DigitalBatch, RecordSource
from ecgscale.feature_files import kept_features
from ecgscale.hangs import progressed
from ecgscale.ladder import shape
from ecgscale.models import build_encoder
from ecgscale.models.encoder import Encoder
from ecgscale.objectives.supervised import MultiLabel
from ecgscale.preemption import StopRequest
from ecgscale.provenance import versions
from ecgscale.records import TaskScore
from ecgscale.specs import TrialSpec
from ecgscale.training import Pretraining
from ecgscale.transfer import Part, SignalPart, beside, score_attentive, score_fine_tuned, score_tasks, score_zero_shot

BASELINES = "baselines"

Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Records:
    """Some records of a store, as read-outs want them."""

    store: PackedStore
    rows: Rows

    @property
    def exams(self) -> Any:
        return self.store.index.iloc[self.rows]

    def features(self, module: Pretraining, encoder: Encoder) -> Features:
        """What an encoder makes of them."""
        with torch.no_grad():
            found = [
                encoder(part.signal).pooled.float().cpu().numpy()
                for batch in RecordSource(self.store, self.rows).in_order()
                for part in module.parts(module.normalised(batch, scale=self.store.header.scale))
            ]
        return np.concatenate(found)

    def signals(self, module: Pretraining) -> SignalPart:
        source = RecordSource(self.store, self.rows)

        def of(members: npt.NDArray[np.intp]) -> Tensor:
            return module.normalised(source.batch(members, 0), scale=self.store.header.scale).signal

        return SignalPart(of, self.exams)

    def by_hand(self) -> Features:
        """Their hand-made features."""
        header = self.store.header
        mv = np.asarray(header.scale, dtype=np.float32)[:, None]

        def of(batch: DigitalBatch) -> npt.NDArray[np.float64]:
            progressed()
            return handmade_features(batch.digital.numpy() * mv, header.fs_hz, batch.start.numpy(), batch.stop.numpy())

        source = RecordSource(self.store, self.rows)
        members = np.array_split(np.arange(len(source)), -(-len(source) // EVALUATION_BATCH))
        return np.concatenate([of(source.batch(some, 0)) for some in members]).astype(np.float32)


def score_encoder(
    spec: TrialSpec,
    population: str,
    module: Pretraining,
    open_population: Callable[[str], PackedStore],
    results: Path,
    stop: StopRequest,
) -> tuple[TaskScore, ...]:
    """Every read-out that the spec asks for, on one population.

    Args:
        module: with the weights to score.
        open_population: name → its packed records.

    Raises:
        DataError: a population lacks a column.
        Preempted: `stop` asked for it.
    """
    parts = _parts(spec, population, open_population)

    records = {"parts": _identity(parts), "input": spec.input.model_dump(mode="json")}
    records |= {"versions": json.loads(versions())}
    start = {"untrained": [spec.family, spec.rung, spec.seed]}

    def parts_with(whose: str, features_of: Callable[[Records], Features], who: Mapping[str, Any]) -> dict[str, Part]:
        def compute() -> dict[str, Features]:
            return {name: features_of(part) for name, part in parts.items()}

        found = kept_features(results, spec.trial_id, whose, {**records, **who}, compute)
        return {name: Part(found[name].astype(np.float64), part.exams) for name, part in parts.items()}

    def read_outs(encoder: Encoder, whose: str, who: Mapping[str, Any], **options: Any) -> tuple[TaskScore, ...]:
        module.eval()
        encoder.eval()
        features = parts_with(whose, lambda part: part.features(module, encoder), who)
        return _read_outs(population, spec, module, encoder, parts, features, **options)

    def untrained() -> tuple[TaskScore, ...]:
        return read_outs(_untrained(spec, module), "untrained", start, n_resamples=0)

    def by_hand() -> tuple[TaskScore, ...]:
        features = parts_with("handmade", Records.by_hand, {})
        return score_tasks(population, features, spec.probe, seen_labels=CODE_LABELS, n_resamples=0)

    stop.check()
    own = read_outs(module.encoder, spec.trial_id, {}, trained_on=spec.labels)
    common = {"population": population, "probe": spec.probe.model_dump(mode="json"), **records}
    stop.check()
    random = _kept(results, spec.trial_id, start | common, untrained)
    stop.check()
    return beside(own, random=random, handmade=_kept(results, spec.trial_id, {"handmade": True} | common, by_hand))


def _parts(spec: TrialSpec, population: str, open_population: Callable[[str], PackedStore]) -> dict[str, Records]:
    """Train, validation and test records of the read-outs: by default all of that population."""
    target = open_population(population)
    if spec.probe.fit_on == "target":
        rows = split_rows(target.index, spec.split, elsewhere=True)
        return {name: Records(target, members) for name, members in rows.items()}
    source = open_population(spec.train_on)
    parts = {name: Records(source, rows) for name, rows in split_rows(source.index, spec.split).items()}
    return parts | {TEST: Records(target, np.arange(len(target)))}


def _read_outs(
    population: str,
    spec: TrialSpec,
    module: Pretraining,
    encoder: Encoder,
    parts: Mapping[str, Records],
    features: Mapping[str, Part],
    *,
    trained_on: tuple[str, ...] = (),
    **options: int,
) -> tuple[TaskScore, ...]:
    """Linear always, attentive and fine-tuned where the probe asks for them, and the head of a supervised encoder."""
    about: dict[str, Any] = {"seen_labels": CODE_LABELS, "trained_on": trained_on, **options}
    signals = {name: part.signals(module) for name, part in parts.items()}
    found = (
        *score_tasks(population, features, spec.probe, **about),
        *score_attentive(population, encoder, signals, spec.probe, seed=spec.seed, **about),
        *score_fine_tuned(population, encoder, signals, spec.probe, seed=spec.seed, **about),
    )
    if encoder is module.encoder and isinstance(module.objective, MultiLabel):
        found += _zero_shot(population, spec, module, module.objective, features)
    return found


def _zero_shot(
    population: str, spec: TrialSpec, module: Pretraining, objective: MultiLabel, features: Mapping[str, Part]
) -> tuple[TaskScore, ...]:
    """The supervised head as it is, on the labels it was trained on."""
    pooled = torch.as_tensor(features[TEST].features, dtype=torch.float32)
    with torch.no_grad():
        logits = objective.head(pooled.to(module.device)).double().cpu().numpy()
    exams = {name: part.exams for name, part in features.items()}
    return score_zero_shot(population, exams, logits, spec.probe, seen_labels=CODE_LABELS, trained_on=spec.labels)


def _untrained(spec: TrialSpec, module: Pretraining) -> Encoder:
    """The encoder as the trial's seed made it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        encoder = build_encoder(shape(spec.family, spec.rung, spec.input.shape), spec.input.shape)
    return encoder.to(module.device)


# --- what trials share ---------------------------------------------------------------------------------------------


def _identity(parts: Mapping[str, Records]) -> dict[str, Any]:
    return {
        name: [part.store.header.fingerprint, hashlib.sha256(part.rows.tobytes()).hexdigest()]
        for name, part in parts.items()
    }


def _kept(
    results: Path, trial_id: str, identity: Mapping[str, Any], compute: Callable[[], tuple[TaskScore, ...]]
) -> tuple[TaskScore, ...]:
    """Scores that are computed once per results folder; who comes at the same time computes them too."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = results / BASELINES / f"{key}.json"
    try:
        return tuple(TaskScore.model_validate(score) for score in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not there yet, or damaged
        found = compute()
    unfinished = path.with_name(f"{trial_id}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps([score.model_dump(mode="json") for score in found]), encoding="utf-8")
        unfinished.replace(path)
    except OSError:  # a full disk costs the next trial some time, not this one its scores
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return found
