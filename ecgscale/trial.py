"""One TrialSpec becomes one RunRecord: data, training, evaluation, transfer, provenance.

Runs anywhere, alone too: `python -m ecgscale.trial spec.json --data DIR --out results/X`. Has never heard of Ray.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import logging
import math
import re
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from ecgscale import memory
from ecgscale.checkpoint import Checkpoint, checkpoint_path
from ecgscale.data.packing import packed
from ecgscale.data.splits import TEST, TRAIN, VALIDATION, fraction_rows, split_rows
from ecgscale.data.store import PackedStore, open_store, store_name
from ecgscale.data.stream import RecordSource, TrainingStream
from ecgscale.encoder_scores import score_encoder
from ecgscale.errors import DataError, EcgscaleError
from ecgscale.execution import Execution
from ecgscale.failures import Diverged, FailureClass, classify, fingerprint
from ecgscale.ladder import shape
from ecgscale.models import BATCH_STATISTICS, build_encoder
from ecgscale.objectives import build_objective
from ecgscale.plan import planned
from ecgscale.preemption import EXIT_PREEMPTED, Preempted, StopRequest
from ecgscale.provenance import driver_version, git_diff, git_state, host, public_argv, versions
from ecgscale.results import LabelScore, RunRecord, Status, TaskScore, append, new_attempt
from ecgscale.specs import TrialSpec
from ecgscale.tracking import loggers
from ecgscale.training import Evaluation, Pretraining, evaluate, fit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """What a completed training has measured."""

    val_loss_best: float
    val_loss_last: float
    best_step: int
    id_loss: float
    id_loss_last: float
    id_constant_loss: float | None
    id_auroc: tuple[LabelScore, ...]
    transfer: tuple[TaskScore, ...]
    train_s: float


@dataclass(frozen=True)
class _Failed:
    """What a row says of how the trial ended; all null but the status when it completed."""

    status: Status
    reason: str | None = None
    failure: FailureClass | None = None
    bug: str | None = None


def run_trial(
    spec: TrialSpec,
    execution: Execution,
    stop: StopRequest | None = None,
    may_publish: Callable[[], bool] = lambda: True,
) -> RunRecord:
    """Trains and scores one trial and publishes its row; a trial that raises leaves a row that says why.

    Training goes on from a checkpoint of the same trial, if there is one, and ends with the same numbers. When memory
    runs out it starts, or goes on, with half as many records of a batch in memory at a time, down to one.

    Args:
        stop: asked at every step and before the row is published; by default the signals of `preemption`.
        may_publish: asked last of all; False when another attempt has taken this one's place.

    Raises:
        Preempted: it was asked to stop, or may not publish. There is no row; the same call goes on.
    """
    if stop is None:
        with StopRequest().listening() as signals:
            return run_trial(spec, execution, signals, may_publish)
    started_at = datetime.datetime.now(datetime.UTC)
    attempt = new_attempt()
    device = _device()
    torch.set_num_threads(execution.threads)
    identity = {"trial": spec.trial_id, "kind of device": device.type}
    identity |= {f"version of {name}": json.loads(versions()).get(name, "") for name in ("torch", "ecgscale")}
    path = checkpoint_path(execution.results, spec.trial_id)
    checkpoint = Checkpoint(path, identity, execution.checkpoint_s, may_publish)
    while True:
        outcome, failed = None, None
        try:
            with threadpool_limits(execution.threads):  # the read-outs' linear algebra, as well as torch
                outcome = _train_and_score(spec, execution, device, checkpoint, stop)
        except Preempted:
            _release_memory()
            raise
        except Exception as error:
            failed = _failed(error, execution)
        if failed is None or failed.failure is not FailureClass.OUT_OF_MEMORY or not _halved(checkpoint, spec):
            break
        log.warning("%s: out of memory; again with %d records at a time", spec.label, checkpoint.microbatch)
        _release_memory()
    record = _record(spec, execution, attempt, device, failed, outcome, started_at, checkpoint)
    _release_memory()
    stop.check()
    if append(execution.results, record, may_publish) is None:
        raise Preempted("another attempt at it has taken its place")
    if record.status in (Status.COMPLETED, Status.DIVERGED):  # after another failure it saves the training
        checkpoint.remove()
    return record


def _halved(checkpoint: Checkpoint, spec: TrialSpec) -> bool:
    """Half as many records at a time from now on; False if that is not possible, or would be another model."""
    held = checkpoint.microbatch or spec.train.batch_size
    if held == 1 or spec.family in BATCH_STATISTICS:
        return False
    checkpoint.microbatch = held // 2
    return True


def _train_and_score(
    spec: TrialSpec, execution: Execution, device: torch.device, checkpoint: Checkpoint, stop: StopRequest
) -> _Outcome:
    with warnings.catch_warnings():
        # Lightning counsels worker processes and loggers; an in-memory store needs neither
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*|.*TF32.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        pl.seed_everything(spec.seed, workers=True, verbose=False)
        store = _store(spec, spec.train_on, execution)
        parts = split_rows(store.index, spec.split)
        train_rows = fraction_rows(store.index, parts[TRAIN], spec.data_fraction, spec.split)
        if len(train_rows) != spec.n_records:
            raise DataError(
                f"planned with {spec.n_records} training records, the data hold {len(train_rows)}; plan again"
            )
        network = shape(spec.family, spec.rung, spec.input.shape)
        encoder = build_encoder(network, spec.input.shape)
        objective = build_objective(
            spec.paradigm,
            network,
            spec.input.shape,
            n_labels=len(spec.labels),
            mask_ratio=spec.mask_ratio,
        )
        module = Pretraining(encoder, objective, spec, store.header.scale)
        sources = {
            TRAIN: RecordSource(store, train_rows, spec.labels),
            VALIDATION: RecordSource(store, parts[VALIDATION], spec.labels),
            TEST: RecordSource(store, parts[TEST], spec.labels),
        }
        resumed = checkpoint.resume(store.header.fingerprint, module.state_dict())
        module.microbatch = checkpoint.microbatch
        stream = TrainingStream(
            sources[TRAIN],
            batch_size=spec.train.batch_size,
            n_steps=spec.n_steps,
            seed=spec.seed,
            first_step=resumed.step if resumed is not None else 0,
        )
        with loggers(execution.wandb, spec, execution.sweep, execution.results) as active:
            evaluation, train_s = fit(
                module,
                stream,
                sources[VALIDATION],
                accelerator=_accelerator(device),
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
            transfer = score_encoder(spec, module, lambda name: _store(spec, name, execution), execution.results, stop)
    return _Outcome(
        val_loss_best=evaluation.losses[evaluation.best],
        val_loss_last=evaluation.losses[-1],
        best_step=evaluation.steps[evaluation.best],
        id_loss=id_loss,
        id_loss_last=id_loss_last,
        id_constant_loss=_constant_loss(spec, sources),
        id_auroc=_label_scores(spec.labels, sources[TEST], logits),
        transfer=transfer,
        train_s=train_s,
    )


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


def _store(spec: TrialSpec, population: str, execution: Execution) -> PackedStore:
    store = open_store(execution.data / population / "packed" / store_name(spec.input))
    expected = spec.data_fingerprint.get(population)
    if expected is not None and store.header.fingerprint != expected:
        raise DataError(f"population {population!r} has changed since the plan was made; run the sweep again")
    return store


def _constant_loss(spec: TrialSpec, sources: dict[str, RecordSource]) -> float | None:
    """Test loss of a predictor that never looks: the training prevalence, or zero for a z-scored masked patch."""
    if spec.paradigm == "ssl":
        return 1.0 if spec.input.normalise == "zscore" else None
    train, test = sources[TRAIN].targets, sources[TEST].targets
    prevalence = (train.sum(axis=0) + 1) / (len(train) + 2)
    return float(-np.mean(test * np.log(prevalence) + (1 - test) * np.log(1 - prevalence)))


def _label_scores(labels: tuple[str, ...], test: RecordSource, logits: torch.Tensor | None) -> tuple[LabelScore, ...]:
    if logits is None:
        return ()
    scores = []
    for column, label in enumerate(labels):
        truth = test.targets[:, column] > 0
        both = 0 < truth.sum() < len(truth)
        auroc = float(roc_auc_score(truth, logits[:, column].numpy())) if both else None
        scores.append(LabelScore(label=label, auroc=auroc, n_test_positive=int(truth.sum())))
    return tuple(scores)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _accelerator(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else "cpu"


def _without_folders(message: str, execution: Execution) -> str:
    """The message with paths below the data directory, and names alone of files elsewhere: no row holds a path."""
    for folder in (execution.data, execution.results):
        message = message.replace(f"{folder}/", "")
    return re.sub(r"(?<![\w:/.])/(?:[^/\s'\"]+/)+", "", message)


def _failed(error: Exception, execution: Execution) -> _Failed:
    failure = classify(error)
    reason = _without_folders(f"{type(error).__name__}: {error}", execution)
    if failure is FailureClass.DIVERGED:
        return _Failed(Status.DIVERGED, str(error), failure)
    if failure is FailureClass.OUT_OF_MEMORY:
        return _Failed(Status.OUT_OF_MEMORY, reason, failure)
    place = f"{reason}\n{_inner_frames(error)}"
    return _Failed(Status.FAILED, place, failure, fingerprint(error) if failure is FailureClass.BUG else None)


def _inner_frames(error: Exception) -> str:
    """Where it happened: the last frames, files by name only, since no row holds a path."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return "\n".join(f"  {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames)


def _record(
    spec: TrialSpec,
    execution: Execution,
    attempt: str,
    device: torch.device,
    failed: _Failed | None,
    outcome: _Outcome | None,
    started_at: datetime.datetime,
    checkpoint: Checkpoint,
) -> RunRecord:
    cost = planned(spec)
    commit, dirty = git_state()
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return RunRecord(
        sweep=execution.sweep,
        trial_id=spec.trial_id,
        attempt=attempt,
        label=spec.label,
        family=spec.family,
        paradigm=spec.paradigm,
        rung=spec.rung,
        arm=spec.arm,
        data_fraction=spec.data_fraction,
        n_labels=len(spec.labels),
        seed=spec.seed,
        n_params=cost.n_params,
        n_params_head=cost.n_params_head,
        n_records=spec.n_records,
        n_samples_seen=spec.n_samples_seen,
        train_flops=cost.train_flops,
        **asdict(failed or _Failed(Status.COMPLETED)),
        loss_unit="nats" if spec.paradigm == "sl" else "mse",
        **(outcome.__dict__ if outcome is not None else {}),
        wall_s=checkpoint.wall_s,
        n_resumes=checkpoint.n_resumes,
        microbatch=checkpoint.microbatch,
        peak_memory_bytes=int(peak),
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        threads=execution.threads,
        git_commit=commit,
        git_dirty=dirty,
        git_diff=git_diff(),
        versions=versions(),
        cuda_version=torch.version.cuda if on_gpu else None,
        driver_version=driver_version() if on_gpu else None,
        host=host(),
        argv=execution.argv,
        config_hash=execution.config_hash,
        data_fingerprint=json.dumps(spec.data_fingerprint, sort_keys=True),
        spec=spec.model_dump_json(),
        started_at=started_at,
        ended_at=datetime.datetime.now(datetime.UTC),
    )


def _release_memory() -> None:
    """Workers run many trials: without this their memory wanders upwards (glibc keeps freed pages)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    memory.trim()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ecgscale.trial", description=__doc__)
    parser.add_argument("spec", type=Path, help="a TrialSpec as JSON, for example the `spec` column of a row")
    parser.add_argument("--data", type=Path, required=True, help="data directory; each population is a folder in it")
    parser.add_argument("--out", type=Path, required=True, help="results folder; the row is added to it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--checkpoint-s", type=float, default=Execution.checkpoint_s, help="seconds; 0 for none by time"
    )
    arguments = parser.parse_args()
    try:
        spec = TrialSpec.model_validate_json(arguments.spec.read_text())
        for population in (spec.train_on, *spec.transfer_to):
            packed(arguments.data / population, spec.input)
    except (OSError, ValidationError, EcgscaleError) as error:
        raise SystemExit(f"error: {arguments.spec}: {error}") from None
    execution = Execution(
        arguments.data,
        arguments.out,
        sweep=arguments.out.name,
        threads=arguments.threads,
        argv=public_argv(sys.argv),
        checkpoint_s=arguments.checkpoint_s,
    )
    try:
        record = run_trial(spec, execution)
    except Preempted as asked:
        print(f"preempted ({asked}): the same command goes on from the checkpoint", file=sys.stderr)
        raise SystemExit(EXIT_PREEMPTED) from None
    print(record.model_dump_json(indent=1, exclude={"spec", "versions"}))
    raise SystemExit(record.status != Status.COMPLETED)


if __name__ == "__main__":
    main()
