"""How much of the constant predictor's error does each head take away, of each target?

Usage: python analysis/electrolytes_heads.py results/electrolytes_small
Writes RESULTS/figures/heads as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_target_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_target_excerpt(
        Path(sys.argv[1]), claims=["potassium_readable", "others_hardly", "networks_beat_features"], figures=["heads"]
    )
