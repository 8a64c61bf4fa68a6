"""Is supervised pre-training limited by data in distribution? The verdict, and L(N) and L(D) behind it.

Usage: python analysis/data_bottleneck.py results/grid_small
Writes RESULTS/figures/data_bottleneck and lines-in-distribution as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), claims=["data_bottleneck"], figures=["lines-in-distribution"])
