"""What every spec is: frozen, without unknown keys, and identified by the hash of its validated fields."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _fraction(value: Any) -> Any:
    """`1/8` is how people write a data fraction."""
    if isinstance(value, str) and value.count("/") == 1:
        numerator, denominator = value.split("/")
        try:
            return float(numerator) / float(denominator)
        except (ValueError, ZeroDivisionError):
            return value
    return value


def unique(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The same names, none of them twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r} is named twice")
    return names


DataFraction = Annotated[float, BeforeValidator(_fraction), Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def hashed(fields: Mapping[str, Any]) -> str:
    """12 hex characters of the SHA-256 over the canonical JSON."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def file_fingerprint(path: Path) -> str:
    """12 hex characters of the SHA-256 over a file; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def identity(self) -> str:
        """The hash of the validated fields."""
        return hashed(self.model_dump(mode="json"))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Looking for cycles among 100,000 new objects that hold none takes four times as long as making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
