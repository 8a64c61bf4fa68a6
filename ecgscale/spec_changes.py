"""Why a planned trial is not done: it is new, it failed, or a row like it was made from another spec.

Specs are compared field by field as JSON, so that rows of older versions can be compared too; nothing is validated.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ecgscale.results import RunRecord, Status, latest
from ecgscale.specs import TrialSpec

Kind = Literal["new", "done", "failed", "changed"]
_ABSENT = "absent"
_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Standing:
    """Where a planned trial stands against the rows."""

    kind: Kind
    changes: tuple[str, ...] = ()
    """`train.batch_size 16 → 32`: the row's value, then the planned one."""
    row: str | None = None
    """Trial id of the row that was compared with."""

    def __str__(self) -> str:
        return f"changed: {', '.join(self.changes)}" if self.kind == "changed" else self.kind


def standings(specs: Sequence[TrialSpec], records: Iterable[RunRecord]) -> dict[str, Standing]:
    """Trial id → its standing. A changed trial is one whose nearest row, of the same cell, has another identity."""
    rows = latest(records)
    by_label: dict[str, list[RunRecord]] = defaultdict(list)
    by_cell: dict[tuple[str, str, float, int], list[RunRecord]] = defaultdict(list)
    for row in rows.values():
        by_label[row.label].append(row)
        by_cell[row.arm, row.rung, row.data_fraction, row.seed].append(row)
    parsed: dict[str, dict[str, Any]] = {}
    found = {}
    for spec in specs:
        trial_id = spec.trial_id
        row_of_it = rows.get(trial_id)
        if row_of_it is not None:
            found[trial_id] = Standing("done" if row_of_it.status == Status.COMPLETED else "failed")
            continue
        like_it = by_label.get(spec.label) or by_cell.get((spec.arm, spec.rung, spec.data_fraction, spec.seed), [])
        found[trial_id] = _changed(spec, like_it, parsed) if like_it else Standing("new")
    return found


def _changed(spec: TrialSpec, like_it: Sequence[RunRecord], parsed: dict[str, dict[str, Any]]) -> Standing:
    """Against the completed row with the fewest changes, or any row if none is completed."""
    planned = spec.model_dump(mode="json")
    completed = [row for row in like_it if row.status == Status.COMPLETED]
    compared = []
    for row in completed or like_it:
        if row.trial_id not in parsed:
            parsed[row.trial_id] = _stored(row.spec)
        compared.append((spec_changes(parsed[row.trial_id], planned), row.trial_id))
    changes, trial_id = min(compared, key=lambda pair: len(pair[0]))
    return Standing("changed", changes, trial_id)


def _stored(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def spec_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields in which two specs differ, as dotted paths with both values."""
    old = _flat({name: value for name, value in before.items() if name not in after or after[name] != value})
    new = _flat({name: value for name, value in after.items() if name not in before or before[name] != value})
    names = [*new, *(name for name in old if name not in new)]
    return tuple(
        f"{name} {old.get(name, _ABSENT)} → {new.get(name, _ABSENT)}"
        for name in names
        if old.get(name) != new.get(name)
    )


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted path → JSON of the value; items of a list that are mappings go by their name, other lists are values."""
    if isinstance(value, Mapping) and value:
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}".lstrip(".")).items()}
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        named = {f"{prefix}[{item.get('name', place)}]": item for place, item in enumerate(value)}
        return {k: v for path, item in named.items() for k, v in _flat(item, path).items()}
    return {prefix: _text(value)}
