"""ecgscale: how do ECG models scale? One arrow from a grid of trainings to scaling laws with intervals."""

__version__ = "0.1.0"
