"""The populations of a data directory, packed and counted: what a plan needs before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ecgscale.concentrations.records import HeadInputs, Rows, target_values, with_a_value
from ecgscale.data.code_format import open_code
from ecgscale.data.packing import packed
from ecgscale.data.splits import TRAIN, fraction_rows, split_rows
from ecgscale.data.store import PackedStore, Progress
from ecgscale.data.tasks import task_target
from ecgscale.errors import DataError
from ecgscale.plan import Population
from ecgscale.spec_base import file_fingerprint
from ecgscale.specs import GridSpec

StartProgress = Callable[[str, int], Progress]
"""Called with a population's name and size when its packing starts; returns what is called with records done."""


def populations(
    grid: GridSpec, data: Path, *, skip_bad: bool = False, start_progress: StartProgress | None = None
) -> dict[str, Population]:
    """Opens, checks and if need be packs every population a grid names.

    Raises:
        DataError: a folder, a label column or a task column is missing, or records can't be used.
    """
    found = {}
    for name in (grid.data.train_on, *grid.data.transfer_to):
        store = _opened(grid, data, name, skip_bad, start_progress)
        _check_columns(grid, name, store)
        train_rows = _checked_split(grid, name, store)
        found[name] = Population(
            store.header.fingerprint,
            len(store),
            {fraction: len(rows) for fraction, rows in train_rows.items()},
            _checked_targets(grid, name, store, train_rows),
            _encoders(grid, data) if name == grid.data.train_on else {},
        )
    return found


def _checked_split(grid: GridSpec, name: str, store: PackedStore) -> dict[float, Rows]:
    """Data fraction → training records of the population that is trained on; any other's split is only made to see
    that it can be."""
    try:
        if name == grid.data.train_on:
            train = split_rows(store.index, grid.data.split)[TRAIN]
            return {f: fraction_rows(store.index, train, f, grid.data.split) for f in grid.axes.data_fraction}
        if grid.probe.tasks and grid.probe.fit_on == "target":
            split_rows(store.index, grid.data.split, elsewhere=True)
    except DataError as error:
        raise DataError(f"population {name!r}: {error}") from None
    return {}


def _checked_targets(
    grid: GridSpec, name: str, store: PackedStore, train_rows: Mapping[float, Rows]
) -> dict[tuple[str, float], int]:
    """(target, data fraction) → D of the population that is trained on; any other has the columns."""
    found = {}
    for target in grid.axes.target:
        values = target_values(store.index, target, name)
        for fraction, all_rows in train_rows.items():
            rows = with_a_value(all_rows, values)
            for head in grid.axes.head:
                try:
                    HeadInputs.fit(store.index.iloc[rows], target, head, name)
                except DataError as error:
                    raise DataError(f"population {name!r}, data fraction {fraction:.4g}: {error}") from None
            found[target.name, fraction] = len(rows)
    return found


def _encoders(grid: GridSpec, data: Path) -> dict[str, str]:
    """Name → fingerprint of the weights that trainings begin with."""
    found = {}
    for start in grid.axes.start:
        if start == "scratch":
            continue
        path = data / "encoders" / f"{start.encoder}.ckpt"
        try:
            found[start.encoder] = file_fingerprint(path)
        except OSError as error:
            raise DataError(
                f"{path}: can't be read ({error.strerror}); "
                f"`ecgscale export encoder TRIAL RESULTS --out {path}` makes it"
            ) from None
    return found


def _opened(grid: GridSpec, data: Path, name: str, skip_bad: bool, start_progress: StartProgress | None) -> PackedStore:
    folder = data / name
    if not folder.is_dir():
        there = sorted(p.name for p in data.iterdir() if p.is_dir()) if data.is_dir() else []
        raise DataError(
            f"{folder}: no such folder; sweep {grid.name} wants population {name!r}, "
            f"the data directory holds {', '.join(there) or 'none'} (see `ecgscale data --help`)"
        )
    source = open_code(folder)
    progress = start_progress(name, len(source.exams)) if start_progress is not None else None
    return packed(folder, grid.input, source=source, skip_bad=skip_bad, progress=progress)


def _check_columns(grid: GridSpec, name: str, store: PackedStore) -> None:
    """Labels and task targets are there and mean what the sweep takes them for."""
    if name in grid.data.transfer_to or (name == grid.data.train_on and grid.probe.fit_on == "source"):
        for task in grid.probe.tasks:
            task_target(store.index, task, name)
    for label in grid.labels if name == grid.data.train_on and "sl" in grid.axes.paradigm else ():
        if label not in store.index:
            raise DataError(f"population {name!r}: exams.csv has no column {label!r}, a label of sweep {grid.name}")
        if store.index[label].isna().any():
            raise DataError(f"population {name!r}: label {label!r} is empty in some exams; SL needs 0 or 1 in all")
