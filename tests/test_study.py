"""Rows of a planted study come back as the planted laws, in the table, in the JSON and in figures."""

from dataclasses import replace
from itertools import product

import pandas as pd
import pytest

from ecgscale import results
from ecgscale.errors import EcgscaleError
from ecgscale.figures import write_figures
from ecgscale.fitted import Method
from ecgscale.study import ID_TARGET, IN_D, IN_N, JOINT
from ecgscale.sweep_laws import studies, sweep_study
from ecgscale.tables import Columns, law_study

SIZES = (20_000, 60_000, 200_000, 600_000)
RECORDS = (300, 900, 2700, 8100)
PLANTED = {
    "resnet-sl": {"E": 0.20, "A": 9.0, "alpha": 0.40, "B": 4.0, "beta": 0.45},
    "transformer-sl": {"E": 0.22, "A": 12.0, "alpha": 0.35, "B": 6.0, "beta": 0.40},
}
TRANSFER = {"slope": 1.4, "floor": 0.3}


def planted_loss(arm: str, n: int, d: int) -> float:
    law = PLANTED[arm]
    return law["E"] + law["A"] * n ** -law["alpha"] + law["B"] * d ** -law["beta"]


@pytest.fixture
def planted_folder(tmp_path, make_record):
    """Two arms on a 4 × 4 grid, the transfer loss a straight line of the in-distribution loss, one failed trial."""
    folder = tmp_path / "planted"
    task = make_record().transfer[0]
    for arm, n, d in product(PLANTED, SIZES, RECORDS):
        family, paradigm = arm.split("-")
        loss = planted_loss(arm, n, d)
        elsewhere = TRANSFER["floor"] + TRANSFER["slope"] * (loss - PLANTED[arm]["E"])
        results.append(
            folder,
            make_record(
                trial_id=f"{arm}{n}{d}",
                arm=arm,
                family=family,
                paradigm=paradigm,
                n_params=n,
                n_records=d,
                id_loss=loss,
                transfer=(task.model_copy(update={"loss": elsewhere}),),
            ),
        )
    failed = {"status": "failed", "reason": "planted", "id_loss": None, "transfer": ()}
    results.append(folder, make_record(trial_id="broken", arm="resnet-sl", **failed))
    return folder


def test_planted_laws_come_back(planted_folder):
    study = sweep_study(planted_folder, Method(bootstrap=50))
    assert study.groups == ("resnet-sl", "transformer-sl")
    for arm, theta in PLANTED.items():
        joint = study.law(arm, ID_TARGET, "chinchilla", JOINT)
        assert joint.fit.theta == pytest.approx(theta, rel=1e-4)
        assert len(joint.points) == len(SIZES) * len(RECORDS)  # the failed trial is not a point
        assert study.law(arm, ID_TARGET, "power_floor", IN_N).fit.theta["alpha"] == pytest.approx(
            theta["alpha"], rel=1e-4
        )
        assert study.law(arm, ID_TARGET, "power_floor", IN_D).fit.theta["alpha"] == pytest.approx(
            theta["beta"], rel=1e-4
        )
        row = (
            study.law_table()
            .query("group == @arm and target == @ID_TARGET and law == 'power_floor' and kind == @IN_D")
            .iloc[0]
        )
        assert row["beta"] == pytest.approx(theta["beta"], rel=1e-4)


def test_planted_line_from_loss_to_loss_has_kappa_one(planted_folder):
    study = sweep_study(planted_folder, Method(bootstrap=50))
    for pair in study.pairs:
        assert pair.fit.theta["kappa"] == pytest.approx(1.0, abs=1e-3)
        assert pair.fit.theta["K"] == pytest.approx(TRANSFER["slope"], rel=1e-2)
        assert pair.fit.theta["E1"] == pytest.approx(TRANSFER["floor"], abs=1e-3)


def test_what_cannot_be_fitted_stays_visible(tmp_path, make_record):
    folder = tmp_path / "thin"
    for d in RECORDS[:2]:
        results.append(folder, make_record(trial_id=f"t{d}", n_records=d, id_loss=0.5 / d, transfer=()))
    study = sweep_study(folder, Method(bootstrap=10))
    joint = study.law("resnet-sl", ID_TARGET, "chinchilla", JOINT)
    assert joint.fit is None
    assert joint.refused
    assert write_figures(study, tmp_path / "figures")


def test_folder_of_all_sweeps_gives_one_study_each(tmp_path, make_record):
    for name in ("one", "two"):
        results.append(tmp_path / name, make_record(sweep=name))
    assert [study.name for study in studies(tmp_path, Method(bootstrap=0))] == ["one", "two"]


def test_folder_without_a_completed_trial_is_refused(tmp_path, make_record):
    results.append(tmp_path / "x", make_record(status="failed", id_loss=None))
    with pytest.raises(EcgscaleError, match="no completed trial"):
        sweep_study(tmp_path / "x")
    with pytest.raises(EcgscaleError, match="no results here"):
        list(studies(tmp_path / "nowhere"))


def test_table_of_anybodys_runs_is_fitted_by_group(tmp_path):
    rows = [
        {"N": n, "D": d, "loss": planted_loss(arm, n, d), "corpus": arm}
        for arm, n, d in product(PLANTED, SIZES, RECORDS)
    ]
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    columns = Columns(loss="loss", n="N", d="D", by=("corpus",))
    study = law_study(path, columns, ["chinchilla"], Method(bootstrap=20))
    assert study.groups == tuple(PLANTED)
    for arm, theta in PLANTED.items():
        assert study.law(arm, "loss", "chinchilla", JOINT).fit.theta == pytest.approx(theta, rel=1e-4)
    with pytest.raises(EcgscaleError, match=r"no column 'tokens'; it has N, D"):
        law_study(path, replace(columns, d="tokens"), ["chinchilla"], Method())
