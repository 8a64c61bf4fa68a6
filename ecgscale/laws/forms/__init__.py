"""Functional forms by name. Each law is a small object: names, prediction, derivatives, starts and bounds."""

from dataclasses import replace

import numpy as np

from ecgscale.errors import FitError
from ecgscale.laws.forms.additive import AdditiveLaw, MultiplicativeLaw, Term
from ecgscale.laws.forms.coupled import KaplanLaw, SkalingLaw
from ecgscale.laws.forms.law import Law, free_parameters
from ecgscale.laws.link import Logit

__all__ = [
    "LAWS",
    "AdditiveLaw",
    "KaplanLaw",
    "Law",
    "MultiplicativeLaw",
    "NamedLaw",
    "SkalingLaw",
    "Term",
    "free_parameters",
    "get_law",
    "with_floor",
]

NamedLaw = AdditiveLaw | MultiplicativeLaw | KaplanLaw | SkalingLaw

_N_TERM, _D_TERM = Term("A", "alpha", 0), Term("B", "beta", 1)

LAWS: dict[str, NamedLaw] = {
    law.name: law
    for law in (
        # L = E + A N^-α + B D^-β: Hoffmann et al. 2022, arXiv 2203.15556, approach 3.
        AdditiveLaw("chinchilla", ("N", "D"), (_N_TERM, _D_TERM)),
        # The same with one exponent: Gadre et al. 2024, arXiv 2403.08540; Muennighoff et al. 2023, arXiv 2305.16264.
        AdditiveLaw("chinchilla_tied", ("N", "D"), (_N_TERM, Term("B", "alpha", 1))),
        KaplanLaw(),
        SkalingLaw(),
        # L = E + A N^-α D^-β: Zhang et al. 2024, arXiv 2402.17193.
        MultiplicativeLaw(),
        # L = E + A X^-α in one variable: N at the largest D, D at the largest N, or C.
        AdditiveLaw("power_floor", ("X",), (_N_TERM,)),
        # L = A X^-α: Kaplan et al. 2020, arXiv 2001.08361; Yao et al. 2025, arXiv 2410.12360.
        AdditiveLaw("power", ("X",), (_N_TERM,), has_floor=False),
        # y = 1 / (1 + A X^-α), a score that goes from 0 to 1: Ruan et al. 2024, arXiv 2405.10938.
        AdditiveLaw("sigmoid", ("X",), (_N_TERM,), has_floor=False, link=Logit(0.0, 1.0)),
    )
}


def get_law(law: Law | str, bounded: tuple[float, float] | None = None) -> Law:
    """A law by its name, or the law itself.

    Args:
        bounded: (worst, best) of a bounded metric, whose error odds are to follow the law.
    """
    if isinstance(law, str):
        if law not in LAWS:
            raise FitError(f"unknown law {law!r}: choose one of {', '.join(LAWS)}")
        named = LAWS[law]
        return named if bounded is None else replace(named, link=Logit(*bounded))
    if bounded is not None:
        raise FitError(f"law {law.name} is an object of its own: give it the link Logit{bounded} instead of bounded")
    return law


def with_floor(law: Law | str, floor: float) -> Law:
    """The law with its floor given in loss units: E stays in `theta`, at this value, and is not fitted."""
    law = get_law(law)
    if not (law.has_floor and isinstance(law, NamedLaw)):
        raise FitError(f"law {law.name} has no floor that could be given")
    if not (np.isfinite(floor) and floor >= 0):
        raise FitError(f"a given floor must be zero or a positive number, got {floor}")
    return replace(law, given_floor=float(floor))
