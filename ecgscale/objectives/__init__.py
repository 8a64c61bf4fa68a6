"""Objectives: a head or decoder, its loss and what its outputs are scored by."""

from ecgscale.ladder import InputShape, Shape
from ecgscale.objectives.masked import MaskedReconstruction
from ecgscale.objectives.objective import Objective
from ecgscale.objectives.supervised import MultiLabel

__all__ = ["Objective", "build_objective"]


def build_objective(
    paradigm: str, network: Shape, input_shape: InputShape, *, n_labels: int, mask_ratio: float | None
) -> Objective:
    """The objective of a paradigm (`sl` or `ssl`) for one network; SL needs no mask ratio, SSL no labels."""
    if paradigm == "sl":
        return MultiLabel(network.width, n_labels)
    assert mask_ratio is not None
    return MaskedReconstruction(network, input_shape, mask_ratio)
