"""What `plan` prints: the bill of every trial, what the sweep costs on k devices, and why trials are not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ecgscale.console import duration, out, print_json, si
from ecgscale.plan import CPU_CORE, GPU, GPU_MEMORY_GIB, Device, Plan, PlannedTrial
from ecgscale.roofline import Profile
from ecgscale.side_by_side import SideBySide
from ecgscale.sweep import Backlog

CPU_COUNTS = (1, 2, 8, 64)
SHOWN_TRIALS = 500
"""The costliest are listed; more than anybody reads, and a table of 10,000 takes ten seconds to lay out."""

SHOWN_CHANGES = 5
"""Kinds of change that are listed; a sweep seldom changes in more ways at once."""

_FROM = {"measured": "", "scaled": "~", "assumed": "?"}


@dataclass(frozen=True)
class Terms:
    """Attributes:
    gpu_memory_gib: of one GPU.
    price: of a device hour; None for not asked.
    gpu_counts: of which the makespan is simulated.
    """

    gpu_memory_gib: float = GPU_MEMORY_GIB
    price: float | None = None
    gpu_counts: tuple[int, ...] = (1, 8, 64)


def show_plan(backlog: Backlog, as_json: bool, terms: Terms | None = None) -> None:
    terms = terms or Terms()
    if as_json:
        print_json(plan_json(backlog, terms))
        return
    grid, plan = backlog.plan.grid, backlog.plan
    todo = {spec.trial_id for spec in backlog.todo}
    out.print(f"[bold]{grid.name}[/bold]: {grid.question}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("trial", "N", "D", "seen", "FLOPs", "memory", "GPU share", "read", "CPU core", "GPU", ""):
        table.add_column(heading, justify="left" if heading in ("trial", "") else "right", no_wrap=True)
    for cell in plan.trials[:SHOWN_TRIALS]:
        table.add_row(*_plan_row(cell, terms), _state(backlog, todo, cell.spec.trial_id))
    out.print(table)
    if len(plan.trials) > SHOWN_TRIALS:
        out.print(f"and {len(plan.trials) - SHOWN_TRIALS} that cost less; --json lists them")
    progress = "" if backlog.n_done is None else f", {backlog.n_done} done, {len(backlog.todo)} to run"
    progress += f", {len(backlog.diverged)} diverged and not tried again" if backlog.diverged else ""
    out.print(
        f"{len(plan.trials)} trials{progress}; "
        f"N {si(min(c.n_params for c in plan.trials))}–{si(max(c.n_params for c in plan.trials))}, "
        f"D {min(s.n_records for s in plan.specs):,}–{max(s.n_records for s in plan.specs):,} records, "
        f"{si(sum(c.train_flops for c in plan.trials))}FLOPs, {si(sum(c.bytes_read for c in plan.trials))}B read, "
        f"at most {max(c.memory_bytes for c in plan.trials) / 2**30:.1f} GiB per trial"
    )
    _show_changes(backlog)
    _show_how(plan)
    for device, counts in ((CPU_CORE, CPU_COUNTS[:2]), (GPU, terms.gpu_counts)):
        _show_schedule(plan, device, counts, terms)


def _show_schedule(plan: Plan, device: Device, counts: tuple[int, ...], terms: Terms) -> None:
    schedules = {k: plan.schedule(k, device, terms.gpu_memory_gib) for k in counts}
    spans = ", ".join(f"{duration(found.makespan_s)} on {k}" for k, found in schedules.items())
    first = schedules[counts[0]]
    longest = max(plan.trials, key=lambda cell: cell.seconds(device))
    hours = first.device_s / 3600
    cost = f", {hours * terms.price:,.2f} at {terms.price:g} an hour" if terms.price is not None else ""
    out.print(f"makespan, {device.name} each: {spans}  [dim]({_source(plan, device)})[/dim]")
    out.print(f"  {hours:.3g} device hours{cost}; longest trial {longest.spec.label}, {duration(first.critical_s)}")


def _show_how(plan: Plan) -> None:
    """What the measurements of `calibrate` decide beside times."""
    many = SideBySide.planned(plan.trials)
    groups = [group for group in many.groups(plan.specs) if len(group) > 1]
    stacks = [group for group in groups if group[0].trial_id in many.stacked]
    if streams := [group for group in groups if group[0].trial_id not in many.stacked]:
        out.print(
            f"{sum(map(len, streams))} trials side by side on {len(streams)} streams of records, at most "
            f"{max(map(len, streams))} in one process: reading and normalising are a large part of their steps here"
        )
    if stacks:
        out.print(
            f"{sum(map(len, stacks))} trials stacked, at most {max(map(len, stacks))} in one process: those of one "
            "network and task share their steps, which is faster here"
        )
    if n_compiled := sum(cell.way == "compiled" for cell in plan.trials):
        out.print(f"{n_compiled} trials with compiled encoders: they are long enough to save more than that costs")


def _source(plan: Plan, device: Device) -> str:
    """Where the times come from; the marks are those of the table."""
    counts = Counter(_origin(cell, device) for cell in plan.trials)
    if set(counts) == {"assumed"}:
        return f"?: {device.source}"
    return ", ".join(f"{counts[name]} {mark}{name}" for name, mark in _FROM.items() if counts[name])


def _origin(cell: PlannedTrial, device: Device) -> str:
    return cell.cpu_from if device is CPU_CORE else cell.gpu_from


def _show_changes(backlog: Backlog) -> None:
    """How many trials are new, done or changed, and the fields that make them so."""
    if not backlog.standings:
        return
    kinds = Counter("trained, to be read out" if s.kind == "trained" else s.kind for s in backlog.standings.values())
    order = ("done", "trained, to be read out", "new", "changed", "failed")
    out.print(", ".join(f"{kinds[kind]} {kind}" for kind in order if kinds[kind]))
    reasons = Counter(str(s) for s in backlog.standings.values() if s.changes)
    for reason, count in reasons.most_common(SHOWN_CHANGES):
        out.print(f"  {count} × {reason}", markup=False)
    if len(reasons) > SHOWN_CHANGES:
        out.print(f"  and {len(reasons) - SHOWN_CHANGES} other kinds of change; --json lists them by trial")


def _state(backlog: Backlog, todo: set[str], trial_id: str) -> str:
    if trial_id in backlog.diverged:
        return "diverged"
    if backlog.n_done is None:
        return ""
    standing = backlog.standings.get(trial_id)
    return standing.kind if standing is not None else "" if trial_id in todo else "done"


def _plan_row(cell: PlannedTrial, terms: Terms) -> tuple[str, ...]:
    return (
        cell.spec.label,
        f"{cell.n_params:,}",
        f"{cell.spec.n_records:,}",
        f"{cell.spec.n_samples_seen:,}",
        si(cell.train_flops),
        f"{cell.memory_bytes / 2**30:.1f} GiB",
        f"1/{round(1 / cell.gpu_share(terms.gpu_memory_gib))}",
        f"{si(cell.bytes_read)}B",
        _FROM[cell.cpu_from] + duration(cell.cpu_s),
        _FROM[cell.gpu_from] + duration(cell.gpu_s),
    )


def show_profiles(profiles: Sequence[Profile]) -> None:
    """Where the time of a step goes, and what bounds it."""
    ceiling = profiles[0].ceiling
    out.print(f"fastest matrix product {si(ceiling.flops_per_s)}FLOP/s, copy {si(ceiling.bytes_per_s)}B/s")
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("", "N", "step", "records/s", "FLOPs", "bytes", "FLOP/s", "of matrix product", "of roofline")
    parts = ("data", "forward", "backward", "optimiser", "rest")
    for heading in (*headings, *parts, "bound by"):
        table.add_column(heading, justify="left" if heading in ("", "bound by") else "right", no_wrap=True)
    for found in profiles:
        seconds = (found.data_s, found.forward_s, found.backward_s, found.optimiser_s, found.rest_s)
        table.add_row(
            found.name,
            si(found.n_params),
            f"{found.step_s * 1e3:.3g} ms",
            f"{found.records_per_s:,.0f}",
            si(found.work.flops),
            f"{si(found.work.bytes_moved)}B",
            si(found.flops_per_s),
            f"{found.of_ceiling:.0%}",
            f"{found.of_roofline:.0%}",
            *(f"{found.share(part):.0%}" for part in seconds),
            found.bound_by,
        )
    out.print(table)


def plan_json(backlog: Backlog, terms: Terms) -> dict[str, Any]:
    plan = backlog.plan
    todo = {spec.trial_id for spec in backlog.todo}
    not_done = todo | backlog.diverged
    trials = []
    for cell in plan.trials:
        trial_id = cell.spec.trial_id
        standing = backlog.standings.get(trial_id)
        entry: dict[str, Any] = {
            "label": cell.spec.label,
            "trial_id": trial_id,
            "n_params": cell.n_params,
            "n_records": cell.spec.n_records,
            "n_samples_seen": cell.spec.n_samples_seen,
            "train_flops": cell.train_flops,
            "memory_bytes": cell.memory_bytes,
            "state_bytes": cell.state_bytes,
            "activation_bytes": cell.activation_bytes,
            "bytes_read": cell.bytes_read,
            "side_by_side": cell.side_by_side,
            "way": cell.way,
            "gpu_share": cell.gpu_share(terms.gpu_memory_gib),
            "cpu_s": cell.cpu_s,
            "cpu_from": cell.cpu_from,
            "gpu_s": cell.gpu_s,
            "gpu_from": cell.gpu_from,
            "done": None if backlog.n_done is None else trial_id not in not_done,
            "standing": standing.kind if standing is not None else None,
            "changes": list(standing.changes) if standing is not None else [],
        }
        trials.append(entry)
    schedules = {
        name: {k: plan.schedule(k, device, terms.gpu_memory_gib) for k in counts}
        for name, device, counts in (("cpu_core", CPU_CORE, CPU_COUNTS), ("gpu", GPU, terms.gpu_counts))
    }
    return {
        "sweep": plan.grid.name,
        "n_trials": len(plan.trials),
        "n_done": backlog.n_done,
        "trials": trials,
        "makespan_s": {name: {k: s.makespan_s for k, s in found.items()} for name, found in schedules.items()},
        "lower_bound_s": {name: {k: s.lower_bound_s for k, s in found.items()} for name, found in schedules.items()},
        "critical_path_s": {name: next(iter(found.values())).critical_s for name, found in schedules.items()},
        "device_hours": {name: _hours(found) for name, found in schedules.items()},
        "cost": {name: _hours(found) * terms.price for name, found in schedules.items()} if terms.price else None,
    }


def _hours(schedules: dict[int, Any]) -> float:
    return float(next(iter(schedules.values())).device_s) / 3600
