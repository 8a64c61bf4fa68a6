"""`ecgscale tune-lr`.

Imports live inside the functions, so that `--help` is instant.
"""

from __future__ import annotations

import math
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, TypeVar

import typer

from ecgscale.cli_options import EXIT_INTERRUPTED, EXIT_TRIALS_FAILED, DataDir, Json, SweepFile
from ecgscale.errors import EcgscaleError

if TYPE_CHECKING:
    from ecgscale.plan import Plan
    from ecgscale.sweep import ExecutorName

Number = TypeVar("Number", int, float)


def tune_lr(
    sweep_file: SweepFile,
    data: DataDir,
    out: Annotated[
        Path | None, typer.Option("--out", help="Results folder; by default results/NAME/learning_rates.")
    ] = None,
    rungs: Annotated[str | None, typer.Option(help="With commas; by default the sweep's three smallest.")] = None,
    rates: Annotated[
        str | None, typer.Option(help="Peak rates, with commas; by default five powers of two around the sweep's.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="With commas; by default the sweep's.")] = None,
    fraction: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the training records; by default the sweep's largest.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of every trial; by default by the sweep's budget.")] = None,
    executor: Annotated[Literal["ray", "inprocess", "worker"], typer.Option(help="As of `ecgscale sweep`.")] = "ray",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per trial.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Put the new constants into the sweep file.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Train no trial: say whether every layer changes alike at every width and depth."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the learning-rate rules of a sweep: small rungs at several rates, and the line through the best.

    Prints how the sweep file would change; --write changes it. Trials that have ended are not run again.

    Exit status 3 if a trial failed; one that diverged is an answer.

    Example: [bold]ecgscale tune-lr sweeps/grid_small.yaml --data data/synthetic --steps 150[/bold]
    """
    from ecgscale.console import packing_progress
    from ecgscale.data.populations import populations
    from ecgscale.specs import load_grid
    from ecgscale.tune_lr import tuning_grid, tuning_plan

    grid = load_grid(sweep_file)
    folder = out or Path("results") / grid.name / "learning_rates"
    some_rates = _listed("--rates", rates, float, sys.float_info.min)
    grid = tuning_grid(grid, rungs.split(",") if rungs else (), fraction, _listed("--seeds", seeds, int, 0))
    with packing_progress() as start:
        tried = tuning_plan(grid, populations(grid, data, start_progress=start), some_rates, steps)
    if check:
        from ecgscale.console_lr import show_checks
        from ecgscale.coordinates import checks

        show_checks(checks(tried, data, threads), as_json)
        return
    _tune(tried, sweep_file, data, folder, executor, threads, write, as_json)


def _tune(
    tried: Plan,
    sweep_file: Path,
    data: Path,
    folder: Path,
    executor: ExecutorName,
    threads: int,
    write: bool,
    as_json: bool,
) -> None:
    """Runs what is missing of the trials, then fits and prints the rules."""
    from ecgscale.console import print_json, sweep_progress
    from ecgscale.console_lr import show_change, show_tuned, tuned_json
    from ecgscale.execution import Execution
    from ecgscale.provenance import public_argv
    from ecgscale.results import read, require_writable
    from ecgscale.sweep import backlog, execute
    from ecgscale.tune_lr import rewritten, tuned

    require_writable(folder)
    left = backlog(tried, folder)
    grid = tried.grid
    execution = Execution(
        data.absolute(), folder.absolute(), grid.name, threads, argv=public_argv(sys.argv), config_hash=grid.identity()
    )
    stopped = None
    if left.todo:
        if executor == "ray":
            from ecgscale.executors import ray

            ray.start(ray.Cluster())
        try:
            with sweep_progress(left, quiet=as_json) as report:
                stopped = execute(left.todo, execution, report, executor=executor)
        except KeyboardInterrupt:
            print(f"interrupted: the same command goes on: {' '.join(sys.argv)}", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    made = tuned(tried, read(folder))
    if as_json:
        print_json(tuned_json(made))
    else:
        show_tuned(made)
    if stopped is not None:
        raise EcgscaleError(stopped)
    if made.n_failed:
        raise typer.Exit(EXIT_TRIALS_FAILED)
    if made.is_complete:
        before, after = rewritten(sweep_file, made)
        if write:
            _replace(sweep_file, after)
        if not as_json:
            show_change(str(sweep_file), before, after, written=write)
    elif write:
        raise EcgscaleError(f"{sweep_file}: not changed, some best rates are not known")


def _replace(sweep_file: Path, text: str) -> None:
    """Whole or not at all; its permissions stay, and a link stays a link."""
    from ecgscale.record_files import put_in_place

    def write(sink: BinaryIO) -> None:
        os.fchmod(sink.fileno(), stat.S_IMODE(sweep_file.stat().st_mode))
        sink.write(text.encode())

    try:
        put_in_place(sweep_file.resolve(), write, may_publish=lambda: True)
    except OSError as error:
        raise EcgscaleError(f"{sweep_file}: can't be written ({error.strerror})") from error


def _listed(option: str, words: str | None, kind: type[Number], least: Number) -> tuple[Number, ...]:
    """Numbers with commas between; none for an option that was not given."""
    try:
        found = tuple(kind(word) for word in words.split(",")) if words else ()
    except ValueError:
        found = None
    if found is None or not all(least <= number < math.inf for number in found):
        what = "whole numbers from 0 on" if kind is int else "numbers above 0"
        raise EcgscaleError(f"{option} {words!r}: give {what}, with commas between")
    return found
