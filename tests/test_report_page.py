"""The page of a report as a browser shows it: nothing complains, nothing is cut off, every figure is there."""

from pathlib import Path

import chromium
import pytest
import simulated_folder

from ecgscale.fitted import Method
from ecgscale.report import files, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PATH is None, reason="no Chromium: apt-get install chromium"),
]

WIDTHS = (390, 1400)

CUT_OFF = """
[...document.querySelectorAll("body *")].filter((e) => {
  const box = e.getBoundingClientRect();
  const scrolls = e.closest(".scroll, .sheet, pre");
  return box.width > 0 && !scrolls && (box.right > innerWidth + 1 || box.left < -1);
}).map((e) => e.tagName + "." + e.className)
"""

FIGURES = """
Promise.all([...document.images].map((i) => i.decode())).then(() => [...document.images].map((i) => {
  const box = i.getBoundingClientRect();
  return {name: i.closest("figure").id, pixels: i.naturalWidth, width: box.width, height: box.height, alt: i.alt};
}))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = simulated_folder.make(tmp_path_factory.mktemp("page") / "simulated")
    with pytest.MonkeyPatch.context() as patch:  # other targets have the same figures
        every = files.chapters
        patch.setattr(files, "chapters", lambda *study: [c for c in every(*study) if "transfer" not in c.target])
        write_report(folder, method=Method(bootstrap=60))
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def tab():
    with chromium.browser() as tab:
        yield tab


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_is_whole_at_any_width(page, tab, width, dark):
    tab.open(page, width, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT_OFF) == []
    assert tab.complaints() == []


def test_every_figure_is_shown_with_words_beside_it(page, tab):
    tab.open(page, 1400)
    tab.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    shown = tab.evaluate(FIGURES)
    files = {file.stem for file in (page.parent / "figures").glob("*.pdf")}
    assert {figure["name"] for figure in shown} == files
    for figure in shown:
        assert figure["pixels"] > 0, figure
        assert figure["width"] > 200, figure
        assert figure["height"] > 60, figure
        assert figure["alt"], figure


def test_colours_follow_the_reader(page, tab):
    colours = []
    for dark in (False, True):
        tab.open(page, 1400, dark=dark)
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_links_lead_to_files_and_places_that_exist(page, tab):
    tab.open(page, 1400)
    links = tab.evaluate("[...document.links].map((a) => a.getAttribute('href'))")
    assert links
    for link in links:
        if link.startswith("#"):
            assert tab.evaluate(f"document.querySelector({link!r}) !== null"), link
        else:
            assert (page.parent / link).is_file(), link


def test_what_is_folded_is_printed(page, tab, tmp_path):
    tab.open(page, 1400)
    tab.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert tab.evaluate("[...document.querySelectorAll('details')].every((d) => d.open)")
