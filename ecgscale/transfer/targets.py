"""What is read out: one target per task, or per column of a multilabel task, and the labels that may be used for it.

Nothing here looks at a feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.data.splits import PARTS, TRAIN, balanced_positions
from ecgscale.data.tasks import task_target
from ecgscale.specs import TaskSpec

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Target:
    """One value per record, and the training records whose value a read-out may know.

    Attributes:
        name: `task:column` for a column of a multilabel task.
        kind: binary, multiclass or regression.
        seen: the column is one of the labels that the grid's supervised arms may be trained on. It says which class of
            tasks this one is averaged with, and arms are compared on such averages, so it must be the same for every
            arm, whatever this encoder was trained on; that is `trained_on`.
        trained_on: the column is one of the labels this very encoder was trained on; None if that was not said.
        values: part → `(record,)`, NaN where there is no value.
        label_fraction: the share of the training patients with a value whose values may be known.
        train: the training records that are left, in order.
    """

    population: str
    task: TaskSpec
    name: str
    kind: str
    column: str
    seen: bool
    trained_on: bool | None
    values: Mapping[str, Floats]
    label_fraction: float
    train: Rows

    def rows(self, part: str) -> Rows:
        """The records of a part that take part in this read-out."""
        return self.train if part == TRAIN else np.flatnonzero(~np.isnan(self.values[part]))

    def known(self, part: str) -> Floats:
        """Their values."""
        return self.values[part][self.rows(part)]

    @property
    def n_classes(self) -> int:
        return len(self.task.classes)

    @property
    def constant(self) -> Floats:
        """What predicts best without looking, from the known training values.

        A prevalence has one imagined record of each class added, so that no class is impossible.
        """
        y = self.known(TRAIN)
        if self.kind == "regression":
            return np.asarray(y.mean())
        if self.kind == "multiclass":
            return (np.bincount(y.astype(int), minlength=self.n_classes) + 1) / (len(y) + self.n_classes)
        return np.asarray((y.sum() + 1) / (len(y) + 2))

    @property
    def variance(self) -> float:
        """Of all training values, whatever the label fraction: the unit of a regression's loss."""
        return max(float(np.nanvar(self.values[TRAIN])), 1e-300)

    def why_not(self) -> str | None:
        """Why nothing can be fitted or scored here, if so."""
        for part in PARTS:
            if not len(self.rows(part)):
                return f"no {part} record has a value"
        return "every training record has the same value" if len(np.unique(self.known(TRAIN))) < 2 else None


def targets(
    population: str,
    tasks: Sequence[TaskSpec],
    exams: Mapping[str, pd.DataFrame],
    *,
    seen_labels: tuple[str, ...],
    trained_on: tuple[str, ...] | None,
    label_fractions: Sequence[float],
) -> list[Target]:
    """Every task, column by column, at every label fraction.

    Args:
        exams: part → one row per record.

    Raises:
        DataError: a task's column is missing or can't be understood.
    """
    found = []
    for task in tasks:
        values = {part: task_target(table, task, population) for part, table in exams.items()}
        for k, column in enumerate(task.columns or (str(task.column),)):
            multilabel = task.kind == "multilabel"
            own = {part: array[:, k] if multilabel else array for part, array in values.items()}
            name = f"{task.name}:{column}" if multilabel else task.name
            for fraction in label_fractions:
                found.append(
                    Target(
                        population=population,
                        task=task,
                        name=name,
                        kind="binary" if multilabel else task.kind,
                        column=column,
                        seen=column in seen_labels,
                        trained_on=None if trained_on is None else column in trained_on,
                        values=own,
                        label_fraction=fraction,
                        train=labelled(own[TRAIN], exams[TRAIN], fraction, task.kind, name),
                    )
                )
    return found


def labelled(values: Floats, exams: pd.DataFrame, fraction: float, kind: str, name: str) -> Rows:
    """The records with a value, of a share of their patients; a smaller share lies within every larger one.

    Patients are drawn class by class (that of their first exam), so that every share has its part of the rare class.
    """
    there = np.flatnonzero(~np.isnan(values))
    if fraction == 1 or not len(there):
        return there
    patient = patients(exams)[there]
    _, first, number = np.unique(patient, return_index=True, return_inverse=True)
    stratum = np.zeros(len(first)) if kind == "regression" else values[there][first]
    position = np.zeros(len(first))
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        members = members[np.argsort(first[members])]  # in the order of the table
        digest = hashlib.blake2b(f"labelled:{name}:{value:g}".encode(), digest_size=4).digest()
        position[members] = balanced_positions(len(members), int.from_bytes(digest, "big"))
    return there[(position < fraction)[number]]


def patients(exams: pd.DataFrame) -> Rows:
    """A number per patient; every record is a patient where the table does not say."""
    if "patient_id" not in exams:
        return np.arange(len(exams))
    number, _ = pd.factorize(exams["patient_id"], use_na_sentinel=False)
    return np.asarray(number, dtype=np.intp)
