"""What a row says: the declarations of every column, from which the parquet schemas follow."""

from __future__ import annotations

import datetime
import types
import typing
from enum import StrEnum
from typing import Any

import pyarrow as pa
from pydantic import Field

from ecgscale.failures import FailureClass
from ecgscale.spec_base import Spec

SCHEMA_VERSION = 2
"""1: rows whose trial ids were hashes of the read-outs as well, and that hold their scores."""


class Status(StrEnum):
    COMPLETED = "completed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


FEWEST_POSITIVES = 5
"""A class with fewer test records than this is marked, and its task not averaged: the loss is mostly the draw of those
few (our choice)."""


class TaskScore(Spec):
    """How well one read-out of an encoder does one task on one population; no loss without a fit.

    Intervals are 95 % of resampled test patients.
    """

    population: str
    task: str = Field(description="`task:column` for a column of a multilabel task")
    kind: str = Field(description="binary (a column of a multilabel task, too), multiclass or regression")
    read_out: str = Field(
        default="linear", description="linear or attentive (encoder frozen), fine_tuned, zero_shot (supervised head)"
    )
    label_fraction: float = Field(
        default=1.0, description="share of the training patients whose labels the read-out was fitted to; 0 if none"
    )
    seen: bool = Field(description="the task is one of the six pre-training labels")
    trained_on: bool | None = Field(
        default=None, description="the task is a label this encoder was trained on; null in older rows"
    )
    loss: float | None = Field(description="test loss: mean squared error over the variance if regression, else nats")
    loss_low: float | None = None
    loss_high: float | None = None
    constant_loss: float | None = Field(description="test loss of the constant predictor of the training patients")
    random_loss: float | None = Field(
        default=None, description="test loss of the same read-out of the untrained encoder of that rung and seed"
    )
    handmade_loss: float | None = Field(
        default=None, description="test loss of the linear read-out of hand-made features"
    )
    auroc: float | None = Field(description="mean of one against the rest if multiclass; null for regression")
    auroc_low: float | None = None
    auroc_high: float | None = None
    random_auroc: float | None = None
    handmade_auroc: float | None = None
    auprc: float | None = Field(
        default=None, description="average precision; as for auroc; by chance it is the share of positives"
    )
    auprc_low: float | None = None
    auprc_high: float | None = None
    mae: float | None = Field(default=None, description="mean absolute error in `unit`; null unless regression")
    unit: str | None = Field(default=None, description="as the task declares it")
    l2: float | None = Field(description="the penalty chosen on validation patients; null unless linear")
    converged: bool | None = Field(
        default=None, description="a linear read-out has reached its optimum; null otherwise, and in older rows"
    )
    n_train: int = Field(description="records the read-out was fitted to")
    n_test: int
    n_test_positive: int | None = Field(description="null unless binary")
    reason: str | None = Field(default=None, description="why nothing could be fitted; null when there is a loss")

    @property
    def few_positives(self) -> bool:
        """A binary task with too few test records of one class to be averaged with others."""
        positives = self.n_test_positive
        return positives is not None and min(positives, self.n_test - positives) < FEWEST_POSITIVES

    @property
    def is_main(self) -> bool:
        """The frozen encoder, read out linearly with every label there is: what laws are fitted to."""
        return self.read_out == "linear" and self.label_fraction == 1


class TargetScore(Spec):
    """How well one network predicts its target on one part of a population, in one condition.

    Beside it the constant predictor, which knows the distribution of the training values. Without intervals: reports
    compute them from the predictions themselves.
    """

    population: str
    part: str = Field(description="validation, test, later, or all of another population")
    condition: str = Field(description="clean, or the corruption")
    unit: str
    n_test: int
    mae: float
    constant_mae: float
    mse: float
    constant_mse: float
    crps: float = Field(description="continuous ranked probability score, in the unit; of a point its absolute error")
    constant_crps: float
    nll: float | None = Field(description="nats per unit; null for a point, or where the truth had no probability")
    constant_nll: float


class LabelScore(Spec):
    """AUROC of one pre-training label on the in-distribution test patients."""

    label: str
    auroc: float | None = Field(description="null when the test set has one class only")
    n_test_positive: int


class FailedReadOut(Spec):
    """The last try to read an encoder out on one population, when it went wrong; the training it is of stands."""

    population: str
    read_out: str = Field(description="identity of what was to be read out")
    status: str
    reason: str
    failure: str
    bug: str | None = None


class Outcome(Spec):
    """What the progress of a sweep needs to know of one attempt; a missing number is null, never 0."""

    # who
    sweep: str
    trial_id: str = Field(description="hash of the fields that change the answer")
    attempt: str
    label: str
    family: str
    paradigm: str
    rung: str
    arm: str = Field(description="family-paradigm, or family-target-head")
    data_fraction: float
    n_labels: int = Field(description="labels SL was trained on; 0 for SSL")
    seed: int
    # how it went
    status: str
    reason: str | None = None
    failure: str | None = Field(
        default=None,
        description="out_of_memory, diverged, data, infrastructure or bug; null when completed, and in older rows",
    )
    bug: str | None = Field(default=None, description="failures with the same number went wrong at the same place")
    loss_unit: str = Field(
        description="nats (SL), mse (SSL, squared normalised signal), or the unit of a target's head"
    )
    id_loss: float | None = Field(default=None, description="test patients, weights of the best validation loss")
    # what was read off its encoder: of files of their own, and put here when a row is read
    read_outs: tuple[str, ...] = Field(default=(), description="identities of the newest of each population")
    failed_read_outs: tuple[FailedReadOut, ...] = ()
    read_outs_s: float | None = Field(default=None, description="seconds that the newest took; null in older rows")
    # where, and what it took
    device: str
    threads: int
    wall_s: float = Field(
        description="of all parts, when training was continued from a checkpoint; with the read-outs in older rows"
    )
    started_at: datetime.datetime
    ended_at: datetime.datetime | None = None

    @property
    def failure_class(self) -> FailureClass | None:
        """None when the trial completed, or failed before classes were written."""
        if self.failure is not None:
            return FailureClass(self.failure)
        return FailureClass(self.status) if self.status in set(FailureClass) else None


class RunRecord(Outcome):
    """One attempt at one trial: the outcome, and all else that is known. The reason for missing numbers is `reason`."""

    schema_version: int = SCHEMA_VERSION
    # size
    n_params: int = Field(description="N: parameters of the encoder, without head or decoder")
    n_params_head: int
    n_records: int = Field(description="D: unique training records")
    n_samples_seen: int
    train_flops: float = Field(description="C: counted operator by operator, forward and backward")
    # losses
    val_loss_best: float | None = None
    val_loss_last: float | None = None
    best_step: int | None = None
    id_loss_last: float | None = Field(default=None, description="test patients, last weights")
    id_constant_loss: float | None = Field(default=None, description="of the constant predictor on the test patients")
    id_auroc: tuple[LabelScore, ...] = ()
    transfer: tuple[TaskScore, ...] = Field(
        default=(), description="of files of their own; a row has its own only if it is older, or simulated"
    )
    predicted: tuple[TargetScore, ...] = Field(default=(), description="of files of their own, as `transfer`")
    read_out_specs: tuple[str, ...] = Field(default=(), description="JSON: what was read out, as `read_outs`")
    # cost
    train_s: float | None = Field(default=None, description="training steps alone, without evaluation")
    n_resumes: int | None = Field(
        default=None, description="how often training was continued from a checkpoint; null in older rows"
    )
    microbatch: int | None = Field(
        default=None, description="records of a batch in memory at a time; null for all of them"
    )
    compiled: bool | None = Field(default=None, description="the encoder was compiled for training; null in older rows")
    stacked: bool | None = Field(
        default=None, description="training steps were computed for several trials at once; null in older rows"
    )
    n_beside: int = Field(default=0, description="other trials that took turns with it in its process")
    peak_memory_bytes: int | None = Field(default=None, description="of the device; of the process on a CPU")
    # provenance
    git_commit: str | None = None
    git_dirty: bool | None = None
    git_diff: str | None = Field(
        default=None, description="SHA-256 of `git diff --no-ext-diff --no-color --full-index HEAD`; null when clean"
    )
    versions: str = Field(description="JSON: package → version")
    cuda_version: str | None = Field(default=None, description="that torch was built with; null on a CPU")
    driver_version: str | None = Field(default=None, description="of the NVIDIA kernel module; null on a CPU")
    host: str | None = Field(default=None, description="hash of the host name: the same machine or another one")
    argv: str | None = Field(default=None, description="JSON: the command, without folders, addresses and secrets")
    config_hash: str | None = Field(default=None, description="of the sweep file as it was understood")
    data_fingerprint: str = Field(description="JSON: population → fingerprint, of those read out the newest")
    spec: str = Field(description="JSON of the whole TrialSpec")


class ReadOutOutcome(Spec):
    """One encoder read out on one population, or why that went wrong: what its row needs to know."""

    trial_id: str
    population: str
    read_out: str = Field(description="hash of the fields that change the scores of a given encoder")
    status: str
    reason: str | None = None
    failure: str | None = Field(default=None, description="class, as in a row; null when completed")
    bug: str | None = None
    wall_s: float
    published_at: datetime.datetime = Field(
        description="the newest of a population counts; scores that are wanted again are published again"
    )


class TransferRecord(ReadOutOutcome):
    """The outcome, its scores, and all else that is known."""

    schema_version: int = SCHEMA_VERSION
    sweep: str
    label: str
    scores: tuple[TaskScore, ...] = ()
    predicted: tuple[TargetScore, ...] = ()
    computed_at: datetime.datetime
    microbatch: int | None = Field(default=None, description="records in memory at a time; null for a whole batch")
    device: str
    threads: int
    git_commit: str | None = None
    git_dirty: bool | None = None
    git_diff: str | None = None
    versions: str = Field(description="JSON: package → version")
    host: str | None = None
    spec: str = Field(description="JSON of the whole ReadOutSpec")


def _arrow_type(annotation: Any) -> pa.DataType:
    """The arrow type of a field: schemas come from the declaration, never from the values."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return pa.struct([(name, _arrow_type(f.annotation)) for name, f in annotation.model_fields.items()])
    return {
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        bool: pa.bool_(),
        datetime.datetime: pa.timestamp("us", tz="UTC"),
    }[annotation]


def schema_of(model: type[Spec]) -> pa.Schema:
    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in model.model_fields.items()])


ROW_SCHEMA = schema_of(RunRecord)
TRANSFER_SCHEMA = schema_of(TransferRecord)
