"""Collections of ECGs in their own formats, each opened as a `Source`.

`KINDS` is the list of what can be opened. A new kind is a module with a function that opens a folder and one that
recognises it, and an entry here; nothing else knows its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ecgscale.data.sources.arrays import looks_like_arrays, open_arrays
from ecgscale.data.sources.cinc import looks_like_cinc, open_cinc
from ecgscale.data.sources.code_positional import (
    looks_like_code_test,
    looks_like_sami_trop,
    open_code_test,
    open_sami_trop,
)
from ecgscale.data.sources.code_releases import looks_like_code, open_code_release
from ecgscale.data.sources.code_wfdb import looks_like_code_wfdb, open_code_wfdb
from ecgscale.data.sources.cpsc import looks_like_cpsc, open_cpsc
from ecgscale.data.sources.ludb import looks_like_ludb, open_ludb
from ecgscale.data.sources.mimic import looks_like_mimic, open_mimic
from ecgscale.data.sources.ptbxl import looks_like_ptbxl, open_ptbxl
from ecgscale.data.sources.ptbxl_zscored import looks_like_ptbxl_zscored, open_ptbxl_zscored
from ecgscale.data.sources.source import Source, SourceOptions
from ecgscale.errors import DataError


@dataclass(frozen=True)
class Kind:
    """A kind of source: how to open it, how to recognise it, and, in words, what it needs."""

    open: Callable[[Path, SourceOptions], Source]
    looks_like: Callable[[Path], bool]
    needs: str


KINDS: dict[str, Kind] = {
    "ptbxl": Kind(open_ptbxl, looks_like_ptbxl, "ptbxl_database.csv, scp_statements.csv, records500/ or records100/"),
    "mimic": Kind(open_mimic, looks_like_mimic, "record_list.csv and files/ of MIMIC-IV-ECG"),
    "ludb": Kind(open_ludb, looks_like_ludb, "ludb.csv (or labels_tidy.csv) and data/"),
    "cpsc": Kind(open_cpsc, looks_like_cpsc, "REFERENCE.csv and *.mat of CPSC 2018"),
    "ptbxl-zscored": Kind(open_ptbxl_zscored, looks_like_ptbxl_zscored, "labels.csv and one *.h5"),
    "code-test": Kind(open_code_test, looks_like_code_test, "attributes.csv, annotations/ and ecg_tracings.hdf5"),
    "sami-trop": Kind(open_sami_trop, looks_like_sami_trop, "exams.csv and exams.hdf5 without exam_id"),
    "code": Kind(open_code_release, looks_like_code, "exams.csv and *.hdf5 or *.zip parts with exam_id"),
    "code-wfdb": Kind(
        open_code_wfdb, looks_like_code_wfdb, "annotations.csv and unpacked S0120000/TNMG…_N1 records of full CODE"
    ),
    "cinc": Kind(open_cinc, looks_like_cinc, "WFDB headers (*.hea) in any subfolder, with '#Dx:' lines"),
    "arrays": Kind(open_arrays, looks_like_arrays, "*.hdf5 or *.npy arrays whose rate, axes and unit you declare"),
}
"""In the order in which a folder is tried: the most specific first."""


def open_source(folder: Path, kind: str = "auto", options: SourceOptions = SourceOptions()) -> Source:  # noqa: B008
    """Opens a collection.

    Args:
        folder: As it was downloaded.
        kind: One of `KINDS`, or "auto" to recognise it.
        options: What the user says about it.

    Raises:
        DataError: It is not recognised, or cannot be used as a whole.
    """
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    if kind == "auto":
        kind = recognise(folder)
    if kind not in KINDS:
        raise DataError(f"unknown kind of source {kind!r}; known: auto, {', '.join(KINDS)}")
    return KINDS[kind].open(folder, options)


def recognise(folder: Path) -> str:
    """The kind of a folder, by the files that only this kind has."""
    for name, kind in KINDS.items():
        if kind.looks_like(folder):
            return name
    known = "\n".join(f"  {name}: {kind.needs}" for name, kind in KINDS.items())
    raise DataError(f"{folder}: not recognised; name its --kind. What each kind needs:\n{known}")
