"""Which uncertainty sorts the errors best?

Usage: python analysis/electrolytes_sparsification.py results/electrolytes_small
Writes RESULTS/figures/sparsification as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_target_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_target_excerpt(
        Path(sys.argv[1]), claims=["aleatoric_sorts_best", "laplace_sorts_worst"], figures=["sparsification"]
    )
