"""The check as a PDF: findings in words, histograms, and example tracings on ECG paper, one page each.

Paper is true to scale: printed at 100 %, 25 mm are a second and 10 mm a millivolt, as on a clinical printout. It judges
nothing; what is wrong is in the report.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.findings import Finding
from ecgscale.data.limb_leads import CONTRADICTION
from ecgscale.data.measurement import leads_of, recorded_part
from ecgscale.data.quality import CheckReport, Subject
from ecgscale.data.signal_findings import AMPLITUDE_MV, SWAPPED_CABLES, lead_counts
from ecgscale.errors import DataError
from ecgscale.figures import HUES, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Signal = NDArray[np.float32]

MM = 1 / 25.4
PAGE_MM = (297.0, 210.0)
"""A4, landscape: the size of a clinical printout."""

MM_PER_S = 25.0
GAINS_MM = (10.0, 5.0, 2.5)
"""Millimetres per millivolt: the standard, and what clinicians fall back to when a tracing does not fit."""

SHOWN_S = 10.0
LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM = "II"

_PAPER_MM = (270.0, 170.0)
_PAPER_LEFT_MM, _PAPER_BOTTOM_MM = 13.5, 12.0
_PULSE_MM = 8.0
_ROW_MM = 40.0
_FIRST_ROW_MM = 144.0
_HIGHEST_MM = 34.0
_SMALL_GRID, _LARGE_GRID = "#f7d4d4", "#eaa3a3"
_INK = "#101018"
_COLOURS = {"error": "#B2182B", "warning": "#B26A00", "info": "#3B5B7A"}
_MOST_LABEL_EXAMPLES, _MOST_FINDING_EXAMPLES = 6, 8
_LINES_PER_PAGE = 44
_MANY = 100


@dataclass(frozen=True)
class _Example:
    """A record to draw, and why."""

    key: int
    why: str
    colour: str = _INK


def write_check_sheet(report: CheckReport, subject: Subject, path: Path) -> Path:
    """Writes the PDF.

    Args:
        report: The outcome of `check`.
        subject: What was checked: the example tracings are read from it again.
        path: The PDF; replaced whole or not at all.

    Raises:
        DataError: The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_pdf import PdfPages

    building = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # no creation date: the same folder gives the same bytes
        with plt.rc_context(STYLE), PdfPages(building, metadata={"CreationDate": None}) as pages:
            for figure in _pages(report, subject):
                pages.savefig(figure)
                plt.close(figure)
        os.replace(building, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); choose another place for the PDF") from error
    finally:
        building.unlink(missing_ok=True)
    return path


def examples(report: CheckReport) -> list[_Example]:
    """The records worth drawing: a typical one, one per label, and one per kind of error or warning."""
    records = report.records
    sound = records[records["reason"] == ""]
    faultless = sound[(sound["flat"] == 0) & (sound["clipped"] == 0) & (sound["cables"] == "")]
    chosen: list[_Example] = []
    if len(faultless):
        chosen.append(_Example(_typical(faultless), "typical: median amplitude of lead II"))
    for label in [x for x in CODE_LABELS if report.labels.get(x)][:_MOST_LABEL_EXAMPLES]:
        labelled = sound[sound[label]]
        if len(labelled):
            chosen.append(_Example(_typical(labelled), f"label {label}"))
    shown = [finding for finding in report.findings if finding.severity != "info" or finding.what == SWAPPED_CABLES]
    faults = [finding for finding in shown if finding.exam_ids]
    for finding in faults[:_MOST_FINDING_EXAMPLES]:
        key = _key_of(records, finding)
        chosen.append(_Example(key, f"{finding.severity}: {finding.what}", _COLOURS[finding.severity]))
    return chosen


def _typical(records: pd.DataFrame) -> int:
    """The record whose amplitude is nearest to the median."""
    distance = (records["amplitude"] - records["amplitude"].median()).abs().fillna(np.inf)
    return int(str(distance.index[int(distance.to_numpy().argmin())]))


def _key_of(records: pd.DataFrame, finding: Finding) -> int:
    return int(str(records.index[(records["exam_id"] == finding.exam_ids[0]).to_numpy()][0]))


def _row(report: CheckReport, key: int) -> pd.Series[Any]:
    return report.records.iloc[int(np.flatnonzero(report.records.index == key)[0])]


def _pages(report: CheckReport, subject: Subject) -> Iterator[Figure]:
    yield from _summary(report)
    if len(report.records):
        yield _histograms(report)
    for example in examples(report):
        try:
            signal, fs_hz = subject.recording(example.key)
        except DataError:  # readable a moment ago; the other examples still are
            continue
        yield ecg_page(signal, fs_hz, unit=report.unit, caption=_caption(_row(report, example.key)), why=example)


# --- the summary ---------------------------------------------------------------------------------------------------


def _summary(report: CheckReport) -> Iterator[Figure]:
    """The facts and the findings in words, on as many pages as they need."""
    lines = [*_fact_lines(report), ("", "", _INK), *_finding_lines(report)]
    for start in range(0, len(lines), _LINES_PER_PAGE):
        figure = _page()
        n_worst = {x: sum(f.severity == x for f in report.findings) for x in _COLOURS}
        counts = ", ".join(f"{n} {x}{'s' if n > 1 and x != 'info' else ''}" for x, n in n_worst.items() if n)
        figure.text(0.06, 0.94, f"Check of {report.name}", fontsize=14, weight="bold", va="top")
        figure.text(0.06, 0.895, f"{report.kind}: {counts or 'nothing to report'}", fontsize=9, va="top")
        for k, (head, text, colour) in enumerate(lines[start : start + _LINES_PER_PAGE]):
            y = 0.85 - 0.0182 * k
            figure.text(0.06, y, head, fontsize=8, weight="bold", color=colour, va="top")
            figure.text(0.18, y, text, fontsize=8, va="top", color=colour if not text.startswith(" ") else _INK)
        yield figure


def _fact_lines(report: CheckReport) -> Iterator[tuple[str, str, str]]:
    for name, text in report.facts():
        for k, line in enumerate(textwrap.wrap(text, 150) or [""]):
            yield (name if k == 0 else "", line, _INK)


def _finding_lines(report: CheckReport) -> Iterator[tuple[str, str, str]]:
    if not report.findings:
        yield ("sound", "No finding: units, limb leads, lengths, patients and labels are as they should be.", _INK)
    for finding in report.findings:
        count = f" ({finding.n_exams:,} records)" if finding.n_exams else ""
        yield (finding.severity, f"{finding.what}{count}", _COLOURS[finding.severity])
        named = finding.records or finding.exam_ids
        few = finding.severity != "info" and named and len(named) < report.n_exams
        here = f" Records: {', '.join(map(str, named[:8]))}{', …' if finding.n_exams > 8 else '.'}" if few else ""
        for line in textwrap.wrap(finding.detail + here, 150):
            yield ("", f"  {line}", _INK)


# --- histograms ----------------------------------------------------------------------------------------------------


def _histograms(report: CheckReport) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure = _page()
    figure.suptitle(f"{report.name}: {report.n_exams:,} records", fontsize=9)
    panels: list[Axes] = list(figure.subplots(2, 3, gridspec_kw={"hspace": 0.35, "wspace": 0.25}).ravel())
    figure.subplots_adjust(left=0.07, right=0.97, top=0.9, bottom=0.08)
    records = report.records
    sound = records[records["reason"] == ""]
    _draw_amplitudes(panels[0], sound, report)
    _draw_lengths(panels[1], sound)
    _draw_ages(panels[2], records)
    _draw_limb_leads(panels[3], sound, report)
    _draw_labels(panels[4], report)
    _draw_lead_faults(panels[5], sound)
    for panel in (panels[0], panels[2], panels[3], panels[5]):
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_amplitudes(axis: Axes, sound: pd.DataFrame, report: CheckReport) -> None:
    values = sound["amplitude"].to_numpy(dtype=float)
    values = values[values > 0]
    unit = "SD" if report.unit == "zscore" else "mV"
    axis.set_title(f"amplitude of lead II, {unit}")
    if not len(values):
        return _nothing(axis)
    low, high = np.quantile(values, (0.005, 0.995))
    spread = max(high / low, 1.2)
    axis.hist(np.clip(values, low, high), bins=list(np.geomspace(low, low * spread, 40)), color=HUES[0])
    axis.axvline(float(np.median(values)), color="black", linewidth=0.8)
    axis.set_xlabel(f"median {np.median(values):.3g} {unit}" + (", expected range shaded" if unit == "mV" else ""))
    if unit == "mV":
        axis.axvspan(*AMPLITUDE_MV, color=HUES[2], alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    _plain_numbers(axis)
    return None


def _draw_lengths(axis: Axes, sound: pd.DataFrame) -> None:
    axis.set_title("length without padding, s")
    if sound.empty:
        return _nothing(axis)
    length_s = (sound["n_samples"] / sound["fs_hz"]).to_numpy(dtype=float)
    longest = max(12.0, float(length_s.max()) * 1.02)
    axis.hist(length_s, bins=list(np.linspace(0, longest, 60)), color=HUES[0])
    if len(length_s) > _MANY:  # nearly all have the usual length; the few others are what to look at
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.7)
    return None


def _draw_ages(axis: Axes, records: pd.DataFrame) -> None:
    axis.set_title("age, years")
    ages, bins = records["age"], list(range(0, 125, 5))
    if not ages.notna().any():
        return _nothing(axis)
    sex = records["is_male"].astype("boolean")
    for k, (name, chosen) in enumerate((("women", ~sex), ("men", sex), ("unknown", sex.isna()))):
        there = ages[chosen.fillna(False).to_numpy(dtype=bool)].dropna()
        if len(there):
            axis.hist(np.clip(there, 0, 120), bins=bins, histtype="step", color=HUES[k], label=f"{name} {len(there):,}")
    axis.legend()
    return None


def _draw_limb_leads(axis: Axes, sound: pd.DataFrame, report: CheckReport) -> None:
    axis.set_title("limb leads: residual of Einthoven's and Goldberger's relations")
    if report.einthoven is None:
        return _nothing(axis, "no relations between z-scored leads")
    values = np.clip(sound["limb_residual"].to_numpy(dtype=float), 1e-4, 2.0)
    axis.hist(values, bins=list(np.geomspace(1e-4, 2.0, 45)), color=HUES[0])
    axis.axvline(CONTRADICTION, color=HUES[1], linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel(f"0 is perfect; contradiction above {CONTRADICTION:g}")
    return None


def _draw_labels(axis: Axes, report: CheckReport) -> None:
    axis.set_title("labels, % of records")
    labels = dict(list(report.labels.items())[:20])
    if not labels:
        return _nothing(axis, "no labels")
    shares = [100 * n / report.n_exams for n in labels.values()]
    places = np.arange(len(labels))[::-1]
    axis.barh(places, shares, color=HUES[0])
    for place, share, count in zip(places, shares, labels.values(), strict=True):
        axis.text(share, place, f" {count:,}", va="center", fontsize=6)
    axis.set_yticks(places, list(labels))
    axis.margins(x=0.15)
    return None


def _draw_lead_faults(axis: Axes, sound: pd.DataFrame) -> None:
    axis.set_title("flat and clipped leads, records")
    counts = {name: list(lead_counts(sound, name).values()) for name in ("flat", "clipped")}
    if not any(map(any, counts.values())):
        return _nothing(axis, "none")
    for k, (name, heights) in enumerate(counts.items()):
        axis.bar(np.arange(12) + 0.4 * k - 0.2, heights, width=0.4, color=HUES[k], label=name)
    axis.set_xticks(np.arange(12), LEADS)
    axis.legend()
    return None


def _nothing(axis: Axes, why: str = "nothing to show") -> None:
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color="#666666")
    axis.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)


def _plain_numbers(axis: Axes) -> None:
    """0.5, 1, 2 and not powers of ten: amplitudes span less than a decade or two."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


# --- ECG paper -----------------------------------------------------------------------------------------------------


def ecg_page(signal: Signal, fs_hz: float, *, unit: str, caption: str, why: _Example) -> Figure:
    """One record on ECG paper: twelve leads in three rows of four columns and lead II as rhythm strip.

    The columns follow each other in time, as on a printout; each lead is drawn about its own median.

    Args:
        signal: (time, lead) in standard order; padding is cut off, NaN are gaps.
        fs_hz: Sampling rate.
        unit: "mV" or "zscore".
        caption: Who it is.
        why: Why it is shown.
    """
    shown = _shown_part(signal, fs_hz)
    strips = list(_strips(shown))
    gain_mm = _gain_mm(strips)
    name = "SD" if unit == "zscore" else "mV"
    figure = _page()
    left, right = _PAPER_LEFT_MM / PAGE_MM[0], 1 - _PAPER_LEFT_MM / PAGE_MM[0]
    figure.text(left, 0.955, why.why, fontsize=10, weight="bold", va="top", color=why.colour)
    figure.text(left, 0.915, caption, fontsize=8, va="top")
    scale = f"{MM_PER_S:g} mm/s    {gain_mm:.3g} mm/{name}"
    figure.text(right, 0.955, scale, fontsize=9, va="top", ha="right", weight="bold")
    remarks = ["each lead about its own median", f"{len(shown) / fs_hz:.3g} s of {len(signal) / fs_hz:.4g} s shown"]
    remarks += ["z-scored: standard deviations, not millivolts"] * (unit == "zscore")
    remarks += ["NOT THE STANDARD 10 mm/mV"] * (unit != "zscore" and gain_mm != GAINS_MM[0])
    figure.text(right, 0.915, "; ".join(remarks), fontsize=7, va="top", ha="right")
    axis = _paper(figure)
    for row in range(len(LAYOUT) + 1):
        _draw_pulse(axis, _FIRST_ROW_MM - _ROW_MM * row, gain_mm, name if row == 0 else "")
    for strip in strips:
        _draw_strip(axis, strip, fs_hz, gain_mm)
    return figure


@dataclass(frozen=True, eq=False)
class _Strip:
    """A piece of one lead: from sample `start` on, in a row of the page, about its median."""

    lead: str
    row: int
    start: int
    samples: NDArray[np.float32]


def _strips(shown: Signal) -> Iterator[_Strip]:
    """Three rows of four leads, each a quarter of the time, and the rhythm strip over all of it."""
    edges = np.linspace(0, len(shown), 5).round().astype(int)
    places = [(row, column, lead) for row, leads in enumerate(LAYOUT) for column, lead in enumerate(leads)]
    pieces = [(row, lead, edges[column], edges[column + 1]) for row, column, lead in places]
    for row, lead, start, stop in [*pieces, (len(LAYOUT), RHYTHM, 0, len(shown))]:
        samples = shown[start:stop, LEADS.index(lead)]
        finite = samples[np.isfinite(samples)]
        middle = np.median(finite) if len(finite) else np.float32(0)
        yield _Strip(lead, row, int(start), samples - middle)


def _shown_part(signal: Signal, fs_hz: float) -> Signal:
    """The middle ten seconds of what was recorded; all of a record without any signal."""
    part = recorded_part(np.nan_to_num(signal, nan=1.0, posinf=1.0, neginf=1.0))
    recorded = signal[part] if part.stop - part.start > 1 else signal
    surplus = max(0, len(recorded) - round(SHOWN_S * fs_hz))
    return recorded[surplus // 2 : len(recorded) - (surplus - surplus // 2)]


def _gain_mm(strips: Sequence[_Strip]) -> float:
    """10 mm/mV if the waves fit between the rows, else less, as clinicians do; far less for what are no millivolts.

    A wave may reach into the next row, as it does on printouts, but not further.
    """
    heights = [np.abs(strip.samples[np.isfinite(strip.samples)]) for strip in strips]
    height = max((float(np.quantile(x, 0.998)) for x in heights if len(x)), default=0.0)
    for gain in GAINS_MM:
        if not height * gain > _HIGHEST_MM:
            return gain
    return float(10.0 ** np.floor(np.log10(_HIGHEST_MM / height)))


def _draw_strip(axis: Axes, strip: _Strip, fs_hz: float, gain_mm: float) -> None:
    level = _FIRST_ROW_MM - _ROW_MM * strip.row
    x = 2 + _PULSE_MM + MM_PER_S * (strip.start + np.arange(len(strip.samples))) / fs_hz
    height_mm = np.clip(gain_mm * strip.samples, -_HIGHEST_MM, _HIGHEST_MM)
    axis.plot(x, level + height_mm, color=_INK, linewidth=0.7, solid_joinstyle="round")
    if strip.start:
        axis.plot([x[0], x[0]], [level - 3, level + 3], color=_INK, linewidth=0.6)
    axis.text(x[0] + 1.2, level + 12.5, strip.lead, fontsize=8, weight="bold", color=_INK)


def _draw_pulse(axis: Axes, level_mm: float, gain_mm: float, unit: str) -> None:
    """The calibration pulse: 1 mV for 0.2 s; at unusual gains 10 mm, and what they are."""
    size = 1.0 if gain_mm >= GAINS_MM[-1] else 10.0 / gain_mm
    top = level_mm + gain_mm * size
    x = [1.5, 2.5, 2.5, 7.5, 7.5, 8.5]
    axis.plot(x, [level_mm, level_mm, top, top, level_mm, level_mm], color=_INK, linewidth=0.7)
    if unit:
        axis.text(5.0, top + 1.0, f"{size:g} {unit}", fontsize=6, ha="center", color=_INK)


def _paper(figure: Figure) -> Axes:
    """Axes in millimetres with the grid of ECG paper: a thin line every millimetre, a strong one every five."""
    width, height = _PAPER_MM
    place = (_PAPER_LEFT_MM / PAGE_MM[0], _PAPER_BOTTOM_MM / PAGE_MM[1], width / PAGE_MM[0], height / PAGE_MM[1])
    axis = figure.add_axes(place)
    axis.set_xlim(0, width)
    axis.set_ylim(0, height)
    axis.set_xticks([])
    axis.set_yticks([])
    for step, colour, line_width in ((1, _SMALL_GRID, 0.25), (5, _LARGE_GRID, 0.5)):
        axis.vlines(np.arange(0, width + 1, step), 0, height, color=colour, linewidth=line_width, zorder=0)
        axis.hlines(np.arange(0, height + 1, step), 0, width, color=colour, linewidth=line_width, zorder=0)
    for spine in axis.spines.values():
        spine.set(visible=True, color=_LARGE_GRID, linewidth=0.5)
    return axis


def _caption(record: pd.Series[Any]) -> str:
    """Exam, age, sex, labels, and what was measured out of the ordinary."""
    name = str(record["record"]) if "record" in record.index else str(record["exam_id"])
    exam = f"exam {record['exam_id']}" if name == str(record["exam_id"]) else f"{name} (exam {record['exam_id']})"
    age = "age unknown" if pd.isna(record["age"]) else f"{record['age']:g} years"
    sex = "sex unknown" if pd.isna(record["is_male"]) else "male" if record["is_male"] else "female"
    true = [str(x) for x, value in record.items() if isinstance(value, (bool, np.bool_)) and value and x != "is_male"]
    return "    ".join([exam, age, sex, ", ".join(true) or "no label", *_out_of_the_ordinary(record)])


def _out_of_the_ordinary(record: pd.Series[Any]) -> Iterator[str]:
    for column in ("flat", "clipped"):
        if record[column]:
            yield f"{column}: {', '.join(leads_of(int(record[column])))}"
    if record["limb_residual"] > CONTRADICTION and record["scaled"] != "zscore":
        yield f"residual of the limb leads {record['limb_residual']:.0%}"
    if record["cables"]:
        yield f"perhaps swapped: {record['cables']}"


def _page() -> Figure:
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(PAGE_MM[0] * MM, PAGE_MM[1] * MM))
