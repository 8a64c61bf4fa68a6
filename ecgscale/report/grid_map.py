"""The grid as a filled map: per arm a table of sizes and data fractions, a mark per seed with what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import get_args

from ecgscale.errors import EcgscaleError
from ecgscale.figures import short
from ecgscale.ladder import RUNGS
from ecgscale.plan import PlannedTrial, plan
from ecgscale.results import RunRecord
from ecgscale.specs import GridSpec, Paradigm, TrialSpec, load_grid
from ecgscale.status import Progress, State, Trial, progress
from ecgscale.sweep import SWEEP_FILE

TARGET = "target"
"""The paradigm of trials on a target."""

PARADIGMS = get_args(Paradigm)

WORDS = {State.DONE: "done", State.RUNNING: "running", State.FAILED: "failed", State.TO_DO: "missing"}


@dataclass(frozen=True)
class Mark:
    """One trial: its state for the eye, and everything else for whoever points at it."""

    state: str
    title: str


@dataclass(frozen=True)
class ArmMap:
    """Rows: data fractions, largest first; columns: rungs, smallest first; a cell: its seeds.

    Of a sweep over targets all heads of a family are one map. Rows: heads; columns: targets; a cell: all its trials.
    """

    arm: str
    rungs: tuple[str, ...]
    fractions: tuple[str, ...]
    cells: tuple[tuple[tuple[Mark, ...], ...], ...]


@dataclass(frozen=True)
class Grid:
    """The sweep as it stands. `planned` is None, and `note` says why, where the folder has no readable sweep file."""

    planned: GridSpec | None
    note: str
    progress: Progress
    arms: tuple[ArmMap, ...]

    @property
    def counts(self) -> dict[str, int]:
        """State in words → number of trials."""
        found = self.progress.counts
        return {WORDS[state]: found[state] for state in State if found[state] or state is State.DONE}


def grid(folder: Path, records: Sequence[RunRecord], paradigms: Collection[str] = PARADIGMS) -> Grid:
    """The map of a results folder; what runs at this moment counts as missing.

    Args:
        records: every attempt at trials of these paradigms.
        paradigms: no other trial is on the map.
    """
    spec, planned, note = None, None, ""
    try:
        spec = load_grid(folder / SWEEP_FILE)
        planned = tuple(trial for trial in plan(spec).trials if trial.spec.paradigm in paradigms)
    except EcgscaleError as error:
        note = f"What was planned is not known, so that nothing counts as missing: {error}"
    state = progress(folder, records, planned, {})
    on_targets = set(paradigms) == {TARGET}
    maps = _target_maps(state.trials, planned or (), spec) if on_targets else _arm_maps(state.trials, planned or ())
    return Grid(spec, note.replace(f"{folder}/", ""), state, tuple(maps))


def _arm_maps(trials: Sequence[Trial], planned: Sequence[PlannedTrial]) -> list[ArmMap]:
    specs = {cell.spec.label: cell.spec for cell in planned}
    n_labels = {t.label: len(specs[t.label].labels) if t.label in specs else _recorded(t, "n_labels") for t in trials}
    seeds = {t.label: specs[t.label].seed if t.label in specs else _recorded(t, "seed") for t in trials}
    several = len({n for n in n_labels.values() if n}) > 1
    arms: dict[str, list[Trial]] = {}
    for trial in trials:
        k = n_labels[trial.label]
        arms.setdefault(f"{trial.arm} k={k}" if several and k else trial.arm, []).append(trial)
    return [_arm_map(arm, arms[arm], seeds) for arm in sorted(arms)]


def in_order(names: Iterable[str], declared: Sequence[str]) -> list[str]:
    """Each once; those of a sweep file in its order, then the others as they come."""
    there = dict.fromkeys(names)
    return [*(name for name in declared if name in there), *(name for name in there if name not in declared)]


def _target_maps(trials: Sequence[Trial], planned: Sequence[PlannedTrial], sweep: GridSpec | None) -> list[ArmMap]:
    axes = sweep.axes if sweep is not None else None
    declared_targets = [target.name for target in axes.target] if axes is not None else []
    declared_heads = [head.name for head in axes.head] if axes is not None else []
    specs = {cell.spec.label: cell.spec for cell in planned}
    for trial in trials:
        if trial.label not in specs and isinstance(trial.record, RunRecord):
            specs[trial.label] = TrialSpec.model_validate_json(trial.record.spec)
    cells: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        spec = specs[trial.label]
        assert spec.target is not None and spec.head is not None
        cells.setdefault((spec.family, spec.head.name, spec.target.name), []).append(trial)
    maps = []
    for family in dict.fromkeys(family for family, _, _ in cells):
        targets = in_order((t for f, _, t in cells if f == family), declared_targets)
        heads = in_order((h for f, h, _ in cells if f == family), declared_heads)
        marks = tuple(
            tuple(
                tuple(
                    Mark(WORDS[trial.state], _title(trial, specs[trial.label].seed))
                    for trial in sorted(cells.get((family, head, target), ()), key=lambda t: t.label)
                )
                for target in targets
            )
            for head in heads
        )
        maps.append(ArmMap(family, tuple(targets), tuple(heads), marks))
    return maps


def _recorded(trial: Trial, name: str) -> int:
    return int(getattr(trial.record, name)) if trial.record is not None else 0


def _arm_map(arm: str, trials: Sequence[Trial], seeds: Mapping[str, int]) -> ArmMap:
    order = list(RUNGS)
    rungs = sorted({t.rung for t in trials}, key=lambda rung: order.index(rung) if rung in order else len(order))
    fractions = sorted({t.data_fraction for t in trials}, reverse=True)
    cells = tuple(
        tuple(
            tuple(
                Mark(WORDS[t.state], _title(t, seeds[t.label]))
                for t in sorted(trials, key=lambda t: seeds[t.label])
                if (t.rung, t.data_fraction) == (rung, fraction)
            )
            for rung in rungs
        )
        for fraction in fractions
    )
    return ArmMap(arm, tuple(rungs), tuple(map(as_fraction, fractions)), cells)


def _title(trial: Trial, seed: int) -> str:
    said = f"{trial.arm} {trial.rung}, {as_fraction(trial.data_fraction)} of the records, seed {seed}: "
    said += WORDS[trial.state]
    if trial.loss is not None:
        said += f", loss {short(trial.loss, 4)}"
    if trial.state is State.FAILED and trial.record is not None and trial.record.reason:
        said += f", {trial.record.reason.splitlines()[0]}"
    return said


def as_fraction(share: float) -> str:
    """`1/8`; as a sweep file has it."""
    return str(Fraction(share).limit_denominator(4096))
