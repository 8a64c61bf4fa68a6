"""What the exam table tells: ages that are codes, patients on both sides of a split, rare labels, repeated signals.

Works on the table of records that `ecgscale.data.quality` makes; reads no signal.
"""

import pandas as pd

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.findings import Finding, about

_OLDEST = 120.0
_FEWEST_POSITIVES = 10
"""Below this an AUROC says little: with 4-10 positives its standard error is 0.05-0.1 (our rule of thumb)."""


def table_findings(records: pd.DataFrame) -> list[Finding]:
    """Findings about ages, patients, splits, labels and repeated signals.

    Args:
        records: One row per record: exam_id, patient_id, age, is_male, labels, perhaps split and strat_fold; `digest`
            and `reason` of its signal.
    """
    if records.empty:
        return []
    return [*_duplicates(records), *_ages(records), *_patients(records), *_rare_labels(records)]


def plausible_ages(records: pd.DataFrame) -> pd.Series:
    """The ages that can be years."""
    return records["age"][records["age"].between(0, _OLDEST)]


def label_columns(records: pd.DataFrame) -> list[str]:
    """The labels of the table, the six of CODE first: every column that is true or false."""
    found = [str(name) for name in records.columns if records[name].dtype == bool]
    return [x for x in CODE_LABELS if x in found] + [x for x in found if x not in CODE_LABELS]


def _duplicates(records: pd.DataFrame) -> list[Finding]:
    sound = records[records["reason"] == ""]
    repeated = sound[sound["digest"].duplicated(keep=False)].sort_values("digest", kind="stable")
    if repeated.empty:
        return []
    across = repeated.groupby("digest")["patient_id"].transform("nunique") > 1
    findings = []
    if across.any():
        pairs = _first_groups(repeated[across])
        detail = f"The same signal under different patients can fall on both sides of a split ({pairs}). Keep one."
        findings.append(about(repeated[across], "warning", "identical signals of different patients", detail))
    if not across.all():
        detail = f"The same signal in several exams of one patient ({_first_groups(repeated[~across])})."
        findings.append(about(repeated[~across], "info", "identical signals of one patient", detail))
    return findings


def _first_groups(repeated: pd.DataFrame, limit: int = 3) -> str:
    """`12 = 15, 20 = 31 = 32`, by the names that the collection uses."""
    name = "record" if "record" in repeated.columns else "exam_id"
    groups = [" = ".join(map(str, group)) for _, group in repeated.groupby("digest", sort=False)[name]]
    return ", ".join(groups[:limit]) + (f", … ({len(groups):,} signals)" if len(groups) > limit else "")


def _ages(records: pd.DataFrame) -> list[Finding]:
    age, findings = records["age"], []
    if (coded := (age < 0) | (age > _OLDEST)).any():
        values = ", ".join(f"{x:g}" for x in sorted(age[coded].unique())[:5])
        detail = f"Values {values} are codes (300 is 'over 89' in PTB-XL, -1 is unknown), not years."
        findings.append(about(records[coded], "warning", "ages that are codes", detail))
    if age.isna().any():
        detail = "They cannot serve an age task."
        findings.append(about(records[age.isna()], "info", "age is missing", detail))
    return findings


def _patients(records: pd.DataFrame) -> list[Finding]:
    findings = []
    unknown = records["patient_id"].isna()
    if unknown.any():
        detail = "Nobody can keep their exams on one side of a split."
        findings.append(about(records[unknown], "error", "patients are missing", detail))
    for column, name in (("split", "split"), ("strat_fold", "fold")):
        if column in records.columns:
            spread = records.groupby("patient_id")[column].transform("nunique") > 1
            if spread.any():
                detail = "Their exams lie on several sides: results on the held-out part would be too good."
                findings.append(about(records[spread], "error", f"patients in more than one {name}", detail))
    if len(records) > 1 and (records["patient_id"] == records["exam_id"]).all():
        detail = "Every exam counts as its own patient; a person's exams may fall on both sides of a split."
        findings.append(Finding("info", "patients are not known", detail, len(records)))
    return findings


def _rare_labels(records: pd.DataFrame) -> list[Finding]:
    """Labels with few positives; one without any positive is not a label of this collection."""
    counts = {label: int(records[label].sum()) for label in label_columns(records)}
    rare = ", ".join(f"{label} {n}" for label, n in counts.items() if n < _FEWEST_POSITIVES)
    if not rare:
        return []
    detail = f"Fewer than {_FEWEST_POSITIVES} positives: {rare}. Their AUROC will say little."
    return [Finding("info", "rare labels", detail)]
