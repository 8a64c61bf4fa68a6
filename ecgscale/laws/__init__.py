"""Scaling laws: arrays in, plain `LawFit` values with intervals, status and flags out. numpy and scipy only.

This room knows nothing of sweeps, trainings or figures: `fit("chinchilla", n, d, loss)` works on anybody's table.
"""

from ecgscale.laws.bottleneck import DataLimited, data_limited, term_ratio
from ecgscale.laws.derived import Estimate
from ecgscale.laws.efficiency import Efficiency, EqualLoss, Multiplier, compare_arms, equal_loss
from ecgscale.laws.estimate import fit
from ecgscale.laws.floor_profile import FloorProfile, profile_floor
from ecgscale.laws.forms import (
    LAWS,
    AdditiveLaw,
    KaplanLaw,
    Law,
    MultiplicativeLaw,
    SkalingLaw,
    Term,
    get_law,
    with_floor,
)
from ecgscale.laws.frontier import Frontier, compute_frontier
from ecgscale.laws.held_out import HoldOut, hold_out
from ecgscale.laws.isoflop import IsoFlop, fit_isoflops
from ecgscale.laws.link import Logit
from ecgscale.laws.loss_to_loss import PairFit, fit_pair, fit_pair_with_floors
from ecgscale.laws.overtaking import Overtaking, overtaking
from ecgscale.laws.pooling import Pooling, Shared, pool_pairs
from ecgscale.laws.ratios import Ratio, TransferEfficiency, exponent_ratios, transfer_efficiency
from ecgscale.laws.result import FitStatus, LawFit, ObjectiveValue, Prediction
from ecgscale.laws.selection import Candidate, Selection, aicc, compare_laws
from ecgscale.laws.side_by_side import SideBySide, fit_side_by_side
from ecgscale.laws.trend import end_elasticity

__all__ = [
    "LAWS",
    "AdditiveLaw",
    "Candidate",
    "DataLimited",
    "Efficiency",
    "EqualLoss",
    "Estimate",
    "FitStatus",
    "FloorProfile",
    "Frontier",
    "HoldOut",
    "IsoFlop",
    "KaplanLaw",
    "Law",
    "LawFit",
    "Logit",
    "MultiplicativeLaw",
    "Multiplier",
    "ObjectiveValue",
    "Overtaking",
    "PairFit",
    "Pooling",
    "Prediction",
    "Ratio",
    "Selection",
    "Shared",
    "SideBySide",
    "SkalingLaw",
    "Term",
    "TransferEfficiency",
    "aicc",
    "compare_arms",
    "compare_laws",
    "compute_frontier",
    "data_limited",
    "end_elasticity",
    "equal_loss",
    "exponent_ratios",
    "fit",
    "fit_isoflops",
    "fit_pair",
    "fit_pair_with_floors",
    "fit_side_by_side",
    "get_law",
    "hold_out",
    "overtaking",
    "pool_pairs",
    "profile_floor",
    "term_ratio",
    "transfer_efficiency",
    "with_floor",
]
