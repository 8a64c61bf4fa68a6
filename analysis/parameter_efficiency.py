"""Do ResNets need fewer parameters elsewhere? The verdict, and every equal-loss multiplier.

Usage: python analysis/parameter_efficiency.py results/grid_small
Writes RESULTS/figures/parameter_efficiency and efficiency-transfer-… as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), claims=["parameter_efficiency"], figures=["efficiency-transfer"])
