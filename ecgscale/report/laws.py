"""The laws as tables, and what says how far to trust them: flags, residuals, hold-out, the spread of seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ecgscale.figures import between, short, slug
from ecgscale.fitted import Fitted
from ecgscale.report.grid_map import as_fraction
from ecgscale.report.tables import NOT_HELD, Table
from ecgscale.results import RunRecord, Status, latest
from ecgscale.study import JOINT, Study

PARAMETERS = {"E": "E", "A": "A", "alpha": "α", "B": "B", "beta": "β", "k": "k"}
PAIR_PARAMETERS = {"K": "K", "kappa": "κ", "E0": "E0", "E1": "E1"}

EXPONENT_OF = {"A": "alpha", "B": "beta", "K": "kappa"}

FORMS = {"chinchilla": "", "power": ", no floor", "power_floor": ", floor", "shifted_power": ""}
"""What a form adds to the kind of the law; every other form is called by its name."""

FLAGS = {
    "too_few_levels": "two levels of an axis can't tell coefficient, exponent and floor apart",
    "narrow_axis": "an axis spans less than a factor of two",
    "at_bound": "the best value lies at the edge of what is allowed; for E: the data show no saturation",
    "floor_above_data": "the floor is not below the smallest loss",
    "no_effect": "the term of that variable is a ten-thousandth of the loss or less",
    "runaway": "an exponent steeper than 3",
    "ill_conditioned": "parameters move together; only their combination is known",
    "unidentified": "the interval spans too much to be a number",
    "flat": "a constant explains the data as well",
    "starts_disagree": "fewer than half of the starts ended at the optimum",
    "small_sample": "fewer than 12 runs: the interval trusts the law and equal noise everywhere",
    "no_interval": "the runs can't be resampled without losing what identifies the law",
    "objectives_disagree": "another objective puts a parameter outside its interval",
    "draws_failed": "more than 1 % of the bootstrap fits did not converge",
    "draws_undefined": "in more than 1 % of the draws a loss lies at or below its floor",
    "near_floor": "the smallest loss is within 3 standard errors of the floor",
}
"""As docs/fitting.md has them, for the reader of a page."""


def law_tables(study: Study, *, coefficients: bool = False) -> list[Table]:
    """One table per target, then that of the loss-to-loss laws.

    Args:
        coefficients: A, B and K, too; a page has no room for them.
    """
    single, double = (
        {name: symbol for name, symbol in symbols.items() if coefficients or name not in EXPONENT_OF}
        for symbols in (PARAMETERS, PAIR_PARAMETERS)
    )
    table = study.law_table()
    between_losses = table["kind"] == "loss-to-loss"
    made = [
        _law_table(f"laws-{slug(str(target))}", f"Laws of the loss, {target}.", rows, single, ["arm", "law"])
        for target, rows in table[~between_losses].groupby("target", sort=False)
    ]
    pairs = table[between_losses]
    if len(pairs):
        caption = "Laws from loss to loss, L1 = K·(L0 − E0)^κ + E1, and the slope of the logs, which needs no floor."
        made.append(_law_table("laws-loss-to-loss", caption, pairs, double, ["losses", "arm"]))
    return made


def _law_table(name: str, caption: str, rows: pd.DataFrame, symbols: dict[str, str], labels: list[str]) -> Table:
    shown = [p for p in symbols if p in rows and rows[p].notna().any()]
    slope = ["slope"] if "slope" in rows and rows["slope"].notna().any() else []
    columns = (*labels, *(symbols[p] for p in shown), *slope, "runs", "flags")
    lines = []
    for row in rows.to_dict("records"):
        own = {"arm": str(row["group"]), "law": f"{row['kind']}{_form(row['law'])}", "losses": str(row["target"])}
        slopes = [_known(row["slope"])] if slope else []
        remark = row["refused"] if isinstance(row["refused"], str) else _whole_fit(row.get("flags"))
        cells = [*(own[label] for label in labels), *(_parameter(row, p) for p in shown), *slopes, str(row["points"])]
        lines.append((*cells, remark))
    return Table(name, caption, columns, len(labels), tuple(lines)).without_empty_columns()


def _form(law: str) -> str:
    return FORMS.get(law, f", {law}")


def _parameter(row: dict[Any, Any], name: str) -> str:
    """Empty where the law has no such parameter, a dash where the points don't hold it."""
    if not isinstance(row[name], float) or math.isnan(row[name]):
        return ""
    exponent = EXPONENT_OF.get(name, name)  # without it a coefficient is a number without a unit
    if row.get(f"{name}_held") is not True or row.get(f"{exponent}_held", True) is not True:
        return NOT_HELD
    ends = [row.get(f"{name}_{end}") for end in ("low", "high")]
    known = [end if isinstance(end, float) and not math.isnan(end) else None for end in ends]
    return between(row[name], *known)


def _known(value: Any) -> str:
    return short(value) if isinstance(value, float) and math.isfinite(value) else ""


def _whole_fit(flags: Any) -> str:
    """Those about one parameter show as a dash in its column; all are in laws.csv."""
    found = flags.split() if isinstance(flags, str) else []
    return ", ".join(flag for flag in found if ":" not in flag and flag != "unidentified")


def flag_words(study: Study) -> list[tuple[str, str]]:
    """(flag, meaning) for those that are up somewhere in the study."""
    fits = [f.fit for f in (*study.laws, *study.task_laws, *study.label_laws)] + [p.fit for p in study.pairs]
    up = {part for fit in fits if fit is not None for flag in fit.flags for part in flag.split(":")}
    return [(flag, words) for flag, words in FLAGS.items() if flag in up]


# --- how far to trust them -----------------------------------------------------------------------------------------


def trust_table(study: Study) -> Table:
    """One row per joint law: how far runs lie from it, and how well it predicts levels that it has not seen."""
    rows = [
        (f.group, f.target, *_spread(f), *_held_out(f, "N"), *_held_out(f, "D"))
        for f in study.laws
        if f.kind == JOINT and f.fit is not None
    ]
    columns = ("arm", "target", "95 % of residuals", "N: law", "best so far", "D: law", "best so far")
    caption = (
        "Residuals of L(N, D), and its mean error on larger sizes (N) and on more records (D) than it was fitted to, "
        "beside that of predicting the best loss so far."
    )
    return Table("trust", caption, columns, 2, tuple(rows))


def _spread(fitted: Fitted) -> tuple[str]:
    residuals = fitted.fit.residuals if fitted.fit is not None else None
    if residuals is None:
        return (NOT_HELD,)
    return (f"±{_percent(float(np.quantile(np.abs(residuals), 0.95)))}",)


def _held_out(fitted: Fitted, axis: str) -> tuple[str, str]:
    held = next((h for h in fitted.held_out if h.axis == axis), None)
    if held is None or math.isnan(held.error["law"]):
        return NOT_HELD, NOT_HELD
    return _percent(held.error["law"]), _percent(held.error["best_so_far"])


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def seed_table(records: Iterable[RunRecord]) -> Table | None:
    """Per arm: by how much the loss of one cell differs between seeds; None if no cell has two."""
    cells: dict[tuple[str, int, str, float], list[float]] = defaultdict(list)
    for r in latest(records).values():
        if r.status == Status.COMPLETED and r.id_loss is not None:
            cells[r.arm, r.n_labels, r.rung, r.data_fraction].append(r.id_loss)
    spreads: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (arm, _, rung, share), losses in cells.items():
        if len(losses) > 1:
            relative = float(np.std(losses, ddof=1) / np.mean(losses))
            spreads[arm].append((relative, f"{rung}, {as_fraction(share)}"))
    if not spreads:
        return None
    rows = []
    for arm, found in sorted(spreads.items()):
        middle = float(np.median([spread for spread, _ in found]))
        largest, where = max(found)
        rows.append((arm, str(len(found)), _percent(middle), f"{_percent(largest)} ({where})"))
    caption = "Standard deviation of the in-distribution loss between seeds of one cell, relative to its mean."
    return Table("seeds", caption, ("arm", "cells", "median", "largest (rung, fraction)"), 1, tuple(rows))


def failure_table(records: Sequence[RunRecord]) -> Table | None:
    """Trials without a completed attempt, with the last reason; None if there are none."""
    attempts: dict[str, int] = defaultdict(int)
    for record in records:
        attempts[record.trial_id] += 1
    rows = [
        (r.label, str(r.failure_class or r.status), (r.reason or NOT_HELD).splitlines()[0], str(attempts[r.trial_id]))
        for r in latest(records).values()
        if r.status != Status.COMPLETED
    ]
    if not rows:
        return None
    return Table("failures", "Trials that did not complete.", ("trial", "class", "reason", "attempts"), 3, tuple(rows))
