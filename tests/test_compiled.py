"""A compiled encoder trains as the other does, up to the order of additions."""

import shutil

import pytest

from ecgscale.execution import Execution
from ecgscale.results import RunRecord, Status
from ecgscale.specs import TrialSpec
from ecgscale.trial import run_trial

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, where it compiles
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
]


def test_losses_are_the_same_within_tolerance(tiny_plan, data_dir, tmp_path):
    (found,) = (s for s in tiny_plan.specs if s.arm == "transformer-sl" and s.data_fraction == 1)
    spec = TrialSpec.model_validate(found.model_dump() | {"transfer_to": (), "n_steps": 6})
    rows: dict[bool, RunRecord] = {}
    for compiled in (False, True):
        ids = frozenset({spec.trial_id} if compiled else ())
        rows[compiled] = run_trial(spec, Execution(data_dir, tmp_path / str(compiled), "tiny", compiled=ids))
        assert (rows[compiled].status, rows[compiled].compiled) == (Status.COMPLETED, compiled), rows[compiled].reason
    for name in ("val_loss_best", "val_loss_last", "id_loss", "id_loss_last"):
        assert getattr(rows[True], name) == pytest.approx(getattr(rows[False], name), rel=1e-4)
