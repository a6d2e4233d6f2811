"""The lesion as a DICOM Segmentation on the source images of the reference series."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from gliomark.prediction import Prediction
from gliomark.reporting.dicom.codes import BRAIN, LESION, SEGMENT_CATEGORY
from gliomark.reporting.dicom.source_headers import (
    RESEARCH_ONLY_NOTICE,
    SeriesHeaders,
    create_series_attributes,
)
from gliomark.reporting.drawing import SEGMENTATION_COLOUR
from gliomark.study import DICOM_MANUFACTURER

TRACKING_ID = "gliomark lesion"
UNREVIEWED_COMMENT = "Automatic segmentation, not reviewed"


def create_lesion_segmentation(
    prediction: Prediction, headers: SeriesHeaders, mask: NDArray[np.uint8], tracking_uid: str
) -> Segmentation:
    """Create a DICOM Segmentation with one binary segment; source images without lesion get no frame.

    mask: 0 or 1, ``(image, row, column)``, one plane per source image.
    """
    segmentation = Segmentation(
        source_images=headers.datasets,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[_create_segment_description(prediction, tracking_uid)],
        content_label="LESION",
        content_description="Lesion segmentation, research use only",
        content_creator_name=DICOM_MANUFACTURER,
        **create_series_attributes(prediction, 9001, "gliomark lesion, research use only"),
    )
    segmentation.ImageComments = f"{RESEARCH_ONLY_NOTICE}. {describe_outline_origin(prediction)}."
    _identify_segment_in_frames(segmentation)
    if headers.frames is not None:
        _set_source_frame_numbers(segmentation, headers.frames)
    return segmentation


def describe_outline_origin(prediction: Prediction) -> str:
    """Describe who outlined the lesion."""
    is_by_reader = prediction.segmentation.is_drawn_by_reader
    return "Outlined or corrected by a reader" if is_by_reader else UNREVIEWED_COMMENT


def _create_segment_description(prediction: Prediction, tracking_uid: str) -> SegmentDescription:
    model = prediction.model
    algorithm = AlgorithmIdentificationSequence(
        name=model.name[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=f"gliomark {prediction.software_version}",
        parameters={"sha256": model.sha256, "rule": str(prediction.segmentation.rule)},
    )
    return SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=SEGMENT_CATEGORY,
        segmented_property_type=LESION,
        algorithm_type="SEMIAUTOMATIC" if prediction.segmentation.is_drawn_by_reader else "AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid,
        tracking_id=TRACKING_ID,
        anatomic_regions=[BRAIN],
        display_color=CIELabColor.from_rgb(*SEGMENTATION_COLOUR),
    )


def _identify_segment_in_frames(segmentation: Segmentation) -> None:
    """Repeat the segment identification in each frame.

    highdicom writes it once in the shared functional groups, but many programs read it per frame.
    """
    segment_identification = segmentation.SharedFunctionalGroupsSequence[0].pop(
        "SegmentIdentificationSequence"
    )
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        group.SegmentIdentificationSequence = deepcopy(segment_identification.value)


def _set_source_frame_numbers(segmentation: Segmentation, frames: tuple[int, ...]) -> None:
    """Replace the frame numbers, which count the frames that were read, by those in the source file."""
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = frames[int(source.ReferencedFrameNumber) - 1]
