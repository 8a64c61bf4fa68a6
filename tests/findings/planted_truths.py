"""Grids and truths for planted studies: what differs between arms is known, everything else is the same."""

from functools import cache

import pytest

from ecgscale import fitted, sweep_laws
from ecgscale.errors import FitError
from ecgscale.findings import conclusions
from ecgscale.fitted import Method
from ecgscale.planted import ArmTruth, LabelTruth, LawTruth, NoiseTruth, TransferTruth, Truth, simulate
from ecgscale.specs import GridSpec

ARMS = ("resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl")
N_RECORDS = 1_740_000
LARGEST_N = 2e7
"""About the 20M rung: where the terms of the truths below are given."""


def grid(rungs=("20K", "200K", "2M", "20M"), fractions=5, seeds=2, tasks=1, n_labels=(6,)):
    """Four arms; fractions are powers of a quarter; per kind (seen, unseen) so many tasks on population B."""
    seen = [{"name": label, "column": label} for label in ("AF", "SB", "ST", "LBBB", "RBBB")[:tasks]]
    unseen = [{"name": f"new_{k}", "column": f"new_{k}"} for k in range(tasks)]
    rate = {"base": 1e-3}
    return GridSpec.model_validate(
        {
            "name": "planted",
            "question": "Does what was planted come back?",
            "data": {"train_on": "A", "transfer_to": ["B"], "n_train_records": N_RECORDS},
            "input": {"fs_hz": 400, "n_samples": 4096, "patch_samples": 64},
            "axes": {
                "family": ["resnet", "transformer"],
                "paradigm": ["sl", "ssl"],
                "rung": rungs,
                "data_fraction": [4.0**-k for k in range(fractions)],
                "n_labels": n_labels,
                "seed": range(seeds),
            },
            "train": {
                "budget": {"kind": "epochs", "value": 10},
                "learning_rate": {"resnet": rate, "transformer": rate},
            },
            "probe": {"tasks": seen + unseen},
        }
    )


def law(size_term, data_term, floor=0.2, alpha=0.35, beta=0.30):
    """By its two reducible terms at the largest N and D."""
    return LawTruth(E=floor, A=size_term * LARGEST_N**alpha, alpha=alpha, B=data_term * N_RECORDS**beta, beta=beta)


def truth(laws=None, transfer=None, noise=0.01, failed=0.0, labels=None, everywhere=None):
    """By default every arm is the same.

    Args:
        laws: arm → its law in distribution.
        transfer: (arm, "seen" | "unseen") → fields of its `TransferTruth`.
        everywhere: fields of every `TransferTruth`.
    """
    arms = {}
    for arm in ARMS:
        to = {
            kind: TransferTruth(**{"floor": 0.3} | (everywhere or {}) | (transfer or {}).get((arm, kind), {}))
            for kind in ("seen", "unseen")
        }
        arms[arm] = ArmTruth(in_distribution=(laws or {}).get(arm, law(0.03, 0.03)), **to)
    return Truth(
        arms=arms,
        noise=NoiseTruth(trial=noise / 2**0.5, loss=noise / 2**0.5),
        labels=labels or LabelTruth(),
        failed=failed,
    )


def truth_with_noise(planted, noise):
    return planted.model_copy(update={"noise": NoiseTruth(trial=noise / 2**0.5, loss=noise / 2**0.5)})


NOTHING_DIFFERS = truth()
EFFICIENT = truth(
    transfer={
        (arm, kind): {
            "parameters": 2.0 if arm.startswith("resnet") else 1.0,
            "records": 4.0 if arm.endswith("-ssl") else 1.0,
        }
        for arm in ARMS
        for kind in ("seen", "unseen")
    },
)

BOTTLENECKED = truth(laws={arm: law(0.015, 0.06) for arm in ("resnet-sl", "transformer-sl")})

CROSSING_AT = LARGEST_N * (0.03 * (1 - 30**-0.35) / 0.02) ** (1 / 0.35)
"""Where 0.02 less floor makes up for 30 times the parameters: just beyond the largest size."""

CROSSING = truth(
    transfer={("resnet-ssl", kind): {"floor": 0.32, "parameters": 30.0} for kind in ("seen", "unseen")},
    noise=0.003,
)
TRANSFERRING = truth(
    laws=dict.fromkeys(ARMS, law(0.03, 0.03, alpha=0.6, beta=0.5)),
    transfer={(arm, "unseen"): {"kappa": 1.25 if arm.endswith("-ssl") else 0.8} for arm in ARMS},
    noise=0.003,
)
WITH_LABELS = truth(labels=LabelTruth(in_distribution=0.3, seen=0.05, unseen=-0.1))

STUDIES = {
    "nothing differs": (grid(), NOTHING_DIFFERS),
    "efficient": (grid(), EFFICIENT),
    "bottlenecked": (grid(), BOTTLENECKED),
    "crossing": (grid(), CROSSING),
    "transferring": (grid(), TRANSFERRING),
    "with labels": (grid(n_labels=(1, 2, 6)), WITH_LABELS),
    "small": (grid(rungs=("20K", "60K", "200K"), fractions=4, seeds=1), truth_with_noise(EFFICIENT, 0.03)),
}


@cache
def concluded(name, seed):
    """The conclusions of one simulated study, by name.

    Only what the claims read is fitted: no hold-outs, frontiers or comparisons, which other tests look at.
    """
    with pytest.MonkeyPatch.context() as patch:
        for what in ("choices", "comparisons", "pooled"):
            patch.setattr(sweep_laws, what, lambda *_: ())
        patch.setattr(sweep_laws, "LEVELS_FOR_A_FLOOR", 99)
        patch.setattr(fitted, "hold_out", _refuse)
        patch.setattr(fitted, "compute_frontier", lambda *_, **__: None)
        records = simulate(*STUDIES[name], seed=seed)
        study = sweep_laws.records_study(name, None, records, Method(bootstrap=200))
    return {conclusion.name: conclusion for conclusion in conclusions(study)}


def _refuse(*_, **__):
    raise FitError("not asked for")
