"""YAML as people expect it: numbers are numbers, nothing is lost silently, every value knows its line."""

import pytest

from ecgscale.errors import SpecError
from ecgscale.yaml_text import YamlText


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e5", 1e5),
        ("1e-3", 1e-3),
        ("3E8", 3e8),
        ("-2e3", -2e3),
        ("+2e3", 2e3),
        ("1.5e3", 1500.0),
        ("1.e3", 1000.0),
        ("1_000e2", 1e5),
        ("1.0e+18", 1e18),
        ("0.001", 0.001),
    ],
)
def test_numbers_with_an_exponent_are_numbers(written, value):
    read = YamlText(f"x: {written}", "a.yaml").value["x"]
    assert isinstance(read, float)
    assert read == value


@pytest.mark.parametrize("written", ["20K", "1/8", "e5", "1e", "1e5x", "2e3-1", '"1e5"', "be68e359"])
def test_text_that_only_looks_like_a_number_stays_text(written):
    assert YamlText(f"x: {written}", "a.yaml").value["x"] == written.strip('"')


def test_whole_numbers_stay_whole():
    read = YamlText("x: [1_000_000, 12]", "a.yaml").value["x"]
    assert read == [1_000_000, 12]
    assert all(isinstance(number, int) for number in read)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3\n", 3), ("top:\n  inner:\n    x: 1\n    x: 1\n", 4), ("- {x: 1}\n- {y: 1, y: 2}\n", 2)],
)
def test_a_key_given_twice_is_refused_with_its_line(text, line):
    with pytest.raises(SpecError, match=rf"^a\.yaml:{line}: key '[axy]' is given twice"):
        YamlText(text, "a.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2\nb: 3\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a: 1\nb: *nowhere\n", 2),
        ("a: 1\nb: {{template}}\n", 2),  # a mapping as a key
        ("a: 1\n? [b, c]\n: 2\n", 2),  # a list as a key
        ("a: !!python/object:os.system x\n", 1),
        ("a: 1\nb: \x07\n", 2),  # a control character
        ("a: 1\n---\nb: 2\n", 2),  # two documents
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text, line):
    with pytest.raises(SpecError, match=rf"^a\.yaml:{line}: ."):
        YamlText(text, "a.yaml")


def test_values_may_be_shared_by_anchors():
    text = "base: &base {x: 1, y: 2}\nother:\n  <<: *base\n  y: 3\n"
    assert YamlText(text, "a.yaml").value["other"] == {"x": 1, "y": 3}


def test_every_part_knows_its_line():
    parsed = YamlText("a: 1\nb:\n  c:\n    - x: 1\n    - y: 2\n      z: 3\n", "a.yaml")
    assert parsed.line(("a",)) == 1
    assert parsed.line(("b", "c")) == 3
    assert parsed.line(("b", "c", 1)) == 5
    assert parsed.line(("b", "c", 1, "z")) == 6


def test_a_part_that_is_not_there_has_the_line_of_what_is_around_it():
    parsed = YamlText("a: 1\nb:\n  c: 2\n", "a.yaml")
    assert parsed.line(("b", "missing")) == 2
    assert parsed.line(("b", "c", 7, "deeper")) == 3
    assert parsed.line(("nothing",)) == 1
    assert parsed.line(()) == 1


def test_an_empty_file_has_no_value():
    assert YamlText("", "a.yaml").value is None


RULES = """\
# why
rules:
  a: {base: 8e-3, exponent: -0.5}  # of a
  b:
    base: 1   # of b
    width: 32

last: true
"""


def test_values_change_and_everything_else_stays():
    changed = YamlText(RULES, "a.yaml").with_values(
        {
            ("rules", "a", "base"): "2.5e-3",
            ("rules", "a", "exponent"): "-1.25",
            ("rules", "b", "base"): "0.5",
            ("rules", "b", "exponent"): "-1",
        }
    )
    assert (
        changed
        == """\
# why
rules:
  a: {base: 2.5e-3, exponent: -1.25}  # of a
  b:
    base: 0.5   # of b
    width: 32
    exponent: -1

last: true
"""
    )


def test_a_key_that_is_missing_in_braces_is_put_behind_the_last():
    changed = YamlText("a: {base: 1} # one\n", "a.yaml").with_values({("a", "exponent"): "-1"})
    assert changed == "a: {base: 1, exponent: -1} # one\n"


def test_a_value_that_two_places_share_is_not_changed_for_one_of_them():
    text = YamlText("a: &rule {base: 1}\nb: *rule\n", "a.yaml")
    with pytest.raises(SpecError, match=r"a.yaml: b.base is shared by an alias; write it out"):
        text.with_values({("a", "base"): "2", ("b", "base"): "3"})


def test_what_is_no_mapping_is_not_changed():
    with pytest.raises(SpecError, match=r"a.yaml: rules.c is no mapping that could be changed"):
        YamlText(RULES, "a.yaml").with_values({("rules", "c", "base"): "1"})
