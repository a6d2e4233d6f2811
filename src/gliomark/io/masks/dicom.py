"""DICOM segmentations: binary, fractional and label-map.

A segmentation stores only the frames that hold something, in any order. They become one regular grid: the step
is the stated spacing, or else the smallest gap, that all positions are multiples of; places without a frame
are empty. Where no such step exists each slice of the finest step takes the frame whose slab it lies in.
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

from gliomark.io.dicom import can_hold_frames
from gliomark.io.dicom.facts import numbers, unit
from gliomark.io.dicom.files import read_dataset
from gliomark.io.masks.rules import LesionMask, NoLesionRegionError, left_out_note, lesion_regions
from gliomark.io.nifti import counted_names
from gliomark.messages import message
from gliomark.study import PRODUCT, GliomarkError, MRSequence, Series

SEGMENTATIONS = (SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7")  # the second: Label Map Segmentation
DAMAGED = "damaged"
STRUCTURE_SETS = (RTStructureSetStorage,)
# Positions are written with three to six decimals; a slice apart is at least some tenths of a millimetre.
SAME_PLACE_MM = 0.01
STEP_TOLERANCE = 0.05
DAMAGE = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError, IndexError,
    AttributeError, NotImplementedError, RuntimeError, struct.error,
)  # fmt: skip


def mask_kind(file: Path) -> str:
    """``"segmentation"``, ``"structure set"``, ``"damaged"`` or blank, by the file's SOP class.

    Damaged is a DICOM file that is cut short before it says what it holds; in a mask folder it was a mask.
    """
    try:
        header = read_dataset(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        stored = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    except DAMAGE:
        return DAMAGED
    if stored in SEGMENTATIONS:
        return "segmentation"
    if stored in STRUCTURE_SETS:
        return "structure set"
    begun = UID(str(stored or ""))
    is_cut = begun.name == begun and any(k.startswith(begun) for k in (*SEGMENTATIONS, *STRUCTURE_SETS))
    return DAMAGED if is_cut and header.preamble else ""


def check_frame_of_reference(
    file: Path, series: Mapping[MRSequence, Series], uids: Mapping[str, MRSequence]
) -> None:
    """Raise GliomarkError for a DICOM mask in coordinates that none of the patient's DICOM series uses.

    A mask that refers to one of the series (uids) is believed, and so is one that states no frame of reference.
    """
    images = [one.source_images[0].file for one in series.values() if one.source_images]
    if not images:
        return
    try:
        header = read_dataset(file, stop_before_pixels=True)
        drawn_in, referenced = _frames_of_reference(header), _series_referred_to(header)
        known = {_frame_of_reference(image) for image in images} - {""}
    except DAMAGE:
        return  # reading the file says what is wrong
    if drawn_in and known and not drawn_in & known and not referenced & set(uids):
        raise GliomarkError(message("mask-frame", file=file))


def _frame_of_reference(image: Path) -> str:
    header = read_dataset(image, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    return str(header.get("FrameOfReferenceUID") or "")


def one_series(header: Dataset) -> str:
    """The one SeriesInstanceUID that a DICOM mask refers to, blank for none or several."""
    found = _series_referred_to(header)
    return found.pop() if len(found) == 1 else ""


def _series_referred_to(header: Dataset) -> set[str]:
    """Every SeriesInstanceUID that a segmentation or a structure set refers to."""
    items = list(header.get("ReferencedSeriesSequence") or ())
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            items += study.get("RTReferencedSeriesSequence") or ()
    return {str(item.SeriesInstanceUID) for item in items if "SeriesInstanceUID" in item}


def _frames_of_reference(header: Dataset) -> set[str]:
    """Those a segmentation or a structure set states, be it for a single region."""
    names = {"FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"}
    stated = [str(header[name].value) for name in names if name in header]
    for item in (*(header.get("ReferencedFrameOfReferenceSequence") or ()),
                 *(header.get("StructureSetROISequence") or ())):  # fmt: skip
        stated += [str(item[name].value) for name in names if name in item]
    return {uid for uid in stated if uid}


def drawn_by(file: Path) -> tuple[str, str]:
    """Who made a DICOM mask (name, or blank) and its label: personal data, only for telling raters apart."""
    try:
        header = read_dataset(file, stop_before_pixels=True)
        name = str(header.get("ContentCreatorName") or header.get("OperatorsName") or "").strip(" ^=")
        return name, str(header.get("StructureSetLabel") or "").strip()
    except DAMAGE:
        return "", ""


def predicted(file: Path) -> bool:
    """Whether a DICOM mask is one of gliomark's own answers."""
    try:
        header = read_dataset(file, stop_before_pixels=True)
        kinds = {str(item.get("SegmentAlgorithmType")) for item in header.get("SegmentSequence") or ()}
        return str(header.get("Manufacturer") or "") == PRODUCT and "AUTOMATIC" in kinds
    except DAMAGE:
        return False


def description_of(file: Path) -> str:
    """SeriesDescription of a DICOM mask, which often names the series it was drawn on."""
    header = read_dataset(file, stop_before_pixels=True, specific_tags=["SeriesDescription"])
    return str(header.get("SeriesDescription") or "")


# ---- segmentations ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Frame:
    """One plane of a segmentation: where it lies (LPS mm) and its pixels, ``(row, column)``."""

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    step: float
    pixels: NDArray[np.bool_]


def read_segmentation(file: Path) -> LesionMask:
    """A DICOM SEG's lesion segments, OR-ed, on the regular grid of its frames; the rater is left blank.

    Fractional values count from one half. Raises: GliomarkError for a damaged file, one without a lesion
    segment, without positions, or with frames that do not lie above each other.
    """
    try:
        dataset = read_dataset(file)
        names = {int(item.SegmentNumber): _segment_name(item) for item in dataset.SegmentSequence}
        if dataset.get("SegmentationType") == "LABELMAP":
            names.pop(0, None)  # zero is the background
        wanted = _wanted(file, names)
        frames = _frames(dataset, wanted)
        drawn_on = one_series(dataset)
    except DAMAGE:
        raise GliomarkError(message("segmentation-damaged", file=file)) from None
    notes = list(left_out_note(len(names), len(wanted)))
    image, affine = _regular(file, frames, notes)
    if not image.any():
        notes.append(message("segmentation-empty"))
    series = Series(image, affine, counted_names(len(image)), file)
    return LesionMask(series, "", file, drawn_on, tuple(notes))


def _segment_name(item: Dataset) -> str:
    kinds = item.get("SegmentedPropertyTypeCodeSequence") or ()
    words = [item.get("SegmentLabel"), *(kind.get("CodeMeaning") for kind in kinds)]
    return " / ".join(str(word) for word in words if word)


def _wanted(file: Path, names: Mapping[int, str]) -> frozenset[int]:
    numbers = list(names)
    taken = lesion_regions([names[number] for number in numbers])
    if not taken:
        raise NoLesionRegionError(
            message("segmentation-no-lesion", file=file, names=", ".join(names.values())[:120])
        )
    return frozenset(numbers[at] for at in taken)


def _frames(dataset: Dataset, wanted: frozenset[int]) -> list[_Frame]:
    """Every plane of the file; those of other segments are empty, so that the grid is the whole file's."""
    count, rows, columns = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    if not can_hold_frames(dataset, len(dataset.get("PixelData") or b"")):
        raise ValueError  # more frames than the pixels can be
    stored = np.asarray(dataset.pixel_array).reshape(count, rows, columns)
    labelled = dataset.SegmentationType == "LABELMAP"
    half = 0.5 * float(dataset.get("MaximumFractionalValue") or 1)
    frames = []
    for at in range(count):
        number = (
            None
            if labelled
            else int(_functional(dataset, at, "SegmentIdentification").ReferencedSegmentNumber)
        )
        pixels = np.isin(stored[at], list(wanted)) if labelled else (stored[at] >= half) & (number in wanted)
        measures = _functional(dataset, at, "PixelMeasures")
        position = numbers(_functional(dataset, at, "PlanePosition").ImagePositionPatient, 3)
        turn = unit(numbers(_functional(dataset, at, "PlaneOrientation").ImageOrientationPatient, 6))
        spacing = numbers(measures.PixelSpacing, 2)
        if position is None or turn is None or spacing is None or min(spacing) <= 0:
            raise ValueError  # a place that is not stated in numbers
        frames.append(_Frame(
            np.asarray(position, dtype=np.float64),
            np.asarray(turn, dtype=np.float64),
            (spacing[0], spacing[1]),
            float(measures.get("SliceThickness") or 0.0),
            abs(float(measures.get("SpacingBetweenSlices") or 0.0)),
            pixels,
        ))  # fmt: skip
    return frames


def _functional(dataset: Dataset, frame: int, name: str) -> Dataset:
    """A functional group of one frame: its own, else the shared one. Raises KeyError where it is nowhere."""
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for holder in (own, *shared[:1]):
        if content := holder.get(f"{name}Sequence"):
            group: Dataset = content[0]
            return group
    raise KeyError(name)


def _regular(
    file: Path, frames: Sequence[_Frame], notes: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Frames on one regular grid: float32 ``(slice, row, column)`` and LPS affine."""
    first = frames[0]
    across, down = first.orientation[:3], first.orientation[3:]
    normal = np.cross(across, down)
    _check_parallel(file, frames, normal)
    height = np.array([float((frame.position - first.position) @ normal) for frame in frames])
    places = _places(height)
    step, regular = _step(file, places, first)
    image = np.zeros((round((places[-1] - places[0]) / step) + 1, *first.pixels.shape), dtype=np.float32)
    for frame, above in zip(frames, height, strict=True):
        for at in _slices_of(
            above - places[0], step, 0.0 if regular else max(frame.thickness, step), len(image)
        ):
            image[at] = np.maximum(image[at], frame.pixels)
    if not regular:
        notes.append(message("segmentation-uneven", step=step))
    return image, _affine(first, frames, normal * step, places[0])


def _places(height: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distinct heights, ascending: several segments have frames at one place."""
    ordered = np.sort(height)
    return ordered[np.concatenate([[True], np.diff(ordered) > SAME_PLACE_MM])]


def _step(file: Path, places: NDArray[np.float64], frame: _Frame) -> tuple[float, bool]:
    """The step of the regular grid in mm, and whether every place is a multiple of it."""
    gaps = np.diff(places)
    stated = frame.step or frame.thickness
    if not len(gaps):
        if stated <= 0:
            raise GliomarkError(message("segmentation-no-step", file=file))
        return stated, True
    for step in (frame.step, float(gaps.min()), frame.thickness):
        if step > SAME_PLACE_MM:
            turns = (places - places[0]) / step
            if np.abs(turns - np.round(turns)).max() < STEP_TOLERANCE and np.round(turns[1]) >= 1:
                return (places[-1] - places[0]) / float(np.round(turns[-1])), True
    return float(gaps.min()), False


def _slices_of(height: float, step: float, slab: float, count: int) -> range:
    """Grid slices that a frame fills: the nearest one, or all whose centre lies in a slab of that thickness."""
    nearest = round(height / step)
    low = min(nearest, int(np.ceil((height - slab / 2) / step - 1e-6))) if slab else nearest
    high = max(nearest, int(np.floor((height + slab / 2) / step - 1e-6))) if slab else nearest
    return range(max(low, 0), min(high, count - 1) + 1)


def _check_parallel(file: Path, frames: Sequence[_Frame], normal: NDArray[np.float64]) -> None:
    """All planes share size, spacing and turn, and lie straight above each other."""
    first = frames[0]
    for frame in frames:
        turned = np.abs(frame.orientation - first.orientation).max() > 1e-3
        scaled = not np.allclose(frame.spacing, first.spacing, rtol=1e-3)
        offset = frame.position - first.position
        sideways = float(np.linalg.norm(offset - (offset @ normal) * normal))
        if turned or scaled or sideways > max(0.1 * min(first.spacing), 0.01 * float(np.linalg.norm(offset))):
            raise GliomarkError(message("segmentation-crooked", file=file))


def _affine(
    first: _Frame, frames: Sequence[_Frame], step: NDArray[np.float64], lowest: float
) -> NDArray[np.float64]:
    across, down = first.orientation[:3], first.orientation[3:]
    height = [float((frame.position - first.position) @ step) for frame in frames]
    affine = np.eye(4)
    affine[:3, 0] = across / np.linalg.norm(across) * first.spacing[1]
    affine[:3, 1] = down / np.linalg.norm(down) * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, frames[int(np.argmin(height))].position
    return affine
