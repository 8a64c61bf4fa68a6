"""How ECGs are damaged, to see whether a network knows that it can't know: white noise, a dropped stretch, clipping.

The three kinds are those of the electrolyte study's code (von Bachmann et al. 2024), with sizes in mV.
`ecgscale.concentrations.damage` does it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ecgscale.spec_base import Name, Spec


class Corruption(Spec):
    """One way in which every record is damaged: exactly one of the three fields is given."""

    name: Name
    """For people."""
    noise_mv: float | None = Field(default=None, gt=0)
    """Standard deviation of white Gaussian noise on every recorded sample, each lead by itself."""
    dropped: float | None = Field(default=None, gt=0, lt=1)
    """Share of the recorded part that is zero: one stretch, anywhere, the same in all leads."""
    clip_mv: float | None = Field(default=None, gt=0)
    """Nothing is larger than this, in either direction."""

    @model_validator(mode="after")
    def _it_does_one_thing(self) -> Corruption:
        if sum(value is not None for value in (self.noise_mv, self.dropped, self.clip_mv)) != 1:
            raise ValueError(f"corruption {self.name}: give one of `noise_mv`, `dropped` and `clip_mv`")
        return self


CORRUPTIONS = (
    Corruption(name="noise-0.1mV", noise_mv=0.1),
    Corruption(name="noise-0.25mV", noise_mv=0.25),
    Corruption(name="dropped-25", dropped=0.25),
    Corruption(name="dropped-50", dropped=0.5),
    Corruption(name="dropped-75", dropped=0.75),
    Corruption(name="clip-1mV", clip_mv=1.0),
    Corruption(name="clip-0.5mV", clip_mv=0.5),
    Corruption(name="clip-0.25mV", clip_mv=0.25),
)
"""Noise about as the study's 0.0931 and 0.2624, and its stretches. Its clipping at 12.5 and more would leave any ECG in
mV as it is; ours cuts the largest R waves first and T waves last (our choice)."""


def ready_made_corruption(name: str) -> dict[str, Any]:
    """The fields of the corruption of that name.

    Raises:
        ValueError: it names those that there are.
    """
    for corruption in CORRUPTIONS:
        if corruption.name == name:
            return corruption.model_dump(exclude_none=True)
    raise ValueError(f"no ready-made corruption is called {name!r}; there are {', '.join(c.name for c in CORRUPTIONS)}")
