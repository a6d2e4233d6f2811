"""The lesion mask on the grid of a source series, ``segmentation.nii.gz``, and its numbers, ``statistics.json``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gliomark.geometry import set_nifti_space
from gliomark.prediction import Prediction
from gliomark.reporting.lesion_statistics import compute_lesion_statistics
from gliomark.reporting.mask_resampling import resample_mask_to_reference, select_reference_sequence
from gliomark.reporting.result_writer import Writer
from gliomark.reporting.segmentation_images import create_nifti_image
from gliomark.study import Series

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput


def create_nifti_on_grid(values: NDArray[Any], series: Series) -> nib.Nifti1Image:
    """Create a NIfTI image ``(column, row, slice)`` from values ``(slice, row, column)`` on the grid of a series.

    For a series read from NIfTI, qform and sform are copied from that file: programs differ in which of the two they
    use, and a mask must overlay the images in all of them.
    """
    image = create_nifti_image(values, series.affine)
    if series.space is not None:
        # given an affine or a header, nibabel would change qform and sform
        image = nib.Nifti1Image(np.asarray(image.dataobj), None)
        set_nifti_space(image.header, series.space)
    return image


def create_nifti_file(prediction: Prediction) -> bytes:
    """Create the content of ``segmentation.nii.gz``; the same prediction gives the same bytes."""
    series = prediction.study.series[select_reference_sequence(prediction)]
    image = create_nifti_on_grid(resample_mask_to_reference(prediction), series)
    return gzip.compress(image.to_bytes(), mtime=0)


def write_nifti_mask(report_input: ReportInput, folder: Path) -> None:
    """Write ``segmentation.nii.gz`` and ``statistics.json``."""
    prediction = report_input.prediction
    (folder / "segmentation.nii.gz").write_bytes(create_nifti_file(prediction))
    statistics = compute_lesion_statistics(prediction).to_dict()
    (folder / "statistics.json").write_text(json.dumps(statistics, indent=2) + "\n", "utf-8")


WRITER = Writer("nifti", ("segmentation.nii.gz", "statistics.json"), write_nifti_mask, is_default=True)
