"""The training loop: one encoder and one objective under Lightning, evaluated at fixed steps, best weights kept.

The same loop serves both paradigms and both families; it knows neither grids nor schedulers.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from ecgscale import stacking
from ecgscale.checkpoint import Checkpoint, restore_random
from ecgscale.data.stream import DigitalBatch, RecordSource, TrainingStream, step_of
from ecgscale.execution import Way
from ecgscale.failures import Diverged
from ecgscale.hangs import progressed
from ecgscale.models.encoder import Encoder
from ecgscale.models.maximal_update import Parametrisation
from ecgscale.objectives.batch import Batch, Damage, make_batch
from ecgscale.objectives.objective import Objective, Scored
from ecgscale.preemption import StopRequest
from ecgscale.specs import AugmentSpec, TrialSpec
from ecgscale.turns import clock, in_common, is_alone, of_the_process

StateDict = dict[str, Tensor]

MOST_COMPILED = 64
"""Versions of one piece of code, for all trials that take turns. After torch's 8 it goes on uncompiled, without a word.
Our choice."""


@dataclass
class Evaluation:
    """The validation losses of one training, and the weights of the best."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best_weights: StateDict = field(default_factory=dict)

    @property
    def best(self) -> int:
        return min(range(len(self.losses)), key=self.losses.__getitem__)


class Pretraining(pl.LightningModule):
    """Encoder and objective with AdamW, linear warm-up and cosine decay to zero.

    Attributes:
        microbatch: how many records of a batch have their activations in memory at a time; None for all of them. The
            step is that of the whole batch either way, up to the order of additions; in parts, the forward pass is done
            twice.
        parametrisation: which weights learn slower than others (µP).
        way: how a step is computed. Stacked, it is computed with those of others who take turns, and never in parts.
        compiled: the encoder as it is run in training, if that was compiled; in a list, since torch would take it for a
            second encoder.
    """

    def __init__(self, encoder: Encoder, objective: Objective, spec: TrialSpec, scale: Sequence[float]) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.spec = spec
        self.scale = scale
        self.microbatch: int | None = None
        self.parametrisation = Parametrisation()
        self.way: Way = "eager"
        self.compiled: list[Any] = []
        self.frozen = spec.start is not None and spec.start.frozen
        if self.frozen:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder keeps the statistics of its batches, too."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def normalised(
        self,
        batch: DigitalBatch,
        augment: AugmentSpec | None = None,
        scale: tuple[float, ...] | None = None,
        damage: Damage | None = None,
    ) -> Batch:
        """Cropped, cast and normalised on the module's device; changed at random when `augment` says how.

        Args:
            scale: of the store that the batch is from, when that is not the training store.
            damage: done to the signal in its unit before it is normalised; see `make_batch`.
        """
        progressed()  # every batch comes through here: of a step, of a score, of features
        scale = tuple(self.scale) if scale is None else scale

        def made() -> Batch:
            moved = batch.to(self.device)
            return make_batch(
                moved.digital,
                moved.start,
                moved.stop,
                moved.targets,
                scale=scale,
                normalise=self.spec.input.normalise,
                key=moved.key,
                n_samples=self.spec.input.n_samples,
                augment=augment,
                damage=damage,
            )

        if batch.made is None or damage is not None:
            return made()
        how = (self.spec.input, scale, augment, self.device)
        if how not in batch.made:
            batch.made[how] = made()
        shared: Batch = batch.made[how]
        return replace(shared, targets=batch.targets.to(self.device))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # int16 travels in `normalised`

    def training_step(self, batch: DigitalBatch, batch_idx: int) -> Tensor:
        self.objective.step_fraction = step_of(batch.key) / self.spec.n_steps
        whole = self.drawn(batch, self.spec.train.augment)
        if self.microbatch is not None:
            return self.loss_in_parts(whole, self.microbatch)
        if self.way == "stacked":
            return in_common(stacking.Step(self, whole, self.form), stacking.losses)
        loss: Tensor = self(whole)
        return loss

    @property
    def form(self) -> Hashable:
        """Equal where another module would compute the same loss of the same batch with the same weights."""
        return self.spec.form, self.objective.stage

    def drawn(self, batch: DigitalBatch, augment: AugmentSpec | None = None) -> Batch:
        """`normalised`, with what the objective draws for it."""
        return self.objective.drawn(self.normalised(batch, augment))

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        return self.scored(batch).loss

    def loss_in_parts(self, batch: Batch, size: int) -> Tensor:
        """The loss of a batch, `size` records of it at a time."""
        # each part forgets its activations, and computes them again when its turn comes in the backward pass;
        # generators need no rewinding, since all that is random has a key
        found = [
            recomputed(self.scored, part, use_reentrant=False, preserve_rng_state=False) for part in batch.split(size)
        ]
        loss_sum = torch.stack([scored.loss_sum for scored in found]).sum()
        return Scored(loss_sum, torch.stack([scored.weight for scored in found]).sum()).loss

    def parts(self, batch: Batch) -> Iterable[Batch]:
        """What is to be in memory at a time."""
        return (batch,) if self.microbatch is None else batch.split(self.microbatch)

    def scored(self, part: Batch) -> Scored:
        encoder = self.compiled[0] if self.compiled and self.training else self.encoder
        scored: Scored = self.objective(encoder, part)
        return scored

    @contextmanager
    def compiled_encoder(self, *, graphs: bool = False) -> Iterator[None]:
        """Within the block, training runs the encoder compiled; a fused operator adds in another order.

        What was compiled before in this process is forgotten, but for the encoders of those who take turns.

        Args:
            graphs: on a GPU, all launches of a pass as one (CUDA graphs), unless others take turns: torch keeps them
                apart by threads.
        """
        from torch import _dynamo  # seconds to import

        limit = _dynamo.config.patch(cache_size_limit=MOST_COMPILED)  # holds for this thread alone
        with of_the_process("compilation", _nothing_compiled), limit:
            mode = "reduce-overhead" if graphs and torch.cuda.is_available() and is_alone() else "default"
            self.compiled = [torch.compile(self.encoder, dynamic=False, mode=mode)]  # every batch is of one size
            try:
                yield
            finally:
                self.compiled = []

    def configure_optimizers(self) -> Any:
        recipe = self.spec.train
        learned = {name: weight for name, weight in self.named_parameters() if weight.requires_grad}
        groups = self.parametrisation.optimizer_groups(
            learned, peak_lr=self.spec.peak_lr, weight_decay=recipe.weight_decay
        )
        optimizer = torch.optim.AdamW(groups, lr=self.spec.peak_lr, fused=True)
        n_steps = self.spec.n_steps
        n_warmup = max(1, round(recipe.warmup_fraction * n_steps))

        def factor(step: int) -> float:
            if step < n_warmup:
                return (step + 1) / n_warmup
            return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        # Lightning refuses a fused optimizer here, which could scale gradients after they are clipped; none is scaled
        self.clip()

    def clip(self) -> None:
        """Shrinks all gradients together to the recipe's norm, where theirs is larger."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.spec.train.clip_norm)


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield


def is_of_the_compiler(error: Exception) -> bool:
    """torch could not compile: for one, without a C++ compiler."""
    from torch._dynamo.exc import TorchDynamoException  # seconds to import

    return isinstance(error, TorchDynamoException)


@torch.no_grad()
def evaluate(module: Pretraining, source: RecordSource) -> tuple[float, Tensor | None]:
    """(loss over all records of `source`, logits `(record, label)` or None), in evaluation mode and full precision."""
    was_training = module.training
    module.eval()
    loss_sum, weight = 0.0, 0.0
    logits: list[Tensor] = []
    for batch in source.in_order():
        for part in module.parts(module.drawn(batch)):
            scored = module.scored(part)
            loss_sum += float(scored.loss_sum.double())
            weight += float(scored.weight)
            if scored.logits is not None:
                logits.append(scored.logits.float().cpu())
    module.train(was_training)
    return loss_sum / max(weight, 1.0), torch.cat(logits) if logits else None


class ValidateAtSteps(Callback):
    """Takes the validation loss at evenly spaced steps, the last one included, and keeps the best weights.

    Raises:
        Diverged: out of `trainer.fit`, when the training or validation loss is not finite.
    """

    def __init__(
        self, source: RecordSource, n_steps: int, n_evaluations: int, *, first_step: int = 0, result: Evaluation
    ) -> None:
        self.source = source
        self.steps = {math.ceil(n_steps * k / n_evaluations) for k in range(1, n_evaluations + 1)}
        self.first_step = first_step
        self.result = result
        self.seconds = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = self.first_step + batch_idx + 1
        if step not in self.steps:
            return
        assert isinstance(pl_module, Pretraining)
        started = clock()
        loss, _ = evaluate(pl_module, self.source)
        train_loss = float(outputs["loss"])
        if not (math.isfinite(loss) and math.isfinite(train_loss)):
            raise Diverged(f"loss is {loss:g} on validation, {train_loss:g} in training at step {step}")
        result = self.result
        result.steps.append(step)
        result.losses.append(loss)
        if result.best == len(result.losses) - 1:
            result.best_weights = copy.deepcopy(pl_module.state_dict())
        for logger in trainer.loggers:
            logger.log_metrics({"val_loss": loss, "train_loss": train_loss}, step=step)
        self.seconds += clock() - started


class KeepProgress(Callback):
    """Restores what the checkpoint holds beside the weights, writes it when it is due, stops when asked to.

    Comes after `ValidateAtSteps`, so that a checkpoint of a step holds that step's evaluation.

    Raises:
        Preempted: out of `trainer.fit`, at the end of a step and after a checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint | None, stop: StopRequest, validate: ValidateAtSteps) -> None:
        self.checkpoint = checkpoint
        self.resumed = checkpoint.resumed if checkpoint is not None else None
        self.stop = stop
        self.validate = validate
        self.seconds = 0.0

    @property
    def train_s(self) -> float:
        """Seconds in training steps, those before the training was continued included."""
        earlier_s = self.resumed.train_s if self.resumed is not None else 0.0
        return earlier_s + clock() - self.started - self.validate.seconds - self.seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = clock()
        self.stop.take_signals_again()
        if self.resumed is not None:
            trainer.optimizers[0].load_state_dict(self.resumed.optimizer)
            trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.resumed.scheduler)
            restore_random(self.resumed.random)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.checkpoint is not None and (self.checkpoint.is_due or self.stop.reason is not None):
            train_s, started = self.train_s, clock()
            self.checkpoint.write(
                step=self.validate.first_step + batch_idx + 1,
                module=pl_module.state_dict(),
                optimizer=trainer.optimizers[0].state_dict(),
                scheduler=trainer.lr_scheduler_configs[0].scheduler.state_dict(),
                evaluation=vars(self.validate.result),
                train_s=train_s,
            )
            self.seconds += clock() - started
        self.stop.check()


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning counsels worker processes and loggers; an in-memory store needs neither."""
    with of_the_process("warnings", warnings.catch_warnings):
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*|.*TF32.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        yield


def fit(
    module: Pretraining,
    stream: TrainingStream,
    validation: RecordSource,
    *,
    accelerator: str,
    loggers: Iterable[Any] = (),
    checkpoint: Checkpoint | None = None,
    stop: StopRequest | None = None,
) -> tuple[Evaluation, float]:
    """Trains for the spec's steps; returns the evaluations and the seconds spent in training steps.

    Args:
        stream: from the step on that the checkpoint was resumed at.
        checkpoint: where progress is kept, and gone on from if it was resumed.
        stop: what may ask for an early end.

    Raises:
        Diverged: the loss is no longer finite.
        Preempted: `stop` asked for it; the checkpoint is written.
    """
    spec = module.spec
    resumed = checkpoint.resumed if checkpoint is not None else None
    result = Evaluation()
    if resumed is not None:
        assert stream.first_step == resumed.step
        module.load_state_dict(resumed.module)
        result = Evaluation(**resumed.evaluation)
        if resumed.step == spec.n_steps:
            return result, resumed.train_s
    on_gpu = accelerator != "cpu"
    validate = ValidateAtSteps(
        validation, spec.n_steps, spec.train.n_evaluations, first_step=stream.first_step, result=result
    )
    progress = KeepProgress(checkpoint, stop or StopRequest(), validate)
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=spec.n_steps - stream.first_step,
        precision="bf16-mixed" if on_gpu and spec.train.precision == "bf16_on_gpu" else "32-true",
        gradient_clip_val=spec.train.clip_norm,
        deterministic="warn" if on_gpu else True,
        callbacks=[validate, progress],
        plugins=[LightningEnvironment()],  # a trial is one process: Slurm's tasks are other trials
        logger=list(loggers),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, train_dataloaders=stream)
    except SystemExit as stopped:
        # Lightning answers Ctrl-C with an exit of its own, after switching the signal off
        if not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    return result, progress.train_s
