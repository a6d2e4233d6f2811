"""The lesion's outline as a DICOM RT Structure Set on the source images of the reference series."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.codes import LESION
from gliomark.reporting.dicom.lesion_segmentation import describe_outline_origin
from gliomark.reporting.dicom.source_headers import (
    RESEARCH_ONLY_NOTICE,
    SeriesHeaders,
    create_series_attributes,
    format_current_datetime,
)
from gliomark.reporting.drawing import SEGMENTATION_COLOUR
from gliomark.reporting.mask_outlines import trace_outlines
from gliomark.study import Series

ROI_NAME, ROI_NUMBER = "Lesion", 1
_STUDY_COMPONENT_SOP_CLASS = (
    "1.2.840.10008.3.1.2.3.1"  # retired, but still what names a study here (PS3.3 C.8.8.5)
)
_DATE_LENGTH = 8  # of YYYYMMDD


def create_structure_set(
    prediction: Prediction, series: Series, headers: SeriesHeaders, mask: NDArray[np.uint8]
) -> Dataset:
    """Create an RT Structure Set Storage object with one region of interest.

    Its contours follow the edges of the mask's pixels, a polygon for every part of the lesion on an image; see
    ``trace_outlines``. They are stored with implicit value representations, because the length of an explicit decimal
    string is limited to 64 KiB.

    Parameters
    ----------
    series, headers
        The reference series.
    mask
        0 or 1, ``(image, row, column)``, one plane per source image; not empty.
    """
    structure_set = SOPClass(
        study_instance_uid=headers.first.StudyInstanceUID,
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=ImplicitVRLittleEndian,
        **create_series_attributes(prediction, 9004, "gliomark outline, research use only"),
    )
    structure_set.copy_patient_and_study_information(headers.first)
    structure_set.OperatorsName = ""
    structure_set.FrameOfReferenceUID = headers.first.FrameOfReferenceUID
    structure_set.PositionReferenceIndicator = headers.first.get("PositionReferenceIndicator") or ""
    structure_set.StructureSetLabel = "LESION"
    structure_set.StructureSetName = "Lesion outline, research use only"
    now = format_current_datetime()
    structure_set.StructureSetDate, structure_set.StructureSetTime = now[:_DATE_LENGTH], now[_DATE_LENGTH:]
    references = _create_image_references(headers)
    structure_set.ReferencedFrameOfReferenceSequence = [_create_frame_of_reference(headers, references)]
    structure_set.StructureSetROISequence = [_create_roi(prediction, headers)]
    structure_set.ROIContourSequence = [_create_roi_contour(series, references, mask)]
    structure_set.RTROIObservationsSequence = [_create_observation()]
    structure_set.ApprovalStatus = "UNAPPROVED"
    return structure_set


def _create_image_references(headers: SeriesHeaders) -> list[Dataset]:
    """Create the reference to each source image: its file, and its frame in a multi-frame file."""
    if headers.frames is None:
        return [_create_instance_reference(one) for one in headers.datasets]
    references = []
    for number in headers.frames:
        reference = _create_instance_reference(headers.first)
        reference.ReferencedFrameNumber = number
        references.append(reference)
    return references


def _create_instance_reference(header: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return reference


def _create_frame_of_reference(headers: SeriesHeaders, references: list[Dataset]) -> Dataset:
    """Create the frame of reference with the study, the series and its images."""
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = headers.first.SeriesInstanceUID
    series.ContourImageSequence = references
    study.ReferencedSOPClassUID = _STUDY_COMPONENT_SOP_CLASS
    study.ReferencedSOPInstanceUID = headers.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = headers.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _create_roi(prediction: Prediction, headers: SeriesHeaders) -> Dataset:
    """Create the region of interest, with the algorithm that outlined it."""
    model, is_by_reader = prediction.model, prediction.segmentation.is_drawn_by_reader
    roi = Dataset()
    roi.ROINumber, roi.ROIName = ROI_NUMBER, ROI_NAME
    roi.ReferencedFrameOfReferenceUID = headers.first.FrameOfReferenceUID
    roi.ROIDescription = f"{RESEARCH_ONLY_NOTICE}. {describe_outline_origin(prediction)}."
    roi.ROIGenerationAlgorithm = "SEMIAUTOMATIC" if is_by_reader else "AUTOMATIC"
    roi.ROIGenerationDescription = f"{model.name[:40]}, gliomark {prediction.software_version}"[:64]
    roi.ROIDerivationAlgorithmIdentificationSequence = AlgorithmIdentificationSequence(
        name=model.name[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=f"gliomark {prediction.software_version}",
        parameters={"sha256": model.sha256, "rule": str(prediction.segmentation.rule)},
    )
    return roi


def _create_roi_contour(series: Series, references: list[Dataset], mask: NDArray[np.uint8]) -> Dataset:
    roi_contour = Dataset()
    roi_contour.ReferencedROINumber = ROI_NUMBER
    roi_contour.ROIDisplayColor = list(SEGMENTATION_COLOUR)
    roi_contour.ContourSequence = [
        _create_contour(points, reference)
        for position, reference, plane in zip(
            (image.position for image in series.source_images), references, mask, strict=True
        )
        for points in _compute_contours(series, position, plane)
    ]
    return roi_contour


def _compute_contours(
    series: Series, position: tuple[float, float, float], plane: NDArray[np.uint8]
) -> Iterator[NDArray[np.float64]]:
    """Yield the outlines on an image as points ``(n, 3)`` in LPS mm. position: centre of its first pixel."""
    for outline in trace_outlines(plane):
        # corners count from the corner of the first pixel, the position is its centre
        yield (outline - 0.5) @ series.affine[:3, :2].T + np.asarray(position)


def _create_contour(points: NDArray[np.float64], reference: Dataset) -> Dataset:
    contour = Dataset()
    contour.ContourImageSequence = [reference]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.3f}" for value in points.ravel()]
    return contour


def _create_observation() -> Dataset:
    """Create the observation. The interpreted type is blank: whether this is a target is for a physician to say."""
    observation, code = Dataset(), Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = ROI_NUMBER
    observation.ROIObservationLabel = ROI_NAME
    code.CodeValue, code.CodingSchemeDesignator = LESION.value, LESION.scheme_designator
    code.CodeMeaning = LESION.meaning
    observation.RTROIIdentificationCodeSequence = [code]
    observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
    return observation
