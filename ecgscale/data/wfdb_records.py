"""Reads one 12-lead record in PhysioNet's WFDB form (`.hea` + `.dat` or `.mat`) into millivolts.

Forgives what real downloads contain: dates and record names that the wfdb library refuses, units in any spelling, a
header that writes `16x1+24`. Refuses, with the record's name and the reason, what would give wrong numbers: missing
gains, truncated files, Git LFS pointers. Format: https://physionet.org/physiotools/wag/header-5.htm
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgscale.errors import DataError

_MV_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3}  # both Unicode letters for micro
_INVALID_16 = -32768  # format 16 marks a missing sample with the most negative number
_FORMAT = re.compile(r"^(?P<format>\d+)(x(?P<per_frame>\d+))?(:\d+)?(\+(?P<offset>\d+))?$")
_GAIN = re.compile(r"^(?P<gain>[-+.\deE]+)(\((?P<baseline>-?\d+)\))?(/(?P<unit>\S+))?$")
_GIT_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class SignalLine:
    """What a header says about one signal. mV = (digital - baseline) / gain × mv_per_unit."""

    file: str
    format: int
    offset_bytes: int
    gain: float
    baseline: int
    mv_per_unit: float
    lead: str


@dataclass(frozen=True)
class Header:
    """A WFDB header. `n_samples` is 0 where the header does not say; `comments` are without their `#`."""

    record: str
    fs_hz: float
    n_samples: int
    signals: tuple[SignalLine, ...]
    comments: tuple[str, ...]

    def comment(self, key: str) -> str | None:
        """The value of a comment `#Age: 56`, `# Age: 56` or `#<age>: 56`, whatever its case; None if there is none."""
        for line in self.comments:
            name, colon, value = line.partition(":")
            if colon and name.strip(" <>").lower() == key.lower():
                return value.strip()
        return None


@dataclass(frozen=True, eq=False)
class WfdbRecord:
    """A record in millivolts: `signal_mv` (time, signal) float32, NaN where a sample is marked invalid."""

    header: Header
    signal_mv: NDArray[np.float32]

    @property
    def leads(self) -> tuple[str, ...]:
        return tuple(line.lead for line in self.header.signals)


def read_header(path: Path) -> Header:
    """Reads a `.hea` file; dates, times and all else that no ECG needs are ignored, so they may be malformed."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    comments = tuple(line.lstrip("# \t") for line in lines if line.startswith("#"))
    fields = [line for line in lines if line and not line.startswith("#")]
    words = fields[0].split() if fields else []
    if len(words) < 3:
        raise DataError(f"{path.stem}: {path.name} is not a WFDB header")
    if "/" in words[0]:
        raise DataError(f"{path.stem}: has several segments; only single-segment records are read")
    try:
        n_signals, fs_hz = int(words[1]), float(re.split(r"[/(]", words[2])[0])
        n_samples = int(words[3]) if len(words) > 3 else 0
    except ValueError as error:
        raise DataError(f"{path.stem}: cannot understand the first line of {path.name}: {fields[0]!r}") from error
    if len(fields) - 1 < n_signals or n_signals == 0:
        raise DataError(f"{path.stem}: {path.name} announces {n_signals} signals and describes {len(fields) - 1}")
    signals = tuple(_signal_line(line, path) for line in fields[1 : 1 + n_signals])
    return Header(path.stem, fs_hz, n_samples, signals, comments)


def read_record(path: Path, *, digital_per_mv: float | None = None) -> WfdbRecord:
    """Reads a record.

    Args:
        path: The `.hea` file.
        digital_per_mv: Ignore the header's gains and baselines and divide the digital samples by this instead.

    Raises:
        DataError: The record cannot be read, or its signal would not be in millivolts.
    """
    header = read_header(path)
    if digital_per_mv is None:
        _require_gains(header)
    signal = np.empty((0, 0), dtype=np.float32)
    for name in dict.fromkeys(line.file for line in header.signals):
        columns = [k for k, line in enumerate(header.signals) if line.file == name]
        digital = _digital(path, header, columns)
        if signal.size == 0:
            signal = np.empty((len(digital), len(header.signals)), dtype=np.float32)
        if len(digital) != len(signal):
            raise DataError(f"{header.record}: its signal files differ in length")
        signal[:, columns] = _millivolts(digital, [header.signals[k] for k in columns], digital_per_mv)
    return WfdbRecord(header, signal)


def _signal_line(line: str, path: Path) -> SignalLine:
    words = line.split()
    form = _FORMAT.match(words[1]) if len(words) > 1 else None
    if form is None:
        raise DataError(f"{path.stem}: cannot understand the signal line {line!r} of {path.name}")
    gain = _GAIN.match(words[2]) if len(words) > 2 else None
    zero = int(words[4]) if len(words) > 4 and re.fullmatch(r"-?\d+", words[4]) else 0
    return SignalLine(
        file=words[0],
        format=int(form["format"]) if form["per_frame"] in (None, "1") else 0,
        offset_bytes=int(form["offset"] or 0),
        gain=_number(gain["gain"]) if gain else 0.0,
        baseline=int(gain["baseline"]) if gain and gain["baseline"] else zero,
        mv_per_unit=_MV_PER_UNIT.get((gain["unit"] or "mV").lower(), 0.0) if gain else 0.0,
        lead=" ".join(words[8:]),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _require_gains(header: Header) -> None:
    for line in header.signals:
        if line.gain <= 0 or line.mv_per_unit == 0:
            raise DataError(
                f"{header.record}: the header has no gain in mV, µV or V for lead {line.lead or '?'}; "
                "add one like '1000/mV' to its signal line"
            )


def _digital(path: Path, header: Header, columns: list[int]) -> NDArray[np.int16]:
    """The samples of one signal file as they are stored: (time, signal)."""
    line = header.signals[columns[0]]
    if any(header.signals[k].format != 16 for k in columns):
        raise DataError(f"{header.record}: stored in a WFDB format other than 16; convert it to 16 (signed 16-bit)")
    # Georgia's headers name records `E00271.mat`, with the signal file spelled in several ways.
    file = next((f for f in (path.parent / Path(line.file).name, path.with_suffix(".mat")) if f.is_file()), None)
    if file is None:
        raise DataError(f"{header.record}: its signal file {line.file} is not there")
    stored = file.read_bytes()
    if stored.startswith(_GIT_LFS):
        raise DataError(f"{header.record}: {file.name} is a Git LFS pointer, not the signal; run `git lfs pull`")
    n_frames = (len(stored) - line.offset_bytes) // (2 * len(columns))
    n_samples = header.n_samples or n_frames
    if n_frames < n_samples or n_samples < 1:
        needed = line.offset_bytes + 2 * len(columns) * n_samples
        raise DataError(f"{header.record}: {file.name} is truncated, {len(stored)} of {needed} bytes; get it again")
    samples = np.frombuffer(stored, dtype="<i2", count=n_samples * len(columns), offset=line.offset_bytes)
    return samples.reshape(n_samples, len(columns))


def _millivolts(
    digital: NDArray[np.int16], lines: list[SignalLine], digital_per_mv: float | None
) -> NDArray[np.float32]:
    baseline, scale = np.zeros(len(lines), np.float32), np.full(len(lines), 1.0, np.float32)
    if digital_per_mv is None:
        baseline[:] = [line.baseline for line in lines]
        scale[:] = [line.mv_per_unit / line.gain for line in lines]
    else:
        scale[:] = 1.0 / digital_per_mv
    signal_mv: NDArray[np.float32] = (digital.astype(np.float32) - baseline) * scale
    signal_mv[digital == _INVALID_16] = np.nan
    return signal_mv
