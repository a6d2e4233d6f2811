"""Extract the brain with deepbet (Fisch et al. 2024), and detect images that are already skull-stripped."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from gliomark.errors import InputError
from gliomark.geometry import LPS_TO_RAS, compute_image_affine
from gliomark.messages import message
from gliomark.preprocessing.deepbet_networks import fill_holes, segment_brain

MIN_BRAIN_ML = 300.0
MAX_BRAIN_MM3 = 2.1e6  # a whole head has well over 3 litres
MAX_BRAIN_AREA_MM2 = 210e2  # axial; 159 to 198 cm2 in 33 stripped images, at least 208 in 57 heads
MAX_DARK_RING_RATIO = 1.4  # in the same images at most 1.3 without a skull, mostly 1.5 to 4 with one


def extract_brain_mask(image: sitk.Image) -> sitk.Image:
    """Extract the brain of a head image, best T1 or T1C; uint8 0 or 1 on the same grid.

    Raises
    ------
    InputError
        If no brain of at least 300 ml is found.
    """
    array = sitk.GetArrayViewFromImage(image).astype(np.float32, copy=False)
    orientation = nib.io_orientation(LPS_TO_RAS @ compute_image_affine(image))
    try:
        mask = segment_brain(nib.apply_orientation(array.transpose(2, 1, 0), orientation))
    except ValueError as error:
        raise InputError(message("brain-not-found", reason=str(error))) from error
    millilitres = float(mask.sum()) * np.prod(image.GetSpacing()) / 1000
    if millilitres < MIN_BRAIN_ML:
        raise InputError(message("brain-too-small", ml=millilitres))
    as_stored = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
    stored_mask = nib.apply_orientation(mask.astype(np.uint8), as_stored)
    return _to_image_like(stored_mask.transpose(2, 1, 0), image)


def is_skull_stripped(image: sitk.Image) -> bool:
    """Whether an image is skull-stripped: brain-sized foreground on an empty background, without a dark skull ring.

    This also works on cropped images. A head has at least 210 cm2 in its largest axial slice, and its skull is dark
    below the scalp.
    """
    background = _find_background_value(image)
    if background is None:
        return False
    foreground = sitk.GetArrayViewFromImage(image) != background
    # filling holes takes a while, and only adds to it
    if not foreground.any() or not _is_brain_sized(foreground, image):
        return False
    mask = fill_holes(foreground)
    return _is_brain_sized(mask, image) and _compute_dark_ring_ratio(image, mask) < MAX_DARK_RING_RATIO


def _is_brain_sized(mask: NDArray[np.bool_], image: sitk.Image) -> bool:
    column_mm, row_mm, slice_mm = image.GetSpacing()
    areas = np.count_nonzero(mask, axis=(1, 2)) * column_mm * row_mm
    return bool(areas.sum() * slice_mm < MAX_BRAIN_MM3 and areas.max() < MAX_BRAIN_AREA_MM2)


def compute_foreground_mask(image: sitk.Image) -> sitk.Image:
    """Compute a mask of all voxels except the empty background, uint8 0 or 1, holes filled.

    Without an empty background, the lowest value counts as background.
    """
    array = sitk.GetArrayViewFromImage(image)
    background = _find_background_value(image)
    above = array > array.min() if background is None else array != background
    return _to_image_like(fill_holes(above).astype(np.uint8), image)


def _find_background_value(image: sitk.Image) -> float | None:
    """Find the value of an empty background: that of most corners and of at least 10 % of all voxels; else None.

    It may not be the lowest value: z-scored brains have negative voxels on a background of 0.
    """
    array = sitk.GetArrayViewFromImage(image)
    values, counts = np.unique(array[np.ix_([0, -1], [0, -1], [0, -1])], return_counts=True)
    value = values[counts.argmax()]
    is_empty = 2 * counts.max() > counts.sum() and np.count_nonzero(array == value) / array.size >= 0.1
    return float(value) if is_empty else None


def _compute_dark_ring_ratio(image: sitk.Image, mask: NDArray[np.bool_]) -> float:
    """Compute how much brighter the edge of the foreground is than a dark ring inside it; about 1 without a skull.

    Uses medians by depth from the edge in the large slices. The ring must lie within 18 mm of the edge and be darker
    than deeper tissue.
    """
    array = sitk.GetArrayViewFromImage(image)
    column_mm, row_mm, _ = image.GetSpacing()
    low_value = array.min()
    areas = np.count_nonzero(mask, axis=(1, 2))
    large = np.flatnonzero(areas > 0.5 * areas.max())
    chosen = large[np.unique(np.linspace(0, len(large) - 1, 9).round().astype(int))]
    depths, values = [], []
    for plane, inside in zip(array[chosen], mask[chosen], strict=True):
        depth = distance_transform_edt(np.pad(inside, 1), sampling=(row_mm, column_mm))[1:-1, 1:-1]
        depths.append(depth[inside])
        values.append(plane[inside] - low_value)
    depth, value = np.concatenate(depths), np.concatenate(values)
    steps = np.arange(0.0, 27.0, 1.5)
    rings = [value[(depth >= low) & (depth < low + 1.5)] for low in steps]
    profile = np.array([np.median(ring) if len(ring) else 0.0 for ring in rings])
    ratios = [
        profile[:at].max() / max(profile[at], 1e-6)
        for at in range(1, 12)
        if profile[at] and profile[at + 1 :].max() > profile[at]
    ]
    return float(max(ratios, default=0.0))


def _to_image_like(array: NDArray[np.uint8], image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(np.ascontiguousarray(array))
    result.CopyInformation(image)
    return result
