"""Convert a Study to a SliceStack: one grid, skull-stripped, normalised, K slices (method.md, section 2)."""

from gliomark.preprocessing.preparation import PreparationConfig, prepare

__all__ = ["PreparationConfig", "prepare"]
