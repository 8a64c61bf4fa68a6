"""Transfer efficiency: planted ratios of κ and of slopes, paired, with and without a common unit."""

import json
import math

import numpy as np
import pytest

from ecgscale.laws import fit_pair
from ecgscale.laws.ratios import transfer_efficiency


def pairs(kappa_a=1.5, kappa_b=0.5, shared=0.0, own=0.0, bootstrap=0, x_b=1.0):
    rng = np.random.default_rng(0)
    x = np.geomspace(0.3, 1.2, 16)
    common = shared * rng.standard_normal(16)
    out = []
    for kappa, unit in ((kappa_a, 1.0), (kappa_b, x_b)):
        y = 0.8 * (x - 0.1) ** kappa + 0.2
        y = y * np.exp(common + own * rng.standard_normal(16))
        out.append(fit_pair(unit * x, y, floor_x=unit * 0.1, floor_y=0.2, bootstrap=bootstrap))
    return out


def test_planted_transfer_ratios():
    found = transfer_efficiency(*pairs())
    assert found.kappa.estimate.value == pytest.approx(3.0, rel=1e-6)
    drop = [0.8 * (1.1**k - 0.2**k) for k in (1.5, 0.5)]
    assert found.slope.estimate.value == pytest.approx(drop[0] / drop[1], rel=1e-6)
    assert found.overlap == pytest.approx((0.3, 1.2))
    logs = [math.log((0.8 * 1.1**k + 0.2) / (0.8 * 0.2**k + 0.2)) for k in (1.5, 0.5)]
    assert found.log_slope.estimate.value == pytest.approx(logs[0] / logs[1], rel=1e-6)
    json.dumps(found.to_dict(), allow_nan=False)


def test_losses_of_different_units_have_exponents_only():
    found = transfer_efficiency(*pairs(x_b=100.0))
    assert found.kappa.estimate.value == pytest.approx(3.0, rel=1e-6)
    assert found.overlap is None
    assert math.isnan(found.slope.estimate.value)
    assert "no_overlap" in found.slope.flags
    same_unit = transfer_efficiency(*pairs())
    assert found.log_slope.estimate.value == pytest.approx(same_unit.log_slope.estimate.value, rel=1e-6)


def test_transfer_intervals_are_paired():
    a, b = pairs(kappa_a=1.2, kappa_b=1.0, shared=0.02, own=0.002, bootstrap=300)
    found = transfer_efficiency(a, b)
    for ratio in (found.kappa, found.log_slope, found.slope):
        assert ratio.estimate.low < ratio.estimate.value < ratio.estimate.high
    assert found.kappa.estimate.low < 1.2 < found.kappa.estimate.high
    shuffled = type(b)(**{**vars(b), "draws": np.random.default_rng(0).permutation(b.draws)})
    loose = transfer_efficiency(a, shuffled).kappa.estimate
    assert found.kappa.estimate.high - found.kappa.estimate.low < 0.6 * (loose.high - loose.low)
