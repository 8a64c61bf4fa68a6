"""Why a planned trial is not done: it is new, it failed, a row like it was made from another spec, or it is trained and
something else is to be read off its encoder.

Specs are compared field by field as JSON, so that rows of older versions can be compared too; nothing is validated.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ecgscale.results import RunRecord, Status, lacking, latest
from ecgscale.specs import TrialSpec

Kind = Literal["new", "done", "failed", "changed", "trained"]
_ABSENT = "absent"
_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Standing:
    """Where a planned trial stands against the rows."""

    kind: Kind
    changes: tuple[str, ...] = ()
    """`train.batch_size 16 → 32`: the row's value, then the planned one. Of a trained trial, those of its read-outs."""
    row: str | None = None
    """Trial id of the row that was compared with."""

    def __str__(self) -> str:
        what = {"changed": "changed", "trained": "read-outs"}.get(self.kind)
        return f"{what}: {', '.join(self.changes)}" if what is not None else self.kind


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
        if row_of_it is not None and row_of_it.status != Status.COMPLETED:
            found[trial_id] = Standing("failed")
            continue
        if row_of_it is not None and not lacking(spec, row_of_it):
            found[trial_id] = Standing("done")
            continue
        if row_of_it is not None and row_of_it.schema_version > 1:  # an older one has no encoder, and trains again
            found[trial_id] = Standing("trained", _read_out_changes(spec, row_of_it))
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


def _read_out_changes(spec: TrialSpec, row: RunRecord) -> tuple[str, ...]:
    """What is to be read out, against what was read out last; a change that several populations share, once."""
    before = {found["population"]: found for found in map(_stored, row.read_out_specs) if "population" in found}
    failed = {found.read_out for found in row.failed_read_outs}
    changes: dict[str, None] = {}
    for read_out in lacking(spec, row):
        if read_out.read_out_id in failed:
            changes[f"{read_out.population} failed"] = None
        elif read_out.population in before:
            planned = read_out.model_dump(mode="json")
            changes |= dict.fromkeys(spec_changes(before[read_out.population], planned))
        else:
            changes[f"{read_out.population} not read out"] = None
    return tuple(changes)


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
