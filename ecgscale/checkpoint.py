"""The unfinished training of a trial in one file, from which it goes on as if it had never been interrupted.

One that is damaged, or of another trial, data or version, is set aside and said so; the trial then starts from the
beginning. A disk that is full costs the checkpoint, never the training. See `tensor_file` for the file.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgscale import tensor_file
from ecgscale.execution import Way
from ecgscale.turns import clock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """A training at the end of a step.

    Attributes:
        step: steps done.
        evaluation: the fields of the `Evaluation` so far, the best weights among them.
        train_s: seconds in training steps up to here, over all parts of the training.
        random: states of the global generators; nothing draws from them today, but a new objective might (NumPy's is
            banned from the code).
        wall_s: seconds up to here, over all parts.
        n_resumes: how often the training had been continued.
        microbatch, way: see `Checkpoint`.
    """

    step: int
    module: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    evaluation: dict[str, Any]
    train_s: float
    random: dict[str, Any]
    wall_s: float
    n_resumes: int
    microbatch: int | None = None
    way: Way = "eager"


class Checkpoint:
    """Where one trial keeps its progress.

    Args:
        identity: what must be equal for a checkpoint to be of use: name → value.
        every_s: seconds between checkpoints; 0 for none by time.
        may_write: asked right before one is put in its place; False when another runs the trial by now.

    Attributes:
        microbatch: records of a batch that are in memory at a time; None for all. Another number adds in another
            order, so a training goes on with the one it had.
        way: how training steps are computed, for which the same holds; None while that is open.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, str], every_s: float, may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self.path = path
        self.identity = dict(identity)
        self.every_s = every_s
        self.may_write = may_write
        self.microbatch: int | None = None
        self.way: Way | None = None
        self.resumed: Progress | None = None
        self._started, self._last = clock(), time.monotonic()

    @property
    def wall_s(self) -> float:
        """Seconds spent on the trial, those before it was continued included."""
        return clock() - self._started + (self.resumed.wall_s if self.resumed else 0.0)

    @property
    def n_resumes(self) -> int:
        return self.resumed.n_resumes + 1 if self.resumed else 0

    @property
    def is_due(self) -> bool:
        return self.every_s > 0 and time.monotonic() - self._last >= self.every_s

    def resume(self, data_fingerprint: str, module: Mapping[str, Tensor]) -> Progress | None:
        """The progress to go on from, None to start from the beginning.

        Args:
            data_fingerprint: of the training records; becomes part of the identity.
            module: the weights as they start, for names and shapes.
        """
        self.identity["data set"] = data_fingerprint
        tensor_file.clear_unfinished(self.path)
        try:
            content = tensor_file.read(self.path)
            differing = [name for name, value in self.identity.items() if content["identity"].get(name) != value]
            if differing:
                raise ValueError(f"it is of another {' and '.join(differing)}")
            progress = Progress(**content["progress"])
            if shapes(progress.module) != shapes(module):
                raise ValueError("its weights are of another network")
        except FileNotFoundError:
            return None
        except tensor_file.UNUSABLE as error:
            log.warning("%s: can't be continued from: %s; %s", self.path.name, error, tensor_file.set_aside(self.path))
            return None
        self.resumed = progress
        self.microbatch = self.microbatch or progress.microbatch
        self.way = self.way or progress.way
        self._started = clock()  # what was before is in its wall_s
        return progress

    def write(
        self,
        step: int,
        module: dict[str, Tensor],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any],
        evaluation: dict[str, Any],
        train_s: float,
    ) -> bool:
        """Replaces the checkpoint. False when it can't be written, with a warning, or may not: the former one stays."""
        fields = {"step": step, "module": dict(module), "optimizer": optimizer, "scheduler": scheduler}
        fields |= {"evaluation": evaluation, "train_s": train_s, "random": random_state()}
        fields |= {"wall_s": self.wall_s, "n_resumes": self.n_resumes}
        fields |= {"microbatch": self.microbatch, "way": self.way or "eager"}
        try:
            return tensor_file.write(self.path, {"identity": self.identity, "progress": fields}, self.may_write)
        except (OSError, RuntimeError) as error:  # the latter is torch's
            log.warning("no checkpoint of trial %s at step %d: %s", self.path.stem, step, error)
            return False
        finally:
            self._last = time.monotonic()

    def start_over(self, way: Way) -> None:
        """Forgets the progress: what is computed in another way adds in another order."""
        self.remove()
        self.resumed = None
        self.way = way

    def remove(self) -> None:
        """What was set aside, too."""
        tensor_file.remove(self.path)


def checkpoint_path(results: Path, trial_id: str) -> Path:
    return results / "checkpoints" / f"{trial_id}.ckpt"


def random_state() -> dict[str, Any]:
    """Where the global generators are."""
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
    }


def restore_random(state: Mapping[str, Any]) -> None:
    """Sets the global generators to where they were."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """By which weights of one network are told from those of another."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
