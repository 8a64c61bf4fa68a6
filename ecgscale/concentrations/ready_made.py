"""Targets and heads that a sweep may ask for by name alone, each as a person would write it out in YAML.

Cut-offs are limits of reference ranges in common use (our choice; the study does not state its own), those of age
decades that matter clinically.
"""

from __future__ import annotations

import re
from typing import Any

TARGETS: dict[str, dict[str, Any]] = {
    "potassium": {"column": "potassium_mmol_l", "unit": "mmol/l", "cuts": (3.5, 5.0)},
    "calcium": {"column": "calcium_mmol_l", "unit": "mmol/l", "cuts": (2.15, 2.55)},
    "sodium": {"column": "sodium_mmol_l", "unit": "mmol/l", "cuts": (135.0, 145.0)},
    "creatinine": {"column": "creatinine_umol_l", "unit": "µmol/l", "log": True, "cuts": (60.0, 105.0)},
    # -1 is "unknown" and 300 is PTB-XL's "over 89"
    "age": {"column": "age", "unit": "years", "cuts": (40.0, 65.0), "missing_values": (-1.0, 300.0)},
}

LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
"""Of the ready-made quantile head: the ends of the intervals that are scored, and the quartiles."""

HEADS: dict[str, dict[str, Any]] = {
    "mse": {"kind": "mse"},
    "huber": {"kind": "huber", "huber_delta": 1.0},
    "gaussian": {"kind": "gaussian", "burn_in": 0.2},
    "quantile": {"kind": "quantile", "levels": LEVELS},
    # the extremes: below the lowest cut-off of the target or not, above the highest or not
    "hypo": {"kind": "binary", "buckets": "lowest_cut"},
    "hyper": {"kind": "binary", "buckets": "highest_cut"},
    # low, normal, high
    "softmax-cuts": {"kind": "softmax", "buckets": "cuts"},
    "ordinal-cuts": {"kind": "cumulative", "buckets": "cuts"},
}

CLASS_HEADS = {"softmax": "softmax", "ordinal": "cumulative", "coral": "coral", "corn": "corn"}
"""`softmax-4`: four buckets with equally many training records."""


def target(name: str) -> dict[str, Any]:
    """Raises ValueError, which names what there is."""
    if name not in TARGETS:
        raise ValueError(f"no ready-made target is called {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name] | {"name": name}


def head(name: str) -> dict[str, Any]:
    """Raises ValueError, which names what there is."""
    if name in HEADS:
        return HEADS[name] | {"name": name}
    number = re.fullmatch(rf"({'|'.join(CLASS_HEADS)})-([1-9]\d?)", name)
    if number is None:
        known = ", ".join([*HEADS, *(f"{kind}-K" for kind in CLASS_HEADS)])
        raise ValueError(f"no ready-made head is called {name!r}; there are {known} (K classes)")
    return {"name": name, "kind": CLASS_HEADS[number[1]], "classes": int(number[2]), "buckets": "quantile"}
