"""The acceptance test of the package: what was planted comes back, and what was not is not found.

`ECGSCALE_PLANTED_STUDIES=100` simulates a hundred studies per truth instead of the few that CI has time for.
"""

import math
import os

import pytest
from planted_truths import CROSSING_AT, concluded

from ecgscale.findings import Verdict

N_STUDIES = int(os.environ.get("ECGSCALE_PLANTED_STUDIES", "2"))
SURE = 0.8
"""Share of the studies in which a planted difference of this size must be found. Measured: all but a few per cent."""

COVERAGE = 0.90
"""Of intervals that are meant to hold 95 %: from 200 draws of 20 cells. Measured: 94 %."""

TRANSFER_CLAIMS = ("parameter_efficiency", "data_efficiency", "transfer_efficiency", "lowest_loss", "overtaking")


def studies(name):
    return [concluded(name, seed) for seed in range(N_STUDIES)]


def pooled(conclusion):
    return [finding for finding in conclusion.findings if not finding.one_task]


def deviation(share, count):
    """Two standard deviations of an observed share."""
    return 2 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize(
    ("name", "conclusion", "expected"),
    [
        ("bottlenecked", "data_bottleneck", Verdict.SUPPORTED),
        ("bottlenecked", "ssl_improves", Verdict.SUPPORTED),
        ("efficient", "parameter_efficiency", Verdict.SUPPORTED),
        ("efficient", "data_efficiency", Verdict.SUPPORTED),
        ("transferring", "transfer_efficiency", Verdict.SUPPORTED),
        ("crossing", "overtaking", Verdict.SUPPORTED),
        ("with labels", "labels_in_distribution", Verdict.SUPPORTED),
        ("with labels", "labels_elsewhere", Verdict.SUPPORTED),
    ],
)
def test_planted_verdicts_come_back(name, conclusion, expected):
    verdicts = [study[conclusion].verdict for study in studies(name)]
    assert verdicts.count(expected) >= math.floor(SURE * N_STUDIES)
    assert set(verdicts) <= {expected, Verdict.UNDECIDED}


def test_planted_multipliers_lie_in_their_intervals():
    held = []
    for study in studies("efficient"):
        for conclusion, planted in (("parameter_efficiency", 2.0), ("data_efficiency", 4.0)):
            held += [f.low <= planted <= f.high for f in pooled(study[conclusion]) if f.value is not None]
    assert len(held) > 0.9 * N_STUDIES * 8
    # the findings of a study share its noise, so a study counts for two of them rather than eight
    assert sum(held) / len(held) >= COVERAGE - deviation(COVERAGE, 2 * N_STUDIES)


def test_planted_crossing_lies_in_its_interval():
    held = [
        finding.low <= CROSSING_AT <= finding.high
        for study in studies("crossing")
        for finding in pooled(study["overtaking"])
        if finding.verdict is Verdict.SUPPORTED
    ]
    assert sum(held) / len(held) >= COVERAGE - deviation(COVERAGE, N_STUDIES)


def test_nothing_is_found_where_nothing_was_planted():
    verdicts = [study[claim].verdict for study in studies("nothing differs") for claim in TRANSFER_CLAIMS]
    false = sum(verdict is not Verdict.UNDECIDED for verdict in verdicts)
    assert false / len(verdicts) <= 0.05 + deviation(0.05, len(verdicts))


def test_too_small_a_grid_is_undecided_and_says_what_would_decide():
    """Three sizes, four fractions, one seed, 3 % noise; which loss is lower is plain even then, multiples are not."""
    advice = []
    for study in studies("small"):
        for claim in set(TRANSFER_CLAIMS) - {"lowest_loss"}:
            assert study[claim].verdict is Verdict.UNDECIDED
            advice += [finding.would_decide for finding in study[claim].findings if finding.would_decide]
    assert all("would" in words for words in advice)
    assert any("training FLOPs" in words for words in advice)
