"""The pattern that the electrolyte study saw, looked for in the tables of a sweep over targets and heads.

The study: von Bachmann et al. 2024, Sci. Rep. 14:15273, its code and its poster. One function per statement, from the
scores of test patients to a verdict; nothing is computed here that needs a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from ecgscale.concentrations.declared import HeadSpec
from ecgscale.data.splits import TEST
from ecgscale.findings.deciding import conclude, decided, question, refused
from ecgscale.findings.values import Conclusion, Finding, Verdict
from ecgscale.laws import Estimate
from ecgscale.prediction_files import CLASSICAL, CLEAN
from ecgscale.target_study import ENSEMBLE, NETWORKS, TargetStudy

POTASSIUM = "potassium"
HARDLY = ("sodium", "creatinine")
STUDIED = (POTASSIUM, "calcium")
"""Targets of which the study shows figures."""

REGRESSORS = ("mse", "huber", "gaussian", "quantile")
"""The kind that stands for regression is the first of these that a target has: chosen before anything was scored."""

CALIBRATED_WITHIN = 0.02
"""A coverage that is surely within two points of its level is called right (our choice)."""

LEVEL = 0.9
"""Of the interval whose coverage decides."""


def target_conclusions(study: TargetStudy) -> tuple[Conclusion, ...]:
    """Every statement; what a sweep can't answer is undecided, with the reason."""
    return tuple(check(study) for check in CHECKS)


def potassium_readable(study: TargetStudy) -> Conclusion:
    findings = []
    for family, head in _families(study, POTASSIUM, regressor):
        asked = question(f"{family}, {head}", POTASSIUM, "skill: 1 − MAE / constant's MAE", 0.0)
        found = estimate(study, family, POTASSIUM, head, "skill")
        mae = estimate(study, family, POTASSIUM, head, "mae")
        constant = _constant(study, family, POTASSIUM, head, "mae")
        says = f"MAE {_words(mae)} {_unit(study, POTASSIUM)}, the constant's {constant:.3g}"
        findings.append(_answered(asked, found, says))
    return _conclusion(
        "potassium_readable",
        "Can potassium be read from the ECG?",
        "Yes: MAE 0.285 mmol/l (sd 0.015 over runs), with strong shrinkage towards the mean.",
        f"The direct regression head, mean over seeds, test patients. {_NOT_PICKED}",
        findings or [_no_target(study, POTASSIUM)],
    )


def others_hardly(study: TargetStudy) -> Conclusion:
    quantity = "skill for potassium less skill for the other"
    findings = []
    for other in HARDLY:
        for family, head in _families(study, POTASSIUM, regressor):
            asked = question(f"{family}, {head}", f"{POTASSIUM} − {other}", quantity, 0.0)
            found = [estimate(study, family, target, head, "skill") for target in (POTASSIUM, other)]
            if found[1] is None:
                findings.append(refused(asked, f"no {other} with this head"))
            else:
                findings.append(_answered(asked, _difference(*found), f"skill for {other} {_words(found[1])}"))
    return _conclusion(
        "others_hardly",
        "Are sodium and creatinine read less well than potassium?",
        "Quality differs a lot between electrolytes: MAE 2.5 mmol/l for sodium and 27 µmol/l for creatinine is hardly "
        "better than a constant.",
        f"Difference of two skills; {_MOVER}.",
        findings or [_no_target(study, POTASSIUM)],
    )


def predictions_shrink(study: TargetStudy) -> Conclusion:
    findings = []
    for target in _studied(study):
        for family, head in _families(study, target, regressor):
            asked = question(f"{family}, {head}", target, "1 − slope of predicted on true", 0.0)
            found = estimate(study, family, target, head, "slope")
            bias = estimate(study, family, target, head, "bias_highest")
            beside = f"; the highest 5 % are predicted {_words(bias)} {_unit(study, target)} off" if bias else ""
            findings.append(_answered(asked, _difference(_ONE, found), f"0 is no shrinkage, 1 the constant{beside}"))
    return _conclusion(
        "predictions_shrink",
        "Do predictions shrink towards the mean?",
        "Strongly: true potassium of 2 is predicted as about 3.0, true 6 as about 4.6; calcium is almost flat.",
        "Regression of predicted on true values. Any predictor that can not know all of the truth shrinks.",
        findings or [_no_head(study, "that predicts the number")],
    )


def few_classes_easy(study: TargetStudy) -> Conclusion:
    findings = []
    for target in _studied(study):
        for family in families(study):
            found = by_classes(study, family, target, ("softmax",))
            asked = question(f"{family}, softmax", target, "macro AUROC, fewest less most classes", 0.0)
            if len(found) < 2:
                findings.append(refused(asked, "softmax heads of fewer than two numbers of classes"))
                continue
            few, many = min(found), max(found)
            says = f"{_words(found[few])} with {few} classes, {_words(found[many])} with {many}"
            findings.append(_answered(asked, _difference(found[few], found[many]), says))
    return _conclusion(
        "few_classes_easy",
        "Are few classes easier than many?",
        "Yes: softmax reaches a macro AUROC of 0.85 with 2 classes of potassium and 0.79 with 8, of calcium 0.72 and "
        "0.58.",
        f"Each head over its own classes, one against the rest, mean over seeds; {_MOVER}.",
        findings or [_no_head(study, "with classes")],
    )


def ordinal_holds_up(study: TargetStudy) -> Conclusion:
    findings = []
    for target in _studied(study):
        for family in families(study):
            ordinal, softmax = (by_classes(study, family, target, (k,)) for k in ("cumulative", "softmax"))
            many = max((k for k in ordinal if k in softmax and k > 2), default=None)
            quantity = "macro AUROC, ordinal less softmax"
            subject = family if many is None else f"{family}, {many} classes"
            asked = question(subject, target, quantity, 0.0)
            if many is None:
                findings.append(refused(asked, "no ordinal and softmax heads with the same three classes or more"))
                continue
            says = f"ordinal {_words(ordinal[many])}, softmax {_words(softmax[many])}"
            findings.append(_answered(asked, _difference(ordinal[many], softmax[many]), says))
    return _conclusion(
        "ordinal_holds_up",
        "Does ordinal regression hold up better with many classes?",
        "Yes for potassium: 0.84 against 0.79 with 8 classes; calcium 0.59 against 0.58.",
        f"Independent cumulative logits, as the study's code, at the most classes that both have; {_MOVER}.",
        findings or [_no_head(study, "with classes")],
    )


def aleatoric_sorts_best(study: TargetStudy) -> Conclusion:
    findings = [
        _sorting(study, family, target, other, "aleatoric")
        for target in _studied(study, (POTASSIUM,))
        for family in families(study)
        for other in ("ensemble", "Laplace")
    ]
    return _conclusion(
        "aleatoric_sorts_best",
        "Does aleatoric uncertainty sort errors best?",
        "Yes: of the half that is surest potassium has an MAE of 0.224 by aleatoric uncertainty, 0.240 by that of the "
        "ensemble, 0.245 by Laplace; 0.276 of all.",
        f"{_SHARE}; {_MOVER}.",
        findings,
    )


def laplace_sorts_worst(study: TargetStudy) -> Conclusion:
    findings = [
        _sorting(study, family, target, "Laplace", "ensemble")
        for target in _studied(study, (POTASSIUM,))
        for family in families(study)
    ]
    return _conclusion(
        "laplace_sorts_worst",
        "Does the last layer's Laplace uncertainty sort errors worst?",
        "Yes: worse than the ensemble and than aleatoric uncertainty.",
        f"{_SHARE}; {_MOVER}.",
        findings,
    )


def not_calibrated(study: TargetStudy) -> Conclusion:
    """Supported where the coverage surely misses its level, contradicted where it surely lies within two points."""
    findings = []
    for target in (t.name for t in study.targets):
        for family, head in _families(study, target, spread_head):
            asked = question(f"{family}, {head}", target, f"coverage of {100 * LEVEL:g} % intervals", LEVEL)
            found = estimate(study, family, target, head, f"covered_{LEVEL:g}", who=ENSEMBLE)
            findings.append(_miscovered(asked, found))
    return _conclusion(
        "not_calibrated",
        "Is the stated uncertainty less than perfectly calibrated?",
        "“Not perfectly calibrated”; no coverage is given.",
        f"The Gaussian head, all seeds as one prediction, not recalibrated; within {CALIBRATED_WITHIN * 100:g} points "
        "of the level is right.",
        findings or [_no_head(study, "with a spread")],
    )


def networks_beat_features(study: TargetStudy) -> Conclusion:
    findings = []
    for target in _studied(study):
        for family, head in _families(study, target, regressor):
            asked = question(f"{family}, {head}", target, "MAE of the best baseline / MAE of the network", 1.0)
            beside = _classical(study, target)
            if not beside:
                findings.append(refused(asked, "no regression on ECG features was scored"))
                continue
            name, best = min(beside.items(), key=lambda item: item[1].value)
            own = estimate(study, family, target, head, "mae")
            findings.append(_answered(asked, _ratio(best, own), f"best of {len(beside)} on ECG features: {name}"))
    return _conclusion(
        "networks_beat_features",
        "Does the network beat regression on ECG features?",
        "Yes (abstract; the numbers are not published).",
        "The baseline with the lowest MAE on the test patients, which favours it; two MAE of the same patients taken "
        "as independent, which widens the interval.",
        findings or [_no_head(study, "that predicts the number")],
    )


CHECKS: tuple[Callable[[TargetStudy], Conclusion], ...] = (
    potassium_readable,
    others_hardly,
    predictions_shrink,
    networks_beat_features,
    few_classes_easy,
    ordinal_holds_up,
    aleatoric_sorts_best,
    laplace_sorts_worst,
    not_calibrated,
)


# --- reading the tables --------------------------------------------------------------------------------------------


def families(study: TargetStudy) -> tuple[str, ...]:
    """Of networks."""
    return tuple(dict.fromkeys(n.family for n in study.networks if n.family != CLASSICAL))


def heads_of(study: TargetStudy, family: str, target: str) -> tuple[HeadSpec, ...]:
    return tuple(n.head for n in study.networks if n.family == family and n.target.name == target)


def regressor(study: TargetStudy, family: str, target: str) -> str | None:
    """The head that stands for regression; None if none predicts the number."""
    return _first_of(heads_of(study, family, target), REGRESSORS)


def best_regressor(study: TargetStudy, family: str, target: str) -> str | None:
    """Of the heads that predict the number the one with the lowest MAE on the test patients, all seeds together: for
    figures, never for verdicts."""
    heads = [head.name for head in heads_of(study, family, target) if head.kind in REGRESSORS]
    found = {head: estimate(study, family, target, head, "mae", who=ENSEMBLE) for head in heads}
    scored = {head: mae.value for head, mae in found.items() if mae is not None}
    return min(scored, key=lambda head: scored[head]) if scored else None


def spread_head(study: TargetStudy, family: str, target: str) -> str | None:
    """The head whose uncertainty is judged: Gaussian, else quantile; None if there is neither."""
    return _first_of(heads_of(study, family, target), ("gaussian", "quantile"))


def _first_of(heads: Sequence[HeadSpec], kinds: Sequence[str]) -> str | None:
    ranked = sorted((h for h in heads if h.kind in kinds), key=lambda h: kinds.index(h.kind))
    return ranked[0].name if ranked else None


def estimate(
    study: TargetStudy,
    family: str,
    target: str,
    head: str,
    score: str,
    *,
    who: str = NETWORKS,
    recalibration: str = "",
) -> Estimate | None:
    """Of the undamaged test records; None if it was not scored or isn't defined."""
    rows = _scored(study, family, target, head, score, who, recalibration)
    return None if rows.empty else as_estimate(rows.iloc[0])


def _scored(
    study: TargetStudy, family: str, target: str, head: str, score: str, who: str, recalibration: str
) -> pd.DataFrame:
    return study.table(
        family=family,
        target=target,
        head=head,
        score=score,
        who=who,
        recalibration=recalibration,
        population=study.train_on,
        part=TEST,
        condition=CLEAN,
    )


def _constant(study: TargetStudy, family: str, target: str, head: str, score: str) -> float:
    """The constant predictor's score beside that of a head; NaN if it was not scored."""
    rows = _scored(study, family, target, head, score, NETWORKS, "")
    return math.nan if rows.empty else float(rows["constant"].iloc[0])


def by_classes(
    study: TargetStudy, family: str, target: str, kinds: Sequence[str], score: str = "own_auroc"
) -> dict[int, Estimate]:
    """Number of classes → score of the first head of these kinds that has so many by quantiles or equal width."""
    found: dict[int, Estimate] = {}
    for head in heads_of(study, family, target):
        if head.kind in kinds and head.classes is not None and head.classes not in found:
            scored = estimate(study, family, target, head.name, score)
            if scored is not None:
                found[head.classes] = scored
    return dict(sorted(found.items()))


def sorting_share(study: TargetStudy, family: str, target: str, uncertainty: str) -> Estimate | None:
    """How badly an uncertainty of the spread head sorts its errors: 0 is the oracle, 1 a random order.

    Args:
        uncertainty: aleatoric, ensemble (what the seeds disagree about) or Laplace.
    """
    head = spread_head(study, family, target)
    if head is None:
        return None
    if uncertainty == "Laplace":
        return estimate(study, family, target, head, "epistemic_share", recalibration="laplace")
    if uncertainty == "ensemble":
        return estimate(study, family, target, head, "epistemic_share", who=ENSEMBLE)
    split = estimate(study, family, target, head, "aleatoric_share", who=ENSEMBLE)
    return split or estimate(study, family, target, head, "total_share", who=ENSEMBLE)  # one network's is all aleatoric


def as_estimate(row: pd.Series) -> Estimate | None:
    """A row of the scores; None where it isn't defined."""
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    if not math.isfinite(value):
        return None
    return Estimate(value, *(end if math.isfinite(end) else None for end in (low, high)))


def _classical(study: TargetStudy, target: str) -> dict[str, Estimate]:
    """Regression on ECG features → MAE."""
    rows = study.table(target=target, score="mae", who=CLASSICAL, population=study.train_on, part=TEST, condition=CLEAN)
    found = {str(row["head"]): as_estimate(row) for _, row in rows.iterrows()}
    return {name: mae for name, mae in found.items() if mae is not None}


def _studied(study: TargetStudy, names: Sequence[str] = STUDIED) -> list[str]:
    """The targets of which the study says this, where the sweep has any of them; else all targets."""
    every = [target.name for target in study.targets]
    return [name for name in every if name in names] or every


def _families(
    study: TargetStudy, target: str, choose: Callable[[TargetStudy, str, str], str | None]
) -> Iterator[tuple[str, str]]:
    """Family and the chosen head, where there is one."""
    for family in families(study):
        if (head := choose(study, family, target)) is not None:
            yield family, head


def _unit(study: TargetStudy, target: str) -> str:
    return next(t.unit for t in study.targets if t.name == target)


# --- from numbers to findings --------------------------------------------------------------------------------------


def _conclusion(name: str, question: str, published: str, ours: str, findings: Sequence[Finding]) -> Conclusion:
    """The verdict over all findings, and what each of them says in a few words."""
    targets = [f.target for f in findings]
    if len(set(targets)) == len(targets):
        names = targets
    elif len(set(targets)) == 1:
        names = [f.subject for f in findings]
    else:
        names = [f"{f.subject}, {f.target}" for f in findings]
    said = [
        f"{name} {_words(Estimate(f.value, f.low, f.high))}" if f.value is not None else f.reason
        for name, f in zip(names, findings, strict=True)
    ]
    quantity = f"{findings[0].quantity}: " if any(f.value is not None for f in findings) else ""
    summary = quantity + "; ".join(dict.fromkeys(said))
    return replace(conclude(name, question, published, ours, findings), summary=summary)


def _words(found: Estimate | None) -> str:
    """`0.19 [0.13, 0.24]`, a dash for what is not known."""
    if found is None:
        return "—"
    value, low, high = (
        "–" if x is None else f"{x:.3g}".replace("-", "−") for x in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


_ONE = Estimate(1.0, 1.0, 1.0)

_NOT_PICKED = "Which head stands for regression is fixed beforehand, not picked by its score."

_MOVER = "intervals of the two are combined as of independent numbers (MOVER), too wide for one set of patients"

_SHARE = (
    "Area between the sparsification curve and the oracle's, as a share of the random order's: 0 sorts perfectly, 1 "
    "not at all"
)


def _difference(a: Estimate | None, b: Estimate | None) -> Estimate | None:
    """a − b with an interval from those of both (Zou & Donner 2008, Stat. Med. 27:1693), taken as independent."""
    if a is None or b is None:
        return None
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(a.value - b.value, None, None)
    d = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(d, d - below, d + above)


def _ratio(a: Estimate | None, b: Estimate | None) -> Estimate | None:
    """a / b of two positive numbers: their difference in logs."""
    if a is None or b is None:
        return None
    logs = [
        Estimate(math.log(e.value), *(None if end is None else math.log(end) for end in (e.low, e.high)))
        for e in (a, b)
    ]
    d = _difference(*logs)
    assert d is not None
    return Estimate(math.exp(d.value), *(None if end is None else math.exp(end) for end in (d.low, d.high)))


def _answered(asked: Finding, found: Estimate | None, says: str) -> Finding:
    if found is None:
        return refused(asked, "not scored")
    return decided(asked, found, says)


def _sorting(study: TargetStudy, family: str, target: str, worse: str, better: str) -> Finding:
    head = spread_head(study, family, target)
    quantity = "share of the random order's area, difference"
    asked = question(f"{family}, {worse} − {better}", target, quantity, 0.0)
    if head is None:
        return refused(asked, "no head with a spread")
    shares = {name: sorting_share(study, family, target, name) for name in (worse, better)}
    missing = [name for name, share in shares.items() if share is None]
    if missing:
        why = {"ensemble": "one seed has no ensemble", "Laplace": "no Laplace fit of the last layer was kept"}
        return refused(asked, "; ".join(why.get(name, f"{name} was not scored") for name in missing))
    says = f"{head} head: {worse} {_words(shares[worse])}, {better} {_words(shares[better])}"
    return decided(asked, _difference(shares[worse], shares[better]) or _ONE, says)


def _miscovered(asked: Finding, found: Estimate | None) -> Finding:
    if found is None or found.low is None or found.high is None:
        return refused(asked, "no interval of the coverage")
    if max(abs(found.low - LEVEL), abs(found.high - LEVEL)) <= CALIBRATED_WITHIN:
        verdict, why = Verdict.CONTRADICTED, f"right within {CALIBRATED_WITHIN * 100:g} points"
    elif found.high < LEVEL or found.low > LEVEL:
        verdict, why = Verdict.SUPPORTED, f"intervals are too {'narrow' if found.high < LEVEL else 'wide'}"
    else:
        verdict, why = Verdict.UNDECIDED, "too few patients: the 95 % interval holds the level, and more than 2 points"
    return replace(asked, value=found.value, low=found.low, high=found.high, verdict=verdict, reason=why)


def _no_target(study: TargetStudy, name: str) -> Finding:
    there = ", ".join(target.name for target in study.targets)
    return refused(question("", name, "", None), f"no target {name} with a head that predicts the number: {there}")


def _no_head(study: TargetStudy, what: str) -> Finding:
    there = ", ".join(head.name for head in study.heads)
    return refused(question("", "", "", None), f"no head {what}: {there}")
