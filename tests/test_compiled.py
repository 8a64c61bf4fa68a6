"""A compiled encoder trains as the other does, up to the order of additions."""

import logging
import shutil
from functools import partial

import pytest
import torch

from ecgscale import training, turns
from ecgscale.calibrating import calibrate
from ecgscale.execution import Execution
from ecgscale.objectives.batch import Batch
from ecgscale.plan import planned
from ecgscale.pretraining import build
from ecgscale.results import RunRecord, Status
from ecgscale.specs import TrialSpec
from ecgscale.training import Pretraining
from ecgscale.trial import run_trial

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, where it compiles
    pytest.mark.slow,
]


def spec_of(plan, arm: str) -> TrialSpec:
    (found,) = (s for s in plan.specs if s.arm == arm and s.data_fraction == 1)
    return TrialSpec.model_validate(found.model_dump() | {"transfer_to": (), "n_steps": 6})


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_losses_are_the_same_within_tolerance(tiny_plan, data_dir, tmp_path):
    spec = spec_of(tiny_plan, "transformer-sl")
    rows: dict[bool, RunRecord] = {}
    for compiled in (False, True):
        ways = {spec.trial_id: "compiled"} if compiled else {}
        rows[compiled] = run_trial(spec, Execution(data_dir, tmp_path / str(compiled), "tiny", ways=ways))
        assert (rows[compiled].status, rows[compiled].compiled) == (Status.COMPLETED, compiled), rows[compiled].reason
    for name in ("val_loss_best", "val_loss_last", "id_loss", "id_loss_last"):
        assert getattr(rows[True], name) == pytest.approx(getattr(rows[False], name), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of operators that have no deterministic kernel
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("arm", ["resnet-sl", "resnet-ssl", "transformer-sl", "transformer-ssl"])
def test_gradients_are_the_same_with_cuda_graphs(tiny_plan, arm):
    """Of a graph that is recorded once and replayed with other weights and batches."""
    from torch._inductor.cudagraph_trees import get_manager

    spec = spec_of(tiny_plan, arm)
    assert planned(spec).launch_bound
    torch.manual_seed(0)
    module = build(spec, (1e-3,) * 12).cuda().train()
    optimizer = module.configure_optimizers()["optimizer"]

    def gradient(batch: Batch) -> torch.Tensor:
        module.zero_grad()
        module(batch).backward()
        return torch.cat([w.grad.flatten() for w in module.parameters() if w.grad is not None])

    with module.compiled_encoder(graphs=True):
        as_compiled = module.compiled
        for key in range(6):
            signal = torch.randn(16, 12, spec.input.n_samples, device="cuda")
            recorded = torch.ones(16, spec.input.n_samples, dtype=torch.bool, device="cuda")
            targets = (torch.rand(16, len(spec.labels), device="cuda") > 0.5).float()
            batch = module.objective.drawn(Batch(signal, recorded, targets, key))
            module.compiled = []
            expected = gradient(batch)
            module.compiled = as_compiled
            found = gradient(batch)
            assert float((found - expected).norm() / expected.norm()) < 1e-3
            optimizer.step()
    assert get_manager(0, create_if_none_exists=False) is not None  # graphs were recorded


def test_without_a_compiler_it_trains_uncompiled_and_says_so(tiny_plan, data_dir, tmp_path, monkeypatch, caplog):
    from torch._inductor import config
    from torch._inductor.utils import fresh_inductor_cache

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    spec = spec_of(tiny_plan, "transformer-sl")
    execution = Execution(data_dir, tmp_path, "tiny", ways={spec.trial_id: "compiled"})
    with fresh_inductor_cache(), caplog.at_level(logging.WARNING):
        row = run_trial(spec, execution)
    assert (row.status, row.compiled) == (Status.COMPLETED, False), row.reason
    assert "its encoder can't be compiled here (" in caplog.text
    caplog.clear()
    cell = [planned(spec)]
    found = calibrate(cell, tmp_path, threads=1, limit_s=60, report=lambda *_: None, compiling=True)
    (measured,) = found.measurements
    assert measured.step_s > 0 and measured.compile_s is None and measured.saved_s is None
    assert "transformer-sl-20K: can't be compiled here (" in caplog.text


@pytest.fixture
def compiled(tiny_plan, monkeypatch) -> tuple[list[int], list[Pretraining]]:
    """(the sizes of encoders as they are compiled, three modules with encoders of other sizes)."""
    seen: list[int] = []

    def backend(graph, inputs):
        seen.append(max(len(tensor) for tensor in inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    spec = tiny_plan.specs[0]
    return seen, [Pretraining(torch.nn.Linear(1, n), torch.nn.Identity(), spec, ()) for n in (5, 6, 7)]


def test_what_was_compiled_for_earlier_trials_counts_no_more(compiled, monkeypatch):
    monkeypatch.setattr(training, "MOST_COMPILED", 1)
    seen, modules = compiled
    for module in modules:
        with module.compiled_encoder():
            for _ in range(2):
                module.compiled[0](torch.zeros(1, 1))
        assert not module.compiled
    assert seen == [5, 6, 7]


def test_trials_that_take_turns_keep_what_the_others_compiled(compiled):
    seen, modules = compiled

    def task(module, steps):
        turns.at_step(steps[0])
        with module.compiled_encoder():
            for step in steps:
                turns.at_step(step)
                module.compiled[0](torch.zeros(1, 1))

    tasks = [partial(task, module, range(first, 4)) for first, module in enumerate(modules)]
    list(turns.side_by_side(tasks, print, (lambda: None, lambda kept: None)))
    assert seen == [5, 6, 7]
