"""Is the stated uncertainty that of the errors, before and after recalibration?

Usage: python analysis/electrolytes_calibration.py results/electrolytes_small
Writes RESULTS/figures/calibration as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_target_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_target_excerpt(Path(sys.argv[1]), claims=["not_calibrated"], figures=["calibration"])
