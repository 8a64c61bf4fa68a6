"""Tasks that a sweep may ask for by name alone, each as a person would write it out in YAML.

Plain data: a name stands for exactly the mapping below, which is what enters a trial's identity. The columns are those
that the importers write; a population that lacks one is named before anything starts.
"""

from __future__ import annotations

from typing import Any

from ecgscale.conventions import CODE_LABELS

PTBXL_SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""Diagnostic superclasses of PTB-XL (Wagner et al. 2020, Sci Data 7:154), from its scp_codes."""

PTBXL_RHYTHMS = (
    *("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE"),
    *("SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU"),
)
"""The twelve rhythm statements of PTB-XL's scp_statements.csv, most frequent first; a record may have several."""

CPSC_CLASSES = ("NSR", "AF", "1dAVb", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
"""The nine classes of CPSC2018 (Liu et al. 2018, J Med Imaging Health Inform 8:1368), CODE's names where it has one."""

READY_MADE: dict[str, dict[str, Any]] = {
    "code6": {"kind": "multilabel", "columns": CODE_LABELS},
    "ptbxl-superdiagnostic": {"kind": "multilabel", "columns": PTBXL_SUPERCLASSES},
    "ptbxl-rhythm": {"kind": "multilabel", "columns": PTBXL_RHYTHMS},
    "cpsc9": {"kind": "multilabel", "columns": CPSC_CLASSES},
    # -1 is "unknown" and 300 is PTB-XL's "over 89"
    "age": {"kind": "regression", "column": "age", "unit": "years", "missing_values": (-1, 300)},
    "sex": {"kind": "binary", "column": "is_male"},
    # no open ECG set holds these; the columns are named with their unit because mg/dl is as common. Total calcium.
    "potassium": {"kind": "regression", "column": "potassium_mmol_l", "unit": "mmol/l"},
    "calcium": {"kind": "regression", "column": "calcium_mmol_l", "unit": "mmol/l"},
    "sodium": {"kind": "regression", "column": "sodium_mmol_l", "unit": "mmol/l"},
    "creatinine": {"kind": "regression", "column": "creatinine_umol_l", "unit": "µmol/l"},
}


def task(name: str) -> dict[str, Any]:
    """Raises ValueError, which names what there is."""
    if name not in READY_MADE:
        raise ValueError(f"no ready-made task is called {name!r}; there are {', '.join(READY_MADE)}")
    return READY_MADE[name] | {"name": name}
