"""µP: what differs from the standard parametrisation, and that every layer then changes alike at every width."""

import re

import numpy as np
import pytest
import torch

from ecgscale.concentrations import ready_made
from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.coordinates import (
    DEPTHS,
    WIDTH_AT_ALL_DEPTHS,
    WIDTHS,
    Check,
    of_depth,
    of_width,
    output_changes,
    outside_blocks,
)
from ecgscale.data.splits import TRAIN
from ecgscale.data.store import open_store, store_name
from ecgscale.errors import SpecError
from ecgscale.ladder import shape
from ecgscale.models.maximal_update import Growth
from ecgscale.plan import plan
from ecgscale.pretraining import build, of_shape, sources_of

ARMS = ("resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl")
INPUT, HIDDEN, READ_OUT = Growth(False, True), Growth(True, True), Growth(True, False)


def spec_of(plan_, arm, **changes):
    spec = next(s for s in plan_.specs if s.arm == arm and s.data_fraction == 1)
    return spec.model_copy(update=changes)


def built(spec, network=None):
    torch.manual_seed(spec.seed)
    return of_shape(network or shape(spec.family, spec.rung, spec.input.shape), spec)


def groups(module):
    """Name of every weight that learns → (peak rate, weight decay)."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    return {
        names[id(weight)]: (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }


@pytest.mark.parametrize("arm", ARMS)
def test_at_the_reference_width_nothing_differs(tiny_plan, arm):
    standard = spec_of(tiny_plan, arm)
    width = shape(standard.family, standard.rung, standard.input.shape).width
    mup = standard.model_copy(update={"mup_reference_width": width})
    one, other = built(standard), built(mup)
    for (name, before), after in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0, msg=name)
    assert groups(one) == groups(other)


@pytest.mark.parametrize("arm", ARMS)
def test_without_mup_every_weight_has_one_rate_and_norms_and_biases_no_decay(tiny_plan, arm):
    spec = spec_of(tiny_plan, arm)
    module = built(spec)
    decay = {name: weight.ndim > 1 for name, weight in module.named_parameters()}
    assert groups(module) == {name: (spec.peak_lr, 0.05 if decays else 0.0) for name, decays in decay.items()}


@pytest.mark.parametrize("arm", ARMS)
def test_weights_whose_inputs_grow_learn_slower_and_decay_as_fast(tiny_plan, arm):
    spec = spec_of(tiny_plan, arm, mup_reference_width=8)
    module = built(spec)
    ratio = module.encoder.width / 8
    found = groups(module)
    assert set(found) == {name for name, _ in module.named_parameters()}
    for name, (rate, decay) in found.items():
        grows = module.parametrisation.growth.get(name)
        slower = grows in (HIDDEN, READ_OUT)
        assert rate == pytest.approx(spec.peak_lr / (ratio if slower else 1)), name
        assert rate * decay == pytest.approx(0 if grows is None else spec.peak_lr * 0.05), name


def test_every_weight_is_what_it_looks_like(tiny_plan):
    found = {arm: built(spec_of(tiny_plan, arm, mup_reference_width=8)).parametrisation.growth for arm in ARMS}
    assert found["resnet-sl"]["encoder.stem.0.weight"] == INPUT
    assert found["transformer-ssl"]["encoder.embed.weight"] == INPUT
    assert found["resnet-sl"]["objective.head.weight"] == READ_OUT
    assert found["transformer-ssl"]["objective.decoder.out.weight"] == READ_OUT
    assert found["resnet-ssl"]["objective.decoder.out.weight"] == READ_OUT
    assert found["resnet-ssl"]["objective.decoder.lateral.0.weight"] == HIDDEN
    for growth in found.values():
        inside = {g for name, g in growth.items() if name.startswith(("encoder.stages", "encoder.blocks"))}
        assert inside == {HIDDEN}
        assert {g for g in growth.values() if g == Growth(False, False)} == set()


@pytest.mark.parametrize("arm", ["resnet-ssl", "transformer-ssl"])
def test_fresh_input_layers_are_as_wide_at_every_width_and_read_outs_narrower(tiny_plan, arm):
    def spreads(width, reference):
        spec = spec_of(tiny_plan, arm, mup_reference_width=reference)
        module = built(spec, of_width(spec, width))
        weights = dict(module.named_parameters())
        layer = {INPUT: [], READ_OUT: []}
        for name, grows in module.parametrisation.growth.items():
            layer.setdefault(grows, []).append(float(weights[name].detach().std()))
        return layer[INPUT][0], layer[READ_OUT][0]

    (narrow_in, narrow_out), (wide_in, wide_out) = spreads(32, 32), spreads(512, 32)
    assert wide_in == pytest.approx(narrow_in, rel=0.1)
    assert wide_out == pytest.approx(narrow_out / 16, rel=0.1)  # without µP: a quarter


def test_the_network_of_a_trial_is_made_that_way(tiny_plan):
    spec = spec_of(tiny_plan, "transformer-ssl", mup_reference_width=6)
    torch.manual_seed(spec.seed)
    assert build(spec).parametrisation == built(spec).parametrisation


def test_a_head_that_sees_age_and_sex_has_weights_of_one_size(tiny_plan):
    head = {"name": "g", "kind": "gaussian", "age_and_sex": True}
    taught = {"target": TargetSpec(**ready_made.target("potassium")), "head": HeadSpec(**head), "labels": ()}
    module = built(spec_of(tiny_plan, "transformer-sl", mup_reference_width=8, paradigm="target", **taught))
    same = {name for name, grows in module.parametrisation.growth.items() if grows == Growth(False, False)}
    assert same and all("mixed.perceptron" in name for name in same)
    found = groups(module)
    assert {found[name][0] for name in same} == {module.spec.peak_lr}


# --- depth ---------------------------------------------------------------------------------------------------------

BRANCH_ENDS = re.compile(r"encoder\.blocks\.\d+\.(out|mlp\.2)\.(weight|bias)")


def test_at_the_reference_depth_nothing_differs(tiny_plan):
    spec = spec_of(tiny_plan, "transformer-ssl", mup_reference_width=8)
    one = built(spec)
    other = built(spec.model_copy(update={"mup_reference_depth": one.encoder.depth}))
    for before, after in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(before, after)
    assert groups(one) == groups(other)


def test_branches_of_a_deeper_network_count_less_and_learn_as_much_slower(tiny_plan):
    spec = spec_of(tiny_plan, "transformer-sl", mup_reference_width=8)
    deep = of_depth(6)
    without = built(spec, deep)
    with_rule = built(spec.model_copy(update={"mup_reference_depth": 2}), deep)
    ends = {name for name, _ in with_rule.named_parameters() if BRANCH_ENDS.fullmatch(name)}
    assert ends == with_rule.parametrisation.branch_ends and len(ends) == 6 * 4
    rates, before = groups(with_rule), groups(without)
    others = dict(without.named_parameters())
    for name, weight in with_rule.named_parameters():
        by = 3 if name in ends else 1
        torch.testing.assert_close(by * weight, others[name], msg=name)
        assert rates[name][0] == pytest.approx(before[name][0] / by), name
        assert rates[name][1] == pytest.approx(before[name][1] * by), name


def test_depth_is_part_of_a_trial_only_where_a_rule_names_it(grid_from):
    mup = "transformer: {base: 2e-3, parametrisation: mup"
    plain, deep = (
        {spec.arm: spec for spec in plan(grid_from({"transformer: {base: 2e-3": text})).specs}
        for text in (mup, f"{mup}, reference_depth: 2")
    )
    assert deep["transformer-sl"].mup_reference_depth == 2
    assert deep["transformer-sl"].trial_id != plain["transformer-sl"].trial_id
    assert deep["resnet-sl"].trial_id == plain["resnet-sl"].trial_id
    assert "depth" not in plain["transformer-sl"].model_dump_json()
    with pytest.raises(SpecError, match="a ResNet has five stages at every size"):
        grid_from({"resnet: {base: 3e-3": "resnet: {base: 3e-3, parametrisation: mup, reference_depth: 2"})
    with pytest.raises(SpecError, match="reference_depth goes with `parametrisation: mup`"):
        grid_from({"transformer: {base: 2e-3": "transformer: {base: 2e-3, reference_depth: 2"})


# --- coordinate check ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_with_mup_every_layer_changes_alike_at_every_width_and_without_it_does_not(tiny_plan, data_dir, arm):
    spec = spec_of(tiny_plan, arm, peak_lr=4e-3)
    store = open_store(data_dir / "A" / "packed" / store_name(spec.input))
    source, widths = sources_of(spec, store)[TRAIN], WIDTHS[spec.family][:-1]

    def exponents(reference):
        tried = spec.model_copy(update={"mup_reference_width": reference})
        changes = output_changes(tried, source, store.header.scale, [of_width(spec, width) for width in widths])
        return np.array(list(Check(arm, "", "width", widths, changes).exponents().values()))

    standard, mup = exponents(None), exponents(widths[1])
    assert np.abs(np.median(mup)) < 0.15
    assert np.abs(mup).max() < 0.5
    assert np.median(standard) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["transformer-sl", "transformer-ssl"])
def test_with_the_rule_for_depth_deep_networks_change_like_shallow_ones(tiny_plan, data_dir, arm):
    spec = spec_of(tiny_plan, arm, peak_lr=1e-3, mup_reference_width=WIDTH_AT_ALL_DEPTHS)
    store = open_store(data_dir / "A" / "packed" / store_name(spec.input))
    source = sources_of(spec, store)[TRAIN]

    def exponents(reference):
        tried = spec.model_copy(update={"mup_reference_depth": reference})
        changes = output_changes(tried, source, store.header.scale, [of_depth(depth) for depth in DEPTHS])
        found = Check("", "", "depth", DEPTHS, outside_blocks(changes)).exponents()
        assert {"encoder.embed", "encoder.norm"} < set(found)
        return found

    without, with_rule = exponents(None), exponents(DEPTHS[0])
    assert max(abs(found) for found in with_rule.values()) < 0.1
    assert without["encoder.norm"] > 0.1
