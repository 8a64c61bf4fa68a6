"""The command line: data · plan · sweep · status · show · retry · fit-laws · report.

Imports live inside the commands, so that `--help`, `plan`, `status` and `fit-laws` start without torch and Ray.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ecgscale.cli_options import EXIT_INTERRUPTED, EXIT_SAME_BUG, EXIT_TRIALS_FAILED, DataDir, Json, SweepFile
from ecgscale.data_cli import data_app
from ecgscale.errors import EcgscaleError
from ecgscale.tune_cli import tune_lr

if TYPE_CHECKING:
    import datetime

    from ecgscale.budget import Gate
    from ecgscale.executors import Ended
    from ecgscale.executors.slots import Slots
    from ecgscale.plan import Device, Order, Plan
    from ecgscale.roofline import Profile
    from ecgscale.sweep import Backlog

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Finds out how ECG models scale: a grid of trainings, the laws in its results, and what they say.",
)
app.add_typer(data_app, name="data")
export_app = typer.Typer(no_args_is_help=True, help="Scripts that run a sweep under another scheduler.")
app.add_typer(export_app, name="export")

Results = Annotated[Path, typer.Argument(help="A results folder, for example results/grid_small.")]
Bootstrap = Annotated[int, typer.Option(min=0, help="Resamples for the intervals.")]
CheckpointSeconds = Annotated[
    float, typer.Option(min=0, help="Write a trial's progress this often; 0 for only when it is told to stop.")
]
LeaseSeconds = Annotated[
    float,
    typer.Option(min=1, help="Take over a trial whose owner elsewhere has shown no sign of life for so many seconds."),
]
HangSeconds = Annotated[
    float,
    typer.Option(min=0, help="End the process of a trial that has made no progress for so many seconds; 0 for never."),
]
StartingOrder = Annotated[
    Literal["longest-first", "cheap-first"],
    typer.Option("--order", help="longest-first: the shortest sweep. cheap-first: an early curve."),
]
Together = Annotated[
    int | None,
    typer.Option(
        "--together",
        min=1,
        help="So many trials of one stream of records take turns in one process; by default as `calibrate` found.",
    ),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option("--calibration", help="What `calibrate` wrote; by default calibration.json of the results folder."),
]


def main() -> None:
    """Runs the command line; an error the user can act on is printed without a traceback, with exit status 2."""
    try:
        app()
    except EcgscaleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


# --- plan, sweep, status, show, retry ------------------------------------------------------------------------------


@app.command()
def plan(
    sweep_file: SweepFile,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data directory: plan with its records, not the declared number.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder: say which trials are done.")] = None,
    calibration: CalibrationFile = None,
    gpu_memory_gib: Annotated[float, typer.Option(min=1, help="Of one GPU: how many trials can share it.")] = 80.0,
    price: Annotated[float | None, typer.Option(min=0, help="Of one device hour, in any currency.")] = None,
    devices: Annotated[str, typer.Option(help="Numbers of GPUs to simulate, comma-separated.")] = "1,8,64",
    order: StartingOrder = "longest-first",
    as_json: Json = False,
) -> None:
    """Show what a sweep will train and cost before anything starts, and with --data which trials are new or changed.

    Times come from the calibration and the rows of the results folder where there are any.

    Example: [bold]ecgscale plan sweeps/grid_paper.yaml --price 2.5[/bold]
    """
    from ecgscale.console_plan import Terms, show_plan

    try:
        counts = tuple(int(word) for word in devices.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise EcgscaleError(f"--devices {devices!r}: give whole numbers with commas between, for example 1,8,64")
    terms = Terms(gpu_memory_gib, price, counts)
    show_plan(_backlog(sweep_file, data, out, order, calibration=calibration), as_json, terms)


@app.command()
def calibrate(
    sweep_file: SweepFile,
    data: DataDir,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; by default results/NAME/calibration.json.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads, as the sweep will have per trial.")] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of a step goes, and what bounds it.")
    ] = False,
    compiling: Annotated[
        bool,
        typer.Option("--compile", help="Measure torch.compile as well, which sweeps then use where it pays; minutes."),
    ] = False,
    stacking: Annotated[
        bool | None,
        typer.Option(
            "--stack/--no-stack",
            help="Measure trials stacked as one as well, which sweeps then do where it pays; by default on a GPU.",
        ),
    ] = None,
    limit: Annotated[float, typer.Option(min=0, help="Leave out what needs more seconds for its 20 steps.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Measure 20 training steps of every arm and rung that fits here, for `ecgscale plan`.

    --profile counts FLOPs and bytes, and compares them with the fastest matrix product and copy of this device.

    Example: [bold]ecgscale calibrate sweeps/grid_small.yaml --data data/synthetic[/bold]
    """
    from ecgscale.calibrating import calibrate as measure
    from ecgscale.calibration import CALIBRATION_FILE
    from ecgscale.console import print_json
    from ecgscale.console_plan import show_profiles
    from ecgscale.plan import plan as make_plan
    from ecgscale.specs import load_grid

    grid = load_grid(sweep_file)
    file = out or Path("results") / grid.name / CALIBRATION_FILE
    left_out: dict[str, str] = {}

    def report(cell: str, step_s: float | None, why_not: str) -> None:
        if step_s is None:
            left_out[cell] = why_not
        if not as_json:
            print(f"  {cell:<24} {f'{step_s * 1e3:.3g} ms per step' if step_s is not None else why_not}")

    profiles: list[Profile] | None = [] if profile else None
    measured = measure(
        make_plan(grid).trials,
        data,
        threads=threads,
        limit_s=limit,
        report=report,
        profiles=profiles,
        compiling=compiling,
        stacking=stacking,
    )
    measured.save(file)
    if as_json:
        found = {"written": str(file), "n_measured": len(measured.measurements), "left_out": left_out}
        print_json(found | ({"profiles": [p.to_dict() for p in profiles]} if profiles is not None else {}))
    else:
        if profiles:
            show_profiles(profiles)
        print(f"written: {file}")


app.command("tune-lr")(tune_lr)


@app.command()
def sweep(
    sweep_file: SweepFile,
    data: DataDir,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder; by default results/NAME.")] = None,
    executor: Annotated[
        Literal["ray", "inprocess", "worker"],
        typer.Option(help="ray: many at once, local or cluster. inprocess: one by one. worker: see `ecgscale work`."),
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, or auto; by default a local one is started.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of the local Ray; by default all.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per trial.")] = 1,
    trials_per_gpu: Annotated[
        int | None, typer.Option(min=1, help="Trials that share one GPU; by default what fits its memory and time.")
    ] = None,
    gpu_memory_gib: Annotated[
        float | None, typer.Option(min=1, help="Of the smallest GPU; by default what nvidia-smi says there.")
    ] = None,
    wait_for_gpus: Annotated[
        bool,
        typer.Option("--wait-for-gpus", help="The cluster starts nodes with GPUs when it is asked to."),
    ] = False,
    ship_results: Annotated[
        bool,
        typer.Option("--ship-results", help="Rows travel back by Ray: nodes don't see the results folder."),
    ] = False,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Start Ray's dashboard; prints URL and login.")
    ] = False,
    budget_gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Start nothing that would make the folder's device hours exceed this.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="Start nothing after this: 2026-12-01T08:00, or 8h from now.")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="disabled, offline or online; by default WANDB_MODE, else disabled.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out records that are all zero or not a number.")
    ] = False,
    order: StartingOrder = "longest-first",
    together: Together = None,
    processes: Annotated[int, typer.Option(min=1, help="With --executor worker: how many, on this machine.")] = 1,
    lease: LeaseSeconds = 60.0,
    checkpoint_s: CheckpointSeconds = 300.0,
    hang_s: HangSeconds = 1800.0,
    as_json: Json = False,
) -> None:
    """Run every trial of a sweep that has no completed row yet. Safe to run twice, and after any crash.

    Several at once on one results folder, from several machines too, share the work.

    Diverged trials are left alone, see `ecgscale retry`. What the machine caused is tried again after a pause.

    Exit status 3 if a trial failed; the others have run. 4 if one bug failed three
    trials, or the budget or the deadline was reached: the others were not started.

    Example: [bold]ecgscale sweep sweeps/grid_small.yaml --data data/synthetic --out results/grid_small[/bold]
    """
    from ecgscale.budget import parse_deadline
    from ecgscale.console import show_ended, sweep_progress
    from ecgscale.console_plan import show_plan
    from ecgscale.execution import Execution
    from ecgscale.executors.leftovers import clear_away
    from ecgscale.executors.slots import Slots, gpus_here
    from ecgscale.plan import CPU_CORE, GPU
    from ecgscale.provenance import public_argv
    from ecgscale.results import require_writable
    from ecgscale.side_by_side import SideBySide
    from ecgscale.specs import load_grid
    from ecgscale.sweep import execute, keep_sweep_file
    from ecgscale.tracking import wandb_mode

    last_start = parse_deadline(deadline) if deadline is not None else None
    grid = load_grid(sweep_file)
    folder = out or Path("results") / grid.name
    mode = wandb_mode(wandb)
    if mode != "disabled" and (together or 1) > 1:
        raise EcgscaleError(f"--together {together}: a process tracks one run; with it, --wandb disabled")
    require_writable(folder)
    device = None if address else GPU if wait_for_gpus or gpus_here() else CPU_CORE
    backlog = _backlog(sweep_file, data, folder, order, skip_bad=skip_bad, device=device)
    keep_sweep_file(sweep_file, folder)
    if not as_json:
        show_plan(backlog, as_json=False)
    ended: list[Ended] = []
    stopped = None
    slots = Slots(trials_per_gpu, gpu_memory_gib, wait_for_gpus, ship_results)
    gate = _gate(backlog, slots, budget_gpu_hours, last_start)
    side_by_side = SideBySide.planned(backlog.plan.trials, together if mode == "disabled" else 1)
    if backlog.todo:
        execution = Execution(
            data.absolute(),
            folder.absolute(),
            grid.name,
            threads,
            mode,
            lease_s=lease,
            checkpoint_s=checkpoint_s,
            hang_s=hang_s,
            argv=public_argv(sys.argv),
            config_hash=grid.identity(),
            ways=side_by_side.ways(backlog.plan.trials),
        )
        if executor == "ray":
            _start_ray(address, cpus, dashboard, quiet=as_json)
        try:
            with sweep_progress(backlog, quiet=as_json) as report:

                def note(end: Ended) -> None:
                    ended.append(end)
                    report(end)

                stopped = execute(
                    backlog.todo,
                    execution,
                    note,
                    executor=executor,
                    slots=slots,
                    processes=processes,
                    gate=gate,
                    together=side_by_side,
                )
        except KeyboardInterrupt:
            pass
    clear_away(folder, backlog.settled | {end.trial_id for end in ended if end.is_settled})
    show_ended(backlog, ended, as_json)
    if stopped is not None:
        then = (
            "the same command with more"
            if gate is not None and gate.closed == stopped
            else "mend it, then the same command"
        )
        print(f"stopped: {stopped}\n{then} goes on: {' '.join(sys.argv)}", file=sys.stderr)
        raise typer.Exit(EXIT_SAME_BUG)
    if len(ended) < len(backlog.todo):
        print(f"interrupted: finished trials are kept, the same command goes on: {' '.join(sys.argv)}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)
    if backlog.diverged or any(end.status != "completed" for end in ended):
        raise typer.Exit(EXIT_TRIALS_FAILED)


@app.command()
def work(
    sweep_file: SweepFile,
    data: DataDir,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder; by default results/NAME.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Workers on this machine; they take its GPUs in turn.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per trial.")] = 1,
    wandb: Annotated[
        str | None, typer.Option(help="disabled, offline or online; by default WANDB_MODE, else disabled.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out records that are all zero or not a number.")
    ] = False,
    together: Together = None,
    order: StartingOrder = "longest-first",
    lease: LeaseSeconds = 60.0,
    checkpoint_s: CheckpointSeconds = 300.0,
    hang_s: HangSeconds = 1800.0,
    as_json: Json = False,
) -> None:
    """Work on a sweep together with all others that see the results folder; needs no server and no Ray.

    Start it as often and wherever you like. It ends when every trial has ended somewhere, and takes over
    what others leave behind when they are killed. Exit statuses as of `ecgscale sweep`.

    Example: [bold]ecgscale work sweeps/grid_small.yaml --data data/synthetic --out results/grid_small[/bold]
    """
    sweep(
        sweep_file,
        data,
        out,
        executor="worker",
        processes=processes,
        threads=threads,
        together=together,
        wandb=wandb,
        skip_bad=skip_bad,
        order=order,
        lease=lease,
        checkpoint_s=checkpoint_s,
        hang_s=hang_s,
        as_json=as_json,
    )


@export_app.command("slurm")
def export_slurm(
    sweep_file: SweepFile,
    data: DataDir,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder; by default results/NAME.")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of the array, each a worker.")] = 4,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per task.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs per task.")] = 4,
    time: Annotated[str, typer.Option(help="Time limit of a task, in Slurm's forms.")] = "24:00:00",
    mem: Annotated[str, typer.Option(help="Memory per task.")] = "16G",
    processes: Annotated[int | None, typer.Option(min=1, help="Workers per task; by default one per GPU.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per trial.")] = 1,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account.")] = None,
) -> None:
    """Print a Slurm array script whose tasks work on the sweep together.

    Example: [bold]ecgscale export slurm sweeps/grid_small.yaml --data data/synthetic --tasks 8 > sweep.sbatch[/bold]
    """
    from ecgscale.slurm import Array, script
    from ecgscale.specs import load_grid

    name = load_grid(sweep_file).name
    array = Array(tasks, gpus, cpus, time, mem, processes, threads, partition, account)
    print(script(sweep_file, data, out or Path("results") / name, name, array), end="")


@export_app.command("encoder")
def export_encoder(
    trial: Annotated[str, typer.Argument(help="A trial's label or id, as `status` prints them.")],
    folder: Results,
    out: Annotated[Path, typer.Option("--out", help="For example data/encoders/NAME.ckpt.")],
) -> None:
    """Copy the weights of a trained encoder into the data directory, for sweeps that begin with them.

    A sweep names it as `axes: {start: [scratch, {encoder: NAME}, {encoder: NAME, frozen: true}]}`.

    Example: [bold]ecgscale export encoder resnet-ssl-20K-f1-s0 results/grid_small --out data/encoders/ssl.ckpt[/bold]
    """
    from ecgscale import encoders, results

    record = results.attempts_at(results.read(folder), trial)[-1]
    encoders.export(folder, record.trial_id, out)
    print(f"written: {out}, the weights of {record.label}")


@app.command()
def status(
    folder: Results,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew until nothing is left to do.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --watch.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Say how far a sweep is, from its results folder alone: done, running, missing, failed, why and what to do.

    Works from any machine that sees the folder, while the sweep runs on others.

    Example: [bold]ecgscale status results/grid_small --watch[/bold]
    """
    from ecgscale import results
    from ecgscale.console_status import show_status, watch_status
    from ecgscale.status import Watched

    folders = [Watched(found) for found in results.sweep_folders(folder)]
    if watch:
        watch_status(folders, every, as_json)
    else:
        show_status(folders, as_json)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A trial's label or id, as `status` prints them.")],
    folder: Results,
    as_json: Json = False,
) -> None:
    """Print all that is known of one trial: outcome, plan, provenance, spec, scores and every attempt.

    Example: [bold]ecgscale show resnet-sl-20K-f1-k6-s0 results/grid_small[/bold]
    """
    from ecgscale import results
    from ecgscale.console_status import show_trial

    show_trial(results.attempts_at(results.read(folder), trial), as_json)


@app.command()
def retry(
    folder: Results,
    classes: Annotated[
        str,
        typer.Option("--class", help="Of these, comma-separated: out_of_memory, diverged, data, infrastructure, bug."),
    ],
    label: Annotated[str, typer.Option("--label", help="Only trials whose label fits, for example 'resnet-*'.")] = "*",
    as_json: Json = False,
) -> None:
    """Mark failed trials to be run again by the next `ecgscale sweep`, diverged ones too.

    Example: [bold]ecgscale retry results/grid_small --class diverged --label 'resnet-*'[/bold]
    """
    from ecgscale import results
    from ecgscale.failures import failure_classes

    wanted = failure_classes(classes)
    marked = results.ask_retries(folder, results.outcomes(folder), wanted, label)
    if as_json:
        print(json.dumps({"folder": str(folder), "marked": [record.label for record in marked]}))
        return
    for record in marked:
        print(f"  {record.label} ({record.trial_id}): {record.failure_class}")
    print(f"{len(marked)} marked" + (", the next `ecgscale sweep` runs them again" if marked else ""))


# --- laws and report -----------------------------------------------------------------------------------------------


def _print_schema(wanted: bool) -> None:
    if wanted:
        print(Path(__file__).with_name("fits.schema.json").read_text(encoding="utf-8"), end="")
        raise typer.Exit


@app.command("fit-laws")
def fit_laws(
    path: Annotated[Path, typer.Argument(help="A results folder, the folder of all of them, or a CSV/parquet table.")],
    n: Annotated[str, typer.Option("--n", help="Table: column of N.")] = "n_params",
    d: Annotated[str, typer.Option("--d", help="Table: column of D.")] = "n_records",
    loss: Annotated[str, typer.Option("--loss", help="Table: column of the loss.")] = "loss",
    x: Annotated[str | None, typer.Option("--x", help="Table: column of the variable of a one-variable law.")] = None,
    y: Annotated[str | None, typer.Option("--y", help="Table: what --x explains; the same as --loss.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", help="Table: LOSS_X:LOSS_Y, a loss-to-loss law; may be repeated.")
    ] = None,
    pair_by: Annotated[
        str | None, typer.Option(help="Table: --pair names two values of this column, not two loss columns.")
    ] = None,
    match: Annotated[
        str, typer.Option(help="With --pair-by: columns in which the two runs of a pair agree, comma-separated.")
    ] = "",
    floor_x: Annotated[float | None, typer.Option(help="Known floor E0 of a pair; with --floor-y.")] = None,
    floor_y: Annotated[float | None, typer.Option(help="Known floor E1 of a pair; with --floor-x.")] = None,
    by: Annotated[str, typer.Option("--by", help="Table: columns that tell the groups apart, comma-separated.")] = "",
    law: Annotated[
        str,
        typer.Option(
            "--law",
            help="Forms, comma-separated; by default chinchilla, or power with --x; of several, AICc says which.",
        ),
    ] = "",
    objective: Annotated[
        Literal["auto", "huber", "lad", "lsq", "lsq_raw"],
        typer.Option(help="auto: Huber with delta from the residuals. All but lsq_raw are of log residuals."),
    ] = "auto",
    delta: Annotated[float | None, typer.Option(min=0, help="Where Huber turns linear, for example 1e-3.")] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Fit with every objective and flag where they disagree.")
    ] = False,
    drop_highest: Annotated[int, typer.Option(min=0, help="Table: leave out the K highest losses of a group.")] = 0,
    weights: Annotated[str | None, typer.Option(help="Table: column of weights; 2 counts as two copies.")] = None,
    sigma: Annotated[
        str | None, typer.Option(help="Table: column with the standard deviation of the log loss.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Table: column of the run, for checkpoints: resampled together.")
    ] = None,
    bootstrap: Bootstrap = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the fits as JSON to this file; - prints. See --schema.")
    ] = None,
    figures: Annotated[Path | None, typer.Option("--figures", help="Write every figure as PDF here.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", callback=_print_schema, is_eager=True, help="Print the JSON's schema and exit.")
    ] = False,
) -> None:
    """Fit scaling laws, with bootstrap intervals, flags for what the points don't hold, and a hold-out check.

    Of a results folder: L(N), L(D) and L(N, D) for the in-distribution loss and every transfer target, and the
    loss-to-loss laws from in to out of distribution; figures go to FOLDER/figures. Of a table: what the columns say.

    Example: [bold]ecgscale fit-laws results/[/bold]

    Example: [bold]ecgscale fit-laws table.csv --n N --d D --loss loss --by corpus --law chinchilla,kaplan[/bold]

    Example: [bold]ecgscale fit-laws table.csv --pair loss_a:loss_b --floor-x 1.7 --floor-y 0.8 --objective lsq[/bold]

    Example: [bold]ecgscale fit-laws table.csv --x C --y n_opt --law power --sigma s --objective lsq[/bold]
    """
    from ecgscale.console import spinner
    from ecgscale.console_laws import show_fits
    from ecgscale.fitted import Method
    from ecgscale.sweep_laws import studies
    from ecgscale.tables import Columns, law_study, matched_study, pair_study

    laws = [name for name in law.split(",") if name]
    method = Method("huber" if objective == "auto" else objective, delta, bootstrap, seed, drop_highest, side_by_side)
    if path.is_file():
        groups = tuple(c for c in by.split(",") if c)
        columns = Columns(y or loss, n, d, x, groups, weights, sigma, cluster)
        if pair:
            named, floors = [_pair(words) for words in pair], _floors(floor_x, floor_y)
            if pair_by is not None:
                keys = [name for name in match.split(",") if name] or [n, d]
                made = [matched_study(path, named, columns, method, pair_by=pair_by, match=keys, floors=floors)]
            else:
                made = [pair_study(path, named, columns, method, floors)]
        else:
            made = [law_study(path, columns, laws or ["chinchilla" if x is None else "power"], method)]
    else:
        with spinner("fitting"):
            made = list(studies(path, method, laws or ("chinchilla",)))
    if json_file is not None:
        parts = [study.to_dict() for study in made]
        text = json.dumps({key: [entry for part in parts for entry in part[key]] for key in parts[0]})
        if str(json_file) == "-":
            print(text)
            return
        json_file.write_text(text)
    for study in made:
        show_fits(study)
        target = figures or (study.folder / "figures" if study.folder is not None else None)
        if target is not None:
            from ecgscale.figures import MAIN_KINDS, write_figures

            written = write_figures(study, target, None if figures is not None else MAIN_KINDS)
            if written:
                print(f"figures in {target}: {', '.join(path.name for path in written)}")


def _floors(floor_x: float | None, floor_y: float | None) -> tuple[float, float] | None:
    if floor_x is None and floor_y is None:
        return None
    if floor_x is None or floor_y is None:
        raise EcgscaleError("give both --floor-x and --floor-y, or neither: then both are fitted, from --n and --d")
    return floor_x, floor_y


def _pair(words: str) -> tuple[str, str]:
    x, colon, y = words.partition(":")
    if not (x and colon and y):
        raise EcgscaleError(f"--pair {words!r}: two columns with a colon between them, for example loss_a:loss_b")
    return x, y


@app.command()
def report(
    folder: Results,
    bootstrap: Bootstrap = 1000,
    tex: Annotated[bool, typer.Option("--tex", help="Also tables of verdicts and laws for LaTeX.")] = False,
    as_json: Json = False,
) -> None:
    """Decide the study's conclusions on a results folder and write them up, as one page that opens from disk.

    RESULTS/report/ holds index.html, laws, runs and transfer scores as CSV and JSON, and every figure as PDF and PNG
    with its numbers as CSV.

    Example: [bold]ecgscale report results/grid_small[/bold]; a quick look: [bold]--bootstrap 100[/bold]
    """
    from ecgscale.console import print_json, steps_progress
    from ecgscale.fitted import Method
    from ecgscale.report import write_report

    with steps_progress(silent=as_json) as progress:
        made = write_report(folder, with_tex=tex, method=Method(bootstrap=bootstrap), progress=progress)
    if as_json:
        print_json([one.to_dict() for one in made])
        return
    for one in made:
        for conclusion in one.conclusions:
            print(f"{conclusion.verdict:<13}{conclusion.question}")
        print(f"written: {one.files[-1]} and {len(one.files) - 1} more files")


@app.command()
def simulate(
    sweep_file: SweepFile,
    truth: Annotated[Path, typer.Option(help="YAML with the laws to draw from; see docs/fitting.md.")],
    out: Annotated[Path, typer.Option("--out", help="Results folder to write; one that holds rows is refused.")],
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw a results folder from known laws: would this grid decide the question? Nothing is trained.

    `ecgscale report` then says what could be concluded, beside a truth that is known.

    Example: [bold]ecgscale simulate sweeps/grid_paper.yaml --truth truth.yaml --out results/simulated[/bold]
    """
    from ecgscale.console import print_json
    from ecgscale.planted import load_truth, write_simulated

    n_rows = write_simulated(sweep_file, load_truth(truth), out, seed)
    if as_json:
        print_json({"written": str(out), "n_rows": n_rows})
    else:
        print(f"written: {n_rows} simulated rows in {out}; next: ecgscale report {out}")


# --- shared --------------------------------------------------------------------------------------------------------


def _backlog(
    sweep_file: Path,
    data: Path | None,
    out: Path | None,
    order: Order,
    *,
    skip_bad: bool = False,
    calibration: Path | None = None,
    device: Device | None = None,
) -> Backlog:
    from dataclasses import replace

    from ecgscale.calibration import CALIBRATION_FILE, Calibration
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
    kept = (out or Path("results") / grid.name) / CALIBRATION_FILE
    if calibration is None and kept.exists():
        calibration = kept
    measured = Calibration.load(calibration) if calibration is not None else None
    return backlog(replace(made, order=order), out, measured, device)


def _gate(
    backlog: Backlog, slots: Slots, budget_gpu_hours: float | None, deadline: datetime.datetime | None
) -> Gate | None:
    from ecgscale.budget import Gate
    from ecgscale.plan import CPU_CORE, GPU, GPU_MEMORY_GIB

    if budget_gpu_hours is None and deadline is None:
        return None
    trials = backlog.plan.trials
    device = GPU if any(cell.gpu_from != "assumed" for cell in trials) else CPU_CORE
    expected_s = {cell.spec.trial_id: cell.seconds(device) for cell in trials}
    memory_gib = slots.gpu_memory_gib or GPU_MEMORY_GIB
    share = {cell.spec.trial_id: slots.share(cell.spec, memory_gib) for cell in trials} if device is GPU else {}
    spent_s = sum(seconds * share.get(trial_id, 1.0) for trial_id, seconds in backlog.spent_s.items())
    budget_s = budget_gpu_hours * 3600 if budget_gpu_hours is not None else None
    return Gate(expected_s, share, budget_s, spent_s, deadline)


def _start_ray(address: str | None, cpus: int | None, dashboard: bool, *, quiet: bool) -> None:
    from ecgscale.executors import ray

    url = ray.start(ray.Cluster(address, cpus, dashboard))
    if dashboard and url and not quiet:
        print(f"Ray dashboard: {url}  (log in with the token that `ray get-auth-token` prints)")


if __name__ == "__main__":
    main()
