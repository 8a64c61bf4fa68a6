"""One TrialSpec becomes one RunRecord, and what is read off its encoder: what of it is not there yet, and no more.

Runs anywhere, alone too: `python -m ecgscale.trial spec.json --data DIR --out results/X`. Has never heard of Ray.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from ecgscale import encoders, memory, prediction_files, tensor_file, transfer_files
from ecgscale.checkpoint import Checkpoint, checkpoint_path
from ecgscale.data.packing import packed
from ecgscale.data.store import PackedStore
from ecgscale.data.stream import EVALUATION_BATCH
from ecgscale.encoder_scores import score_encoder
from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.failures import FailureClass
from ecgscale.models import BATCH_STATISTICS
from ecgscale.predicting import Predictor, target_scores
from ecgscale.preemption import EXIT_PREEMPTED, Preempted, StopRequest
from ecgscale.pretraining import build, open_population, pretrain
from ecgscale.provenance import public_argv, versions
from ecgscale.records import RunRecord, Status, TransferRecord
from ecgscale.results import append, completed_row, lacking, with_its_read_outs
from ecgscale.specs import ReadOutSpec, TrialSpec
from ecgscale.stacking import TooLarge
from ecgscale.training import Pretraining, is_of_the_compiler
from ecgscale.trial_rows import Ending, ReadOut, ended_with, run_record, transfer_record
from ecgscale.turns import clock, of_the_process

log = logging.getLogger(__name__)

TAKEN_OVER = "another attempt at it has taken its place"


def run_trial(
    spec: TrialSpec,
    execution: Execution,
    stop: StopRequest | None = None,
    may_publish: Callable[[], bool] = lambda: True,
) -> RunRecord:
    """Trains a trial and publishes its row, then reads its encoder out and publishes that; what is there is not done
    again. What raises leaves a row, or a file beside the scores, that says why.

    Training goes on from a checkpoint of the same trial, if there is one, and ends with the same numbers. When memory
    runs out it starts, or goes on, with half as many records of a batch in memory at a time, down to one. Where a stack
    is too large it starts anew without; where an encoder can't be compiled, it goes on without that.

    Args:
        stop: asked at every step and before anything is published; by default the signals of `preemption`.
        may_publish: asked last of all; False when another attempt has taken this one's place.

    Returns:
        The row, and in it what was read out by now.

    Raises:
        Preempted: it was asked to stop, or may not publish. The same call goes on.
    """
    if stop is None:
        with StopRequest().listening() as signals:
            return run_trial(spec, execution, signals, may_publish)
    torch.set_num_threads(execution.threads)
    _leave_code_out_of_collections()
    with of_the_process("BLAS", lambda: threadpool_limits(execution.threads)):  # for read-outs, as well as torch
        return _Run(spec, execution, stop, may_publish, _device()).run()


@dataclass(frozen=True)
class _Run:
    """One call of `run_trial`."""

    spec: TrialSpec
    execution: Execution
    stop: StopRequest
    may_publish: Callable[[], bool]
    device: torch.device

    def run(self) -> RunRecord:
        row, module = completed_row(self.execution.results, self.spec.trial_id), None
        if row is not None and not lacking(self.spec, row):
            return row
        _as_in_training(self.device)
        if row is None:
            row, module = self._trained()
        else:  # its process may have been killed right after the row
            tensor_file.remove(checkpoint_path(self.execution.results, self.spec.trial_id))
        wanted = lacking(self.spec, row) if row.status == Status.COMPLETED else ()
        wanted = tuple(read_out for read_out in wanted if not self._is_there(read_out))
        if wanted and module is None:
            module = self._kept(row)
            if module is None:
                log.warning("%s: trains again, for what is to be read off its encoder", self.spec.label)
                row, module = self._trained()
        if module is not None:
            self._read_outs(wanted, module)
        module = None
        _release_memory()
        return with_its_read_outs(self.execution.results, row)

    # --- training --------------------------------------------------------------------------------------------------

    def _trained(self) -> tuple[RunRecord, Pretraining | None]:
        """The row of an attempt, and the module with the weights that count if it has completed."""
        spec, execution = self.spec, self.execution
        started_at = datetime.datetime.now(datetime.UTC)
        identity = {"trial": spec.trial_id, "kind of device": self.device.type}
        identity |= {f"version of {name}": json.loads(versions()).get(name, "") for name in ("torch", "ecgscale")}
        path = checkpoint_path(execution.results, spec.trial_id)
        checkpoint = Checkpoint(path, identity, execution.checkpoint_s, self.may_publish)
        while True:
            measured, module, ending, other_way = None, None, Ending(), None
            try:
                measured, module = pretrain(spec, execution, self.device, checkpoint, self.stop)
            except Preempted:
                _release_memory()
                raise
            except Exception as error:
                ending = ended_with(error, execution)
                other_way = _other_way(error, ending, checkpoint, spec)
            if other_way is None:
                break
            log.warning("%s: %s", spec.label, other_way)
            _release_memory()
        record = run_record(spec, execution, self.device, ending, measured, started_at, checkpoint)
        _release_memory()
        self.stop.check()
        if module is not None:  # before the row, so that what has completed can be read out
            encoders.keep(execution.results, spec.trial_id, module.state_dict(), self.may_publish)
        if append(execution.results, record, self.may_publish) is None:
            raise Preempted(TAKEN_OVER)
        if record.status in (Status.COMPLETED, Status.DIVERGED):  # after another failure it saves the training
            checkpoint.remove()
        return record, module

    # --- reading out -----------------------------------------------------------------------------------------------

    def _is_there(self, read_out: ReadOutSpec) -> bool:
        """It was computed, and something else since; then it becomes the newest again."""
        for record in transfer_files.of_trial(self.execution.results, self.spec.trial_id):
            if record.read_out == read_out.read_out_id and record.status == Status.COMPLETED:
                self._publish(record.model_copy(update={"published_at": datetime.datetime.now(datetime.UTC)}))
                return True
        return False

    def _kept(self, row: RunRecord) -> Pretraining | None:
        """The trained module as it was, if its weights were kept."""
        module = build(self.spec)
        if not encoders.load(self.execution.results, self.spec.trial_id, module):
            return None
        module.microbatch = row.microbatch
        return module.to(self.device)

    def _read_outs(self, wanted: Sequence[ReadOutSpec], module: Pretraining) -> None:
        spec, execution, stop = self.spec, self.execution, self.stop

        def open_store(population: str) -> PackedStore:
            return open_population(spec, population, execution)

        predictor = Predictor(spec, module, open_store, execution.results, stop)

        def scores(read_out: ReadOutSpec) -> ReadOut:
            if spec.target is not None:
                return self._predicted(read_out, predictor)
            return ReadOut(score_encoder(spec, read_out.population, module, open_store, execution.results, stop))

        for read_out in wanted:
            self._read_out(read_out, module, scores)

    def _read_out(self, read_out: ReadOutSpec, module: Pretraining, scores: Callable[[ReadOutSpec], ReadOut]) -> None:
        """Publishes the scores on one population, or why there are none."""
        spec, execution, started = self.spec, self.execution, clock()
        while True:
            found = ReadOut()
            ending = Ending()
            try:
                found = scores(read_out)
            except Preempted:
                _release_memory()
                raise
            except Exception as error:
                ending = ended_with(error, execution)
            held = module.microbatch or EVALUATION_BATCH
            if ending.failure is not FailureClass.OUT_OF_MEMORY or held == 1:
                break
            module.microbatch = held // 2
            log.warning("%s: out of memory; reads out %d records at a time", spec.label, module.microbatch)
            _release_memory()
        wall_s = clock() - started
        if ending.reason is not None:
            log.warning("%s: can't be read out on %s: %s", spec.label, read_out.population, ending.reason)
        self._publish(transfer_record(spec, read_out, execution, self.device, ending, found, wall_s, module.microbatch))

    def _predicted(self, read_out: ReadOutSpec, predictor: Predictor) -> ReadOut:
        """Publishes what the network says of the records; returns its scores."""
        predictions = predictor.predict(read_out.population)
        folder, trial_id = self.execution.results, self.spec.trial_id
        path = prediction_files.prediction_path(folder, trial_id, read_out.population, read_out.read_out_id)
        if not prediction_files.write(path, predictions, self.may_publish):
            raise Preempted(TAKEN_OVER)
        return ReadOut(predicted=target_scores(predictions, read_out.population))

    def _publish(self, record: TransferRecord) -> None:
        self.stop.check()
        if not transfer_files.publish_read_out(self.execution.results, record, self.may_publish):
            raise Preempted(TAKEN_OVER)


def _other_way(error: Exception, ending: Ending, checkpoint: Checkpoint, spec: TrialSpec) -> str | None:
    """What went wrong and how the training is to go on, for people; None if it is not to."""
    if isinstance(error, TooLarge):
        checkpoint.start_over("eager")
        return "out of memory in a stack; again by itself, from the beginning"
    if ending.failure is FailureClass.OUT_OF_MEMORY:
        halved = _halved(checkpoint, spec)
        return f"out of memory; again with {checkpoint.microbatch} records at a time" if halved else None
    if checkpoint.way == "compiled" and is_of_the_compiler(error):
        checkpoint.way = "eager"
        why, _, _ = str(error).partition("\n")
        return f"its encoder can't be compiled here ({why}); again without"
    return None


def _halved(checkpoint: Checkpoint, spec: TrialSpec) -> bool:
    """Half as many records at a time from now on; False if that is not possible, or would be another model."""
    held = checkpoint.microbatch or spec.train.batch_size
    if held == 1 or spec.family in BATCH_STATISTICS:
        return False
    checkpoint.microbatch = held // 2
    return True


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _as_in_training(device: torch.device) -> None:
    """The same kernels as after a training, in which Lightning asks for these: so read-outs of the same weights are
    the same bit for bit, whenever they are made."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")


@cache
def _leave_code_out_of_collections() -> None:
    """What is there before a process's first trial is code: half a million objects, which every collection would go
    through in 0.2 s, several times per trial."""
    gc.collect()
    gc.freeze()


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
