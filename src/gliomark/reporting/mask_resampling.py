"""Resample the lesion mask from the stack's grid to the source images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.messages import message
from gliomark.prediction import Prediction
from gliomark.study import MRSequence, Segmentation, Series, SliceStack

# distance kept from the threshold 0.5, so that rounded coordinates cannot flip a voxel
THRESHOLD_MARGIN = 0.01


def resample_mask_to_series(
    stack: SliceStack,
    segmentation: Segmentation,
    series: Series,
    *,
    to_stack: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Resample the lesion mask to the grid of ``series``.

    The probability is interpolated linearly in patient coordinates and thresholded at 0.5. Coinciding slices are
    reproduced exactly. Up to half a slice spacing outside the stack the nearest slice is used; beyond it the mask
    is empty.

    Parameters
    ----------
    stack
        Grid on which the lesion was segmented.
    segmentation
        Mask and probability ``(slice, row, column)`` on that grid.
    series
        Source series.
    to_stack
        4x4 matrix from LPS mm of the series to LPS mm of the stack, if the two were registered; None: same space.

    Returns
    -------
    NDArray[np.uint8]
        0 or 1, ``(slice, row, column)`` of the series.
    """
    moved_affine = series.affine if to_stack is None else to_stack @ series.affine
    index_to_index = np.linalg.inv(stack.affine) @ moved_affine
    slices, rows, columns = series.image.shape
    resampled = sitk.Resample(
        sitk.GetImageFromArray(align_probability_with_mask(segmentation)),
        (columns, rows, slices),
        sitk.AffineTransform(index_to_index[:3, :3].ravel().tolist(), index_to_index[:3, 3].tolist()),
        sitk.sitkLinear,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        0.0,
    )
    return (sitk.GetArrayViewFromImage(resampled) >= 0.5).astype(np.uint8)


def align_probability_with_mask(segmentation: Segmentation) -> NDArray[np.float32]:
    """Return the probability ``(slice, row, column)`` adjusted so that thresholding it at 0.5 gives the mask.

    The two can differ because the mask is cleaned and may use another threshold.
    """
    inside = np.maximum(segmentation.probability, 0.5 + THRESHOLD_MARGIN)
    outside = np.minimum(segmentation.probability, 0.5 - THRESHOLD_MARGIN)
    aligned: NDArray[np.float32] = np.where(segmentation.mask, inside, outside).astype(np.float32)
    return aligned


def list_used_sequences(prediction: Prediction) -> list[MRSequence]:
    """List the sequences that the model used and that were read."""
    return [name for name in prediction.stack.images if name in prediction.study.series]


def select_reference_sequence(prediction: Prediction) -> MRSequence:
    """Return the sequence whose grid the masks are written on: T1C if the model used it, else the first one used."""
    return choose_reference(list_used_sequences(prediction))


def choose_reference(used_sequences: Sequence[MRSequence]) -> MRSequence:
    """Return the sequence whose grid the masks are written on, of those that a model used."""
    return MRSequence.T1C if MRSequence.T1C in used_sequences else used_sequences[0]


def resample_mask_to_reference(prediction: Prediction) -> NDArray[np.uint8]:
    """Resample the lesion mask to the grid of ``select_reference_sequence``: 0 or 1, ``(slice, row, column)``."""
    stack, name = prediction.stack, select_reference_sequence(prediction)
    series = prediction.study.series[name]
    return resample_mask_to_series(stack, prediction.segmentation, series, to_stack=stack.to_stack.get(name))


def resample_mask_to_source_images(prediction: Prediction, sequence: MRSequence) -> NDArray[np.uint8]:
    """Resample the lesion mask to each DICOM image of a series: 0 or 1, ``(image, row, column)``.

    For an image between the slices of an interpolated series the mask is resampled at its own position.
    """
    stack, series = prediction.stack, prediction.study.series[sequence]
    to_stack = stack.to_stack.get(sequence)
    mask = resample_mask_to_series(stack, prediction.segmentation, series, to_stack=to_stack)
    planes = []
    for image in series.source_images:
        if image.fractional_index.is_integer():
            planes.append(mask[int(image.fractional_index)])
        else:
            single_series = _create_single_slice_series(series, image.fractional_index)
            planes.append(
                resample_mask_to_series(stack, prediction.segmentation, single_series, to_stack=to_stack)[0]
            )
    return np.stack(planes)


def note_missing_segmentation(prediction: Prediction) -> Prediction:
    """Return a prediction whose lesion no source image shows with a note of this, once; without a lesion, as it is."""
    note = message("dicom-segmentation-empty")
    if note in prediction.notes or not prediction.segmentation.mask.any():
        return prediction
    return replace(prediction, notes=(*prediction.notes, note))


def _create_single_slice_series(series: Series, slice_position: float) -> Series:
    """Return a one-slice series at a position between the slices."""
    affine = series.affine.copy()
    affine[:3, 3] += slice_position * affine[:3, 2]
    return replace(series, image=series.image[:1], affine=affine)
