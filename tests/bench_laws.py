"""Law fitting against a baseline in the same run: `make bench-laws`. Prints medians and ratios, asserts nothing.

Baseline: our own implementation of the usual procedure, L-BFGS-B with numeric gradients on the Huber(1e-3) sum of
log residuals, from a grid of starts; the published replication uses 4,500 starts, timed here on a part of them.
"""

import itertools
import time

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from ecgscale.laws import fit

DELTA = 1e-3
N_POINTS = 240
N_STARTS = 45
PUBLISHED_STARTS = 4500
REPEATS = 5


def planted(rng):
    n = 10 ** rng.uniform(7.7, 10.2, N_POINTS)
    d = 10 ** rng.uniform(9.5, 11.5, N_POINTS)
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(rng.normal(0, 0.005, N_POINTS))
    return n, d, loss


def baseline(n, d, loss, starts):
    log_n, log_d, log_loss = np.log(n), np.log(d), np.log(loss)

    def objective(theta):
        a, b, e, alpha, beta = theta
        predicted = logsumexp([a - alpha * log_n, b - beta * log_d, np.full(len(n), e)], axis=0)
        return huber(DELTA, log_loss - predicted).sum()

    return min(minimize(objective, start, method="L-BFGS-B").fun for start in starts)


def median_s(run):
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def main():
    n, d, loss = planted(np.random.default_rng(0))
    grid = list(itertools.product((0, 5, 10, 15, 20, 25), (0, 5, 10, 15, 20, 25), (-1, 0, 1), (0, 0.5, 1), (0, 0.5, 1)))
    starts = [grid[i] for i in np.linspace(0, len(grid) - 1, N_STARTS).astype(int)]
    started = time.perf_counter()
    theirs = baseline(n, d, loss, starts)
    per_start = (time.perf_counter() - started) / N_STARTS
    ours = fit("chinchilla", n, d, loss, delta=DELTA, bootstrap=0)
    one = median_s(lambda: fit("chinchilla", n, d, loss, delta=DELTA, bootstrap=0, n_starts=1))
    thousand = median_s(lambda: fit("chinchilla", n, d, loss, delta=DELTA, bootstrap=1000, n_starts=1)) - one
    print(f"{N_POINTS} points, Huber({DELTA:g}) sum of log residuals")
    print(f"objective: ours {ours.objective.value:.10g}, baseline {theirs:.10g} (best of {N_STARTS} starts)")
    print(f"baseline: {per_start * 1e3:.1f} ms per start, so {per_start * PUBLISHED_STARTS:.0f} s for 4,500 (scaled)")
    print(f"one fit: {one * 1e3:.1f} ms, {per_start / one:.1f} × faster than one baseline start, ", end="")
    print(f"{per_start * PUBLISHED_STARTS / one:,.0f} × than 4,500")
    print(f"1000 refits: {thousand:.2f} s, {1000 * per_start / thousand:.0f} × faster than 1000 single starts")


if __name__ == "__main__":
    main()
