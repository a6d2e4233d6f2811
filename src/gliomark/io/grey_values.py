"""Check the grey values of an image of any format: not a number, padding, a single value, inverted contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.messages import message

MAX_PERCENTILE_SAMPLES = 500_000  # enough voxels to estimate the percentiles of an image
# The edge of an MR image is normally air and dark. Tissue at the edge (a tight crop) is seldom among the brightest.
_BRIGHT_FRACTION, _DARK_FRACTION, _MIN_BRIGHT_EDGE_SHARE = 0.85, 0.7, 0.5


@dataclass(frozen=True, eq=False)
class GreyValues:
    """An image with finite values only.

    Attributes
    ----------
    image
        float32 ``(slice, row, column)``.
    missing
        bool ``(slice, row, column)``: voxels without a value in the file (NaN, infinite, transparent); None if there
        are none.
    notes
        Notes for the user on replaced voxels.
    """

    image: NDArray[np.float32]
    missing: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def clean_grey_values(
    image: NDArray[np.float32], source: Path, sequence: str, slice_names: Sequence[str]
) -> GreyValues:
    """Replace non-finite and padding voxels by the background value, and check the contrast.

    Missing values inside the brain can only be checked after brain extraction (``preprocessing.missing_data``).

    Parameters
    ----------
    image
        float32 ``(slice, row, column)``.
    source
        The file or folder named in messages.
    sequence
        The sequence, for notes.
    slice_names
        One name per slice, for messages.

    Raises
    ------
    InputError
        If the image has no finite value or only one value, or if it or one of its slices looks inverted (bright
        edges around a dark head).
    """
    notes: list[str] = []
    missing = ~np.isfinite(image)
    missing_count = int(missing.sum())
    if missing_count == image.size:
        raise InputError(message("grey-no-numbers", source=source))
    if missing_count:
        image = np.where(missing, image[~missing].min(), image)
        notes.append(message("grey-missing", name=sequence, count=missing_count))
    image, padding_count = _replace_padding(image)
    if padding_count:
        notes.append(message("grey-padding", name=sequence, count=padding_count))
    if image.min() == image.max():
        raise InputError(message("grey-constant", source=source))
    if is_probably_inverted(image):
        raise InputError(message("grey-inverted", source=source))
    if (inverted := find_inverted_slices(image)).size:
        slices = ", ".join(slice_names[at] for at in inverted[:5])
        raise InputError(message("grey-inverted-slices", source=source, slices=slices))
    return GreyValues(image, missing if missing_count else None, tuple(notes))


def is_probably_inverted(image: NDArray[np.float32]) -> bool:
    """Whether most edge pixels, normally air, are among the brightest of the image ``(slice, row, column)``."""
    low, high = _compute_intensity_range(image)
    return bool(
        high > low
        and (_extract_edge_pixels(image) > low + _BRIGHT_FRACTION * (high - low)).mean()
        > _MIN_BRIGHT_EDGE_SHARE
    )


def find_inverted_slices(image: NDArray[np.float32]) -> NDArray[np.intp]:
    """Find single slices that look inverted: a bright edge around something dark.

    image: ``(slice, row, column)``. Returns the slice indices ``(n,)``.
    """
    low, high = _compute_intensity_range(image)
    bright = (_extract_edge_pixels(image) > low + _BRIGHT_FRACTION * (high - low)).mean(
        axis=1
    ) > _MIN_BRIGHT_EDGE_SHARE
    dark = image.min(axis=(1, 2)) < low + _DARK_FRACTION * (high - low)
    return np.flatnonzero(bright & dark & (high > low))


def _extract_edge_pixels(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the outermost pixels of each slice, ``(slice, pixel)``."""
    return np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], axis=1)


def _compute_intensity_range(image: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(_subsample_values(image), (0.5, 99.5))
    return float(low), float(high)


def _replace_padding(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Replace padding by the lowest other value; return the image and the number of padding voxels.

    Padding (often -32768) is a negative minimum that is further below all other values than these differ.
    """
    lowest = image.min()
    padding = image == lowest
    others = image[~padding]
    if lowest >= 0 or not others.size:
        return image, 0
    floor = others.min()
    spread = np.percentile(_subsample_values(others), 99.5) - floor
    if not 0 < spread < floor - lowest:
        return image, 0
    return np.where(padding, floor, image), int(padding.sum())


def _subsample_values(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.ravel()[:: (values.size // MAX_PERCENTILE_SAMPLES) | 1]
