"""Do the laws predict sizes and amounts of data that they were not fitted to?

Usage: python analysis/hold_out.py results/grid_small
Writes RESULTS/figures/hold-out-… and residuals-… as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), figures=["hold-out", "residuals"])
