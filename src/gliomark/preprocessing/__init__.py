"""From a Study as stored to a SliceStack: one grid, brain only, normalised, K slices (METHOD section 2)."""

from gliomark.preprocessing.prepare import PreparationSettings, prepare

__all__ = ["PreparationSettings", "prepare"]
