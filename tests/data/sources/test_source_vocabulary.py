"""Words of the collections: ages, sexes and names as they are in the wild, and what the codes mean."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecgscale.conventions import CODE_LABELS
from ecgscale.data.sources.vocabulary import (
    CPSC_CLASSES,
    SNOMED,
    clean_age,
    clean_sex,
    exam_ids,
    labels_of_scp,
    labels_of_snomed,
)


def test_ages_and_sexes_in_every_spelling() -> None:
    assert [clean_age(x) for x in ("56", 56.0, 56, ">89", "300", 300.0, ">89\n")] == [56, 56, 56, 90, 90, 90, 90]
    assert all(np.isnan(clean_age(x)) for x in ("-1", "NaN", "Unknown", None, float("nan"), "999", "", []))
    spellings = ("M", "female", "Male", "F\n", "Unknown", None, float("nan"))
    assert [clean_sex(x) for x in spellings] == [True, False, True, False, None, None, None]


def test_exam_ids_are_the_digits_or_else_the_place() -> None:
    assert exam_ids(["E00271", "E01137"]) == [271, 1137]
    assert exam_ids(["S2", "HR0001", "E0001"]) == [3, 2, 1]
    assert exam_ids(["b", "a"]) == [2, 1]
    assert exam_ids([]) == []


@given(st.lists(st.text(max_size=30), unique=True))
def test_exam_ids_of_any_names_are_unique_and_fit_in_64_bits(names: list[str]) -> None:
    ids = exam_ids(names)
    assert len(set(ids)) == len(ids) == len(names) and all(0 <= x < 2**63 for x in ids)


def test_snomed_codes() -> None:
    assert set(SNOMED) == {*CODE_LABELS, *CPSC_CLASSES}
    codes = [code for meaning in SNOMED.values() for code in meaning]
    assert len(set(codes)) == len(codes)
    labels = labels_of_snomed(["713427006", "164884008", "713426002"])  # complete RBBB, VEB, incomplete RBBB
    assert [name for name, positive in labels.items() if positive] == ["RBBB", "PVC"]
    assert not any(labels_of_snomed(["713426002", "164890007"]).values())  # incomplete RBBB, flutter


def test_scp_statements() -> None:
    assert labels_of_scp({"1AVB": 0.0, "IRBBB": 100.0, "STACH": 0.0}) == {
        "1dAVb": True,
        "RBBB": False,
        "LBBB": False,
        "SB": False,
        "AF": False,
        "ST": True,
    }
