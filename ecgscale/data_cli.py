"""`ecgscale data …`: synth · import · check · targets · pack.

Imports live inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ecgscale.cli_options import Json
from ecgscale.errors import DataError

if TYPE_CHECKING:
    from ecgscale.data.sources.source import ArrayLayout
    from ecgscale.specs import InputSpec

data_app = typer.Typer(
    no_args_is_help=True, help="Make, import, check and pack ECG records. One folder per population, in CODE format."
)

Jobs = Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core. Changes no byte.")]
Kind = Annotated[str, typer.Option(help="Kind of source; auto recognises it by its files.")]
Records = Annotated[str, typer.Option(help="Record names to take (a glob), for example 'E*' for Georgia.")]
MvPerUnit = Annotated[
    float | None, typer.Option(help="Millivolts per stored unit; the CODE releases store 2 × mV, so 0.5.")
]

EXIT_BAD_DATA = 1


@data_app.command("synth")
def synth(
    out: Annotated[Path, typer.Option("--out", help="Data directory to write the populations A and B into.")],
    n_a: Annotated[
        int, typer.Option("--n-a", min=1, help="Records of population A, which models are trained on.")
    ] = 3200,
    n_b: Annotated[int, typer.Option("--n-b", min=1, help="Records of population B, for transfer.")] = 1200,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    jobs: Jobs = 0,
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
def import_(
    source: Annotated[Path, typer.Argument(help="Folder of the source, as it was downloaded.")],
    out: Annotated[Path, typer.Option("--out", help="Population folder to write.")],
    kind: Kind = "auto",
    records: Records = "*",
    mv_per_unit: MvPerUnit = None,
    crop: Annotated[
        Literal["center", "start", "refuse"], typer.Option(help="Which 10.24 s of a longer record are kept.")
    ] = "center",
    pad: Annotated[
        Literal["both", "end", "refuse"], typer.Option(help="Where a shorter record is filled with zeros.")
    ] = "both",
    fs_hz: Annotated[float | None, typer.Option(help="Plain arrays: sampling rate. Makes the kind 'arrays'.")] = None,
    axes: Annotated[str, typer.Option(help="Plain arrays: order of the axes; 1 for an axis of length one.")] = (
        "record,time,lead"
    ),
    leads: Annotated[str, typer.Option(help="Plain arrays: comma-separated; by default the standard twelve.")] = "",
    unit: Annotated[str, typer.Option(help="Plain arrays: mV, uV, V, zscore, or digital with --scale.")] = "mV",
    scale: Annotated[float, typer.Option(help="Plain arrays: multiplies the stored numbers.")] = 1.0,
    dataset: Annotated[str | None, typer.Option(help="Plain arrays: name of the array in the HDF5.")] = None,
    ids: Annotated[str | None, typer.Option(help="Plain arrays: name of the exam ids in the HDF5.")] = None,
    table: Annotated[str | None, typer.Option(help="Plain arrays: the csv beside them.")] = None,
    jobs: Jobs = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first record that can't be used.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    as_json: Json = False,
) -> None:
    """Turn a source of ECGs into CODE format: 400 Hz, 4,096 samples, 12 leads in the standard order, mV.

    Reads CODE, CODE-15 % (zipped too), CODE-test, SaMi-Trop, PTB-XL, CinC 2020/2021 (Georgia, Chapman, Ningbo, CPSC),
    CPSC 2018, LUDB, MIMIC-IV-ECG, and plain HDF5 or npy arrays. A record that can't be used is refused with its
    reason, listed in provenance.json, and the rest goes on. An import that was killed goes on where it was.

    Example: [bold]ecgscale data import downloads/ludb --out data/real/ludb[/bold]

    Example: [bold]ecgscale data import arrays --out data/mine --fs-hz 250 --axes record,lead,time --unit uV[/bold]
    """
    from ecgscale.console import counted_progress, show_import
    from ecgscale.data.importing import import_source
    from ecgscale.data.sources.source import ArrayLayout, SourceOptions
    from ecgscale.data.standard_form import LengthRule

    layout: ArrayLayout | None = None
    if fs_hz is not None:
        names = tuple(name.strip() for name in leads.split(",") if name.strip())
        layout = ArrayLayout(fs_hz, axes, names, unit, scale, dataset, ids, table)
        kind = "arrays" if kind == "auto" else kind
    options = SourceOptions(records=records, mv_per_unit=mv_per_unit, layout=layout)
    with counted_progress(f"importing {source.name}", "records") as (start, advance):
        summary = import_source(
            source,
            out,
            kind=kind,
            options=options,
            length=LengthRule(crop=crop, pad=pad),
            jobs=jobs,
            strict=strict,
            overwrite=overwrite,
            start=start,
            progress=advance,
        )
    show_import(summary, as_json)


@data_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="A population in CODE format, or a source as it was downloaded.")],
    kind: Kind = "auto",
    records: Records = "*",
    mv_per_unit: MvPerUnit = None,
    pdf: Annotated[
        Path | None, typer.Option("--pdf", help="Write a PDF with the findings, histograms and tracings on ECG paper.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a folder of ECGs: units, gains, lead order, padding, empty leads, duplicates, labels.

    A source that has not been imported is looked at as its own files declare it. Exit status 1 if anything is an
    error.

    Example: [bold]ecgscale data check data/synthetic/A --pdf check.pdf[/bold]
    """
    from ecgscale.console import counted_progress, show_check
    from ecgscale.data.quality import check_path

    with counted_progress(f"checking {folder.name}", "records") as (start, advance):
        report, subject = check_path(
            folder, kind=kind, records=records, mv_per_unit=mv_per_unit, start=start, progress=advance
        )
    if pdf is not None:
        from ecgscale.check_sheet import write_check_sheet

        write_check_sheet(report, subject, pdf)
    show_check(report, pdf, as_json)
    if report.worst == "error":
        raise typer.Exit(EXIT_BAD_DATA)


@data_app.command("pack")
def pack(
    folder: Annotated[Path, typer.Argument(help="A population in CODE format.")],
    sweep: Annotated[Path | None, typer.Option("--sweep", help="Pack for the input of this sweep file.")] = None,
    fs_hz: Annotated[float, typer.Option(min=1, help="Without a sweep: sampling rate.")] = 400,
    n_samples: Annotated[int, typer.Option(min=1, help="Without a sweep: samples per record.")] = 4096,
    bandpass: Annotated[str | None, typer.Option(help="Without a sweep: low,high in Hz, for example 0.5,40.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out records that are all zero or not a number.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every record back and compare checksums.")] = False,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Pack a population into the uncompressed store that training reads; `ecgscale sweep` does it by itself.

    Packing ahead is for big sets: it is resumable, uses every core, and can be done once for a cluster.

    Example: [bold]ecgscale data pack data/code15 --sweep sweeps/grid_medium.yaml[/bold]
    """
    from ecgscale.console import packing_progress, show_pack
    from ecgscale.data.code_format import open_code
    from ecgscale.data.packing import packed
    from ecgscale.data.store import verify as verify_store

    input_spec = _input(sweep, fs_hz, n_samples, bandpass)
    source = open_code(folder, partial=True)
    with packing_progress() as start:
        advance = start(folder.name, len(source.exams))
        store = packed(folder, input_spec, source=source, skip_bad=skip_bad, jobs=jobs, progress=advance)
    if verify:
        verify_store(store)
    show_pack(store, verified=verify, as_json=as_json)


@data_app.command("targets")
def targets(
    folder: Annotated[Path, typer.Argument(help="A population in CODE format.")],
    table: Annotated[
        Path, typer.Argument(help="A csv: exam_id, the target (its name is the column's), unit, [minutes].")
    ],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out values that nobody can have, instead of refusing the file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add your own laboratory values to a population, as a target that sweeps can name by its column.

    `minutes` from the ECG to the blood sample chooses the nearest of several, within an hour. mmol/L, mEq/L, mg/dL and
    umol/L are converted for electrolytes and creatinine; impossible values are refused with their line. Signals are not
    packed again, but trials on the population count as new: add all targets before the first sweep.

    Example: [bold]ecgscale data targets data/stockholm potassium.csv[/bold]
    """
    import json

    from ecgscale.concentrations.measured import read_measured
    from ecgscale.data.code_format import open_code
    from ecgscale.data.targets import add_target

    found = read_measured(table, open_code(folder, partial=True).exams, skip_bad=skip_bad)
    add_target(folder, found.column, found.exam_ids, found.values)
    if as_json:
        said = {"column": found.column, "unit": found.unit, "n_exams": len(found.exam_ids)}
        print(json.dumps(said | {"left_out": dict(found.left_out)}))
        return
    print(f"{folder}: {len(found.exam_ids)} exams have {found.column} ({found.unit})")
    for reason, n_lines in found.left_out.items():
        print(f"  left out: {n_lines} lines, {reason}")


def _input(sweep: Path | None, fs_hz: float, n_samples: int, bandpass: str | None) -> InputSpec:
    from pydantic import ValidationError

    from ecgscale.specs import InputSpec, load_grid

    if sweep is not None:
        return load_grid(sweep).input
    try:
        band = None if bandpass is None else tuple(float(part) for part in bandpass.split(","))
        return InputSpec.model_validate(
            {"fs_hz": fs_hz, "n_samples": n_samples, "patch_samples": n_samples, "bandpass_hz": band}
        )
    except (ValueError, ValidationError) as error:
        raise DataError(f"--fs-hz {fs_hz:g} --n-samples {n_samples} --bandpass {bandpass}: {error}") from None
