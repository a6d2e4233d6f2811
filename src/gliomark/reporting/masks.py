"""The outline carried from the stack's grid back to the images as they came, and written there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.files import encode_png
from gliomark.geometry import LPS_TO_RAS, set_nifti_space
from gliomark.study import MRSequence, Prediction, Segmentation, Series, SliceStack

THRESHOLD_MARGIN = (
    0.01  # how far a voxel's value is kept from 0.5, so that rounding of coordinates cannot flip it
)


def resample_mask_to_series(
    stack: SliceStack,
    segmentation: Segmentation,
    series: Series,
    *,
    to_stack: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """The outline on the grid of ``series``: 0 or 1, uint8 ``(slice, row, column)``.

    The probability is interpolated linearly in patient coordinates and cut at 0.5. Where slices coincide
    the result is exact; up to half a step outside the stack the nearest slice counts, beyond it nothing.
    to_stack: 4x4, the series' LPS mm to the stack's, where the two were registered; none: the same space.
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
    """The probability made to agree with the mask, which may have been cleaned or cut elsewhere than 0.5."""
    inside = np.maximum(segmentation.probability, 0.5 + THRESHOLD_MARGIN)
    outside = np.minimum(segmentation.probability, 0.5 - THRESHOLD_MARGIN)
    aligned: NDArray[np.float32] = np.where(segmentation.mask, inside, outside).astype(np.float32)
    return aligned


def select_reference_sequence(prediction: Prediction) -> MRSequence:
    """Whose grid the masks are written on: T1C where the model looked at it, else the first it looked at."""
    shown_sequences = [name for name in prediction.stack.images if name in prediction.study.series]
    return MRSequence.T1C if MRSequence.T1C in shown_sequences else shown_sequences[0]


def resample_mask_to_source_images(prediction: Prediction, sequence: MRSequence) -> NDArray[np.uint8]:
    """The outline on each DICOM image that a series was read from: 0 or 1, uint8 ``(image, row, column)``.

    An image off the even grid of a mended series takes the outline at its own place.
    """
    stack, series = prediction.stack, prediction.study.series[sequence]
    to_stack = stack.to_stack.get(sequence)
    mask = resample_mask_to_series(stack, prediction.segmentation, series, to_stack=to_stack)
    planes = []
    for image in series.source_images:
        if image.place.is_integer():
            planes.append(mask[int(image.place)])
        else:
            single_series = _create_single_slice_series(series, image.place)
            planes.append(
                resample_mask_to_series(stack, prediction.segmentation, single_series, to_stack=to_stack)[0]
            )
    return np.stack(planes)


def _create_single_slice_series(series: Series, slice_position: float) -> Series:
    """The grid of one image between the slices."""
    affine = series.affine.copy()
    affine[:3, 3] += slice_position * affine[:3, 2]
    return replace(series, image=series.image[:1], affine=affine)


def write_masks(prediction: Prediction, folder: Path) -> None:
    """Pictures: ``masks/<slice>.png``, one for every original slice. Volumes: ``segmentation.nii.gz``."""
    stack = prediction.stack
    name = select_reference_sequence(prediction)
    series = prediction.study.series[name]
    mask = resample_mask_to_series(stack, prediction.segmentation, series, to_stack=stack.to_stack.get(name))
    if prediction.study.kind == "pictures":
        _write_png_masks(mask, series.slice_names, folder / "masks")
    else:
        _write_nifti_mask(mask, series, folder / "segmentation.nii.gz")


def _write_png_masks(mask: NDArray[np.uint8], slice_names: tuple[str, ...], folder: Path) -> None:
    folder.mkdir()
    for name, plane in zip(slice_names, mask, strict=True):
        (folder / f"{name}.png").write_bytes(encode_png(plane * np.uint8(255)))


def _write_nifti_mask(mask: NDArray[np.uint8], series: Series, path: Path) -> None:
    """The mask as NIfTI, which counts (column, row, slice).

    Of a series that came as NIfTI, the header states the grid number for number as that file does: programs differ
    in which of its forms they read, and each must lay the mask on the images.
    """
    array = np.ascontiguousarray(mask.transpose(2, 1, 0))
    if series.space is None:
        image = nib.Nifti1Image(array, LPS_TO_RAS @ series.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(image.affine, code="scanner")
        image.set_qform(image.affine, code="scanner")
    else:
        image = nib.Nifti1Image(
            array, None
        )  # with an affine, or a header given, nibabel would correct the forms
        set_nifti_space(image.header, series.space)
    nib.save(image, path)
