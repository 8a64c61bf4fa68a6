"""How a trial runs: everything that may differ between machines and must not change its answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WandbMode = Literal["disabled", "offline", "online"]


@dataclass(frozen=True)
class Execution:
    """Attributes:
    data: the data directory; each population is a folder in it.
    results: the results folder of the sweep.
    sweep: its name, a column of every row.
    threads: per trial on a CPU. Another number adds in another order, and so changes the last digits.
    wandb: experiment tracking.
    checkpoint_s: seconds between checkpoints of a training; 0 for none but those of a trial that is asked to stop.
    lease_s: so long a trial's owner must have been watched without a sign of life before another takes the trial over.
    hang_s: a trial that has made no progress for so long ends its process; 0 for never.
    argv: the command that runs the sweep, as it may be published; see `provenance.public_argv`.
    config_hash: of the sweep file as it was understood.
    compiled: ids of trials whose encoders are compiled for training, which changes the last digits, too.
    """

    data: Path
    results: Path
    sweep: str
    threads: int = 1
    wandb: WandbMode = "disabled"
    checkpoint_s: float = 300.0
    lease_s: float = 60.0
    hang_s: float = 1800.0
    argv: str | None = None
    config_hash: str | None = None
    compiled: frozenset[str] = frozenset()
