"""One run of a sweep: what is tried again, what stops it, and what is never tried."""

import dataclasses
import datetime

import pytest

from ecgscale import sweep
from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess, lost
from ecgscale.executors.slots import Slots
from ecgscale.plan import plan
from ecgscale.results import append, ask_retry, read
from ecgscale.sweep import backlog, execute


@pytest.fixture
def specs(tiny_grid):
    return plan(tiny_grid).specs


@pytest.fixture
def execution(tmp_path):
    return Execution(tmp_path / "data", tmp_path / "results", "tiny")


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The seconds a sweep would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(sweep.time, "sleep", slept.append)
    return slept


class Machine:
    """Stands for the executor: `ends(spec, n)` says how the n-th try of a trial ends."""

    def __init__(self, ends, monkeypatch) -> None:
        self.ends = ends
        self.started: list[str] = []
        monkeypatch.setattr(inprocess, "ended", self.run)

    def run(self, spec, *arguments, **keywords) -> Ended:
        self.started.append(spec.label)
        return self.ends(spec, self.started.count(spec.label))


def end(spec, failure=None, bug=None) -> Ended:
    status = "completed" if failure is None else "failed"
    return Ended(spec.trial_id, spec.label, status, 1.0, 0.5, failure and f"because of {failure}", failure, bug)


def test_what_the_machine_caused_is_tried_again_after_a_pause(specs, execution, monkeypatch, pauses):
    unlucky = {specs[1].label, specs[4].label}
    machine = Machine(lambda s, n: lost(s, "died") if s.label in unlucky and n == 1 else end(s), monkeypatch)
    ends: list[Ended] = []
    assert execute(specs, execution, ends.append, executor="inprocess") is None
    assert machine.started == [s.label for s in specs] + [specs[1].label, specs[4].label]
    assert sorted(e.label for e in ends) == sorted(s.label for s in specs)  # each is reported once
    assert {e.status for e in ends} == {"completed"}
    assert pauses == [sweep.PAUSES_S[0]]


def test_a_machine_that_stays_broken_is_given_up_after_two_more_tries(specs, execution, monkeypatch, pauses):
    machine = Machine(lambda s, n: end(s, "infrastructure") if s is specs[0] else end(s), monkeypatch)
    ends: list[Ended] = []
    execute(specs, execution, ends.append, executor="inprocess")
    assert machine.started.count(specs[0].label) == 3
    assert pauses == list(sweep.PAUSES_S)
    assert [e.failure for e in ends if e.label == specs[0].label] == ["infrastructure"]


@pytest.mark.parametrize("failure", ["out_of_memory", "diverged", "data", "bug"])
def test_other_failures_are_not_tried_again_at_once(specs, execution, monkeypatch, pauses, failure):
    machine = Machine(lambda s, n: end(s, failure) if s is specs[0] else end(s), monkeypatch)
    assert execute(specs, execution, lambda e: None, executor="inprocess") is None
    assert machine.started.count(specs[0].label) == 1 and pauses == []


def test_a_bug_of_three_trials_stops_the_sweep_and_says_which(specs, execution, monkeypatch, pauses):
    machine = Machine(lambda s, n: end(s, "bug", "one") if s is not specs[1] else end(s), monkeypatch)
    ends: list[Ended] = []
    stopped = execute(specs, execution, ends.append, executor="inprocess")
    assert "3 trials failed at the same place" in stopped and "because of bug" in stopped
    assert machine.started == [s.label for s in specs[:4]]
    assert len(ends) == 4


def test_different_bugs_do_not_stop_it(specs, execution, monkeypatch, pauses):
    machine = Machine(lambda s, n: end(s, "bug", s.label), monkeypatch)
    assert execute(specs, execution, lambda e: None, executor="inprocess") is None
    assert len(machine.started) == len(specs)


def test_a_sweep_that_stops_reports_what_it_would_have_tried_again(specs, execution, monkeypatch, pauses):
    Machine(lambda s, n: lost(s, "died") if s is specs[0] else end(s, "bug", "one"), monkeypatch)
    ends: list[Ended] = []
    assert execute(specs, execution, ends.append, executor="inprocess")
    assert [e.status for e in ends].count("lost") == 1 and pauses == []


def test_a_row_that_can_not_be_written_is_the_machines_fault(specs, execution, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "/some/where/row.tmp")

    monkeypatch.setattr(inprocess, "run_trial", full)
    found = inprocess.ended(specs[0], execution)
    assert (found.status, found.failure, found.label) == ("lost", "infrastructure", specs[0].label)
    assert "No space left on device" in found.reason and "/some" not in found.reason


# --- diverged trials -----------------------------------------------------------------------------------------------


def test_a_diverged_trial_waits_until_it_is_asked_for(tiny_grid, tmp_path, make_record):
    made = plan(tiny_grid)
    row = {"status": "diverged", "failure": "diverged", "reason": "loss is nan", "id_loss": None}
    append(tmp_path, make_record(trial_id=made.specs[0].trial_id, **row))
    read_outs = [read_out.read_out_id for read_out in made.specs[1].read_outs]
    append(tmp_path, make_record(trial_id=made.specs[1].trial_id, read_outs=read_outs))
    left = backlog(made, tmp_path)
    assert left.diverged == {made.specs[0].trial_id} and left.n_done == 1
    assert len(left.todo) == len(made.specs) - 2

    ask_retry(tmp_path, next(r for r in read(tmp_path) if r.status == "diverged"))
    left = backlog(made, tmp_path)
    assert left.diverged == frozenset() and made.specs[0] in left.todo and left.n_done == 1

    later = {"started_at": datetime.datetime.now(datetime.UTC)}
    append(tmp_path, make_record(trial_id=made.specs[0].trial_id, **row, **later))  # it was tried, and diverged again
    assert backlog(made, tmp_path).diverged == {made.specs[0].trial_id}


# --- out of memory -------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch):
    """Stands for the Ray executor: yields (label, alone) of every start; `ends(spec, alone)` says how it ends."""
    from ecgscale.executors import ray

    started: list[tuple[str, bool]] = []

    def install(ends) -> list[tuple[str, bool]]:
        def run(specs, execution, report, *, slots, stop, gate, together):
            for spec in specs:
                if stop():
                    return
                started.append((spec.label, slots.alone))
                report(ends(spec, slots.alone))

        monkeypatch.setattr(ray, "run", run)
        return started

    return install


def test_alone_is_a_whole_gpu(specs):
    assert Slots(alone=True).share(specs[0], 80.0) == Slots(trials_per_gpu=4, alone=True).share(specs[0], None) == 1.0


def crowded(spec) -> Ended:
    return dataclasses.replace(end(spec, "out_of_memory"), shared=True)


def test_what_ran_out_of_memory_beside_others_is_run_once_more_alone(specs, execution, cluster, pauses):
    large = (specs[1].label, specs[4].label)
    started = cluster(lambda spec, alone: crowded(spec) if spec.label in large and not alone else end(spec))
    ends: list[Ended] = []
    assert execute(specs, execution, ends.append, executor="ray") is None
    assert started == [(s.label, False) for s in specs] + [(label, True) for label in large]
    assert sorted(e.label for e in ends) == sorted(s.label for s in specs)  # each is reported once
    assert {e.status for e in ends} == {"completed"} and pauses == []


def test_what_does_not_fit_alone_is_given_up(specs, execution, cluster):
    started = cluster(lambda spec, alone: end(spec, "out_of_memory") if alone else crowded(spec))
    ends: list[Ended] = []
    execute(specs[:2], execution, ends.append, executor="ray")
    assert [alone for _, alone in started] == [False, False, True, True]
    assert [e.failure for e in ends] == ["out_of_memory"] * 2


def test_what_was_to_run_alone_is_reported_when_the_sweep_stops(specs, execution, cluster):
    cluster(lambda spec, alone: crowded(spec) if spec is specs[0] else end(spec, "bug", "one"))
    ends: list[Ended] = []
    assert execute(specs, execution, ends.append, executor="ray")
    assert [e.failure for e in ends] == ["bug"] * 3 + ["out_of_memory"]
