"""What a report holds: verdicts, map, figures in three formats, tables for LaTeX; whole files, also of half a sweep."""

import io
import json
import re

import pandas as pd
import pytest
import simulated_folder
from report_text import words
from rich.console import Console

from ecgscale import console, results
from ecgscale.errors import EcgscaleError
from ecgscale.findings import Verdict
from ecgscale.fitted import Method
from ecgscale.report import files, write_excerpt, write_report
from ecgscale.report.tables import PARAGRAPH, Table, escaped, tex

QUICK = Method(bootstrap=40)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """One report; of the figures only a few are drawn, `test_report_page` draws them all."""
    folder = simulated_folder.make(tmp_path_factory.mktemp("report") / "simulated")
    with pytest.MonkeyPatch.context() as patch:
        _draw_only(patch, "conclusions", "scaling", "crossing")
        (made,) = write_report(folder, with_tex=True, method=QUICK)
    return made


def _draw_only(patch, *kinds):
    every = files.chapters
    patch.setattr(files, "chapters", lambda study, found: [c for c in every(study, found) if c.kind in kinds])


@pytest.fixture(scope="module")
def folder(report):
    return report.files[0].parent


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def test_every_file_that_is_named_is_there_and_none_is_half_written(report, folder):
    assert all(file.is_file() and file.stat().st_size > 0 for file in report.files)
    assert len(set(report.files)) == len(report.files)
    assert report.files[-1].name == "index.html"
    assert not list(folder.parent.glob(".report-*"))
    names = {file.name for file in report.files}
    assert {"laws.csv", "laws.json", "task_laws.csv", "runs.csv", "transfer.csv", "conclusions.json"} <= names


def test_page_says_question_verdicts_and_what_the_paper_states(report, page):
    said = words(page)
    assert "Do ResNets need fewer parameters, and does self-supervision need fewer records?" in said
    for conclusion in report.conclusions:
        assert conclusion.question in said
        assert conclusion.published in said
        assert " ".join(conclusion.summary.split()) in said
    assert page.count('class="card"') == len(report.conclusions)


def test_page_of_simulated_rows_says_so_at_the_top(page):
    assert "nothing was trained" in words(page)[:400]


def test_page_needs_nothing_beside_it(page):
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "@import" not in page
    assert "<script src" not in page


def test_planted_multiplier_stands_on_the_page_with_its_interval(report, page):
    conclusion = next(c for c in report.conclusions if c.name == "parameter_efficiency")
    assert conclusion.verdict is Verdict.SUPPORTED
    pooled = [f for f in conclusion.findings if not f.one_task]
    shown = re.findall(r"[\d.]+ \[[\d.]+, (?:[\d.]+|open)\]", words(page))
    for finding in pooled:
        assert any(float(number.split()[0]) == pytest.approx(finding.value, rel=0.01) for number in shown)


def test_map_counts_what_is_done_failed_and_missing(folder, page):
    rows = results.latest(results.read(folder.parent)).values()
    done = sum(r.status == "completed" for r in rows)
    failed = len(rows) - done
    assert failed > 0
    fields = page[page.index('class="maps"') : page.index('class="legend"')]
    states = {state: fields.count(f'class="mark {state}"') for state in ("done", "failed", "missing")}
    assert states == {"done": done, "failed": failed, "missing": simulated_folder.N_MISSING}
    assert sum(states.values()) == simulated_folder.N_TRIALS
    assert "resnet-sl 20K, 1/4 of the records, seed 1" in page


def test_failures_are_listed_with_their_reason(folder, page):
    failed = [r for r in results.read(folder.parent) if r.status == "failed"]
    said = words(page)
    for record in failed:
        assert f"{record.label} infrastructure planted 1" in said


def test_figures_come_as_pdf_png_and_numbers(folder):
    figures = folder / "figures"
    for name in ("conclusions", "crossing", "scaling-in-distribution"):
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(figures / f"{name}.csv")) > 0
    runs = pd.read_csv(figures / "scaling-in-distribution.csv")
    done = [r for r in results.latest(results.read(folder.parent)).values() if r.status == "completed"]
    assert len(runs) == len(done)
    assert ((runs["law_low"] <= runs["law_loss"]) & (runs["law_loss"] <= runs["law_high"])).mean() > 0.9


def test_crossing_is_put_in_words_or_refused(page):
    told = r"transformer-\w+ below resnet-\w+, transfer to B, \w+ tasks: (from N|nowhere|at every)"
    assert re.search(f"{told}|no crossing is claimed", words(page))


def test_conclusions_for_machines_are_those_of_the_page(report, folder):
    stored = json.loads((folder / "conclusions.json").read_text())
    assert stored == report.to_dict()["conclusions"]
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["sweep"] == "simulated"


def test_tables_for_latex_are_balanced_and_escaped(folder):
    tables = sorted(folder.glob("*.tex"))
    assert {"conclusions.tex", "laws-in-distribution.tex", "laws-loss-to-loss.tex"} <= {t.name for t in tables}
    for file in tables:
        text = file.read_text(encoding="utf-8")
        assert text.count("\\begin{") == text.count("\\end{")
        assert text.isascii(), {c for c in text if ord(c) > 127}
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        columns = re.search(r"\\begin\{tabular\}\{(.*)\}", text)[1].replace(PARAGRAPH, "l")
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
        assert re.search(r"\\toprule.*\\midrule.*\\bottomrule", text, flags=re.DOTALL)


def test_latex_sees_text_not_commands():
    assert escaped("5 % of a_b & #1 {x} α → ∞ — ok") == (r"5 \% of a\_b \& \#1 \{x\} $\alpha$ $\to$ $\infty$ --- ok")
    assert r"a & 1 \\" in tex(Table("t", "c", ("n", "v"), 1, (("a", "1"),)))
    assert "{l" + PARAGRAPH + "r}" in tex(
        Table("t", "c", ("n", "why", "v"), 1, (("a", "no " * 20, "0.1 [−0.02, 1.2]"),))
    )


def test_second_report_takes_the_place_of_the_first(report, folder, monkeypatch):
    _draw_only(monkeypatch, "conclusions")
    mine = folder / "notes.txt"
    mine.write_text("mine")
    told = []
    (again,) = write_report(folder.parent, method=QUICK, progress=lambda *step: told.append(step))
    assert told == [*(("fitting arms", n, 4) for n in range(5)), *(("drawing figures", n, 1) for n in range(2))]
    assert mine.read_text() == "mine"
    assert {file.stem for file in (folder / "figures").iterdir()} == {"conclusions"}
    assert [c.verdict for c in again.conclusions] == [c.verdict for c in report.conclusions]


def test_laws_are_a_table_and_json_of_the_same_fits(folder):
    laws = json.loads((folder / "laws.json").read_text())
    table = pd.read_csv(folder / "laws.csv")
    assert {fit["group"] for fit in laws["fits"]} == set(table["group"]) == set(simulated_folder.TRUTH["arms"])
    assert {"E", "alpha_low", "alpha_high", "flags", "refused"} <= set(table.columns)


def test_a_terminal_is_told_what_is_under_way_and_nobody_else_is(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for terminal, silent, told in ((True, False, True), (True, True, False), (False, False, False)):
        shown = io.StringIO()
        monkeypatch.setattr(console, "err", Console(file=shown, force_terminal=terminal, width=100))
        with console.steps_progress(silent=silent) as show:
            show("scoring heads", 3, 5)
        assert bool(shown.getvalue()) == ("scoring heads" in shown.getvalue()) == ("3/5" in shown.getvalue()) == told


# --- little to report on -------------------------------------------------------------------------------------------


def test_report_of_a_single_run_says_what_it_can_not_say(tmp_path, make_record, monkeypatch):
    _draw_only(monkeypatch, "conclusions", "scaling", "lines")
    results.append(tmp_path / "one", make_record())
    (made,) = write_report(tmp_path / "one", method=QUICK)
    assert {c.verdict for c in made.conclusions} == {Verdict.UNDECIDED}
    said = words((tmp_path / "one" / "report" / "index.html").read_text())
    assert "What was planned is not known" in said
    assert str(tmp_path) not in said
    assert "No cell has two seeds" in said


def test_folder_without_a_completed_trial_is_refused(tmp_path, make_record):
    results.append(tmp_path / "x", make_record(status="failed", id_loss=None))
    with pytest.raises(EcgscaleError, match="no completed trial"):
        write_report(tmp_path / "x")


def test_excerpt_of_an_unknown_claim_is_refused(tmp_path, make_record):
    results.append(tmp_path / "x", make_record())
    with pytest.raises(EcgscaleError, match="no claim everything"):
        write_excerpt(tmp_path / "x", claims=["everything"], method=QUICK)
