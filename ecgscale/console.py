"""What the command line prints: progress bars on stderr, tables or JSON on stdout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ecgscale.executors import Ended
from ecgscale.sweep import Backlog

if TYPE_CHECKING:
    from ecgscale.data.importing import ImportSummary
    from ecgscale.data.quality import CheckReport
    from ecgscale.data.store import PackedStore

WIDTH_WITHOUT_TERMINAL = 160
"""Tables in a file or a pipe are not folded to 80 columns."""

err = Console(stderr=True)
out = Console()
if not out.is_terminal:
    out = Console(width=WIDTH_WITHOUT_TERMINAL)

Advance = Callable[[int], None]


def print_json(value: Any) -> None:
    print(json.dumps(value))


# --- progress ------------------------------------------------------------------------------------------------------


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=err)


@contextmanager
def progress_bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """A bar on stderr; yields the function that is called with the number of `unit` done."""
    with _bars() as bars:
        task = bars.add_task(f"{description} ({unit})", total=total)
        yield lambda n: bars.advance(task, n)


@contextmanager
def counted_progress(description: str, unit: str) -> Iterator[tuple[Advance, Advance]]:
    """A bar whose total is told later; yields the function to call with the total, and the one with `unit` done."""
    with _bars() as bars:
        task = bars.add_task(f"{description} ({unit})", total=None)
        yield lambda total: bars.update(task, total=total), lambda n: bars.advance(task, n)


@contextmanager
def steps_progress(*, silent: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A line on stderr, while somebody looks; yields what is called with the step that is under way, and how many of
    how many are done."""
    with _bars() if err.is_terminal and not silent else nullcontext() as bars:
        task = None if bars is None else bars.add_task("reading", total=None)

        def show(step: str, done: int, of: int) -> None:
            if bars is not None and task is not None:
                bars.update(task, description=step, completed=done, total=of)

        yield show


@contextmanager
def packing_progress() -> Iterator[Callable[[str, int], Advance]]:
    """One bar per population that has to be packed."""
    with _bars() as bars:

        def start(name: str, total: int) -> Advance:
            task = None

            def advance(n: int) -> None:
                nonlocal task
                if task is None:  # a store that is there already shows no bar
                    task = bars.add_task(f"packing {name} (records)", total=total)
                bars.advance(task, n)

            return advance

        yield start


@contextmanager
def sweep_progress(backlog: Backlog, *, quiet: bool) -> Iterator[Callable[[Ended], None]]:
    """A bar whose unit is estimated work, not trials: the first trials are the longest."""
    cost = {cell.spec.trial_id: cell.cpu_s for cell in backlog.plan.trials}
    total = sum(cost[spec.trial_id] for spec in backlog.todo)
    n_ended = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} % of the work"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, disable=quiet) as bars:
        task = bars.add_task(f"0/{len(backlog.todo)} trials", total=total)

        def report(end: Ended) -> None:
            nonlocal n_ended
            n_ended += 1
            bars.update(task, advance=cost[end.trial_id], description=f"{n_ended}/{len(backlog.todo)} trials")
            loss = f"loss {end.id_loss:.4f}" if end.id_loss is not None else f"[red]{end.status}[/red]"
            bars.console.print(f"  {end.label:<36} {loss}  {end.wall_s:.1f} s")
            if end.reason:
                bars.console.print(f"    {end.reason}", markup=False)

        yield report


@contextmanager
def spinner(text: str) -> Iterator[None]:
    with err.status(text):
        yield


# --- sweep ---------------------------------------------------------------------------------------------------------


def show_ended(backlog: Backlog, ended: Sequence[Ended], as_json: bool) -> None:
    by_status = Counter(end.status for end in ended)
    if as_json:
        counts = {"n_trials": len(backlog.plan.trials), "already_done": backlog.n_done}
        print_json(counts | {"diverged_before": len(backlog.diverged), "ended": dict(by_status)})
    elif not backlog.todo and backlog.diverged:
        out.print(
            f"nothing to run: {backlog.n_done} trials have a completed row, {len(backlog.diverged)} have diverged; "
            "`ecgscale status` explains, `ecgscale retry RESULTS --class diverged` tries them again"
        )
    elif not backlog.todo:
        out.print(f"nothing is missing: all {backlog.n_done} trials have a completed row")
    else:
        out.print(", ".join(f"{count} {status}" for status, count in by_status.items()))


# --- data ----------------------------------------------------------------------------------------------------------


def show_import(summary: ImportSummary, as_json: bool) -> None:
    if as_json:
        print_json(summary.to_dict())
        return
    out.print(summary.describe(), markup=False)


def show_check(report: CheckReport, pdf: Path | None, as_json: bool) -> None:
    """What the collection is, then what is wrong with it, worst first."""
    if as_json:
        print_json(report.to_dict())
        return
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, text in report.facts():
        facts.add_row(name, text)
    out.print(facts)
    out.print()
    findings = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "exams", "detail"):
        findings.add_column(heading)
    colour = {"error": "red", "warning": "yellow", "info": "dim"}
    for finding in report.findings:
        named = ", ".join(map(str, finding.records or finding.exam_ids))
        detail = f"{finding.detail} For example {named}." if named else finding.detail
        severity = f"[{colour[finding.severity]}]{finding.severity}[/]"
        findings.add_row(severity, finding.what, f"{finding.n_exams:,}" if finding.n_exams else "", escape(detail))
    out.print(findings)
    if pdf is not None:
        out.print(f"tracings and histograms: {pdf}", markup=False)


def show_pack(store: PackedStore, *, verified: bool, as_json: bool) -> None:
    header = store.header
    facts = {"folder": str(store.path), "n_records": header.n_records, "n_refused": len(header.refused)}
    facts |= {"n_bytes": sum(header.shard_bytes), "n_shards": len(header.shard_bytes), "verified": verified}
    if as_json:
        print_json(facts | {"fingerprint": header.fingerprint, "refused": header.refused})
        return
    checked = ", every checksum agrees" if verified else ""
    out.print(
        f"{store.path}: {header.n_records:,} records of {header.n_leads} × {header.n_samples} at {header.fs_hz:g} Hz, "
        f"{si(sum(header.shard_bytes))}B in {len(header.shard_bytes)} shards, {len(header.refused)} left out{checked}",
        markup=False,
    )


# --- numbers for people --------------------------------------------------------------------------------------------


def si(value: float) -> str:
    """1.2 G; powers of a thousand."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"
