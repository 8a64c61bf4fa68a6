"""Scaling laws: arrays in, plain `LawFit` values with intervals, status and flags out. numpy and scipy only.

This room knows nothing of sweeps, trainings or figures: `fit("chinchilla", n, d, loss)` works on anybody's table.
"""

from ecgscale.laws.estimate import fit
from ecgscale.laws.forms import LAWS, AdditiveLaw, Law, Term, get_law
from ecgscale.laws.loss_to_loss import PairFit, fit_pair, fit_pair_with_floors
from ecgscale.laws.result import FitStatus, LawFit, ObjectiveValue, Prediction

__all__ = [
    "LAWS",
    "AdditiveLaw",
    "FitStatus",
    "Law",
    "LawFit",
    "ObjectiveValue",
    "PairFit",
    "Prediction",
    "Term",
    "fit",
    "fit_pair",
    "fit_pair_with_floors",
    "get_law",
]
