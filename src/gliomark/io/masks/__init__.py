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

from gliomark.io.dicom import looks_like_dicom
from gliomark.io.masks.contours import (
    OFF_PLANE,
    off_plane,
    read_structure_set,
    referenced_series,
    structure_contours,
)
from gliomark.io.masks.dicom import description_of, drawn_by, predicted, read_segmentation
from gliomark.io.masks.files import find_masks, kind_of, stem_of
from gliomark.io.masks.overlay import Agreement, agreement, between_raters, unite
from gliomark.io.masks.pictures import read_annotations
from gliomark.io.masks.rules import LesionMask, NoLesionRegionError
from gliomark.io.naming import is_lesion_name, sequence_in_name, words_of
from gliomark.io.nifti import read_lesion
from gliomark.study import GliomarkError, MRSequence, Series

__all__ = [
    "Agreement", "LesionMask", "agreement", "between_raters", "find_masks", "rater_names", "read_masks",
    "predicted", "read_segmentation", "read_structure_set", "unite",
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
        _check_place(one.mask, series)
    called = raters if raters is not None else _numbered(drawn)
    masks = [replace(_noted(one.mask, series), rater=called.get(one.by, "")) for one in drawn]
    return tuple(sorted(masks, key=lambda mask: (mask.rater, str(mask.source))))


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
    if kind == "segmentation":
        return read_segmentation(file)
    if kind == "structure set":
        sequence = _contours_sequence(file, series, uids)
        return replace(read_structure_set(file, series[sequence]), sequence=sequence)
    return None


def _volume(file: Path) -> LesionMask:
    notes: list[str] = []
    series = read_lesion(file, notes)
    # a file's name may be a patient's
    return LesionMask(series, "", file, "", tuple(note.replace(file.name, "file") for note in notes))


def _annotated(
    folder: Path | None, files: Sequence[Path], series: Mapping[MRSequence, Series]
) -> Iterator[_Drawn]:
    """Annotation files grouped by rater and sequence, one mask each."""
    groups: dict[tuple[str, MRSequence], dict[str, Path]] = defaultdict(dict)
    for file in (file for file in files if kind_of(file) == "annotation"):
        sequence = next((s for name in _folders(folder, file)[::-1] if (s := sequence_in_name(name))), None)
        if sequence is None or sequence not in series:
            raise GliomarkError(
                f"{file} does not lie in a folder named after one of the patient's sequences "
                f"({', '.join(series)}): put it into <patient>/<sequence>/."
            )
        slices = groups[_rater(folder, file), sequence]
        if file.stem in slices:
            raise GliomarkError(f"{file} and {slices[file.stem].name} annotate one slice: keep one of them.")
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
        raise GliomarkError(
            f"The contours of {file} lie in the slices of none of the patient's series "
            f"({', '.join(series)}): export the series that they were drawn on."
        )
    return best


def _sequence_of(
    folder: Path | None, mask: LesionMask, series: Mapping[MRSequence, Series]
) -> MRSequence | None:
    """The sequence whose grid the mask shares, a name deciding between several; None where it shares none."""
    same = [name for name in _DRAWN_FIRST if name in series and _on_lattice(mask.series, series[name])]
    words = [stem_of(mask.source), *_folders(folder, mask.source)[::-1]]
    if looks_like_dicom(mask.source):
        words.insert(0, description_of(mask.source))
    named = next((found for word in words if (found := sequence_in_name(word)) in series), None)
    if same:
        return named if named in same else same[0]
    return named


def _on_lattice(mask: Series, series: Series) -> bool:
    """Whether the mask's voxel centres are voxel centres of the series' grid, cut or turned as it may be."""
    relative = np.linalg.inv(series.affine) @ mask.affine
    turn = np.round(relative[:3, :3])
    if not np.array_equal(turn @ turn.T, np.eye(3)):
        return False
    corners = relative[:3, :3] @ _corners(mask) + relative[:3, 3:]
    return bool(np.abs(corners - np.round(corners)).max() < 0.1)


def _corners(series: Series) -> NDArray[np.float64]:
    """Indices ``(3, 8)`` of a grid's corner voxels, (column, row, slice)."""
    slices, rows, columns = series.image.shape
    ends = np.meshgrid([0, columns - 1], [0, rows - 1], [0, slices - 1], indexing="ij")
    return np.stack([end.ravel() for end in ends]).astype(np.float64)


def _check_place(mask: LesionMask, series: Mapping[MRSequence, Series]) -> None:
    if series and mask.series.image.any() and _inside(mask, series) == 0.0:
        raise GliomarkError(
            f"The mask {mask.source} lies outside every series of the patient ({', '.join(series)}): check that "
            "it is this patient's and that its geometry was not lost."
        )


def _noted(mask: LesionMask, series: Mapping[MRSequence, Series]) -> LesionMask:
    """The mask with what its reader should know about its place."""
    notes = list(mask.notes)
    share = _inside(mask, series) if mask.series.image.any() else 1.0
    if share < INSIDE_ENOUGH:
        notes.append(f"{1 - share:.0%} of a lesion mask lies outside its series.")
    if mask.sequence is None:
        notes.append("A lesion mask shares no series' grid; its millimetres are taken as the reference's.")
    return replace(mask, notes=tuple(notes))


def _inside(mask: LesionMask, series: Mapping[MRSequence, Series]) -> float:
    """The share of lesion voxels inside the mask's own series, or inside the series that holds most."""
    at = np.argwhere(mask.series.image > 0)[:, ::-1].T
    points = mask.series.affine[:3, :3] @ at + mask.series.affine[:3, 3:]
    own = [series[name] for name in series if name == mask.sequence] or list(series.values())
    return max((_share(points, one) for one in own), default=1.0)


def _share(points: NDArray[np.float64], series: Series) -> float:
    to_index = np.linalg.inv(series.affine)
    index = to_index[:3, :3] @ points + to_index[:3, 3:]
    size = np.array(series.image.shape[::-1])[:, None]
    return float(((index >= -0.5) & (index <= size - 0.5)).all(axis=0).mean())
