"""Writes records and tables in the forms in which PhysioNet's collections are published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgscale.conventions import LEADS
from ecgscale.data.sources.source import Recording, Refused, Source

UPPER_CASE_LEADS = tuple(lead.upper() for lead in LEADS)
"""As PTB-XL writes them: AVR, AVL, AVF."""


def sine_mv(n: int = 900, fs_hz: float = 500, seed: int = 0) -> np.ndarray:
    """(time, lead): a 1 mV, 1 Hz sine in lead I, other sizes elsewhere; obeys Einthoven's and Goldberger's laws."""
    sizes = np.random.default_rng(seed).uniform(0.2, 2.0, 12)
    sizes[:6] = 1.0, 0.5, -0.5, -0.75, 0.75, 0.0
    return np.sin(2 * np.pi * np.arange(n) / fs_hz)[:, None] * sizes


def write_record(
    path: Path,
    signal_mv: np.ndarray,
    *,
    fs_hz: float = 500,
    leads: Sequence[str] = LEADS,
    first: str | None = None,
    form: str = "16",
    gain: str = "1000.0(0)/mV",
    per_mv: float = 1000.0,
    offset: int = 0,
    comments: str = "",
) -> None:
    """`path`.hea and its signal: `.mat` with the 24 bytes of MATLAB v4 for a format with `+24`, else `.dat`.

    NaN becomes the number that marks a missing sample; the checksums are right.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digital = np.where(np.isnan(signal_mv), -32768, np.round(np.nan_to_num(signal_mv) * per_mv + offset)).astype("<i2")
    checksums = digital.sum(axis=0, dtype=np.int64) % 65536
    is_mat = form.endswith("+24")
    file = path.name + (".mat" if is_mat else ".dat")
    v4 = np.array([30, digital.shape[1], len(digital), 0, 4], "<i4").tobytes() + b"val\0"
    (path.parent / file).write_bytes((v4 if is_mat else b"") + digital.tobytes())
    lines = [first or f"{path.name} {len(leads)} {fs_hz:g} {len(digital)}"]
    for k, lead in enumerate(leads):
        lines.append(f"{file} {form} {gain} 16 0 {digital[0, k]} {checksums[k]} 0 {lead}")
    path.with_name(f"{path.name}.hea").write_text("\n".join(lines) + "\n" + comments, encoding="utf-8")


def read_all(source: Source) -> tuple[dict[str, Recording], dict[str, str]]:
    """Everything that a source hands out: recordings by name, and the reasons of what it refuses, at once or later."""
    assert len(set(source.names)) == len(source.names)
    recordings, reasons = {}, {x.record: x.reason for x in source.refused}
    for name, x in zip(source.names, source.read(0, len(source.names)), strict=True):
        assert x.record == name
        if isinstance(x, Refused):
            reasons[name] = x.reason
        else:
            recordings[name] = x
    return recordings, reasons
