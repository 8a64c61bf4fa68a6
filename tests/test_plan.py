"""A grid becomes the trials it promises, and their bill adds up."""

import itertools
import re

import pytest

from ecgscale.conventions import CODE_LABELS
from ecgscale.errors import SpecError
from ecgscale.ladder import counts, decoder_counts, shape
from ecgscale.plan import CPU_CORE, GPU, Population, makespan_s, plan, planned
from ecgscale.specs import GridSpec
from ecgscale.sweep import smoke_first


@pytest.mark.parametrize(
    ("durations_s", "n_devices", "expected_s"),
    [
        ([], 3, 0),
        ([7], 4, 7),
        ([3, 1, 2], 1, 6),
        # 5 | 4 → 5 | 4+3 → 5+3 | 7 → 8 | 7+3: the known case where longest-first misses the optimum, 9
        ([3, 5, 3, 4, 3], 2, 10),
        # Graham's worst case on 3 devices: 4/3 - 1/9 of the optimum, 9
        ([5, 5, 4, 4, 3, 3, 3], 3, 11),
        ([2, 2, 2, 2], 8, 2),
    ],
)
def test_makespan_is_that_of_longest_first(durations_s, n_devices, expected_s):
    assert makespan_s(durations_s, n_devices) == expected_s


def test_every_cell_is_planned_and_nothing_else(grid_from):
    grid = grid_from({"[20K]": "[20K, 60K]\n  seed: [0, 1]"})
    cells = {(s.family, s.paradigm, s.rung, s.data_fraction, s.seed) for s in plan(grid).specs}
    assert cells == set(itertools.product(("resnet", "transformer"), ("sl", "ssl"), ("20K", "60K"), (0.5, 1.0), (0, 1)))
    assert len(plan(grid).trials) == len(cells) == 32


def test_labels_multiply_supervised_cells_only(grid_from):
    specs = plan(grid_from({"[20K]": "[20K]\n  n_labels: [1, 3, 6]"})).specs
    assert sum(s.paradigm == "ssl" for s in specs) == 2 * 2
    assert sum(s.paradigm == "sl" for s in specs) == 2 * 2 * 3
    assert all(s.labels == () for s in specs if s.paradigm == "ssl")


def test_label_subsets_are_nested_in_the_declared_order(grid_from):
    changes = {"[20K]": "[20K]\n  n_labels: [3, 1, 2]", "train:\n": "labels: [ST, AF, SB]\n\ntrain:\n"}
    sets = {s.labels for s in plan(grid_from(changes)).specs if s.paradigm == "sl"}
    assert sets == {("ST",), ("ST", "AF"), ("ST", "AF", "SB")}


def test_labels_are_the_six_of_code_unless_said(tiny_grid):
    assert {s.labels for s in plan(tiny_grid).specs} == {(), CODE_LABELS}


def test_trials_come_costliest_first_and_the_order_is_stable(grid_from):
    grid = grid_from({"[20K]": "[60K, 20K, 200K]", "kind: samples_seen, value: 48": "kind: epochs, value: 2"})
    made = plan(grid)
    costs = [t.cpu_s for t in made.trials]
    assert costs == sorted(costs, reverse=True)
    assert made.specs == plan(grid).specs


def test_a_smoke_trial_of_every_arm_comes_first_then_the_costliest(grid_from):
    made = plan(grid_from({"[20K]": "[20K, 60K]", "kind: samples_seen, value: 48": "kind: epochs, value: 2"}))
    cost = {t.spec.trial_id: t.cpu_s for t in made.trials}
    order = smoke_first(made.specs)
    assert sorted(s.trial_id for s in order) == sorted(s.trial_id for s in made.specs)
    smoke, rest = order[:4], order[4:]
    assert {s.arm for s in smoke} == {"resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl"}
    for spec in smoke:
        assert cost[spec.trial_id] == min(cost[s.trial_id] for s in made.specs if s.arm == spec.arm)
    assert [cost[s.trial_id] for s in rest] == sorted((cost[s.trial_id] for s in rest), reverse=True)


def test_one_trial_of_an_arm_is_not_started_twice(tiny_grid):
    one = plan(tiny_grid).specs[:1]
    assert smoke_first(one) == one
    assert smoke_first(()) == ()


def test_without_data_d_is_the_declared_share(tiny_grid):
    assert {s.n_records for s in plan(tiny_grid).specs} == {100, 200}
    assert all(s.data_fingerprint == {} for s in plan(tiny_grid).specs)


def known(fractions: dict[float, int]) -> dict[str, Population]:
    return {"A": Population("aaaa", 300, fractions), "B": Population("bbbb", 150)}


def test_with_data_d_is_what_the_data_hold(tiny_grid):
    specs = plan(tiny_grid, known({0.5: 113, 1.0: 215})).specs
    assert {(s.data_fraction, s.n_records) for s in specs} == {(0.5, 113), (1.0, 215)}
    assert all(s.data_fingerprint == {"A": "aaaa", "B": "bbbb"} for s in specs)


def test_a_population_that_is_not_there_is_named(tiny_grid):
    with pytest.raises(SpecError, match=r"sweep tiny: population 'B' is not in the data directory"):
        plan(tiny_grid, {"A": Population("aaaa", 300, {0.5: 113, 1.0: 215})})


def test_names_are_unique_and_say_what_the_trial_is(grid_from):
    specs = plan(grid_from({"[20K]": "[20K, 60K]\n  n_labels: [3, 6]\n  seed: [0, 1]"})).specs
    for what in ("trial_id", "label"):
        assert len({getattr(s, what) for s in specs}) == len(specs)
    assert "resnet-sl-60K-f0.5-k3-s1" in {s.label for s in specs}
    assert "transformer-ssl-20K-f1-s0" in {s.label for s in specs}


def test_two_cells_that_share_a_name_are_refused(grid_from):
    with pytest.raises(SpecError, match=r"sweep tiny: two cells share one label"):
        plan(grid_from({"[1/2, 1]": "[0.12345, 0.12346]"}))


def test_the_bill_of_a_trial(tiny_grid):
    """N without the head, the head apart, FLOPs times what is seen."""
    for spec in plan(tiny_grid).specs:
        cell = planned(spec)
        network = shape(spec.family, "20K", tiny_grid.input.shape)
        encoder = counts(network, tiny_grid.input.shape)
        assert cell.n_params == encoder.n_params
        if spec.paradigm == "sl":
            assert cell.n_params_head == (network.width + 1) * 6
            assert cell.train_flops == 48 * (encoder.train_flops + 3 * 2 * network.width * 6)
        else:
            head_params, head_flops = decoder_counts(network, tiny_grid.input.shape)
            assert (cell.n_params_head, cell.train_flops) == (head_params, 48 * (encoder.train_flops + head_flops))
        assert spec.n_samples_seen == 48


def test_more_work_costs_more(grid_from):
    """Time grows with steps and with N, memory with N and with the batch."""

    def largest(changes: dict[str, str]):
        return plan(grid_from(changes)).trials[0]

    base = largest({})
    longer = largest({"value: 48": "value: 4800"})
    wider = largest({"[20K]": "[600K]"})
    fuller = largest({"batch_size: 16": "batch_size: 48"})
    assert longer.cpu_s > 2 * base.cpu_s and longer.gpu_s > base.gpu_s
    assert longer.memory_bytes == base.memory_bytes
    assert wider.cpu_s > base.cpu_s and wider.memory_bytes > base.memory_bytes
    assert fuller.memory_bytes > base.memory_bytes


def test_the_makespan_shrinks_with_devices_down_to_the_longest_trial(grid_from):
    made = plan(grid_from({"[20K]": "[20K, 200K]"}))
    for device, seconds in ((CPU_CORE, [t.cpu_s for t in made.trials]), (GPU, [t.gpu_s for t in made.trials])):
        spans = [made.makespan_s(k, device) for k in (1, 2, 4, 64)]
        assert spans[0] == pytest.approx(sum(seconds))
        assert spans == sorted(spans, reverse=True)
        assert spans[-1] == pytest.approx(max(seconds))


def test_the_peak_rate_follows_the_familys_rule(tiny_grid: GridSpec):
    for spec in plan(tiny_grid).specs:
        width = shape(spec.family, spec.rung, tiny_grid.input.shape).width
        assert spec.peak_lr == tiny_grid.train.learning_rate[spec.family].peak(width)


def test_what_a_trial_says_of_itself_never_holds_a_clock_or_a_machine(tiny_plan):
    text = tiny_plan.specs[0].model_dump_json()
    assert not re.search(r"\d{4}-\d\d-\d\d", text)
    assert '"auto"' not in text
