"""Random numbers as a pure function of a batch's key: a resumed trial draws what the uninterrupted one drew."""

from __future__ import annotations

import hashlib

import torch


def generator(key: int, purpose: str, device: torch.device | None = None) -> torch.Generator:
    """A stream of random numbers of its own for one purpose in one batch.

    The key is hashed because PyTorch's CPU generator looks at the lowest 32 bits of a seed only.
    """
    seed = int.from_bytes(hashlib.blake2b(f"{purpose}:{key}".encode(), digest_size=4).digest(), "big")
    return torch.Generator(device or "cpu").manual_seed(seed)
