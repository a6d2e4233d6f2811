"""DICOM: a folder, searched with all its subfolders, of one patient's MR files.

Which series is which sequence: physics first (echo, repetition and inversion time, contrast agent), the words
of SeriesDescription where the physics is missing (de-identified research sets) or leaves a choice. Where
several series are candidates for a sequence, the one with most slices is read. Slices are ordered by their
place in the patient, never by file name or instance number.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from gliomark.io.nifti import counted_names, folder_name, sequence_in_name, visible
from gliomark.study import GliomarkError, MRSequence, Series, Study

MR_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_NOT_DICOM = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".csv", ".txt", ".json", ".xml", ".nii", ".gz", ".pdf")
# Positions are often written with one decimal; a missing slice is a gap of a whole step.
GAP_TOLERANCE = 0.02
GAP_TOLERANCE_MM = 0.1
_NO_CONTRAST = re.compile(
    r"(?:^|[^a-z])(pre|plain|native|without|w/?o|non?[ _-]?contrast)(?![a-z])|平扫", re.I
)
_OTHER_SERIES = re.compile(
    r"(?:^|[^a-z])(dwi|adc|swi|swan|dti|dsc|dce|asl|perf\w*|diff\w*|tof|mra|mip|loc\w*|scout|survey|sub)(?![a-z])",
    re.IGNORECASE,
)
_GROUPS = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)  # fmt: skip
# pydicom converts a value when first asked for it; these are asked for at once, so that damage shows.
_READ_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName",
    "PatientBirthDate", "Modality", "SeriesDescription", "ProtocolName", "ImageType", "ScanningSequence",
    "RepetitionTime", "EchoTime", "InversionTime", "ContrastBolusAgent", "ContrastBolusAgentSequence", "Rows",
    "Columns", "NumberOfFrames", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
# How pydicom and its decoders tell of damage and of codings they do not know, found by altering files.
_DAMAGE = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError,
    AttributeError, NotImplementedError, struct.error,
)  # fmt: skip
_PIXEL_DAMAGE = (*_DAMAGE, RuntimeError)


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series: a file, or one frame of a multi-frame file.

    position, row_direction, column_direction: LPS, mm and unit vectors (row_direction is the way the column
    index grows). spacing: mm from row to row and from column to column. slope, intercept: to stored values.
    """

    file: Path
    frame: int | None
    shape: tuple[int, int]
    position: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float
    intercept: float


# ---- files ------------------------------------------------------------------------------------------


def looks_like_dicom(file: Path) -> bool:
    """DICOM by its first bytes: the preamble's DICM, or bare elements of group 2 or 8 (old exports)."""
    if file.suffix.lower() in _NOT_DICOM or file.name == "DICOMDIR":
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (len(start) == 132 and start[:2] in (b"\x08\x00", b"\x02\x00"))


def dicom_files(path: Path) -> Iterator[Path]:
    """All DICOM files below a folder, in order of name."""
    for entry in visible(path):
        if entry.is_dir():
            yield from dicom_files(entry)
        elif looks_like_dicom(entry):
            yield entry


def holds_dicom(path: Path) -> bool:
    """Whether any DICOM file lies in a folder or below it."""
    return next(dicom_files(path), None) is not None


def is_one_patient(path: Path) -> bool:
    """Whether a folder is one patient's DICOM, not a folder of such folders: by the first file of each.

    A single subfolder counts as a series when the files lie directly in it, else as a patient of its own.
    """
    entries = visible(path)
    if any(entry.is_file() and looks_like_dicom(entry) for entry in entries):
        return True
    firsts = [file for entry in entries if entry.is_dir() and (file := next(dicom_files(entry), None))]
    if len(firsts) == 1:
        return firsts[0].parent.parent == path
    owners = {owner for file in firsts if (owner := _owner(file))}
    return len(owners) == 1


def _owner(file: Path) -> str:
    """PatientID, or the examination where that is blank; blank for a damaged file (reading will name it)."""
    try:
        header = _header(file)
    except GliomarkError:
        return ""
    return _text(header, "PatientID") or _text(header, "StudyInstanceUID")


def _header(file: Path) -> Dataset:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        for keyword in _READ_TAGS:
            header.get(keyword)
    except _DAMAGE:
        raise GliomarkError(f"{file} is damaged or no DICOM file: copy or export it again.") from None
    return header


# ---- the examination --------------------------------------------------------------------------------


def read_dicom(path: Path) -> Study:
    """Read one patient's DICOM folder; the id is PatientID, or the folder's name where that is blank.

    Raises: GliomarkError for two patients, no usable series, uneven slices or pixels that cannot be decoded.
    """
    headers = {file: _header(file) for file in dicom_files(path)}
    images = {file: header for file, header in headers.items() if header.get("SOPClassUID") in MR_CLASSES}
    if not images:
        found = sorted({_text(header, "Modality") or "unknown" for header in headers.values()})
        raise GliomarkError(
            f"No MR images among the DICOM files in {path} (found {', '.join(found)}): export the MRI."
        )
    _check_one_patient(path, images)

    chosen, notes = _choose(path, images)
    series = {sequence: _read_series(files, images) for sequence, files in chosen.items()}
    first = next(iter(images.values()))
    examinations = {_text(images[file], "StudyInstanceUID") for files in chosen.values() for file in files}
    if len(examinations) > 1:
        notes.append(f"The sequences come from {len(examinations)} different examinations of this patient.")
    return Study(_text(first, "PatientID") or folder_name(path), series, path, "volumes", notes=tuple(notes))


def _text(header: Dataset, keyword: str) -> str:
    """A header value as plain text, blank where the tag is missing."""
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def _check_one_patient(path: Path, images: dict[Path, Dataset]) -> None:
    """Refuse a folder in which id, name or birth date (where given) differ between two files."""
    for keyword, what in (
        ("PatientID", "ids"),
        ("PatientName", "names"),
        ("PatientBirthDate", "birth dates"),
    ):
        owners: dict[str, Path] = {}
        for file, header in images.items():
            if value := re.sub(r"[\s^=]+", " ", _text(header, keyword)).strip().casefold():
                owners.setdefault(value, file)
        if len(owners) > 1:
            one, other = list(owners.values())[:2]
            raise GliomarkError(
                f"{path} holds files of two patients (different {what} in {one.relative_to(path)} and "
                f"{other.relative_to(path)}): give every patient a folder of their own."
            )


def _choose(path: Path, images: dict[Path, Dataset]) -> tuple[dict[MRSequence, list[Path]], list[str]]:
    """Files of the series to read per sequence, and a note where there was a choice."""
    candidates: dict[MRSequence, list[list[Path]]] = defaultdict(list)
    groups = _by_series(images)
    for files in groups:
        sequence = sequence_of(images[files[0]])
        if sequence and _image_count(files, images) > 1:
            candidates[sequence].append(files)
    if not candidates:
        found = ", ".join(
            sorted({_text(images[files[0]], "SeriesDescription") or "no name" for files in groups})
        )
        raise GliomarkError(
            f"None of the MR series in {path} is a T1, T1C, T2 or FLAIR (found {found}): export these."
        )

    chosen, notes = {}, []
    for sequence in (sequence for sequence in MRSequence if sequence in candidates):
        largest = max(candidates[sequence], key=lambda files: _image_count(files, images))
        chosen[sequence] = largest
        if len(candidates[sequence]) > 1:
            name = _text(images[largest[0]], "SeriesDescription")
            notes.append(
                f"{len(candidates[sequence])} series look like {sequence}; read: {name or largest[0].name}."
            )
    return chosen, notes


def _by_series(images: dict[Path, Dataset]) -> list[list[Path]]:
    """Group files by series, and by echo within it; a file copied twice (same instance) counts once."""
    groups: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for file, header in images.items():
        series = _text(header, "SeriesInstanceUID") or str(file.parent)
        instance = _text(header, "SOPInstanceUID") or str(file)
        groups[series, _text(header, "EchoTime")].setdefault(instance, file)
    return [list(files.values()) for files in groups.values()]


def _image_count(files: Sequence[Path], images: dict[Path, Dataset]) -> int:
    return sum(int(images[file].get("NumberOfFrames") or 1) for file in files)


# ---- which sequence ---------------------------------------------------------------------------------


def sequence_of(header: Dataset) -> MRSequence | None:
    """The sequence a series is, None for any other: physics first, then the words of its description."""
    description = f"{_text(header, 'SeriesDescription')} {_text(header, 'ProtocolName')}"
    kind = " ".join(str(part) for part in header.get("ImageType") or ())
    if _unusable(kind, _text(header, "SeriesDescription")):
        return None
    words = sequence_in_name(_text(header, "SeriesDescription")) or sequence_in_name(description)
    weighting = _weighting(header)
    if weighting == "other":
        return None
    sequence = words if weighting is None else weighting
    # A FLAIR whose inversion time is not written looks like a T2: here the words know better.
    if sequence == MRSequence.T2 and words == MRSequence.FLAIR and not _number(header, "InversionTime"):
        return MRSequence.FLAIR
    if sequence == MRSequence.T1 and (words == MRSequence.T1C or _agent(header)):
        return MRSequence.T1 if _NO_CONTRAST.search(description) else MRSequence.T1C
    return sequence if isinstance(sequence, MRSequence) else None


def _unusable(image_type: str, description: str) -> bool:
    """Maps, projections, scouts and phase images, whatever their timing says."""
    parts = set(re.split(r"[\s\\_]+", image_type.upper()))
    if parts & {
        "ADC",
        "FA",
        "TRACEW",
        "DIFFUSION",
        "MIP",
        "LOCALIZER",
        "PROJECTION",
        "PHASE",
        "P",
        "SUBTRACT",
    }:
        return True
    return _OTHER_SERIES.search(description) is not None


def _weighting(header: Dataset) -> MRSequence | str | None:
    """Weighting by timing: T1, T2 or FLAIR, "other" for PD, T2* and echo-planar, None where not written."""
    repetition, echo = _number(header, "RepetitionTime"), _number(header, "EchoTime")
    inversion = _number(header, "InversionTime") or 0.0
    technique = _technique(header)
    if "EP" in technique:
        return "other"
    if not repetition or not echo:
        return None
    if inversion >= 1400 and echo >= 60:
        return MRSequence.FLAIR
    # Short echo: T1 when recovery is short, or prepared by an inversion (MPRAGE, T1 FLAIR).
    if echo <= 35 and (300 <= inversion <= 1400 or repetition <= 1200):
        gradient_t2star = "GR" in technique and echo > 12
        return "other" if gradient_t2star else MRSequence.T1
    if echo >= 60 and repetition >= 1500:
        return MRSequence.T2
    return "other"


def _technique(header: Dataset) -> set[str]:
    """ScanningSequence's codes: SE, IR, GR, EP."""
    value = header.get("ScanningSequence") or ()
    return {value} if isinstance(value, str) else {str(part) for part in value}


def _agent(header: Dataset) -> bool:
    """Whether the header names a contrast agent."""
    nested = header.get("ContrastBolusAgentSequence")
    text = _text(header, "ContrastBolusAgent").lower()
    return bool(nested) or text not in {"", "no", "none", "n", "n/a", "na", "without", "no contrast"}


def _number(header: Dataset, keyword: str) -> float | None:
    """A timing in ms, from the header itself or an enhanced file's shared or first frame's groups."""
    value = header.get(keyword)
    if value in (None, ""):
        sequence, nested = {
            "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
            "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
            "InversionTime": ("MRModifierSequence", "InversionTimes"),
        }[keyword]
        group = _group(header, 0, sequence)
        value = group.get(nested) if group is not None else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        return float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None  # an unreadable timing is a timing not written


def _group(header: Dataset, frame: int, name: str) -> Dataset | None:
    """A functional group of one frame of an enhanced file: its own, else the shared one, else None."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for holder in [*frames[frame : frame + 1], *shared[:1]]:
        if content := holder.get(name):
            group: Dataset = content[0]
            return group
    return None


# ---- slices to a volume -----------------------------------------------------------------------------


def _read_series(files: Sequence[Path], images: dict[Path, Dataset]) -> Series:
    """Build one series: float32 ``(slice, row, column)``, ordered along the normal, rescaled, LPS affine."""
    folder = files[0].parent
    slices = [piece for file in files for piece in _slices_of(file, images[file])]
    normal = np.cross(slices[0].row_direction, slices[0].column_direction)
    slices.sort(key=lambda piece: float(piece.position @ normal))
    affine = _affine(folder, slices, normal)
    image = _pixels(slices)
    if not image.any():
        raise GliomarkError(f"All images of the series in {folder} are black: export it again.")
    return Series(image, affine, counted_names(len(slices)), folder)


def _slices_of(file: Path, header: Dataset) -> list[Slice]:
    """The images of one file, one per frame."""
    try:
        if "PerFrameFunctionalGroupsSequence" not in header:
            return [_slice(file, None, header, header, header, header, header)]
        frames = range(int(header.NumberOfFrames))
        return [
            _slice(file, frame, header, *(_group(header, frame, name) or Dataset() for name in _GROUPS))
            for frame in frames
        ]
    except _DAMAGE:
        raise GliomarkError(
            f"{file} does not state position, orientation or pixel spacing: export the original series."
        ) from None


def _slice(
    file: Path,
    frame: int | None,
    header: Dataset,
    plane: Dataset,
    turn: Dataset,
    measures: Dataset,
    values: Dataset,
) -> Slice:
    row, column = np.reshape(np.asarray(turn.ImageOrientationPatient, dtype=np.float64), (2, 3))
    down, across = (float(step) for step in measures.PixelSpacing)
    return Slice(
        file=file,
        frame=frame,
        shape=(int(header.Rows), int(header.Columns)),
        position=np.asarray(plane.ImagePositionPatient, dtype=np.float64).reshape(3),
        row_direction=row / np.linalg.norm(row),
        column_direction=column / np.linalg.norm(column),
        spacing=(down, across),
        slope=float(values.get("RescaleSlope") or 1.0),
        intercept=float(values.get("RescaleIntercept") or 0.0),
    )


def _affine(folder: Path, slices: Sequence[Slice], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """LPS affine of ordered slices, after checking that they make one even, right-angled stack."""
    first, last = slices[0], slices[-1]
    _check_uniform(folder, slices)
    _check_even(folder, slices, np.diff([float(piece.position @ normal) for piece in slices]))
    step = (last.position - first.position) / (len(slices) - 1)
    if np.linalg.norm(np.cross(step, normal)) > 0.01 * np.linalg.norm(step):
        raise GliomarkError(
            f"The slices in {folder} are shifted sideways (tilted stack): export a straight one."
        )
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.spacing[1]
    affine[:3, 1] = first.column_direction * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return affine


def _check_uniform(folder: Path, slices: Sequence[Slice]) -> None:
    """All slices of a series share size, pixel spacing and orientation."""
    first = slices[0]
    for piece in slices:
        turned = np.abs(piece.row_direction - first.row_direction).max() > 1e-3
        tilted = np.abs(piece.column_direction - first.column_direction).max() > 1e-3
        scaled = not np.allclose(piece.spacing, first.spacing, rtol=1e-3)
        if turned or tilted or scaled or piece.shape != first.shape:
            raise GliomarkError(
                f"The slices {first.file.name} and {piece.file.name} in {folder} differ in size, spacing or "
                "orientation: export one uniform series."
            )


def _check_even(folder: Path, slices: Sequence[Slice], gaps: NDArray[np.float64]) -> None:
    """No place twice and none left out; gaps: mm from each slice to the next, along the normal."""
    usual = float(np.median(gaps))
    worst = int(np.argmin(gaps)) if gaps.min() < 1e-3 else int(np.argmax(np.abs(gaps - usual)))
    between = f"{slices[worst].file.name} and {slices[worst + 1].file.name} in {folder}"
    if gaps[worst] < 1e-3:
        raise GliomarkError(
            f"{between} show the same place: the series holds repeats, export one image per place."
        )
    if abs(gaps[worst] - usual) > max(GAP_TOLERANCE * usual, GAP_TOLERANCE_MM):
        raise GliomarkError(
            f"The slices are {usual:.2f} mm apart but {gaps[worst]:.2f} mm between {between}: a slice is missing "
            "or misplaced, export the whole series."
        )


def _pixels(slices: Sequence[Slice]) -> NDArray[np.float32]:
    """Decode and rescale: float32 ``(slice, row, column)``; a multi-frame file is decoded once."""
    image = np.empty((len(slices), *slices[0].shape), dtype=np.float32)
    wanted: dict[Path, list[int]] = defaultdict(list)
    for at, piece in enumerate(slices):
        wanted[piece.file].append(at)
    for file, places in wanted.items():
        pixels = _decoded(file)
        for at in places:
            piece = slices[at]
            plane = pixels if piece.frame is None else pixels.reshape(-1, *piece.shape)[piece.frame]
            if plane.shape != piece.shape:
                raise GliomarkError(
                    f"{file} does not hold one grey image of {piece.shape}: export the original."
                )
            image[at] = plane * piece.slope + piece.intercept
    return image


def _decoded(file: Path) -> NDArray[np.float32]:
    try:
        return np.asarray(pydicom.dcmread(file, force=True).pixel_array, dtype=np.float32)
    except _PIXEL_DAMAGE:
        raise GliomarkError(
            f"The pixels of {file} cannot be decoded{_coding(file)}: export it again, uncompressed."
        ) from None


def _coding(file: Path) -> str:
    """Why pixels may not be decoded: the compression in words, else that the file is damaged."""
    meta = getattr(_header(file), "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
        return f" ({syntax.name})"
    return " (cut short or damaged)"
