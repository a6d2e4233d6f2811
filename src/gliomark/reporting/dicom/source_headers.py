"""Headers of the source images, corrected, as far as the DICOM results need them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.prediction import Prediction
from gliomark.reporting.dicom.header_cleaning import is_valid_uid, remove_invalid_elements
from gliomark.study import DICOM_MANUFACTURER, Series, SourceImage, Study

UTF8_CHARACTER_SET = "ISO_IR 192"
RESEARCH_ONLY_NOTICE = "Research use only, not a medical device"
# Without these a result cannot be assigned to the study and the images.
_REQUIRED_KEYWORDS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
)
_TYPE_2_KEYWORDS = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SeriesHeaders:
    """Headers of one series: a dataset per file; for a multi-frame file only the frames that were read.

    frames: numbers of these frames in the file, from 1; None for a series of single-frame images.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...] | None

    @property
    def first(self) -> Dataset:
        """Header of the first image."""
        return self.datasets[0]


def check_dicom_source(study: Study) -> None:
    """Check that results can be written as DICOM for this patient; reads one file per series.

    Raises
    ------
    InputError
        If the images were not read from DICOM, or one stack is spread over several multi-frame files.
    """
    for series in study.series.values():
        if not series.source_images:
            raise InputError(message("not-dicom", patient=study.patient_id))
        files = {image.file for image in series.source_images}
        if len(files) > 1 and not _is_single_frame(_read_header(series, series.source_images[0])):
            raise InputError(message("dicom-spread", folder=str(series.source), count=len(files)))


def read_source_headers(series: Series) -> SeriesHeaders:
    """Read the headers of a series' images in the order of their positions.

    The study must have passed ``check_dicom_source``.

    Raises
    ------
    InputError
        If a needed UID is missing or invalid, the patient id is invalid, or a file no longer exists.
    """
    first = _read_header(series, series.source_images[0])
    if _is_single_frame(first):
        return SeriesHeaders(
            tuple(_read_single_frame_header(series, image) for image in series.source_images), None
        )
    frames = tuple((image.frame or 0) + 1 for image in series.source_images)
    return SeriesHeaders((_restrict_header_to_frames(series, first),), frames)


def create_series_attributes(
    prediction: Prediction, series_number: int, description: str
) -> Mapping[str, Any]:
    """Return highdicom's keyword arguments for a new series with one instance, and for the software."""
    from highdicom import UID  # takes half a second to load

    return {
        "series_instance_uid": UID(),
        "series_number": series_number,
        "series_description": description,
        "sop_instance_uid": UID(),
        "instance_number": 1,
        "manufacturer": DICOM_MANUFACTURER,
        "manufacturer_model_name": prediction.model.name[:64],
        "software_versions": prediction.software_version,
        "device_serial_number": prediction.model.sha256,
        "content_qualification": "RESEARCH",
        "specific_character_set": UTF8_CHARACTER_SET,
    }


# ---- headers ----------------------------------------------------------------------------------------


def _is_single_frame(header: Dataset) -> bool:
    """Whether a file is a classic MR image; other MR images are multi-frame, even with a single frame."""
    return bool(header.SOPClassUID == MRImageStorage)


def _read_single_frame_header(series: Series, image: SourceImage) -> Dataset:
    """Read a classic image's header and set the geometry that was read with the series."""
    header = _read_header(series, image)
    header.pop("SpacingBetweenSlices", None)
    header.update(_create_pixel_measures(series, header))
    header.ImageOrientationPatient = _compute_orientation(series)
    header.ImagePositionPatient = _to_decimal_strings(image.position)
    return header


def _restrict_header_to_frames(series: Series, header: Dataset) -> Dataset:
    """Restrict an enhanced image's header to the frames of this stack, with the geometry that was read."""
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = _compute_orientation(series)
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [_create_pixel_measures(series, _find_pixel_measures(series, header))]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [_create_frame_group(image) for image in series.source_images]
    header.NumberOfFrames = len(series.source_images)
    return header


def _create_frame_group(image: SourceImage) -> Dataset:
    group, plane = Dataset(), Dataset()
    plane.ImagePositionPatient = _to_decimal_strings(image.position)
    group.PlanePositionSequence = [plane]
    return group


def _read_header(series: Series, image: SourceImage) -> Dataset:
    """Read a file's header as UTF-8, without invalid elements and with all type 2 elements."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(image.file, stop_before_pixels=True, force=True)
            required = {keyword: header.get(keyword) for keyword in _REQUIRED_KEYWORDS}
            has_patient_id = "PatientID" in header
            remove_invalid_elements(header)
            header.decode()
    except (OSError, InvalidDicomError):
        raise InputError(message("dicom-gone", file=image.file)) from None
    missing = [keyword for keyword, value in required.items() if not value]
    if missing:
        parameters = {"file": str(image.file), "field": missing[0], "folder": str(series.source)}
        raise InputError(message("dicom-incomplete", **parameters))
    for keyword, value in required.items():
        if not is_valid_uid(value):
            parameters = {
                "file": str(image.file),
                "keyword": keyword,
                "value": str(value),
                "folder": str(series.source),
            }
            raise InputError(message("dicom-out-bad-uid", **parameters))
    if has_patient_id and "PatientID" not in header:
        raise InputError(message("dicom-bad-patient-id", file=image.file))
    for keyword in _TYPE_2_KEYWORDS:
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    return header


def _compute_orientation(series: Series) -> list[DSfloat]:
    """Return one orientation for all slices; the stored ones differ in the last digits at most."""
    cosines = series.affine[:3, :2] / np.linalg.norm(series.affine[:3, :2], axis=0)
    return _to_decimal_strings(cosines.T.ravel().tolist())


def _find_pixel_measures(series: Series, header: Dataset) -> Dataset:
    """Return the pixel measures of the stack's first frame: per frame, otherwise shared."""
    first = series.source_images[0].frame or 0
    frame_groups = (header.get("PerFrameFunctionalGroupsSequence") or ())[first : first + 1]
    functional_groups = [*frame_groups, *(header.get("SharedFunctionalGroupsSequence") or ())]
    pixel_measures = [
        measures for one in functional_groups for measures in one.get("PixelMeasuresSequence") or ()
    ]
    return pixel_measures[0] if pixel_measures else Dataset()


def _create_pixel_measures(series: Series, source: Dataset) -> Dataset:
    """Create pixel spacing, slice thickness and slice spacing.

    The slice spacing is computed from the positions because headers are often wrong; it is omitted if uneven.
    """
    column, row, step = np.linalg.norm(series.affine[:3, :3], axis=0).tolist()
    measures = Dataset()
    measures.PixelSpacing = _to_decimal_strings([row, column])
    measures.SliceThickness = source.get("SliceThickness") or _to_decimal_strings([step])[0]
    if all(image.fractional_index.is_integer() for image in series.source_images):
        measures.SpacingBetweenSlices = _to_decimal_strings([step])[0]
    return measures


def _to_decimal_strings(values: Iterable[float]) -> list[DSfloat]:
    """Convert to DICOM decimal strings (at most 16 characters), rounded to nine significant digits."""
    return [DSfloat(float(f"{value:.9g}"), auto_format=True) for value in values]


def format_current_datetime() -> str:
    """Return the current local time as a DICOM DT value."""
    return datetime.now().strftime("%Y%m%d%H%M%S")
