"""Volumes: a patient's NIfTI, MetaImage or NRRD files. Which file is what: ``layout`` and ``naming``.

Masks. The lesion is the enhancing tumour with the necrotic core, without oedema. A mask with one label is
taken as it is. With several labels out of 1 to 4, label 2 (oedema) is left out: BraTS 2013 to 2021 give
1 (+ 3) + 4, BraTS 2023 gives 1 + 3. The exception is a MetaImage with labels 1 and 2 alone, the coding of
BRATS 2012, where 1 is oedema and 2 the tumour core.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from gliomark.io.layout import LESION, find_volumes
from gliomark.study import GliomarkError, MRSequence, Series, Study

MOST_VOXELS = 200e6  # 512 x 512 x 700
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_volumes(path: Path, needed: Sequence[MRSequence] = ()) -> Study:
    """Read one patient's volumes, geometry as the files state it. needed: for the choice between sessions.

    Nothing is taken to be aligned, even on equal grids: registration decides.

    Raises: GliomarkError for two files of one sequence, a damaged file, NaN, all-zero or 4-D images.
    """
    found = find_volumes(path, needed)
    notes, files = list(found.notes), found.files
    series = {sequence: _read_series(files[sequence], notes) for sequence in MRSequence if sequence in files}
    lesion = read_lesion(files[LESION], notes, found.labels) if LESION in files else None
    return Study(
        found.patient_id,
        series,
        path,
        "volumes",
        lesion=lesion,
        notes=tuple(notes),
        examination=found.examination,
    )


# ---- one volume -------------------------------------------------------------------------------------


def _read_series(file: Path, notes: list[str]) -> Series:
    """Read and check one volume; what the reader should know is added to ``notes``."""
    image, affine = _read_nifti(file, notes) if _is_nifti(file) else _read_itk(file)
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        raise GliomarkError(
            f"{file} has {bad} voxels that are not numbers (NaN or infinite): export or convert it again."
        )
    if not image.any():
        raise GliomarkError(f"{file} is zero everywhere: export or convert it again.")
    _check_grid(file, affine)
    return Series(image, affine, counted_names(image.shape[0]), file)


def read_lesion(file: Path, notes: list[str], lesion_labels: frozenset[int] | None = None) -> Series:
    """Read a mask as 0 and 1, oedema left out (see the module's text); an empty mask is allowed.

    lesion_labels: the values that are the lesion, where a data set's description says so.
    """
    image, affine = _read_nifti(file, notes) if _is_nifti(file) else _read_itk(file)
    _check_grid(file, affine)
    if lesion_labels is not None:
        mask = np.isin(image, list(lesion_labels)).astype(np.float32)
        return Series(mask, affine, counted_names(mask.shape[0]), file)
    labels = {float(label) for label in np.unique(image)} - {0.0}
    if len(labels) > 1 and not labels <= {1.0, 2.0, 3.0, 4.0}:
        shown = ", ".join(f"{label:g}" for label in sorted(labels)[:6])
        raise GliomarkError(
            f"The mask {file} has values that are no BraTS labels ({shown}): give a mask of 0 and 1."
        )
    kept = labels
    if len(labels) > 1:
        brats_2012 = labels == {1.0, 2.0} and not _is_nifti(file)
        oedema = 1.0 if brats_2012 else 2.0
        kept = labels - {oedema}
        if oedema in labels:
            notes.append(
                f"Label {oedema:g} of the mask {file.name} is taken for oedema and is no lesion here."
            )
    mask = np.isin(image, list(kept)).astype(np.float32)
    return Series(mask, affine, counted_names(mask.shape[0]), file)


def _is_nifti(file: Path) -> bool:
    return file.name.lower().endswith((".nii", ".nii.gz"))


def _read_nifti(file: Path, notes: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """NIfTI by nibabel: float32 ``(slice, row, column)`` and LPS affine, the file's scaling applied."""
    try:
        volume = nib.load(file)
        if not isinstance(volume, nib.Nifti1Image):  # NIfTI-2 is one too
            raise ImageFileError
        kind, shape, header = volume.get_data_dtype(), volume.shape, volume.header
        _check_kind(file, kind.kind in "biuf", shape)
        _check_size(file, shape)
        data = np.asarray(volume.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError):
        raise GliomarkError(f"{file} is damaged or no NIfTI file: copy or convert it again.") from None
    if not header["sform_code"] and not header["qform_code"]:
        notes.append(f"{file.name} does not state its orientation: left and right are assumed, not read.")
    image = np.ascontiguousarray(data.reshape(shape[:3]).transpose(2, 1, 0))
    return image, RAS_TO_LPS @ np.asarray(volume.affine, dtype=np.float64)


def _check_size(file: Path, shape: Sequence[int]) -> None:
    """A packed file of a megabyte may unpack to many gigabytes; asked before anything is unpacked."""
    voxels = math.prod(int(length) for length in shape)
    if voxels > MOST_VOXELS:
        raise GliomarkError(
            f"{file} holds {voxels / 1e6:.0f} million voxels, more than any MR image; at most "
            f"{MOST_VOXELS / 1e6:.0f} million are read."
        )


def _read_itk(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """MetaImage or NRRD by SimpleITK: float32 ``(slice, row, column)`` and LPS affine."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(file))
    try:
        reader.ReadImageInformation()
        _check_size(file, reader.GetSize())
        volume = reader.Execute()
    except RuntimeError:
        raise GliomarkError(f"{file} is damaged or no image volume: copy or convert it again.") from None
    real = volume.GetNumberOfComponentsPerPixel() == 1 and "complex" not in volume.GetPixelIDTypeAsString()
    _check_kind(file, real, volume.GetSize())
    if volume.GetDimension() == 4:
        volume = volume[:, :, :, 0]
    image = sitk.GetArrayFromImage(volume).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(volume.GetDirection(), (3, 3)) * np.asarray(volume.GetSpacing())
    affine[:3, 3] = volume.GetOrigin()
    return image, affine


def _check_kind(file: Path, real: bool, shape: tuple[int, ...]) -> None:
    if not real:
        raise GliomarkError(f"{file} holds colours or complex numbers: give a grey-value volume.")
    if len(shape) < 3 or any(extent != 1 for extent in shape[3:]):
        sizes = " x ".join(str(extent) for extent in shape)
        raise GliomarkError(f"{file} is not one 3-D volume (its size is {sizes}): give a single volume.")


def _check_grid(file: Path, affine: NDArray[np.float64]) -> None:
    """A grid must be right-angled, or left-right and millimetres lose their meaning downstream."""
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(affine).all() or (lengths < 1e-3).any():
        raise GliomarkError(f"{file} states no usable voxel size or orientation: convert it again.")
    cosines = (steps / lengths).T @ (steps / lengths)
    if np.abs(cosines - np.eye(3)).max() > 0.01:
        raise GliomarkError(f"The voxel grid of {file} is sheared: resample it to a right-angled grid.")


def counted_names(slices: int) -> tuple[str, ...]:
    """Names ``001``, ``002``, ... for slices that have none."""
    return tuple(f"{number:03d}" for number in range(1, slices + 1))
