"""Does self-supervision need fewer records elsewhere? The verdict, and the laws on the other population.

Usage: python analysis/data_efficiency.py results/grid_small
Writes RESULTS/figures/data_efficiency and scaling-transfer-… as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), claims=["data_efficiency"], figures=["scaling-transfer"])
