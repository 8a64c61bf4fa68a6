"""Linear read-outs of many targets and penalties at once: logistic, multinomial and ridge regression.

All targets of the same records share one eigendecomposition of their features. In its coordinates a ridge regression is
a division, and the curvature of a logistic one is bounded by that of a quarter of a least-squares problem, of a
multinomial one by half of it (Böhning & Lindsay 1988, Ann Inst Stat Math 40:641), whatever the target: so every problem
is scaled by its bound and all are minimised together. Intercepts are not penalised. Everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgscale.transfer.minimise import minimise

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

TOLERANCE = 1e-8
"""Of the gradient's norm, in coordinates in which a step of length 1 is safe. The loss is then within about
tolerance² / (8 · penalty) · largest variance of the lowest: 1e-11 for the smallest default penalty and 100 features."""
MAX_ITERATIONS = 1000

LARGEST_BATCH = 2**24
"""Records × problems that are worked on at a time: 128 MB per array."""

RANK_TOLERANCE = 1e-12
"""Directions with a smaller share of the largest variance hold rounding errors only."""


@dataclass(frozen=True)
class Linear:
    """Read-outs of every target at every penalty.

    Attributes:
        weights: `(feature, penalty, output)`; one output per target, or per class of a multinomial read-out.
        intercepts: `(penalty, output)`.
        converged: `(penalty, output)`.
    """

    weights: Floats
    intercepts: Floats
    converged: npt.NDArray[np.bool_]

    def __call__(self, features: Floats) -> Floats:
        """`(record, penalty, output)`: log odds, unnormalised log probabilities, or values."""
        n_features, *outputs = self.weights.shape
        found: Floats = (features @ self.weights.reshape(n_features, -1)).reshape(len(features), *outputs)
        return found + self.intercepts


class Whitened:
    """Features `(record, feature)` in their principal axes, shared by everything that is fitted to these records."""

    def __init__(self, features: Floats) -> None:
        n_records, n_features = features.shape
        self.mean: Floats = features.mean(axis=0)
        centred = features - self.mean
        if n_records < n_features:
            variance, left = np.linalg.eigh(centred @ centred.T / n_records)
            kept = variance > RANK_TOLERANCE * max(variance[-1], 1e-300)
            self.axes: Floats = centred.T @ (left[:, kept] / np.sqrt(n_records * variance[kept]))
        else:
            variance, axes = np.linalg.eigh(centred.T @ centred / n_records)
            kept = variance > RANK_TOLERANCE * max(variance[-1], 1e-300)
            self.axes = np.ascontiguousarray(axes[:, kept])
        self.variance: Floats = variance[kept]
        self.z: Floats = centred @ self.axes

    def linear(self, weights: Floats, intercepts: Floats, converged: npt.NDArray[np.bool_]) -> Linear:
        """Read-outs of the features themselves, from weights `(axis, penalty, output)` on the axes."""
        back = np.tensordot(self.axes, weights, axes=1)
        return Linear(back, intercepts - np.tensordot(self.mean, back, axes=1), converged)


def ridge(features: Whitened, targets: Floats, penalties: Floats) -> Linear:
    """Minimises mean squared error + l2 · |w|², for targets `(record, target)`."""
    mean = targets.mean(axis=0)
    covariance = features.z.T @ (targets - mean) / len(targets)
    weights = covariance[:, None, :] / (features.variance[:, None] + penalties)[..., None]
    shape = (len(penalties), targets.shape[1])
    return features.linear(weights, np.broadcast_to(mean, shape), np.ones(shape, dtype=bool))


def logistic(features: Whitened, targets: Floats, penalties: Floats) -> Linear:
    """Minimises mean cross-entropy + l2/2 · |w|², for targets `(record, target)` of 0 and 1."""
    n_together = max(1, LARGEST_BATCH // (len(targets) * len(penalties)))
    starts = range(0, targets.shape[1], n_together)
    parts = [_logistic(features, targets[:, start : start + n_together], penalties) for start in starts]
    return Linear(
        np.concatenate([part.weights for part in parts], axis=-1),
        np.concatenate([part.intercepts for part in parts], axis=-1),
        np.concatenate([part.converged for part in parts], axis=-1),
    )


def _logistic(features: Whitened, targets: Floats, penalties: Floats) -> Linear:
    n_targets, n_records = targets.shape[1], len(targets)
    sign = 2.0 * targets - 1.0
    l2 = np.repeat(penalties, n_targets)  # problems: penalty × target
    scale = 1.0 / np.sqrt(features.variance[:, None] / 4 + l2)

    def objective(unknown: Floats, which: Places) -> tuple[Floats, Floats]:
        weights = unknown[1:] * scale[:, which]
        side = sign[:, which % n_targets]
        margin = (features.z @ weights + 2.0 * unknown[0]) * side
        rest = np.exp(-np.abs(margin))
        total = 1.0 + rest
        value = (np.log(total).sum(axis=0) - np.minimum(margin, 0.0).sum(axis=0)) / n_records
        value += 0.5 * l2[which] * (weights**2).sum(axis=0)
        pull = -side * np.where(margin >= 0, rest, 1.0) / total  # probability minus target
        gradient = np.empty_like(unknown)
        gradient[0] = 2.0 * pull.mean(axis=0)
        gradient[1:] = (features.z.T @ pull / n_records + l2[which] * weights) * scale[:, which]
        return value, gradient

    found, converged = minimise(objective, 1 + len(scale), len(l2), tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS)
    shape = (len(penalties), n_targets)
    weights = (found[1:] * scale).reshape(-1, *shape)
    return features.linear(weights, 2.0 * found[0].reshape(shape), converged.reshape(shape))


def multinomial(features: Whitened, classes: Places, n_classes: int, penalties: Floats) -> Linear:
    """Minimises mean cross-entropy + l2/2 · |W|², for one target: the number of each record's class."""
    n_records, n_penalties, n_axes = len(classes), len(penalties), len(features.variance)
    hit = np.eye(n_classes)[classes][:, :, None]  # (record, class, 1)
    scale = 1.0 / np.sqrt(features.variance[:, None] / 2 + penalties)[:, None, :]  # (axis, 1, penalty)

    def objective(unknown: Floats, which: Places) -> tuple[Floats, Floats]:
        u = unknown.reshape(1 + n_axes, n_classes, len(which))
        weights = u[1:] * scale[..., which]
        score = (features.z @ weights.reshape(n_axes, -1)).reshape(n_records, n_classes, -1) + np.sqrt(2.0) * u[0]
        score -= score.max(axis=1, keepdims=True)
        exponential = np.exp(score)
        total = exponential.sum(axis=1, keepdims=True)
        value = (np.log(total).sum(axis=(0, 1)) - (score * hit).sum(axis=(0, 1))) / n_records
        value += 0.5 * penalties[which] * (weights**2).sum(axis=(0, 1))
        pull = exponential / total - hit
        gradient = np.empty_like(u)
        gradient[0] = np.sqrt(2.0) * pull.mean(axis=0)
        sloped = (features.z.T @ pull.reshape(n_records, -1)).reshape(weights.shape) / n_records
        gradient[1:] = (sloped + penalties[which] * weights) * scale[..., which]
        return value, gradient.reshape(unknown.shape)

    found, converged = minimise(
        objective, (1 + n_axes) * n_classes, n_penalties, tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS
    )
    solved = found.reshape(1 + n_axes, n_classes, n_penalties)
    weights = (solved[1:] * scale).transpose(0, 2, 1)
    return features.linear(
        weights, np.sqrt(2.0) * solved[0].T, np.broadcast_to(converged[:, None], (n_penalties, n_classes))
    )
