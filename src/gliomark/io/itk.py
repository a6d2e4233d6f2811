"""Read MetaImage and NRRD volumes with SimpleITK; ``itk_header`` and ``itk_geometry`` check what the file states."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import compute_image_affine
from gliomark.io.compression import check_compressed_data
from gliomark.io.format_reader import Reader, VolumeContent, create_suffix_claim
from gliomark.io.itk_geometry import read_itk_geometry
from gliomark.io.itk_header import META_IMAGE_SUFFIXES, NRRD_SUFFIXES, check_itk_header
from gliomark.io.volume_checks import check_scalar_3d, create_slice_names
from gliomark.messages import message
from gliomark.study import Series


def read_itk(file: Path) -> VolumeContent:
    """Read a MetaImage or NRRD volume ``(slice, row, column)``; its affine is in LPS mm.

    Raises
    ------
    InputError
        If the file is damaged, in colour or not 3-D, or its header states an invalid size, spacing or unit.
    """
    required_bytes = check_itk_header(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(file))
    reader.SetImageIO("NrrdImageIO" if file.name.lower().endswith(NRRD_SUFFIXES) else "MetaImageIO")
    try:
        volume = reader.Execute()
        check_compressed_data(file, required_bytes)
    except (RuntimeError, OSError, EOFError, zlib.error):
        raise InputError(message("volume-damaged", file=file)) from None
    is_scalar = (
        volume.GetNumberOfComponentsPerPixel() == 1 and "complex" not in volume.GetPixelIDTypeAsString()
    )
    check_scalar_3d(file, is_scalar, volume.GetSize())
    if volume.GetDimension() == 4:
        volume = volume[:, :, :, 0]
    is_oriented, mm_per_unit = read_itk_geometry(file)
    notes = () if is_oriented else (message("volume-unoriented-itk", file=file.name),)
    affine = compute_image_affine(volume)
    affine[:3] *= mm_per_unit
    with np.errstate(over="ignore"):
        image = sitk.GetArrayFromImage(volume).astype(np.float32)
    names = create_slice_names(len(image))
    return VolumeContent(Series(image, affine, names, file, is_oriented=is_oriented), notes)


def read_itk_values(file: Path) -> NDArray[Any]:
    """Read the values of a MetaImage or NRRD volume ``(slice, row, column)``.

    Raises
    ------
    InputError
        If the header states an impossible size; SimpleITK raises RuntimeError for damaged files.
    """
    check_itk_header(file)
    values: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return values


claim_itk_file = create_suffix_claim(*META_IMAGE_SUFFIXES, *NRRD_SUFFIXES)
READER = Reader("MetaImage or NRRD", claim_itk_file, read_volume=read_itk, read_values=read_itk_values)
