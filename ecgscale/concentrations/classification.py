"""How good and honest a probability is: of a class of its own, or of a concentration above a cut-off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgscale.concentrations.estimate import N_HONEST, AgainstChance, Bins, Estimate, weighted_means
from ecgscale.concentrations.predictive import Predictive
from ecgscale.resampling import N_RESAMPLES, Floats, Ranking, Rows, generator, sampled
from ecgscale.spec_base import Spec

N_BINS = 10
"""Bins of equally many records for the reliability curve, as in Nixon et al. 2019; our assumption is their number."""
FEWEST_PATIENTS = 10
"""On either side of a cut-off; with fewer its scores are marked. Our assumption."""


class ReliabilityBin(Spec):
    """Records with about the same probability."""

    n_records: int
    probability: Estimate
    """Mean of what was said."""
    frequency: Estimate
    """Share of records that are positive."""


class ProbabilityScores(Spec):
    """Scores of the probability of one event; the logarithmic one in nats."""

    n_records: int
    n_positive: int
    n_patients: int
    n_patients_positive: int
    nll: Estimate
    brier: Estimate
    auroc: Estimate
    auprc: Estimate
    ece: AgainstChance
    """Mean distance of probability and frequency over the bins, by their records (Naeini et al. 2015, AAAI)."""
    bins: tuple[ReliabilityBin, ...]


class Probability:
    """The probability of one event, measured under any weights of the records.

    Args:
        positive: whether the event is there, `(record,)`.
        probability: `(record,)`, within 0 to 1.
    """

    def __init__(self, positive: npt.NDArray[np.bool_], probability: Floats) -> None:
        if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
            raise ValueError("a probability lies between 0 and 1")
        self.positive = positive
        self.bins = Bins(probability, N_BINS)
        self._ranking = Ranking(positive, probability)
        right = np.where(positive, probability, 1 - probability)
        # the smallest probability that a double can tell from a certainty, as in transfer/scores.py
        nll = -np.log(np.clip(right, np.finfo(np.float64).eps, 1.0))
        self._columns = np.column_stack([nll, (probability - positive) ** 2])
        self._probability = probability
        self._in_bins = np.column_stack([probability, positive])

    def measured(self, weights: Floats) -> dict[str, Floats]:
        """Scores `(sample,)`, and probability and frequency `(bin, sample)`, under weights `(record, sample)`."""
        nll, brier = weighted_means(self._columns, weights)
        auroc, auprc = self._ranking.measured(weights)
        probability, frequency = self.bins.means(self._in_bins, weights)
        found = {"nll": nll, "brier": brier, "auroc": auroc, "auprc": auprc}
        return found | {"probability": probability, "frequency": frequency}

    def ece(self, seed: str) -> AgainstChance:
        """Expected calibration error, against that of events that happen as often as was said."""
        honest = generator(f"{seed} honest").random((len(self.positive), N_HONEST)) < self._probability[:, None]
        events = np.column_stack([self.positive, honest]).astype(np.float64)
        apart = np.abs(self.bins.plain_means(self._probability[:, None]) - self.bins.plain_means(events))
        errors = self.bins.n_records / len(self.positive) @ apart
        return AgainstChance.of(float(errors[0]), errors[1:])


def probability_scores(
    positive: npt.NDArray[np.bool_], probability: Floats, patients: Rows, seed: str, n_resamples: int = N_RESAMPLES
) -> ProbabilityScores:
    """Scores with 95 % intervals over patients, see `Probability`; `patients` counts from 0, `(record,)`."""
    said = Probability(positive, probability)
    samples = sampled(said.measured, patients, seed, n_resamples)
    bins = zip(said.bins.n_records, samples["probability"], samples["frequency"], strict=True)
    return ProbabilityScores(
        n_records=len(positive),
        n_positive=int(positive.sum()),
        n_patients=len(np.unique(patients)),
        n_patients_positive=len(np.unique(patients[positive])),
        **{name: Estimate.of(samples[name]) for name in ("nll", "brier", "auroc", "auprc")},
        ece=said.ece(seed),
        bins=tuple(
            ReliabilityBin(n_records=int(n), probability=Estimate.of(p), frequency=Estimate.of(f)) for n, p, f in bins
        ),
    )


class CutScore(Spec):
    """A predictive as a classifier of values above one cut-off."""

    cut: float
    n_below: int
    n_above: int
    n_patients_below: int
    n_patients_above: int
    too_few: bool
    """Fewer than `FEWEST_PATIENTS` patients on one side."""
    auroc: Estimate
    brier: Estimate | None
    ece: AgainstChance | None
    """Of the probability; None for a point, which has none."""


class CutOffs:
    """A predictive as a classifier at every cut-off: by its probability of a value above, a point by its number.

    A value at the cut-off is not above it.
    """

    def __init__(self, truth: Floats, predictive: Predictive, cuts: Sequence[float]) -> None:
        self._cuts = tuple(cuts)
        self._above = [truth > cut for cut in cuts]
        self._at_each = [
            Probability(above, np.clip(1 - predictive.cdf(cut), 0, 1))
            if predictive.has_spread
            else _Ranked(above, predictive.mean)
            for cut, above in zip(cuts, self._above, strict=True)
        ]

    def measured(self, weights: Floats) -> dict[str, Floats]:
        """`cut_auroc`, `cut_brier` `(cut, sample)`, and `auroc` `(sample,)`, the mean over the cut-offs that have
        records on both sides."""
        each = [one.measured(weights) for one in self._at_each]
        names = [name for name in ("auroc", "brier") if each and name in each[0]]
        found = {f"cut_{name}": np.stack([one[name] for one in each]) for name in names}
        decided = [k for k, above in enumerate(self._above) if 0 < above.sum() < len(above)]
        nothing = np.full(weights.shape[1], np.nan)
        return found | {"auroc": found["cut_auroc"][decided].mean(axis=0) if decided else nothing}

    def scores(self, samples: dict[str, Floats], patients: Rows, seed: str) -> tuple[CutScore, ...]:
        return tuple(self._score(k, samples, patients, seed) for k in range(len(self._cuts)))

    def _score(self, k: int, samples: dict[str, Floats], patients: Rows, seed: str) -> CutScore:
        above, said = self._above[k], self._at_each[k]
        n_patients = [len(np.unique(patients[side])) for side in (~above, above)]
        return CutScore(
            cut=self._cuts[k],
            n_below=int((~above).sum()),
            n_above=int(above.sum()),
            n_patients_below=n_patients[0],
            n_patients_above=n_patients[1],
            too_few=min(n_patients) < FEWEST_PATIENTS,
            auroc=Estimate.of(samples["cut_auroc"][k]),
            brier=Estimate.of(samples["cut_brier"][k]) if "cut_brier" in samples else None,
            ece=said.ece(seed) if isinstance(said, Probability) else None,
        )


class _Ranked:
    """A number as the score of an event: it ranks, and is no probability."""

    def __init__(self, positive: npt.NDArray[np.bool_], score: Floats) -> None:
        self._ranking = Ranking(positive, score)

    def measured(self, weights: Floats) -> dict[str, Floats]:
        return {"auroc": self._ranking.measured(weights)[0]}
