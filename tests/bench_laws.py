"""Law fitting against the published procedures, in one run: `make bench-laws`. Prints times, ratios and objectives.

Baselines, our own implementations of how the Chinchilla law is fitted in print: the grid of 4,500 starts with scipy's
L-BFGS-B and numeric gradients (Hoffmann et al. 2022; Besiroglu et al. 2024), and a bootstrap of single-start BFGS with
analytic gradients from the point fit. A sample of the starts and resamples is timed and scaled; `--full` runs them all.
"""

import argparse
import itertools
import time

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from ecgscale.laws import fit

DELTA = 1e-3
N_POINTS = 240
N_RESAMPLES = 1000
SAMPLED_STARTS, SAMPLED_RESAMPLES = 90, 40
REPEATS = 9


def planted(rng):
    n = 10 ** rng.uniform(7.7, 10.2, N_POINTS)
    d = 10 ** rng.uniform(9.5, 11.5, N_POINTS)
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(rng.normal(0, 0.005, N_POINTS))
    return n, d, loss


class Published:
    """The sum of Huber's function of log residuals in (log A, log B, log E, α, β), as a log-sum-exp."""

    def __init__(self, n, d, loss):
        self.log_n, self.log_d, self.log_loss = np.log(n), np.log(d), np.log(loss)

    def terms(self, theta):
        a, b, e, alpha, beta = theta
        return np.stack([a - alpha * self.log_n, b - beta * self.log_d, np.full(len(self.log_n), e)])

    def value(self, theta, weights=1.0):
        return (weights * huber(DELTA, self.log_loss - logsumexp(self.terms(theta), axis=0))).sum()

    def gradient(self, theta, weights=1.0):
        terms = self.terms(theta)
        predicted = logsumexp(terms, axis=0)
        share = np.exp(terms - predicted)
        slope = weights * np.clip(predicted - self.log_loss, -DELTA, DELTA)
        return np.stack([share[0], share[1], share[2], -share[0] * self.log_n, -share[1] * self.log_d]) @ slope


def grid_of_starts(full):
    logs, log_floors, exponents = range(0, 30, 5), (-1, -0.5, 0, 0.5, 1), (0, 0.5, 1, 1.5, 2)
    grid = list(itertools.product(logs, logs, log_floors, exponents, exponents))
    return grid if full else [grid[i] for i in np.linspace(0, len(grid) - 1, SAMPLED_STARTS).astype(int)]


def seconds(run):
    started = time.process_time()
    result = run()
    return time.process_time() - started, result


def median_s(run):
    return float(np.median([seconds(run)[0] for _ in range(REPEATS)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all 4,500 starts and 1,000 resamples: minutes")
    full = parser.parse_args().full
    n, d, loss = planted(np.random.default_rng(0))
    published = Published(n, d, loss)

    starts = grid_of_starts(full)
    grid_s, found = seconds(lambda: [minimize(published.value, s, method="L-BFGS-B") for s in starts])
    grid_s *= 4500 / len(starts)
    ours = fit("chinchilla", n, d, loss, delta=DELTA, bootstrap=0)
    fit_s = median_s(lambda: fit("chinchilla", n, d, loss, delta=DELTA, bootstrap=0, n_starts=1))

    rng = np.random.default_rng(1)
    rows = rng.multinomial(N_POINTS, np.full(N_POINTS, 1 / N_POINTS), size=N_RESAMPLES)
    theta = ours.theta
    point = np.array([*(np.log(theta[k]) for k in ("A", "B", "E")), theta["alpha"], theta["beta"]])
    tried = rows if full else rows[:SAMPLED_RESAMPLES]
    single_s, singles = seconds(
        lambda: [minimize(published.value, point, args=(w,), jac=published.gradient, method="BFGS") for w in tried]
    )
    single_s *= N_RESAMPLES / len(tried)

    def refits():
        return fit("chinchilla", n, d, loss, delta=DELTA, bootstrap=rows, n_starts=1)

    refits_s = median_s(refits) - fit_s
    draws = refits().draws
    log_draws = np.column_stack([np.log(draws[:, [1, 2, 0]]), draws[:, 3:]])
    excess = [published.value(log_draws[i], w) / singles[i].fun - 1 for i, w in enumerate(tried)]

    how = "measured" if full else f"scaled from {len(starts)} starts, {len(tried)} resamples"
    print(
        f"{N_POINTS} points, sum of Huber({DELTA:g}) on log residuals, CPU seconds on one thread, medians;",
        f"baselines {how}",
    )
    print(f"one fit:      ecgscale {fit_s * 1e3:.2f} ms, grid of 4,500 starts {grid_s:.0f} s: {grid_s / fit_s:,.0f} ×")
    best = min(f.fun for f in found)
    print(
        f"  objective:  ecgscale {ours.objective.value:.12g}, grid {best:.12g} ({ours.objective.value / best - 1:+.1e})"
    )
    print(f"1000 refits:  ecgscale {refits_s:.3f} s, single-start BFGS {single_s:.1f} s: {single_s / refits_s:,.0f} ×")
    print(f"  objective:  ecgscale over BFGS, worst {max(excess):+.1e}; BFGS missed the optimum (> 1e-6) in", end=" ")
    print(f"{np.mean(np.array(excess) < -1e-6):.1%}")


if __name__ == "__main__":
    main()
