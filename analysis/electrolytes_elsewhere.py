"""What damaged records, later patients and other populations do, and whether the head says so.

Usage: python analysis/electrolytes_elsewhere.py results/electrolytes_small
Writes RESULTS/figures/elsewhere as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_target_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_target_excerpt(Path(sys.argv[1]), figures=["elsewhere"])
