"""The coordinate check of µP: how much the outputs of each layer change in a few steps, at one rate and many sizes.

After Yang et al. 2021 (arXiv 2203.03466, appendix D.1). Where a parametrisation is right, the changes are as large at
every width, or depth; where it isn't, they grow or shrink with a power of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from ecgscale.data.splits import TRAIN
from ecgscale.data.store import open_store, store_name
from ecgscale.data.stream import RecordSource, TrainingStream
from ecgscale.ladder import RESNET_BASE_CHANNELS, Family, ResNetShape, Shape, TransformerShape
from ecgscale.plan import Plan
from ecgscale.pretraining import of_shape, sources_of
from ecgscale.specs import TrialSpec

WIDTHS: dict[Family, tuple[int, ...]] = {"resnet": (16, 32, 64, 128), "transformer": (32, 64, 128, 256)}
"""A factor of eight, which a laptop trains in seconds. µP's reference is the second."""

HEAD_WIDTH, N_LAYERS = 16, 2
"""Of the transformers that are compared, at every width."""

DEPTHS, WIDTH_AT_ALL_DEPTHS = (2, 4, 8, 16), 64
"""Of the transformers that are compared by their depth: the reference is the first; that width is µP's."""

SMALLER_RATE = 1 / 8
"""Of what they are trained at: four steps at the whole one change the outputs of two layers as much as they can."""

N_STEPS = 4
"""A read-out that starts at zero teaches its encoder nothing in the first."""


@dataclass(frozen=True)
class Check:
    """One arm in one parametrisation.

    Attributes:
        of: in what the networks differ that were trained.
        sizes: their widths, or depths.
        changes: layer that all have → root mean square of the change of its outputs, per network.
    """

    arm: str
    parametrisation: str
    of: Literal["width", "depth"]
    sizes: tuple[int, ...]
    changes: Mapping[str, tuple[float, ...]]

    def exponents(self) -> dict[str, float]:
        """Layer → power of the size with which the change grows; 0 is stable."""
        x = np.log(self.sizes)
        return {name: float(np.polyfit(x, np.log(found), 1)[0]) for name, found in self.changes.items()}


def checks(plan: Plan, data: Path, threads: int) -> list[Check]:
    """Every arm of a plan, in the standard parametrisation at one rate for all widths, and with µP; of transformers
    also at several depths with µP, with its rule for depth and without."""
    arms = {spec.arm: spec for spec in plan.specs}
    torch.set_num_threads(threads)
    found = []
    with threadpool_limits(threads):
        for arm in sorted(arms):
            spec = arms[arm]
            rule = plan.grid.train.learning_rate[spec.family]
            widths = WIDTHS[spec.family]
            by_width = [of_width(spec, width) for width in widths]
            by_depth = [of_depth(depth) for depth in DEPTHS]
            store = open_store(data / spec.train_on / "packed" / store_name(spec.input))
            source = sources_of(spec, store)[TRAIN]
            scale = store.header.scale
            tried = spec.model_copy(update={"peak_lr": rule.peak(widths[1]), "start": None})
            for name, width in (("standard", None), ("mup", widths[1])):
                at = tried.model_copy(update={"mup_reference_width": width, "mup_reference_depth": None})
                found.append(Check(arm, name, "width", widths, output_changes(at, source, scale, by_width)))
            if spec.family == "transformer":
                for name, depth in (("mup", None), ("mup with reference_depth", DEPTHS[0])):
                    mup = {"mup_reference_width": WIDTH_AT_ALL_DEPTHS, "mup_reference_depth": depth}
                    at = tried.model_copy(update=mup | {"peak_lr": SMALLER_RATE * tried.peak_lr})
                    changes = outside_blocks(output_changes(at, source, scale, by_depth))
                    found.append(Check(arm, name, "depth", DEPTHS, changes))
    return found


def outside_blocks(changes: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Of layers that stand before or after all blocks of a transformer: what these add up to."""
    return {name: found for name, found in changes.items() if ".blocks." not in name}


def output_changes(
    spec: TrialSpec, source: RecordSource, scale: tuple[float, ...], networks: Sequence[Shape]
) -> dict[str, tuple[float, ...]]:
    """Layer that all networks have → how much its outputs change in a few steps, in each.

    Args:
        spec: whose arm is trained, at its peak rate and with its reference width and depth, if it has any.
        source: records to train on; the outputs are compared on the first batch.
    """
    short = spec.model_copy(update={"n_steps": N_STEPS})
    found = [_changes(network, short, source, scale) for network in networks]
    return {name: tuple(one[name] for one in found) for name in found[0] if all(name in one for one in found)}


def of_width(spec: TrialSpec, width: int) -> Shape:
    """A network of a width that need not be on the ladder, and of one depth."""
    if spec.family == "transformer":
        return TransformerShape(width, N_LAYERS, width // HEAD_WIDTH)
    multiplier = width / RESNET_BASE_CHANNELS[-1]
    return ResNetShape(tuple(2 * round(channels * multiplier / 2) for channels in RESNET_BASE_CHANNELS))


def of_depth(n_layers: int) -> TransformerShape:
    """A transformer of a depth that need not be on the ladder, and of one width."""
    return TransformerShape(WIDTH_AT_ALL_DEPTHS, n_layers, WIDTH_AT_ALL_DEPTHS // HEAD_WIDTH)


def _changes(network: Shape, spec: TrialSpec, source: RecordSource, scale: tuple[float, ...]) -> dict[str, float]:
    torch.manual_seed(spec.seed)
    module = of_shape(network, spec, scale).train()
    batches = list(TrainingStream(source, batch_size=spec.train.batch_size, n_steps=spec.n_steps, seed=spec.seed))
    optimizer = module.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]  # no warm-up, no decay
    compared = module.drawn(batches[0])
    with torch.no_grad(), _outputs(module) as before:
        module.scored(compared)
    for place, batch in enumerate(batches):
        optimizer.zero_grad()
        torch.autograd.backward(module.training_step(batch, place))
        module.clip()
        optimizer.step()
    with torch.no_grad(), _outputs(module) as after:
        module.scored(compared)
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


@contextmanager
def _outputs(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Layer → what it puts out of the next batch."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _given: object, outputs: Tensor) -> None:
            found[name] = outputs.detach()

        return hook

    kinds = nn.Linear | nn.Conv1d | nn.LayerNorm
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for one in hooks:
            one.remove()
