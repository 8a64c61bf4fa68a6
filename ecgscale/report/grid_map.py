"""The grid as a filled map: per arm a table of sizes and data fractions, a mark per seed with what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ecgscale.errors import EcgscaleError
from ecgscale.figures import short
from ecgscale.ladder import RUNGS
from ecgscale.plan import PlannedTrial, plan
from ecgscale.results import RunRecord
from ecgscale.specs import GridSpec, load_grid
from ecgscale.status import Progress, State, Trial, progress
from ecgscale.sweep import SWEEP_FILE

WORDS = {State.DONE: "done", State.RUNNING: "running", State.FAILED: "failed", State.TO_DO: "missing"}


@dataclass(frozen=True)
class Mark:
    """One trial: its state for the eye, and everything else for whoever points at it."""

    state: str
    title: str


@dataclass(frozen=True)
class ArmMap:
    """Rows: data fractions, largest first; columns: rungs, smallest first; a cell: its seeds."""

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


def grid(folder: Path, records: Sequence[RunRecord]) -> Grid:
    """The map of a results folder; what runs at this moment counts as missing."""
    spec, planned, note = None, None, ""
    try:
        spec = load_grid(folder / SWEEP_FILE)
        planned = plan(spec).trials
    except EcgscaleError as error:
        note = f"What was planned is not known, so that nothing counts as missing: {error}"
    state = progress(folder, records, planned, {})
    return Grid(spec, note.replace(f"{folder}/", ""), state, tuple(_arm_maps(state.trials, planned or ())))


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
