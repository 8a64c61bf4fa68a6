"""From the numbers a head puts out to what it says about a concentration, without torch: reports decode stored outputs.

Outputs `(n, n_outputs)` by kind: mse, huber: the standardised value; gaussian: its mean and log-variance; quantile: the
value at every level; softmax: a logit per class; cumulative, binary, coral: a logit of "above this edge" per inner
edge; corn: the same given that the value is above the edge before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from ecgscale.concentrations.declared import HeadSpec
from ecgscale.concentrations.head_counts import n_outputs
from ecgscale.concentrations.predictive import Floats, Logged, Normal, Point, Predictive, Quantiles
from ecgscale.concentrations.target import TargetScale


def predictive(
    outputs: npt.NDArray[np.floating],
    head: HeadSpec,
    scale: TargetScale,
    epistemic_sd: npt.NDArray[np.floating] | None = None,
) -> Predictive:
    """What the head says of n records, in the unit of the target.

    A quantile of a logged target is the logarithm's, taken back; its mean is that of the linear distribution between
    them in the unit. A point of a logged target is its median.

    Args:
        epistemic_sd: `(n,)` standardised, what is not known of the mean of an mse or gaussian head (Laplace). It widens
            a normal; a point has it besides.

    Raises:
        ValueError: outputs that are not this head's, or an `epistemic_sd` of a head without a mean.
    """
    said = np.asarray(outputs, dtype=np.float64)
    n_expected = n_outputs(head, scale.n_classes)
    if said.ndim != 2 or said.shape[1] != n_expected:
        raise ValueError(f"head {head.name} has {n_expected} outputs, not an array of {said.shape}")
    if epistemic_sd is not None and head.kind not in ("mse", "gaussian"):
        raise ValueError(f"head {head.name} is of kind {head.kind}: it has no mean whose last layer could be unsure")
    unsure = None if epistemic_sd is None else scale.sd * np.asarray(epistemic_sd, dtype=np.float64)
    if head.predicts_classes:
        return scale.histogram(class_probabilities(said, head))
    if head.kind == "quantile":
        return Quantiles(np.array(head.levels), scale.to_unit(np.sort(said, axis=1)))
    if head.kind == "gaussian":
        noise = scale.sd * np.exp(said[:, 1] / 2)
        total = noise if unsure is None else np.hypot(noise, unsure)
        normal = Normal(scale.mean + scale.sd * said[:, 0], total, unsure)
        return Logged(normal) if scale.log else normal
    value = scale.to_unit(said[:, 0])
    if scale.log and unsure is not None:  # of a log-normal median
        unsure = value * np.exp(unsure**2 / 2) * np.sqrt(np.expm1(unsure**2))
    return Point(value, unsure)


def class_probabilities(outputs: Floats, head: HeadSpec) -> Floats:
    """`(n, classes)`; where "above" is likelier for a higher edge, the probabilities of the edges are sorted."""
    if head.kind == "softmax":
        p: Floats = softmax(outputs, axis=1)
        return p
    above = -np.sort(-exceedance(outputs, head), axis=1)
    return -np.diff(above, axis=1, prepend=1.0, append=0.0)


def exceedance(outputs: Floats, head: HeadSpec) -> Floats:
    """Probability of lying above each inner edge, `(n, classes - 1)`, as the head says it."""
    given: Floats = expit(outputs)
    above: Floats = np.multiply.accumulate(given, axis=1) if head.kind == "corn" else given
    return above


def crossing(outputs: Floats, head: HeadSpec) -> float:
    """Share of records for which a value above an edge is likelier than one above a lower edge: a contradiction that
    cumulative heads can commit, CORAL and CORN can't; 0 for kinds without edges."""
    if not head.predicts_classes or head.kind == "softmax":
        return 0.0
    return float((np.diff(exceedance(outputs, head), axis=1) > 0).any(axis=1).mean())
