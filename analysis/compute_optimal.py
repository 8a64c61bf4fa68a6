"""The plane of parameters and records with its compute-optimal frontier, per target.

Usage: python analysis/compute_optimal.py results/grid_small
Writes RESULTS/figures/surface-… and frontier-… as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), figures=["surface", "frontier"])
