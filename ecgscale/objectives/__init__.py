"""Objectives: a head or decoder, its loss and what its outputs are scored by."""

from ecgscale.concentrations.head_counts import n_classes
from ecgscale.concentrations.heads import build_head
from ecgscale.ladder import InputShape, Shape
from ecgscale.objectives.masked import MaskedReconstruction
from ecgscale.objectives.objective import Objective
from ecgscale.objectives.supervised import MultiLabel
from ecgscale.objectives.target import OneTarget
from ecgscale.specs import TrialSpec

__all__ = ["Objective", "build_objective", "objective_of"]


def objective_of(spec: TrialSpec, network: Shape) -> Objective:
    """The objective of a trial."""
    if spec.target is not None and spec.head is not None:
        return OneTarget(build_head(network.width, spec.head, n_classes(spec.head, spec.target)))
    return build_objective(
        spec.paradigm, network, spec.input.shape, n_labels=len(spec.labels), mask_ratio=spec.mask_ratio
    )


def build_objective(
    paradigm: str, network: Shape, input_shape: InputShape, *, n_labels: int, mask_ratio: float | None
) -> Objective:
    """The objective of a paradigm (`sl` or `ssl`) for one network; SL needs no mask ratio, SSL no labels."""
    if paradigm == "sl":
        return MultiLabel(network.width, n_labels)
    assert mask_ratio is not None
    return MaskedReconstruction(network, input_shape, mask_ratio)
