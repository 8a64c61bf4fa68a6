"""What settled trials have left in the results folder, since their process was killed right after the row."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ecgscale.hangs import HANGS
from ecgscale.leases import Leases
from ecgscale.prediction_files import PREDICTIONS
from ecgscale.results import ENCODERS
from ecgscale.transfer_files import TRANSFER

FOLDERS = ("checkpoints", HANGS, "baselines")
"""Files whose name begins with a trial's id are that trial's alone."""

PUBLISHED = ("rows", TRANSFER, ENCODERS, PREDICTIONS, "features")
"""Of these, only what was not finished."""


def clear_away(results: Path, settled: Collection[str]) -> None:
    """Removes checkpoints, notes of hangs, unfinished rows and dead leases of trials that are not run again."""
    leases = Leases(results)
    with suppress(OSError):  # a folder that has become read-only keeps them
        left = [path for folder in FOLDERS for path in (results / folder).glob("*")]
        unfinished = (path for folder in PUBLISHED for path in (results / folder).glob("*.tmp"))
        for path in [*left, *unfinished]:
            if path.name.split(".")[0].split("-")[0] in settled:
                path.unlink(missing_ok=True)
        for file in leases.files():
            if file.trial_id in settled:
                leases.clear(file.trial_id)
