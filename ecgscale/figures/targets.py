"""Which figures a study of targets and heads has, in the order of reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from ecgscale.figures.book import Chapter, slug
from ecgscale.figures.targets_classes import class_figures, class_numbers
from ecgscale.figures.targets_elsewhere import elsewhere_figures, elsewhere_numbers
from ecgscale.figures.targets_heads import head_figures, head_numbers
from ecgscale.figures.targets_predicted import predicted_figures, predicted_numbers
from ecgscale.figures.targets_spread import (
    calibration_figures,
    calibration_numbers,
    sparsification_figures,
    sparsification_numbers,
)
from ecgscale.target_findings import families
from ecgscale.target_study import TargetStudy

KINDS: dict[str, tuple[Callable[[TargetStudy, str], Iterable[Figure]], Callable[[TargetStudy, str], pd.DataFrame]]] = {
    "heads": (head_figures, head_numbers),
    "predicted": (predicted_figures, predicted_numbers),
    "classes": (class_figures, class_numbers),
    "sparsification": (sparsification_figures, sparsification_numbers),
    "calibration": (calibration_figures, calibration_numbers),
    "elsewhere": (elsewhere_figures, elsewhere_numbers),
}
"""Each is drawn of one family, and only if it has numbers."""


def target_chapters(study: TargetStudy) -> Iterator[Chapter]:
    several = len(families(study)) > 1
    for kind, (draw, numbers) in KINDS.items():
        for family in families(study):
            if not numbers(study, family).empty:
                name = f"{kind}-{slug(family)}" if several else kind
                shown = family if several else ""
                yield Chapter(name, kind, shown, partial(draw, study, family), partial(numbers, study, family))
