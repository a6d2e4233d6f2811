"""From a Study as stored to a SliceStack: one grid, brain only, normalised, K slices (METHOD section 2)."""

from gliomark.preprocessing.prepare import PreparationConfig, prepare

__all__ = ["PreparationConfig", "prepare"]
