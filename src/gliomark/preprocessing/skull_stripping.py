"""Brain mask by deepbet (Fisch et al. 2024), and whether an image still has its skull."""

from __future__ import annotations

from functools import cache

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from deepbet import BrainExtraction
from numpy.typing import NDArray

from gliomark.geometry import LPS_RAS, affine_of
from gliomark.study import GliomarkError

SMALLEST_BRAIN_ML = 300.0


@cache
def _deepbet() -> BrainExtraction:
    return BrainExtraction(no_gpu=True)


def brain_mask(image: sitk.Image) -> sitk.Image:
    """The brain in a head image (T1 or T1C best) as uint8 0/1 on the same grid.

    Raises GliomarkError where no brain of at least 300 ml is found.
    """
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    nifti = nib.Nifti1Image(array.transpose(2, 1, 0), LPS_RAS @ affine_of(image))
    try:
        _, mask, millilitres = _deepbet().run(nifti)
    except (AssertionError, ValueError, RuntimeError) as error:
        # deepbet asserts, or takes an arg-max of nothing, where its first look finds no foreground
        raise GliomarkError(
            f"No brain was found in the image ({error}); is this an axial head MRI?"
        ) from error
    if millilitres < SMALLEST_BRAIN_ML:
        raise GliomarkError(
            f"Only {millilitres:.0f} ml of brain were found in the image; is this a whole axial head MRI?"
        )
    return _like(np.asarray(mask.dataobj).transpose(2, 1, 0).astype(np.uint8), image)


def already_stripped(image: sitk.Image) -> bool:
    """Whether the skull is gone: a constant background, and no more foreground than a brain can have.

    A whole head in the same field of view has well over two litres of foreground.
    """
    foreground = foreground_mask(image)
    array = sitk.GetArrayViewFromImage(foreground)
    litres = float(array.sum()) * float(np.prod(image.GetSpacing())) / 1e6
    touches_edge = array[:, 0].any() or array[:, -1].any() or array[:, :, 0].any() or array[:, :, -1].any()
    return bool(array.mean() < 0.6 and litres < 2.1 and not touches_edge)


def foreground_mask(image: sitk.Image) -> sitk.Image:
    """Everything that is not the constant background (the lowest value), holes filled, uint8 0/1."""
    array = sitk.GetArrayViewFromImage(image)
    return sitk.BinaryFillhole(_like((array > array.min()).astype(np.uint8), image))


def _like(array: NDArray[np.uint8], image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(np.ascontiguousarray(array))
    result.CopyInformation(image)
    return result
