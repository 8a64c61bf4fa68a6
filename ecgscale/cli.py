"""The command line: data · plan · sweep · status · fit-laws · report.

Imports live inside the commands, so that `--help`, `plan`, `status` and `fit-laws` start without torch and Ray.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ecgscale.errors import EcgscaleError

if TYPE_CHECKING:
    from ecgscale.executors import Ended
    from ecgscale.plan import Plan
    from ecgscale.sweep import Backlog

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Finds out how ECG models scale: a grid of trainings, the laws in its results, and what they say.",
)
data_app = typer.Typer(
    no_args_is_help=True, help="Make, import, check and pack ECG records. One folder per population, in CODE format."
)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
SweepFile = Annotated[Path, typer.Argument(help="A sweep file, for example sweeps/grid_small.yaml.")]
Results = Annotated[Path, typer.Argument(help="A results folder, for example results/grid_small.")]
DataDir = Annotated[Path, typer.Option("--data", help="Data directory; each population is a folder in it.")]

EXIT_TRIALS_FAILED = 3
EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command line; an error the user can act on is printed without a traceback, with exit status 2."""
    try:
        app()
    except EcgscaleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


# --- data ----------------------------------------------------------------------------------------------------------


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Option("--out", help="Data directory to write the populations A and B into.")],
    n_a: Annotated[
        int, typer.Option("--n-a", min=1, help="Records of population A, which models are trained on.")
    ] = 3200,
    n_b: Annotated[int, typer.Option("--n-b", min=1, help="Records of population B, for transfer.")] = 1200,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core. Changes no byte.")] = 0,
) -> None:
    """Make the embedded data set: synthetic 12-lead ECGs of two populations, in CODE format.

    Example: [bold]ecgscale data synth --out data/synthetic --n-a 3200 --n-b 1200[/bold]

    A folder that already holds the same records is left as it is.
    """
    from ecgscale.console import progress_bar
    from ecgscale.data.embedded import write_population
    from ecgscale.data.synthetic import POPULATIONS

    for name, n_records in (("A", n_a), ("B", n_b)):
        with progress_bar(f"population {name}", n_records, "records") as advance:
            made = write_population(
                out / name, POPULATIONS[name], n_records=n_records, seed=seed, jobs=jobs, progress=advance
            )
        print(f"{out / name}: {n_records} records" + ("" if made else ", already there"))


@data_app.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="Folder of the source.")],
    out: Annotated[Path, typer.Option("--out", help="Population folder to write.")],
    kind: Annotated[str, typer.Option(help="auto, ptbxl-zscored, ludb or cinc.")] = "auto",
    records: Annotated[str, typer.Option(help="Record names to take (a glob), for example 'E*' for Georgia.")] = "*",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    as_json: Json = False,
) -> None:
    """Turn a source of ECGs into CODE format: 400 Hz, 4,096 samples, 12 leads in the standard order.

    Example: [bold]ecgscale data import downloads/ludb --out data/real/ludb[/bold]
    """
    from ecgscale.console import progress_bar, show_import
    from ecgscale.data.sources import import_source

    with progress_bar(f"importing {source.name}", None, "records") as advance:
        summary = import_source(source, out, kind=kind, records=records, overwrite=overwrite, progress=advance)
    show_import(summary, as_json)


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Population folder in CODE format.")],
    mv_per_unit: Annotated[
        float | None, typer.Option(help="Millivolts per stored unit; the CODE releases store 2 × mV, so 0.5.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a folder of ECGs: units, lead order, padding, empty leads, duplicates, labels.

    Exit status 1 if anything is an error.

    Example: [bold]ecgscale data check data/synthetic/A[/bold]
    """
    from ecgscale.console import progress_bar, show_check
    from ecgscale.data.code_format import open_code
    from ecgscale.data.quality import check

    source = open_code(folder, mv_per_unit=mv_per_unit)
    with progress_bar(f"checking {folder.name}", len(source.exams), "records") as advance:
        report = check(source, progress=advance)
    show_check(report, as_json)
    if report.worst == "error":
        raise typer.Exit(1)


# --- plan, sweep, status -------------------------------------------------------------------------------------------


@app.command()
def plan(
    sweep_file: SweepFile,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data directory: plan with its records, not the declared number.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder: say which trials are done.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a sweep will train and cost before anything starts.

    Example: [bold]ecgscale plan sweeps/grid_paper.yaml[/bold]
    """
    from ecgscale.console import show_plan

    show_plan(_backlog(sweep_file, data, out), as_json)


@app.command()
def sweep(
    sweep_file: SweepFile,
    data: DataDir,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder; by default results/NAME.")] = None,
    executor: Annotated[
        Literal["ray", "inprocess"], typer.Option(help="ray: many at once, local or cluster. inprocess: one by one.")
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, or auto; by default a local one is started.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of the local Ray; by default all.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per trial.")] = 1,
    trials_per_gpu: Annotated[int, typer.Option(min=1, help="Trials that share one GPU.")] = 1,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Start Ray's dashboard; prints URL and login.")
    ] = False,
    wandb: Annotated[
        str | None, typer.Option(help="disabled, offline or online; by default WANDB_MODE, else disabled.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out records that are all zero or not a number.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run every trial of a sweep that has no completed row yet. Safe to run twice, and after any crash.

    Exit status 3 if a trial failed; the others have run.

    Example: [bold]ecgscale sweep sweeps/grid_small.yaml --data data/synthetic --out results/grid_small[/bold]
    """
    from ecgscale.console import show_ended, show_plan, sweep_progress
    from ecgscale.execution import Execution
    from ecgscale.specs import load_grid
    from ecgscale.sweep import execute, keep_sweep_file
    from ecgscale.tracking import wandb_mode

    grid = load_grid(sweep_file)
    folder = out or Path("results") / grid.name
    mode = wandb_mode(wandb)
    backlog = _backlog(sweep_file, data, folder, skip_bad=skip_bad)
    keep_sweep_file(sweep_file, folder)
    if not as_json:
        show_plan(backlog, as_json=False)
    ended: list[Ended] = []
    if backlog.todo:
        execution = Execution(data.absolute(), folder.absolute(), grid.name, threads, mode)
        if executor == "ray":
            _start_ray(address, cpus, dashboard, quiet=as_json)
        try:
            with sweep_progress(backlog, quiet=as_json) as report:

                def note(end: Ended) -> None:
                    ended.append(end)
                    report(end)

                execute(backlog.todo, execution, note, executor=executor, trials_per_gpu=trials_per_gpu)
        except KeyboardInterrupt:
            pass
    show_ended(backlog, ended, as_json)
    if len(ended) < len(backlog.todo):  # Tune turns Ctrl-C into an early return
        print(f"interrupted: finished trials are kept, the same command goes on: {' '.join(sys.argv)}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)
    if any(end.status != "completed" for end in ended):
        raise typer.Exit(EXIT_TRIALS_FAILED)


@app.command()
def status(folder: Results, as_json: Json = False) -> None:
    """Say how far a sweep is, from its results folder alone: done, missing, failed and why.

    Example: [bold]ecgscale status results/grid_small[/bold]
    """
    from ecgscale import results
    from ecgscale.console import show_status

    for found in results.sweep_folders(folder):
        show_status(found, results.read(found), as_json)


# --- laws and report -----------------------------------------------------------------------------------------------


@app.command("fit-laws")
def fit_laws(
    path: Annotated[Path, typer.Argument(help="A results folder, the folder of all of them, or a CSV/parquet table.")],
    n: Annotated[str, typer.Option("--n", help="Table: column of N.")] = "n_params",
    d: Annotated[str, typer.Option("--d", help="Table: column of D.")] = "n_records",
    loss: Annotated[str, typer.Option("--loss", help="Table: column of the loss.")] = "loss",
    by: Annotated[str, typer.Option("--by", help="Table: columns that tell the groups apart, comma-separated.")] = "",
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the fits as JSON to this file; - prints.")
    ] = None,
    figures: Annotated[Path | None, typer.Option("--figures", help="Write the scaling plots as PDF here.")] = None,
) -> None:
    """Fit scaling laws, per arm and target, with bootstrap intervals.

    Of a results folder: L(N), L(D) and L(N, D) for the in-distribution loss and every transfer target, and the
    loss-to-loss laws from in to out of distribution; figures go to FOLDER/figures.

    Example: [bold]ecgscale fit-laws results/[/bold]

    Example: [bold]ecgscale fit-laws table.csv --n N --d D --loss loss --by corpus[/bold]
    """
    from ecgscale.console import show_fits, spinner
    from ecgscale.study import studies, table_study

    if path.is_file():
        columns = [c for c in by.split(",") if c]
        made = [table_study(path, n=n, d=d, loss=loss, by=columns, bootstrap=bootstrap, seed=seed)]
    else:
        with spinner("fitting"):
            made = list(studies(path, bootstrap=bootstrap, seed=seed))
    if json_file is not None:
        text = json.dumps({key: [f for study in made for f in study.to_dict()[key]] for key in ("fits", "pairs")})
        if str(json_file) == "-":
            print(text)
            return
        json_file.write_text(text)
    for study in made:
        show_fits(study)
        target = figures or (study.folder / "figures" if study.folder is not None else None)
        if target is not None:
            from ecgscale.figures import write_figures

            print(f"figures: {', '.join(str(p) for p in write_figures(study, target))}")


@app.command()
def report(folder: Results, as_json: Json = False) -> None:
    """Write the findings of a results folder: laws, runs and transfer scores as CSV and JSON, figures as PDF.

    Example: [bold]ecgscale report results/grid_small[/bold]
    """
    from ecgscale.report import write_report

    for written in write_report(folder):
        print(json.dumps({"written": str(written)}) if as_json else f"written: {written}")


# --- shared --------------------------------------------------------------------------------------------------------


def _backlog(sweep_file: Path, data: Path | None, out: Path | None, *, skip_bad: bool = False) -> Backlog:
    from ecgscale.plan import plan as make_plan
    from ecgscale.specs import load_grid
    from ecgscale.sweep import backlog

    grid = load_grid(sweep_file)
    made: Plan = make_plan(grid)
    if data is None and out is not None:
        raise EcgscaleError("--out needs --data: which trials are done depends on the records they were trained on")
    if data is not None:
        from ecgscale.console import packing_progress
        from ecgscale.data.populations import populations

        with packing_progress() as start:
            made = make_plan(grid, populations(grid, data, skip_bad=skip_bad, start_progress=start))
        out = out or Path("results") / grid.name
    return backlog(made, out)


def _start_ray(address: str | None, cpus: int | None, dashboard: bool, *, quiet: bool) -> None:
    from ecgscale.executors import ray

    url = ray.start(ray.Cluster(address, cpus, dashboard))
    if dashboard and url and not quiet:
        print(f"Ray dashboard: {url}  (log in with the token that `ray get-auth-token` prints)")


if __name__ == "__main__":
    main()
