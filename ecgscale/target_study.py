"""What a sweep over targets and heads has found: every head by the same scores, from the predictions of its networks.

Scores are of the largest networks with the most data, per architecture. `networks` are the seeds, each scored by
itself and averaged; `ensemble` is all of them as one prediction. Intervals are of resampled patients, the same draws
for all that is compared; how far seeds differ stands beside them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgscale import prediction_files, results
from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.decoding import class_probabilities, crossing
from ecgscale.concentrations.estimate import Estimate, quotient
from ecgscale.concentrations.head_counts import n_classes
from ecgscale.concentrations.measures import LEVELS
from ecgscale.concentrations.predictive import Floats, Predictive, ensemble
from ecgscale.concentrations.recalibration import Conformal, Isotonic, VarianceScaling
from ecgscale.concentrations.scores import measure
from ecgscale.concentrations.sparsification import KEPT
from ecgscale.data.splits import TEST, VALIDATION
from ecgscale.errors import EcgscaleError
from ecgscale.prediction_files import CLASSICAL, CLASSICAL_NAMES, CLEAN, Predictions, classical_path
from ecgscale.resampling import Ranking, Rows, sampled
from ecgscale.specs import TrialSpec

NETWORKS, ENSEMBLE = "networks", "ensemble"
N_RESAMPLES = 200
"""Draws of patients per score: enough for two digits of an interval, of thousands of scores."""

SCORES = ("mae", "mse", "r2", "slope", "bias_lowest", "bias_highest", "auroc", "crps", "nll", "error_over_sd")
"""Of every predictive that has them."""

SKILLS = {"skill": "mae", "crps_skill": "crps"}
"""Share of the constant predictor's error that is gone, on the same draws of patients; of which error."""

Progress = Callable[[int, int], None]
"""Called with how many of how many heads have been scored."""


@dataclass(frozen=True)
class Networks:
    """The seeds of one architecture, size and amount of data with one head on one target; or a classical regression,
    whose family is `classical` and whose head has its name."""

    family: str
    rung: str
    n_params: int
    n_records: int
    target: TargetSpec
    head: HeadSpec
    files: Mapping[str, tuple[Path, ...]]
    """Population → one per seed, in the order of the seeds."""

    @property
    def name(self) -> str:
        return f"{self.family}-{self.target.name}-{self.head.name}"

    @property
    def n_classes(self) -> int | None:
        """None for a head that predicts the number."""
        return n_classes(self.head, self.target) if self.head.predicts_classes else None

    def predictions(self, population: str) -> tuple[Predictions, ...]:
        """Raises DataError, naming the file that can't be read."""
        return tuple(prediction_files.read(path) for path in self.files[population])


@dataclass(frozen=True)
class TargetStudy:
    """Tables of everything that was found, one row per number.

    Attributes:
        train_on: the population that was trained on; every other is another hospital.
        networks: what was scored, all seeds of the largest cell per architecture, target and head.
        scores: family, target, unit, head, kind, classes, population, part, condition, who (networks, ensemble or
            classical), recalibration, score, value, low, high, seed_sd, constant.
        curves: of sparsification: …, uncertainty, kept, mae, low, high.
        coverage: …, recalibration, level, covered, low, high, width.
        spreads: of the records by predicted spread: …, recalibration, bin, n_records, sd, rmse, rmse_low, rmse_high.
        points: what the ensembles say of the test records: …, exam_id, truth, predicted, sd.
        notes: what a reader must know.
    """

    name: str
    folder: Path
    train_on: str
    networks: tuple[Networks, ...]
    scores: pd.DataFrame
    curves: pd.DataFrame
    coverage: pd.DataFrame
    spreads: pd.DataFrame
    points: pd.DataFrame
    notes: tuple[str, ...]

    @cached_property
    def targets(self) -> tuple[TargetSpec, ...]:
        return tuple(dict.fromkeys(n.target for n in self.networks))

    @cached_property
    def heads(self) -> tuple[HeadSpec, ...]:
        """Of networks."""
        return tuple(dict.fromkeys(n.head for n in self.networks if n.family != CLASSICAL))

    def table(self, **chosen: str) -> pd.DataFrame:
        """The scores whose columns have these values."""
        rows = self.scores
        for column, value in chosen.items():
            rows = rows[rows[column] == value]
        return rows


def target_study(
    folder: Path,
    records: Sequence[results.RunRecord],
    *,
    n_resamples: int = N_RESAMPLES,
    progress: Progress = lambda _done, _of: None,
) -> TargetStudy:
    """Scores what the networks of a results folder have predicted.

    Args:
        records: every attempt of the sweep.

    Raises:
        EcgscaleError: no completed trial on a target, or predictions can't be read.
    """
    completed = [
        r for r in results.latest(records).values() if r.status == results.Status.COMPLETED and r.paradigm == "target"
    ]
    networks, train_on, notes = _largest(folder, completed)
    if not networks:
        raise EcgscaleError(f"{folder}: no completed trial on a target; `ecgscale status {folder}` says why")
    tables = _Tables(n_resamples)
    for n_done, found in enumerate(networks):
        progress(n_done, len(networks))
        tables.add(found, train_on)
    progress(len(networks), len(networks))
    notes += tables.notes()
    return TargetStudy(folder.name, folder, train_on, networks, **tables.frames(), notes=tuple(notes))


def _largest(folder: Path, completed: Sequence[results.RunRecord]) -> tuple[tuple[Networks, ...], str, list[str]]:
    """Per architecture, target and head the seeds with the most parameters, then the most records."""
    by_arm: defaultdict[str, list[results.RunRecord]] = defaultdict(list)
    for record in completed:
        by_arm[record.arm].append(record)
    found, train_on, notes = [], "", []
    classical: dict[str, tuple[TrialSpec, str]] = {}
    for _, rows in sorted(by_arm.items()):
        size = max((r.n_params, r.data_fraction) for r in rows)
        seeds = sorted((r for r in rows if (r.n_params, r.data_fraction) == size), key=lambda r: r.seed)
        first = seeds[0]
        spec = _as_asked(first)
        assert spec.target is not None and spec.head is not None
        classical |= {f"{spec.target.name}-{name}": (spec, name) for name in CLASSICAL_NAMES}
        train_on = spec.train_on
        files: defaultdict[str, list[Path]] = defaultdict(list)
        for row in seeds:
            for population, read_out in _read_outs(row).items():
                files[population].append(prediction_files.prediction_path(folder, row.trial_id, population, read_out))
        if not files:
            notes.append(f"{first.arm}: trained, and not asked yet; run the sweep again")
            continue
        found.append(
            Networks(
                first.family,
                first.rung,
                first.n_params,
                first.n_records,
                spec.target,
                spec.head,
                {population: tuple(paths) for population, paths in files.items()},
            )
        )
    for spec, name in classical.values():
        paths = {p: classical_path(folder, spec, name, p) for p in (spec.train_on, *spec.transfer_to)}
        there = {population: (path,) for population, path in paths.items() if path.exists()}
        if there and spec.target is not None:
            head = HeadSpec(name=name, kind="gaussian")
            found.append(Networks(CLASSICAL, "", 0, spec.n_records, spec.target, head, there))
    return tuple(found), train_on, notes


def _read_outs(row: results.RunRecord) -> dict[str, str]:
    """Population → identity of what its network was asked there last, which another seed may not have been yet."""
    return {json.loads(spec)["population"]: key for key, spec in zip(row.read_outs, row.read_out_specs, strict=True)}


def _as_asked(row: results.RunRecord) -> TrialSpec:
    """The trial with the populations it was asked on last, and their records."""
    spec = TrialSpec.model_validate_json(row.spec)
    elsewhere = tuple(population for population in _read_outs(row) if population != spec.train_on)
    asked = {"transfer_to": elsewhere, "data_fingerprint": json.loads(row.data_fingerprint)}
    return spec.model_copy(update=asked)


class _Tables:
    """Collects rows of the tables of a study.

    Attributes:
        not_of_all: (population, part, condition) → the networks of which some seeds were not asked that.
    """

    def __init__(self, n_resamples: int) -> None:
        self.n_resamples = n_resamples
        self.not_of_all: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
        self.rows: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("scores", "curves", "coverage", "spreads", "points")
        }

    def frames(self) -> dict[str, pd.DataFrame]:
        return {name: pd.DataFrame(rows) for name, rows in self.rows.items()}

    def notes(self) -> Iterator[str]:
        for (population, part, condition), names in self.not_of_all.items():
            yield (
                f"{population}, {part}, {condition}: left out of {', '.join(names)}, whose seeds were not asked the "
                "same records; run the sweep again"
            )

    def add(self, networks: Networks, train_on: str) -> None:
        for population in networks.files:
            members = networks.predictions(population)
            for part, condition in dict.fromkeys(c for member in members for c in member.conditions):
                if part == VALIDATION:
                    continue
                of_part = [member.of(part, condition) for member in members]
                if not all(own.records.equals(of_part[0].records) for own in of_part):
                    self.not_of_all[population, part, condition].append(networks.name)
                    continue
                where = {
                    "family": networks.family,
                    "target": networks.target.name,
                    "unit": networks.target.unit,
                    "head": networks.head.name,
                    "kind": networks.head.kind,
                    "classes": networks.n_classes,
                    "population": population,
                    "part": part,
                    "condition": condition,
                }
                validation = [m.of(VALIDATION) for m in members] if population == train_on else []
                self._add_part(where, of_part, validation, in_full=(part, condition) == (TEST, CLEAN))

    def _add_part(
        self, where: dict[str, Any], members: list[Predictions], validation: list[Predictions], *, in_full: bool
    ) -> None:
        first = members[0]
        truth, patients = first.truth, first.patients
        seed = f"{where['target']} {where['population']} {where['part']}"
        constant = measure(
            truth, first.scale.marginal(len(first)), patients, first.target.cuts, seed, self.n_resamples
        ).samples

        def note(who: str, recalibration: str, predictives: list[Predictive]) -> None:
            found = [
                measure(truth, p, patients, first.target.cuts, seed, self.n_resamples).samples for p in predictives
            ]
            about = where | {"who": who, "recalibration": recalibration}
            self._scores(about, found, constant)
            if in_full and who == ENSEMBLE:
                self._details(about, found[0])

        singles = [member.predictive() for member in members]
        together = ensemble(singles)
        if where["family"] == CLASSICAL:
            note(CLASSICAL, "", [together])
            return
        note(NETWORKS, "", singles)
        note(ENSEMBLE, "", [together])
        self._own_classes(where | {"who": NETWORKS, "recalibration": ""}, members, seed)
        if not in_full:
            return
        about = where | {"who": ENSEMBLE, "recalibration": ""}
        spread = together.sd if together.has_spread else np.full(len(first), np.nan)
        exams = first.records["exam_id"]
        self.rows["points"] += [
            about | {"exam_id": exam, "truth": true, "predicted": said, "sd": sd}
            for exam, true, said, sd in zip(exams, truth, together.mean, spread, strict=True)
        ]
        self._laplace(where, members, truth, patients, seed)
        if validation:
            held = ensemble([member.predictive() for member in validation])
            for name, applied in _recalibrated(validation[0].truth, held, together, log=first.target.log):
                note(ENSEMBLE, name, [applied])

    def _scores(self, about: dict[str, Any], found: list[dict[str, Floats]], constant: dict[str, Floats]) -> None:
        wanted = [*SCORES, *(name for name in found[0] if name.endswith(("_ause", "_aurg", "_share")))]
        for name in wanted:
            if all(name in samples for samples in found):
                self._score(about, name, [samples[name] for samples in found], constant.get(name))
        for name, error in SKILLS.items():
            skills = [1 - quotient(samples[error], constant[error]) for samples in found]
            self._score(about, name, skills, np.zeros(1))
        if "covered" in found[0]:
            for k, level in enumerate(LEVELS):
                for what in ("covered", "width"):
                    self._score(about, f"{what}_{level:g}", [s[what][k] for s in found], constant[what][k])

    def _score(self, about: dict[str, Any], name: str, samples: list[Floats], constant: Floats | None) -> None:
        estimate = Estimate.of(np.mean(samples, axis=0))
        values = [float(sample[0]) for sample in samples]
        self.rows["scores"].append(
            about
            | {
                "score": name,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "seed_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "constant": None if constant is None else float(constant[0]),
            }
        )

    def _details(self, about: dict[str, Any], samples: dict[str, Floats]) -> None:
        for name in ("total", "aleatoric", "epistemic"):
            if f"{name}_mae" in samples and not about["recalibration"]:
                self._curve(about, name, samples[f"{name}_mae"])
        if "oracle" in samples and not about["recalibration"]:
            self._curve(about, "oracle", samples["oracle"])
        if "covered" not in samples:
            return
        for k, level in enumerate(LEVELS):
            covered = Estimate.of(samples["covered"][k])
            width = float(samples["width"][k][0])
            row = {"level": level, "covered": covered.value, "low": covered.low, "high": covered.high, "width": width}
            self.rows["coverage"].append(about | row)
        for k, (sd, rmse) in enumerate(zip(samples["bin_sd"], samples["bin_rmse"], strict=True)):
            found = Estimate.of(rmse)
            row = {"bin": k, "sd": float(sd[0]), "rmse": found.value, "rmse_low": found.low, "rmse_high": found.high}
            self.rows["spreads"].append(about | row)

    def _curve(self, about: dict[str, Any], uncertainty: str, curve: Floats) -> None:
        for kept, sample in zip(KEPT, curve, strict=True):
            mae = Estimate.of(sample)
            row = {"uncertainty": uncertainty, "kept": kept, "mae": mae.value, "low": mae.low, "high": mae.high}
            self.rows["curves"].append(about | row)

    def _laplace(
        self, where: dict[str, Any], members: list[Predictions], truth: Floats, patients: Rows, seed: str
    ) -> None:
        """How well the last layer's uncertainty sorts the errors of the same networks, seed by seed."""
        if members[0].epistemic_sd is None:
            return
        found = [
            measure(truth, m.predictive(laplace=True), patients, (), seed, self.n_resamples).samples for m in members
        ]
        about = where | {"who": NETWORKS, "recalibration": "laplace"}
        for name in ("mae", "nll", "epistemic_ause", "epistemic_aurg", "epistemic_share"):
            if name in found[0]:
                self._score(about, name, [samples[name] for samples in found], None)
        self._curve(about, "laplace", np.mean([samples["epistemic_mae"] for samples in found], axis=0))

    def _own_classes(self, about: dict[str, Any], members: list[Predictions], seed: str) -> None:
        """Macro AUROC over the head's own classes, one against the rest, as the published study scores its heads; and
        how often cumulative probabilities contradict each other."""
        first = members[0]
        if not first.head.predicts_classes:
            return
        truth = first.scale.classes(first.truth)
        found = []
        for member in members:
            p = class_probabilities(member.outputs.astype(np.float64), member.head)
            rankings = [Ranking(truth == k, p[:, k]) for k in range(p.shape[1])]

            def measured(weights: Floats, rankings: list[Ranking] = rankings) -> dict[str, Floats]:
                return {"own_auroc": np.mean([ranking.measured(weights)[0] for ranking in rankings], axis=0)}

            found.append(sampled(measured, first.patients, seed, self.n_resamples)["own_auroc"])
        self._score(about, "own_auroc", found, np.array([0.5]))
        crossings = [np.array([crossing(m.outputs.astype(np.float64), m.head)]) for m in members]
        self._score(about, "crossing", crossings, None)


def _recalibrated(
    truth: Floats, validation: Predictive, test: Predictive, *, log: bool
) -> Iterator[tuple[str, Predictive]]:
    """Each way of recalibration by its name, fitted on validation records; those that can't be are left out."""
    scaling = VarianceScaling.fit(truth, validation, log=log)
    yield "variance", scaling.apply(test)
    ways: dict[str, Callable[[], Predictive]] = {"conformal": lambda: _conformal(truth, validation, test)}
    if test.has_spread:
        ways["isotonic"] = lambda: Isotonic.fit(truth, validation).apply(test)
    for name, way in ways.items():
        try:
            yield name, way()
        except ValueError:  # too few validation records
            continue


def _conformal(truth: Floats, validation: Predictive, test: Predictive) -> Predictive:
    return Conformal.fit(truth, validation, normalised=test.has_spread).apply(test)
