"""Times that were measured are used, carried over to neighbours, and corrected by finished trials."""

import datetime
import json
from dataclasses import replace

import pytest

from ecgscale.budget import Gate, parse_deadline
from ecgscale.calibration import Calibration, measurement
from ecgscale.errors import EcgscaleError
from ecgscale.plan import CPU_CORE, GPU, plan, planned, records_evaluated, work


@pytest.fixture
def cells(grid_from):
    """The tiny grid with three rungs and long trainings."""
    return plan(grid_from({"[20K]": "[20K, 60K, 600K]", "value: 48": "value: 4800"}))


def trial_of(plan, family, paradigm, rung, fraction=1.0):
    return next(
        t
        for t in plan.trials
        if (t.spec.family, t.spec.paradigm, t.spec.rung, t.spec.data_fraction) == (family, paradigm, rung, fraction)
    )


def measured(trial, *, step_s, rest_s=3.0, device="cpu", threads=1, n_steps=20):
    return measurement(
        trial.spec,
        device=device,
        threads=threads,
        step_s=step_s,
        n_steps=n_steps,
        rest_s=rest_s,
        n_evaluated=trial.n_evaluated,
    )


def test_nothing_measured_is_assumed(cells):
    trial = cells.trials[0]
    assert Calibration().seconds(trial, CPU_CORE) == (trial.cpu_s, "assumed")
    assert Calibration().applied(cells) == cells


def test_a_measured_cell_takes_steps_times_the_time_per_step_and_the_rest(cells):
    trial = trial_of(cells, "resnet", "sl", "20K")
    known = Calibration((measured(trial, step_s=0.25),))
    assert known.seconds(trial, CPU_CORE) == (pytest.approx(0.25 * 300 + 3.0), "measured")
    assert known.seconds(trial, GPU) == (trial.gpu_s, "assumed")
    other_d = trial_of(cells, "resnet", "sl", "20K", fraction=0.5)
    assert known.seconds(other_d, CPU_CORE)[1] == "measured"


def test_a_neighbour_is_scaled_by_the_device_model(cells):
    near, far = trial_of(cells, "resnet", "sl", "20K"), trial_of(cells, "resnet", "sl", "60K")
    model = work(CPU_CORE, near.spec, near.n_evaluated)
    known = Calibration((measured(near, step_s=2 * model.step_s, rest_s=2 * model.rest_s),))
    assert known.seconds(far, CPU_CORE) == (pytest.approx(2 * far.cpu_s), "scaled")


def test_the_nearest_of_the_same_family_counts(cells):
    """A transformer that is ten times off says nothing of a ResNet while a ResNet was measured."""
    resnet, transformer = trial_of(cells, "resnet", "sl", "20K"), trial_of(cells, "transformer", "sl", "60K")
    ratios = ((resnet, 2.0), (transformer, 10.0))
    known = Calibration()
    for trial, ratio in ratios:
        model = work(CPU_CORE, trial.spec, trial.n_evaluated)
        known += Calibration((measured(trial, step_s=ratio * model.step_s, rest_s=ratio * model.rest_s),))
    wanted = trial_of(cells, "resnet", "sl", "60K")
    assert known.seconds(wanted, CPU_CORE)[0] == pytest.approx(2 * wanted.cpu_s)


def test_the_plan_is_ordered_by_measured_times(cells):
    slow = trial_of(cells, "transformer", "ssl", "20K", fraction=0.5)
    known = Calibration(
        tuple(
            measured(t, step_s=100.0 if (t.spec.arm, t.spec.rung) == (slow.spec.arm, slow.spec.rung) else 0.01)
            for t in cells.trials
        )
    )
    applied = known.applied(cells)
    assert slow.spec in applied.specs[:1] + applied.specs[1:2]  # with its other data fraction, the same cell
    assert {t.cpu_from for t in applied.trials} == {"measured"}
    assert sorted(applied.specs, key=str) == sorted(cells.specs, key=str)


def test_the_gpu_that_was_measured_most_stands_for_gpus(cells):
    one, two = trial_of(cells, "resnet", "sl", "20K"), trial_of(cells, "resnet", "ssl", "20K")
    known = Calibration(
        (
            measured(one, step_s=0.5, device="rare"),
            measured(one, step_s=0.1, device="usual"),
            measured(two, step_s=0.2, device="usual"),
        )
    )
    assert known.gpu == "usual"
    assert known.seconds(one, GPU) == (pytest.approx(0.1 * 300 + 3), "measured")


def rows_of(make_record, trial, *seconds, **fields):
    return [
        make_record(
            trial_id=trial.spec.trial_id,
            label=trial.spec.label,
            spec=trial.spec.model_dump_json(),
            train_s=s,
            wall_s=s + 4.0,
            transfer=(),
            **fields,
        )
        for s in seconds
    ]


def test_finished_trials_correct_a_short_probe(cells, make_record):
    trial = trial_of(cells, "resnet", "sl", "20K")
    probe = Calibration((measured(trial, step_s=9.0),))
    both = probe + Calibration.from_rows(rows_of(make_record, trial, 30.0, 60.0, 90.0))
    seconds, origin = both.seconds(trial, CPU_CORE)
    assert origin == "measured"
    assert seconds == pytest.approx(60 + 4, abs=1.5)  # the median of what 300 steps took


def test_rows_that_say_nothing_are_left_out(cells, make_record):
    trial = cells.trials[0]
    failed = rows_of(make_record, trial, 5.0, status="failed")
    stranger = [make_record(spec="{}")]
    untimed = [r.model_copy(update={"train_s": None}) for r in rows_of(make_record, trial, 5.0)]
    assert Calibration.from_rows(failed + stranger + untimed).measurements == ()
    compiled, beside = (rows_of(make_record, trial, 5.0, **how) for how in ({"compiled": True}, {"n_beside": 3}))
    assert Calibration.from_rows(compiled + beside).measurements == ()


def test_a_row_counts_the_records_it_evaluated(cells, make_record):
    trial = trial_of(cells, "resnet", "sl", "20K")
    (row,) = rows_of(make_record, trial, 5.0)
    (found,) = Calibration.from_rows([row]).measurements
    assert found.n_evaluated == pytest.approx(records_evaluated(trial.spec, 0))
    assert found.step_s == pytest.approx(5 / 300)
    assert planned(trial.spec, found.n_evaluated).n_evaluated == found.n_evaluated


def test_a_file_brings_back_what_was_saved_and_holds_no_path(cells, tmp_path):
    known = Calibration(tuple(measured(trial, step_s=0.1) for trial in cells.trials))
    file = tmp_path / "deep" / "calibration.json"
    known.save(file)
    assert Calibration.load(file) == known
    assert str(tmp_path) not in file.read_text()


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2}', '{"schema_version": 1, "measurements": [{}]}'])
def test_a_file_that_is_no_calibration_is_refused_with_the_way_out(tmp_path, text):
    file = tmp_path / "calibration.json"
    file.write_text(text)
    with pytest.raises(EcgscaleError, match=r"calibration\.json: not a calibration .*ecgscale calibrate"):
        Calibration.load(file)
    with pytest.raises(EcgscaleError, match="can't be read"):
        Calibration.load(tmp_path / "nothing.json")


def test_calibrate_measures_every_arm_and_rung_with_noise_for_data(grid_from, tmp_path):
    from ecgscale.calibrating import calibrate

    made = plan(grid_from({"resnet, transformer]": "transformer]"}))
    seen = []
    profiles = []
    found = calibrate(
        made.trials, tmp_path, threads=1, limit_s=60, report=lambda *told: seen.append(told), profiles=profiles
    )
    assert [name for name, _, _ in seen] == [p.name for p in profiles] == ["transformer-sl-20K", "transformer-ssl-20K"]
    applied = found.applied(made)
    assert {t.cpu_from for t in applied.trials} | {t.gpu_from for t in applied.trials} == {"measured", "assumed"}
    assert all(0 < m.data_s < m.step_s < 5 and m.rest_s >= 0 for m in found.measurements)
    for measured_here, profile in zip(found.measurements, profiles, strict=True):
        assert profile.step_s == measured_here.step_s
        assert min(profile.data_s, profile.forward_s, profile.backward_s, profile.optimiser_s) > 0
        (trial,) = (t for t in made.trials if t.spec.data_fraction == 1 and profile.name.startswith(t.spec.arm))
        assert profile.work.flops * trial.spec.n_steps == trial.train_flops
        flops_per_s = trial.train_flops / trial.spec.n_steps / measured_here.step_s
        assert profile.of_ceiling == pytest.approx(flops_per_s / profile.ceiling.flops_per_s)
        assert profile.of_roofline < 1 and profile.ceiling.flops_per_s > 1e9


def test_trials_are_side_by_side_where_reading_was_measured_to_be_a_large_part(cells, tmp_path):
    costly, cheap = trial_of(cells, "transformer", "sl", "20K"), trial_of(cells, "resnet", "sl", "600K")
    known = Calibration(
        tuple(replace(measured(t, step_s=0.1), data_s=data_s) for t, data_s in ((costly, 0.02), (cheap, 0.005)))
    )
    assert (known.side_by_side(costly, CPU_CORE), known.side_by_side(cheap, CPU_CORE)) == (4, 1)
    assert known.side_by_side(trial_of(cells, "transformer", "sl", "60K"), CPU_CORE) == 1  # nobody knows
    assert known.side_by_side(costly, GPU) == 1
    known.save(tmp_path / "c.json")
    applied = Calibration.load(tmp_path / "c.json").applied(cells)
    assert {(t.spec.arm, t.spec.rung) for t in applied.trials if t.side_by_side > 1} == {("transformer-sl", "20K")}
    on_gpu = Calibration((replace(measured(costly, step_s=0.1, device="a GPU"), data_s=0.02),))
    assert on_gpu.side_by_side(costly, GPU) == 8
    assert on_gpu.side_by_side(replace(costly, busy_share=0.9), GPU) == 1  # reading is hidden behind its work
    both = on_gpu + known  # what was measured on a GPU decides nothing for a sweep without one, and the other way round
    assert {t.side_by_side for t in both.applied(cells).trials} == {1, 8}
    assert {t.side_by_side for t in both.applied(cells, CPU_CORE).trials} == {1, 4}
    assert {t.side_by_side for t in known.applied(cells, GPU).trials} == {1}


def test_encoders_are_compiled_in_trials_that_are_long_enough(cells):
    trial = trial_of(cells, "resnet", "sl", "20K")
    known = Calibration((replace(measured(trial, step_s=0.1), compile_s=30.0, saved_s=0.02),))
    assert trial.spec.n_steps == 300 and known.way(trial, CPU_CORE) == "eager"  # 6 s for 30 s
    longer = replace(trial, spec=trial.spec.model_copy(update={"n_steps": 3000}))
    assert (known.way(longer, CPU_CORE), known.way(longer, GPU)) == ("compiled", "eager")
    slower = Calibration((replace(measured(trial, step_s=0.1), compile_s=0.0, saved_s=-0.01),))
    assert slower.way(longer, CPU_CORE) == "eager"
    applied = known.applied(replace(cells, trials=(trial, longer)))
    assert {t.spec.n_steps: t.way for t in applied.trials} == {300: "eager", 3000: "compiled"}


def test_the_plan_says_what_the_measurements_decide(cells, capsys):
    from ecgscale.console_plan import Terms, plan_json, show_plan
    from ecgscale.sweep import backlog

    trial = trial_of(cells, "transformer", "sl", "20K")
    both = replace(measured(trial, step_s=0.1), data_s=0.05, compile_s=1.0, saved_s=0.02)
    found = backlog(cells, None, Calibration((both,)))
    show_plan(found, as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 trials with compiled encoders" in shown  # the cell's two data fractions
    assert "side by side" not in shown  # they are of different streams
    of_the_cell = [t for t in plan_json(found, Terms())["trials"] if t["label"].startswith("transformer-sl-20K")]
    assert [(t["side_by_side"], t["way"]) for t in of_the_cell] == [(4, "compiled")] * 2
    more = (
        replace(measured(trial_of(cells, "transformer", paradigm, rung), step_s=step_s), data_s=0.05)
        for paradigm, rung, step_s in (("ssl", "20K", 0.1), ("sl", "60K", 0.2), ("ssl", "60K", 0.2))
    )
    show_plan(backlog(cells, None, Calibration((both, *more))), as_json=False)
    # eight, without the smoke trials of both arms
    assert "6 trials side by side on 2 streams of records, at most 4 in one process" in " ".join(
        capsys.readouterr().out.split()
    )


def test_calibrate_says_what_does_not_fit(tiny_grid, tmp_path):
    from ecgscale.calibrating import calibrate

    told = {}
    found = calibrate(
        plan(tiny_grid).trials, tmp_path, threads=1, limit_s=0, report=lambda name, s, why: told.update({name: why})
    )
    assert found.measurements == () and len(told) == 4
    assert all("--limit" in why for why in told.values())


# --- the gate ------------------------------------------------------------------------------------------------------


def test_a_budget_counts_what_is_spent_what_runs_and_what_is_next():
    gate = Gate({"a": 60.0, "b": 30.0, "c": 30.0}, budget_s=100.0)
    assert gate.refuses("a") is None
    assert gate.refuses("a") is None  # started again after its worker died: not counted twice
    assert gate.refuses("b") is None
    why = gate.refuses("c")
    assert why is not None and "budget" in why
    gate.ended("a", 10.0)
    assert gate.refuses("c") == why  # closed is closed


def test_a_trial_that_was_cheaper_makes_room_for_the_next():
    gate = Gate({"a": 60.0, "b": 60.0}, budget_s=100.0)
    assert gate.refuses("a") is None
    gate.ended("a", 20.0)
    assert gate.refuses("b") is None


def test_shared_devices_cost_their_share():
    gate = Gate({"a": 60.0, "b": 60.0}, share={"a": 0.5, "b": 0.5}, budget_s=61.0, spent_s=0.0)
    assert gate.refuses("a") is None and gate.refuses("b") is None
    gate.ended("a", 60.0)
    assert gate.spent_s == 30.0


def test_nothing_starts_after_the_deadline():
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    gate = Gate({}, deadline=past)
    assert gate.over()
    assert "deadline" in (gate.refuses("a") or "")
    assert Gate({}, deadline=past + datetime.timedelta(hours=1)).refuses("a") is None


def test_deadlines_are_times_or_waits():
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert parse_deadline("90min", now) - now == datetime.timedelta(minutes=90)
    assert parse_deadline("1.5h", now) - now == datetime.timedelta(minutes=90)
    assert parse_deadline("2026-12-01T08:00+00:00", now) == datetime.datetime(2026, 12, 1, 8, tzinfo=datetime.UTC)
    with pytest.raises(EcgscaleError, match="--deadline 'soon'"):
        parse_deadline("soon")


def test_a_sweep_over_budget_starts_nothing_more_and_says_so(tiny_sweep, data_dir, tmp_path, monkeypatch, capsys):
    import sys

    from ecgscale import cli

    command = f"ecgscale sweep {tiny_sweep} --data {data_dir} --out {tmp_path} --executor inprocess --json"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--budget-gpu-hours", "0"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert end.value.code == 4
    assert "stopped: the budget of 0 device hours" in printed.err
    assert json.loads(printed.out)["ended"] == {}
