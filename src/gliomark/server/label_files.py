"""Outlines as label files of other programs: NIfTI or NRRD on the grid of one series, in the patient's coordinates."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.geometry import to_simpleitk_image
from gliomark.reporting.nifti_mask import create_nifti_on_grid
from gliomark.study import Series

LABEL_EXTENSIONS = (".nii.gz", ".nii", ".nrrd")


@dataclass(frozen=True)
class LabelFormat:
    """How a label file is written.

    Attributes
    ----------
    extension
        One of ``LABEL_EXTENSIONS``.
    data_type
        NumPy's name of an integer type.
    is_compressed
        Of NRRD files; the extension decides for NIfTI.
    """

    extension: str = ".nii.gz"
    data_type: str = "uint8"
    is_compressed: bool = True


def encode_label(mask: NDArray[np.uint8], series: Series, label_format: LabelFormat = LabelFormat()) -> bytes:
    """Return the content of a label file; the same mask gives the same bytes.

    Parameters
    ----------
    mask
        0 or 1, ``(slice, row, column)``.
    series
        The series on whose grid the mask is.
    """
    values = mask.astype(label_format.data_type)
    if label_format.extension == ".nrrd":
        return _encode_nrrd(to_simpleitk_image(values, series.affine), label_format.is_compressed)
    content: bytes = create_nifti_on_grid(values, series).to_bytes()
    return gzip.compress(content, mtime=0) if label_format.extension == ".nii.gz" else content


def _encode_nrrd(image: sitk.Image, is_compressed: bool) -> bytes:
    with TemporaryDirectory() as folder:  # SimpleITK writes to files only
        path = Path(folder) / "label.nrrd"
        sitk.WriteImage(image, str(path), is_compressed)
        return path.read_bytes()


def compute_centroid(mask: NDArray[np.uint8]) -> list[float]:
    """Return the centroid of a mask ``(slice, row, column)`` as indices of column, row and slice; [] if it is empty."""
    indices = np.argwhere(mask)
    return [round(float(value), 2) for value in indices.mean(axis=0)[::-1]] if len(indices) else []
