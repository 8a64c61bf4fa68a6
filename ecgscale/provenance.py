"""Where a number comes from: code, packages, device. No path, no host name, no secret."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ecgscale", "torch", "lightning", "ray", "numpy", "scipy", "scikit-learn")


@cache
def versions() -> str:
    """JSON of the versions that can change a number."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return json.dumps(found, sort_keys=True)


@cache
def git_state() -> tuple[str | None, bool | None]:
    """(commit, uncommitted changes) of the source tree this package runs from; None when it is not a git checkout."""
    root = Path(__file__).parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        # a package installed into somebody else's repository has not that repository's commit
        if not _git(root, "ls-files", "ecgscale/provenance.py"):
            return None, None
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
