"""Optional experiment tracking with wandb: off unless asked for, never needing a network unless asked to.

One run per trial, grouped by sweep; one logged row per evaluation. wandb is imported only when it is on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from ecgscale.errors import EcgscaleError
from ecgscale.execution import WandbMode
from ecgscale.specs import TrialSpec


def wandb_mode(flag: str | None) -> WandbMode:
    """The flag, else `WANDB_MODE`, else disabled.

    Raises:
        EcgscaleError: no such mode, or `online` without a key, which would fail inside every trial.
    """
    mode = flag or os.environ.get("WANDB_MODE") or "disabled"
    if mode not in get_args(WandbMode):
        raise EcgscaleError(f"wandb mode {mode!r} does not exist; there are {', '.join(get_args(WandbMode))}")
    if mode == "online" and not os.environ.get("WANDB_API_KEY") and not (Path.home() / ".netrc").exists():
        raise EcgscaleError("wandb online needs a key: run `wandb login`, set WANDB_API_KEY, or use --wandb offline")
    return mode  # type: ignore[return-value]


@contextmanager
def loggers(mode: WandbMode, spec: TrialSpec, sweep: str, folder: Path) -> Iterator[list[Any]]:
    """Lightning loggers of one trial: none, or one wandb run that is finished on leaving and kept in `folder/wandb`."""
    if mode == "disabled":
        yield []
        return
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        project="ecgscale",
        group=sweep,
        name=spec.label,
        id=f"{spec.trial_id}-{os.getpid()}-{os.urandom(3).hex()}",
        save_dir=str(folder),
        offline=mode == "offline",
        config=spec.model_dump(mode="json"),
    )
    try:
        yield [logger]
    finally:
        wandb.finish()
