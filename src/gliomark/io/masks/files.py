"""Finding mask files, each kind told by its content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from gliomark.io.dicom import looks_like_dicom
from gliomark.io.itk_header import check_itk_header
from gliomark.io.layout import VOLUME_SUFFIXES, stem_of, visible
from gliomark.io.masks.dicom import mask_kind
from gliomark.io.masks.pictures import is_annotation
from gliomark.io.masks.rules import names_lesion, names_other
from gliomark.io.naming import is_lesion_name, sequence_in_name, words_of
from gliomark.io.nifti_header import check_nifti_header

_MOST_LABELS = 5  # BraTS has four and the background


def find_masks(folder: Path) -> tuple[Path, ...]:
    """Mask files under a patient's mask folder, in order of name, each kind told by its content.

    A volume is one by its name, or where it holds at most four labels; a brain mask and, by its name, a mask
    of oedema alone are none. Raises: GliomarkError when a folder cannot be listed.
    """
    return tuple(file for file in _files(folder) if kind_of(file))


def _files(folder: Path) -> Iterator[Path]:
    for entry in visible(folder):
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry


def kind_of(file: Path) -> str:
    """``volume``, ``annotation``, ``segmentation`` or ``structure set``; blank for any other file."""
    if file.name.lower().endswith(VOLUME_SUFFIXES):
        return "volume" if _is_mask_volume(file) else ""
    if is_annotation(file):
        return "annotation"
    return mask_kind(file) if looks_like_dicom(file) else ""


def _is_mask_volume(file: Path) -> bool:
    """By the name where it decides, else by the folder's name or the content."""
    name = stem_of(file)
    if is_lesion_name(name):
        return not names_other(name) or "ot" in words_of(name)  # VSD.Brain.XX.O.OT is BRATS 2013's truth
    if names_other(name):
        return False
    return names_lesion(name) or is_lesion_name(file.parent.name) or _few_labels(file)


def _few_labels(file: Path) -> bool:
    """Whether a volume holds at most five different whole numbers, or shares of one as a probability does.

    One that is damaged, by a few values that are not numbers too, counts as a mask where its name says no sequence:
    reading it says why it is none.
    """
    unnamed = sequence_in_name(stem_of(file)) is None
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
    shares = len(finite) > 0 and finite[0] >= 0 and finite[-1] <= 1
    return (len(finite) <= _MOST_LABELS and whole) or (unnamed and bool(shares))
