"""Find mask files and determine the kind of each from its name and content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gliomark.io.dicom import is_dicom_file
from gliomark.io.folder_listing import get_file_stem, list_visible_entries
from gliomark.io.masks.dicom_segmentations import read_dicom_mask_kind
from gliomark.io.masks.picture_annotations import is_annotation_file
from gliomark.io.masks.region_names import is_excluded_region_name, is_lesion_region_name
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name, split_words
from gliomark.io.readers import is_volume_file, read_volume_values

_MAX_LABELS = 5  # BraTS uses four besides the background


def find_masks(folder: Path) -> tuple[Path, ...]:
    """Find the mask files in a patient's mask folder and its subfolders, in order of name.

    A volume is a mask by its name, or if it holds at most five different values. Brain masks and, by their names, masks
    of oedema only are excluded.

    Raises
    ------
    InputError
        If a folder cannot be listed.
    """
    return tuple(file for file in _walk_files(folder) if find_mask_kind(file))


def _walk_files(folder: Path) -> Iterator[Path]:
    for entry in list_visible_entries(folder):
        if entry.is_dir():
            yield from _walk_files(entry)
        else:
            yield entry


def find_mask_kind(file: Path) -> str:
    """Return ``volume``, ``annotation``, ``segmentation``, ``structure set`` or ``damaged``; "" for any other file."""
    if is_volume_file(file):
        return "volume" if _is_mask_volume(file) else ""
    if is_annotation_file(file):
        return "annotation"
    return read_dicom_mask_kind(file) if is_dicom_file(file) else ""


def _is_mask_volume(file: Path) -> bool:
    """Whether a volume is a mask: by its name, else by the folder name or the content."""
    name = get_file_stem(file)
    if is_lesion_mask_name(name):
        return not is_excluded_region_name(name) or "ot" in split_words(
            name
        )  # VSD.Brain.XX.O.OT is BRATS 2013's reference
    if is_excluded_region_name(name):
        return False
    return is_lesion_region_name(name) or is_lesion_mask_name(file.parent.name) or _has_few_labels(file)


def _has_few_labels(file: Path) -> bool:
    """Whether a volume holds at most five different integers, or only values from 0 to 1 like a probability map.

    A damaged volume counts as a mask unless its name is a sequence; the damage is reported when it is read.
    """
    unnamed = find_sequence_in_name(get_file_stem(file)) is None
    try:
        values = np.unique(read_volume_values(file))
    except Exception:  # decoders raise many types for damaged files
        return unnamed
    finite = values[np.isfinite(values)]
    whole = bool(np.equal(finite, np.round(finite)).all())
    is_probability = len(finite) > 0 and finite[0] >= 0 and finite[-1] <= 1
    return (len(finite) <= _MAX_LABELS and whole) or (unnamed and bool(is_probability))
