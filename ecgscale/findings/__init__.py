"""The conclusions of the study, each decided on a results folder: `conclusions(study)`.

One function per conclusion turns the fitted laws of a `Study` into findings, each with value, 95 % interval, verdict,
reason and, where it is undecided, what would decide it. Nothing is fitted here.
"""

from ecgscale.findings.efficiency import data_efficiency, parameter_efficiency, transfer_gain
from ecgscale.findings.in_distribution import data_bottleneck, ssl_improves
from ecgscale.findings.labels import labels_elsewhere, labels_in_distribution
from ecgscale.findings.lowest import lowest_loss, overtaking
from ecgscale.findings.values import Conclusion, Finding, OtherReading, Verdict
from ecgscale.study import Study

CONCLUSIONS = (
    data_bottleneck,
    ssl_improves,
    parameter_efficiency,
    data_efficiency,
    transfer_gain,
    lowest_loss,
    overtaking,
    labels_in_distribution,
    labels_elsewhere,
)


def conclusions(study: Study) -> tuple[Conclusion, ...]:
    """Every conclusion of the study; what a results folder can't answer is undecided, with its reason."""
    return tuple(conclusion(study) for conclusion in CONCLUSIONS)


__all__ = ["CONCLUSIONS", "Conclusion", "Finding", "OtherReading", "Verdict", "conclusions"]
