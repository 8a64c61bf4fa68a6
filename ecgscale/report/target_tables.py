"""The tables of a report on targets: what every head scored, how far seeds differ, what recalibration did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from ecgscale.concentrations.declared import TargetSpec
from ecgscale.data.splits import TEST
from ecgscale.figures import short
from ecgscale.laws import Estimate
from ecgscale.prediction_files import CLASSICAL, CLEAN
from ecgscale.report.tables import NOT_HELD, Table
from ecgscale.target_findings import as_estimate, estimate, families, spread_head
from ecgscale.target_study import ENSEMBLE, NETWORKS, TargetStudy

SHOWN = {
    "mae": "MAE",
    "r2": "R²",
    "slope": "slope",
    "auroc": "AUROC at cut-offs",
    "crps": "CRPS",
    "nll": "NLL",
    "covered_0.9": "coverage of 90 %",
    "width_0.9": "width of 90 %",
}

IN_UNIT = ("mae", "crps", "width_0.9")

LEFT_AS_IT_IS = "none"


def head_tables(study: TargetStudy, who: str = NETWORKS) -> Iterator[Table]:
    """Per target a row per head, of networks also of regressions on ECG features, and the constant predictor below."""
    several = len(families(study)) > 1
    rows = study.table(population=study.train_on, part=TEST, condition=CLEAN, recalibration="")
    rows = rows[rows["who"].isin((who, CLASSICAL) if who == NETWORKS else (who,))]
    rows = rows[rows["score"].isin(SHOWN)]
    suffix, seen = ("", "mean over seeds") if who == NETWORKS else ("-ensembles", "all seeds as one prediction")
    for target in study.targets:
        of_target = rows[rows["target"] == target.name]
        decimals = {score: _decimals(score, of_target) for score in SHOWN}
        cells = []
        for family, head in _in_order(study, of_target):
            own = of_target[(of_target["family"] == family) & (of_target["head"] == head)]
            name = f"{family}, {head}" if several and family else head
            cells.append((name, *(_cell(own, score, decimals[score]) for score in SHOWN)))
        cells.append(("constant", *(_constant(of_target, score, decimals[score]) for score in SHOWN)))
        cuts = f"; cut-offs {', '.join(f'{cut:g}' for cut in target.cuts)}" if target.cuts else ""
        caption = f"{target.name}, in {target.unit} ({seen}{cuts})."
        yield Table(f"heads-{target.name}{suffix}", caption, ("head", *SHOWN.values()), 1, tuple(cells))


def _in_order(study: TargetStudy, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(family, head) in the order of the sweep, then what is no head of a network."""
    there = dict.fromkeys(zip(rows["family"], rows["head"], strict=True))
    declared = [(family, head.name) for family in families(study) for head in study.heads]
    return [*(pair for pair in declared if pair in there), *(pair for pair in there if pair not in declared)]


def _decimals(score: str, rows: pd.DataFrame) -> int:
    """Two for what has no unit, else as many as give three digits in the middle of the column."""
    if score not in IN_UNIT:
        return 2
    middle = float(rows[rows["score"] == score]["value"].astype(float).median())
    return max(2 - math.floor(math.log10(middle)), 0) if middle > 0 else 2


def _cell(rows: pd.DataFrame, score: str, decimals: int) -> str:
    own = rows[rows["score"] == score]
    return NOT_HELD if own.empty else _fixed(as_estimate(own.iloc[0]), decimals)


def _constant(rows: pd.DataFrame, score: str, decimals: int) -> str:
    known = rows[rows["score"] == score]["constant"].dropna().astype(float)
    return _digits(float(known.median()), decimals) if len(known) else NOT_HELD


def _fixed(found: Estimate | None, decimals: int) -> str:
    """`0.39 [0.35, 0.43]`, without the interval where there is none."""
    if found is None:
        return NOT_HELD
    said = _digits(found.value, decimals)
    if found.low is None or found.high is None:
        return said
    return f"{said} [{_digits(found.low, decimals)}, {_digits(found.high, decimals)}]"


def _digits(value: float, decimals: int) -> str:
    said = f"{value:.{decimals}f}"
    return said.replace("-", "−") if float(said) else said.removeprefix("-")


def seed_spread_table(study: TargetStudy) -> Table | None:
    """Standard deviations between seeds, as a share of the mean; None if no cell has two."""
    rows = study.table(
        population=study.train_on, part=TEST, condition=CLEAN, who=NETWORKS, recalibration="", score="mae"
    )
    rows = rows[rows["seed_sd"].notna()]
    if rows.empty:
        return None
    several = len(families(study)) > 1
    cells = []
    for family, head in _in_order(study, rows):
        own = rows[(rows["family"] == family) & (rows["head"] == head)].set_index("target")
        relative = 100 * own["seed_sd"].astype(float) / own["value"].astype(float)
        shares = [f"{relative[t.name]:.2g} %" if t.name in relative else NOT_HELD for t in study.targets]
        cells.append((f"{family}, {head}" if several else head, *shares))
    caption = "Standard deviation of the MAE between seeds, as a share of their mean."
    return Table("seeds", caption, ("head", *(t.name for t in study.targets)), 1, tuple(cells))


def recalibration_table(study: TargetStudy) -> Table | None:
    """The spread head of every target before and after; None if nothing has a spread."""
    columns = {
        "covered_0.5": "coverage of 50 %",
        "covered_0.8": "of 80 %",
        "covered_0.9": "of 90 %",
        "covered_0.95": "of 95 %",
        "width_0.9": "width of 90 %",
        "crps": "CRPS",
        "nll": "NLL",
        "error_over_sd": "error / sd",
    }
    cells = []
    for family in families(study):
        for target in study.targets:
            head = spread_head(study, family, target.name)
            decimals = {score: _decimals(score, study.table(target=target.name)) for score in columns}
            for name in ("", "variance", "isotonic", "conformal"):
                found = [
                    estimate(study, family, target.name, head or "", score, who=ENSEMBLE, recalibration=name)
                    for score in columns
                ]
                if any(found):
                    said = [_fixed(e, decimals[score]) for score, e in zip(columns, found, strict=True)]
                    cells.append((target.name, f"{family}, {head}", name or LEFT_AS_IT_IS, *said))
    if not cells:
        return None
    caption = (
        "Recalibration, fitted on validation records and scored on test records; all seeds as one prediction. Error / "
        "sd: 1 is honest, above 1 overconfident."
    )
    return Table("recalibration", caption, ("target", "head", "recalibration", *columns.values()), 3, tuple(cells))


def tested(study: TargetStudy) -> Mapping[tuple[str, str], Mapping[str, tuple[int, int]]]:
    """(population, part) → target → numbers of records and patients, undamaged."""
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for target in study.targets:
        network = next(n for n in study.networks if n.target == target)
        for population in network.files:
            records = network.predictions(population)[0].records
            for part, own in records[records["condition"] == CLEAN].groupby("part", sort=False):
                counts = len(own), own["patient_id"].nunique()
                found.setdefault((population, str(part)), {})[target.name] = counts
    return found


def tested_table(study: TargetStudy) -> Table:
    rows = [
        (
            population,
            part,
            *(_counted(counts.get(target.name)) for target in study.targets),
        )
        for (population, part), counts in tested(study).items()
    ]
    caption = "Records and patients with a value, of which predictions were asked."
    return Table("tested", caption, ("population", "part", *_names(study.targets)), 2, tuple(rows))


def printed_tables(study: TargetStudy) -> tuple[Table, ...]:
    """What LaTeX is given."""
    diagnostics = (seed_spread_table(study), recalibration_table(study))
    return (*head_tables(study), *(table for table in diagnostics if table is not None))


def _names(targets: Sequence[TargetSpec]) -> list[str]:
    return [target.name for target in targets]


def _counted(counts: tuple[int, int] | None) -> str:
    return NOT_HELD if counts is None else f"{short(counts[0], 6)} of {short(counts[1], 6)} patients"
