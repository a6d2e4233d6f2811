"""Finding mask files, each kind told by its content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from gliomark.io.dicom import is_dicom_file
from gliomark.io.itk_header import check_itk_header
from gliomark.io.layout import VOLUME_SUFFIXES, get_file_stem, list_visible_entries
from gliomark.io.masks.dicom import read_dicom_mask_kind
from gliomark.io.masks.pictures import is_annotation_file
from gliomark.io.masks.rules import is_excluded_region_name, is_lesion_region_name
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name, split_words
from gliomark.io.nifti_header import check_nifti_header

_MAX_LABELS = 5  # BraTS has four and the background


def find_masks(folder: Path) -> tuple[Path, ...]:
    """Mask files under a patient's mask folder, in order of name, each kind told by its content.

    A volume is one by its name, or where it holds at most four labels; a brain mask and, by its name, a mask
    of oedema alone are none. Raises: GliomarkError when a folder cannot be listed.
    """
    return tuple(file for file in _walk_files(folder) if find_mask_kind(file))


def _walk_files(folder: Path) -> Iterator[Path]:
    for entry in list_visible_entries(folder):
        if entry.is_dir():
            yield from _walk_files(entry)
        else:
            yield entry


def find_mask_kind(file: Path) -> str:
    """``volume``, ``annotation``, ``segmentation`` or ``structure set``; blank for any other file."""
    if file.name.lower().endswith(VOLUME_SUFFIXES):
        return "volume" if _is_mask_volume(file) else ""
    if is_annotation_file(file):
        return "annotation"
    return read_dicom_mask_kind(file) if is_dicom_file(file) else ""


def _is_mask_volume(file: Path) -> bool:
    """By the name where it decides, else by the folder's name or the content."""
    name = get_file_stem(file)
    if is_lesion_mask_name(name):
        return not is_excluded_region_name(name) or "ot" in split_words(
            name
        )  # VSD.Brain.XX.O.OT is BRATS 2013's truth
    if is_excluded_region_name(name):
        return False
    return is_lesion_region_name(name) or is_lesion_mask_name(file.parent.name) or _has_few_labels(file)


def _has_few_labels(file: Path) -> bool:
    """Whether a volume holds at most five different whole numbers, or shares of one as a probability does.

    One that is damaged, by a few values that are not numbers too, counts as a mask where its name says no sequence:
    reading it says why it is none.
    """
    unnamed = find_sequence_in_name(get_file_stem(file)) is None
    try:
        if file.name.lower().endswith((".nii", ".nii.gz", ".hdr")):
            check_nifti_header(file)
            values = np.unique(np.asarray(nib.load(file).dataobj))
        else:
            check_itk_header(file)
            values = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))
    except Exception:  # whatever a decoder throws at a damaged file
        return unnamed
    finite = values[np.isfinite(values)]
    whole = bool(np.equal(finite, np.round(finite)).all())
    is_probability = len(finite) > 0 and finite[0] >= 0 and finite[-1] <= 1
    return (len(finite) <= _MAX_LABELS and whole) or (unnamed and bool(is_probability))
