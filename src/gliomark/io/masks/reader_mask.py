"""Read the segmentation that a user gives for a patient, in place of the network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.files import iterate_files
from gliomark.geometry import is_on_lattice
from gliomark.io.dicom import is_dicom_file
from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.folder_listing import get_file_stem
from gliomark.io.mask_position import check_mask_position
from gliomark.io.masks import LesionMask, SeriesGrid, read_masks, unite_masks
from gliomark.io.masks.dicom_segmentations import READ_ERRORS, read_dicom_mask_kind
from gliomark.io.masks.volume_masks import read_lesion_mask
from gliomark.io.naming import find_sequence_in_name
from gliomark.io.pictures import PICTURE_SUFFIXES, list_picture_files, read_mask_pictures
from gliomark.io.readers import is_volume_file, read_volume
from gliomark.messages import message
from gliomark.study import MRSequence, Series

# order of preference for a volume on the grid of several series, as in ``read_masks``
_SEQUENCE_PRIORITY = (MRSequence.T2, MRSequence.T1C, MRSequence.FLAIR, MRSequence.T1)


@dataclass(frozen=True, eq=False)
class ReaderMask:
    """A segmentation that a user gave, and notes on how it was read.

    mask: boolean ``(slice, row, column)`` on the patient's stack.
    """

    mask: NDArray[np.bool_]
    notes: tuple[str, ...]


def read_reader_mask(
    file: Path,
    grids: Mapping[MRSequence, SeriesGrid],
    grid: SeriesGrid,
    transform_by_sequence: Mapping[MRSequence, NDArray[np.float64]],
) -> ReaderMask:
    """Read a segmentation of one patient on the grid of the patient's stack.

    Parameters
    ----------
    file
        NIfTI, NRRD or MHA volume, DICOM SEG or RTSTRUCT; for a patient in pictures also a folder of mask pictures that
        are named after the slices, or one of them.
    grids
        Geometry of the patient's series.
    grid
        Geometry of the stack.
    transform_by_sequence
        Rigid transform ``(4, 4)`` from the LPS mm of each series to the stack's.

    Returns
    -------
    ReaderMask
        All False for an empty segmentation.

    Raises
    ------
    InputError
        If the file is no segmentation or damaged, or belongs to another patient or other images.
    """
    if not file.exists():
        raise InputError(message("mask-absent", file=file))
    series = {name: one.blank_series for name, one in grids.items()}
    if _has_mask_pictures(file):
        masks: tuple[LesionMask, ...] = (_read_pictures(file, series),)
    elif file.is_file() and is_volume_file(file):
        masks = (_read_volume(file, series),)
    elif file.is_file() and is_dicom_file(file) and read_dicom_mask_kind(file):
        _check_patient(file, series, grid.source)
        masks = read_masks(None, series, files=[file])
    else:
        raise InputError(message("mask-kind", file=file))
    united = unite_masks(masks, grid.blank_series, transform_by_sequence).image > 0
    notes = [message("mask-from-file", file=file.name), *(note for mask in masks for note in mask.notes)]
    return ReaderMask(united, tuple(dict.fromkeys(notes)))


def read_mask_files(
    folder: Path,
    grids: Mapping[MRSequence, SeriesGrid],
    grid: SeriesGrid,
    transform_by_sequence: Mapping[MRSequence, NDArray[np.float64]],
) -> ReaderMask:
    """Read a segmentation from a folder that contains one file, or only mask pictures, at any depth.

    The other arguments, and the errors, are those of ``read_reader_mask``; transform_by_sequence: matrices ``(4, 4)``.

    Raises
    ------
    InputError
        As ``read_reader_mask``; also if the folder contains other files besides.
    """
    files = list(iterate_files(folder))
    if len(files) == 1:
        return read_reader_mask(files[0], grids, grid, transform_by_sequence)
    parents = {file.parent for file in files}
    if len(parents) != 1 or not all(file.suffix.lower() in PICTURE_SUFFIXES for file in files):
        raise InputError(message("mask-files-several", count=len(files)))
    return read_reader_mask(parents.pop(), grids, grid, transform_by_sequence)


def read_single_label(
    folder: Path,
    grids: Mapping[MRSequence, SeriesGrid],
    grid: SeriesGrid,
    transform_by_sequence: Mapping[MRSequence, NDArray[np.float64]],
) -> ReaderMask:
    """Read a segmentation of a program that knows only one label, the lesion.

    Several labels are then several segments, and not the regions of BraTS, of which ``read_mask_files`` leaves out the
    oedema. The arguments are those of ``read_mask_files``; transform_by_sequence: matrices ``(4, 4)``.

    Raises
    ------
    InputError
        As ``read_mask_files``; also if a volume has more than one label.
    """
    for file in iterate_files(folder):
        if is_volume_file(file):
            labels = np.unique(read_volume(file).series.image)
            labels = labels[np.isfinite(labels) & (labels != 0)]
            if len(labels) > 1:
                shown = ", ".join(f"{label:g}" for label in labels[:6])
                raise InputError(message("mask-several-labels", file=file, labels=shown))
    return read_mask_files(folder, grids, grid, transform_by_sequence)


def _has_mask_pictures(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES if path.is_file() else bool(list_picture_files(path))


def _read_pictures(path: Path, series: Mapping[MRSequence, Series]) -> LesionMask:
    """Read mask pictures on the grid that the sequences of a patient in pictures share."""
    sequence, drawn_on = next(iter(series.items()))
    if not (drawn_on.source.is_dir() and list_picture_files(drawn_on.source)):
        raise InputError(message("mask-pictures-of-volumes", path=path))
    mask, notes = read_mask_pictures(path, drawn_on)
    image = mask.astype(np.float32)
    return LesionMask(replace(drawn_on, image=image, source=path), "", path, "", notes, sequence)


def _read_volume(file: Path, series: Mapping[MRSequence, Series]) -> LesionMask:
    """Read a volume; its name decides between series of the same grid."""
    notes: list[str] = []
    mask = read_lesion_mask(file, notes)
    check_mask_position(mask, file, series)
    matching = [
        name
        for name in _SEQUENCE_PRIORITY
        if name in series and is_on_lattice(mask.affine, mask.image.shape, series[name].affine)
    ]
    if not matching:
        raise InputError(message("mask-other-grid", file=file, sequences=", ".join(series)))
    named = find_sequence_in_name(get_file_stem(file))
    return LesionMask(mask, "", file, "", tuple(notes), named if named in matching else matching[0])


def _check_patient(file: Path, series: Mapping[MRSequence, Series], folder: Path) -> None:
    """Check that a DICOM mask and the DICOM images state the same patient id, if both state one."""
    images = [one.source_images[0].file for one in series.values() if one.source_images]
    try:
        ids = {_read_patient_id(path) for path in (file, *images)} - {""}
    except READ_ERRORS:
        return  # reported when the file is read
    if images and len(ids) > 1:
        raise InputError(message("mask-other-patient", file=file, folder=folder))


def _read_patient_id(file: Path) -> str:
    header = read_dataset(file, stop_before_pixels=True, specific_tags=["PatientID"])
    return str(header.get("PatientID") or "").strip()
