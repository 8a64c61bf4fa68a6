"""How intervals become verdicts, and findings a conclusion: nothing is picked, and an open side is no evidence."""

import math

import pytest

from ecgscale.findings import Verdict
from ecgscale.findings.deciding import conclude, decided, question
from ecgscale.laws import Estimate


def finding(value, low, high, null=1.0, one_task=False):
    asked = question("a against b", "transfer to B", "multiple", null, one_task)
    return decided(asked, Estimate(value, low, high), "it is so")


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        ((2.0, 1.1, 3.0), Verdict.SUPPORTED),
        ((2.0, 1.1, math.inf), Verdict.SUPPORTED),
        ((0.5, 0.1, 0.9), Verdict.CONTRADICTED),
        ((2.0, 0.9, 3.0), Verdict.UNDECIDED),
        ((2.0, 0.0, math.inf), Verdict.UNDECIDED),
    ],
)
def test_verdict_by_the_interval(estimate, verdict):
    found = finding(*estimate)
    assert found.verdict is verdict
    assert ("holds 1" in found.reason) == (verdict is Verdict.UNDECIDED)


def test_no_number_without_an_interval():
    found = finding(2.0, None, None)
    assert (found.value, found.verdict) == (None, Verdict.UNDECIDED)
    assert "no interval" in found.reason


def test_a_conclusion_needs_every_pooled_finding():
    yes, open_, no = finding(2, 1.5, 3), finding(2, 0.5, 3), finding(0.5, 0.2, 0.8)
    task = finding(0.5, 0.2, 0.8, one_task=True)

    def verdict(*findings):
        return conclude("name", "?", "published", "ours", findings).verdict

    assert verdict(yes, yes, task) is Verdict.SUPPORTED
    assert verdict(no, no) is Verdict.CONTRADICTED
    assert verdict(yes, open_) is Verdict.UNDECIDED
    assert verdict(yes, no) is Verdict.UNDECIDED


def test_summary_counts_tasks_and_says_what_chance_would_do():
    tasks = [finding(2, 1.5, 3, one_task=True)] * 6 + [finding(2, 0.5, 3, one_task=True)] * 2
    said = conclude("name", "?", "published", "ours", [finding(2, 1.5, 3), *tasks]).summary
    assert said.startswith("1 of 1 supported; multiple: 2 [1.5, 3]")
    assert "single tasks: 6 of 8 supported, 2 undecided" in said
    assert "0.4 would be decided" in said
