"""A check of the frontier that needs no law of N and D: at each budget the curve of loss over size has a bottom.

A cubic in log size per budget (Approach 2 of Hoffmann et al. 2022, arXiv 2203.15556, takes a parabola, which is biased
unless the curve is symmetric), its minimum with an interval, then the power law of the minima. A budget whose minimum
is not enclosed by its sizes gives no number, only the reason.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from ecgscale.errors import FitError
from ecgscale.laws.arrays import FloatArray, IndexArray
from ecgscale.laws.derived import FEWEST_DRAWS, Estimate, as_json
from ecgscale.laws.estimate import fit
from ecgscale.laws.intervals import percentile_interval
from ecgscale.laws.line import fit_lines
from ecgscale.laws.objectives import Objective
from ecgscale.laws.result import LawFit

SAME_BUDGET = 1.1
"""Runs within 10 % of the cheapest of a budget share it. Our assumption: planned FLOPs are hit to about 1 %, and
budgets are spaced by factors of two and more."""

LARGEST_WEIGHT_RATIO = 10.0
"""Between the best and the worst known minimum in the power law: an error from few draws is itself uncertain."""

SMALLEST_ERROR = 1e-6
"""Of a log minimum: noise-free curves would otherwise weigh infinitely much."""

METHODS = ("residual", "pairs")


@dataclass(frozen=True)
class Budget:
    """The runs of one budget and the bottom of their curve.

    Attributes:
        flops: Geometric mean of the runs.
        sizes: Smallest and largest size.
        minimum: Size at the bottom; nan where `reason` says why. `defined` counts the draws with a bottom in range.
        loss: Of the curve at the bottom.
        near_edge: The bottom lies between the two outermost sizes of a side: only one size holds that side.
        reason: `edge: ...` (the loss still falls at the smallest or largest size), or too few sizes.
    """

    flops: float
    n_points: int
    sizes: tuple[float, float]
    minimum: Estimate
    loss: float
    near_edge: bool
    reason: str | None


@dataclass(frozen=True)
class IsoFlop:
    """Minima per budget, by rising FLOPs, and their power law.

    Attributes:
        exponent: d log x* / d log C, with its interval from the same draws.
        law: The `power` law x* = A·C^−alpha (alpha is negative: sizes grow) with these draws; None if fewer than
            three budgets have a minimum.
        flags: `edge`, `near_edge`, `too_few_budgets` (no power law), `two_budgets` (exponent without a check),
            `draws_undefined` (a used budget had no bottom in more than 5 % of the draws: its interval is a selection).
    """

    degree: int
    method: str
    budgets: tuple[Budget, ...]
    exponent: Estimate
    law: LawFit | None
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        plain = as_json(replace(self, law=None))
        return plain | {"law": None if self.law is None else self.law.to_dict()}  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Curve:
    """A polynomial in centred log size per row: coefficients (row, degree + 1), constant first; row 0 is the fit."""

    coefficients: FloatArray
    log_sizes: FloatArray
    centre: float

    def bottoms(self) -> FloatArray:
        """Log size of the lowest minimum strictly inside the observed sizes, (row,); nan where there is none."""
        c, low, high = self.coefficients, self.log_sizes.min() - self.centre, self.log_sizes.max() - self.centre
        c1, c2 = c[:, 1], c[:, 2]
        c3 = c[:, 3] if c.shape[1] > 3 else np.zeros_like(c1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # 3 c3 x² + 2 c2 x + c1 = 0 at the root of positive curvature, in the form that is stable as c3 vanishes.
            root = -c1 / (c2 + np.sqrt(c2 * c2 - 3 * c1 * c3))
            inside = (root > low) & (root < high)
        return np.where(inside, root + self.centre, np.nan)

    def at(self, log_size: float) -> float:
        """Loss of the fit."""
        return math.exp(float(np.polynomial.polynomial.polyval(log_size - self.centre, self.coefficients[0])))


def fit_isoflops(
    flops: ArrayLike,
    size: ArrayLike,
    loss: ArrayLike,
    *,
    degree: int = 3,
    same_budget: float = SAME_BUDGET,
    method: str = "residual",
    bootstrap: int = 1000,
    seed: int = 0,
) -> IsoFlop:
    """The bottom of loss over size at each budget, and the power law of the bottoms over FLOPs.

    Args:
        flops: Planned or recorded budget per run.
        size: N per run for N*(C), or D per run for D*(C).
        loss: Per run; curves are fitted to its log by least squares.
        degree: 3, or 2 for the parabola.
        same_budget: Runs within this factor of the cheapest of a budget belong to it.
        method: "residual" resamples the residuals of all budgets, inflated for the degrees of freedom spent and by
            Student's t over the normal quantile, which needs equal relative noise; "pairs" resamples the runs of each
            budget, which needs many of them.
        bootstrap: Number of draws; 0 for no interval.
        seed: Of the draws.

    Raises:
        FitError: Wrong columns or options, or no budget with enough sizes.
    """
    if degree not in (2, 3) or method not in METHODS:
        raise FitError(f"degree is 2 or 3 and method one of {', '.join(METHODS)}; got {degree} and {method!r}")
    columns = [_positive(name, v) for name, v in (("flops", flops), ("size", size), ("loss", loss))]
    if len({len(v) for v in columns}) > 1:
        raise FitError(f"flops, size and loss must be of one length, got {', '.join(str(len(v)) for v in columns)}")
    log_c, log_x, log_loss = (np.log(v) for v in columns)
    groups = _groups(log_c, math.log(same_budget))
    curves = _curves(groups, log_x, log_loss, degree, method, bootstrap, np.random.default_rng(seed))
    if not any(curve is not None for curve in curves):
        raise FitError(
            f"no budget has {degree + 2} sizes, what a degree-{degree} curve needs: add runs or raise same_budget"
        )
    budgets, bottoms = [], []
    for group, curve in zip(groups, curves, strict=True):
        bottoms.append(np.full(bootstrap + 1, np.nan) if curve is None else curve.bottoms())
        budgets.append(_budget(log_c[group], log_x[group], curve, bottoms[-1], degree))
    used = np.array([budget.reason is None for budget in budgets])
    exponent, law = _power_law(np.log([b.flops for b in budgets])[used], np.stack(bottoms, axis=1)[:, used], method)
    return IsoFlop(degree, method, tuple(budgets), exponent, law, _flags(budgets))


def _positive(name: str, column: ArrayLike) -> FloatArray:
    values = np.asarray(column, dtype=float)
    if values.ndim != 1 or len(values) == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise FitError(f"column {name} must be a row of positive finite numbers: drop the others and say why")
    return values


def _groups(log_c: FloatArray, width: float) -> list[IndexArray]:
    """Rows of each budget, cheapest first: a budget begins where a run leaves the cheapest of the one before."""
    order = np.argsort(log_c, kind="stable")
    groups: list[list[int]] = []
    for row in order.tolist():
        if not groups or log_c[row] > log_c[groups[-1][0]] + width:
            groups.append([])
        groups[-1].append(row)
    return [np.array(group) for group in groups]


def _curves(
    groups: list[IndexArray],
    log_x: FloatArray,
    log_loss: FloatArray,
    degree: int,
    method: str,
    n_draws: int,
    rng: np.random.Generator,
) -> list[_Curve | None]:
    """The polynomial of every budget with its draws; None for one with fewer than degree + 2 different sizes."""
    designs: list[FloatArray | None] = []
    residuals = []
    for group in groups:
        x = log_x[group]
        if len(np.unique(x)) < degree + 2:
            designs.append(None)
            continue
        powers = np.vander(x - x.mean(), degree + 1, increasing=True)
        designs.append(powers)
        residual = log_loss[group] - powers @ np.linalg.lstsq(powers, log_loss[group], rcond=None)[0]
        residuals.append(residual * math.sqrt(len(x) / (len(x) - degree - 1)))
    pool = np.concatenate(residuals) if residuals else np.empty(0)
    freedom = len(pool) - (degree + 1) * len(residuals)
    pool = pool * (stdtrit(freedom, 0.975) / ndtri(0.975)) if freedom > 0 else pool
    out: list[_Curve | None] = []
    for group, design in zip(groups, designs, strict=True):
        if design is None:
            out.append(None)
            continue
        y = log_loss[group]
        point = np.linalg.lstsq(design, y, rcond=None)[0]
        if method == "residual":
            noise = rng.choice(pool, size=(n_draws, len(y)))
            draws = point + noise @ np.linalg.pinv(design).T
        else:
            draws = _pairs_draws(design, y, n_draws, rng)
        out.append(_Curve(np.concatenate((point[None], draws)), log_x[group], float(log_x[group].mean())))
    return out


def _pairs_draws(design: FloatArray, y: FloatArray, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Coefficients (draw, degree + 1) of resampled runs; nan where too few different ones were drawn."""
    n_points, n_coefficients = design.shape
    counts = rng.multinomial(n_points, np.full(n_points, 1 / n_points), size=n_draws)
    normal = np.einsum("rp,pi,pj->rij", counts, design, design)
    right = np.einsum("rp,pi,p->ri", counts, design, y)
    enough = np.array([len(np.unique(design[row > 0, 1])) > n_coefficients - 1 for row in counts], dtype=bool)
    draws = np.full((n_draws, n_coefficients), np.nan)
    draws[enough] = np.linalg.solve(normal[enough], right[enough][..., None])[..., 0]
    return draws


def _budget(log_c: FloatArray, log_x: FloatArray, curve: _Curve | None, bottoms: FloatArray, degree: int) -> Budget:
    levels = np.unique(log_x)
    near_edge, loss, reason = False, math.nan, None
    if curve is None:
        reason = f"too few sizes: {len(levels)}, a degree-{degree} curve needs {degree + 2}"
    elif np.isnan(bottoms[0]):
        smaller = curve.at(levels[0]) < curve.at(levels[-1])
        reason = f"edge: the loss is lowest at the {'smallest' if smaller else 'largest'} size, no minimum is enclosed"
    else:
        loss, near_edge = curve.at(bottoms[0]), not levels[1] <= bottoms[0] <= levels[-2]
    return Budget(
        flops=math.exp(log_c.mean()),
        n_points=len(log_x),
        sizes=(math.exp(levels[0]), math.exp(levels[-1])),
        minimum=Estimate(math.nan) if reason is not None else Estimate.of(np.exp(bottoms)),
        loss=loss,
        near_edge=bool(near_edge),
        reason=reason,
    )


def _power_law(log_c: FloatArray, bottoms: FloatArray, method: str) -> tuple[Estimate, LawFit | None]:
    """The exponent and the power law of the bottoms (row, budget), weighted by what the draws say of each."""
    if len(log_c) < 2:
        return Estimate(math.nan), None
    weights = np.ones(len(log_c))
    if len(bottoms) > FEWEST_DRAWS:
        errors = np.maximum(np.nanstd(bottoms[1:], axis=0), SMALLEST_ERROR)
        weights = np.maximum((errors.min() / errors) ** 2, 1 / LARGEST_WEIGHT_RATIO)
    known = np.isfinite(bottoms)
    rows = np.where(known, weights, 0.0)
    enough = known.sum(axis=1) >= 2
    line = np.full((len(bottoms), 2), np.nan)
    y = np.where(known, bottoms, 0.0)[enough]
    line[enough] = np.stack(fit_lines(log_c[None], y, rows[enough], Objective("lsq")), axis=1)
    exponent = Estimate.of(line[:, 1])
    if len(log_c) < 3:
        return exponent, None
    law = fit("power", np.exp(log_c), np.exp(bottoms[0]), weights=weights, objective="lsq", bootstrap=0)
    drawn = line[1:][enough[1:]]
    if len(drawn) < FEWEST_DRAWS:
        return exponent, law
    draws = np.stack((np.exp(drawn[:, 0]), -drawn[:, 1]), axis=1)
    low, high = percentile_interval(draws)
    interval = {name: (float(low[i]), float(high[i])) for i, name in enumerate(law.theta)}
    return exponent, replace(
        law, draws=draws, interval=interval, interval_method=f"{method} bootstrap of the curves, 95 % percentiles"
    )


def _flags(budgets: list[Budget]) -> tuple[str, ...]:
    used = [b for b in budgets if b.reason is None]
    flags = ["edge"] if any(b.reason is not None and b.reason.startswith("edge") for b in budgets) else []
    flags += ["near_edge"] if any(b.near_edge for b in used) else []
    flags += ["too_few_budgets"] if len(used) < 2 else ["two_budgets"] if len(used) == 2 else []
    selected = any(b.minimum.defined is not None and b.minimum.defined < 0.95 for b in used)
    return (*flags, *(["draws_undefined"] if selected else []))
