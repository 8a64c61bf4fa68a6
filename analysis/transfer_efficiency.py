"""Does more of a gain reach unseen tasks after self-supervision? The verdict, and loss to loss.

Usage: python analysis/transfer_efficiency.py results/grid_small
Writes RESULTS/figures/transfer_efficiency, loss-to-loss and efficiency-loss-to-loss as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_excerpt(
        Path(sys.argv[1]), claims=["transfer_efficiency"], figures=["loss-to-loss", "efficiency-loss-to-loss"]
    )
