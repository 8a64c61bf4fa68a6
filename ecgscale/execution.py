"""How a trial runs: everything that may differ between machines and must not change its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

WandbMode = Literal["disabled", "offline", "online"]

Way = Literal["eager", "compiled", "stacked"]
"""How a training step is computed: as it stands; with the encoder compiled (`torch.compile`); for several trials at
once (`stacking`)."""


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
    ways: trial id → how its training steps are computed, where that is not as they stand; it changes the last digits,
        too.
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
    ways: Mapping[str, Way] = field(default_factory=dict)

    def way(self, trial_id: str) -> Way:
        return self.ways.get(trial_id, "eager")
