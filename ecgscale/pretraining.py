"""One TrialSpec is trained and evaluated in distribution: records, network, training, losses on the test patients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from ecgscale.checkpoint import Checkpoint
from ecgscale.concentrations.records import target_values, with_a_value
from ecgscale.data.splits import TEST, TRAIN, VALIDATION, fraction_rows, split_rows
from ecgscale.data.store import PackedStore, open_store, store_name
from ecgscale.data.stream import RecordSource, TrainingStream
from ecgscale.encoders import begin_with
from ecgscale.errors import DataError
from ecgscale.execution import Execution, Way
from ecgscale.failures import Diverged, FailureClass, classify
from ecgscale.ladder import Shape, shape, twice_as_wide
from ecgscale.models import build_encoder
from ecgscale.models.maximal_update import Parametrisation, growth
from ecgscale.objectives import objective_of
from ecgscale.plan import planned
from ecgscale.predicting import training_records
from ecgscale.preemption import Preempted, StopRequest
from ecgscale.records import LabelScore
from ecgscale.specs import TrialSpec
from ecgscale.tracking import loggers
from ecgscale.training import Evaluation, Pretraining, evaluate, fit, quiet
from ecgscale.turns import n_beside


@dataclass(frozen=True)
class Measured:
    """What a completed training has measured."""

    val_loss_best: float
    val_loss_last: float
    best_step: int
    id_loss: float
    id_loss_last: float
    id_constant_loss: float | None
    id_auroc: tuple[LabelScore, ...]
    train_s: float


def build(spec: TrialSpec, scale: tuple[float, ...] = ()) -> Pretraining:
    """The network of a trial as its seed makes it, if that has been set.

    Args:
        scale: of the training store.
    """
    return of_shape(shape(spec.family, spec.rung, spec.input.shape), spec, scale)


def of_shape(network: Shape, spec: TrialSpec, scale: tuple[float, ...] = ()) -> Pretraining:
    """`build`, at a width or depth that need not be on the ladder."""
    module = _of_shape(network, spec, scale)
    if spec.mup_reference_width is not None:
        with torch.device("meta"):  # nothing is allocated, no random number drawn
            wider = _of_shape(twice_as_wide(network), spec, scale)
        encoder = module.encoder
        ends = {id(weight) for layer in encoder.branch_ends() for weight in layer.parameters()}
        module.parametrisation = Parametrisation(
            growth(module, wider),
            encoder.width / spec.mup_reference_width,
            frozenset(name for name, weight in module.named_parameters() if id(weight) in ends),
            encoder.depth / (spec.mup_reference_depth or encoder.depth),
        )
        module.parametrisation.redraw(module)
    return module


def _of_shape(network: Shape, spec: TrialSpec, scale: tuple[float, ...]) -> Pretraining:
    encoder = build_encoder(network, spec.input.shape)
    return Pretraining(encoder, objective_of(spec, network), spec, scale)


def pretrain(
    spec: TrialSpec, execution: Execution, device: torch.device, checkpoint: Checkpoint, stop: StopRequest
) -> tuple[Measured, Pretraining]:
    """Trains, from the checkpoint on if there is one; returns the module with the weights that count.

    Raises:
        DataError: the records are not those that were planned with, or can't be used.
        Diverged: a loss is no longer finite.
        Preempted: `stop` asked for it; the checkpoint is written.
    """
    with quiet():
        pl.seed_everything(spec.seed, workers=True, verbose=False)
        store = open_population(spec, spec.train_on, execution)
        sources = sources_of(spec, store)
        if len(sources[TRAIN]) != spec.n_records:
            raise DataError(
                f"planned with {spec.n_records} training records, the data hold {len(sources[TRAIN])}; plan again"
            )
        module = build(spec, store.header.scale)
        if spec.start is not None:
            begin_with(module, execution.data / "encoders" / f"{spec.start.encoder}.ckpt", spec.start_fingerprint)
        resumed = checkpoint.resume(store.header.fingerprint, module.state_dict())
        module.microbatch = checkpoint.microbatch
        checkpoint.way = module.way = checkpoint.way or _way(spec, execution)
        compiling = (
            module.compiled_encoder(graphs=planned(spec).launch_bound) if module.way == "compiled" else nullcontext()
        )
        stream = TrainingStream(
            sources[TRAIN],
            batch_size=spec.train.batch_size,
            n_steps=spec.n_steps,
            seed=spec.seed,
            first_step=resumed.step if resumed is not None else 0,
        )
        with loggers(execution.wandb, spec, execution.sweep, execution.results) as active, compiling:
            evaluation, train_s = fit(
                module,
                stream,
                sources[VALIDATION],
                accelerator="gpu" if device.type == "cuda" else "cpu",
                loggers=active,
                checkpoint=checkpoint,
                stop=stop,
            )
        with _kept_if_stopped(checkpoint, module, evaluation, train_s):
            stop.check()
            module.to(device)
            id_loss_last, _ = evaluate(module, sources[TEST])
            module.load_state_dict(evaluation.best_weights)
            id_loss, logits = evaluate(module, sources[TEST])
            if not (math.isfinite(id_loss) and math.isfinite(id_loss_last)):
                raise Diverged(f"loss on test is {id_loss:g} with the best weights, {id_loss_last:g} with the last")
            stop.check()
    measured = Measured(
        val_loss_best=evaluation.losses[evaluation.best],
        val_loss_last=evaluation.losses[-1],
        best_step=evaluation.steps[evaluation.best],
        id_loss=id_loss,
        id_loss_last=id_loss_last,
        id_constant_loss=_constant_loss(spec, sources),
        id_auroc=_label_scores(spec.labels, sources[TEST], logits),
        train_s=train_s,
    )
    return measured, module


def _way(spec: TrialSpec, execution: Execution) -> Way:
    """Of a training that begins: what would be stacked, but has no company, is computed as it stands."""
    way = execution.way(spec.trial_id)
    return "eager" if way == "stacked" and n_beside() == 0 else way


def sources_of(spec: TrialSpec, store: PackedStore) -> dict[str, RecordSource]:
    """Part → its records with what is to be learned of them.

    Raises:
        DataError: the records can't be split, or the column of a target can't be used.
    """
    parts = split_rows(store.index, spec.split)
    if spec.target is None:
        train_rows = fraction_rows(store.index, parts[TRAIN], spec.data_fraction, spec.split)
        rows = {TRAIN: train_rows, VALIDATION: parts[VALIDATION], TEST: parts[TEST]}
        return {part: RecordSource(store, members, spec.labels) for part, members in rows.items()}
    train_rows, inputs = training_records(spec, store)
    values = target_values(store.index, spec.target, spec.train_on)
    rows = {TRAIN: train_rows} | {part: with_a_value(parts[part], values) for part in (VALIDATION, TEST)}
    found = {}
    for part, members in rows.items():
        if not len(members):
            raise DataError(f"population {spec.train_on!r}: no {part} record has a value of {spec.target.name}")
        columns = inputs.columns(store.index.iloc[members], spec.train_on, weighted=part == TRAIN)
        found[part] = RecordSource(store, members, columns)
    return found


@contextmanager
def _kept_if_stopped(
    checkpoint: Checkpoint, module: Pretraining, evaluation: Evaluation, train_s: float
) -> Iterator[None]:
    """Keeps a finished training when its scoring, within the block, is stopped or runs out of memory."""
    last_weights = {name: tensor.cpu().clone() for name, tensor in module.state_dict().items()}
    try:
        yield
    except (Preempted, Exception) as why:
        if isinstance(why, Preempted) or classify(why) is FailureClass.OUT_OF_MEMORY:
            checkpoint.write(module.spec.n_steps, last_weights, {}, {}, vars(evaluation), train_s)
        raise


def open_population(spec: TrialSpec, population: str, execution: Execution) -> PackedStore:
    """The packed records of a population.

    Raises:
        DataError: they are not there, damaged, or not those that were planned with.
    """
    store = open_store(execution.data / population / "packed" / store_name(spec.input))
    expected = spec.data_fingerprint.get(population)
    if expected is not None and store.header.fingerprint != expected:
        raise DataError(f"population {population!r} has changed since the plan was made; run the sweep again")
    return store


def _constant_loss(spec: TrialSpec, sources: dict[str, RecordSource]) -> float | None:
    """Test loss of a predictor that never looks: the training prevalence, or zero for a z-scored masked patch."""
    if spec.paradigm == "ssl":
        return 1.0 if spec.input.normalise == "zscore" else None
    if spec.paradigm == "target":  # heads have losses of their own; their scores stand beside the constant's
        return None
    train, test = sources[TRAIN].targets, sources[TEST].targets
    prevalence = (train.sum(axis=0) + 1) / (len(train) + 2)
    return float(-np.mean(test * np.log(prevalence) + (1 - test) * np.log(1 - prevalence)))


def _label_scores(labels: tuple[str, ...], test: RecordSource, logits: torch.Tensor | None) -> tuple[LabelScore, ...]:
    if not labels or logits is None:
        return ()
    scores = []
    for column, label in enumerate(labels):
        truth = test.targets[:, column] > 0
        both = 0 < truth.sum() < len(truth)
        auroc = float(roc_auc_score(truth, logits[:, column].numpy())) if both else None
        scores.append(LabelScore(label=label, auroc=auroc, n_test_positive=int(truth.sum())))
    return tuple(scores)
