"""What a process leaves that is killed right after its row is cleared away by the next command, and nothing else is."""

import subprocess
import sys

from ecgscale.executors.leftovers import clear_away
from ecgscale.leases import Leases

HOLD = """
import os, sys
from pathlib import Path
from ecgscale.leases import Leases
for trial in ("settled", "open"):
    Leases(Path(sys.argv[1])).acquire(trial)
os._exit(0)
"""


def test_only_what_settled_trials_have_left_is_removed(tmp_path):
    subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], check=True)
    running = Leases(tmp_path).acquire("running")
    names = ("{}.ckpt", "{}.ckpt.quarantined", "{}.0123.tmp")
    files = [tmp_path / "checkpoints" / name.format(trial) for trial in ("settled", "open") for name in names]
    files += [tmp_path / "hangs" / f"{trial}.1.txt" for trial in ("settled", "open")]
    files += [tmp_path / "rows" / f"{trial}-20260101T000000abcdef.17.tmp" for trial in ("settled", "open")]
    files += [tmp_path / "features" / f"{trial}.0123.tmp" for trial in ("settled", "open")]
    files += [tmp_path / "rows" / "settled-20260101T000000abcdef.parquet"]
    files += [tmp_path / "transfer" / "settled-B-0123.parquet"]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    clear_away(tmp_path, {"settled", "running"})
    left = {path for path in files if path.exists()}
    assert left == {path for path in files if "open" in path.name or path.suffix == ".parquet"}
    assert sorted(path.name for path in (tmp_path / "leases").iterdir()) == ["open.1.json", "running.1.json"]
    running.release()


def test_there_may_be_nothing_to_clear_away(tmp_path):
    clear_away(tmp_path, {"settled"})
    assert list(tmp_path.iterdir()) == []
