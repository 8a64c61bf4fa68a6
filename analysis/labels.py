"""Do more supervised labels help in distribution, and elsewhere? The verdicts and their intervals.

Usage: python analysis/labels.py results/grid_small
Writes RESULTS/figures/labels_in_distribution-labels_elsewhere as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), claims=["labels_in_distribution", "labels_elsewhere"])
