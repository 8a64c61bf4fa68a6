"""What a sweep may say of targets and heads; what makes no sense is refused, and the field is named."""

import pytest
from pydantic import ValidationError

from ecgscale.concentrations.declared import HeadSpec, TargetSpec

POTASSIUM = {"name": "potassium", "column": "potassium_mmol_l", "unit": "mmol/l", "cuts": (3.5, 5.0)}


@pytest.mark.parametrize(
    "head",
    [
        {"kind": "mse"},
        {"kind": "huber", "huber_delta": 1},
        {"kind": "gaussian", "burn_in": 0.2, "age_and_sex": True},
        {"kind": "quantile", "levels": (0.1, 0.5, 0.9), "weights": "smoothed_density", "max_weight": 5},
        {"kind": "softmax", "buckets": "quantile", "classes": 8},
        {"kind": "cumulative", "buckets": "width", "classes": 2},
        {"kind": "coral", "buckets": (3.5, 5.0)},
        {"kind": "corn", "buckets": "cuts"},
        {"kind": "binary", "buckets": "lowest_cut"},
        {"kind": "binary", "buckets": (5.0,)},
        {"kind": "binary", "buckets": "quantile", "classes": 2},
    ],
)
def test_a_head_survives_the_way_through_json(head):
    spec = HeadSpec(name="h", **head)
    assert HeadSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"kind": "mse", "buckets": "quantile", "classes": 3}, "no `buckets` and no `classes`"),
        ({"kind": "gaussian", "classes": 3}, "no `buckets` and no `classes`"),
        ({"kind": "softmax"}, "kind softmax needs `buckets`"),
        ({"kind": "softmax", "buckets": "quantile"}, "`classes` goes with `buckets: quantile`"),
        ({"kind": "softmax", "buckets": (3.5, 5.0), "classes": 3}, "edges say it themselves"),
        ({"kind": "softmax", "buckets": "cuts", "classes": 3}, "edges say it themselves"),
        ({"kind": "softmax", "buckets": "quantile", "classes": 1}, "classes"),
        ({"kind": "corn", "buckets": (5.0, 3.5)}, "`buckets` ascend; 3.5 comes after 5"),
        ({"kind": "corn", "buckets": (3.5, 3.5)}, "`buckets` ascend"),
        ({"kind": "corn", "buckets": ()}, "`buckets` has no edge"),
        ({"kind": "binary", "buckets": (3.5, 5.0)}, "`buckets` of kind binary is one edge"),
        ({"kind": "binary", "buckets": "cuts"}, "`buckets` of kind binary is one edge"),
        ({"kind": "binary", "buckets": "quantile", "classes": 3}, "`buckets` of kind binary is one edge"),
        ({"kind": "quantile"}, "`levels` is for, and needed by, kind quantile"),
        ({"kind": "mse", "levels": (0.1, 0.9)}, "`levels` is for, and needed by, kind quantile"),
        ({"kind": "quantile", "levels": (0.5,)}, "`levels` are at least two"),
        ({"kind": "quantile", "levels": (0.5, 1.0)}, "`levels` lie between 0 and 1"),
        ({"kind": "quantile", "levels": (0.9, 0.1)}, "`levels` ascend"),
        ({"kind": "huber"}, "`huber_delta` is for, and needed by, kind huber"),
        ({"kind": "mse", "huber_delta": 1}, "`huber_delta` is for, and needed by, kind huber"),
        ({"kind": "mse", "burn_in": 0.1}, "`burn_in` is for kind gaussian"),
        ({"kind": "gaussian", "burn_in": 1.0}, "burn_in"),
        ({"kind": "mse", "weights": "inverse_frequency"}, "`max_weight` goes with `weights`"),
        ({"kind": "mse", "max_weight": 5}, "`max_weight` goes with `weights`"),
        ({"kind": "mse", "clases": 3}, "clases"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_name_of_its_field(head, message):
    with pytest.raises(ValidationError, match=message):
        HeadSpec(name="h", **head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuts": (5.0, 3.5)}, "target potassium: `cuts` ascend; 3.5 comes after 5"),
        ({"log": True, "cuts": (0.0, 3.5)}, "`cuts` of a target with `log` are above 0, not 0"),
        ({"unit": None}, "unit"),
    ],
)
def test_a_target_is_refused_likewise(change, message):
    assert TargetSpec(**POTASSIUM).cuts == (3.5, 5.0)
    with pytest.raises(ValidationError, match=message):
        TargetSpec(**POTASSIUM | change)
