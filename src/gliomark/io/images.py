"""Read one image per sequence, from a file or from memory, into a Study.

``nibabel`` and ``(array, affine)`` follow the conventions of NIfTI: the array has the axes ``(i, j, k)``, and the
affine maps ``(i, j, k, 1)`` to mm in RAS (x to the patient's right, y to the front, z to the head). SimpleITK images
bring their own geometry. The order and direction of the axes do not matter, as long as the affine describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import LPS_TO_RAS, compute_image_affine, read_nifti_space
from gliomark.io.dicom import find_dicom_files, group_series, is_dicom_file, read_headers, read_series
from gliomark.io.grey_values import clean_grey_values
from gliomark.io.naming import find_sequence_in_name
from gliomark.io.nifti_geometry import compute_nifti_affine
from gliomark.io.readers import is_volume_file
from gliomark.io.size_limits import check_voxel_count
from gliomark.io.volume_checks import check_affine, check_scalar_3d, create_slice_names
from gliomark.io.volumes import read_volume_series
from gliomark.messages import message
from gliomark.study import MRSequence, Series, Study

ImageSource: TypeAlias = "str | PathLike[str] | SpatialImage | sitk.Image | tuple[NDArray[Any], NDArray[Any]]"


def read_images(images: Mapping[str, ImageSource], patient_id: str = "") -> Study:
    """Read one image per sequence into a Study.

    Images are never assumed to be aligned; registration decides. Images in memory are copied, not changed.

    Parameters
    ----------
    images
        By sequence ("T1", "T1C", "T2", "FLAIR", or a usual name of one such as "t1ce"): the path of a NIfTI, MetaImage,
        NRRD or DICOM file, a folder with one DICOM series, a nibabel or SimpleITK image, or a tuple of an array
        ``(i, j, k)`` and its affine ``(4, 4)`` to RAS mm.
    patient_id
        The id in results; "patient" if it is empty.

    Returns
    -------
    Study
        Series float32 ``(slice, row, column)`` with their affines to LPS mm.

    Raises
    ------
    InputError
        If there is no image, a name or type is unknown, a file is missing or damaged, or an image is constant,
        inverted, in colour, not 3-D or not on an orthogonal grid.
    """
    if not images:
        raise InputError(message("images-none"))
    notes: list[str] = []
    source_by_sequence = _match_sequences(images)
    series = {
        name: _read_image(name, source_by_sequence[name], notes)
        for name in MRSequence
        if name in source_by_sequence
    }
    # masks that lie beside DICOM images are looked for in the source
    dicom_sources = [one.source for one in series.values() if one.source_images]
    source = (dicom_sources or [one.source for one in series.values()])[0]
    return Study(patient_id or "patient", series, source, "volumes", notes=tuple(notes))


def _match_sequences(images: Mapping[str, ImageSource]) -> dict[MRSequence, ImageSource]:
    """Return the images by sequence; raise InputError if a name is unknown or two name the same sequence."""
    name_by_sequence: dict[MRSequence, str] = {}
    for name in images:
        sequence = find_sequence_in_name(name) if isinstance(name, str) else None
        if sequence is None:
            raise InputError(message("image-sequence-unknown", name=repr(name)))
        if sequence in name_by_sequence:
            raise InputError(
                message(
                    "image-sequence-twice", one=name_by_sequence[sequence], other=name, sequence=str(sequence)
                )
            )
        name_by_sequence[sequence] = name
    return {sequence: images[name] for sequence, name in name_by_sequence.items()}


def _read_image(sequence: MRSequence, image: object, notes: list[str]) -> Series:
    """Read the image of one sequence; notes for the user are appended to ``notes``."""
    if isinstance(image, str | PathLike):
        return _read_path(sequence, Path(image), notes)
    label = Path(f"{sequence} (in memory)")  # in place of a file name in messages
    if isinstance(image, SpatialImage):
        series = _convert_nibabel(label, image, notes)
    elif isinstance(image, sitk.Image):
        series = _convert_simpleitk(label, image)
    elif isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], np.ndarray):
        series = _convert_array(label, image[0], _check_affine_argument(sequence, image[1]))
    elif isinstance(image, np.ndarray):
        raise InputError(message("image-affine-missing", sequence=str(sequence)))
    else:
        kind = type(image[0] if isinstance(image, tuple) and image else image).__name__
        raise InputError(message("image-kind-unknown", sequence=str(sequence), kind=kind))
    check_affine(label, series.affine)
    grey_values = clean_grey_values(series.image, label, sequence, series.slice_names)
    notes += grey_values.notes
    return replace(series, image=grey_values.image, missing=grey_values.missing)


def _read_path(sequence: MRSequence, path: Path, notes: list[str]) -> Series:
    """Read a volume file, or the only series of a DICOM file or folder."""
    if not path.exists():
        raise InputError(message("folder-missing", folder=path))
    if path.is_file() and is_volume_file(path):
        return read_volume_series(path, sequence, notes)
    files = [path] if path.is_file() and is_dicom_file(path) else []
    if path.is_dir():
        files = list(find_dicom_files(path))
    headers = read_headers(files)
    images = [one.instance for one in headers if one.instance is not None and one.instance.is_mr_image]
    if not images:
        raise InputError(
            next((one.problem for one in headers if one.problem), message("image-file-unknown", file=path))
        )
    dicom_series = group_series(images)
    if len(dicom_series) != 1:
        raise InputError(message("image-folder-series", folder=path, count=len(dicom_series)))
    series, series_notes = read_series(dicom_series[0])
    notes += series_notes
    return series


def _convert_nibabel(label: Path, image: SpatialImage, notes: list[str]) -> Series:
    """Convert a nibabel image; the affine of a NIfTI image follows the rule for files, so that both give the same."""
    check_scalar_3d(label, np.dtype(image.get_data_dtype()).kind in "biuf", image.shape)
    check_voxel_count(label, image.shape)
    array = np.asarray(image.dataobj, dtype=np.float32)
    affine = np.eye(4) if image.affine is None else np.asarray(image.affine, dtype=np.float64)
    if not isinstance(image, nib.Nifti1Pair) or not np.allclose(affine, image.header.get_best_affine()):
        return _convert_array(label, array, affine)
    space = read_nifti_space(image.header)
    array = _reorder_axes(array)
    affine, is_oriented = compute_nifti_affine(label, space, array.shape, notes)
    return Series(array, affine, create_slice_names(len(array)), label, is_oriented=is_oriented, space=space)


def _convert_simpleitk(label: Path, image: sitk.Image) -> Series:
    """Convert a SimpleITK image; a fourth axis of length 1 is removed."""
    is_scalar = image.GetNumberOfComponentsPerPixel() == 1 and "complex" not in image.GetPixelIDTypeAsString()
    check_scalar_3d(label, is_scalar, image.GetSize())
    check_voxel_count(label, image.GetSize())
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    return Series(array, compute_image_affine(image), create_slice_names(len(array)), label)


def _convert_array(label: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> Series:
    """Convert an array ``(i, j, k)`` with its affine ``(4, 4)`` to RAS mm."""
    check_scalar_3d(label, array.dtype.kind in "biuf", array.shape)
    check_voxel_count(label, array.shape)
    image = _reorder_axes(array)
    return Series(image, LPS_TO_RAS @ affine, create_slice_names(len(image)), label)


def _reorder_axes(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return a copy ``(slice, row, column)``, float32, of an array ``(i, j, k)`` or ``(i, j, k, 1)``."""
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        return np.array(array.reshape(array.shape[:3]).transpose(2, 1, 0), dtype=np.float32, order="C")


def _check_affine_argument(sequence: MRSequence, affine: object) -> NDArray[np.float64]:
    """Return the affine as float64 ``(4, 4)``; raise InputError if it is not one."""
    try:
        matrix = np.asarray(affine, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], (0.0, 0.0, 0.0, 1.0)):
        raise InputError(message("image-affine-shape", sequence=str(sequence)))
    return matrix
