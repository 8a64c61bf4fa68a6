"""`ecgscale fit-laws` on anybody's table: three kinds of fit, what is left out, and the JSON its schema promises."""

import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ecgscale.cli import app
from ecgscale.errors import EcgscaleError

TABLES = Path(os.environ.get("ECGSCALE_REAL_DATA", "absent")) / "fits"
SCHEMA = json.loads((Path(__file__).parent.parent / "ecgscale" / "fits.schema.json").read_text())
TRUTH = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}

needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="no ECGSCALE_REAL_DATA")


def fitted(path, *options):
    """The JSON of a run, checked against the schema."""
    result = CliRunner().invoke(app, ["fit-laws", str(path), *map(str, options), "--json", "-"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    found = json.loads(result.stdout)
    jsonschema.validate(found, SCHEMA)
    return found


@pytest.fixture
def runs(tmp_path):
    """6 × 5 runs of a planted law in two groups, without noise."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 5)))
    table = pd.concat(
        pd.DataFrame({"N": n, "D": d, "corpus": corpus, "loss": factor * planted(n, d)})
        for corpus, factor in (("web", 1.0), ("code", 0.5))
    )
    path = tmp_path / "runs.csv"
    table.to_csv(path, index=False)
    return path


def planted(n, d):
    return TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["alpha"] + TRUTH["B"] * d ** -TRUTH["beta"]


def noisy(path, column="loss", size=0.01):
    table = pd.read_csv(path)
    table[column] *= np.exp(size * np.random.default_rng(0).standard_normal(len(table)))
    table.to_csv(path, index=False)
    return table


def test_planted_law_comes_back_per_group(runs):
    found = fitted(runs, "--n", "N", "--d", "D", "--by", "corpus", "--bootstrap", 20)
    assert [fit["group"] for fit in found["fits"]] == ["code", "web"]
    assert found["fits"][1]["theta"] == pytest.approx(TRUTH, rel=1e-6)
    assert found["fits"][0]["theta"]["alpha"] == pytest.approx(TRUTH["alpha"], rel=1e-6)
    assert {(e["a"], e["b"]) for e in found["efficiencies"]} == {("code", "web")}


def test_several_forms_are_told_apart(runs):
    noisy(runs, size=0.002)
    options = ("--n", "N", "--d", "D", "--by", "corpus", "--law", "chinchilla,kaplan,multiplicative", "--bootstrap", 20)
    found = fitted(runs, *options)
    assert len(found["fits"]) == 6
    assert [choice["best"] for choice in found["selections"]] == ["chinchilla", "chinchilla"]


def test_hold_out_frontier_and_limit_are_in_the_json(runs):
    noisy(runs, size=0.002)
    fit = fitted(runs, "--n", "N", "--d", "D", "--by", "corpus")["fits"][1]
    assert fit["extrapolation"]["N"]["error"]["law"] < fit["extrapolation"]["N"]["error"]["best_so_far"]
    a = fit["frontier"]["a"]
    assert a["low"] < TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]) < a["high"]
    assert fit["data_limited"]["verdict"] in ("yes", "no", "undecided")


def test_rows_that_cannot_count_are_left_out_by_line_and_reason(runs):
    table = pd.read_csv(runs).query("corpus == 'web'").reset_index(drop=True)
    table.loc[3, "loss"] = np.nan
    table.loc[7, "N"] = -1
    table.loc[11, "loss"] = 50.0
    table.to_csv(runs, index=False)
    fit = fitted(runs, "--n", "N", "--d", "D", "--drop-highest", 1, "--bootstrap", 20)["fits"][0]
    assert fit["theta"] == pytest.approx(TRUTH, rel=1e-6)
    assert fit["n_points"] == 27
    assert fit["excluded"] == {
        "loss is not a positive number": [5],
        "N is not a positive number": [9],
        "among the 1 highest losses": [13],
    }


def test_weighted_line_is_the_textbook_one(tmp_path):
    rng = np.random.default_rng(0)
    c, s = np.geomspace(1e18, 1e22, 9), rng.uniform(0.02, 0.2, 9)
    y = 0.1 * c**0.5 * np.exp(s * rng.standard_normal(9))
    path = tmp_path / "optima.csv"
    pd.DataFrame({"C": c, "n_opt": y, "s": s}).to_csv(path, index=False)
    options = ("--x", "C", "--y", "n_opt", "--law", "power", "--sigma", "s", "--objective", "lsq")
    fit = fitted(path, *options)["fits"][0]
    slope, intercept = np.polyfit(np.log(c), np.log(y), 1, w=1 / s)  # polyfit's weights multiply residuals
    assert -fit["theta"]["alpha"] == pytest.approx(slope, rel=1e-9)
    assert np.log(fit["theta"]["A"]) == pytest.approx(intercept, rel=1e-9)
    low, high = fit["interval"]["alpha"]
    assert low < -0.5 < high


def test_pair_with_given_floors_is_the_textbook_line(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.uniform(2.2, 4.0, 40)
    y = 0.8 * (x - 1.7) ** 1.1 + 0.9 + 0.002 * rng.standard_normal(40)
    path = tmp_path / "pairs.csv"
    pd.DataFrame({"a": x, "b": y}).to_csv(path, index=False)
    options = ("--pair", "a:b", "--floor-x", 1.7, "--floor-y", 0.9, "--objective", "lsq")
    pair = fitted(path, *options)["pairs"][0]
    kappa, log_k = np.polyfit(np.log(x - 1.7), np.log(y - 0.9), 1)
    assert pair["theta"]["kappa"] == pytest.approx(kappa, rel=1e-9)
    assert pair["theta"]["K"] == pytest.approx(np.exp(log_k), rel=1e-9)


def test_pair_without_floors_takes_them_from_laws_of_the_same_rows(runs):
    table = pd.read_csv(runs).query("corpus == 'web'")
    table["other"] = 0.8 * (table["loss"] - TRUTH["E"]) ** 1.2 + 0.5
    table.to_csv(runs, index=False)
    pair = fitted(runs, "--n", "N", "--d", "D", "--pair", "loss:other", "--bootstrap", 20)["pairs"][0]
    assert pair["theta"]["E0"] == pytest.approx(TRUTH["E"], rel=1e-4)
    assert 1.0 < pair["theta"]["kappa"] < 1.4  # the other loss is not exactly of that form in N and D


def test_groups_on_one_curve_are_pooled(runs):
    table = pd.read_csv(runs)
    table["other"] = 0.8 * table["loss"] ** 1.2 * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(table)))
    table.to_csv(runs, index=False)
    options = ("--by", "corpus", "--pair", "loss:other", "--floor-x", 0, "--floor-y", 0, "--bootstrap", 20)
    assert fitted(runs, *options)["poolings"][0]["best"] == "one_line"


def test_values_of_a_column_that_do_not_occur_are_named(runs):
    options = ("--pair", "web:books", "--pair-by", "corpus", "--match", "N,D", "--floor-x", 0, "--floor-y", 0)
    with pytest.raises(EcgscaleError, match="no 'books'; it has code, web"):
        fitted(runs, *options)
    with pytest.raises(EcgscaleError, match="runs of 'web' agree in N: match by more columns"):
        fitted(runs, "--pair", "web:code", *options[2:4], "--match", "N", *options[6:])


def test_side_by_side_lists_every_objective(runs):
    noisy(runs)
    options = ("--n", "N", "--d", "D", "--by", "corpus", "--side-by-side", "--bootstrap", 50)
    beside = fitted(runs, *options)["fits"][0]["side_by_side"]
    assert set(beside) == {"huber", "huber_1e-3", "lad", "lsq", "lsq_raw"}


def test_law_that_cannot_be_fitted_stays_with_its_reason(tmp_path):
    path = tmp_path / "thin.csv"
    pd.DataFrame({"N": [1e6, 1e7], "D": [1e8, 1e9], "loss": [3.0, 2.0]}).to_csv(path, index=False)
    fit = fitted(path, "--n", "N", "--d", "D")["fits"][0]
    assert fit["theta"] is None
    assert "at least 6 points" in fit["refused"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--n", "N", "--d", "tokens"), "no column 'tokens'; it has N, D, corpus, loss"),
        (("--n", "N", "--d", "D", "--law", "power"), "give --x"),
        (("--x", "N", "--law", "chinchilla"), "give --n and --d"),
        (("--n", "N", "--d", "D", "--law", "cubic"), "unknown law 'cubic': choose one of chinchilla"),
        (("--n", "N", "--d", "D", "--weights", "N", "--sigma", "D"), "--weights or --sigma, not both"),
        (("--pair", "loss"), "a colon between them"),
        (("--pair", "loss:loss", "--floor-x", "1"), "both --floor-x and --floor-y"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(runs, options, says):
    with pytest.raises(EcgscaleError, match=says):
        fitted(runs, *options)


def test_schema_is_printed_and_is_a_schema():
    result = CliRunner().invoke(app, ["fit-laws", "--schema"])
    assert json.loads(result.stdout) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@needs_tables
@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("huber_log_sum_delta_0.0001", ("--objective", "huber", "--delta", "1e-4")),
        ("huber_log_sum_delta_0.001", ("--objective", "huber", "--delta", "1e-3")),
        ("huber_log_sum_delta_0.01", ("--objective", "huber", "--delta", "1e-2")),
        ("half_sum_sq_log", ("--objective", "lsq")),
        ("rss_linear", ("--objective", "lsq_raw")),
        ("lad_log", ("--objective", "lad")),
    ],
)
def test_published_chinchilla_points_through_the_command(expected, options):
    optimum = json.loads((TABLES / "expected.json").read_text())["epoch"]["n240"][expected]
    path = TABLES / "epoch" / "table.csv"
    fit = fitted(path, "--n", "N", "--d", "D", "--drop-highest", 5, "--bootstrap", 0, *options)["fits"][0]
    assert fit["objective"]["value"] <= optimum["objective"] * (1 + 1e-9)
    for name, value in fit["theta"].items():
        assert value == pytest.approx(optimum[name], rel=1e-5)


@needs_tables
@pytest.mark.parametrize("which", range(10))
def test_published_train_to_train_lines_through_the_command(which):
    """Floors of the published Kaplan fits, runs that share size and compute; columns as in the published table."""
    folder = TABLES / "brandfonbrener"
    given = json.loads((TABLES / "expected.json").read_text())["brandfonbrener"]["train_to_train_given"][which]
    names = {
        "FineWeb": "fineweb-100b",
        "FineWeb-Edu": "fineweb-edu-100b",
        "SmolLM Corpus": "smollm-corpus",
        "SlimPajama": "slimpajama-chunk1",
        "ProofPile 2": "proof-pile-2",
        "StarCoder": "starcoder",
    }
    one, two = (names[given[key]] for key in ("data0", "data1"))
    published = pd.read_csv(folder / "opt_params_data.csv")
    kaplan = published[published["kaplan"] & (published["loss_name"] == "val_loss")].set_index("data")["E"]
    options = ("--pair", f"{one}:{two}", "--pair-by", "data", "--match", "params,flops,iso_flop", "--loss", "val_loss")
    floors = ("--floor-x", kaplan[one], "--floor-y", kaplan[two], "--objective", "lsq", "--bootstrap", 100)
    pair = fitted(folder / "sweep.csv", *options, *floors)["pairs"][0]
    assert pair["theta"]["kappa"] == pytest.approx(given["kappa"], rel=1e-6)
    assert pair["theta"]["K"] == pytest.approx(given["K"], rel=1e-6)


@needs_tables
def test_unidentified_published_table_is_flagged_not_reported():
    path = TABLES / "gemstones" / "hot_100b+_512x.csv"
    fit = fitted(path, "--n", "N", "--d", "D", "--cluster", "run", "--delta", "1e-3", "--bootstrap", 100)["fits"][0]
    assert "unidentified" in fit["flags"]
