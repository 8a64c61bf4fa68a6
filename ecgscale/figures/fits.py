"""What one figure is about: the fits of one form to one target, a panel or a row per group, with their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ecgscale.figures.style import plain, quoted
from ecgscale.fitted import Fitted
from ecgscale.laws import LawFit, Prediction
from ecgscale.laws.arrays import FloatArray
from ecgscale.study import IN_D, IN_N, JOINT, Study


@dataclass(frozen=True)
class Fits:
    """One form, one target, all groups. `of_sweep`: whether the points are trainings on records, not any table."""

    target: str
    kind: str
    law: str
    fitted: tuple[Fitted, ...]
    of_sweep: bool

    @property
    def joint(self) -> bool:
        return self.kind == JOINT

    @property
    def heading(self) -> str:
        return f"{self.target}: {self.kind}, {self.law}" if self.joint else f"{self.kind}, {self.law}"


def fits_of(study: Study) -> Iterator[Fits]:
    """Every target and form of L(N, D); of a study without any, every one-variable form."""
    joint = any(f.kind == JOINT for f in study.laws)
    for target, kind, law in dict.fromkeys((f.target, f.kind, f.law) for f in study.laws):
        if (kind == JOINT) == joint:
            fitted = tuple(f for f in study.laws if (f.target, f.kind, f.law) == (target, kind, law))
            yield Fits(target, kind, law, fitted, study.folder is not None)


def variables(fitted: Fitted) -> tuple[str, ...]:
    """The columns of its points that the law is a function of."""
    return {JOINT: ("n", "d"), IN_N: ("n",), IN_D: ("d",)}.get(fitted.kind, ("x",))


def variable_name(fitted: Fitted, column: str) -> str:
    """`N`, `D`, or what a table calls its variable: the C of `loss(C)`."""
    if column in ("n", "d"):
        return column.upper()
    return fitted.kind.removeprefix(f"{fitted.target}(").removesuffix(")")


def axis_label(fitted: Fitted, column: str, of_sweep: bool) -> str:
    name = plain(variable_name(fitted, column))
    if column == "n":
        return "parameters N"
    return ("training records D" if of_sweep else "data D") if column == "d" else name


def group_name(fitted: Fitted) -> str:
    """Empty for a table that was not split."""
    return "" if fitted.group == "all" else plain(fitted.group)


def title(fitted: Fitted, names: tuple[str, ...] | None = None) -> str:
    """The group, and its exponents (or other parameters) with their intervals, one a line."""
    lines = [group_name(fitted)]
    if fitted.fit is None:
        lines.append("no fit")
    else:
        lines += [quoted_exponent(fitted, name) for name in (exponents(fitted.fit) if names is None else names)]
    return "\n".join(line for line in lines if line)


def exponents(fit: LawFit) -> tuple[str, ...]:
    """What says how the loss falls: the exponents, and the outer one of laws that have one."""
    return (*fit.form.exponents, *(("k",) if "k" in fit.theta and "k" not in fit.form.exponents else ()))


def quoted_exponent(fitted: Fitted, name: str) -> str:
    """In L(D) people read β, whatever the law calls its only exponent."""
    assert fitted.fit is not None
    return quoted(fitted.fit, name, "β" if fitted.kind == IN_D and name == "alpha" else None)


def columns(fitted: Fitted) -> list[FloatArray]:
    """The variables of the law at its points."""
    return [fitted.points[v].to_numpy(dtype=float) for v in variables(fitted)]


def predict_along(fit: LawFit, x: str, curve: FloatArray, held: float) -> Prediction:
    """L(N, D) along `x`, n or d, with the other held."""
    return fit.predict(curve, held) if x == "n" else fit.predict(held, curve)


def log_residuals(fitted: Fitted) -> tuple[FloatArray, FloatArray]:
    """Prediction and log of observed over predicted at every point; of a bounded metric, of its error odds."""
    assert fitted.fit is not None
    predicted = fitted.fit.predict(*columns(fitted)).value
    observed = fitted.points["loss"].to_numpy(dtype=float)
    link = fitted.fit.form.link
    if link is None:
        return predicted, np.log(observed / predicted)
    return predicted, np.log(link.to_odds(observed) / link.to_odds(predicted))
