"""Whether slices make an even stack, lack single slices, or stand unevenly; and the even grid for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Positions are often written with one decimal; a missing slice is a gap of a whole step.
RELATIVE_POSITION_TOLERANCE = 0.02
MIN_POSITION_TOLERANCE_MM = 0.1
MAX_JITTER = 0.25  # of the step: more unevenness than this is refused
MAX_MISSING_SLICES = 2
SAME_POSITION_MM = 1e-3


@dataclass(frozen=True, eq=False)
class SlicePositions:
    """Places (mm along the normal) as found, and as they should be on an even grid.

    grid: even places, first and last kept; missing: indices into ``grid`` without a slice; jitter: largest
    departure of a gap from whole steps, as a share of the step; worst: index of the worst gap between places;
    departure: mm by which the place farthest off the grid is off it.
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
        """Nothing is missing and every place is where it should be, within the tolerance."""
        return not self.missing_indices and self.max_deviation_mm <= compute_position_tolerance(
            self.slice_spacing_mm
        )

    @property
    def fractional_indices(self) -> NDArray[np.float64]:
        """Where each place lies on the grid, in steps from its first: whole where within the tolerance."""
        steps = (self.measured_mm - self.measured_mm[0]) / self.slice_spacing_mm
        whole = np.rint(steps)
        return np.where(
            np.abs(steps - whole) * self.slice_spacing_mm
            <= compute_position_tolerance(self.slice_spacing_mm),
            whole,
            steps,
        )

    @property
    def is_safe_to_resample(self) -> bool:
        """Resampling is safe: at most two single slices missing, never side by side, jitter up to 25 %."""
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
    """Millimetres by which a place may be off the even grid and still count as on it."""
    return max(RELATIVE_POSITION_TOLERANCE * slice_spacing_mm, MIN_POSITION_TOLERANCE_MM)


def fit_slice_positions(measured_mm: NDArray[np.float64]) -> SlicePositions:
    """The even grid that ordered, distinct places stand on; places: mm along the normal, two or more."""
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
