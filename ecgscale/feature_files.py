"""Features of a population's records, kept so that another task is read off them without the encoder seeing a record.

    results/X/features/WHOSE-KEY.npz    float32, one array `(record, feature)` per part; derivable, and safe to delete

The zip format's checksums tell a damaged file, which is made again like one that is not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = "features"

LARGEST_KEPT_BYTES = 2**26
"""Larger ones are computed again: a grid of hundreds of trials must not fill its disk with them. Our choice."""

Features = Mapping[str, npt.NDArray[np.float32]]

log = logging.getLogger(__name__)


def kept_features(
    results: Path, trial_id: str, whose: str, identity: Mapping[str, Any], compute: Callable[[], Features]
) -> Features:
    """Features by part, from their file or computed. Who comes at the same time computes them, too.

    Args:
        trial_id: of who asks for them.
        whose: the beginning of the file's name.
        identity: all that they depend on besides.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = results / FEATURES / f"{whose}-{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # not there yet, or damaged
        found = compute()
    if sum(part.nbytes for part in found.values()) > LARGEST_KEPT_BYTES:
        return found
    unfinished = path.with_name(f"{trial_id}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as sink:
            np.savez(sink, **found)  # type: ignore[arg-type]  # none of our parts is called as its options
        unfinished.replace(path)
    except OSError as error:  # a full disk costs the next read-out some time, not this one its scores
        log.warning("features are not kept: %s", error)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return found
