"""Who may import whom, and that looking at results needs neither torch nor Ray."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ecgscale.results import append

PACKAGE = Path(__file__).parent.parent / "ecgscale"

ROOMS: dict[str, tuple[set[str], set[str]]] = {
    # room: (our own rooms, third-party packages); the standard library is free, a room may import itself
    "errors": (set(), set()),
    "conventions": (set(), set()),
    "preemption": (set(), set()),
    "tensor_file": (set(), {"torch"}),
    "turns": (set(), set()),
    "checkpoint": ({"execution", "tensor_file", "turns"}, {"torch"}),
    "encoders": ({"checkpoint", "errors", "results", "spec_base", "tensor_file", "training"}, {"torch"}),
    "execution": (set(), set()),
    "provenance": (set(), set()),
    "failures": ({"errors"}, set()),
    "yaml_text": ({"errors"}, {"yaml"}),
    "ladder": ({"conventions", "errors"}, set()),
    "ready_made_tasks": ({"conventions"}, set()),
    "spec_base": (set(), {"pydantic"}),
    "specs": (
        {"concentrations", "conventions", "errors", "ladder", "ready_made_tasks", "spec_base", "yaml_text"},
        {"pydantic"},
    ),
    "schedule": (set(), set()),
    "calibrating": (
        {"calibration", "conventions", "data", "errors", "execution", "objectives", "plan", "pretraining", "roofline"}
        | {"specs", "stacking", "training"},
        {"numpy", "threadpoolctl", "torch"},
    ),
    "budget": ({"errors"}, set()),
    "spec_changes": ({"results", "specs"}, set()),
    "roofline": ({"plan"}, set()),
    "calibration": ({"errors", "execution", "plan", "results", "specs"}, set()),
    "plan": ({"concentrations", "errors", "execution", "ladder", "schedule", "spec_base", "specs"}, set()),
    "data": ({"conventions", "errors", "plan", "specs"}, {"numpy", "pandas", "scipy"}),
    "data.populations": ({"concentrations", "data", "errors", "plan", "spec_base", "specs"}, set()),
    "data.trace_part": ({"conventions", "data", "errors"}, {"h5py", "numpy"}),
    "data.sources": ({"conventions", "data", "errors"}, {"h5py", "numpy", "pandas"}),
    "data.subjects": ({"conventions", "data", "errors"}, {"h5py", "numpy", "pandas"}),
    "data.wfdb_records": ({"conventions", "data", "errors"}, {"numpy", "wfdb"}),
    "data.store": ({"data", "errors", "specs"}, {"numpy", "pandas", "pyarrow"}),
    "data.stream": ({"data", "turns"}, {"numpy", "torch"}),
    "models": ({"ladder"}, {"torch"}),
    "objectives": ({"concentrations", "ladder", "models", "specs"}, {"torch"}),
    "row_cache": (set(), {"pyarrow"}),
    "records": ({"failures", "spec_base"}, {"pyarrow", "pydantic"}),
    "record_files": ({"errors", "records", "row_cache", "spec_base"}, {"pyarrow", "pydantic"}),
    "transfer_files": ({"record_files", "records", "row_cache"}, {"pyarrow"}),
    "results": (
        {"errors", "failures", "record_files", "records", "row_cache", "spec_base", "specs", "transfer_files"},
        {"pandas", "pyarrow"},
    ),
    "tracking": ({"errors", "execution", "specs"}, {"lightning", "wandb"}),
    "stacking": ({"failures", "objectives"}, {"torch"}),
    "training": (
        {"checkpoint", "data", "execution", "failures", "hangs", "models", "objectives", "preemption", "specs"}
        | {"stacking", "turns"},
        {"lightning", "torch"},
    ),
    "resampling": (set(), {"numpy"}),
    # what heads say and how good it is: the report reads it without torch
    "concentrations": ({"errors", "resampling", "spec_base"}, {"numpy", "pydantic", "scipy"}),
    "concentrations.baselines": ({"data", "errors", "hangs"}, {"numpy", "pandas", "sklearn"}),
    "concentrations.damage": ({"objectives"}, {"torch"}),
    "concentrations.delineation": ({"data"}, {"numpy", "scipy"}),
    "concentrations.features": ({"conventions", "data", "hangs"}, {"numpy", "pandas"}),
    "concentrations.heads": ({"concentrations"}, {"torch"}),
    "concentrations.measured": ({"data", "errors"}, {"numpy", "pandas"}),
    "concentrations.records": ({"concentrations", "data", "errors", "specs"}, {"numpy", "pandas"}),
    "prediction_files": (
        {"concentrations", "errors", "record_files", "spec_base", "specs"},
        {"numpy", "pandas", "pyarrow"},
    ),
    "classical": (
        {"concentrations", "data", "errors", "prediction_files", "preemption", "specs"},
        {"numpy", "pandas"},
    ),
    "predicting": (
        {"classical", "concentrations", "data", "objectives", "prediction_files", "preemption", "records"}
        | {"specs", "training"},
        {"numpy", "pandas", "torch"},
    ),
    "target_study": (
        {"concentrations", "data", "errors", "prediction_files", "resampling", "results", "specs"},
        {"numpy", "pandas"},
    ),
    "transfer": ({"data", "hangs", "models", "resampling", "results", "specs"}, {"numpy", "pandas", "torch"}),
    "feature_files": (set(), {"numpy"}),
    "encoder_scores": (
        {
            "conventions",
            "data",
            "feature_files",
            "hangs",
            "ladder",
            "models",
            "objectives",
            "preemption",
            "provenance",
            "records",
        }
        | {"specs", "training", "transfer"},
        {"numpy", "torch"},
    ),
    "pretraining": (
        {"checkpoint", "concentrations", "data", "encoders", "errors", "execution", "failures", "ladder", "models"}
        | {"objectives", "plan", "predicting", "preemption", "records", "specs", "tracking", "training", "turns"},
        {"lightning", "numpy", "sklearn", "torch"},
    ),
    "trial_rows": (
        {"checkpoint", "concentrations", "execution", "failures", "plan", "pretraining", "provenance", "records"}
        | {"results", "specs", "turns"},
        {"torch"},
    ),
    "trial": (
        {"checkpoint", "data", "encoder_scores", "encoders", "errors", "execution", "failures", "memory", "models"}
        | {"predicting", "prediction_files", "preemption", "pretraining", "provenance", "records", "results", "specs"}
        | {"stacking", "tensor_file", "training", "transfer_files", "trial_rows", "turns"},
        {"pydantic", "threadpoolctl", "torch"},
    ),
    "leases": (set(), set()),
    "hangs": (set(), set()),
    "memory": (set(), set()),
    "slurm": ({"errors"}, set()),
    "side_by_side": ({"execution", "plan", "specs"}, set()),
    "executors": (
        {"budget", "errors", "execution", "failures", "hangs", "leases", "preemption", "results", "specs"}
        | {"checkpoint", "side_by_side", "trial", "turns"},
        set(),
    ),
    "executors.elsewhere": (
        {"execution", "executors", "hangs", "leases", "results", "specs", "transfer_files"},
        set(),
    ),
    "executors.leftovers": ({"hangs", "leases", "prediction_files", "results", "transfer_files"}, set()),
    "executors.shipping": ({"prediction_files", "record_files", "results", "transfer_files"}, set()),
    "executors.slots": ({"plan", "side_by_side", "specs"}, set()),
    "executors.ray": ({"budget", "execution", "executors", "side_by_side", "specs"}, {"ray"}),
    "executors.ray_pool": (
        {"budget", "errors", "execution", "failures", "leases", "memory", "preemption", "results", "schedule", "specs"}
        | {"side_by_side"},
        {"ray"},
    ),
    "executors.ray_slot": (
        {"data", "errors", "execution", "failures", "preemption", "side_by_side", "specs"},
        {"ray"},
    ),
    "sweep": (
        {
            "budget",
            "calibration",
            "spec_changes",
            "errors",
            "execution",
            "executors",
            "failures",
            "plan",
            "preemption",
            "results",
            "side_by_side",
            "specs",
        },
        set(),
    ),
    "words": (set(), set()),
    # learning rates, from small trials
    "learning_rates": ({"errors"}, {"numpy", "scipy"}),
    "tune_lr": ({"errors", "ladder", "learning_rates", "plan", "results", "specs", "yaml_text"}, {"pydantic"}),
    "coordinates": ({"data", "ladder", "plan", "pretraining", "specs"}, {"numpy", "threadpoolctl", "torch"}),
    "laws": ({"errors"}, {"numpy", "scipy"}),
    "fitted": ({"errors", "laws"}, {"pandas"}),
    "study": ({"errors", "fitted", "laws"}, {"pandas"}),
    "findings": ({"errors", "fitted", "ladder", "laws", "study", "words"}, {"numpy", "pandas"}),
    "planted": (
        {"conventions", "errors", "plan", "results", "spec_base", "specs", "yaml_text"},
        {"numpy", "pydantic"},
    ),
    "sweep_laws": (
        {"data", "errors", "fitted", "laws", "prediction_files", "results", "study"},
        {"numpy", "pandas"},
    ),
    "tables": ({"errors", "fitted", "laws", "study"}, {"numpy", "pandas"}),
    "target_findings": (
        {"concentrations", "data", "findings", "laws", "prediction_files", "target_study"},
        {"pandas"},
    ),
    "figures": (
        {"concentrations", "data", "errors", "findings", "fitted", "laws", "prediction_files", "study"}
        | {"target_findings", "target_study", "words"},
        {"matplotlib", "numpy", "pandas"},
    ),
    "check_sheet": ({"conventions", "data", "errors", "figures"}, {"matplotlib", "numpy", "pandas"}),
    "report": (
        {"errors", "figures", "findings", "fitted", "ladder", "laws", "plan", "planted", "results", "specs"}
        | {"status", "study", "sweep", "sweep_laws"}
        | {"concentrations", "data", "prediction_files", "target_findings", "target_study"},
        {"jinja2", "markupsafe", "numpy", "pandas"},
    ),
    "status": ({"failures", "plan", "records", "results", "spec_base", "specs", "sweep"}, set()),
    "console": ({"data", "executors", "plan", "specs", "sweep"}, {"rich"}),
    "console_plan": ({"console", "plan", "roofline", "side_by_side", "sweep"}, {"rich"}),
    "console_lr": ({"console", "coordinates", "ladder", "learning_rates", "tune_lr"}, {"rich"}),
    "console_laws": ({"console", "fitted", "laws", "study"}, {"rich"}),
    "console_status": ({"console", "failures", "ladder", "results", "status"}, {"rich"}),
    "data_cli": (
        {"check_sheet", "cli_options", "concentrations", "console", "data", "errors", "specs"},
        {"pydantic", "typer"},
    ),
    "cli_options": (set(), {"typer"}),
    "tune_cli": (
        {"cli_options", "console", "console_lr", "coordinates", "data", "errors", "execution", "executors", "plan"}
        | {"provenance", "record_files", "results", "specs", "sweep", "tune_lr"},
        {"typer"},
    ),
    "cli": (
        {"budget", "calibrating", "calibration", "cli_options", "console_plan", "encoders", "tune_cli"}
        | {"console", "console_laws", "console_status", "data", "data_cli", "errors", "execution", "executors"}
        | {
            "failures",
            "figures",
            "fitted",
            "plan",
            "planted",
            "provenance",
            "report",
            "results",
            "roofline",
            "side_by_side",
            "slurm",
            "specs",
            "status",
            "sweep",
        }
        | {"sweep_laws", "tables", "tracking"},
        {"typer"},
    ),
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_name(path: Path) -> str:
    """`data.store`; a package is named without its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str | None:
    """The longest entry of the table that holds the module."""
    parts = module.split(".")
    names = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
    return next((name for name in names if name in ROOMS), None)


def imported(path: Path) -> set[str]:
    """Every module a file names, wherever the import stands; `from ecgscale import results` names its room."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            assert node.module is not None
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below if node.module == "ecgscale" else {node.module}
    return found


@pytest.mark.parametrize("path", MODULES, ids=[module_name(path) for path in MODULES])
def test_a_module_imports_only_what_its_room_may(path):
    room = room_of(module_name(path))
    assert room is not None, f"{path.name} is in no room of the table: decide what it may import"
    ours, packages = ROOMS[room]
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "ecgscale":
            first = rest.split(".")[0]
            assert first in ours | {room.split(".")[0]}, f"{path.name} must not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in packages, f"{path.name} must not import {name}"


def test_every_room_of_the_table_exists():
    assert {room_of(module_name(path)) for path in MODULES} == set(ROOMS)


@pytest.mark.parametrize(
    ("room", "never"),
    [
        (("specs", "ladder", "plan", "results", "laws", "study", "sweep"), {"torch", "ray", "matplotlib", "h5py"}),
        (("trial", "training", "transfer", "models", "objectives"), {"ray", "matplotlib"}),
        (("executors", "executors.ray", "executors.ray_pool"), {"lightning", "torch", "matplotlib"}),
        (("executors.ray_slot", "executors.slots"), {"lightning", "torch", "matplotlib"}),
        (("figures", "report", "console", "cli"), {"torch", "ray", "lightning"}),
        (("data",), {"ray", "lightning"}),
        (("concentrations", "resampling"), {"torch", "ray", "lightning", "matplotlib", "sklearn"}),
    ],
)
def test_the_table_keeps_heavy_packages_in_their_rooms(room, never):
    """Whoever extends the table is told what it is for."""
    for name in room:
        assert not ROOMS[name][1] & never


def test_laws_know_arrays_only():
    assert ROOMS["laws"] == ({"errors"}, {"numpy", "scipy"})


# --- what a command really loads -----------------------------------------------------------------------------------

COMMANDS = """
import json, sys
from ecgscale import cli
loaded = {}
for arguments in json.loads(sys.argv[1]):
    try:
        cli.app(arguments, standalone_mode=False)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    loaded[" ".join(arguments[:1])] = [m for m in ("torch", "lightning", "ray", "wandb", "h5py") if m in sys.modules]
    if arguments == ["--help"]:
        loaded["--help"] += [m for m in ("numpy", "pandas", "scipy", "pydantic", "pyarrow") if m in sys.modules]
print("LOADED", json.dumps(loaded))
"""


def test_looking_needs_neither_torch_nor_ray(tmp_path, make_record, tiny_sweep):
    """`--help`, `plan`, `status` and `fit-laws` in one process; what each has loaded by then."""
    folder = tmp_path / "results" / "tiny"
    for n, n_params in enumerate((20_000, 60_000, 200_000)):
        for m, n_records in enumerate((300, 600, 1200, 2400)):
            loss = 0.1 + 3 * n_params**-0.3 + 2 * n_records**-0.4
            row = {"n_params": n_params, "n_records": n_records, "id_loss": loss, "transfer": ()}
            append(folder, make_record(trial_id=f"{n}{m}", **row))
    commands = [
        ["--help"],
        ["plan", str(tiny_sweep)],
        ["status", str(folder)],
        ["show", "00", str(folder)],
        ["retry", str(folder), "--class", "bug"],
        ["fit-laws", str(folder), "--bootstrap", "2"],
        ["report", str(folder)],
    ]
    command = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    line = next(line for line in ended.stdout.splitlines() if line.startswith("LOADED "))
    assert json.loads(line.removeprefix("LOADED ")) == {arguments[0]: [] for arguments in commands}
    assert "alpha" in ended.stdout  # the laws were fitted, not refused


def test_planning_with_data_needs_no_torch(tmp_path, tiny_sweep, data_dir):
    command = [sys.executable, "-c", COMMANDS, json.dumps([["plan", str(tiny_sweep), "--data", str(data_dir)]])]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert '{"plan": ["h5py"]}' in ended.stdout
