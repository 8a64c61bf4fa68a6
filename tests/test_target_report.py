"""What a report on targets and heads holds: checks, tables, figures, what is missing; also beside other trials."""

import json
import re
from dataclasses import replace
from functools import partial

import chromium
import matplotlib
import numpy as np
import pandas as pd
import pytest
import simulated_folder
import target_folder
from matplotlib.text import Text
from report_text import words

from ecgscale import results
from ecgscale.concentrations.declared import HeadSpec
from ecgscale.errors import EcgscaleError
from ecgscale.figures import STYLE, target_chapters
from ecgscale.findings import Verdict
from ecgscale.fitted import Method
from ecgscale.prediction_files import CLASSICAL
from ecgscale.report import files, target_page, write_report
from ecgscale.report.tables import PARAGRAPH
from ecgscale.report.target_tables import head_tables
from ecgscale.target_study import target_study

QUICK = Method(bootstrap=20)
N_FAILED = 1


def quickly(patch):
    patch.setattr(target_page, "target_study", partial(target_study, n_resamples=40))


def draw_only(patch, *kinds):
    every = files.target_chapters
    patch.setattr(files, "target_chapters", lambda study: [c for c in every(study) if c.kind in kinds])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return target_folder.make(tmp_path_factory.mktemp("targets") / "planted", n_failed=N_FAILED)


@pytest.fixture(scope="module")
def study(planted):
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return target_page.planned_study(planted, results.read(planted))[0]


@pytest.fixture(scope="module")
def report(planted, study):
    """All figures: the browser looks at them, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target_page, "target_study", lambda *_, **__: study)
        (made,) = write_report(planted, with_tex=True)
    return made


@pytest.fixture(scope="module")
def folder(report):
    return report.files[0].parent


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def rows_of(page, caption):
    """The cells of the table whose caption begins like this."""
    table = page[page.index(f"<caption>{caption}") :].partition("</table>")[0]
    return [[words(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in table.split("<tr>")[2:]]


def test_every_file_that_is_named_is_there(report, folder):
    assert all(file.is_file() and file.stat().st_size > 0 for file in report.files)
    assert report.files[-1].name == "index.html"
    names = {file.name for file in report.files}
    assert {"scores.csv", "runs.csv", "conclusions.json", "checks.tex", "heads-potassium.tex"} <= names
    assert "laws.csv" not in names
    assert {file.stem for file in (folder / "figures").iterdir()} == {
        "heads",
        "predicted",
        "classes",
        "sparsification",
        "calibration",
        "elsewhere",
    }


def test_page_says_what_was_asked_trained_tested_and_published(report, page):
    said = words(page)
    assert "Which concentrations can be read, and does the network know when it can not?" in said
    assert "trials done 19 of 20" in said
    assert "targets potassium, sodium heads 5 seeds per cell 2" in said
    assert "test records 300 test patients 150" in said
    for conclusion in report.conclusions:
        assert conclusion.question in said
        assert conclusion.published in said
        assert conclusion.summary in said


def test_planted_pattern_is_seen_with_its_numbers(report, page):
    found = {c.name: c for c in report.conclusions}
    assert found["potassium_readable"].verdict is Verdict.SUPPORTED
    assert found["not_calibrated"].verdict is Verdict.SUPPORTED
    assert found["ordinal_holds_up"].verdict is Verdict.SUPPORTED
    assert found["aleatoric_sorts_best"].verdict is Verdict.SUPPORTED
    assert found["networks_beat_features"].verdict is Verdict.UNDECIDED
    card = words(page[page.index('id="potassium_readable"') :].partition("</article>")[0])
    value = found["potassium_readable"].findings[0].value
    assert card.count("seen") == 2
    assert any(float(number) == pytest.approx(value, abs=0.006) for number in re.findall(r"0\.\d+", card))


def test_table_of_heads_has_the_scores_and_ends_with_the_constant(page, study):
    rows = rows_of(page, "potassium, in mmol/l (mean over seeds")
    assert [row[0] for row in rows] == [*target_folder.HEADS, "constant"]
    mae = study.table(target="potassium", score="mae", who="networks", part="test", condition="clean", population="A")
    mae = mae[mae["recalibration"] == ""].set_index("head")
    for row in rows[:-1]:
        assert float(row[1].split()[0]) == pytest.approx(mae.loc[row[0], "value"], abs=6e-4)
    assert float(rows[-1][1]) == pytest.approx(mae["constant"].median(), abs=6e-4)
    assert rows[-1][3:5] == ["0.00", "0.50"]  # slope, AUROC of the constant
    assert rows[0][6] == "—"  # a point has no likelihood


def test_recalibration_widens_what_was_planted_too_narrow(page):
    rows = rows_of(page, "Recalibration")
    covered = {(row[0], row[2]): float(row[5].split()[0]) for row in rows}
    assert covered["potassium", "none"] < 0.87
    assert covered["potassium", "conformal"] > covered["potassium", "none"]
    assert {row[2] for row in rows} == {"none", "variance", "isotonic", "conformal"}


def test_regressions_on_features_stand_between_the_heads_and_the_constant(study):
    ridge = study.table(target="potassium", head="mse", who="networks", part="test", condition="clean", population="A")
    ridge = ridge.assign(head="ridge-waves", who=CLASSICAL, family=CLASSICAL, seed_sd=None)
    network = next(n for n in study.networks if n.head.name == "mse")
    classical = replace(network, family=CLASSICAL, head=HeadSpec(name="ridge-waves", kind="gaussian"))
    scores = pd.concat([study.scores, ridge], ignore_index=True)
    beside = replace(study, scores=scores, networks=(*study.networks, classical))
    potassium, sodium = head_tables(beside)
    assert [row[0] for row in potassium.rows] == [*target_folder.HEADS, "ridge-waves", "constant"]
    assert [row[0] for row in sodium.rows] == [*target_folder.HEADS, "constant"]
    assert [c.name for c in target_chapters(beside)] == [c.name for c in target_chapters(study)]
    heads = next(chapter for chapter in target_chapters(beside) if chapter.kind == "heads").numbers()
    assert set(heads[heads["who"] == CLASSICAL]["target"]) == {"potassium"}


def test_map_shows_every_trial_and_failures_have_their_reason(page):
    fields = page[page.index('class="maps"') : page.index('class="legend"')]
    assert fields.count('class="mark done"') == 20 - N_FAILED
    assert fields.count('class="mark failed"') == N_FAILED
    assert "infrastructure planted 1" in words(page)


def test_machines_read_the_same(report, folder):
    assert json.loads((folder / "conclusions.json").read_text()) == report.to_dict()["conclusions"]
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["sweep"] == "planted"
    scores = pd.read_csv(folder / "scores.csv")
    assert list(dict.fromkeys(scores["target"])) == ["potassium", "sodium"]
    assert {"skill", "crps_skill", "own_auroc", "covered_0.9"} <= set(scores["score"])


def test_tables_for_latex_are_balanced(folder):
    for file in folder.glob("*.tex"):
        text = file.read_text(encoding="utf-8")
        assert text.isascii(), {c for c in text if ord(c) > 127}
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        columns = re.search(r"\\begin\{tabular\}\{(.*)\}", text)[1].replace(PARAGRAPH, "l")
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(study):
    with matplotlib.rc_context(STYLE):
        figures = {chapter.kind: next(iter(chapter.sheets())) for chapter in target_chapters(study)}
        for figure in figures.values():
            figure.draw_without_rendering()
        return figures


def test_line_through_the_points_has_the_slope_that_is_named(study, drawn):
    axis = drawn["predicted"].axes[0]
    identity, points, line = axis.get_lines()
    slope = np.polyfit(points.get_xdata(), points.get_ydata(), 1)[0]
    assert np.ptp(line.get_ydata()) / np.ptp(line.get_xdata()) == pytest.approx(slope, rel=1e-6)
    assert identity.get_xdata() == pytest.approx(identity.get_ydata())
    assert f"slope {slope:.2f}" in "".join(text.get_text() for text in axis.findobj(Text))
    assert len(points.get_xdata()) == 300


def test_heads_are_drawn_at_their_skill_on_one_scale(study, drawn):
    potassium, sodium = drawn["heads"].axes[:2]
    assert potassium.get_xlim() == sodium.get_xlim()
    names = [label.get_text() for label in potassium.get_yticklabels()]
    assert names == list(target_folder.HEADS)
    best = max(line.get_xdata()[0] for line in potassium.get_lines()[1:])
    assert best > 0.1 > max(line.get_xdata()[0] for line in sodium.get_lines()[1:])


def test_sparsification_starts_at_the_error_of_all_and_the_oracle_is_lowest(drawn):
    axis = drawn["sparsification"].axes[0]
    curves = {line.get_label(): line for line in axis.get_lines()}
    assert {"aleatoric", "epistemic, ensemble", "epistemic, Laplace", "oracle", "random order"} == set(curves)
    ends = {
        name: line.get_ydata()[np.argmax(line.get_xdata())]
        for name, line in curves.items()
        if name != "epistemic, Laplace"
    }
    assert max(ends.values()) == pytest.approx(min(ends.values()))
    for name in ("aleatoric", "epistemic, ensemble"):
        assert (curves["oracle"].get_ydata() <= curves[name].get_ydata() + 1e-12).all()


def test_places_begin_with_undamaged_test_records(drawn):
    places = [label.get_text() for label in drawn["elsewhere"].axes[0].get_yticklabels()]
    assert places == ["test", "noise-0.25mV", "dropped-50", "later", "B"]


# --- little to report on, and more than targets --------------------------------------------------------------------


def test_little_is_reported_and_the_rest_is_said_to_be_missing(tmp_path, monkeypatch):
    quickly(monkeypatch)
    draw_only(monkeypatch, "heads")
    n_records = {"validation": 60, "test": 80}
    folder = target_folder.make(
        tmp_path / "little", targets=("potassium",), heads=("softmax-3",), seeds=(0,), n_records=n_records
    )
    (made,) = write_report(folder)
    said = words(made.files[-1].read_text(encoding="utf-8"))
    for missing in ("One seed: no ensemble", "No Gaussian or quantile head", "No kind of head has two numbers"):
        assert missing in said
    assert "No head has 3 sizes or 3 amounts of data" in said
    for missing in ("No head predicts the number", "No other population", "No patients were kept for a later test"):
        assert missing in said
    assert str(tmp_path) not in said


def test_sweep_of_several_paradigms_has_a_page_for_each(tmp_path, monkeypatch):
    quickly(monkeypatch)
    draw_only(monkeypatch, "heads")
    monkeypatch.setattr(files, "chapters", lambda study, found: [])
    folder = simulated_folder.make(tmp_path / "mixed")
    n_simulated = len(results.read(folder))
    sweep = (folder / "sweep.yaml").read_text()
    target_folder.make(folder, targets=("potassium",), heads=("mse", "softmax-3"), seeds=(0,))
    (folder / "sweep.yaml").write_text(sweep)
    (made,) = write_report(folder, method=QUICK)
    first, other = ((folder / "report" / name).read_text(encoding="utf-8") for name in ("index.html", "targets.html"))
    assert 'href="targets.html"' in first
    assert 'href="index.html"' in other
    assert "Can potassium be read" in other
    assert "Can potassium be read" not in first
    assert {"parameter_efficiency", "potassium_readable"} <= {c.name for c in made.conclusions}
    assert len(pd.read_csv(folder / "report" / "runs.csv")) == n_simulated + 2


def test_laws_of_the_errors_are_told_of_heads_of_three_sizes(tmp_path, monkeypatch):
    quickly(monkeypatch)
    draw_only(monkeypatch, "heads")
    folder = target_folder.make(
        tmp_path / "scaled",
        targets=("potassium",),
        heads=("mse", "gaussian"),
        rungs=("20K", "60K", "200K"),
        exponent=0.2,
        n_records={"validation": 60, "test": 80},
    )
    (made,) = write_report(folder, method=QUICK, with_tex=True)
    page = made.files[-1].read_text(encoding="utf-8")
    rows = rows_of(page, "Laws of the loss, potassium: MAE.")
    assert [(row[0], row[1]) for row in rows] == [
        (f"resnet-potassium-{h}", "L(N), no floor") for h in ("gaussian", "mse")
    ]
    for row in rows:
        assert float(row[2].split()[0]) == pytest.approx(0.2, abs=0.005)
    assert {row[0] for row in rows_of(page, "Laws of the loss, potassium: exp NLL.")} == {"resnet-potassium-gaussian"}
    assert {"head_laws.csv", "laws-potassium-MAE.tex", "lines-potassium-MAE.pdf"} <= {file.name for file in made.files}
    assert "L(D)" not in words(page)
    assert "3 sizes" not in words(page)


def test_folder_of_failed_trials_is_refused(tmp_path):
    folder = target_folder.make(tmp_path / "x", targets=("sodium",), heads=("mse",), seeds=(0,), n_failed=1)
    with pytest.raises(EcgscaleError, match="no completed trial"):
        write_report(folder)


@pytest.mark.slow
@pytest.mark.skipif(chromium.PATH is None, reason="no Chromium: apt-get install chromium")
def test_page_is_whole_at_any_width(folder):
    page = folder / "index.html"
    with chromium.browser() as tab:
        for width, dark in ((390, True), (1400, False)):
            tab.open(page, width, dark=dark)
            tab.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.complaints() == []
        for link in tab.evaluate("[...document.links].map((a) => a.getAttribute('href'))"):
            if link.startswith("#"):
                assert tab.evaluate(f"document.querySelector({link!r}) !== null"), link
            else:
                assert (page.parent / link).is_file(), link
        shown = tab.evaluate("[...document.images].map((i) => [i.closest('figure').id, i.naturalWidth, i.alt])")
        assert {name for name, _, _ in shown} == {file.stem for file in (folder / "figures").glob("*.pdf")}
        assert all(width > 0 and alt for _, width, alt in shown)
