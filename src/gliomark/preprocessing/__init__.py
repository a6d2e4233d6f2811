"""Convert a Study to a SliceStack: one grid, skull-stripped, normalised, K slices (method.md, section 2)."""

from gliomark.preprocessing.preparation import PreparationConfig, prepare, prepare_with_brain_mask

__all__ = ["PreparationConfig", "prepare", "prepare_with_brain_mask"]
