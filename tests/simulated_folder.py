"""A results folder as a sweep of four arms leaves it half way: some trials failed, some have not run, none is real."""

from pathlib import Path

from ecgscale.planted import Truth, write_simulated
from ecgscale.results import latest, read

SWEEP = """\
name: simulated
question: Do ResNets need fewer parameters, and does self-supervision need fewer records?

data:
  train_on: A
  transfer_to: [B]
  n_train_records: 80000

input: {fs_hz: 100, n_samples: 1024, patch_samples: 16}

axes:
  family: [resnet, transformer]
  paradigm: [sl, ssl]
  rung: [20K, 60K, 200K, 600K]
  data_fraction: [1/64, 1/16, 1/4, 1]
  seed: [0, 1]

train:
  budget: {kind: epochs, value: 4}
  batch_size: 16
  learning_rate:
    resnet: {base: 3e-3}
    transformer: {base: 2e-3}

probe:
  tasks:
    - {name: SB, column: SB}
    - {name: male, column: is_male}
    - {name: over_65, column: age, above: 65}
"""

N_TRIALS = 4 * 4 * 4 * 2
N_MISSING = 3

_LAW = {"E": 0.2, "A": 9.0, "alpha": 0.4, "B": 4.0, "beta": 0.45}
_ELSEWHERE = {"floor": 0.3, "scale": 1.2}

TRUTH = {
    "arms": {
        f"{family}-{paradigm}": {
            "in_distribution": _LAW,
            "seen": _ELSEWHERE | {"parameters": more_n},
            "unseen": _ELSEWHERE | {"parameters": more_n, "records": more_d},
        }
        for family, more_n in (("resnet", 2.0), ("transformer", 1.0))
        for paradigm, more_d in (("sl", 1.0), ("ssl", 4.0))
    },
    "failed": 0.03,
}


def make(folder: Path) -> Path:
    """Fills `folder`, which must not hold results; returns it."""
    sweep = folder.parent / "simulated.yaml"
    sweep.write_text(SWEEP)
    write_simulated(sweep, Truth.model_validate(TRUTH), folder)
    done = [r for r in latest(read(folder)).values() if r.status == "completed"]
    for record in done[:N_MISSING]:
        (folder / "rows" / f"{record.trial_id}-{record.attempt}.parquet").unlink()
    return folder
