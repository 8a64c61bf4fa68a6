"""What is wrong with a folder of ECGs: units, gains, lead order, dead leads, lengths, duplicates, ages, leakage.

One pass over the signals in file order, with a few numbers kept per record, so memory does not grow with the signals.
Findings name the exams, the probable cause and the way out; nothing is changed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.conventions import CODE_MV_PER_UNIT
from ecgscale.data.code_format import CodeFolder, open_code
from ecgscale.data.exams_table import some
from ecgscale.data.findings import SEVERITIES, Finding, Severity, worst_first
from ecgscale.data.measurement import Numbers, Slopes, einthoven_residual, measure
from ecgscale.data.signal_findings import has_millivolts, signal_findings
from ecgscale.data.sources import KINDS, open_source, recognise
from ecgscale.data.sources.code_positional import annotations_without_signals
from ecgscale.data.sources.source import ArrayLayout, Refused, Source, SourceOptions
from ecgscale.data.subjects import CodeSubject, SourceSubject, Subject, UnreadableSubject
from ecgscale.data.table_findings import label_columns, plausible_ages, table_findings
from ecgscale.errors import DataError

Progress = Callable[[int], None]

__all__ = ["CheckReport", "Finding", "GroupNumbers", "Subject", "check", "check_path", "einthoven_residual"]


@dataclass(frozen=True)
class GroupNumbers:
    """Records of one origin within a collection, told apart by the letters that their names begin with."""

    name: str
    n_exams: int
    fs_hz: float
    length_s: float
    """Median."""
    amplitude: float | None
    """Median lead-II amplitude in the collection's unit."""


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check`.

    Attributes:
        name: The folder's.
        kind: "code", or the kind of the source.
        n_exams: Records that could be read.
        n_refused: Records that could not.
        labels: Positives of each label that the table has, the six of CODE first.
        length_s: Shortest, median and longest recording, without padding.
        fs_hz: The sampling rates, with how many records have each.
        padding: How many records have zeros on `both` sides, only `before`, only `after`, or `none`.
        amplitude_mv: Median lead-II amplitude (`measurement.lead_amplitude`); None for z-scored signals.
        amplitude_stored: The same in stored units.
        einthoven: Median and 95 % quantile of what contradicts III = II - I; None for z-scored signals.
        goldberger: The same for aVR, aVL and aVF.
        age: n, min, median, max, mean and sd of the plausible ages; None if there are none.
        sex: How many are `male`, `female`, `unknown`.
        groups: Records of several origins, each by itself; empty if there is only one.
        findings: The worst first.
        records: One row per record, with everything that was measured. Not part of the JSON.
    """

    name: str
    kind: str
    unit: str
    mv_per_unit: float
    n_exams: int
    n_refused: int
    n_patients: int
    labels: dict[str, int]
    length_s: tuple[float, float, float]
    fs_hz: dict[float, int]
    padding: dict[str, int]
    amplitude_mv: float | None
    amplitude_stored: float | None
    einthoven: tuple[float, float] | None
    goldberger: tuple[float, float] | None
    age: dict[str, float] | None
    sex: dict[str, int]
    groups: tuple[GroupNumbers, ...]
    findings: tuple[Finding, ...]
    records: pd.DataFrame = field(repr=False, compare=False)

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in SEVERITIES if severity in found), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "records"}
        plain["fs_hz"] = {f"{rate:g}": count for rate, count in self.fs_hz.items()}
        plain["groups"] = [vars(group) for group in self.groups]
        return {**plain, "worst": self.worst, "findings": [vars(finding) for finding in self.findings]}

    def facts(self) -> list[tuple[str, str]]:
        """What the collection is, for people: a name and a text each."""
        refused = f", {self.n_refused:,} cannot be read" if self.n_refused else ""
        facts = [("records", f"{self.n_exams:,} of {self.n_patients:,} patients{refused}")]
        if not self.n_exams:
            return facts
        rates = ", ".join(f"{rate:g} Hz" for rate in self.fs_hz)
        shortest, median, longest = self.length_s
        facts.append(("length", f"{shortest:.4g} – {longest:.4g} s, median {median:.4g} s, at {rates}"))
        padded = ", ".join(f"{name} {count:,}" for name, count in self.padding.items() if count)
        facts.append(("zero padding", padded))
        if self.amplitude_mv is not None and self.amplitude_stored is not None:
            stored = "" if self.mv_per_unit == 1 else f" ({self.amplitude_stored:.2f} as stored)"
            facts.append(("lead II", f"median amplitude {self.amplitude_mv:.2f} mV{stored}"))
        for name, residual in (("III = II - I", self.einthoven), ("aVR, aVL, aVF", self.goldberger)):
            if residual is not None:
                facts.append((name, f"residual {residual[0]:.2%}, 95 % below {residual[1]:.2%}"))
        if self.age is not None:
            text = "{min:.0f} – {max:.0f} years, median {median:.0f}, mean {mean:.1f}, sd {sd:.1f}".format(**self.age)
            facts.append(("age", f"{text}; known for {self.age['n']:,.0f}"))
        facts.append(("sex", ", ".join(f"{count:,} {name}" for name, count in self.sex.items() if count)))
        if self.labels:
            shares = (f"{label} {n:,} ({n / self.n_exams:.1%})" for label, n in self.labels.items())
            facts.append(("labels", ", ".join(shares)))
        for group in self.groups:
            amplitude = "" if group.amplitude is None else f", lead II {group.amplitude:.2f} {self.unit}"
            facts.append((f"{group.name}…", f"{group.n_exams:,} records, {group.length_s:.4g} s{amplitude}"))
        return facts


def check_path(
    path: Path,
    *,
    kind: str = "auto",
    mv_per_unit: float | None = None,
    records: str = "*",
    layout: ArrayLayout | None = None,
    start: Progress | None = None,
    progress: Progress | None = None,
) -> tuple[CheckReport, Subject]:
    """Checks a folder in CODE format or a source that has not been imported, which is read as its files declare it.

    Args:
        path: The folder; for plain arrays perhaps a single file.
        kind: "code", a kind of source, or "auto".
        mv_per_unit: Millivolts per stored unit, for the CODE family.
        records: Only records whose name matches (fnmatch).
        layout: What plain arrays do not say themselves.
        start: Told the number of records before the first.
        progress: Told the number of records done since the last call.

    Returns:
        The report, and what was checked, for `check_sheet.write_check_sheet`.

    Raises:
        DataError: There is no such folder, nobody knows its form, or the kind does not exist.
    """
    subject = open_subject(path, kind, SourceOptions(records, mv_per_unit, as_declared=True, layout=layout))
    if start is not None:
        start(subject.n_records)
    return check(subject, progress=progress), subject


def open_subject(path: Path, kind: str, options: SourceOptions) -> Subject:
    """What `check_path` checks; a folder that cannot be used at all is a subject with that finding."""
    if not path.exists():
        raise DataError(f"{path}: no such folder")
    name = path.resolve().name
    if kind == "auto":
        if (counts := annotations_without_signals(path)) is not None:
            return UnreadableSubject(name, _annotations_finding(counts))
        kind = recognise(path)
    if kind not in KINDS:
        raise DataError(f"unknown kind of source {kind!r}; known: auto, {', '.join(KINDS)}")
    try:
        if kind == "code" and options.records == "*" and not any(path.glob("*.zip")):
            with suppress(DataError):  # opened as a source it may be half usable, and refuse the other half by name
                return CodeSubject(open_code(path, mv_per_unit=options.mv_per_unit, partial=True))
        return _open_source(path, kind, options, name)
    except DataError as error:
        return UnreadableSubject(name, Finding("error", "the folder cannot be used", str(error)))


def _open_source(path: Path, kind: str, options: SourceOptions, name: str) -> Subject:
    """A source as its files declare it, but for the releases' factor 2: that is known, and would hide the rest."""
    if kind not in _RELEASES:
        return SourceSubject(open_source(path, kind, options), name)
    scale = options.mv_per_unit or CODE_MV_PER_UNIT
    if kind == "code":  # its files may name their unit
        return SourceSubject(open_source(path, kind, replace(options, as_declared=False)), name, release_scale=scale)
    return SourceSubject(open_source(path, kind, replace(options, mv_per_unit=scale)), name, release_scale=scale)


_RELEASES = ("code", "code-test", "sami-trop")


def check(subject: CodeFolder | Source | Subject, *, progress: Progress | None = None) -> CheckReport:
    """Looks at every record once and reports what a user should know before training on it.

    Args:
        subject: An opened folder or source; a source had better be opened `as_declared`.
        progress: Told the number of records done since the last call.
    """
    if isinstance(subject, CodeFolder):
        subject = CodeSubject(subject)
    elif isinstance(subject, Source):
        subject = SourceSubject(subject)
    records, refused, slopes = _measure(subject, progress or (lambda n: None))
    usable = records[records["reason"] == ""]
    findings = [*subject.findings(), *_refusals(refused)]
    if subject.n_records and usable.empty:
        findings.append(Finding("error", "no record is usable", "Not one signal of this collection can be used."))
    findings += [*signal_findings(subject, records, slopes), *table_findings(records)]
    millivolts = has_millivolts(subject, usable)
    amplitude = float(usable["amplitude"].median()) if millivolts else None
    return CheckReport(
        name=subject.name,
        kind=subject.kind,
        unit=subject.unit,
        mv_per_unit=subject.mv_per_unit,
        n_exams=len(records),
        n_refused=len(refused),
        n_patients=int(records["patient_id"].nunique()),
        labels={label: int(records[label].sum()) for label in label_columns(records)},
        length_s=_range(usable["n_samples"] / usable["fs_hz"]),
        fs_hz=_rates(usable),
        padding=_padding(usable),
        amplitude_mv=amplitude,
        amplitude_stored=None if amplitude is None else amplitude / subject.mv_per_unit,
        einthoven=_quantiles(usable["einthoven"]) if millivolts else None,
        goldberger=_quantiles(usable["goldberger"]) if millivolts else None,
        age=_ages(plausible_ages(records)),
        sex=_sexes(records),
        groups=_groups(usable, millivolts),
        findings=worst_first(findings),
        records=records,
    )


def _measure(subject: Subject, progress: Progress) -> tuple[pd.DataFrame, list[Refused], Slopes]:
    """The table of records: their rows of the exam table and a few numbers each (about 150 bytes in all)."""
    tables, refused, slopes = [], list(subject.refused), Slopes()
    for piece in subject.pieces():
        refused += piece.refused
        if len(piece.keys):
            pairs = zip(piece.signals, piece.fs_hz, strict=True)
            numbers = pd.DataFrame([measure(signal, fs_hz, slopes) for signal, fs_hz in pairs], index=piece.keys)
            exams = piece.exams.set_axis(piece.keys)
            tables.append(pd.concat([exams, numbers.assign(fs_hz=np.asarray(piece.fs_hz, dtype=float))], axis=1))
        progress(len(piece.keys) + len(piece.refused))
    if not tables:
        return pd.DataFrame(columns=[*_ALWAYS, *Numbers._fields]), refused, slopes
    records = pd.concat(tables).sort_index()
    return (
        records.astype(dict.fromkeys(("reason", "cause", "cause_leads", "cables", "scaled"), "category")),
        refused,
        slopes,
    )


_ALWAYS = ("exam_id", "patient_id", "age", "is_male", "fs_hz")


def _refusals(refused: Sequence[Refused]) -> list[Finding]:
    """Records that nobody can use, grouped by the reason (whatever its numbers), the most frequent first."""
    by_reason: dict[str, list[Refused]] = {}
    for item in refused:
        by_reason.setdefault(re.sub(r"\d+", "#", item.reason), []).append(item)
    groups = sorted(by_reason.values(), key=len, reverse=True)
    rest = [item for group in groups[_MOST_REASONS:] for item in group]
    findings = []
    for group in [*groups[:_MOST_REASONS], *([rest] if rest else [])]:
        names = [item.record for item in group]
        detail = f"{group[0].reason.rstrip('.')}. Here: {some(list(dict.fromkeys(names)))}."
        detail = f"For other reasons, the first: {detail}" if group is rest else detail
        findings.append(
            Finding("warning", "records that cannot be read", detail, len(group), records=tuple(names[:10]))
        )
    return findings


_MOST_REASONS = 12


def _annotations_finding(counts: Mapping[str, int]) -> Finding:
    positives = ", ".join(f"{label} {count}" for label, count in counts.items() if label != "n_exams")
    detail = (
        f"{counts['n_exams']:,} annotated exams (positives: {positives}), but no tracings. "
        "Get ecg_tracings.hdf5 of CODE-test (Zenodo 3765780) and put it beside the annotations."
    )
    return Finding("error", "annotations without signals", detail)


def _rates(usable: pd.DataFrame) -> dict[float, int]:
    rates, counts = np.unique(usable["fs_hz"].to_numpy(dtype=float), return_counts=True)
    return {float(rate): int(count) for rate, count in zip(rates, counts, strict=True)}


def _padding(usable: pd.DataFrame) -> dict[str, int]:
    before, after = usable["n_before"] > 0, usable["n_after"] > 0
    sides = {"both": before & after, "before": before & ~after, "after": after & ~before, "none": ~before & ~after}
    return {name: int(there.sum()) for name, there in sides.items()}


def _groups(usable: pd.DataFrame, millivolts: bool) -> tuple[GroupNumbers, ...]:
    """CinC names Georgia's records E…, PTB-XL's HR…, and so on: populations that differ."""
    if "record" not in usable.columns:
        return ()
    letters = usable["record"].str.extract(r"^([A-Za-z]+)\d", expand=False)
    if letters.isna().any() or not 1 < letters.nunique() <= _MOST_GROUPS:
        return ()
    return tuple(
        GroupNumbers(
            name=str(name),
            n_exams=len(group),
            fs_hz=float(group["fs_hz"].median()),
            length_s=float((group["n_samples"] / group["fs_hz"]).median()),
            amplitude=float(group["amplitude"].median()) if millivolts else None,
        )
        for name, group in usable.groupby(letters)
    )


_MOST_GROUPS = 12


def _ages(ages: pd.Series) -> dict[str, float] | None:
    if ages.empty:
        return None
    numbers = {name: float(getattr(ages, name)()) for name in ("min", "median", "max", "mean")}
    return {"n": float(len(ages)), **numbers, "sd": float(ages.std(ddof=0))}


def _sexes(records: pd.DataFrame) -> dict[str, int]:
    sex = records["is_male"].astype("boolean")
    return {"male": int(sex.sum()), "female": int((~sex).sum()), "unknown": int(sex.isna().sum())}


def _range(values: pd.Series) -> tuple[float, float, float]:
    return (float(values.min()), float(values.median()), float(values.max())) if len(values) else (0.0, 0.0, 0.0)


def _quantiles(values: pd.Series) -> tuple[float, float]:
    return (float(values.quantile(0.5)), float(values.quantile(0.95)))
