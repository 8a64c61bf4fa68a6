"""How much a training record counts where concentrations are rare: most patients are in the normal range."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from ecgscale.concentrations.declared import HeadSpec
from ecgscale.concentrations.predictive import Floats
from ecgscale.concentrations.target import TargetScale

N_EQUAL_WIDTHS = 20
"""Buckets whose frequency counts for heads that have none (our choice)."""

DENSITY_BINS, KERNEL_SD_BINS = 100, 2.0
"""Label distribution smoothing (Yang et al. 2021, arXiv:2102.09554): its bins over age, its kernel's spread."""


def training_weights(values: Floats, head: HeadSpec, scale: TargetScale) -> npt.NDArray[np.float32]:
    """`(n,)` of the training values in the unit; their mean is 1."""
    if head.max_weight is None:
        return np.ones(len(values), dtype=np.float32)
    z = scale.to_model(values)
    if head.weights == "smoothed_density":
        density = smoothed_density(z)
    else:
        density = frequency(scale.classes(values) if scale.n_classes > 1 else equal_width(z, N_EQUAL_WIDTHS))
    return rarity(density, head.max_weight).astype(np.float32)


def rarity(density: Floats, max_weight: float) -> Floats:
    """1 / density with mean 1, clipped at `max_weight`, then scaled to mean 1 again (von Bachmann et al. 2024, code):
    clipping takes from the average, so that the largest weights end somewhat above `max_weight`."""
    weights = 1 / density
    weights = np.minimum(weights / weights.mean(), max_weight)
    found: Floats = weights / weights.mean()
    return found


def frequency(buckets: npt.NDArray[np.intp]) -> Floats:
    """Share of the records that are in each record's bucket."""
    return (np.bincount(buckets) / len(buckets))[buckets]


def smoothed_density(z: Floats) -> Floats:
    """Relative density at each record: a histogram smoothed by a normal kernel."""
    place = equal_width(z, DENSITY_BINS)
    counts = np.bincount(place, minlength=DENSITY_BINS).astype(np.float64)
    smooth: Floats = gaussian_filter1d(counts, KERNEL_SD_BINS, mode="constant")
    return smooth[place]


def equal_width(z: Floats, n: int) -> npt.NDArray[np.intp]:
    """Number of the bucket, from 0, of n between the smallest and the largest value."""
    edges = np.linspace(z.min(), z.max(), n + 1)
    return np.searchsorted(edges[1:-1], z)
