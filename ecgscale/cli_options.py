"""Arguments that several commands take, and the exit statuses that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
SweepFile = Annotated[Path, typer.Argument(help="A sweep file, for example sweeps/grid_small.yaml.")]
DataDir = Annotated[Path, typer.Option("--data", help="Data directory; each population is a folder in it.")]

EXIT_TRIALS_FAILED = 3
EXIT_SAME_BUG = 4
EXIT_INTERRUPTED = 130
