"""What is seen in a figure, in words with numbers. How to read it stands in the figure itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ecgscale.figures import Chapter, between, quoted_exponent, races, short
from ecgscale.findings import Conclusion
from ecgscale.fitted import Fitted
from ecgscale.laws import Efficiency, Estimate, TransferEfficiency
from ecgscale.laws.diagnosis import is_identified
from ecgscale.study import IN_D, IN_N, Study, is_held

MOST_NAMED = 8
"""More of a kind are counted, not listed."""


def caption(chapter: Chapter, study: Study, conclusions: Sequence[Conclusion]) -> str:
    """One to three sentences; empty where there is nothing to say beyond the figure."""
    if chapter.kind in ("conclusions", "conclusions-by-task"):
        return _conclusions(conclusions, one_task=chapter.kind == "conclusions-by-task")
    if chapter.kind == "crossing":
        return _crossing(study)
    if chapter.kind == "loss-to-loss":
        return _pairs(study)
    if chapter.kind == "efficiency":
        return _efficiency(study, chapter.target)
    if chapter.kind == "lines":
        return _lines([f for f in study.laws if f.target == chapter.target and f.kind in (IN_N, IN_D)])
    words: dict[str, Callable[[Sequence[Fitted]], str]] = {
        "scaling": _scaling,
        "surface": _surface,
        "frontier": _surface,
        "residuals": _residuals,
        "hold-out": _hold_out,
        "corner": _corner,
    }
    return words[chapter.kind](chapter.fits.fitted) if chapter.fits is not None else ""


def _crossing(study: Study) -> str:
    every = races(study)
    said = [f"{race.b} below {race.a}, {race.target}: {race.words()}" for race in every if race.held]
    left = len(every) - len(said)
    rest = f"In {left} of {len(every)} panels the points do not hold α, and no crossing is claimed." if left else ""
    return " ".join(part for part in (f"{_listed(said)}." if said else "", rest) if part)


def _conclusions(conclusions: Sequence[Conclusion], *, one_task: bool) -> str:
    found = Counter(f.verdict for c in conclusions for f in c.findings if f.one_task == one_task)
    parts = ", ".join(f"{n} {verdict}" for verdict, n in found.most_common())
    what = "findings of single tasks" if one_task else "findings"
    many = " With so many intervals of 95 % a few miss by chance alone." if one_task else ""
    return f"{found.total()} {what}: {parts}.{many}"


def _scaling(laws: Sequence[Fitted]) -> str:
    falls = []
    for law in laws:
        points = law.points
        if points.empty:
            continue
        small = points[(points["n"] == points["n"].min()) & (points["d"] == points["d"].min())]["loss"].mean()
        large = points[(points["n"] == points["n"].max()) & (points["d"] == points["d"].max())]["loss"].mean()
        if math.isfinite(small) and math.isfinite(large):
            change = f"{100 * (large / small - 1):+.0f} %".replace("-", "−")
            falls.append(f"{law.group} {short(small)} → {short(large)} ({change})")
    seen = f"Loss from the smallest size and data to the largest: {_listed(falls)}." if falls else ""
    return f"{seen} {_exponents(laws, ('alpha', 'beta'))}".strip()


def _exponents(laws: Sequence[Fitted], names: Sequence[str]) -> str:
    said = []
    for law in laws:
        if law.fit is not None:
            held = [quoted_exponent(law, n) for n in names if n in law.fit.theta and is_held(law.fit.flags, n)]
            said.append(f"{law.group} {', '.join(held)}" if held else f"{law.group} none")
    return f"Exponents that the points hold: {_listed(said)}." if said else "No law could be fitted."


def _lines(laws: Sequence[Fitted]) -> str:
    said = []
    for law in laws:
        if law.fit is not None and law.law == "power" and is_held(law.fit.flags, "alpha"):
            said.append(f"{law.group} {quoted_exponent(law, 'alpha')}")
    return f"Straight lines in logs, no floor: {_listed(said)}." if said else "No exponent is held by the points."


def _surface(laws: Sequence[Fitted]) -> str:
    said = []
    for law in laws:
        frontier = law.frontier
        if frontier is None or not math.isfinite(frontier.a.value):
            said.append(f"{law.group} has no optimum in range")
        elif is_identified(frontier.flags):
            said.append(f"{law.group} a = {_estimate(frontier.a)}")
        else:
            said.append(f"{law.group} not held")
    return f"Compute-optimal size N* ∝ C^a: {_listed(said)}."


def _residuals(laws: Sequence[Fitted]) -> str:
    said = [
        f"{law.group} ±{100 * float(np.quantile(np.abs(law.fit.residuals), 0.95)):.2g} %"
        for law in laws
        if law.fit is not None and law.fit.residuals is not None
    ]
    return f"95 % of the runs lie within: {_listed(said)} of the law." if said else "No law could be fitted."


def _hold_out(laws: Sequence[Fitted]) -> str:
    held = [(law.group, h) for law in laws for h in law.held_out if not math.isnan(h.error["law"])]
    if not held:
        return "The law could be fitted to no part of the grid."
    better = [f"{group} by {h.axis}" for group, h in held if h.error["law"] < min(_others(h.error))]
    return (
        f"Beyond what it was fitted to, the law errs less than both trivial predictors in {len(better)} of {len(held)} "
        f"cases{': ' + _listed(better) if better else ''}."
    )


def _others(errors: dict[str, float]) -> list[float]:
    return [error for name, error in errors.items() if name != "law"]


def _corner(laws: Sequence[Fitted]) -> str:
    said = []
    for law in laws:
        if law.fit is not None and law.fit.draws is not None and "E" in law.fit.theta and "alpha" in law.fit.theta:
            order = list(law.fit.theta)
            pair = law.fit.draws[:, [order.index("E"), order.index("alpha")]]
            pair = pair[np.isfinite(pair).all(axis=1)]
            if len(pair) > 2 and (pair.std(axis=0) > 0).all():
                r = float(np.mean(np.prod((pair - pair.mean(axis=0)) / pair.std(axis=0), axis=1)))
                said.append(f"{law.group} r = {r:.2f}".replace("-0", "−0"))
    return f"How floor and α trade: {_listed(said)}." if said else ""


def _pairs(study: Study) -> str:
    fitted = [p for p in study.pairs if p.fit is not None]
    held = [p for p in fitted if p.fit is not None and is_held(p.fit.flags, "kappa")]
    if not fitted:
        return "No loss-to-loss law could be fitted."
    above = [p for p in fitted if p.fit is not None and p.fit.slope_interval and p.fit.slope_interval[0] > 0]
    return (
        f"The second loss falls with the first (slope above zero with its whole interval) in {len(above)} of "
        f"{len(fitted)} pairs; κ is held in {len(held)}."
    )


def _efficiency(study: Study, target: str) -> str:
    """How many of the ratios differ from one with their whole interval; all of them are in the figure."""
    ratios: list[tuple[float | None, float | None]] = []
    for comparison in study.comparisons:
        efficiency = comparison.efficiency
        if isinstance(efficiency, TransferEfficiency):
            if target == "loss-to-loss":
                ratios.append((efficiency.kappa.estimate.low, efficiency.kappa.estimate.high))
        elif isinstance(efficiency, Efficiency) and comparison.target == target:
            ratios += [(e.middle.low, e.middle.high) for e in efficiency.equal_loss if e.middle is not None]
    known = [(low, high) for low, high in ratios if low is not None and high is not None]
    if not known:
        return "No two arms can be compared here."
    apart = sum(low > 1 or high < 1 for low, high in known)
    what = "ratios of κ" if target == "loss-to-loss" else "equal-loss multipliers"
    return f"{apart} of {len(known)} {what} differ from 1 with their whole interval."


def _estimate(estimate: Estimate) -> str:
    return between(estimate.value, estimate.low, estimate.high)


def _listed(said: Iterable[str]) -> str:
    every = list(said)
    left = len(every) - MOST_NAMED
    return "; ".join(every[:MOST_NAMED]) + (f"; {left} more" if left > 0 else "")
