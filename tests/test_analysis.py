"""Every script of analysis/ runs on a results folder and writes what the README says it does."""

import re
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import simulated_folder
import target_folder

from ecgscale.figures import Sheet
from ecgscale.fitted import Method
from ecgscale.report import excerpt, target_page
from ecgscale.report.target_page import planned_study
from ecgscale.results import read
from ecgscale.sweep_laws import sweep_study
from ecgscale.target_study import target_study

ANALYSIS = Path(__file__).parent.parent / "analysis"
SCRIPTS = sorted(ANALYSIS.glob("*.py"))
README = (ANALYSIS / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Fitted once for all scripts."""
    return sweep_study(simulated_folder.make(tmp_path_factory.mktemp("analysis") / "simulated"), Method(bootstrap=30))


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """Scored once for all scripts that are of targets."""
    folder = target_folder.make(tmp_path_factory.mktemp("targets") / "planted", seeds=(0,))
    with pytest.MonkeyPatch.context() as patch:
        scored = partial(target_study, n_resamples=20)
        patch.setattr(target_page, "target_study", scored)
        return planned_study(folder, read(folder))[0]


def only_named(chapters, folder):
    """Sheets of figures that aren't drawn: how they look is looked at in other tests."""
    for chapter in chapters:
        assert len(chapter.numbers())
        yield Sheet(chapter.name, chapter, (f"{chapter.name}.pdf",), "", 7.2)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_writes_the_figures_of_its_row(script, study, targets, monkeypatch, capsys):
    monkeypatch.setattr(excerpt, "studies", lambda folder, method: [study])
    monkeypatch.setattr(excerpt, "target_studies", lambda folder: [targets])
    monkeypatch.setattr(excerpt, "write_sheets", only_named)
    monkeypatch.setattr(sys, "argv", [script.name, str(study.folder)])
    runpy.run_path(str(script), run_name="__main__")
    (row,) = (line for line in README.splitlines() if f"`{script.name}`" in line)
    written = {Path(name).stem for name in re.findall(r"\S+\.pdf", capsys.readouterr().out)}
    for name in re.findall(r"`([^`]+)`", row.rpartition("|")[0].rpartition("|")[2]):
        assert any(stem.startswith(name.rstrip("…")) for stem in written), name


def test_readme_lists_every_script():
    assert {script.name for script in SCRIPTS} == set(re.findall(r"`(\w+\.py)`", README))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_without_a_folder_says_how_it_is_used(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script.name])
    with pytest.raises(SystemExit, match=r"Usage: python analysis/"):
        runpy.run_path(str(script), run_name="__main__")
