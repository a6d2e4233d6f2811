"""Read a patient's lesion masks: volumes, DICOM segmentations and structure sets, annotated pictures.

Layout of a patient's mask folder::

    <patient>/...                       volumes, DICOM SEG and RTSTRUCT, at any depth
    <patient>/<sequence>/<slice>.xml    labelImg (VOC) or LabelMe (.json), named after the slice
    <patient>/<rater>/...               the same for one of several raters

A subfolder names a rater unless its name is a sequence, a word for masks or a DICOM UID. A rater's name stored in a
DICOM mask takes precedence over the folder name. Results contain only "rater 1", "rater 2", numbered in alphabetical
order of the real names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import is_on_lattice
from gliomark.io.dicom import is_dicom_file
from gliomark.io.folder_listing import get_file_stem
from gliomark.io.mask_position import check_mask_position, compute_share_inside
from gliomark.io.masks.dicom_segmentations import (
    DAMAGED_KIND,
    check_frame_of_reference,
    read_rater_and_label,
    read_segmentation,
    read_series_description,
)
from gliomark.io.masks.mask_files import find_mask_kind, find_masks
from gliomark.io.masks.picture_annotations import read_annotations
from gliomark.io.masks.region_names import LesionMask, NoLesionRegionError
from gliomark.io.masks.structure_sets import (
    MAX_OFF_PLANE_SLICES,
    compute_off_plane_distance,
    read_lesion_contours,
    read_referenced_series_uid,
    read_structure_set,
)
from gliomark.io.masks.volume_masks import read_lesion_mask
from gliomark.io.naming import find_sequence_in_name, is_lesion_mask_name, split_words
from gliomark.messages import Message, message
from gliomark.study import MRSequence, Series, SourceImage

# Order of preference for a mask that matches the grid of several sequences: the method (method.md) segments on T2
# first and compares with T1C.
_SEQUENCE_PRIORITY = (MRSequence.T2, MRSequence.T1C, MRSequence.FLAIR, MRSequence.T1)
_RATER_NAME_PATTERN = re.compile(
    r"(?:rater|reader|observer|annotator|doctor|医师|医生)[ _-]?[^\W_]+", re.IGNORECASE
)
MIN_SHARE_INSIDE = 0.9


@dataclass(frozen=True, eq=False)
class _RaterMask:
    """A mask with its rater's real name, which is personal data and must not leave this module."""

    rater_name: str
    mask: LesionMask


@dataclass(frozen=True, eq=False)
class SeriesGrid:
    """Geometry of a series without its pixels; mask readers need nothing else.

    shape: (slices, rows, columns). affine: ``(4, 4)``, LPS mm. The other fields are as in ``Series``.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    slice_names: tuple[str, ...]
    source: Path
    source_images: tuple[SourceImage, ...] = ()
    is_oriented: bool = True

    @staticmethod
    def from_series(series: Series) -> SeriesGrid:
        """Take the geometry of a series."""
        slices, rows, columns = series.image.shape
        metadata = series.affine, series.slice_names, series.source, series.source_images, series.is_oriented
        return SeriesGrid((slices, rows, columns), *metadata)

    @property
    def blank_series(self) -> Series:
        """A ``Series`` of zeros ``(slice, row, column)`` on this grid."""
        return Series(
            np.zeros(self.shape, np.float32),
            self.affine,
            self.slice_names,
            self.source,
            self.source_images,
            is_oriented=self.is_oriented,
        )


# ---- one patient ------------------------------------------------------------------------------------


def read_masks(
    folder: Path | None,
    series: Mapping[MRSequence, Series],
    *,
    files: Sequence[Path] = (),
    sequences_by_uid: Mapping[str, MRSequence] | None = None,
    rater_labels: Mapping[str, str] | None = None,
) -> tuple[LesionMask, ...]:
    """Read all masks of one patient. Masks of one rater are not merged; use ``unite_masks``.

    DICOM masks without a lesion region (ventricles, brain) are skipped if another mask has one.

    Parameters
    ----------
    folder
        The patient's mask folder, None if there is none.
    series
        The patient's series, by sequence.
    files
        DICOM masks outside that folder, for example among the images.
    sequences_by_uid
        Sequence of each SeriesInstanceUID, to find the series that a DICOM mask refers to; if it is not given, the
        geometry decides.
    rater_labels
        Label of each rater's real name (see ``list_rater_names``). Without it, the patient's raters are numbered
        "rater 1", "rater 2" in order of their names.

    Returns
    -------
    tuple of LesionMask
        In order of rater and source.

    Raises
    ------
    InputError
        If a mask is damaged, fits no series, or lies outside all of them.
    NoLesionRegionError
        If there are only DICOM masks without a lesion region.
    """
    mask_files = () if folder is None else find_masks(folder)
    errors: list[NoLesionRegionError] = []
    drawn = [
        *_read_mask_files(folder, (*mask_files, *files), series, sequences_by_uid or {}, errors),
        *_read_annotated_pictures(folder, mask_files, series),
    ]
    if errors and not drawn:
        raise errors[0]
    for one in drawn:
        check_mask_position(one.mask.series, one.mask.source, series)
    labels_by_name = rater_labels if rater_labels is not None else _number_raters(drawn)
    masks = [
        replace(_add_position_notes(one.mask, series), rater=labels_by_name.get(one.rater_name, ""))
        for one in drawn
    ]
    return tuple(sorted(masks, key=lambda mask: (mask.rater, str(mask.source))))


def read_masks_on_grids(
    folder: Path | None,
    grids: Mapping[MRSequence, SeriesGrid],
    files: Sequence[Path],
    sequences_by_uid: Mapping[str, MRSequence],
) -> tuple[LesionMask, ...]:
    """Read masks as ``read_masks`` does, given only the geometry of the series (used in a reader process)."""
    return read_masks(
        folder,
        {name: one.blank_series for name, one in grids.items()},
        files=files,
        sequences_by_uid=sequences_by_uid,
    )


def list_rater_names(folder: Path) -> tuple[str, ...]:
    """List the real names of one patient's raters. They are personal data: store them apart from the masks."""
    return tuple(sorted({_find_rater_name(folder, file) for file in find_masks(folder)} - {""}))


def _number_raters(drawn: list[_RaterMask]) -> dict[str, str]:
    names = sorted({one.rater_name for one in drawn} - {""})
    return {name: f"rater {number}" for number, name in enumerate(names, start=1)}


def _read_mask_files(
    folder: Path | None,
    files: Sequence[Path],
    series: Mapping[MRSequence, Series],
    sequences_by_uid: Mapping[str, MRSequence],
    errors: list[NoLesionRegionError],
) -> Iterator[_RaterMask]:
    """Read each mask that is one file; masks without a lesion (such as a SEG of the ventricles) go to ``errors``."""
    for file in files:
        try:
            mask = _read_mask_file(file, series, sequences_by_uid)
        except NoLesionRegionError as error:
            errors.append(error)
            continue
        if mask is not None:
            found = (
                mask.sequence
                or sequences_by_uid.get(mask.referenced_series_uid)
                or _find_mask_sequence(folder, mask, series)
            )
            yield _RaterMask(_find_rater_name(folder, file), replace(mask, sequence=found))


def _read_mask_file(
    file: Path, series: Mapping[MRSequence, Series], sequences_by_uid: Mapping[str, MRSequence]
) -> LesionMask | None:
    kind = find_mask_kind(file)
    if kind == "volume":
        return _read_mask_volume(file)
    if kind == DAMAGED_KIND:
        raise InputError(message("mask-damaged", file=file))
    if kind in ("segmentation", "structure set"):
        check_frame_of_reference(file, series, sequences_by_uid)
    if kind == "segmentation":
        return read_segmentation(file)
    if kind == "structure set":
        sequence = _find_contour_sequence(file, series, sequences_by_uid)
        return replace(read_structure_set(file, series[sequence]), sequence=sequence)
    return None


def _read_mask_volume(file: Path) -> LesionMask:
    notes: list[str] = []
    series = read_lesion_mask(file, notes)
    return LesionMask(series, "", file, "", tuple(_remove_file_name(note, file) for note in notes))


def _remove_file_name(note: str, file: Path) -> str:
    """Remove the file name from a note: it may contain a patient's name."""
    if isinstance(note, Message):
        return message(note.code, **{**note.parameters, "file": "file"})
    return note.replace(file.name, "file")


def _read_annotated_pictures(
    folder: Path | None, files: Sequence[Path], series: Mapping[MRSequence, Series]
) -> Iterator[_RaterMask]:
    """Read annotated pictures, one mask per rater and sequence."""
    groups: dict[tuple[str, MRSequence], dict[str, Path]] = defaultdict(dict)
    for file in (file for file in files if find_mask_kind(file) == "annotation"):
        sequence = next(
            (s for name in _list_parent_folders(folder, file)[::-1] if (s := find_sequence_in_name(name))),
            None,
        )
        if sequence is None or sequence not in series:
            raise InputError(message("mask-folder", file=file, sequences=", ".join(series)))
        slices = groups[_find_rater_name(folder, file), sequence]
        if file.stem in slices:
            raise InputError(message("mask-slice-twice", file=file, other=slices[file.stem].name))
        slices[file.stem] = file
    for (rater, sequence), slices in groups.items():
        yield _RaterMask(rater, read_annotations(slices, series[sequence], sequence))


# ---- raters -----------------------------------------------------------------------------------------


def _find_rater_name(folder: Path | None, file: Path) -> str:
    """Find a rater's real name: in the DICOM file, else the subfolder, else a file name word such as ``rater2``."""
    named, label = read_rater_and_label(file) if is_dicom_file(file) else ("", "")
    subfolder = next((name for name in _list_parent_folders(folder, file) if _is_rater_folder(name)), "")
    in_name = _RATER_NAME_PATTERN.search(get_file_stem(file))
    label = "" if find_sequence_in_name(label) else label
    return named or subfolder or (in_name.group(0).lower() if in_name else label)


def _is_rater_folder(name: str) -> bool:
    masks = is_lesion_mask_name(name) or split_words(name) in (
        ["annotations"],
        ["rois"],
        ["contours"],
        ["lesion"],
    )
    return not masks and find_sequence_in_name(name) is None and re.fullmatch(r"[\d.]{10,}", name) is None


def _list_parent_folders(folder: Path | None, file: Path) -> list[str]:
    """List the subfolders between the patient's mask folder and a file; empty for a file outside it."""
    inside = folder is not None and file.is_relative_to(folder)
    return list(file.relative_to(cast(Path, folder)).parts[:-1]) if inside else []


# ---- position ---------------------------------------------------------------------------------------


def _find_contour_sequence(
    file: Path, series: Mapping[MRSequence, Series], sequences_by_uid: Mapping[str, MRSequence]
) -> MRSequence:
    """Find the series that contours refer to, else the one whose slices they match best."""
    stated = sequences_by_uid.get(read_referenced_series_uid(file))
    if stated is not None and stated in series:
        return stated
    rois, _ = read_lesion_contours(file)
    contours = [contour for roi in rois for contour in roi]
    distance = {
        name: compute_off_plane_distance(contours, series[name])
        for name in _SEQUENCE_PRIORITY
        if name in series
    }
    best = min(
        distance, key=lambda name: (round(distance[name], 3), _SEQUENCE_PRIORITY.index(name)), default=None
    )
    if best is None or distance[best] > MAX_OFF_PLANE_SLICES:
        raise InputError(message("contours-off-all", file=file, sequences=", ".join(series)))
    return best


def _find_mask_sequence(
    folder: Path | None, mask: LesionMask, series: Mapping[MRSequence, Series]
) -> MRSequence | None:
    """Find the sequence with the grid of the mask; names decide between several. None if there is none."""
    same = [
        name for name in _SEQUENCE_PRIORITY if name in series and _has_same_grid(mask.series, series[name])
    ]
    words = [get_file_stem(mask.source), *_list_parent_folders(folder, mask.source)[::-1]]
    if is_dicom_file(mask.source):
        words.insert(0, read_series_description(mask.source))
    named = next((found for word in words if (found := find_sequence_in_name(word)) in series), None)
    if same:
        return named if named in same else same[0]
    return named


def _has_same_grid(mask: Series, series: Series) -> bool:
    return is_on_lattice(mask.affine, mask.image.shape, series.affine)


def _add_position_notes(mask: LesionMask, series: Mapping[MRSequence, Series]) -> LesionMask:
    """Add notes on the mask's position relative to the series."""
    notes = list(mask.notes)
    share = compute_share_inside(mask.series, series, mask.sequence) if mask.series.image.any() else 1.0
    if share < MIN_SHARE_INSIDE:
        notes.append(message("mask-partly-outside", percent=100 * (1 - share)))
    if mask.sequence is None:
        notes.append(message("mask-on-no-grid"))
    return replace(mask, notes=tuple(notes))
