"""A patient's lesion masks: volumes, DICOM segmentations and structure sets, annotated pictures.

Layout of a patient's mask folder::

    <patient>/...                       volumes, DICOM SEG and RTSTRUCT, at any depth
    <patient>/<sequence>/<slice>.xml    labelImg (VOC) or LabelMe (.json), named after the slice
    <patient>/<rater>/...               the same for one of several raters

A subfolder is a rater unless its name says a sequence or a mask, or is a DICOM UID. The name written in a DICOM
mask goes before the folder's. Raters leave this module as "rater 1", "rater 2", in order of their names.
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

from gliomark.geometry import share_lattice
from gliomark.io.dicom import looks_like_dicom
from gliomark.io.mask_place import check_mask_place, inside_share
from gliomark.io.masks.contours import (
    OFF_PLANE,
    off_plane,
    read_structure_set,
    referenced_series,
    structure_contours,
)
from gliomark.io.masks.dicom import (
    DAMAGED,
    check_frame_of_reference,
    description_of,
    drawn_by,
    predicted,
    read_segmentation,
)
from gliomark.io.masks.files import find_masks, kind_of, stem_of
from gliomark.io.masks.overlay import Agreement, agreement, between_raters, unite
from gliomark.io.masks.pictures import read_annotations
from gliomark.io.masks.rules import LesionMask, NoLesionRegionError
from gliomark.io.naming import is_lesion_name, sequence_in_name, words_of
from gliomark.io.nifti import read_lesion
from gliomark.messages import Message, message
from gliomark.study import GliomarkError, MRSequence, Series, SourceImage

__all__ = [
    "Agreement", "Grid", "LesionMask", "agreement", "between_raters", "find_masks", "rater_names", "read_masks",
    "predicted", "read_masks_on", "read_segmentation", "read_structure_set", "unite",
]  # fmt: skip

# Where a mask lies on the grid of several sequences: METHOD draws on T2 first and matches on T1C.
_DRAWN_FIRST = (MRSequence.T2, MRSequence.T1C, MRSequence.FLAIR, MRSequence.T1)
_RATER_IN_NAME = re.compile(
    r"(?:rater|reader|observer|annotator|doctor|医师|医生)[ _-]?[^\W_]+", re.IGNORECASE
)
INSIDE_ENOUGH = 0.9


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A mask with its rater's real name, which must not leave this module."""

    by: str
    mask: LesionMask


@dataclass(frozen=True, eq=False)
class Grid:
    """A series without its grey values, at which no reader of masks looks and which need not travel to it."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    slice_names: tuple[str, ...]
    source: Path
    source_images: tuple[SourceImage, ...] = ()
    is_oriented: bool = True

    @staticmethod
    def of(series: Series) -> Grid:
        slices, rows, columns = series.image.shape
        whole = series.affine, series.slice_names, series.source, series.source_images, series.is_oriented
        return Grid((slices, rows, columns), *whole)

    @property
    def series(self) -> Series:
        """The series, black."""
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
    uids: Mapping[str, MRSequence] | None = None,
    raters: Mapping[str, str] | None = None,
) -> tuple[LesionMask, ...]:
    """All masks of one patient, rater by rater; those of one rater are still to be OR-ed (see ``unite``).

    folder: the patient's mask folder, if there is one; files: DICOM masks that lie elsewhere, among the images.
    uids: SeriesInstanceUID to sequence, so that a DICOM mask finds the series it refers to; without it the
    geometry decides. raters: real name to what it is called here, "rater 1" and so on by name within the
    patient where it is not given (see ``rater_names``).

    DICOM masks without a lesion region (ventricles, brain) are passed over where another mask has one.

    Raises: GliomarkError for a damaged mask, one that fits no series, or one that lies outside all of them.
    """
    given = () if folder is None else find_masks(folder)
    others: list[NoLesionRegionError] = []
    drawn = [
        *_whole_files(folder, (*given, *files), series, uids or {}, others),
        *_annotated(folder, given, series),
    ]
    if others and not drawn:
        raise others[0]
    for one in drawn:
        check_mask_place(one.mask.series, one.mask.source, series)
    called = raters if raters is not None else _numbered(drawn)
    masks = [replace(_noted(one.mask, series), rater=called.get(one.by, "")) for one in drawn]
    return tuple(sorted(masks, key=lambda mask: (mask.rater, str(mask.source))))


def read_masks_on(
    folder: Path | None,
    grids: Mapping[MRSequence, Grid],
    files: Sequence[Path],
    uids: Mapping[str, MRSequence],
) -> tuple[LesionMask, ...]:
    """``read_masks`` of series whose grey values lie in another process."""
    return read_masks(folder, {name: one.series for name, one in grids.items()}, files=files, uids=uids)


def rater_names(folder: Path) -> tuple[str, ...]:
    """Real names of the raters of one patient's masks: personal data, for a key that is kept apart."""
    return tuple(sorted({_rater(folder, file) for file in find_masks(folder)} - {""}))


def _numbered(drawn: list[_Drawn]) -> dict[str, str]:
    names = sorted({one.by for one in drawn} - {""})
    return {name: f"rater {number}" for number, name in enumerate(names, start=1)}


def _whole_files(
    folder: Path | None,
    files: Sequence[Path],
    series: Mapping[MRSequence, Series],
    uids: Mapping[str, MRSequence],
    others: list[NoLesionRegionError],
) -> Iterator[_Drawn]:
    """Every mask that is a file of its own; what has no lesion (a ventricles' SEG) is added to ``others``."""
    for file in files:
        try:
            mask = _whole_file(file, series, uids)
        except NoLesionRegionError as error:
            others.append(error)
            continue
        if mask is not None:
            found = mask.sequence or uids.get(mask.drawn_on) or _sequence_of(folder, mask, series)
            yield _Drawn(_rater(folder, file), replace(mask, sequence=found))


def _whole_file(
    file: Path, series: Mapping[MRSequence, Series], uids: Mapping[str, MRSequence]
) -> LesionMask | None:
    kind = kind_of(file)
    if kind == "volume":
        return _volume(file)
    if kind == DAMAGED:
        raise GliomarkError(message("mask-damaged", file=file))
    if kind in ("segmentation", "structure set"):
        check_frame_of_reference(file, series, uids)
    if kind == "segmentation":
        return read_segmentation(file)
    if kind == "structure set":
        sequence = _contours_sequence(file, series, uids)
        return replace(read_structure_set(file, series[sequence]), sequence=sequence)
    return None


def _volume(file: Path) -> LesionMask:
    notes: list[str] = []
    series = read_lesion(file, notes)
    return LesionMask(series, "", file, "", tuple(_without_name(note, file) for note in notes))


def _without_name(note: str, file: Path) -> str:
    """A note without the file's name, which may be a patient's."""
    if isinstance(note, Message):
        return message(note.code, **{**note.parameters, "file": "file"})
    return note.replace(file.name, "file")


def _annotated(
    folder: Path | None, files: Sequence[Path], series: Mapping[MRSequence, Series]
) -> Iterator[_Drawn]:
    """Annotation files grouped by rater and sequence, one mask each."""
    groups: dict[tuple[str, MRSequence], dict[str, Path]] = defaultdict(dict)
    for file in (file for file in files if kind_of(file) == "annotation"):
        sequence = next((s for name in _folders(folder, file)[::-1] if (s := sequence_in_name(name))), None)
        if sequence is None or sequence not in series:
            raise GliomarkError(message("mask-folder", file=file, sequences=", ".join(series)))
        slices = groups[_rater(folder, file), sequence]
        if file.stem in slices:
            raise GliomarkError(message("mask-slice-twice", file=file, other=slices[file.stem].name))
        slices[file.stem] = file
    for (rater, sequence), slices in groups.items():
        yield _Drawn(rater, read_annotations(slices, series[sequence], sequence))


# ---- who drew it ------------------------------------------------------------------------------------


def _rater(folder: Path | None, file: Path) -> str:
    """A rater's real name: as the DICOM file says, else the subfolder's, else a word such as ``rater2``."""
    named, label = drawn_by(file) if looks_like_dicom(file) else ("", "")
    subfolder = next((name for name in _folders(folder, file) if _is_rater_folder(name)), "")
    in_name = _RATER_IN_NAME.search(stem_of(file))
    label = "" if sequence_in_name(label) else label
    return named or subfolder or (in_name.group(0).lower() if in_name else label)


def _is_rater_folder(name: str) -> bool:
    masks = is_lesion_name(name) or words_of(name) in (["annotations"], ["rois"], ["contours"], ["lesion"])
    return not masks and sequence_in_name(name) is None and re.fullmatch(r"[\d.]{10,}", name) is None


def _folders(folder: Path | None, file: Path) -> list[str]:
    """The subfolders of the patient's mask folder that lead to a file; none for a file that lies elsewhere."""
    inside = folder is not None and file.is_relative_to(folder)
    return list(file.relative_to(cast(Path, folder)).parts[:-1]) if inside else []


# ---- where it lies ----------------------------------------------------------------------------------


def _contours_sequence(
    file: Path, series: Mapping[MRSequence, Series], uids: Mapping[str, MRSequence]
) -> MRSequence:
    """The series that contours refer to, else the one in whose slices they lie best."""
    stated = uids.get(referenced_series(file))
    if stated is not None and stated in series:
        return stated
    rois, _ = structure_contours(file)
    contours = [contour for roi in rois for contour in roi]
    distance = {name: off_plane(contours, series[name]) for name in _DRAWN_FIRST if name in series}
    best = min(distance, key=lambda name: (round(distance[name], 3), _DRAWN_FIRST.index(name)), default=None)
    if best is None or distance[best] > OFF_PLANE:
        raise GliomarkError(message("contours-off-all", file=file, sequences=", ".join(series)))
    return best


def _sequence_of(
    folder: Path | None, mask: LesionMask, series: Mapping[MRSequence, Series]
) -> MRSequence | None:
    """The sequence whose grid the mask shares, a name deciding between several; None where it shares none."""
    same = [name for name in _DRAWN_FIRST if name in series and _shares_grid(mask.series, series[name])]
    words = [stem_of(mask.source), *_folders(folder, mask.source)[::-1]]
    if looks_like_dicom(mask.source):
        words.insert(0, description_of(mask.source))
    named = next((found for word in words if (found := sequence_in_name(word)) in series), None)
    if same:
        return named if named in same else same[0]
    return named


def _shares_grid(mask: Series, series: Series) -> bool:
    return share_lattice(mask.affine, mask.image.shape, series.affine)


def _noted(mask: LesionMask, series: Mapping[MRSequence, Series]) -> LesionMask:
    """The mask with what its reader should know about its place."""
    notes = list(mask.notes)
    share = inside_share(mask.series, series, mask.sequence) if mask.series.image.any() else 1.0
    if share < INSIDE_ENOUGH:
        notes.append(message("mask-partly-outside", percent=100 * (1 - share)))
    if mask.sequence is None:
        notes.append(message("mask-on-no-grid"))
    return replace(mask, notes=tuple(notes))
