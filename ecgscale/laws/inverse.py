"""At which size a law reaches a loss: the inverse of a law along one of its variables, for point and draws at once.

In closed form for sums of power laws; by bracketed search, on nothing but the law's own `loss`, for every other form.
"""

import numpy as np

from ecgscale.laws.arrays import FloatArray
from ecgscale.laws.bracket import crossing
from ecgscale.laws.derived import by_name
from ecgscale.laws.forms import AdditiveLaw, Law

SEARCHED = 1e6
"""A search goes this factor beyond the observed sizes on either side; further away is "never"."""


def size_at_loss(
    law: Law,
    rows: FloatArray,
    losses: FloatArray,
    axis: int,
    at: float | None,
    support: dict[str, tuple[float, float]],
) -> FloatArray:
    """Log of the size at which every row of parameters (row, p) reaches every loss: (row, loss).

    +inf where no size is large enough, −inf where none is small enough (of a law that falls with size).

    Args:
        law: Without a link; of a bounded metric, the law of its odds, and odds for losses.
        axis: Index of the variable that is solved for.
        at: The other variable of a law of two.
        support: Observed range per variable; the search starts from it.
    """
    own_terms = sum(term.variable == axis for term in law.terms) if isinstance(law, AdditiveLaw) else 0
    if isinstance(law, AdditiveLaw) and own_terms == 1:
        return _closed_form(law, rows, losses, axis, at)
    theta = by_name(law, rows, n_axes=1)
    smallest, largest = support[law.variables[axis]]

    def log_loss(log_size: FloatArray) -> FloatArray:
        columns = [np.exp(log_size)] if at is None else [np.exp(log_size), np.full_like(log_size, at)]
        return np.asarray(np.log(law.loss(theta, *(columns if axis == 0 else columns[::-1]))))

    shape = (len(rows), len(losses))
    return crossing(
        log_loss,
        np.broadcast_to(np.log(losses), shape),
        np.full(shape, np.log(smallest / SEARCHED)),
        np.full(shape, np.log(largest * SEARCHED)),
    )


def _closed_form(law: AdditiveLaw, rows: FloatArray, losses: FloatArray, axis: int, at: float | None) -> FloatArray:
    """x = (coefficient / (L − everything else))^(1/exponent)."""
    theta = by_name(law, rows, n_axes=1)
    left = losses - (theta["E"] if law.has_floor else 0.0)
    for term in law.terms:
        if term.variable == axis:
            coefficient, exponent = theta[term.coefficient], theta[term.exponent]
        elif at is not None:
            left = left - theta[term.coefficient] * at ** -theta[term.exponent]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_size = (np.log(coefficient) - np.log(np.maximum(left, 0.0))) / exponent
    # Nothing left for the term: never reached by growing, if it falls with size, and by shrinking, if it rises.
    return np.asarray(np.where(left > 0, log_size, np.where(exponent > 0, np.inf, -np.inf)))
