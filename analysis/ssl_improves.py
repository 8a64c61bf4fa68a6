"""Does self-supervision improve along both axes? The verdict, and the joint law in distribution.

Usage: python analysis/ssl_improves.py results/grid_small
Writes RESULTS/figures/ssl_improves and scaling-in-distribution as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(Path(sys.argv[1]), claims=["ssl_improves"], figures=["scaling-in-distribution"])
