"""The PDF holds the pages that are promised, its paper is true to scale, and nothing half-written carries its name."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ecgscale import check_sheet
from ecgscale.check_sheet import ecg_page, examples, write_check_sheet
from ecgscale.conventions import LEADS
from ecgscale.data.code_format import CodeWriter
from ecgscale.data.quality import CheckReport, Subject, check_path
from ecgscale.data.synthetic import POPULATIONS, synthesize_block
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)
N = 16

Checked = tuple[CheckReport, Subject]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """Sixteen synthetic ECGs; AF in all but one, and one record with a NaN, one with a flat lead."""
    exams, signal = synthesize_block(POPULATIONS["A"], 0, 3)
    table, signal = exams.iloc[:N][["exam_id", "patient_id", "age", "is_male"]], signal[:N].copy()
    signal[3, 2000, 5] = np.nan
    signal[7, signal[7].any(axis=1), 9] = 0.25
    folder = tmp_path_factory.mktemp("sheet") / "made-up"
    with CodeWriter(folder) as writer:
        writer.append(table.assign(AF=np.arange(N) > 0, ST=False), signal)
    return check_path(folder)


def n_pages(path: Path) -> int:
    return len(re.findall(rb"/Type /Page\b", path.read_bytes()))


def words(figure: Figure) -> str:
    texts = [*figure.texts, *(text for axis in figure.axes for text in axis.texts)]
    return " ".join(text.get_text() for text in texts)


def test_the_pdf_has_a_page_per_example(checked: Checked, tmp_path: Path) -> None:
    """Summary, histograms, a typical record, the one label that occurs, and the two faults."""
    report, subject = checked
    chosen = [example.why for example in examples(report)]
    assert chosen[:2] == ["typical: median amplitude of lead II", "label AF"]
    assert sorted(chosen[2:]) == ["warning: flat leads", "warning: records hold NaN"]
    path = write_check_sheet(report, subject, tmp_path / "new" / "check.pdf")
    assert path == tmp_path / "new" / "check.pdf" and path.read_bytes().startswith(b"%PDF")
    assert n_pages(path) == 2 + len(chosen)
    assert [x.name for x in path.parent.iterdir()] == ["check.pdf"]


def test_the_same_report_gives_the_same_bytes(checked: Checked, tmp_path: Path) -> None:
    one, two = (write_check_sheet(*checked, tmp_path / name) for name in ("one.pdf", "two.pdf"))
    assert one.read_bytes() == two.read_bytes()


def test_a_pdf_that_cannot_be_written_leaves_the_old_one(
    checked: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "check.pdf"
    path.write_text("old")

    def full_disk(report: CheckReport) -> Figure:
        raise OSError("No space left on device")

    monkeypatch.setattr(check_sheet, "_histograms", full_disk)
    with pytest.raises(DataError, match=r"check\.pdf: cannot be written \(No space left"):
        write_check_sheet(*checked, path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def sine_record(fs_hz: float, n: int) -> np.ndarray:
    """1 mV waves of 1 Hz in every lead; never zero, since zeros at the ends are padding."""
    sine = np.cos(2 * np.pi * np.arange(n) / fs_hz + 0.1)
    return np.repeat(sine[:, None], 12, axis=1).astype(np.float32)


WHY = check_sheet._Example(0, "because")


def page(signal: np.ndarray, fs_hz: float = 500.0, unit: str = "mV") -> Figure:
    return ecg_page(signal, fs_hz, unit=unit, caption="exam 1    50 years", why=WHY)


def curves(figure: Figure, least: int = 100) -> list[np.ndarray]:
    """The tracings of a page, (sample, x and y in mm): every line with many samples."""
    lines = [np.column_stack(line.get_data()).astype(float) for line in figure.axes[0].lines]
    return [line for line in lines if len(line) > least]


def test_the_paper_is_true_to_scale() -> None:
    figure = page(sine_record(500.0, 5000))
    (axis,) = figure.axes
    inches = axis.get_position().size * figure.get_size_inches()
    assert inches * 25.4 == pytest.approx([axis.get_xlim()[1], axis.get_ylim()[1]])
    strips = curves(figure)
    assert len(strips) == 13
    rhythm = max(strips, key=len)
    assert rhythm[500, 0] - rhythm[0, 0] == pytest.approx(25.0)  # one second
    assert np.ptp(rhythm[:, 1]) == pytest.approx(20.0, abs=0.01)  # -1 to 1 mV
    assert rhythm[:, 0].max() < axis.get_xlim()[1]
    assert "25 mm/s" in words(figure) and "10 mm/mV" in words(figure) and "1 mV" in words(figure)
    assert set(LEADS) <= set(words(figure).split())


def test_the_columns_follow_each_other_in_time() -> None:
    """Lead I, aVR, V1 and V4 together show what one lead would, each in its own quarter."""
    strips = curves(page(sine_record(500.0, 5000)))
    first_row = sorted((x for x in strips if len(x) == 1250 and x[:, 1].mean() > 130), key=lambda x: x[0, 0])
    assert [round(x[0, 0] - first_row[0][0, 0], 3) for x in first_row] == [0.0, 62.5, 125.0, 187.5]


@pytest.mark.parametrize(("n", "shown_s"), [(2800, 5.6), (5000, 10.0), (30_000, 10.0)])
def test_short_and_long_records_are_shown_at_the_same_speed(n: int, shown_s: float) -> None:
    rhythm = max(curves(page(sine_record(500.0, n))), key=len)
    assert len(rhythm) == shown_s * 500 and rhythm[500, 0] - rhythm[0, 0] == pytest.approx(25.0)


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "10 mm/mV"), (5.0, "5 mm/mV"), (1000.0, "0.01 mm/mV")])
def test_large_numbers_are_drawn_smaller_and_it_is_said(factor: float, scale: str) -> None:
    figure = page(sine_record(500.0, 5000) * np.float32(factor))
    assert scale in words(figure)
    assert ("NOT THE STANDARD" in words(figure)) == (factor != 1.0)
    heights = np.concatenate([x[:, 1] for x in curves(figure)])
    assert heights.min() > -20 and heights.max() < figure.axes[0].get_ylim()[1] + 10


def test_zscores_are_not_called_millivolts() -> None:
    text = words(page(sine_record(500.0, 5000), unit="zscore"))
    assert "mm/SD" in text and "standard deviations" in text and "mm/mV" not in text


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 0.25])
def test_a_dead_record_can_be_drawn(value: float) -> None:
    assert page(np.full((4000, 12), value, dtype=np.float32)).axes


def test_the_caption_says_who_it_is_and_what_is_odd(checked: Checked) -> None:
    report, _ = checked
    flat = report.records[report.records["flat"] != 0].iloc[0]
    caption = check_sheet._caption(flat)
    assert str(flat["exam_id"]) in caption and "years" in caption and "AF" in caption and "flat: V4" in caption
    nobody = pd.Series({**flat.to_dict(), "age": np.nan, "is_male": pd.NA})
    assert "age unknown    sex unknown" in check_sheet._caption(nobody)


@needs_real
@pytest.mark.parametrize("name", ["code15-sample/mini", "cinc2021-sample", "code-test-annotations"])
def test_real_folders_give_a_pdf(name: str, tmp_path: Path) -> None:
    report, subject = check_path(REAL / name)
    path = write_check_sheet(report, subject, tmp_path / "check.pdf")
    n_histograms = 1 if report.n_exams else 0
    assert n_pages(path) == 1 + n_histograms + len(examples(report))
