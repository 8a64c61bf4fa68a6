"""Parameters and FLOPs of a head in closed form, for plans: without torch and without data."""

from __future__ import annotations

from itertools import pairwise

from ecgscale.concentrations.declared import HeadSpec, TargetSpec

AGE_AND_SEX_WIDTHS = (2, 64, 128, 512)
"""The multilayer perceptron of age and sex (von Bachmann et al. 2024, code)."""


def n_classes(head: HeadSpec, target: TargetSpec) -> int:
    """1 for a head that predicts the number.

    Raises:
        ValueError: the head's edges are the target's cut-offs, and it has none.
    """
    if not head.predicts_classes:
        return 1
    if isinstance(head.buckets, tuple):
        return len(head.buckets) + 1
    if head.classes is not None:
        return head.classes
    if not target.cuts:
        raise ValueError(f"head {head.name} has `buckets: {head.buckets}`, but target {target.name} has no `cuts`")
    return len(target.cuts) + 1 if head.buckets == "cuts" else 2


def n_outputs(head: HeadSpec, classes: int) -> int:
    """Numbers per record; `decoding` says what they mean."""
    if head.predicts_classes:
        return classes if head.kind == "softmax" else classes - 1
    return {"gaussian": 2, "quantile": len(head.levels)}.get(head.kind, 1)


def head_counts(width: int, head: HeadSpec, target: TargetSpec) -> tuple[int, int]:
    """(parameters, training FLOPs per record) of a head on features of `width`; a multiplication by a weight is two
    FLOPs forward and four backward, all else is left out.

    Raises:
        ValueError: see `n_classes`.
    """
    layers: list[tuple[int, int]] = []
    if head.age_and_sex:
        layers += pairwise(AGE_AND_SEX_WIDTHS)
        together = width + AGE_AND_SEX_WIDTHS[-1]
        layers.append((together, together // 2))
        width = together // 2
    out = n_outputs(head, n_classes(head, target))
    if head.kind == "gaussian":
        layers += [(width, 1), (width, width), (width, 1)]
    elif head.kind != "coral":
        layers.append((width, out))
    params = sum(n_in * n_out + n_out for n_in, n_out in layers)
    weights = sum(n_in * n_out for n_in, n_out in layers)
    if head.kind == "coral":  # one weight vector, a bias per edge
        params, weights = params + width + out, weights + width
    return params, 6 * weights
