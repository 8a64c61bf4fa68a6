"""`tune-lr`: small trials at several rates, the rules that follow, and the sweep file that gets them."""

import json
import math

import pytest
from typer.testing import CliRunner

from ecgscale.cli import app
from ecgscale.console_lr import show_checks, show_tuned
from ecgscale.coordinates import Check
from ecgscale.errors import EcgscaleError
from ecgscale.ladder import shape
from ecgscale.learning_rates import NoOptimum, Optimum
from ecgscale.plan import plan
from ecgscale.results import read
from ecgscale.specs import load_grid
from ecgscale.tune_lr import rewritten, tuned, tuning_grid, tuning_plan


@pytest.fixture
def wide_grid(grid_from):
    return grid_from({"[20K]": "[20K, 60K, 200K, 600K]", "[1/2, 1]": "[1/2, 1]\n  seed: [0, 1]"})


def rows_of(tried, make_record, best):
    """What trials leave whose loss is a parabola around `best(family, width)`; infinite losses diverge."""
    for spec in tried.specs:
        width = shape(spec.family, spec.rung, spec.input.shape).width
        loss = 0.5 + 0.1 * spec.seed + 0.03 * math.log2(spec.peak_lr / best(spec.family, width)) ** 2
        yield make_record(
            trial_id=spec.trial_id,
            label=spec.label,
            arm=spec.arm,
            rung=spec.rung,
            seed=spec.seed,
            val_loss_best=loss,
        )


def test_small_rungs_and_all_data_are_tried_at_powers_of_two_around_the_sweep_s_rate(wide_grid):
    grid = tuning_grid(wide_grid)
    assert grid.axes.rung == ("20K", "60K", "200K")
    assert grid.axes.data_fraction == (1.0,)
    tried = tuning_plan(grid, None)
    assert len(tried.trials) == 4 * 3 * 2 * 5  # arms, rungs, seeds, rates
    assert len({spec.trial_id for spec in tried.specs}) == len(tried.trials)
    assert len({spec.label for spec in tried.specs}) == len(tried.trials)
    assert not any(spec.read_outs for spec in tried.specs)
    own = {(s.arm, s.rung, s.seed): s.peak_lr for s in plan(grid).specs}
    for spec in tried.specs:
        octaves = math.log2(spec.peak_lr / own[spec.arm, spec.rung, spec.seed])
        assert abs(octaves) <= 2.5
        assert math.log2(spec.peak_lr) == round(math.log2(spec.peak_lr))


def test_what_is_asked_for_is_tried(wide_grid):
    tried = tuning_plan(tuning_grid(wide_grid, ("600K",), 0.5, (3,)), None, (1e-3, 2e-3), n_steps=7)
    assert {(s.rung, s.data_fraction, s.seed, s.n_steps) for s in tried.specs} == {("600K", 0.5, 3, 7)}
    assert sorted({s.peak_lr for s in tried.specs}) == [1e-3, 2e-3]


def test_at_the_sweep_s_own_rate_and_length_a_trial_is_the_sweep_s(tiny_grid):
    own = {spec.trial_id: spec for spec in plan(tiny_grid).specs if spec.data_fraction == 1}
    rates = sorted({spec.peak_lr for spec in own.values()})
    tried = {spec.trial_id: spec for spec in tuning_plan(tuning_grid(tiny_grid), None, rates).specs}
    assert {trial_id: tried[trial_id].label for trial_id in own} == {t: spec.label for t, spec in own.items()}
    others = [spec for trial_id, spec in tried.items() if trial_id not in own]
    assert others and all(spec.label.endswith(f"-s0-lr{spec.peak_lr}") for spec in others)


def test_what_is_asked_for_twice_is_tried_once(tiny_grid):
    tried = tuning_plan(tuning_grid(tiny_grid, seeds=(1, 0, 1)), None, (1e-3, 2e-3, 1e-3))
    assert len(tried.trials) == 4 * 2 * 2  # arms, seeds, rates
    assert len({spec.trial_id for spec in tried.specs}) == len(tried.trials)


def test_a_rung_that_does_not_exist_is_refused(tiny_grid):
    with pytest.raises(EcgscaleError, match="rung '7M' does not exist; the ladder has 20K"):
        tuning_grid(tiny_grid, ("7M",))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"data_fraction": 0.0}, "axes.data_fraction.0: Input should be greater than 0"),
        ({"data_fraction": math.nan}, "axes.data_fraction.0: "),
        ({"seeds": (0, 2**20)}, "axes.seed.1: Input should be less than 1048576"),
    ],
)
def test_what_no_sweep_could_ask_for_is_refused(tiny_grid, asked, said):
    with pytest.raises(EcgscaleError, match=said):
        tuning_grid(tiny_grid, **asked)


def test_planted_rules_are_found_per_family(wide_grid, make_record):
    tried = tuning_plan(tuning_grid(wide_grid), None)
    truth = {"resnet": (4e-3, -0.8), "transformer": (2.5e-3, -0.4)}
    records = rows_of(tried, make_record, lambda family, w: truth[family][0] * (w / 64) ** truth[family][1])
    made = tuned(tried, records)
    assert not made.n_failed and made.is_complete
    for family, (base, exponent) in truth.items():
        assert made.rules[family].base == pytest.approx(base, rel=1e-3)
        assert made.rules[family].exponent == pytest.approx(exponent, abs=1e-3)
        assert made.peak(family, 128) == pytest.approx(base * 2**exponent, rel=1e-3)
    assert all(isinstance(cell.found, Optimum) for cell in made.cells)


def test_a_cell_without_an_optimum_leaves_its_family_without_a_rule(wide_grid, make_record, capsys):
    tried = tuning_plan(tuning_grid(wide_grid), None)
    records = rows_of(tried, make_record, lambda family, w: 1.0 if family == "resnet" else 2e-3)
    made = tuned(tried, records)
    assert isinstance(made.rules["resnet"], NoOptimum) and not made.is_complete
    assert made.rules["transformer"].base == pytest.approx(2e-3, rel=1e-3)
    assert made.peak("resnet", 64) is None
    show_tuned(made)
    printed = capsys.readouterr().out
    assert "resnet-sl 20K: the best rate is the highest" in printed and "add a higher one" in printed
    assert "resnet: no rule, 6 of 6 best rates are not known" in printed
    with pytest.raises(EcgscaleError, match="no rule for resnet"):
        rewritten(__file__, made)


def test_trials_that_failed_are_told_and_those_that_diverged_are_an_answer(wide_grid, make_record):
    tried = tuning_plan(tuning_grid(wide_grid), None)
    rows = list(rows_of(tried, make_record, lambda family, w: 2e-3))
    failed, diverged = rows[0], rows[-1]
    rows[0] = failed.model_copy(update={"status": "failed", "val_loss_best": None})
    rows[-1] = diverged.model_copy(update={"status": "diverged", "val_loss_best": None})
    made = tuned(tried, rows)
    assert made.n_failed == 1
    (cell,) = [cell for cell in made.cells if cell.n_failed]
    assert (cell.arm, cell.rung) == (failed.arm, failed.rung)
    assert "1 of 10 trials have failed" in str(cell.found)
    assert sum(math.inf in losses for cell in made.cells for losses in cell.losses.values()) == 1


def test_the_coordinate_check_is_shown_per_arm_with_its_exponents(capsys):
    grows = Check("resnet-sl", "standard", "width", (16, 32), {"encoder.stem.0": (1.0, 2.0)})
    stable = Check("resnet-sl", "mup", "width", (16, 32), {"encoder.stem.0": (2.0, 2.0)})
    show_checks([grows, stable], as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [check["exponents"]["encoder.stem.0"] for check in told] == pytest.approx([1, 0])
    show_checks([grows, stable], as_json=False)
    printed = capsys.readouterr().out
    assert "resnet-sl" in printed and "+1.00" in printed and "standard: exponent" in printed


SWEEP_RULES = "resnet: {base: 3e-3}\n    transformer: {base: 2e-3}"


def test_the_sweep_file_gets_the_constants_and_keeps_its_comments(tmp_path, tiny_sweep_text, make_record):
    text = tiny_sweep_text.replace("[20K]", "[20K, 60K]  # small ones").replace(
        SWEEP_RULES,
        "resnet: {base: 3e-3}  # by hand\n    transformer: {base: 2e-3, reference_width: 32, parametrisation: mup}",
    )
    path = tmp_path / "a.yaml"
    path.write_text(text)
    tried = tuning_plan(tuning_grid(load_grid(path)), None)
    made = tuned(tried, rows_of(tried, make_record, lambda family, w: 3.14e-3))
    before, after = rewritten(path, made)
    assert before == text
    assert "resnet: {base: 3.14e-3, exponent: 0.00}  # by hand\n" in after
    assert "transformer: {base: 3.14e-3, reference_width: 32, parametrisation: mup}" in after
    assert "[20K, 60K]  # small ones" in after
    path.write_text(after)
    assert load_grid(path).train.learning_rate["transformer"].base == 3.14e-3


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_trains_fits_and_writes_and_does_nothing_twice(tmp_path, data_dir, tiny_sweep_text, make_record):
    sweep_file, out, kept = tmp_path / "tiny.yaml", tmp_path / "lr", tmp_path / "kept" / "tiny.yaml"
    kept.parent.mkdir()
    sweep_file.symlink_to(kept)
    text = tiny_sweep_text.replace("[resnet, transformer]", "[transformer]").replace("[sl, ssl]", "[ssl]")
    text = text.replace("transformer: {base: 2e-3}", "transformer: {base: 2e-3, parametrisation: mup}  # by hand")
    sweep_file.write_text(text)
    kept.chmod(0o600)
    command = ["tune-lr", str(sweep_file), "--data", str(data_dir), "--out", str(out), "--executor", "inprocess"]
    command += ["--rungs", "20K", "--rates", "1e-6,3e-2,9e-1", "--steps", "8"]
    first = CliRunner().invoke(app, [*command, "--write", "--json"])
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    rule = told["rules"]["transformer"]
    assert 1e-6 < rule["base"] < 0.9
    assert [cell["rung"] for cell in told["cells"]] == ["20K"]
    assert len(read(out)) == 3
    assert {json.loads(row.spec)["mup_reference_width"] for row in read(out)} == {64}
    assert load_grid(sweep_file).train.learning_rate["transformer"].base == pytest.approx(rule["base"], rel=0.01)
    assert "parametrisation: mup}  # by hand" in sweep_file.read_text()
    assert sweep_file.is_symlink() and kept.stat().st_mode & 0o777 == 0o600
    assert list(kept.parent.iterdir()) == [kept]
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert len(read(out)) == 3
    assert "transformer: base" in again.output


@pytest.mark.parametrize(
    ("option", "words", "wanted"),
    [
        ("--rates", "1e-3;2e-3", "numbers above 0"),
        ("--rates", "0,1e-3", "numbers above 0"),
        ("--rates", "1e-3,inf", "numbers above 0"),
        ("--rates", "1e-3,nan", "numbers above 0"),
        ("--seeds", "0,0.5", "whole numbers from 0 on"),
        ("--seeds", "-1", "whole numbers from 0 on"),
    ],
)
def test_lists_of_something_else_are_refused(tiny_sweep, data_dir, option, words, wanted):
    command = ["tune-lr", str(tiny_sweep), "--data", str(data_dir), f"{option}={words}"]
    with pytest.raises(EcgscaleError, match=f"{option} '{words}': give {wanted}, with commas between"):
        CliRunner().invoke(app, command, catch_exceptions=False)
