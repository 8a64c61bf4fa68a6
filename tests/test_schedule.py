"""Who starts next and where, simulated: the Ray executor asks the same queue."""

import math
from pathlib import Path
from random import Random

import pytest

from ecgscale.plan import plan
from ecgscale.schedule import Device, Job, Queue, simulate
from ecgscale.specs import GridSpec, load_grid


def test_two_halves_run_side_by_side():
    assert simulate([Job(4, 0.5), Job(4, 0.5)], 1).makespan_s == 4
    assert simulate([Job(4, 0.5), Job(4, 0.5), Job(4, 0.5)], 1).makespan_s == 8


def test_a_trial_that_needs_a_whole_device_is_not_starved():
    """Without the reservation every half that ends makes room for another half, and the whole one comes last."""
    halves = [Job(10, 0.5), Job(9, 0.5)]
    found = simulate([*halves, Job(8, 1.0), *[Job(1, 0.5)] * 40], 1)
    assert found.makespan_s == pytest.approx(10 + 8 + 20)
    assert found.critical_s == 10


def test_what_does_not_keep_a_large_one_waiting_overtakes_it():
    halves = [Job(10, 0.5), Job(10, 0.5), Job(2, 0.5)]
    assert simulate([*halves, Job(5, 1.0), Job(8, 0.5), Job(8, 0.5)], 2).makespan_s == 15
    # the second device is reserved from 0 on; without that, eights would run there until 8 or 16


def test_jobs_start_in_the_given_order():
    assert simulate([Job(1), Job(5), Job(4)], 2).makespan_s == 5
    assert simulate([Job(5), Job(4), Job(1)], 2).makespan_s == 5
    assert simulate([Job(1), Job(1), Job(5)], 2).makespan_s == 6


def test_a_job_that_is_put_first_is_the_next_one():
    queue = Queue((name, 1.0) for name in "abc")
    devices = [Device(), Device()]
    assert [start.job for start in queue.starts(devices)] == ["a", "b"]
    queue.put_first("a", 1.0)
    devices[0].give(1.0)
    assert [start.job for start in queue.starts(devices)] == ["a"]
    assert queue.shares() == {1.0: 1} and len(queue) == 1


def test_jobs_that_are_put_back_keep_their_places():
    """The small ones that could have started do not come before the large one that could not."""
    queue = Queue([("a", 0.5), ("large", 1.0), ("b", 0.25), ("c", 0.25)])
    devices = [Device(free=0.5)]
    starts = list(queue.starts(devices))
    assert [start.job for start in starts] == ["a"]
    devices.append(Device(free=0.5))
    queue.put_back(starts)
    starts = list(queue.starts(devices))
    assert [start.job for start in starts] == ["a"]  # and the other device is kept for the large one
    queue.put_back(starts)
    assert [start.job for start in queue.starts([Device()])] == ["a"]
    assert [start.job for start in queue.starts([Device()])] == ["large"]
    assert [start.job for start in queue.starts([Device()])] == ["b", "c"]


def test_a_device_with_few_places_takes_no_more_however_small():
    device = Device(places=2)
    assert len(list(Queue((k, 1 / 8) for k in range(5)).starts([device]))) == 2


def test_no_schedule_beats_its_lower_bound():
    random = Random(0)
    for _ in range(100):
        jobs = [Job(random.expovariate(1), 1 / random.randint(1, 4)) for _ in range(random.randint(1, 40))]
        found = simulate(jobs, random.randint(1, 6))
        assert found.lower_bound_s <= found.makespan_s + 1e-9 <= sum(job.seconds for job in jobs) + 2e-9


def paper_trials():
    """540 trials, 20K to 200M."""
    grid = load_grid(Path("sweeps/grid_paper.yaml")).model_dump()
    rungs = ["20K", "60K", "200K", "600K", "2M", "6M", "20M", "60M", "200M"]
    grid["axes"] |= {"rung": rungs, "data_fraction": [1 / 64, 1 / 16, 1 / 4, 1 / 2, 1], "seed": [0, 1, 2]}
    trials = plan(GridSpec.model_validate(grid)).trials
    assert len(trials) == 540
    return trials


@pytest.mark.parametrize("n_devices", [2, 4, 8, 16, 32])
def test_a_sweep_of_540_trials_loses_little_to_bad_estimates(n_devices):
    """Ordered by estimates off by a factor of e^N(0, 0.5), ten times over: within 2 % of the bound."""
    true_s = [t.gpu_s for t in paper_trials()]
    ratios = []
    for seed in range(10):
        random = Random(seed)
        estimated = [(s * math.exp(random.gauss(0, 0.5)), s) for s in true_s]
        found = simulate([Job(s) for _, s in sorted(estimated, reverse=True)], n_devices)
        ratios.append(found.makespan_s / found.lower_bound_s)
    assert max(ratios) <= 1.02


@pytest.mark.parametrize("n_devices", [2, 4, 8, 16, 32])
def test_shares_of_gpus_shorten_a_sweep_and_pack_well(n_devices):
    trials = sorted(paper_trials(), key=lambda t: -t.gpu_s)
    alone = simulate([Job(t.gpu_s) for t in trials], n_devices)
    shared = simulate([Job(t.gpu_s, t.gpu_share(80)) for t in trials], n_devices)
    assert shared.makespan_s <= alone.makespan_s
    assert shared.makespan_s <= 1.05 * shared.lower_bound_s
