"""How good and how honest predictions of a concentration are: the same scores for every head, beside the constant's.

Errors are those of the predictive mean; at clinical cut-offs every head is scored as a classifier too. Every score has
a 95 % interval over patients, and all that is scored on the same patients with the same seed is compared on the same
draws. What needs a spread is None or empty for a head that has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecgscale.concentrations.classification import CutOffs, CutScore
from ecgscale.concentrations.estimate import AgainstChance, Estimate
from ecgscale.concentrations.measures import Coverage, Errors, SdBin, Spread
from ecgscale.concentrations.predictive import Predictive
from ecgscale.concentrations.sparsification import Sparsification, SparsificationScores
from ecgscale.resampling import N_RESAMPLES, Floats, Rows, sampled
from ecgscale.spec_base import Spec


class ConcentrationScores(Spec):
    """Scores of one predictive on the records of one part, in the target's unit; nll in nats per unit."""

    n_records: int
    n_patients: int
    mae: Estimate
    mse: Estimate
    r2: Estimate
    """Against the mean of these records."""
    slope: Estimate
    """Shrinkage: regression of predicted on true; 1 is none."""
    bias_lowest: Estimate
    bias_highest: Estimate
    """Predicted less true among the lowest and the highest 5 % of the true values."""
    auroc: Estimate
    """Mean over the cut-offs that have records on both sides."""
    cuts: tuple[CutScore, ...]
    crps: Estimate
    """Of a point its absolute error."""
    nll: Estimate | None = None
    n_impossible: int | None = None
    """Records whose true value was given no probability at all: the nll is then infinite, its value None."""
    coverage: tuple[Coverage, ...] = ()
    error_over_sd: Estimate | None = None
    """Root mean square of error / sd: 1 is honest, above 1 overconfident."""
    ence: AgainstChance | None = None
    """Mean of |sd - rmse| / sd over the bins."""
    sd_bins: tuple[SdBin, ...] = ()
    pit: tuple[Estimate, ...] = ()
    """Shares of F(truth) in equal bins from 0 to 1; honest ones are all the same."""
    sparsification: tuple[SparsificationScores, ...] = ()


class Comparison(Spec):
    """A predictive's scores, the constant predictor's, and the first less the second on the same draws of patients."""

    scores: ConcentrationScores
    constant: ConcentrationScores
    beyond_constant: dict[str, Estimate]


def scores(
    truth: Floats,
    predictive: Predictive,
    patients: Rows,
    cuts: Sequence[float],
    constant: Predictive,
    seed: str,
    n_resamples: int = N_RESAMPLES,
) -> Comparison:
    """What `predictive` says of these records against what they are, beside what `constant` says; see `measure`.

    Args:
        constant: the distribution of the training values, said of every record (`TargetScale.marginal`).
    """
    own, beside = (measure(truth, p, patients, cuts, seed, n_resamples) for p in (predictive, constant))
    return Comparison(scores=own.scores(), constant=beside.scores(), beyond_constant=differences(own, beside))


@dataclass(frozen=True)
class Measured:
    """All scores of one predictive by name, each `(…, 1 + draw)`, the estimate first; and what computed them."""

    patients: Rows
    seed: str
    samples: dict[str, Floats]
    cut_offs: CutOffs
    spread: Spread | None
    sparsification: Sparsification

    def scores(self) -> ConcentrationScores:
        always = ("mae", "mse", "r2", "slope", "bias_lowest", "bias_highest", "auroc", "crps")
        with_spread = {} if self.spread is None else self._of_spread(self.spread)
        return ConcentrationScores(
            n_records=len(self.patients),
            n_patients=len(np.unique(self.patients)),
            **{name: Estimate.of(self.samples[name]) for name in always},
            cuts=self.cut_offs.scores(self.samples, self.patients, self.seed),
            sparsification=self.sparsification.scores(self.samples),
            **with_spread,
        )

    def _of_spread(self, spread: Spread) -> dict[str, object]:
        return {
            **{name: Estimate.of(self.samples[name]) for name in ("nll", "error_over_sd")},
            "ence": spread.ence(self.seed),
            "n_impossible": spread.n_impossible,
            "coverage": spread.coverage(self.samples),
            "sd_bins": spread.sd_bins(self.samples),
            "pit": tuple(map(Estimate.of, self.samples["pit"])),
        }


def measure(
    truth: Floats,
    predictive: Predictive,
    patients: Rows,
    cuts: Sequence[float],
    seed: str,
    n_resamples: int = N_RESAMPLES,
) -> Measured:
    """The scores of one predictive with all their draws, to be written (`Measured.scores`) or compared (`differences`).

    Args:
        truth: `(record,)` in the unit, finite.
        patients: number of the patient of each record, from 0, `(record,)`.
        cuts: clinical cut-offs in the unit.
        seed: names the draws: the same for all that is compared.
        n_resamples: 0 for no intervals.

    Raises:
        ValueError: no records, shapes that differ, or values that are not finite.
    """
    if not (len(truth) and truth.shape == predictive.mean.shape == patients.shape):
        raise ValueError(f"{truth.shape} true values, {predictive.mean.shape} predicted, {patients.shape} patients")
    if not (np.isfinite(truth).all() and np.isfinite(predictive.mean).all()):
        raise ValueError("true and predicted values are finite: records without one are left out before")
    errors, cut_offs = Errors(truth, predictive), CutOffs(truth, predictive, cuts)
    spread = Spread(truth, predictive) if predictive.has_spread else None
    sparsification = Sparsification(truth, predictive)

    def measured(weights: Floats) -> dict[str, Floats]:
        found = errors.measured(weights) | cut_offs.measured(weights) | sparsification.measured(weights)
        return found if spread is None else found | spread.measured(weights)

    samples = sampled(measured, patients, seed, n_resamples)
    return Measured(patients, seed, samples, cut_offs, spread, sparsification)


def differences(first: Measured, second: Measured) -> dict[str, Estimate]:
    """First less second of every single number that both have, on the same draws of patients.

    Raises:
        ValueError: other patients, or other draws of them.
    """
    if first.seed != second.seed or not np.array_equal(first.patients, second.patients):
        raise ValueError("differences are of the same draws of the same patients")
    both = [name for name, of in first.samples.items() if of.ndim == 1 and name in second.samples]
    return {name: Estimate.of(first.samples[name] - second.samples[name]) for name in both}
