"""Read NIfTI volumes with nibabel; ``nifti_header`` and ``nifti_geometry`` check what the file states."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import read_nifti_space
from gliomark.io.compression import check_compressed_data
from gliomark.io.format_reader import Reader, VolumeContent, create_suffix_claim
from gliomark.io.nifti_geometry import compute_nifti_affine, read_raw_header
from gliomark.io.nifti_header import check_nifti_header
from gliomark.io.volume_checks import check_scalar_3d, create_slice_names
from gliomark.messages import message
from gliomark.study import Series

_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    OverflowError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


def read_nifti(file: Path) -> VolumeContent:
    """Read a NIfTI volume ``(slice, row, column)``, scaling applied; its affine is that of ``nifti_geometry``.

    Raises
    ------
    InputError
        If the file is damaged, Analyze, in colour or not 3-D, or if its geometry is invalid or contradictory.
    """
    try:
        check_nifti_header(file)
        with LoggingOutputSuppressor():  # ``nifti_geometry`` checks the header itself
            volume = nib.load(file)
        if isinstance(volume, nib.AnalyzeImage) and not isinstance(volume, nib.Nifti1Pair):
            raise InputError(message("volume-analyze", file=file))
        if not isinstance(volume, nib.Nifti1Pair):  # single files and NIfTI-2 are pairs too
            raise ImageFileError
        dtype, shape = volume.get_data_dtype(), volume.shape
        check_scalar_3d(file, dtype.kind in "biuf", shape)
        with np.errstate(over="ignore"):  # values beyond float32 become infinite
            data = np.asarray(volume.dataobj, dtype=np.float32)
        check_compressed_data(file, math.prod(shape) * dtype.itemsize)
        space = read_nifti_space(read_raw_header(volume))
    except _READ_ERRORS as error:
        code = "volume-scaling" if "slope" in str(error) else "volume-damaged"
        raise InputError(message(code, file=file)) from None
    notes: list[str] = []
    image = np.ascontiguousarray(data.reshape(shape[:3]).transpose(2, 1, 0))
    affine, is_oriented = compute_nifti_affine(file, space, image.shape, notes)
    names = create_slice_names(len(image))
    return VolumeContent(
        Series(image, affine, names, file, is_oriented=is_oriented, space=space), tuple(notes)
    )


def read_nifti_values(file: Path) -> NDArray[Any]:
    """Read the values of a NIfTI volume, scaling applied, as stored: ``(column, row, slice)``.

    Raises
    ------
    InputError
        If the header states an impossible size; nibabel raises other errors for damaged files.
    """
    check_nifti_header(file)
    return np.asarray(nib.load(file).dataobj)


READER = Reader(
    "NIfTI",
    create_suffix_claim(".nii", ".nii.gz", ".hdr"),
    read_volume=read_nifti,
    read_values=read_nifti_values,
)
