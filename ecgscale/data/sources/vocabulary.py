"""What the collections' words mean: ages, sexes, record names, SNOMED CT codes, SCP statements, challenge classes.

Every table here maps somebody else's vocabulary to column names of ours and cites where it is from. It knows nothing
about files and signals.
"""

from collections.abc import Collection, Mapping, Sequence

from ecgscale.conventions import CODE_LABELS

CPSC_CLASSES = ("NSR", "AF", "1dAVb", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
"""The nine classes of CPSC 2018 in the order of its numbers 1 to 9 (Normal, AF, I-AVB, LBBB, RBBB, PAC, PVC, STD, STE;
http://2018.icbeb.org/Challenge.html), by the names of CODE and of the PhysioNet challenges."""

# SNOMED CT codes as in physionetchallenges/evaluation-2021, dx_mapping_scored.csv and dx_mapping_unscored.csv. It
# scores the general and the complete bundle branch blocks as one, and so PAC with supraventricular and PVC with
# ventricular premature beats; incomplete blocks are not CODE's classes. 164884008 (ventricular ectopics) is what the
# 700 PVC of CPSC 2018 carry there.
SNOMED: Mapping[str, tuple[str, ...]] = {
    "1dAVb": ("270492004",),
    "RBBB": ("59118001", "713427006"),
    "LBBB": ("164909002", "733534002"),
    "SB": ("426177001",),
    "AF": ("164889003",),
    "ST": ("427084000",),
    "NSR": ("426783006",),
    "PAC": ("284470004", "63593006"),
    "PVC": ("427172004", "17338001", "164884008"),
    "STD": ("429622005",),
    "STE": ("164931005",),
}

# The SCP-ECG statements of CODE's six, by their descriptions in PTB-XL's scp_statements.csv. Incomplete blocks (IRBBB,
# ILBBB) and the prolonged PR interval without a block (LPR) are not CODE's classes.
SCP: Mapping[str, str] = {
    "1dAVb": "1AVB",
    "RBBB": "CRBBB",
    "LBBB": "CLBBB",
    "SB": "SBRAD",
    "AF": "AFIB",
    "ST": "STACH",
}

# LUDB's words: the column of its table and the entry in it.
LUDB_TERMS: Mapping[str, tuple[str, str]] = {
    "1dAVb": ("conduction", "i degree av block"),
    "RBBB": ("conduction", "complete right bundle branch block"),
    "LBBB": ("conduction", "complete left bundle branch block"),
    "SB": ("rhythm", "sinus bradycardia"),
    "AF": ("rhythm", "atrial fibrillation"),
    "ST": ("rhythm", "sinus tachycardia"),
}

# "Over 89" is written as 300 (PTB-XL) or >89 (LUDB). 90 is the smallest age that it can mean: our assumption.
_OVER_89, _AGE_OVER_89 = ("300", ">89"), 90.0
_OLDEST = 120.0  # our assumption: a higher number is a code or a slip

_INT64_DIGITS = 18


def clean_age(text: object) -> float:
    """An age in years from what sources write: `56`; `>89` and `300` are 90; `-1`, `Unknown` and nothing are NaN."""
    word = str(text).strip().removesuffix(".0")
    if word in _OVER_89:
        return _AGE_OVER_89
    try:
        age = float(word)
    except ValueError:
        return float("nan")
    return age if 0 <= age <= _OLDEST else float("nan")


def clean_sex(text: object) -> bool | None:
    """True for male, False for female, None for unknown."""
    return {"m": True, "male": True, "f": False, "female": False}.get(str(text).strip().lower())


def exam_ids(names: Sequence[str]) -> list[int]:
    """A whole number for each record name: its digits where they tell all names apart, else its place in the order.

    Args:
        names: Unique record names, in the order in which the numbers are wanted.

    Returns:
        One number per name, unique; `E00271` is 271 unless another name, such as `HR00271`, has the same digits.
    """
    digits = ["".join(c for c in name if c in "0123456789") for name in names]
    if all(0 < len(x) <= _INT64_DIGITS for x in digits) and len({int(x) for x in digits}) == len(names):
        return [int(x) for x in digits]
    place = {name: k for k, name in enumerate(sorted(names), start=1)}
    return [place[name] for name in names]


def labels_of_snomed(codes: Collection[str]) -> dict[str, bool]:
    """CODE's six and CPSC's nine labels (eleven together) of a record with these SNOMED CT codes."""
    return {label: any(code in codes for code in meaning) for label, meaning in SNOMED.items()}


def labels_of_scp(statements: Collection[str]) -> dict[str, bool]:
    """CODE's six labels of a record with these SCP-ECG statements, whatever their likelihoods.

    Rhythm statements have no likelihood in PTB-XL (0 stands for "not graded"), so none can be asked for.
    """
    return {label: SCP[label] in statements for label in CODE_LABELS}
