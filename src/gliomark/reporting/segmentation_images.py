"""The lesion mask on the grid of a source series, as nibabel and SimpleITK images in memory."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import LPS_TO_RAS, to_simpleitk_image
from gliomark.messages import message
from gliomark.prediction import Prediction
from gliomark.reporting.mask_resampling import (
    list_used_sequences,
    resample_mask_to_series,
    select_reference_sequence,
)
from gliomark.study import MRSequence


def create_segmentation_image(
    prediction: Prediction, sequence: MRSequence | str | None = None
) -> nib.Nifti1Image:
    """Create the lesion mask as NIfTI, see ``Prediction.segmentation_image``."""
    name = _select_sequence(prediction, sequence)
    return create_nifti_image(_resample_mask(prediction, name), prediction.study.series[name].affine)


def create_segmentation_sitk(prediction: Prediction, sequence: MRSequence | str | None = None) -> sitk.Image:
    """Create the lesion mask as a SimpleITK image, see ``Prediction.segmentation_sitk``."""
    name = _select_sequence(prediction, sequence)
    return to_simpleitk_image(_resample_mask(prediction, name), prediction.study.series[name].affine)


def _select_sequence(prediction: Prediction, sequence: MRSequence | str | None) -> MRSequence:
    """Return the sequence, or the reference if it is None; raise InputError if the model did not use it."""
    if sequence is None:
        return select_reference_sequence(prediction)
    used = list_used_sequences(prediction)
    if sequence not in used:
        raise InputError(message("sequence-not-used", sequence=str(sequence), used=", ".join(used)))
    return MRSequence(sequence)


def _resample_mask(prediction: Prediction, sequence: MRSequence) -> NDArray[np.uint8]:
    """Resample the lesion mask to the grid of a series, ``(slice, row, column)``."""
    stack, series = prediction.stack, prediction.study.series[sequence]
    to_stack = stack.to_stack.get(sequence)
    return resample_mask_to_series(stack, prediction.segmentation, series, to_stack=to_stack)


def create_nifti_image(values: NDArray[Any], affine: NDArray[np.float64]) -> nib.Nifti1Image:
    """Create a NIfTI image ``(column, row, slice)`` from an array ``(slice, row, column)`` with affine to LPS mm."""
    image = nib.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), LPS_TO_RAS @ affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    return image
