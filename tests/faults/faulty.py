"""The command line, with trials that go wrong: started with the arguments of `ecgscale`, and in the environment

    FAULTS    JSON: label of a trial → for each time it is run, one of the functions below
    RUNS      a folder that counts them

Workers that the command starts run this file, too.
"""

import ctypes
import json
import os
import time
from pathlib import Path
from typing import NoReturn

from ecgscale.cli import main
from ecgscale.training import Pretraining

LEAK_BYTES = 2**27


def keep_the_interpreter() -> None:
    """A call into C that neither returns nor lets another thread run."""
    ctypes.PyDLL(None).pause()


def leak() -> NoReturn:
    held = []
    while True:
        held.append(b"\1" * LEAK_BYTES)
        time.sleep(0.05)


FAULTS = {function.__name__: function for function in (keep_the_interpreter, leak)}

_wanted = json.loads(os.environ["FAULTS"])
_step = Pretraining.training_step


def _step_with_fault(self, batch, batch_idx):
    label = self.spec.label
    if batch_idx == 1 and label in _wanted:
        runs = Path(os.environ["RUNS"])
        n = len(list(runs.glob(f"{label}.*")))
        (runs / f"{label}.{n}").touch()
        FAULTS[_wanted[label][n]]()
    return _step(self, batch, batch_idx)


Pretraining.training_step = _step_with_fault

if __name__ == "__main__":
    main()
