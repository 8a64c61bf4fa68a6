"""What `status` and `show` print: a grid of cells that fills up, failures explained, and all of one trial's row."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ecgscale.console import duration, out, print_json, si
from ecgscale.failures import ADVICE, FailureClass
from ecgscale.ladder import RUNGS
from ecgscale.results import Outcome, RunRecord, Status
from ecgscale.status import Progress, State, Trial, Watched

SHORT = {
    FailureClass.OUT_OF_MEMORY: "memory",
    FailureClass.DIVERGED: "NaN",
    FailureClass.DATA: "data",
    FailureClass.INFRASTRUCTURE: "machine",
    FailureClass.BUG: "bug",
}
STYLE = {State.DONE: "green", State.RUNNING: "cyan", State.FAILED: "red", State.TO_DO: "dim"}
SHOWN_PER_CLASS = 5
BAR_WIDTH = 80

# --- status --------------------------------------------------------------------------------------------------------


def show_status(folders: Sequence[Watched], as_json: bool) -> None:
    for folder in folders:
        progress = folder.progress()
        if as_json:
            print_json(status_json(progress))
        else:
            out.print(view(progress))


def watch_status(folders: Sequence[Watched], every_s: float, as_json: bool) -> None:
    """Shows the state anew every `every_s` seconds until nothing is left to do, or Ctrl-C."""
    try:
        if as_json:
            while not _print_all(folders):
                time.sleep(every_s)
            return
        with Live(console=out, auto_refresh=False, vertical_overflow="ellipsis") as live:
            while True:
                progresses = [folder.progress() for folder in folders]
                live.update(Group(*(view(p) for p in progresses)), refresh=True)
                if all(p.finished for p in progresses):
                    return
                time.sleep(every_s)
    except KeyboardInterrupt:
        return


def _print_all(folders: Sequence[Watched]) -> bool:
    progresses = [folder.progress() for folder in folders]
    for progress in progresses:
        print_json(status_json(progress))
    return all(p.finished for p in progresses)


def view(progress: Progress) -> RenderableType:
    """All of it, for a terminal or a file."""
    arms: dict[str, list[Trial]] = defaultdict(list)
    for trial in progress.trials:
        arms[trial.arm].append(trial)
    parts: list[RenderableType] = [_headline(progress)]
    parts += [_bar(progress)] if progress.trials else []
    parts += [Columns([_arm_grid(arm, trials) for arm, trials in sorted(arms.items())], padding=(1, 4))]
    if progress.counts[State.RUNNING]:
        named = ", ".join(f"{t.label} ({duration(t.running_s)})" for t in progress.in_state(State.RUNNING))
        parts.append(Text(f"running: {named}", style=STYLE[State.RUNNING]))
    if progress.last:
        parts.append(Text("last losses", style="bold"))
        parts += [Text(f"  {r.label:<36} {r.id_loss:.4f} {r.loss_unit:<5} {duration(r.wall_s)}") for r in progress.last]
    return Group(*parts, *_failures(progress))


def _headline(progress: Progress) -> Text:
    by_status = Counter(t.record.status for t in progress.trials if t.record is not None)
    counts = [f"{by_status[status]} {status}" for status in Status if by_status[status]]
    for state in (State.RUNNING, State.TO_DO):
        if progress.counts[state]:
            counts.append(f"{progress.counts[state]} {state}")
    if progress.to_read_out:
        counts.append(f"{len(progress.to_read_out)} to be read out")
    text = Text.assemble((str(progress.folder), "bold"), ": ", ", ".join(counts) or "no rows")
    if progress.eta_s is not None:
        text.append(f"; about {duration(progress.eta_s)} left with {progress.at_once} at once")
    if progress.spent_s:
        spent = ", ".join(
            f"{seconds / 3600:.2f} {'core' if device == 'cpu' else device}-hours"
            for device, seconds in progress.spent_s.items()
        )
        text.append(f"; spent {spent} in {progress.n_attempts} attempts")
    return text


def _bar(progress: Progress) -> Text:
    """One line in the colours of the cells, as long as the states are frequent."""
    text, start, n_before = Text(), 0, 0
    for state in (State.DONE, State.FAILED, State.RUNNING, State.TO_DO):
        n_before += progress.counts[state]
        end = round(BAR_WIDTH * n_before / len(progress.trials))
        text.append(("░" if state is State.TO_DO else "█") * (end - start), STYLE[state])
        start = end
    return text


def _arm_grid(arm: str, trials: Sequence[Trial]) -> Table:
    """Rung × data fraction; a cell holds the mean loss of what is done of it, or its state."""
    cells: dict[tuple[str, float], list[Trial]] = defaultdict(list)
    for trial in trials:
        cells[trial.rung, trial.data_fraction].append(trial)
    fractions = sorted({fraction for _, fraction in cells})
    rungs = [rung for rung in RUNGS if any(key[0] == rung for key in cells)]
    n_done = sum(t.state is State.DONE for t in trials)
    losses = [t for t in trials if t.loss is not None]
    unit = f" · {losses[0].record.loss_unit}" if losses and losses[0].record is not None else ""
    table = Table(title=f"{arm}  {n_done}/{len(trials)}{unit}", box=None, pad_edge=False, header_style="dim")
    table.title_justify = "left"
    table.add_column("", style="dim")
    for fraction in fractions:
        table.add_column(_fraction(fraction), justify="right", min_width=7)
    for rung in rungs:
        table.add_row(rung, *(_cell(cells.get((rung, fraction), [])) for fraction in fractions))
    return table


def _cell(trials: Sequence[Trial]) -> Text:
    if not trials:
        return Text("")
    counts = Counter(t.state for t in trials)
    state = next(s for s in (State.RUNNING, State.FAILED, State.TO_DO, State.DONE) if counts[s])
    losses = [t.loss for t in trials if t.loss is not None]
    if losses:
        words = f"{statistics.fmean(losses):.4f}"
    elif state is State.FAILED:
        words = "/".join(sorted({SHORT[f] if (f := t.failure) is not None else "failed" for t in trials if t.record}))
    else:
        words = {State.RUNNING: "running", State.TO_DO: "·", State.DONE: "done"}[state]
    if len(trials) > 1 and counts[State.DONE] < len(trials):
        words += f" {counts[State.DONE]}/{len(trials)}"
    return Text(words, style=STYLE[state])


def _fraction(value: float) -> str:
    inverse = 1 / value
    return f"1/{inverse:.0f}" if value < 1 and math.isclose(inverse, round(inverse)) else f"{value:.4g}"


def _failures(progress: Progress) -> list[RenderableType]:
    """Each class with what it means, what to do, and the first trials of it."""
    failed: dict[FailureClass | None, list[Outcome]] = defaultdict(list)
    for trial in progress.in_state(State.FAILED):
        if trial.record is not None:
            failed[trial.failure].append(trial.record)
    parts: list[RenderableType] = []
    for failure, records in failed.items():
        parts.append(Text(f"{len(records)} {failure or 'failed (class not recorded)'}", style="bold red"))
        if failure is not None:
            advice = ADVICE[failure]
            parts.append(Text(f"  {advice.meaning}\n  → {advice.way_out.format(folder=progress.folder)}"))
        parts += _some_of([_told(r, r.reason or r.status, r.bug) for r in records])
    parts += _failed_read_outs(progress)
    for file, why in progress.quarantined.items():
        parts.append(Text(f"{file} was no readable row ({why}); it lies in quarantine and its trial runs again"))
    if progress.retries:
        parts.append(Text(f"{progress.retries} marked to be tried again by the next `ecgscale sweep`"))
    return parts


def _failed_read_outs(progress: Progress) -> list[RenderableType]:
    """The same of trials whose training stands."""
    failed: dict[FailureClass, list[Text]] = defaultdict(list)
    for trial in progress.to_read_out:
        assert trial.record is not None
        for read_out in trial.failed_read_outs:
            what = f"on {read_out.population}: {read_out.reason}"
            failed[FailureClass(read_out.failure)].append(_told(trial.record, what, read_out.bug))
    parts: list[RenderableType] = []
    for failure, told in failed.items():
        advice = ADVICE[failure]
        parts.append(Text(f"{len(told)} trained, but not read out: {failure}", style="bold red"))
        parts.append(Text(f"  {advice.meaning}\n  → {advice.way_out.format(folder=progress.folder)}"))
        parts += _some_of(told)
    return parts


def _told(record: Outcome, reason: str, bug: str | None) -> Text:
    number = f" [{bug}]" if bug else ""
    return Text(f"  {record.label} ({record.trial_id}){number}: " + reason.replace("\n", "\n  "))


def _some_of(told: Sequence[Text]) -> list[Text]:
    left = len(told) - SHOWN_PER_CLASS
    return [*told[:SHOWN_PER_CLASS], *([Text(f"  and {left} more")] if left > 0 else [])]


def status_json(progress: Progress) -> dict[str, Any]:
    latest = [t.record for t in progress.trials if t.record is not None]
    return {
        "folder": str(progress.folder),
        "status": dict(Counter(r.status for r in latest)),
        "missing": sum(t.state is not State.DONE or bool(t.to_read_out) for t in progress.trials)
        if progress.planned
        else None,
        "counts": {state.value: progress.counts[state] for state in State},
        "failures": dict(Counter(str(t.failure) for t in progress.in_state(State.FAILED))),
        "not_completed": [
            {
                "label": r.label,
                "trial_id": r.trial_id,
                "status": r.status,
                "failure": r.failure_class,
                "bug": r.bug,
                "reason": r.reason,
            }
            for r in latest
            if r.status != Status.COMPLETED
        ],
        "to_read_out": len(progress.to_read_out),
        "not_read_out": [
            {"label": t.label, "trial_id": t.record.trial_id, **failed.model_dump()}
            for t in progress.to_read_out
            if t.record is not None
            for failed in t.failed_read_outs
        ],
        "eta_s": progress.eta_s,
        "at_once": progress.at_once,
        "spent_s": dict(progress.spent_s),
        "n_attempts": progress.n_attempts,
        "retries": progress.retries,
        "quarantined": dict(progress.quarantined),
        "trials": [
            {
                "label": t.label,
                "arm": t.arm,
                "rung": t.rung,
                "data_fraction": t.data_fraction,
                "state": t.state.value,
                "loss": t.loss,
                "failure": t.failure,
                "running_s": t.running_s if t.state is State.RUNNING else None,
            }
            for t in progress.trials
        ],
    }


# --- one trial -----------------------------------------------------------------------------------------------------


def show_trial(attempts: Sequence[RunRecord], as_json: bool) -> None:
    """All of one trial.

    Args:
        attempts: of one trial, oldest first, the one that counts last.
    """
    if as_json:
        print_json(trial_json(attempts))
        return
    record = attempts[-1]
    out.print(Text.assemble((record.label, "bold"), f"  {record.trial_id} of sweep {record.sweep}: {record.status}"))
    for heading, facts in (
        ("outcome", _outcome(record)),
        ("plan", _plan(record)),
        ("provenance", _provenance(record)),
        ("spec", _spec(record)),
    ):
        table = Table(box=None, pad_edge=False, show_header=False, title=heading, title_justify="left")
        table.title_style = "bold"
        for name, value in facts:
            if value is not None:
                table.add_row(name, escape(value))
        out.print(table)
    if record.id_auroc or record.transfer:
        out.print(_scores(record))
    out.print(_attempts(attempts))


def _outcome(record: RunRecord) -> Iterable[tuple[str, str | None]]:
    yield "failure", f"{failure}: {ADVICE[failure].meaning}" if (failure := record.failure_class) else None
    yield "reason", record.reason
    yield "bug", record.bug
    for name in ("id_loss", "id_loss_last", "id_constant_loss", "val_loss_best", "val_loss_last"):
        value = getattr(record, name)
        yield name, f"{value:.6g} {record.loss_unit}" if value is not None else None
    yield "best_step", str(record.best_step) if record.best_step is not None else None
    for failed in record.failed_read_outs:
        yield "not read out", f"on {failed.population}: {failed.failure}, {failed.reason}"
    yield "wall", duration(record.wall_s) + (f", training {duration(s)}" if (s := record.train_s) is not None else "")
    yield "read-outs", duration(record.read_outs_s) if record.read_outs_s else None
    peak = record.peak_memory_bytes
    yield "peak memory", f"{peak / 2**30:.2f} GiB" if peak is not None else None
    yield "compiled", "for training, with torch.compile" if record.compiled else None
    yield "stacked", "training steps computed with those of others" if record.stacked else None
    yield "microbatch", f"{n} records at a time, for lack of memory" if (n := record.microbatch) is not None else None


def _plan(record: RunRecord) -> Iterable[tuple[str, str | None]]:
    yield "N", f"{record.n_params:,} in the encoder, {record.n_params_head:,} in head or decoder"
    yield "D", f"{record.n_records:,} records, {record.n_samples_seen:,} seen"
    yield "C", f"{si(record.train_flops)}FLOPs"


def _provenance(record: RunRecord) -> Iterable[tuple[str, str | None]]:
    changed = {True: " with uncommitted changes", False: "", None: ""}[record.git_dirty]
    yield "commit", f"{record.git_commit}{changed}" if record.git_commit else None
    yield "diff", record.git_diff
    yield "versions", ", ".join(f"{name} {number}" for name, number in json.loads(record.versions).items())
    yield "CUDA", record.cuda_version
    yield "driver", record.driver_version
    yield "device", f"{record.device}, {record.threads} threads"
    yield "host", record.host
    yield "data", ", ".join(f"{name} {mark}" for name, mark in json.loads(record.data_fingerprint).items())
    yield "sweep file", record.config_hash
    yield "command", " ".join(json.loads(record.argv)) if record.argv is not None else None
    yield "started", f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    yield "ended", f"{record.ended_at:%Y-%m-%d %H:%M:%S} UTC" if record.ended_at is not None else None


def _spec(record: RunRecord) -> Iterable[tuple[str, str | None]]:
    for name, value in json.loads(record.spec).items():
        nested = isinstance(value, dict | list)
        yield name, json.dumps(value) if nested else None if value is None else str(value)


def _scores(record: RunRecord) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("population", "task", "loss", "constant", "AUROC", "tested on"):
        table.add_column(heading, justify="left" if heading in ("population", "task") else "right")
    for label in record.id_auroc:
        table.add_row("in distribution", label.label, "", "", _number(label.auroc), f"{label.n_test_positive} positive")
    for task in record.transfer:
        numbers = (_number(task.loss), _number(task.constant_loss), _number(task.auroc))
        table.add_row(task.population, task.task, *numbers, f"{task.n_test}")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _attempts(attempts: Sequence[RunRecord]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("attempt", "status", "failure", "started (UTC)", "took", "on"):
        table.add_column(heading)
    for r in attempts:
        started = f"{r.started_at:%Y-%m-%d %H:%M:%S}"
        where = f"{r.device} {r.host or ''}".strip()
        table.add_row(r.attempt, r.status, r.failure_class or "", started, duration(r.wall_s), where)
    return table


def trial_json(attempts: Sequence[RunRecord]) -> dict[str, Any]:
    """The row that counts, its JSON columns opened, and the others in short."""
    record = attempts[-1]
    row = record.model_dump(mode="json")
    for name in ("spec", "versions", "data_fingerprint", "argv"):
        row[name] = json.loads(row[name]) if row[name] is not None else None
    row["read_out_specs"] = [json.loads(spec) for spec in row["read_out_specs"]]
    short = {"attempt", "status", "failure", "reason", "started_at", "ended_at", "wall_s", "device", "host"}
    return row | {"attempts": [r.model_dump(mode="json", include=short) for r in attempts]}
