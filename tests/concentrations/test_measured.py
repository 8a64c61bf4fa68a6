"""A user's own csv of measurements: converted, matched and chosen rightly, or refused with its line."""

import re

import numpy as np
import pandas as pd
import pytest

from ecgscale.concentrations.measured import ANALYTES, read_measured
from ecgscale.errors import DataError

EXAMS = pd.DataFrame({"exam_id": np.array([11, 12, 13, 14], np.int32), "sodium_mmol_l": 140.0})


@pytest.fixture
def read(tmp_path):
    def of(text, **options):
        path = tmp_path / "lab.csv"
        path.write_text(text, encoding="utf-8")
        return read_measured(path, EXAMS, **options)

    return of


def test_a_plain_file_becomes_a_column_named_with_its_unit(read):
    found = read("exam_id,potassium,unit\n13,4.1,mmol/L\n11,3.8,mmol/L\n")
    assert found.column == "potassium_mmol_l" and found.unit == "mmol/L"
    assert found.exam_ids.tolist() == [11, 13] and found.values.tolist() == [3.8, 4.1]
    assert not found.left_out


@pytest.mark.parametrize(
    ("analyte", "value", "unit", "expected"),
    [
        ("potassium", 16.4, "mg/dL", 4.19),  # textbook pairs
        ("potassium", 4.2, "mEq/L", 4.2),
        ("magnesium", 0.9, "mmol/l", 0.9),
        ("calcium", 9.6, "mg/dl", 2.395),
        ("calcium", 4.8, "mEq/L", 2.4),
        ("magnesium", 2.0, "mg/dL", 0.823),
        ("creatinine", 1.0, "mg/dL", 88.4),
        ("creatinine", 88.4, "µmol/L", 88.4),  # the micro sign
        ("creatinine", 88.4, "μmol/L", 88.4),  # the Greek letter
        ("Creatinine", 0.0884, "mmol/L", 88.4),
    ],
)
def test_units_are_converted(read, analyte, value, unit, expected):
    found = read(f"exam_id,{analyte},unit\n11,{value},{unit}\n")
    assert found.values[0] == pytest.approx(expected, rel=2e-3)
    assert found.unit == ANALYTES[analyte.lower()].unit


def test_lines_may_have_different_units(read):
    found = read("exam_id,calcium,unit\n11,2.4,mmol/L\n12,9.62,mg/dL\n")
    assert found.values == pytest.approx([2.4, 2.4], rel=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exam_id,potassium,unit\n11,4.1,mmol/L\n\n12,4.2,g/L\n", r"lab\.csv:4: potassium in 'g/L' can't be converted"),
        ("exam_id,potassium,unit\n11,4.1,\n", r"lab\.csv:2: potassium in nothing can't be converted; known are mmol/L"),
        ("exam_id,potassium,unit\n11,high,mmol/L\n", r"lab\.csv:2: potassium must be a number, not 'high'"),
        ("exam_id,potassium,unit\n11,4.1,mmol/L\n12,inf,mmol/L\n", r"lab\.csv:3: potassium must be a number"),
        (
            "exam_id,potassium,unit\n11,4.1,mmol/L\nx12,4,mmol/L\n",
            r"lab\.csv:3: exam_id must be a whole number, not 'x",
        ),
        ("exam_id,potassium,unit\n11.5,4.1,mmol/L\n", r"lab\.csv:2: exam_id must be a whole number"),
        (
            "exam_id,potassium,unit\n11,4.1,mmol/L\n12,16.4,mmol/L\n",
            r"lab\.csv:3: potassium 16\.4 mmol/L is 16\.4 mmol/L, possible are 1 to 12; 1 such values",
        ),
        ("exam_id,calcium,unit\n11,999,mmol/L\n", r"lab\.csv:2: calcium 999 mmol/L"),
        ("exam_id,potassium,unit\n11,4.1,mmol/L\n11,5.0,mmol/L\n", r"csv:3: exam_id 11 has another value on line 2"),
        ("exam_id,troponin,unit\n11,4.1,ng/L\n12,5.0,ug/L\n", r"lab\.csv:3: unit is 'ug/L'; only potassium"),
        ("exam_id,potassium,unit\n91,4.1,mmol/L\n", r"none of its 1 values is of an .* 91, those of the population 11"),
        ("exam_id,potassium,unit,minutes\n11,4.1,mmol/L,90\n", "no sample was taken within 60 minutes"),
        ("exam_id,potassium,unit,minutes\n11,4.1,mmol/L,soon\n", r"lab\.csv:2: minutes must be a number, not 'soon'"),
        ("exam_id,potassium\n11,4.1\n", r"no column unit; it has exam_id, potassium"),
        ("exam_id,potassium,sodium,unit\n11,4.1,140,mmol/L\n", r"one column beside .* it has potassium, sodium"),
        ("exam_id,unit\n11,mmol/L\n", r"it has none"),
        ("exam_id,potassium,unit\n", "has a header but no values"),
        ("exam_id,potassium,unit\n11,,mmol/L\n", "potassium is empty in every line"),
        ("exam_id,sodium,unit\n11,140,mmol/L\n", r"exams\.csv has a column 'sodium_mmol_l' already"),
        ("exam_id,potassium,unit\n11,4.1,mmol/L,7\n", "more fields than its header"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_file_that_is_not_there_or_no_text_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="lab"):
        read_measured(tmp_path / "lab.csv", EXAMS)
    (tmp_path / "lab.csv").write_bytes(b"exam_id,potassium,unit\n11,4.1,\xb5mol/L\n")
    with pytest.raises(DataError, match="cannot be read as a csv"):
        read_measured(tmp_path / "lab.csv", EXAMS)


def test_impossible_values_can_be_left_out_and_are_counted(read):
    found = read("exam_id,potassium,unit\n11,4.1,mmol/L\n12,41,mmol/L\n13,-1,mmol/L\n14,,\n", skip_bad=True)
    assert found.exam_ids.tolist() == [11]
    assert found.left_out == {"empty": 1, "impossible value": 2}


def test_the_sample_nearest_to_the_ecg_is_taken_and_of_two_the_one_before_it(read):
    found = read(
        "exam_id,potassium,unit,minutes\n"
        "11,4.1,mmol/L,-50\n11,4.2,mmol/L,20\n11,4.3,mmol/L,-61\n"
        "12,5.0,mmol/L,15\n12,5.1,mmol/L,-15\n"
        "13,3.9,mmol/L,30\n13,3.9,mmol/L,30\n"
        "14,3.0,mmol/L,\n99,3.0,mmol/L,1\n"
    )
    assert dict(zip(found.exam_ids.tolist(), found.values.tolist(), strict=True)) == {11: 4.2, 12: 5.1, 13: 3.9}
    assert found.left_out == {
        "exam of no record": 1,
        "more than 60 minutes from the ECG": 2,
        "farther from the ECG than another": 3,
    }


def test_another_target_is_taken_as_it_is(read):
    found = read("exam_id,NT-proBNP,unit\n11,900000,ng/L\n12,-4,ng/L\n")
    assert found.column == "nt-probnp_ng_l" and found.values.tolist() == [900000, -4]


def test_a_spreadsheets_file_is_read(tmp_path):
    (tmp_path / "lab.csv").write_bytes("\ufeffexam_id, potassium ,unit\r\n 11 , 4.1 , mmol/L \r\n\r\n".encode())
    found = read_measured(tmp_path / "lab.csv", EXAMS)
    assert found.values.tolist() == [4.1] and re.fullmatch("potassium_mmol_l", found.column)
