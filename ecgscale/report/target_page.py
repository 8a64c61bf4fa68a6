"""The page of a sweep over targets and heads: everything it says as one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ecgscale.figures import Chapter, Sheet, short
from ecgscale.findings import Conclusion, Verdict
from ecgscale.prediction_files import CLEAN
from ecgscale.report.captions import caption
from ecgscale.report.grid_map import TARGET, Grid, grid, in_order
from ecgscale.report.laws import failure_table, flag_words, law_tables
from ecgscale.report.origin import origin
from ecgscale.report.page import Picture, made, package_version, picture
from ecgscale.report.tables import Table
from ecgscale.report.target_captions import target_caption
from ecgscale.report.target_laws import LEVELS, LINES
from ecgscale.report.target_tables import head_tables, recalibration_table, seed_spread_table, tested, tested_table
from ecgscale.report.verdicts import Card, cards
from ecgscale.results import RunRecord, Status, latest
from ecgscale.study import Study
from ecgscale.target_findings import by_classes, families, spread_head
from ecgscale.target_study import ENSEMBLE, Progress, TargetStudy, target_study

HEADINGS = {
    "heads": "How much of the constant's error each head takes away",
    "predicted": "Predicted against true",
    "classes": "Score against the number of classes",
    "sparsification": "Are the surer predictions the better ones",
    "calibration": "Is the stated uncertainty that of the errors",
    "elsewhere": "Damaged records, later patients, other populations",
    LINES: "Laws in one variable",
}

SEEN = {Verdict.SUPPORTED: "seen", Verdict.CONTRADICTED: "not seen", Verdict.UNDECIDED: "undecided"}


@dataclass(frozen=True)
class TargetPage:
    """Everything the page says, in the order of reading."""

    study: TargetStudy
    question: str
    facts: tuple[tuple[str, str], ...]
    other: str
    """The page of the other paradigms of the same folder; empty if there is none."""
    cards: tuple[Card, ...]
    words: Mapping[Verdict, str]
    heads: tuple[Table, ...]
    ensembles: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    missing: tuple[str, ...]
    law_pictures: tuple[Picture, ...]
    laws: tuple[Table, ...]
    """None of them where no head has enough sizes or amounts of data."""
    flags: tuple[tuple[str, str], ...]
    grid: Grid
    diagnostics: tuple[Table, ...]
    origin: tuple[tuple[str, str], ...]
    made: str
    version: str


def target_page(
    study: TargetStudy,
    laws: Study | None,
    conclusions: Sequence[Conclusion],
    records: Sequence[RunRecord],
    found: Grid,
    sheets: Sequence[Sheet],
    other: str,
) -> TargetPage:
    """Args:
    laws: of the errors; see `head_laws`.
    records: every attempt at a trial on a target.
    sheets: of all figures, written already.
    """

    def law_caption(chapter: Chapter) -> str:
        assert laws is not None
        return caption(chapter, laws, ())

    tables = (tested_table(study), seed_spread_table(study), recalibration_table(study), failure_table(records))
    return TargetPage(
        study,
        question=found.planned.question if found.planned is not None else "",
        facts=tuple(_facts(study, records, found)),
        other=other,
        cards=tuple(cards(conclusions)),
        words=SEEN,
        heads=tuple(head_tables(study)),
        ensembles=tuple(head_tables(study, ENSEMBLE)) if _has_ensembles(study) else (),
        pictures=tuple(picture(sheet, HEADINGS, target_caption) for sheet in sheets if sheet.chapter.kind != LINES),
        missing=tuple(_missing(study, laws)),
        law_pictures=tuple(picture(sheet, HEADINGS, law_caption) for sheet in sheets if sheet.chapter.kind == LINES),
        laws=tuple(law_tables(laws)) if laws is not None else (),
        flags=tuple(flag_words(laws)) if laws is not None else (),
        grid=found,
        diagnostics=tuple(table for table in tables if table is not None),
        origin=tuple(origin(records)),
        made=made(),
        version=package_version(),
    )


def planned_study(
    folder: Path, records: Sequence[RunRecord], progress: Progress = lambda _done, _of: None
) -> tuple[TargetStudy, Grid]:
    """What a results folder holds of trials on targets, as a study in the order of its sweep file, and as a grid.

    Args:
        records: every attempt at a trial on a target.

    Raises:
        EcgscaleError: no completed trial on a target, or predictions can't be read.
    """
    found = grid(folder, records, (TARGET,))
    return _as_planned(target_study(folder, records, progress=progress), found), found


def _as_planned(study: TargetStudy, found: Grid) -> TargetStudy:
    """With targets and heads in the order of the sweep file, where it can be read."""
    if found.planned is None:
        return study
    axes = found.planned.axes
    targets = in_order((t.name for t in study.targets), [target.name for target in axes.target])
    heads = in_order((n.head.name for n in study.networks), [head.name for head in axes.head])
    ordered = sorted(study.networks, key=lambda n: (targets.index(n.target.name), heads.index(n.head.name)))

    def in_rows(table: pd.DataFrame) -> pd.DataFrame:
        if table.empty:
            return table
        places = table["target"].map(targets.index), table["head"].map({name: i for i, name in enumerate(heads)})
        return table.iloc[np.lexsort([place.fillna(len(heads)) for place in reversed(places)])].reset_index(drop=True)

    return replace(
        study,
        networks=tuple(ordered),
        scores=in_rows(study.scores),
        curves=in_rows(study.curves),
        coverage=in_rows(study.coverage),
        spreads=in_rows(study.spreads),
        points=in_rows(study.points),
    )


def _has_ensembles(study: TargetStudy) -> bool:
    return any(len(files) > 1 for network in study.networks for files in network.files.values())


def _facts(study: TargetStudy, records: Sequence[RunRecord], found: Grid) -> Iterator[tuple[str, str]]:
    done = [r for r in latest(records).values() if r.status == Status.COMPLETED]
    yield "trials done", f"{len(done)} of {len(found.progress.trials)}"
    yield "targets", ", ".join(target.name for target in study.targets)
    yield "heads", str(len(study.heads))
    yield "seeds per cell", str(len({r.seed for r in done}))
    yield "parameters N", _span([r.n_params for r in done])
    yield "records D", _span([r.n_records for r in done])
    yield "trained on", study.train_on
    counts = [
        n
        for (population, part), of in tested(study).items()
        if population == study.train_on and part == "test"
        for n in of.values()
    ]
    if counts:
        records_, patients = ([n[i] for n in counts] for i in (0, 1))
        yield "test records", _span(records_)
        yield "test patients", _span(patients)


def _span(values: Sequence[int]) -> str:
    low, high = short(min(values), 4), short(max(values), 4)
    return low if low == high else f"{low} – {high}"


def _missing(study: TargetStudy, laws: Study | None) -> Iterator[str]:
    """What this sweep can't show, and what it would take."""
    names = [target.name for target in study.targets]
    several_seeds = _has_ensembles(study)
    if not several_seeds:
        yield "One seed: no ensemble, so that nothing is known of epistemic uncertainty but the last layer's."
    if not any(spread_head(study, f, t) for f in families(study) for t in names):
        yield "No Gaussian or quantile head: no sparsification and no calibration of a head's own spread."
    if all(
        len(by_classes(study, f, t, (k,))) < 2
        for f in families(study)
        for t in names
        for k in ("softmax", "cumulative")
    ):
        yield "No kind of head has two numbers of classes: what discretising does is not shown."
    if not any(head.kind in ("mse", "huber", "gaussian", "quantile") for head in study.heads):
        yield "No head predicts the number: predicted against true is not shown."
    if set(study.scores["population"]) == {study.train_on}:
        yield "No other population has these targets."
    if "later" not in set(study.scores["part"]):
        yield "No patients were kept for a later test (`split.later`)."
    if laws is None:
        yield f"No head has {LEVELS} sizes or {LEVELS} amounts of data: how its errors fall with them is not known."
    if set(study.scores["condition"]) == {CLEAN}:
        yield "No damaged records were predicted (`corruptions`)."
    sizes = {(n.family, n.rung, n.n_records) for n in study.networks}
    if len({family for family, *_ in sizes}) < len(sizes):
        yield "Heads and targets were scored at different sizes: the largest that each has completed."
