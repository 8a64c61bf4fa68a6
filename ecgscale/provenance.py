"""Where a number comes from: code, packages, driver, machine, command.

What is returned may be published: no folder of a machine, no host name or address, no secret.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import socket
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ecgscale", "torch", "lightning", "ray", "numpy", "scipy", "scikit-learn")
_ROOT = Path(__file__).parent.parent


@cache
def versions() -> str:
    """JSON of the versions that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return json.dumps(found, sort_keys=True)


@cache
def git_state() -> tuple[str | None, bool | None]:
    """(commit, uncommitted changes) of the source tree this package runs from; None when it is not a git checkout."""
    try:
        commit = _git(_ROOT, "rev-parse", "HEAD")
        # a package installed into somebody else's repository has not that repository's commit
        if not _git(_ROOT, "ls-files", "ecgscale/provenance.py"):
            return None, None
        return commit, bool(_git(_ROOT, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def git_diff() -> str | None:
    """SHA-256 of what is changed and not committed, so that two dirty runs can be told apart; None when clean."""
    if not git_state()[1]:
        return None
    try:
        changes = _git_bytes(_ROOT, "diff", "--no-ext-diff", "--no-color", "--full-index", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return hashlib.sha256(changes).hexdigest()


def _git(root: Path, *arguments: str) -> str:
    return _git_bytes(root, *arguments).decode(errors="replace").strip()


def _git_bytes(root: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=10).stdout


@cache
def host() -> str:
    """12 hex characters that tell machines apart without naming them."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


@cache
def driver_version() -> str | None:
    """Of the NVIDIA kernel module, as Linux tells it; None where there is none."""
    try:
        told = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module\s.*?(\d+\.\d+(?:\.\d+)?)", told)
    return found[1] if found else None


# --- the command ---------------------------------------------------------------------------------------------------

LEFT_OUT = "…"
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"[A-Za-z0-9]{24,}")
"""What keys look like; words are shorter."""
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", re.IGNORECASE)
_FOLDERS = re.compile(r"(?<![\w.~])(?:~|[A-Za-z]:)?[\\/](?:[^\\/\s'\",:=]+[\\/])*")
_RISING = re.compile(r"(?:\.\.[\\/])+")


def public_argv(argv: Sequence[str]) -> str:
    """JSON of a command as it may be published: names for absolute paths, nothing for secrets and addresses."""
    shown, hide_next = [], False
    for argument in argv:
        name, equals, value = argument.partition("=")
        if hide_next:
            shown.append(LEFT_OUT)
            hide_next = False
        elif equals:
            shown.append(f"{_public(name)}={LEFT_OUT if _SECRET_NAME.search(name) else _public(value)}")
        else:
            shown.append(_public(argument))
            hide_next = argument.startswith("-") and bool(_SECRET_NAME.search(argument))
    return json.dumps(shown)


def _public(text: str) -> str:
    if re.match(r"[\\/~]|[A-Za-z]:[\\/]", text) and not re.search(r"[:,]", text[2:]):
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1]  # one path, whatever spaces it holds
    text = _ADDRESS.sub(LEFT_OUT, text)
    text = _FOLDERS.sub("", text)
    return _SECRET_VALUE.sub(LEFT_OUT, _RISING.sub("", text))
