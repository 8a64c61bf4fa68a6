"""Which trials train side by side in one process (`turns`): on one stream of records, or stacked (`stacking`)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ecgscale.execution import Way
from ecgscale.plan import PlannedTrial, smoke_trials
from ecgscale.specs import TrialSpec

Group = tuple[TrialSpec, ...]


def stream(spec: TrialSpec) -> Hashable:
    """Equal for trials that are given the same records in the same batches, whatever they learn of them."""
    fingerprint = spec.data_fingerprint.get(spec.train_on)
    records = (spec.train_on, fingerprint, spec.split, spec.data_fraction, spec.target)
    return records, spec.input, spec.train, spec.seed, spec.n_steps


@dataclass(frozen=True)
class SideBySide:
    """Attributes:
    most: trial id → how many take turns, itself included; 1 where it is missing.
    stacked: ids of those that share their steps, with others of their form; the others share a stream.
    fills_slots: fewer where there would be fewer groups than slots.
    """

    most: Mapping[str, int] = field(default_factory=dict)
    stacked: frozenset[str] = frozenset()
    fills_slots: bool = False

    @classmethod
    def planned(cls, trials: Sequence[PlannedTrial], most: int | None = None) -> SideBySide:
        """As the plan says, but for smoke trials, which nothing holds up; or `most` of whatever shares a stream.

        Args:
            trials: of the whole plan, costliest first.
        """
        if most is not None:
            return cls({trial.spec.trial_id: most for trial in trials})
        planned = cls(
            {trial.spec.trial_id: trial.side_by_side for trial in trials},
            frozenset(trial.spec.trial_id for trial in trials if trial.way == "stacked"),
            fills_slots=True,
        )
        return planned.without(spec.trial_id for spec in smoke_trials([trial.spec for trial in trials]))

    def without(self, trial_ids: Iterable[str]) -> SideBySide:
        """The same, but these run alone."""
        alone = dict.fromkeys(trial_ids, 1)
        return replace(self, most={**self.most, **alone}, stacked=self.stacked - alone.keys())

    def ways(self, trials: Iterable[PlannedTrial]) -> dict[str, Way]:
        """How the steps of trials are computed, where not as they stand: compiled as the plan says; stacked if they are
        here."""
        found: dict[str, Way] = {trial.spec.trial_id: "compiled" for trial in trials if trial.way == "compiled"}
        return found | dict.fromkeys(self.stacked, "stacked")

    def groups(self, specs: Sequence[TrialSpec], slots: int = 1) -> list[Group]:
        """All trials in groups, in the order of their first members; most are groups of one.

        Args:
            slots: so many groups run at the same time.
        """
        limit = max(1, len(specs) // slots) if self.fills_slots else len(specs)
        groups: list[list[TrialSpec]] = []
        open_: dict[Hashable, list[TrialSpec]] = {}
        for spec in specs:
            most = min(self.most.get(spec.trial_id, 1), limit)
            shared = spec.form if spec.trial_id in self.stacked else stream(spec)
            key = (most, shared) if most > 1 else spec.trial_id
            group = open_.get(key)
            if group is None or len(group) == most:
                group = open_[key] = []
                groups.append(group)
            group.append(spec)
        return [tuple(group) for group in groups]
