"""What the results take from the source images: their headers, made regular, and their study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
from highdicom import UID
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import DA, TM

from gliomark.study import GliomarkError, Prediction, Series, Study

UTF8 = "ISO_IR 192"
RESEARCH_ONLY = "Research use only, not a medical device"
# Without these an object can be put neither into the study nor onto the images.
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Headers:
    """One series without its pixels: a dataset per file; of a multi-frame file only the frames that were read.

    frames: their numbers in that file, from 1; None for a series of single images.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...] | None

    @property
    def first(self) -> Dataset:
        return self.datasets[0]


def require_dicom(study: Study) -> None:
    """Raise GliomarkError if results as DICOM could not be written for this patient; reads a file per series."""
    for series in study.series.values():
        if not series.source_images:
            raise GliomarkError(
                f"Patient {study.patient_id} did not come as DICOM, so results as DICOM have no study to go into; "
                "leave --dicom-out away, or give the DICOM files."
            )
        _one_header(series, series.source_images[0].file)


def source_headers(series: Series) -> Headers:
    """The headers of a series' images, in order of their place.

    Raises: GliomarkError where study, series, frame of reference or instance is not stated, or a file is gone.
    """
    images = series.source_images
    if images[0].frame is None:
        return Headers(tuple(_single_header(series, image.file) for image in images), None)
    files = {image.file for image in images}
    if len(files) > 1:
        raise GliomarkError(
            f"The series in {series.source} is spread over {len(files)} multi-frame files, to which results as DICOM "
            "cannot refer; leave --dicom-out away."
        )
    frames = tuple(image.frame + 1 for image in images if image.frame is not None)
    return Headers((_multi_frame_header(series, images[0].file, frames),), frames)


def new_series(prediction: Prediction, number: int, description: str) -> Mapping[str, Any]:
    """What highdicom is told of a new series with one instance, and of the software that made it."""
    return {
        "series_instance_uid": UID(),
        "series_number": number,
        "series_description": description,
        "sop_instance_uid": UID(),
        "instance_number": 1,
        "manufacturer": "gliomark",
        "manufacturer_model_name": prediction.model.name[:64],
        "software_versions": prediction.software_version,
        "device_serial_number": prediction.model.sha256,
        "content_qualification": "RESEARCH",
        "specific_character_set": UTF8,
    }


# ---- headers ----------------------------------------------------------------------------------------


def _single_header(series: Series, file: Path) -> Dataset:
    """A classic image's header; the slices' turn differs in the last digits at most and is taken as the first's."""
    header = _one_header(series, file)
    header.ImageOrientationPatient = _one_orientation(series)
    _state_spacing(header, series)
    return header


def _multi_frame_header(series: Series, file: Path, frames: tuple[int, ...]) -> Dataset:
    """An enhanced image's header, cut to the frames of this stack, which share turn and spacing."""
    header = _one_header(series, file)
    kept = [header.PerFrameFunctionalGroupsSequence[number - 1] for number in frames]
    shared = header.SharedFunctionalGroupsSequence[0]
    for group in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if group not in shared:
            setattr(shared, group, kept[0][group].value)
    _state_spacing(shared.PixelMeasuresSequence[0], series)
    header.PerFrameFunctionalGroupsSequence, header.NumberOfFrames = kept, len(kept)
    return header


def _one_header(series: Series, file: Path) -> Dataset:
    """A file's header, text as UTF-8; what may be empty is there, and empty where it is not valid."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except (OSError, InvalidDicomError):
        raise GliomarkError(
            f"{file} can no longer be read; results as DICOM need the images they were made from."
        ) from None
    missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
    if missing:
        raise GliomarkError(
            f"{file} states no {missing[0]}, which results as DICOM refer to; export the series in {series.source} "
            "again, or leave --dicom-out away."
        )
    header.decode()
    header.SpecificCharacterSet = UTF8
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header or not _valid(keyword, str(header[keyword].value)):
            setattr(header, keyword, "")
    return header


def _valid(keyword: str, value: str) -> bool:
    if keyword == "PatientSex":
        return value in ("M", "F", "O", "")
    kind = DA if keyword.endswith("Date") else TM if keyword.endswith("Time") else None
    try:
        return kind is None or not value or kind(value) is not None
    except ValueError:
        return False


def _one_orientation(series: Series) -> list[float]:
    """Row and column direction of the volume as ImageOrientationPatient, within its 16 characters."""
    cosines = series.affine[:3, :2] / (series.affine[:3, :2] ** 2).sum(axis=0) ** 0.5
    return [float(f"{value:.10f}") for value in cosines.T.ravel()]


def _state_spacing(measures: Dataset, series: Series) -> None:
    """The step between slices as found, which headers often get wrong; none where it is uneven."""
    step = float(f"{(series.affine[:3, 2] ** 2).sum() ** 0.5:.6f}")
    even = all(image.place.is_integer() for image in series.source_images)
    if even:
        measures.SpacingBetweenSlices = step
    elif "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices
    if not measures.get("SliceThickness"):
        measures.SliceThickness = step


def created_now() -> str:
    """DICOM's date and time of this moment."""
    return datetime.now().strftime("%Y%m%d%H%M%S")
