"""The weights of a trained encoder, head or decoder included, kept for what is read off them later.

    results/X/encoders/TRIAL.ckpt    those of the best validation loss, which were scored; see `tensor_file`

Without it, or when it is damaged, another read-out has to train again, to the same weights. So the folder may be
deleted; it costs time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ecgscale import tensor_file
from ecgscale.checkpoint import shapes
from ecgscale.errors import DataError
from ecgscale.results import ENCODERS
from ecgscale.spec_base import file_fingerprint
from ecgscale.training import Pretraining

ENCODER = "encoder."
"""How the names of an encoder's weights begin in a module."""

log = logging.getLogger(__name__)


def keep(results: Path, trial_id: str, weights: dict[str, Tensor], may_write: Callable[[], bool]) -> None:
    """Publishes the weights of a trial. A disk that is full costs them, not the trial."""
    path = encoder_path(results, trial_id)
    tensor_file.clear_unfinished(path)
    try:
        if tensor_file.write(path, {"trial": trial_id, "weights": dict(weights)}, may_write):
            tensor_file.remove_aside(path)
    except (OSError, RuntimeError) as error:  # the latter is torch's
        log.warning("encoder of trial %s is not kept, another read-out of it trains again: %s", trial_id, error)


def load(results: Path, trial_id: str, module: Pretraining) -> bool:
    """Gives a module the weights of a trial.

    Returns:
        False if there are none that can be used, and says why; a damaged file is set aside.
    """
    path = encoder_path(results, trial_id)
    try:
        content = tensor_file.read(path)
        if content["trial"] != trial_id:
            raise ValueError("it is of another trial")
        if shapes(content["weights"]) != shapes(module.state_dict()):
            raise ValueError("its weights are of another network")
        module.load_state_dict(content["weights"])
    except FileNotFoundError:
        log.warning("%s: the encoder is gone", path.name)
        return False
    except tensor_file.UNUSABLE as error:
        log.warning("%s: the encoder can't be used: %s; %s", path.name, error, tensor_file.set_aside(path))
        return False
    return True


def export(results: Path, trial_id: str, out: Path) -> None:
    """Copies the weights of a trial to where other trainings can begin with them.

    Raises:
        DataError: they are gone or damaged.
    """
    path = encoder_path(results, trial_id)
    try:
        tensor_file.write(out, tensor_file.read(path))
    except FileNotFoundError:
        raise DataError(f"{path}: the weights of this trial were not kept") from None
    except tensor_file.UNUSABLE as error:
        raise DataError(f"{path}: can't be used ({error})") from None


def begin_with(module: Pretraining, path: Path, fingerprint: str | None) -> None:
    """Gives the encoder of a module, not its head, the weights of a file that `export` made.

    Args:
        fingerprint: that the file must have; None for any.

    Raises:
        DataError: the file is missing, damaged, another one, or of another network.
    """
    try:
        if fingerprint not in (None, file_fingerprint(path)):
            raise DataError(f"{path}: has changed since the plan was made; run the sweep again")
        weights = tensor_file.read(path)["weights"]
        own = {k.removeprefix(ENCODER): v for k, v in weights.items() if k.startswith(ENCODER)}
        if shapes(own) != shapes(module.encoder.state_dict()):
            raise DataError(f"{path}: is not of a {module.spec.family} of {module.spec.rung} on this input")
        module.encoder.load_state_dict(own)
    except FileNotFoundError:
        raise DataError(f"{path}: is not there") from None
    except tensor_file.UNUSABLE as error:
        raise DataError(f"{path}: can't be used ({error})") from None


def encoder_path(results: Path, trial_id: str) -> Path:
    return results / ENCODERS / f"{trial_id}.ckpt"
