"""What does discretising do: score against the number of classes, ordinal beside softmax.

Usage: python analysis/electrolytes_classes.py results/electrolytes_small
Writes RESULTS/figures/classes as PDF, PNG and CSV.
"""

import sys
from pathlib import Path

from ecgscale.report import write_target_excerpt

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_target_excerpt(Path(sys.argv[1]), claims=["few_classes_easy", "ordinal_holds_up"], figures=["classes"])
