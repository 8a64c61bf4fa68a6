"""Errors of a predictive and honesty of its spread, under any weights of the records at once."""

from __future__ import annotations

import numpy as np

from ecgscale.concentrations.estimate import N_HONEST, AgainstChance, Bins, Estimate, quotient, weighted_means
from ecgscale.concentrations.predictive import Predictive
from ecgscale.resampling import Floats, generator
from ecgscale.spec_base import Spec

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Central intervals whose coverage is counted."""
EXTREME_SHARE = 0.05
"""Lowest and highest share of the true values, where the bias of the extremes is measured."""
N_SD_BINS = 10
N_PIT_BINS = 10


class Errors:
    """Errors of the mean, how far it shrinks, and the CRPS, which is the error of a whole distribution."""

    def __init__(self, truth: Floats, predictive: Predictive) -> None:
        self._error = predictive.mean - truth
        x, y = truth - truth.mean(), predictive.mean - truth.mean()  # products of large numbers would cancel
        self._columns = np.column_stack(
            [np.abs(self._error), self._error**2, predictive.crps(truth), x, y, x * x, x * y]
        )
        low, high = np.quantile(truth, [EXTREME_SHARE, 1 - EXTREME_SHARE])
        self._extremes = {"bias_lowest": truth <= low, "bias_highest": truth >= high}

    def measured(self, weights: Floats) -> dict[str, Floats]:
        """`(sample,)` each under weights `(record, sample)`."""
        mae, mse, crps, x, y, xx, xy = weighted_means(self._columns, weights)
        variance = xx - x**2
        found = {"mae": mae, "mse": mse, "crps": crps}
        found |= {"r2": 1 - quotient(mse, variance), "slope": quotient(xy - x * y, variance)}
        for name, there in self._extremes.items():
            (found[name],) = weighted_means(self._error[there, None], weights[there])
        return found


class Coverage(Spec):
    """Central interval between the quantiles (1 ∓ level) / 2, both within."""

    level: float
    covered: Estimate
    width: Estimate
    """Mean, in the unit."""


class SdBin(Spec):
    """Records with about the same predicted standard deviation."""

    n_records: int
    sd: Estimate
    """Root mean square of what is predicted."""
    rmse: Estimate


class Spread:
    """What needs a distribution: its density, its intervals, and whether its spread is that of the errors."""

    def __init__(self, truth: Floats, predictive: Predictive) -> None:
        squared, variance = (predictive.mean - truth) ** 2, predictive.sd**2
        nll = -predictive.log_density(truth)
        self.n_impossible = int(np.isposinf(nll).sum())
        if self.n_impossible:
            nll = np.full_like(nll, np.nan)  # infinite in every draw but those without them
        ends = [(predictive.quantile((1 - level) / 2), predictive.quantile((1 + level) / 2)) for level in LEVELS]
        place = np.clip((predictive.cdf(truth) * N_PIT_BINS).astype(np.intp), 0, N_PIT_BINS - 1)
        self._columns = np.column_stack(
            [nll, quotient(squared, variance)]
            + [(low <= truth) & (truth <= high) for low, high in ends]
            + [high - low for low, high in ends]
            + [place == k for k in range(N_PIT_BINS)]
        )
        self._bins = Bins(predictive.sd, N_SD_BINS)
        self._variance, self._squared = variance, squared

    def measured(self, weights: Floats) -> dict[str, Floats]:
        """`nll`, `error_over_sd` `(sample,)`; `covered`, `width`, `pit`, `bin_sd`, `bin_rmse` `(…, sample)`."""
        means = weighted_means(self._columns, weights)
        nll, ratio, covered, width, pit = np.split(means, np.cumsum([1, 1, len(LEVELS), len(LEVELS)]))
        in_bins = np.column_stack([self._variance, self._squared])
        sd, rmse = np.sqrt(self._bins.means(in_bins, weights))
        return {
            "nll": nll[0],
            "error_over_sd": np.sqrt(ratio[0]),
            "covered": covered,
            "width": width,
            "pit": pit,
            "bin_sd": sd,
            "bin_rmse": rmse,
        }

    def ence(self, seed: str) -> AgainstChance:
        """Mean of |sd - rmse| / sd over the bins (Levi et al. 2022, Sensors 22:5540), against that of an honest spread:
        the same (error / sd)², brought to a mean of one and dealt to the records anew."""
        ratio = self._squared / self._variance
        ratio = np.repeat((ratio / ratio.mean())[:, None], N_HONEST, axis=1)
        dealt = generator(f"{seed} honest").permuted(ratio, axis=0) * self._variance[:, None]
        squared = np.column_stack([self._squared, dealt])
        sd, rmse = (np.sqrt(self._bins.plain_means(of)) for of in (self._variance[:, None], squared))
        errors = (np.abs(sd - rmse) / sd).mean(axis=0)
        return AgainstChance.of(float(errors[0]), errors[1:])

    def coverage(self, samples: dict[str, Floats]) -> tuple[Coverage, ...]:
        each = zip(LEVELS, samples["covered"], samples["width"], strict=True)
        return tuple(Coverage(level=at, covered=Estimate.of(c), width=Estimate.of(w)) for at, c, w in each)

    def sd_bins(self, samples: dict[str, Floats]) -> tuple[SdBin, ...]:
        each = zip(self._bins.n_records.tolist(), samples["bin_sd"], samples["bin_rmse"], strict=True)
        return tuple(SdBin(n_records=n, sd=Estimate.of(sd), rmse=Estimate.of(rmse)) for n, sd, rmse in each)
