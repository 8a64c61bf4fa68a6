"""Transfer loss of every task as a share of the constant predictor's, by arm and data: what the pooled targets average.

Usage: python analysis/transfer_by_task.py results/grid_small
Writes RESULTS/figures/transfer-by-task.pdf: one panel per task, the mean over sizes per arm and D; 1 is not looking.
"""

import sys
from pathlib import Path

import matplotlib  # noqa: TID251  a figure of this study alone
import numpy as np

from ecgscale.figures import HUES, MARKERS, PAGE_WIDTH, STYLE, mark_values
from ecgscale.results import read, transfer_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: TID251

COLUMNS = 4


def main(folder: Path) -> None:
    scores = transfer_table(read(folder)).query("read_out == 'linear' and label_fraction == 1")
    scores = scores.assign(share=scores["loss"] / scores["constant_loss"])
    panels = list(scores.groupby(["population", "task"], sort=False))
    rows = -(-len(panels) // COLUMNS)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(PAGE_WIDTH, 1.7 * rows), sharex=True, squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, ((population, task), table) in zip(axes.flat, panels, strict=False):
            for number, (arm, points) in enumerate(table.groupby("arm")):
                mean = points.groupby("n_records")["share"].mean()
                axis.plot(mean.index, mean, marker=MARKERS[number], color=HUES[number], label=arm)
            axis.axhline(1.0, color="black", linewidth=0.6)
            axis.set_xscale("log")
            mark_values(axis.xaxis, sorted(scores["n_records"].unique()))
            seen = "seen" if table["seen"].iloc[0] else "unseen"
            axis.set_title(f"{task} on {population} ({seen})")
        for axis in axes[-1]:
            axis.set_xlabel("training records D")
        figure.supylabel("loss / loss of the constant predictor", fontsize=7)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        target = folder / "figures" / "transfer-by-task.pdf"
        target.parent.mkdir(exist_ok=True)
        figure.savefig(target, metadata={"CreationDate": None})
    print(f"{target}: {len(panels)} tasks, {len(np.unique(scores['trial_id']))} trials")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
