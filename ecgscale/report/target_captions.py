"""What is seen in a figure of targets and heads, in words with numbers. How to read it stands in the figure itself."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ecgscale.figures import Chapter, between, short
from ecgscale.prediction_files import CLASSICAL
from ecgscale.target_study import NETWORKS

HALF = 0.5


def target_caption(chapter: Chapter) -> str:
    """From the numbers of the figure."""
    return CAPTIONS[chapter.kind](chapter.numbers())


def _heads(numbers: pd.DataFrame) -> str:
    skills = numbers[numbers["score"] == "skill"]
    said = []
    for target, rows in skills.groupby("target", sort=False):
        heads, features = (rows[rows["who"] == who] for who in (NETWORKS, CLASSICAL))
        better = int((heads["low"].astype(float) > 0).sum())
        said.append(f"{target}: {better} of {len(heads)}, the highest {_highest(heads)}")
        if not features.empty:
            said[-1] += f", of ECG features {_highest(features)}"
    return f"Heads whose MAE is below the constant's with the whole interval, and the highest skill: {'; '.join(said)}."


def _highest(rows: pd.DataFrame) -> str:
    best = rows.sort_values("value").iloc[-1]
    return f"{between(float(best['value']), best['low'], best['high'])} ({best['head']})"


def _predicted(numbers: pd.DataFrame) -> str:
    said = []
    for target, rows in numbers.groupby("target", sort=False):
        ends = rows["truth"].quantile([0.05, 0.95]).tolist()
        low, high = rows[rows["truth"] <= ends[0]], rows[rows["truth"] >= ends[1]]
        pair = [f"{short(end['truth'].mean())} is predicted as {short(end['predicted'].mean())}" for end in (low, high)]
        said.append(f"{target}: {', '.join(pair)} {rows['unit'].iloc[0]}")
    return f"Means of the lowest and the highest 5 % of the true values. {'; '.join(said)}."


def _classes(numbers: pd.DataFrame) -> str:
    own = numbers[numbers["score"] == "own_auroc"]
    said = []
    for (target, head), rows in own.groupby(["target", "head"], sort=False):
        if len(rows) > 1:
            few, many = rows.iloc[0], rows.iloc[-1]
            change = f"{few['value']:.2f} with {few['classes']:.0f} → {many['value']:.2f} with {many['classes']:.0f}"
            said.append(f"{target}, {head} {change}")
    if not said:
        return "No kind of head has two numbers of classes."
    return f"Macro AUROC over own classes: {'; '.join(said)}."


def _sparsification(numbers: pd.DataFrame) -> str:
    said = []
    for target, rows in numbers.groupby("target", sort=False):
        nearest = (rows["kept"] - HALF).abs()
        half = rows[nearest == nearest.min()].set_index("uncertainty")["mae"]
        whole = rows[rows["kept"] == rows["kept"].max()]["mae"].iloc[0]
        by = [f"{name} {short(float(half[name]))}" for name in half.index if name != "oracle"]
        said.append(f"{target} {short(float(whole))} of all, {', '.join(by)} {rows['unit'].iloc[0]}")
    return f"MAE of the surer half by each uncertainty: {'; '.join(said)}."


def _calibration(numbers: pd.DataFrame) -> str:
    at = numbers[(numbers["what"] == "coverage") & (numbers["level"] == 0.9)]
    said = []
    for target, rows in at.groupby("target", sort=False):
        covered = [
            f"{name or 'as it is'} {100 * float(c):.0f} %"
            for name, c in zip(rows["recalibration"], rows["covered"], strict=True)
        ]
        said.append(f"{target}: {', '.join(covered)}")
    return f"Coverage of 90 % intervals: {'; '.join(said)}."


def _elsewhere(numbers: pd.DataFrame) -> str:
    said = []
    for target, rows in numbers.groupby("target", sort=False):
        mae = rows[rows["score"] == "mae"].set_index("where")["value"].astype(float)
        covered = rows[rows["score"] == "covered_0.9"].set_index("where")["value"].astype(float)
        where = str((mae.iloc[1:] / mae.iloc[0]).idxmax())
        change = f"{100 * (mae[where] / mae.iloc[0] - 1):+.0f} %".replace("-", "−")
        said.append(
            f"{target} {change} ({where}" + (f", coverage {100 * covered[where]:.0f} %)" if where in covered else ")")
        )
    return f"The largest MAE elsewhere, against that of undamaged test records: {'; '.join(said)}."


CAPTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
    "heads": _heads,
    "predicted": _predicted,
    "classes": _classes,
    "sparsification": _sparsification,
    "calibration": _calibration,
    "elsewhere": _elsewhere,
}
