"""Fit an evenly spaced grid to slice positions; detect missing and unevenly spaced slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Positions often have one decimal only; a missing slice leaves a gap of one whole slice spacing.
RELATIVE_POSITION_TOLERANCE = 0.02
MIN_POSITION_TOLERANCE_MM = 0.1
MAX_JITTER = 0.25  # share of the slice spacing; more uneven series are rejected
MAX_MISSING_SLICES = 2
SAME_POSITION_MM = 1e-3


@dataclass(frozen=True, eq=False)
class SlicePositions:
    """Slice positions along the normal in mm, as measured and on an evenly spaced grid.

    measured_mm: ``(n,)``. even_mm: ``(m,)``, with the same first and last position. missing_indices: indices into
    ``even_mm`` without a slice. jitter: largest difference of a gap from a multiple of the slice spacing, as a share of
    the spacing. worst_gap_index: index of the most irregular gap in ``measured_mm``. max_deviation_mm: largest
    distance of a measured position from the grid.
    """

    measured_mm: NDArray[np.float64]
    even_mm: NDArray[np.float64]
    missing_indices: tuple[int, ...]
    jitter: float
    worst_gap_index: int
    slice_spacing_mm: float
    max_deviation_mm: float

    @property
    def is_even(self) -> bool:
        """Whether no slice is missing and every position is on the grid within the tolerance."""
        return not self.missing_indices and self.max_deviation_mm <= compute_position_tolerance(
            self.slice_spacing_mm
        )

    @property
    def fractional_indices(self) -> NDArray[np.float64]:
        """Grid index of each measured position, ``(n,)``; integral if within the tolerance."""
        steps = (self.measured_mm - self.measured_mm[0]) / self.slice_spacing_mm
        whole = np.rint(steps)
        values: NDArray[np.float64] = np.where(
            np.abs(steps - whole) * self.slice_spacing_mm
            <= compute_position_tolerance(self.slice_spacing_mm),
            whole,
            steps,
        )
        return values

    @property
    def is_safe_to_resample(self) -> bool:
        """Whether resampling is safe: at most two missing slices, three or more positions apart; jitter up to 25 %."""
        are_adjacent = any(
            later - earlier <= 2
            for earlier, later in zip(self.missing_indices, self.missing_indices[1:], strict=False)
        )
        has_enough_slices = len(self.measured_mm) >= 5 or not self.missing_indices
        return (
            self.jitter <= MAX_JITTER
            and len(self.missing_indices) <= MAX_MISSING_SLICES
            and not are_adjacent
            and has_enough_slices
        )


def compute_position_tolerance(slice_spacing_mm: float) -> float:
    """Return the distance in mm up to which a position counts as on the even grid."""
    return max(RELATIVE_POSITION_TOLERANCE * slice_spacing_mm, MIN_POSITION_TOLERANCE_MM)


def fit_slice_positions(measured_mm: NDArray[np.float64]) -> SlicePositions:
    """Fit the even grid to ascending, distinct positions ``(n,)`` in mm along the normal; n is at least 2."""
    gaps = np.diff(measured_mm)
    steps_per_gap = np.clip(np.rint(gaps / float(np.median(gaps))), 1, 1000).astype(int)
    grid_indices = np.cumsum(steps_per_gap)
    slice_spacing_mm = float(measured_mm[-1] - measured_mm[0]) / int(grid_indices[-1])
    gap_deviations = np.abs(gaps - steps_per_gap * slice_spacing_mm)
    missing_indices = tuple(int(at) for at in np.setdiff1d(np.arange(1, grid_indices[-1]), grid_indices))
    even_mm = np.linspace(measured_mm[0], measured_mm[-1], int(grid_indices[-1]) + 1)
    max_deviation_mm = float(np.abs(measured_mm - even_mm[np.concatenate(([0], grid_indices))]).max())
    worst_gap_index = int(np.argmax(np.where(steps_per_gap > 1, gaps, gap_deviations)))
    return SlicePositions(
        measured_mm,
        even_mm,
        missing_indices,
        float(gap_deviations.max()) / slice_spacing_mm,
        worst_gap_index,
        slice_spacing_mm,
        max_deviation_mm,
    )
