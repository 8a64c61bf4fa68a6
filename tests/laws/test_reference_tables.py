"""Published run tables: the fitter reaches the known optima, and flags the fits that are no laws.

Runs where the environment variable ECGSCALE_REAL_DATA names a folder with `fits/`; the planted-truth tests beside this
file say the same everywhere.
"""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ecgscale.laws import FitStatus, fit, fit_pair

REAL_DATA = os.environ.get("ECGSCALE_REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL_DATA, reason="ECGSCALE_REAL_DATA is unset")

EPOCH_OBJECTIVES = {
    "huber_log_sum_delta_0.0001": ("huber", 1e-4),
    "huber_log_sum_delta_0.001": ("huber", 1e-3),
    "huber_log_sum_delta_0.01": ("huber", 1e-2),
    "half_sum_sq_log": ("lsq", None),
    "rss_linear": ("lsq_raw", None),
    "lad_log": ("lad", None),
}
LADDER_TASKS = ("mmlu_avg_test_5shot", "hellaswag_val_5shot", "arc_challenge_test_5shot", "arc_easy_test_5shot")
LADDER_TASKS += ("piqa_val_5shot", "csqa_val_5shot")


def read_json(name):
    return json.loads((Path(REAL_DATA) / "fits" / name).read_text())


def read_rows(name):
    with (Path(REAL_DATA) / "fits" / name).open() as file:
        return list(csv.DictReader(file))


def columns(rows, *names):
    return [np.array([float(row[name]) for row in rows]) for name in names]


def epoch_points(n_points):
    rows = [r for r in read_rows("epoch/table.csv") if n_points == 245 or r["one_of_5_highest_losses"] == "False"]
    assert len(rows) == n_points
    return columns(rows, "N", "D", "loss")


@pytest.mark.parametrize("name", EPOCH_OBJECTIVES)
@pytest.mark.parametrize("n_points", [240, 245])
def test_epoch_optima(name, n_points):
    expected = read_json("expected.json")["epoch"][f"n{n_points}"].get(name)
    if expected is None:
        pytest.skip("not among the expected optima")
    objective, delta = EPOCH_OBJECTIVES[name]
    found = fit("chinchilla", *epoch_points(n_points), objective=objective, delta=delta, bootstrap=0)
    assert found.objective.value <= expected["objective"] * (1 + 1e-9)
    for parameter, value in found.theta.items():
        assert value == pytest.approx(expected[parameter], rel=1e-6), parameter
    assert found.starts_agreeing == 1.0
    assert found.status is FitStatus.CONVERGED


def test_epoch_published_point_is_the_least_absolute_deviation():
    published = read_json("expected.json")["epoch"]["published_point"]
    found = fit("chinchilla", *epoch_points(240), objective="lad", bootstrap=0)
    for parameter, value in found.theta.items():
        assert value == pytest.approx(published[parameter], rel=1e-6, abs=5.1e-6), parameter  # printed to 1e-5


def test_epoch_bootstrap_has_the_published_errors_and_intervals():
    """The 4000 pairs resamples of the published notebook: numpy's legacy generator with seed 42."""
    expected = read_json("expected.json")["epoch"]
    legacy = np.random.RandomState(42)
    rows = np.array([np.bincount(legacy.choice(240, 240, replace=True), minlength=240) for _ in range(4000)])
    found = fit("chinchilla", *epoch_points(240), delta=1e-3, bootstrap=rows)
    for i, parameter in enumerate(found.theta):
        assert found.draws[:, i].std() == pytest.approx(expected["published_se"][parameter], rel=5e-3), parameter
        interval = expected["ci95_at_true_optimum_same_resamples"][parameter]
        assert found.interval[parameter] == pytest.approx(interval, abs=5.1e-5), parameter  # printed to 1e-4
    a = found.draws[:, 4] / (found.draws[:, 3] + found.draws[:, 4])
    np.testing.assert_allclose(
        np.percentile(a, [2.5, 97.5]), expected["ci95_at_true_optimum_same_resamples"]["a"], atol=1e-4
    )


@pytest.mark.parametrize("table", ["cool_end", "hot", "hot_100b+", "hot_100b+_512x"])
def test_gemstones_objective_is_not_above_the_published(table):
    published = read_json("expected.json")["gemstones"][table]
    rows = read_rows(f"gemstones/{table}.csv")
    found = fit("chinchilla", *columns(rows, "N", "D", "loss"), delta=published["delta"], bootstrap=0)
    assert found.objective.value <= published["objective_published"]
    assert found.identified == (table != "hot_100b+_512x")
    assert ("unidentified" in found.flags) == (table == "hot_100b+_512x")


def test_gemstones_single_width_is_flagged_under_every_objective():
    rows = read_rows("gemstones/hot_100b+_512x.csv")
    for objective in ("huber", "lad", "lsq", "lsq_raw"):
        options = {"objective": objective, "runs": [row["run"] for row in rows], "bootstrap": 100}
        assert "unidentified" in fit("chinchilla", *columns(rows, "N", "D", "loss"), **options).flags


@pytest.mark.parametrize("task", LADDER_TASKS)
def test_olmo_ladder_optima_and_held_out_predictions(task):
    reference = read_json("olmo_ladder/step1_tables_and_reference_fits.json")[f"rc_bpb:{task}"]
    n, d, loss = np.array(reference["train"]).T
    found = fit("chinchilla", n, d, loss, delta=1e-3, bootstrap=0)
    assert found.objective.value <= reference["obj_best"] * (1 + 1e-12)
    for held_out in reference["eval"]:
        prediction = found.predict(held_out["N"], held_out["D"])
        assert prediction.value == pytest.approx(held_out["pred_best"], rel=1e-8)
        assert prediction.extrapolated
    assert ("at_bound:E" in found.flags) == (task == "csqa_val_5shot")
    assert found.identified == (task != "csqa_val_5shot")


def gadre_runs(corpus):
    rows = [row for row in read_rows("gadre/derived_table.csv") if row["dataset"] == corpus]
    small = ("d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")
    chosen = [("d=96_l=8_h=4", 20.0), ("d=96_l=8_h=4", 320.0), *((model, 20.0) for model in small)]
    return rows, [row for row in rows if (row["model"], float(row["token_multiplier"])) in chosen]


@pytest.mark.parametrize("corpus", ["c4_original", "rpj", "rw_original"])
def test_gadre_tied_exponent_laws(corpus):
    expected = read_json("expected.json")["gadre"][corpus]
    rows, training = gadre_runs(corpus)
    assert len(training) == 5
    n, d, loss = columns(training, "N", "D", "loss_c4_val")
    found = fit("chinchilla_tied", n, d, loss, objective="lsq_raw", bootstrap=0)
    exponent = -expected["b"]
    assert found.theta["alpha"] == pytest.approx(exponent, rel=1e-5)
    assert found.theta["E"] == pytest.approx(expected["E"], rel=1e-6)
    assert found.theta["A"] == pytest.approx(expected["A_gadre"], rel=1e-5)
    assert found.theta["B"] == pytest.approx(expected["beta_gadre"] * 6 ** (-exponent / 2), rel=1e-5)
    if corpus == "rpj":
        for model, multiplier, error in (("open_lm_1b", 640.0, 0.7103), ("open_lm_7b", 20.0, 0.7320)):
            (held_out,) = [r for r in rows if (r["model"], float(r["token_multiplier"])) == (model, multiplier)]
            n, d, loss = columns([held_out], "N", "D", "loss_c4_val")
            assert 100 * abs(found.predict(n, d).value / loss - 1) == pytest.approx(error, abs=5e-5)


def test_brandfonbrener_train_to_train_laws_given_the_floors():
    folder = {"FineWeb": "fineweb-100b", "FineWeb-Edu": "fineweb-edu-100b", "SmolLM Corpus": "smollm-corpus"}
    folder |= {"SlimPajama": "slimpajama-chunk1", "ProofPile 2": "proof-pile-2", "StarCoder": "starcoder"}
    floors = {
        row["data"]: float(row["E"])
        for row in read_rows("brandfonbrener/opt_params_data.csv")
        if row["kaplan"] == "True" and row["loss_name"] == "val_loss"
    }
    losses = {name: {} for name in folder.values()}
    for row in read_rows("brandfonbrener/sweep.csv"):
        losses[row["data"]][row["params"], row["flops"], row["iso_flop"]] = float(row["val_loss"])
    expected = read_json("expected.json")["brandfonbrener"]["train_to_train_given"]
    assert len(expected) == 10
    for pair in expected:
        x, y = folder[pair["data0"]], folder[pair["data1"]]
        shared = sorted(losses[x].keys() & losses[y].keys())
        found = fit_pair(
            [losses[x][key] for key in shared],
            [losses[y][key] for key in shared],
            floor_x=floors[x],
            floor_y=floors[y],
            objective="lsq",
            bootstrap=0,
        )
        assert found.theta["kappa"] == pytest.approx(pair["kappa"], rel=1e-12)
        assert found.theta["K"] == pytest.approx(pair["K"], rel=1e-12)


@pytest.mark.parametrize(("law", "is_kaplan"), [("chinchilla", "False"), ("kaplan", "True")])
def test_brandfonbrener_fits_are_reached_from_the_best_start_alone(law, is_kaplan):
    """138 published fits of each form: the mean Huber(1e-3) of log residuals, to what its authors' optimiser left."""
    published = [row for row in read_rows("brandfonbrener/opt_params_data.csv") if row["kaplan"] == is_kaplan]
    assert len(published) == 138
    sweep = read_rows("brandfonbrener/sweep.csv")
    for row in published:
        runs = [run for run in sweep if run["data"] == row["data"] and run[row["loss_name"]]]
        n, d, loss = columns(runs, "params", "tokens", row["loss_name"])
        found = fit(law, n, d, loss, delta=1e-3, bootstrap=0, n_starts=1)
        mean = found.objective.value / len(runs)
        assert 0.986 * float(row["loss"]) <= mean <= (1 + 1e-5) * float(row["loss"]), (row["data"], row["loss_name"])
