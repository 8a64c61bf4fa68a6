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
    """

    data: Path
    results: Path
    sweep: str
    threads: int = 1
    wandb: WandbMode = "disabled"
