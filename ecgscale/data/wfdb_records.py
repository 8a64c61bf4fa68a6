"""Reads one 12-lead record in PhysioNet's WFDB form (`.hea` + `.dat` or `.mat`) into millivolts.

Forgives what real downloads contain: dates and record names that the wfdb library refuses, units in any spelling, a
header that writes `16x1+24`. Refuses, with the record's name and the reason, what would give wrong numbers: missing or
absurd gains, truncated or altered files, Git LFS pointers. Format: https://physionet.org/physiotools/wag/header-5.htm
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgscale.errors import DataError

_MV_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3}  # both Unicode letters for micro
_INVALID_16 = -32768  # format 16 marks a missing sample with the most negative number
# Digits are bounded: a damaged header may hold thousands, which int() refuses.
_FORMAT = re.compile(r"^(?P<format>\d{1,4})(x(?P<per_frame>\d{1,4}))?(:(?P<skew>\d{1,9}))?(\+(?P<offset>\d{1,9}))?$")
_GAIN = re.compile(r"^(?P<gain>[-+.\deE]+)(\((?P<baseline>-?\d{1,9})\))?(/(?P<unit>\S+))?$")
_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")
GIT_LFS = b"version https://git-lfs"
"""What a Git LFS pointer begins with, which a clone has in place of a file that was not fetched."""

# Our assumption: below 1 unit per mV no ECG would show; above 1e6 the 16 bits would span less than 0.07 mV.
_PLAUSIBLE_DIGITAL_PER_MV = (1.0, 1e6)


@dataclass(frozen=True)
class SignalLine:
    """What a header says about one signal. mV = (digital - baseline) / gain × mv_per_unit.

    `format` is as written (`16`, `212`, `16x2`, `16:3`), without the byte offset. `checksum` is the sum of all samples
    modulo 2^16, 0 where the header does not say.
    """

    file: str
    format: str
    offset_bytes: int
    gain: float
    baseline: int
    mv_per_unit: float
    checksum: int
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
    """Reads a `.hea` file; dates, times and all else that no ECG needs are ignored, so they may be malformed.

    Raises:
        DataError: There is no such file, or it does not describe a record with one segment.
    """
    lines = [line.strip() for line in _text(path).splitlines()]
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
        raise DataError(f"{path.stem}: cannot understand the first line of {path.name}: {fields[0][:80]!r}") from error
    if not (0 < fs_hz < math.inf) or n_samples < 0:
        raise DataError(f"{path.stem}: {path.name} announces {n_samples} samples at {fs_hz:g} Hz")
    if n_signals < 1 or len(fields) - 1 < n_signals:
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
    _require_format_16(header)
    if digital_per_mv is None:
        _require_gains(header)
    files = list(dict.fromkeys(line.file for line in header.signals))
    if len(files) == 1:
        return WfdbRecord(header, _millivolts(_digital(path, header, header.signals), header.signals, digital_per_mv))
    signal = np.empty((0, 0), dtype=np.float32)
    for name in files:
        columns = [k for k, line in enumerate(header.signals) if line.file == name]
        lines = tuple(header.signals[k] for k in columns)
        part = _millivolts(_digital(path, header, lines), lines, digital_per_mv)
        if signal.size == 0:
            signal = np.empty((len(part), len(header.signals)), dtype=np.float32)
        if len(part) != len(signal):
            raise DataError(f"{header.record}: its signal files differ in length")
        signal[:, columns] = part
    return WfdbRecord(header, signal)


def _text(path: Path) -> str:
    """A header's text; UTF-8, or Latin-1 where it is not (an old µV)."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path.stem}: its header {path.name} is not there") from error
    except OSError as error:
        raise DataError(f"{path.stem}: its header {path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:  # damage to a table put a zero byte into a name
        raise DataError(f"{path.stem!r}: is not the name of a file") from error
    if stored.startswith(GIT_LFS):
        raise DataError(f"{path.stem}: {path.name} is a Git LFS pointer, not the header; run `git lfs pull`")
    try:
        return stored.decode("utf-8-sig")
    except UnicodeDecodeError:
        return stored.decode("latin-1")


def _signal_line(line: str, path: Path) -> SignalLine:
    words = line.split()
    form = _FORMAT.match(words[1]) if len(words) > 1 else None
    if form is None:
        raise DataError(f"{path.stem}: cannot understand the signal line {line[:80]!r} of {path.name}")
    gain = _GAIN.match(words[2]) if len(words) > 2 else None
    per_frame = "" if form["per_frame"] in (None, "1") else f"x{form['per_frame']}"
    skew = "" if int(form["skew"] or 0) == 0 else f":{form['skew']}"
    return SignalLine(
        file=words[0],
        format=form["format"] + per_frame + skew,
        offset_bytes=int(form["offset"] or 0),
        gain=_number(gain["gain"]) if gain else 0.0,
        baseline=int(gain["baseline"]) if gain and gain["baseline"] else _whole_number(words, 4),
        mv_per_unit=_MV_PER_UNIT.get((gain["unit"] or "mV").lower(), 0.0) if gain else 0.0,
        checksum=_whole_number(words, 6) & 0xFFFF,
        lead=" ".join(words[8:]),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _whole_number(words: list[str], k: int) -> int:
    return int(words[k]) if len(words) > k and _WHOLE_NUMBER.fullmatch(words[k]) else 0


def _require_format_16(header: Header) -> None:
    if other := next((line.format for line in header.signals if line.format != "16"), None):
        raise DataError(
            f"{header.record}: stored in a WFDB format other than 16 (it is {other}); convert it to signed 16-bit "
            "samples, for example with wfdb.rdrecord and wfdb.wrsamp(fmt=['16', …])"
        )


def _require_gains(header: Header) -> None:
    low, high = _PLAUSIBLE_DIGITAL_PER_MV
    for line in header.signals:
        if line.gain == 0 or line.mv_per_unit == 0:
            raise DataError(
                f"{header.record}: the header has no gain in mV, µV or V for lead {line.lead or '?'}; "
                "add one like '1000/mV' to its signal line"
            )
        if not low <= line.gain / line.mv_per_unit <= high:
            raise DataError(
                f"{header.record}: the header's gain for lead {line.lead or '?'} is "
                f"{line.gain / line.mv_per_unit:g} per mV, which no ECG recorder has; correct its signal line"
            )


def _digital(path: Path, header: Header, lines: tuple[SignalLine, ...]) -> NDArray[np.int16]:
    """The samples of one signal file as they are stored: (time, signal)."""
    file, stored = _signal_file(path, header, lines[0].file)
    offset, frame_bytes = lines[0].offset_bytes, 2 * len(lines)
    n_samples = header.n_samples or (len(stored) - offset) // frame_bytes
    needed = offset + frame_bytes * n_samples
    if len(stored) < needed or n_samples < 1:
        raise DataError(f"{header.record}: {file.name} is truncated, {len(stored)} of {needed} bytes; get it again")
    samples = np.frombuffer(stored, dtype="<i2", count=n_samples * len(lines), offset=offset)
    samples = samples.reshape(n_samples, len(lines))
    agree = _checksums_agree(samples, lines) if header.n_samples else None
    if agree is False:
        raise DataError(
            f"{header.record}: {file.name} is damaged, its samples do not add up to the checksums in the header; "
            "get it again (or set them to 0 to have it read unchecked)"
        )
    if len(stored) > needed and not agree:
        raise DataError(
            f"{header.record}: {file.name} holds {len(stored)} bytes where the header announces {needed}; "
            "one of the two belongs to another record"
        )
    return samples


def _signal_file(path: Path, header: Header, name: str) -> tuple[Path, bytes]:
    candidates = [path.parent / Path(name).name]
    if all(line.file == name for line in header.signals):
        # Georgia's headers name records `E00271.mat`, with the signal file spelled in several ways.
        candidates += [path.with_suffix(".mat"), path.with_suffix(".dat")]
    try:
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        stored = file.read_bytes() if file else b""
    except OSError as error:
        raise DataError(f"{header.record}: its signal file {name[:80]} cannot be read: {error.strerror}") from error
    if file is None:
        raise DataError(f"{header.record}: its signal file {name[:80]} is not there")
    if stored.startswith(GIT_LFS):
        raise DataError(f"{header.record}: {file.name} is a Git LFS pointer, not the signal; run `git lfs pull`")
    if file.stem != path.stem and file.with_suffix(path.suffix).is_file():
        raise DataError(
            f"{header.record}: {path.name} names the signal {file.name}, which belongs to {file.stem}{path.suffix}; "
            "one header is in the place of another, get both again"
        )
    return file, stored


def _checksums_agree(samples: NDArray[np.int16], lines: tuple[SignalLine, ...]) -> bool | None:
    """Whether every signal adds up to its checksum modulo 2^16; None if the header gives none."""
    given = np.array([line.checksum for line in lines], dtype=np.uint16)
    if not given.any():
        return None
    whole = len(samples) // 64 * 64  # 64 frames as one row: numpy sums long rows ten times as fast as short ones
    rows = samples[:whole].view(np.uint16).reshape(-1, 64 * len(lines))
    sums = np.add.reduce(rows, axis=0, dtype=np.uint16).reshape(64, -1).sum(axis=0, dtype=np.uint16)
    sums += samples[whole:].view(np.uint16).sum(axis=0, dtype=np.uint16)  # all of it wraps around as the format does
    return bool((sums[given != 0] == given[given != 0]).all())


def _millivolts(
    digital: NDArray[np.int16], lines: tuple[SignalLine, ...], digital_per_mv: float | None
) -> NDArray[np.float32]:
    signal_mv = digital.astype(np.float32)
    if digital_per_mv is None:
        baseline = np.array([line.baseline for line in lines], dtype=np.float32)
        if baseline.any():
            signal_mv -= baseline
        signal_mv *= np.array([line.mv_per_unit / line.gain for line in lines], dtype=np.float32)
    else:
        signal_mv *= np.float32(1.0 / digital_per_mv)
    if digital.min() == _INVALID_16:
        signal_mv[digital == _INVALID_16] = np.nan
    return signal_mv
