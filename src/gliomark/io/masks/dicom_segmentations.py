"""Read DICOM segmentations: binary, fractional and label map.

A segmentation stores only non-empty frames, in any order. They are arranged on one regular grid whose slice spacing is
the stated spacing, or else the smallest gap, such that all positions are multiples of it; slices without a frame are
empty. If no such spacing exists, the smallest gap is used and a frame fills all slices within its thickness.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, RTStructureSetStorage, SegmentationStorage

from gliomark.errors import InputError
from gliomark.io.dicom import is_frame_count_plausible
from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.dicom.header_metadata import orthonormalise_orientation, parse_numbers
from gliomark.io.masks.region_names import (
    LesionMask,
    NoLesionRegionError,
    collect_excluded_region_notes,
    select_lesion_regions,
)
from gliomark.io.volume_checks import create_slice_names
from gliomark.messages import message
from gliomark.study import DICOM_MANUFACTURER, MRSequence, Series

SEGMENTATION_SOP_CLASSES = (
    SegmentationStorage,
    "1.2.840.10008.5.1.4.1.1.66.7",
)  # the second is Label Map Segmentation
DAMAGED_KIND = "damaged"
STRUCTURE_SET_SOP_CLASSES = (RTStructureSetStorage,)
# Positions have three to six decimals; slices are at least some tenths of a millimetre apart.
SAME_POSITION_MM = 0.01
SPACING_TOLERANCE = 0.05
READ_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)


def read_dicom_mask_kind(file: Path) -> str:
    """Return ``"segmentation"``, ``"structure set"``, ``"damaged"`` or "" by the SOP class of a file.

    A DICOM file truncated before or within its SOP class is "damaged": in a mask folder it was a mask.
    """
    try:
        header = read_dataset(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        sop_class = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    except READ_ERRORS:
        return DAMAGED_KIND
    if sop_class in SEGMENTATION_SOP_CLASSES:
        return "segmentation"
    if sop_class in STRUCTURE_SET_SOP_CLASSES:
        return "structure set"
    partial_uid = UID(str(sop_class or ""))
    is_cut = partial_uid.name == partial_uid and any(
        k.startswith(partial_uid) for k in (*SEGMENTATION_SOP_CLASSES, *STRUCTURE_SET_SOP_CLASSES)
    )
    return DAMAGED_KIND if is_cut and header.preamble else ""


def check_frame_of_reference(
    file: Path, series: Mapping[MRSequence, Series], sequences_by_uid: Mapping[str, MRSequence]
) -> None:
    """Check that a DICOM mask shares its frame of reference with one of the patient's DICOM series.

    A mask that refers to one of the series in ``sequences_by_uid`` or states no frame of reference is accepted.

    Raises
    ------
    InputError
        If none of the series has the frame of reference of the mask.
    """
    images = [one.source_images[0].file for one in series.values() if one.source_images]
    if not images:
        return
    try:
        header = read_dataset(file, stop_before_pixels=True)
        drawn_in, referenced = _list_frames_of_reference(header), _list_referenced_series_uids(header)
        known = {_read_frame_of_reference(image) for image in images} - {""}
    except READ_ERRORS:
        return  # reported when the file is read
    if drawn_in and known and not drawn_in & known and not referenced & set(sequences_by_uid):
        raise InputError(message("mask-frame", file=file))


def _read_frame_of_reference(image: Path) -> str:
    header = read_dataset(image, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    return str(header.get("FrameOfReferenceUID") or "")


def find_referenced_series_uid(header: Dataset) -> str:
    """Find the SeriesInstanceUID that a DICOM mask refers to, "" if there is none or more than one."""
    found = _list_referenced_series_uids(header)
    return found.pop() if len(found) == 1 else ""


def _list_referenced_series_uids(header: Dataset) -> set[str]:
    """List every SeriesInstanceUID that a segmentation or structure set refers to."""
    items = list(header.get("ReferencedSeriesSequence") or ())
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            items += study.get("RTReferencedSeriesSequence") or ()
    return {str(item.SeriesInstanceUID) for item in items if "SeriesInstanceUID" in item}


def _list_frames_of_reference(header: Dataset) -> set[str]:
    """List the frames of reference of a segmentation or structure set, including those of single regions."""
    names = {"FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"}
    stated = [str(header[name].value) for name in names if name in header]
    for item in (
        *(header.get("ReferencedFrameOfReferenceSequence") or ()),
        *(header.get("StructureSetROISequence") or ()),
    ):
        stated += [str(item[name].value) for name in names if name in item]
    return {uid for uid in stated if uid}


def read_rater_and_label(file: Path) -> tuple[str, str]:
    """Read the creator's name and the label of a DICOM mask, "" if absent.

    Both are personal data; use them only to distinguish raters.
    """
    try:
        header = read_dataset(file, stop_before_pixels=True)
        name = str(header.get("ContentCreatorName") or header.get("OperatorsName") or "").strip(" ^=")
        return name, str(header.get("StructureSetLabel") or "").strip()
    except READ_ERRORS:
        return "", ""


def is_gliomark_result(file: Path) -> bool:
    """Whether a DICOM mask was written by gliomark itself."""
    try:
        header = read_dataset(file, stop_before_pixels=True)
        kinds = {str(item.get("SegmentAlgorithmType")) for item in header.get("SegmentSequence") or ()}
        rois = header.get("StructureSetROISequence") or ()
        kinds |= {str(item.get("ROIGenerationAlgorithm")) for item in rois}
        return str(header.get("Manufacturer") or "") == DICOM_MANUFACTURER and "AUTOMATIC" in kinds
    except READ_ERRORS:
        return False


def read_series_description(file: Path) -> str:
    """Read the SeriesDescription of a DICOM mask, which often names the segmented series."""
    header = read_dataset(file, stop_before_pixels=True, specific_tags=["SeriesDescription"])
    return str(header.get("SeriesDescription") or "")


# ---- segmentations ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Frame:
    """One plane of a segmentation: geometry in LPS mm, pixels ``(row, column)``."""

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    slice_spacing: float
    pixels: NDArray[np.bool_]


def read_segmentation(file: Path) -> LesionMask:
    """Read the lesion segments of a DICOM SEG, OR-ed, as a mask ``(slice, row, column)`` on a regular grid.

    Fractional values of at least one half of the maximum count as lesion. The rater is not set.

    Raises
    ------
    InputError
        If the file is damaged, has no lesion segment or no positions, or if its frames are not parallel and aligned.
    """
    try:
        dataset = read_dataset(file)
        names = {int(item.SegmentNumber): _format_segment_name(item) for item in dataset.SegmentSequence}
        if dataset.get("SegmentationType") == "LABELMAP":
            names.pop(0, None)  # 0 is background
        lesion_segments = _select_lesion_segments(file, names)
        frames = _read_frames(dataset, lesion_segments)
        drawn_on = find_referenced_series_uid(dataset)
    except READ_ERRORS:
        raise InputError(message("segmentation-damaged", file=file)) from None
    notes = list(collect_excluded_region_notes(len(names), len(lesion_segments)))
    image, affine = _arrange_on_regular_grid(file, frames, notes)
    if not image.any():
        notes.append(message("segmentation-empty"))
    series = Series(image, affine, create_slice_names(len(image)), file)
    return LesionMask(series, "", file, drawn_on, tuple(notes))


def _format_segment_name(item: Dataset) -> str:
    kinds = item.get("SegmentedPropertyTypeCodeSequence") or ()
    words = [item.get("SegmentLabel"), *(kind.get("CodeMeaning") for kind in kinds)]
    return " / ".join(str(word) for word in words if word)


def _select_lesion_segments(file: Path, names: Mapping[int, str]) -> frozenset[int]:
    numbers = list(names)
    taken = select_lesion_regions([names[number] for number in numbers])
    if not taken:
        raise NoLesionRegionError(
            message("segmentation-no-lesion", file=file, names=", ".join(names.values())[:120])
        )
    return frozenset(numbers[at] for at in taken)


def _read_frames(dataset: Dataset, lesion_segments: frozenset[int]) -> list[_Frame]:
    """Read every frame of the file; frames of other segments become empty, so that the grid covers the whole file."""
    count, rows, columns = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    if not is_frame_count_plausible(dataset, len(dataset.get("PixelData") or b"")):
        raise ValueError  # more frames than the pixel data can hold
    stored = np.asarray(dataset.pixel_array).reshape(count, rows, columns)
    labelled = dataset.SegmentationType == "LABELMAP"
    threshold = 0.5 * float(dataset.get("MaximumFractionalValue") or 1)
    frames = []
    for index in range(count):
        number = (
            None
            if labelled
            else int(_get_functional_group(dataset, index, "SegmentIdentification").ReferencedSegmentNumber)
        )
        pixels = (
            np.isin(stored[index], list(lesion_segments))
            if labelled
            else (stored[index] >= threshold) & (number in lesion_segments)
        )
        measures = _get_functional_group(dataset, index, "PixelMeasures")
        position = parse_numbers(
            _get_functional_group(dataset, index, "PlanePosition").ImagePositionPatient, 3
        )
        orientation = orthonormalise_orientation(
            parse_numbers(
                _get_functional_group(dataset, index, "PlaneOrientation").ImageOrientationPatient, 6
            )
        )
        spacing = parse_numbers(measures.PixelSpacing, 2)
        if position is None or orientation is None or spacing is None or min(spacing) <= 0:
            raise ValueError  # position, orientation or spacing missing or invalid
        frames.append(
            _Frame(
                np.asarray(position, dtype=np.float64),
                np.asarray(orientation, dtype=np.float64),
                (spacing[0], spacing[1]),
                float(measures.get("SliceThickness") or 0.0),
                abs(float(measures.get("SpacingBetweenSlices") or 0.0)),
                pixels,
            )
        )
    return frames


def _get_functional_group(dataset: Dataset, frame: int, name: str) -> Dataset:
    """Return a functional group of one frame: per-frame, else shared; raise KeyError if it is missing."""
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for holder in (own, *shared[:1]):
        if content := holder.get(f"{name}Sequence"):
            group: Dataset = content[0]
            return group
    raise KeyError(name)


def _arrange_on_regular_grid(
    file: Path, frames: Sequence[_Frame], notes: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Arrange frames on one regular grid: float32 ``(slice, row, column)`` and LPS affine."""
    first = frames[0]
    across, down = first.orientation[:3], first.orientation[3:]
    normal = np.cross(across, down)
    _check_parallel(file, frames, normal)
    frame_heights = np.array([float((frame.position - first.position) @ normal) for frame in frames])
    slice_heights = _find_slice_heights(frame_heights)
    slice_spacing, is_regular = _compute_slice_spacing(file, slice_heights, first)
    image = np.zeros(
        (round((slice_heights[-1] - slice_heights[0]) / slice_spacing) + 1, *first.pixels.shape),
        dtype=np.float32,
    )
    for frame, frame_height in zip(frames, frame_heights, strict=True):
        for index in _find_filled_slices(
            frame_height - slice_heights[0],
            slice_spacing,
            0.0 if is_regular else max(frame.thickness, slice_spacing),
            len(image),
        ):
            image[index] = np.maximum(image[index], frame.pixels)
    if not is_regular:
        notes.append(message("segmentation-uneven", step=slice_spacing))
    return image, _compute_affine(first, frames, normal * slice_spacing, slice_heights[0])


def _find_slice_heights(frame_heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distinct heights in ascending order; several segments may have frames at one position."""
    ordered = np.sort(frame_heights)
    values: NDArray[np.float64] = ordered[np.concatenate([[True], np.diff(ordered) > SAME_POSITION_MM])]
    return values


def _compute_slice_spacing(
    file: Path, slice_heights: NDArray[np.float64], frame: _Frame
) -> tuple[float, bool]:
    """Compute the slice spacing of the regular grid in mm, and whether every position is a multiple of it."""
    gaps = np.diff(slice_heights)
    stated = frame.slice_spacing or frame.thickness
    if not len(gaps):
        if stated <= 0:
            raise InputError(message("segmentation-no-step", file=file))
        return stated, True
    for step in (frame.slice_spacing, float(gaps.min()), frame.thickness):
        if step > SAME_POSITION_MM:
            multiples = (slice_heights - slice_heights[0]) / step
            if (
                np.abs(multiples - np.round(multiples)).max() < SPACING_TOLERANCE
                and np.round(multiples[1]) >= 1
            ):
                return (slice_heights[-1] - slice_heights[0]) / float(np.round(multiples[-1])), True
    return float(gaps.min()), False


def _find_filled_slices(
    height: float, slice_spacing: float, slab_thickness: float, slice_count: int
) -> range:
    """Find the grid slices that a frame fills: the nearest, or all with their centre within the slab thickness."""
    nearest = round(height / slice_spacing)
    low = (
        min(nearest, int(np.ceil((height - slab_thickness / 2) / slice_spacing - 1e-6)))
        if slab_thickness
        else nearest
    )
    high = (
        max(nearest, int(np.floor((height + slab_thickness / 2) / slice_spacing - 1e-6)))
        if slab_thickness
        else nearest
    )
    return range(max(low, 0), min(high, slice_count - 1) + 1)


def _check_parallel(file: Path, frames: Sequence[_Frame], normal: NDArray[np.float64]) -> None:
    """Raise unless all frames share size, spacing and orientation and are aligned along the normal."""
    first = frames[0]
    for frame in frames:
        is_rotated = np.abs(frame.orientation - first.orientation).max() > 1e-3
        is_scaled = not np.allclose(frame.spacing, first.spacing, rtol=1e-3)
        offset = frame.position - first.position
        sideways = float(np.linalg.norm(offset - (offset @ normal) * normal))
        if (
            is_rotated
            or is_scaled
            or sideways > max(0.1 * min(first.spacing), 0.01 * float(np.linalg.norm(offset)))
        ):
            raise InputError(message("segmentation-crooked", file=file))


def _compute_affine(
    first: _Frame, frames: Sequence[_Frame], slice_vector: NDArray[np.float64], lowest: float
) -> NDArray[np.float64]:
    across, down = first.orientation[:3], first.orientation[3:]
    height = [float((frame.position - first.position) @ slice_vector) for frame in frames]
    affine = np.eye(4)
    affine[:3, 0] = across / np.linalg.norm(across) * first.spacing[1]
    affine[:3, 1] = down / np.linalg.norm(down) * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = slice_vector, frames[int(np.argmin(height))].position
    return affine
