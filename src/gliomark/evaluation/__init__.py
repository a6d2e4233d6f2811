"""Statistics of segmentations and predictions, from arrays; intervals are computed over patients."""
