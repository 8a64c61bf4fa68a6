"""Where the numbers come from: code, versions, devices and records of all attempts, as rows of a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ecgscale.report.tables import NOT_HELD
from ecgscale.results import RunRecord

MOST_NAMED = 6


def origin(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(what, value), of every attempt, failed ones included. Nothing in it names a machine or a folder."""
    hours: dict[str, float] = {}
    for record in records:
        threads = record.threads if record.device == "cpu" else 1
        hours[record.device] = hours.get(record.device, 0.0) + record.wall_s * threads / 3600
    starts = [record.started_at for record in records]
    commits = [f"{(r.git_commit or 'unknown')[:10]}{' + changes' if r.git_dirty else ''}" for r in records]
    return [
        (
            "started",
            f"{min(starts):%Y-%m-%d %H:%M} to {max(starts):%Y-%m-%d %H:%M} UTC" if starts else NOT_HELD,
        ),
        ("attempts", _attempts(records)),
        ("device", "; ".join(f"{device}: {_hours(spent, device)}" for device, spent in hours.items())),
        ("machines", str(len({r.host for r in records if r.host})) if any(r.host for r in records) else NOT_HELD),
        (
            "commits",
            _counted(commits),
        ),
        ("versions", _versions(records)),
        ("CUDA, driver", _counted(f"{r.cuda_version}, {r.driver_version}" for r in records if r.cuda_version)),
        ("sweep as read", _counted(r.config_hash for r in records if r.config_hash)),
        ("records", _fingerprints(records)),
        ("row format", _counted(f"version {r.schema_version}" for r in records)),
        ("commands", _counted(_command(r.argv) for r in records if r.argv)),
    ]


def _attempts(records: Sequence[RunRecord]) -> str:
    by_status = Counter(record.status for record in records)
    told = f"{len(records)} at {len({r.trial_id for r in records})} trials: "
    told += ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in by_status.most_common())
    resumed = sum(bool(record.n_resumes) for record in records)
    return told + (f"; {resumed} continued from a checkpoint" if resumed else "")


def _hours(hours: float, device: str) -> str:
    unit = "core hours" if device == "cpu" else "hours"
    return f"{hours:.3g} {unit}"


def _counted(values: Iterable[str | None]) -> str:
    """Each value once, the commonest first; how often, if there are several."""
    found = Counter(value for value in values if value).most_common()
    if not found:
        return NOT_HELD
    if len(found) == 1:
        return str(found[0][0])
    named = [f"{value} ({n})" for value, n in found[:MOST_NAMED]]
    return ", ".join(named) + (f", {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else "")


def _versions(records: Sequence[RunRecord]) -> str:
    found: dict[str, Counter[str]] = {}
    for record in records:
        for package, version in _json(record.versions).items():
            found.setdefault(package, Counter())[str(version)] += 1
    return ", ".join(f"{package} {_either(versions)}" for package, versions in sorted(found.items())) or NOT_HELD


def _either(versions: Counter[str]) -> str:
    return " or ".join(version for version, _ in versions.most_common())


def _fingerprints(records: Sequence[RunRecord]) -> str:
    """Population → what its records hash to; several of one population are trials on different records."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        for population, fingerprint in _json(record.data_fingerprint).items():
            found.setdefault(population, Counter())[str(fingerprint)] += 1
    return "; ".join(f"{name} {_counted(prints.elements())}" for name, prints in sorted(found.items())) or NOT_HELD


def _command(argv: str | None) -> str:
    try:
        words = json.loads(argv or "[]")
    except ValueError:
        return ""
    return " ".join(map(str, words))


def _json(text: str) -> dict[str, Any]:
    """What older rows left out is not there."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
