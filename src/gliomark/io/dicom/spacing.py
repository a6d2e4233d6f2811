"""Whether slices make an even stack, lack single slices, or stand unevenly; and the even grid for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Positions are often written with one decimal; a missing slice is a gap of a whole step.
GAP_TOLERANCE = 0.02
GAP_TOLERANCE_MM = 0.1
JITTER = 0.25  # of the step: more unevenness than this is refused
MOST_MISSING = 2
SAME_PLACE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """Places (mm along the normal) as found, and as they should be on an even grid.

    grid: even places, first and last kept; missing: indices into ``grid`` without a slice; jitter: largest
    departure of a gap from whole steps, as a share of the step; worst: index of the worst gap between places;
    departure: mm by which the place farthest off the grid is off it.
    """

    places: NDArray[np.float64]
    grid: NDArray[np.float64]
    missing: tuple[int, ...]
    jitter: float
    worst: int
    step: float
    departure: float

    @property
    def even(self) -> bool:
        """Nothing is missing and every place is where it should be, within the tolerance."""
        return not self.missing and self.departure <= tolerance(self.step)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Where each place lies on the grid, in steps from its first: whole where within the tolerance."""
        steps = (self.places - self.places[0]) / self.step
        whole = np.rint(steps)
        return np.where(np.abs(steps - whole) * self.step <= tolerance(self.step), whole, steps)

    @property
    def safe(self) -> bool:
        """Resampling is safe: at most two single slices missing, never side by side, jitter up to 25 %."""
        close = any(
            later - earlier <= 2 for earlier, later in zip(self.missing, self.missing[1:], strict=False)
        )
        enough = len(self.places) >= 5 or not self.missing
        return self.jitter <= JITTER and len(self.missing) <= MOST_MISSING and not close and enough


def tolerance(step: float) -> float:
    """Millimetres by which a place may be off the even grid and still count as on it."""
    return max(GAP_TOLERANCE * step, GAP_TOLERANCE_MM)


def slice_grid(places: NDArray[np.float64]) -> SliceGrid:
    """The even grid that ordered, distinct places stand on; places: mm along the normal, two or more."""
    gaps = np.diff(places)
    steps = np.clip(np.rint(gaps / float(np.median(gaps))), 1, 1000).astype(int)
    ends = np.cumsum(steps)
    step = float(places[-1] - places[0]) / int(ends[-1])
    away = np.abs(gaps - steps * step)
    missing = tuple(int(at) for at in np.setdiff1d(np.arange(1, ends[-1]), ends))
    grid = np.linspace(places[0], places[-1], int(ends[-1]) + 1)
    departure = float(np.abs(places - grid[np.concatenate(([0], ends))]).max())
    worst = int(np.argmax(np.where(steps > 1, gaps, away)))
    return SliceGrid(places, grid, missing, float(away.max()) / step, worst, step, departure)
