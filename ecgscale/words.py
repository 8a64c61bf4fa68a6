"""Numbers as people read them: 20.1K, −0.3, ∞."""

from __future__ import annotations

import math


def short(value: float, digits: int = 3) -> str:
    """20.1K; for ticks and keys."""
    value = float(f"{value:.{digits}g}")  # first, for 999.9K is 1M
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if size <= abs(value) < 1e15:
            return f"{value / size:g}{suffix}"
    return f"{value:g}".replace("e+", "e")


def signed(value: float, digits: int = 3) -> str:
    """The same with a true minus, and infinity."""
    sign = "−" if value < 0 else ""
    return sign + ("∞" if math.isinf(value) else short(abs(value), digits))
