"""What is wrong with a folder of ECGs: units, lead order, dead leads, lengths, duplicates, ages, leakage.

One pass over the signals in file order, with a few numbers kept per record, so memory does not grow with the signals.
Findings name the exams and the way out; nothing is changed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.code_format import CodeFolder, bad_records
from ecgscale.data.standard_form import DERIVED_LEADS

Severity = Literal["error", "warning", "info"]
Floats = NDArray[np.float64]

AMPLITUDE_MV = (0.55, 1.3)
"""Where a population's median lead-II amplitude lies if its unit is right.

The amplitude of a record is the 99.8 % quantile of |x - median(x)|. Medians that we measured: Georgia 0.81 mV,
CODE-15 % 0.82 (at 0.5 mV per unit), LUDB 0.96, PTB-XL 0.99. The bounds are a factor of about 1.4 away: halfway to 2.
"""

EINTHOVEN_RECORD = 0.1
"""Residual above which a record is named. The largest that we measured in sound records: 4.6 % in CODE-15 %, 1.0 %
in Georgia, 0.8 % in LUDB."""

EINTHOVEN_POPULATION = 0.2
"""Median residual above which units, gains or lead order are wrong. LUDB read with its header's gains has 0.40."""

# Lead orders in use that differ from ours (CODE-test; MIMIC-IV-ECG): the place of each standard limb lead in them.
_OTHER_ORDERS = {
    "I, II, III, aVL, aVF, aVR (as in CODE-test)": (0, 1, 2, 5, 3, 4),
    "I, II, III, aVR, aVF, aVL (as in MIMIC-IV-ECG)": (0, 1, 2, 3, 5, 4),
}
_MAX_AGE = 120.0


@dataclass(frozen=True)
class Finding:
    """One thing to know about a folder. `n_exams` are concerned, `exam_ids` names at most ten of them."""

    severity: Severity
    what: str
    detail: str
    n_exams: int = 0
    exam_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check`.

    Attributes:
        labels: Positives of each CODE label that the table has.
        length_s: Shortest, median and longest recording, without padding.
        amplitude_mv: Median lead-II amplitude; None for z-scored signals.
        einthoven: Median and 95 % quantile of the limb-lead residual; None for z-scored signals.
        age: Youngest, median and oldest among the plausible ages; None if there are none.
    """

    n_exams: int
    n_patients: int
    unit: str
    mv_per_unit: float
    labels: dict[str, int]
    length_s: tuple[float, float, float]
    amplitude_mv: float | None
    einthoven: tuple[float, float] | None
    age: tuple[float, float, float] | None
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        found = {finding.severity for finding in self.findings}
        order: tuple[Severity, ...] = ("error", "warning", "info")
        return next((severity for severity in order if severity in found), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def check(folder: CodeFolder, *, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Looks at every record of a folder once and reports what a user should know before training on it.

    Args:
        folder: The opened folder.
        progress: Called with the number of records done since the last call.
    """
    exams = folder.exams
    records = _measure(folder, progress or (lambda n: None))
    usable = records["reason"] == ""
    zscored = _looks_zscored(records[usable])
    findings = [
        *_bad_findings(records, exams),
        *_unit_findings(folder, records[usable], zscored),
        *_duplicate_findings(records[usable], exams),
        *_table_findings(folder),
    ]
    millivolts = folder.unit == "mV" and not zscored and bool(usable.any())
    if millivolts:
        findings += [*_amplitude_findings(folder, records[usable]), *_limb_lead_findings(records[usable], exams)]
    sound, ages = records[usable], exams["age"][exams["age"].between(0, _MAX_AGE)]
    lengths = sound["n_samples"] / folder.fs_hz
    return CheckReport(
        n_exams=len(exams),
        n_patients=int(exams["patient_id"].nunique()),
        unit=folder.unit,
        mv_per_unit=folder.mv_per_unit,
        labels={label: int(exams[label].sum()) for label in CODE_LABELS if label in exams.columns},
        length_s=_range(lengths) if len(lengths) else (0.0, 0.0, 0.0),
        amplitude_mv=float(sound["amplitude"].median()) if millivolts else None,
        einthoven=_quantiles(sound["einthoven"], (0.5, 0.95)) if millivolts else None,
        age=_range(ages) if len(ages) else None,
        findings=tuple(sorted(findings, key=lambda x: ("error", "warning", "info").index(x.severity))),
    )


def recorded_part(record: NDArray[np.float32]) -> slice:
    """The samples of (time, lead) between the zero padding on both sides; empty if all are zero."""
    filled = np.flatnonzero(record.any(axis=1))
    return slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, 0)


def einthoven_residual(signal: NDArray[np.float32]) -> float:
    """How badly III, aVR, aVL and aVF of (time, lead) disagree with I and II: RMS of the difference / RMS of the leads.

    0 for perfect leads; about 1 if lead order, gains or units are mixed up.
    """
    return _residual(_products(signal))


def lead_amplitude(lead: NDArray[np.float32]) -> float:
    """The 99.8 % quantile of |x - median(x)|: about the height of the R wave, whatever the baseline."""
    return float(np.quantile(np.abs(lead - np.median(lead)), 0.998))


def _measure(folder: CodeFolder, progress: Callable[[int], None]) -> pd.DataFrame:
    """A few numbers for every record (about 60 bytes); one row per row of `folder.exams`."""
    blocks = []
    for rows, signal in folder.batches():
        reasons = bad_records(signal)
        measured = [
            {"reason": str(reason), **(_NOT_MEASURED if reason else _measure_record(record))}
            for record, reason in zip(signal, reasons, strict=True)
        ]
        blocks.append(pd.DataFrame(measured, index=rows))
        progress(len(rows))
    return pd.concat(blocks).sort_index()


_NOT_MEASURED = {
    "n_samples": 0,
    "flat_leads": "",
    "amplitude": np.nan,
    "einthoven": np.nan,
    "other_order": "",
    "zscored": False,
    "digest": 0,
}


def _measure_record(record: NDArray[np.float32]) -> dict[str, Any]:
    part = record[recorded_part(record)]
    products, mean = _products(part), part.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(np.maximum(products.diagonal() - mean**2, 0.0))
    residual = _residual(products)
    others = {}
    if residual > EINTHOVEN_RECORD:
        others = {name: _residual(products[np.ix_(order, order)]) for name, order in _OTHER_ORDERS.items()}
    return {
        "n_samples": len(part),
        "flat_leads": ", ".join(LEADS[k] for k in np.flatnonzero(spread < 1e-3) if (part[:, k] == part[0, k]).all()),
        "amplitude": lead_amplitude(part[:, LEADS.index("II")]),
        "einthoven": residual,
        "other_order": next((name for name, value in others.items() if value < EINTHOVEN_RECORD), ""),
        # A z-scored lead has mean 0 and standard deviation 1, give or take what resampling changes.
        "zscored": bool((np.abs(mean) < 0.1).all() and (np.abs(spread - 1) < 0.1).all()),
        "digest": int.from_bytes(hashlib.blake2b(part.tobytes(), digest_size=8).digest(), signed=True),
    }


def _products(signal: NDArray[np.float32]) -> Floats:
    """The mean product of every two leads of (time, lead): all second moments of a record in one multiplication."""
    exact = signal.astype(np.float64)
    products: Floats = exact.T @ exact / len(exact)
    return products


def _residual(products: Floats) -> float:
    """`einthoven_residual` from the products of the limb leads: mean((d - a I - b II)²) is a quadratic form in them."""
    error = power = 0.0
    for lead, (a, b) in DERIVED_LEADS.items():
        weights = np.zeros(6)
        weights[LEADS.index(lead)], weights[0], weights[1] = 1.0, -a, -b
        error += max(0.0, float(weights @ products[:6, :6] @ weights))
        power += float(products[LEADS.index(lead), LEADS.index(lead)])
    return float(np.sqrt(error / power)) if power > 0 else float(error > 0)


def _looks_zscored(sound: pd.DataFrame) -> bool:
    return len(sound) > 0 and float(sound["zscored"].astype(float).mean()) > 0.8


def _bad_findings(records: pd.DataFrame, exams: pd.DataFrame) -> list[Finding]:
    findings = [
        _about(exams, records["reason"] == reason, "warning", f"records are {reason}", "They cannot be trained on.")
        for reason in sorted(set(records["reason"]) - {""})
    ]
    flat = records["flat_leads"] != ""
    if flat.any():
        leads = sorted({x for cell in records["flat_leads"][flat] for x in cell.split(", ")}, key=LEADS.index)
        detail = f"Constant over the whole recording: {', '.join(leads)}. They are kept."
        findings.append(_about(exams, flat, "warning", "flat leads", detail))
    return findings


def _unit_findings(folder: CodeFolder, sound: pd.DataFrame, zscored: bool) -> list[Finding]:
    if folder.unit == "zscore":
        detail = "Every lead was scaled by itself: voltage criteria and relations between leads are lost."
        findings = [Finding("info", "z-scored signals", detail)]
        if not zscored and len(sound):
            detail = "The files say that leads are z-scored, but their mean and standard deviation are not 0 and 1."
            findings.append(Finding("error", "unit is not z-score", detail))
        return findings
    if zscored:
        detail = (
            "The files claim millivolts, but each lead has mean 0 and standard deviation 1: it was z-scored. Mark the "
            "folder as unit 'zscore' (attribute of the data set), or get the original records."
        )
        return [Finding("error", "z-scored signals", detail, len(sound))]
    return []


def _amplitude_findings(folder: CodeFolder, sound: pd.DataFrame) -> list[Finding]:
    amplitude_mv, (low, high) = float(sound["amplitude"].median()), AMPLITUDE_MV
    if low <= amplitude_mv <= high:
        return []
    suggestion = ""
    for factor in (0.5, 2.0, 0.001, 1000.0, 0.1, 10.0):
        if low <= amplitude_mv * factor <= high:
            suggestion = f" With mv_per_unit={folder.mv_per_unit * factor:g} it would fit."
            break
    severity: Severity = "warning" if low / 3 <= amplitude_mv <= high * 3 else "error"
    detail = (
        f"The median lead-II amplitude is {amplitude_mv:.3g} mV at mv_per_unit={folder.mv_per_unit:g}; adult ECGs "
        f"have {low:g} to {high:g} mV.{suggestion}"
    )
    return [Finding(severity, "amplitude is not that of millivolts", detail, len(sound))]


def _limb_lead_findings(sound: pd.DataFrame, exams: pd.DataFrame) -> list[Finding]:
    """Einthoven's and Goldberger's relations hold in every sound record: an error if they fail in most, else a list."""
    median, bad = float(sound["einthoven"].median()), sound["einthoven"] > EINTHOVEN_RECORD
    if not bad.any():
        return []
    order = sound["other_order"][bad].mode().iloc[0]
    why = (
        f"The leads fit the order {order}." if order else "Gains per lead, lead order or separate filtering are wrong."
    )
    severity: Severity = "error" if median > EINTHOVEN_POPULATION else "warning"
    detail = f"III, aVR, aVL and aVF do not follow from I and II (median residual {median:.1%}). {why}"
    return [_about(exams, bad, severity, "limb leads contradict each other", detail)]


def _duplicate_findings(sound: pd.DataFrame, exams: pd.DataFrame) -> list[Finding]:
    repeated = sound[sound["digest"].duplicated(keep=False)]
    if repeated.empty:
        return []
    patients = exams["patient_id"].loc[repeated.index].groupby(repeated["digest"]).nunique()
    across = repeated["digest"].isin(patients.index[patients > 1])
    findings = []
    if across.any():
        detail = "The same signal under different patients can fall on both sides of a split: drop all but one."
        findings.append(_about(exams, across, "warning", "identical signals of different patients", detail))
    if not across.all():
        detail = "The same signal in several exams of one patient."
        findings.append(_about(exams, ~across, "info", "identical signals of one patient", detail))
    return findings


def _table_findings(folder: CodeFolder) -> list[Finding]:
    """Ages that are codes, patients in several splits, exams and traces without their other half."""
    exams, age = folder.exams, folder.exams["age"]
    findings = []
    if (coded := (age < 0) | (age > _MAX_AGE)).any():
        values = ", ".join(f"{x:g}" for x in sorted(age[coded].unique())[:5])
        detail = f"Values {values} are codes (300 is 'over 89' in PTB-XL, -1 is unknown), not years."
        findings.append(_about(exams, coded, "warning", "ages that are codes", detail))
    if age.isna().any():
        findings.append(_about(exams, age.isna(), "info", "age is missing", "They cannot serve an age task."))
    if "split" in exams.columns:
        n_splits = exams.groupby("patient_id")["split"].transform("nunique")
        if (n_splits > 1).any():
            detail = "Their exams lie in several splits: results on the held-out part would be too good."
            findings.append(_about(exams, n_splits > 1, "error", "patients in more than one split", detail))
    if len(exams) > 1 and (exams["patient_id"] == exams["exam_id"]).all():
        detail = "Every exam counts as its own patient; a person's exams may fall on both sides of a split."
        findings.append(Finding("info", "patients are not known", detail, len(exams)))
    if folder.n_without_trace:
        detail = "They are in the table, but no HDF5 part has their signal; they are left out."
        findings.append(Finding("warning", "exams without a trace", detail, folder.n_without_trace))
    if folder.n_unlisted:
        detail = "They are in the HDF5 parts, but not in the table; they are left out."
        findings.append(Finding("info", "traces without an exam", detail, folder.n_unlisted))
    return findings


def _about(exams: pd.DataFrame, mask: pd.Series, severity: Severity, what: str, detail: str) -> Finding:
    """A finding about the marked rows; `mask` is indexed by rows of `exams`."""
    ids = exams["exam_id"].loc[mask.index[mask.to_numpy(dtype=bool)]]
    return Finding(severity, what, detail, len(ids), tuple(int(x) for x in ids[:10]))


def _range(values: pd.Series) -> tuple[float, float, float]:
    return (float(values.min()), float(values.median()), float(values.max()))


def _quantiles(values: pd.Series, levels: tuple[float, float]) -> tuple[float, float]:
    return (float(values.quantile(levels[0])), float(values.quantile(levels[1])))
