"""Who reaches the lowest loss elsewhere, and does the other family overtake at very large size?

Usage: python analysis/lowest_loss.py results/grid_small
Writes RESULTS/figures/lowest_loss-overtaking and crossing as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), claims=["lowest_loss", "overtaking"], figures=["crossing"])
