"""How far do predictions shrink towards the mean?

Usage: python analysis/electrolytes_shrinkage.py results/electrolytes_small
Writes RESULTS/figures/predicted as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_target_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_target_excerpt(Path(sys.argv[1]), claims=["predictions_shrink"], figures=["predicted"])
