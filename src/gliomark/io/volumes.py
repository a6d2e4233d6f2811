"""Read a patient's NIfTI, MetaImage or NRRD files. ``dataset_layout`` and ``naming`` find the role of each file.

Masks: the lesion is the enhancing tumour with the necrotic core, without oedema. A mask with one label is used
unchanged. In a mask with several of the labels 1 to 4, label 2 (oedema) is excluded: BraTS 2013 to 2021 give
1 (+ 3) + 4, BraTS 2023 gives 1 + 3. Exception: a MetaImage with only the labels 1 and 2 follows BRATS 2012, where 1 is
oedema and 2 the tumour core.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from gliomark.errors import GliomarkError, InputError
from gliomark.geometry import compute_image_affine, has_orthogonal_axes, is_valid_affine, read_nifti_space
from gliomark.io.compression import check_compressed_data
from gliomark.io.dataset_layout import LESION_ROLE, find_patient_volumes
from gliomark.io.grey_values import clean_grey_values
from gliomark.io.itk_geometry import read_itk_geometry
from gliomark.io.itk_header import NRRD_SUFFIXES, check_itk_header
from gliomark.io.mask_position import check_mask_position
from gliomark.io.nifti_geometry import compute_nifti_affine, read_raw_header
from gliomark.io.nifti_header import check_nifti_header
from gliomark.messages import message
from gliomark.study import MRSequence, Series, Study

WHOLE_NUMBER_TOLERANCE = 1e-3  # maximum distance of a label from a whole number
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


def read_volumes(path: Path, required_sequences: Sequence[MRSequence] = ()) -> Study:
    """Read one patient's volumes with the geometry that the files state.

    Images are never assumed to be aligned, even on equal grids; registration decides.

    Parameters
    ----------
    path
        The patient's folder, or ``<folder>/<case>`` for a case of an nnU-Net data set.
    required_sequences
        Used to choose between sessions. A damaged file of any other sequence is skipped with a note if all required
        ones are present.

    Returns
    -------
    Study
        Series float32 and the lesion mask 0 or 1, each ``(slice, row, column)`` with its affine to LPS mm.

    Raises
    ------
    InputError
        If there are two files of one sequence, a damaged file, or an image that is constant, inverted, in colour or
        not 3-D, or if the mask does not lie within the images.
    """
    patient_volumes = find_patient_volumes(path, required_sequences)
    notes, files = list(patient_volumes.notes), patient_volumes.files
    series: dict[MRSequence, Series] = {}
    for sequence in (one for one in MRSequence if one in files):
        try:
            series[sequence] = _read_series(files[sequence], sequence, notes)
        except GliomarkError:
            if (
                not required_sequences
                or sequence in required_sequences
                or not set(required_sequences) <= set(files)
            ):
                raise
            notes.append(message("dicom-not-needed", sequence=sequence, file=files[sequence].name))
    lesion = (
        read_lesion_mask(files[LESION_ROLE], notes, patient_volumes.lesion_labels)
        if LESION_ROLE in files
        else None
    )
    if lesion is not None:
        check_mask_position(lesion, lesion.source, series)
    return Study(
        patient_volumes.patient_id,
        series,
        path,
        "volumes",
        lesion=lesion,
        notes=tuple(notes),
        examination=patient_volumes.examination,
    )


# ---- one volume -------------------------------------------------------------------------------------


def _read_series(file: Path, sequence: str, notes: list[str]) -> Series:
    """Read and check one volume; notes for the user are appended to ``notes``."""
    series = _read_volume(file, notes)
    grey = clean_grey_values(series.image, file, sequence, series.slice_names)
    notes += grey.notes
    return replace(series, image=grey.image, missing=grey.missing)


def read_lesion_mask(file: Path, notes: list[str], lesion_labels: frozenset[int] | None = None) -> Series:
    """Read a lesion mask as 0 and 1, without oedema by the rule of this module; it may be empty.

    Parameters
    ----------
    file
        A NIfTI, MetaImage or NRRD file.
    notes
        Notes for the user are appended.
    lesion_labels
        The values that belong to the lesion, if the data set defines them.

    Returns
    -------
    Series
        float32 0 or 1, ``(slice, row, column)``.

    Raises
    ------
    InputError
        If the file cannot be read, or its values are not whole numbers, negative or not BraTS labels.
    """
    series = _read_volume(file, notes)
    labels = _extract_labels(file, series.image, lesion_labels is not None)
    if lesion_labels is not None:
        mask = np.isin(np.rint(series.image), list(lesion_labels)).astype(np.float32)
        return replace(series, image=mask)
    kept = labels
    if len(labels) > 1:
        brats_2012 = labels == {1.0, 2.0} and not _is_nifti(file)
        oedema = 1.0 if brats_2012 else 2.0
        kept = labels - {oedema}
        if oedema in labels:
            notes.append(message("mask-oedema", label=oedema, file=file.name))
    mask = np.isin(np.rint(series.image), list(kept)).astype(np.float32)
    return replace(series, image=mask)


def _extract_labels(file: Path, image: NDArray[np.float32], has_custom_labels: bool) -> set[float]:
    """Return the labels of a mask except 0; a file's scaling may round them imprecisely.

    has_custom_labels: the data set defines its own labels, which may differ from those of BraTS.
    """
    values = np.unique(image)
    if not np.isfinite(values).all():
        count = int(image.size - np.isfinite(image).sum())
        raise InputError(message("mask-not-numbers", file=file, count=count))
    if np.abs(values - np.rint(values)).max() > WHOLE_NUMBER_TOLERANCE:
        raise InputError(message("mask-fractions", file=file, low=values[0], high=values[-1]))
    labels = {float(label) for label in np.rint(values)} - {0.0}
    has_valid_labels = has_custom_labels or len(labels) < 2 or labels <= {1.0, 2.0, 3.0, 4.0}
    if any(label < 0 for label in labels) or not has_valid_labels:
        shown = ", ".join(f"{label:g}" for label in sorted(labels)[:6])
        raise InputError(message("mask-labels", file=file, labels=shown))
    return labels


def _read_volume(file: Path, notes: list[str]) -> Series:
    """Read one 3-D grey-scale volume and check its affine; grey values are unchanged."""
    series = _read_nifti(file, notes) if _is_nifti(file) else _read_itk(file, notes)
    _check_affine(file, series.affine)
    return series


def _is_nifti(file: Path) -> bool:
    return file.name.lower().endswith((".nii", ".nii.gz", ".hdr"))


def _read_nifti(file: Path, notes: list[str]) -> Series:
    """Read NIfTI with nibabel, scaling applied; the affine follows the rule of ``nifti_geometry``."""
    try:
        check_nifti_header(file)
        with LoggingOutputSuppressor():  # ``nifti_geometry`` checks the header itself
            volume = nib.load(file)
        if isinstance(volume, nib.AnalyzeImage) and not isinstance(volume, nib.Nifti1Pair):
            raise InputError(message("volume-analyze", file=file))
        if not isinstance(volume, nib.Nifti1Pair):  # single files and NIfTI-2 are pairs too
            raise ImageFileError
        dtype, shape = volume.get_data_dtype(), volume.shape
        _check_scalar_3d(file, dtype.kind in "biuf", shape)
        with np.errstate(over="ignore"):  # values beyond float32 become infinite
            data = np.asarray(volume.dataobj, dtype=np.float32)
        check_compressed_data(file, math.prod(shape) * dtype.itemsize)
        space = read_nifti_space(read_raw_header(volume))
    except _READ_ERRORS as error:
        code = "volume-scaling" if "slope" in str(error) else "volume-damaged"
        raise InputError(message(code, file=file)) from None
    image = np.ascontiguousarray(data.reshape(shape[:3]).transpose(2, 1, 0))
    affine, is_oriented = compute_nifti_affine(file, space, image.shape, notes)
    return Series(image, affine, create_slice_names(len(image)), file, is_oriented=is_oriented, space=space)


def _read_itk(file: Path, notes: list[str]) -> Series:
    """Read MetaImage or NRRD with SimpleITK."""
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
    _check_scalar_3d(file, is_scalar, volume.GetSize())
    if volume.GetDimension() == 4:
        volume = volume[:, :, :, 0]
    is_oriented, mm_per_unit = read_itk_geometry(file)
    if not is_oriented:
        notes.append(message("volume-unoriented-itk", file=file.name))
    affine = compute_image_affine(volume)
    affine[:3] *= mm_per_unit
    with np.errstate(over="ignore"):
        image = sitk.GetArrayFromImage(volume).astype(np.float32)
    return Series(image, affine, create_slice_names(len(image)), file, is_oriented=is_oriented)


def _check_scalar_3d(file: Path, is_scalar: bool, shape: tuple[int, ...]) -> None:
    if not is_scalar:
        raise InputError(message("volume-coloured", file=file))
    if len(shape) < 3 or any(extent != 1 for extent in shape[3:]) or 1 in shape[:3]:
        sizes = " x ".join(str(extent) for extent in shape)
        raise InputError(message("volume-not-3d", file=file, sizes=sizes))


def _check_affine(file: Path, affine: NDArray[np.float64]) -> None:
    """Raise unless the axes are orthogonal; later steps rely on it for left and right and for millimetres."""
    if not is_valid_affine(affine):
        raise InputError(message("volume-form-unusable", file=file))
    if not has_orthogonal_axes(affine):
        raise InputError(message("volume-sheared", file=file))


def create_slice_names(slice_count: int) -> tuple[str, ...]:
    """Create the names ``001``, ``002``, ... for slices without names."""
    return tuple(f"{number:03d}" for number in range(1, slice_count + 1))
