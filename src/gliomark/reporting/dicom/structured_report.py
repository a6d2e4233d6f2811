"""The prediction as a DICOM structured report (TID 1500).

The lesion is one measurement group (TID 1411, or TID 1501 without a segment). Its two largest diameters are another
(TID 1501): their lines, image coordinates on a source image, are what a viewer can show. The tree is that of the IHE
profile AI Results. OHIF's viewer reads it only if there is an image library and every number has a child; where a
number has coordinates, they must be its only child.

A report without these lines has another title of CID 7021, and its conclusion stands in front of the measurements:
OHIF opens an Imaging Measurement Report only as coordinates on images, of which there are none, and fails; a report of
any other title it shows as text from top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    CoordinatesForMeasurement,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from gliomark.messages import render_message
from gliomark.prediction import MarkerPrediction, Prediction
from gliomark.reporting.dicom.codes import (
    ABSENT,
    AREA,
    BRAIN,
    CODING_SCHEMES,
    LANGUAGE_CODES,
    LESION,
    LONG_AXIS,
    LONGEST_3D,
    MAXIMUM,
    MILLILITRE,
    MILLIMETRE,
    MINIMUM,
    MRI_OF_BRAIN,
    NO_UNITS,
    PRESENT,
    SHORT_AXIS,
    SQUARE_MILLIMETRE,
    SUM_OF_VOXELS,
    UNDETERMINED,
    VOLUME,
    create_private_code,
)
from gliomark.reporting.dicom.diameter_lines import DiameterLine, DiameterLines
from gliomark.reporting.dicom.lesion_segmentation import TRACKING_ID
from gliomark.reporting.dicom.source_headers import SeriesHeaders, create_series_attributes
from gliomark.reporting.report_texts import Language, get_report_texts
from gliomark.study import CANNOT_TELL, DICOM_MANUFACTURER, MRSequence

COMMENT = codes.DCM.Comment
_MODEL = create_private_code("model", "Model")


def create_structured_report(
    prediction: Prediction,
    headers_by_sequence: Mapping[MRSequence, SeriesHeaders],
    segmentation: Segmentation | None,
    lines: DiameterLines | None,
    tracking_uid: str,
    language: Language,
) -> Comprehensive3DSR:
    """Create the structured report.

    headers_by_sequence: of all series used, the reference series first. segmentation, lines: None without a lesion.
    tracking_uid: UID of the lesion, the same as in the segmentation.
    """
    headers, *other_headers = headers_by_sequence.values()
    other_datasets = [one for other in other_headers for one in other.datasets]
    groups = [_create_measurement_group(prediction, headers, segmentation, tracking_uid, language)]
    if lines is not None:
        groups.append(
            _create_diameter_group(prediction, headers_by_sequence[lines.sequence], lines, tracking_uid)
        )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_create_device_observer(prediction)),
        procedure_reported=MRI_OF_BRAIN,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport if lines else codes.DCM.OncologyMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            LANGUAGE_CODES[language]
        ),
    )
    listed = list(headers.datasets)
    if lines is not None and headers_by_sequence[lines.sequence] is not headers:
        listed.append(_select_image(headers_by_sequence[lines.sequence], lines)[0])
    report[0].ContentSequence.insert(-1, _create_image_library(listed))
    if lines is None:
        _insert_conclusions(report[0].ContentSequence, prediction, language)
    return Comprehensive3DSR(
        evidence=[*headers.datasets, *([] if segmentation is None else [segmentation]), *other_datasets],
        content=report[0],
        is_complete=True,
        coding_schemes=CODING_SCHEMES,
        **create_series_attributes(prediction, 9002, "gliomark measurements, research use only"),
    )


def _create_device_observer(prediction: Prediction) -> ObserverContext:
    """Create the observer: the model, identified by the hash of its weights."""
    model = prediction.model
    attributes = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[model.sha256]),
        name=model.name,
        manufacturer_name=DICOM_MANUFACTURER,
        model_name=f"gliomark {prediction.software_version}",
        serial_number=model.sha256,
    )
    return ObserverContext(codes.DCM.Device, attributes)


def _create_measurement_group(
    prediction: Prediction,
    headers: SeriesHeaders,
    segmentation: Segmentation | None,
    tracking_uid: str,
    language: Language,
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Create the measurement group of the lesion; without a segment it refers to the source images."""
    group_arguments: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(tracking_uid, TRACKING_ID),
        "finding_type": LESION,
        "finding_sites": [FindingSite(BRAIN)],
        "algorithm_id": _create_algorithm_identification(prediction),
        "measurements": [
            *_create_size_measurements(prediction),
            *_create_probability_measurements(prediction),
        ],
        "qualitative_evaluations": [
            _create_lesion_evaluation(prediction, language),
            *(_create_marker_evaluation(marker, language) for marker in prediction.markers),
        ],
    }
    group: MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
    if segmentation is None:
        frames = None if headers.frames is None else list(headers.frames)
        images = [
            SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID, frames)
            for one in headers.datasets
        ]
        group = MeasurementsAndQualitativeEvaluations(source_images=images, **group_arguments)
    else:
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_create_segment_reference(segmentation), **group_arguments
        )
    return group


def _create_lesion_evaluation(prediction: Prediction, language: Language) -> QualitativeEvaluation:
    """Create the finding that there is a lesion, or none, with the comments on the whole result.

    They are not items of the group, because OHIF writes those across the image.
    """
    evaluation = QualitativeEvaluation(
        create_private_code("lesion", _describe_lesion_origin(prediction)),
        PRESENT if _has_lesion(prediction) else ABSENT,
    )
    evaluation[0].ContentSequence = [
        _create_text_item(COMMENT, text, "HAS PROPERTIES") for text in _list_comments(prediction, language)
    ]
    return evaluation


def _create_diameter_group(
    prediction: Prediction, headers: SeriesHeaders, lines: DiameterLines, tracking_uid: str
) -> MeasurementsAndQualitativeEvaluations:
    """Create the measurement group of the two diameters, with their lines on an image of the series.

    It tracks the same lesion as the first group. OHIF joins groups by their tracking UID, and fails to open a report
    that has a group without coordinates.
    """
    method = (
        create_private_code("axial-diameters", "Largest perpendicular diameters on an axial slice")
        if lines.is_axial
        else create_private_code("image-diameters", "Largest perpendicular diameters on an acquired image")
    )
    image, frames = _select_image(headers, lines)
    source = (image.SOPClassUID, image.SOPInstanceUID, frames)
    return MeasurementsAndQualitativeEvaluations(
        source_images=[SourceImageForMeasurementGroup(*source)],
        tracking_identifier=TrackingIdentifier(tracking_uid, TRACKING_ID),
        finding_type=LESION,
        finding_sites=[FindingSite(BRAIN)],
        method=method,
        algorithm_id=_create_algorithm_identification(prediction),
        measurements=[
            _create_line_measurement(LONG_AXIS, lines.longest, SourceImageForRegion(*source)),
            _create_line_measurement(SHORT_AXIS, lines.perpendicular, SourceImageForRegion(*source)),
        ],
    )


def _select_image(headers: SeriesHeaders, lines: DiameterLines) -> tuple[Dataset, list[int] | None]:
    """Select the image of the lines, and its frame in a multi-frame file."""
    if headers.frames is None:
        return headers.datasets[lines.image_index], None
    return headers.first, [headers.frames[lines.image_index]]


def _create_image_library(images: Sequence[Dataset]) -> ContainerContentItem:
    """Create the image library (TID 1600) in one group.

    Not with highdicom's ``ImageLibrary``, which repeats the geometry of every image and takes no multi-frame images.
    """
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type="CONTAINS")
    group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type="CONTAINS")
    group.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                codes.SCT.Source, one.SOPClassUID, one.SOPInstanceUID, relationship_type="CONTAINS"
            )
            for one in images
        ]
    )
    library.ContentSequence = ContentSequence([group])
    return library


def _create_line_measurement(name: Code, line: DiameterLine, source: SourceImageForRegion) -> Measurement:
    coordinates = CoordinatesForMeasurement(GraphicTypeValues.POLYLINE, line.points, source)
    return Measurement(name, round(line.mm, 2), MILLIMETRE, referenced_coordinates=[coordinates])


def _create_algorithm_identification(prediction: Prediction) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        prediction.model.name,
        f"gliomark {prediction.software_version}",
        parameters=[f"sha256={prediction.model.sha256}"],
        family=codes.DCM.ArtificialIntelligence,
    )


def _create_segment_reference(segmentation: Segmentation) -> ReferencedSegment:
    """Create the reference to the segment and to the images and frames that it covers."""
    frames: dict[tuple[str, str], list[int]] = {}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        numbers = frames.setdefault((source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID), [])
        if "ReferencedFrameNumber" in source:
            numbers.append(int(source.ReferencedFrameNumber))
    images = [SourceImageForSegmentation(*image, numbers or None) for image, numbers in frames.items()]
    return ReferencedSegment(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1, source_images=images)


def _insert_conclusions(contents: ContentSequence, prediction: Prediction, language: Language) -> None:
    """Insert a container of the sentences that a reader must see before the images and measurements."""
    texts = get_report_texts(language, prediction.segmentation.is_drawn_by_reader)
    sentences = [
        *([] if _has_lesion(prediction) else [f"{texts.no_lesion}. {texts.no_lesion_more}"]),
        *(render_message(text, language) for text in prediction.warnings),
        f"{texts.research} {texts.research_more}",
    ]
    conclusions = ContainerContentItem(codes.DCM.Conclusions, relationship_type="CONTAINS")
    conclusions.ContentSequence = ContentSequence(
        [_create_text_item(codes.DCM.Conclusion, text, "CONTAINS") for text in sentences]
    )
    first = next(at for at, item in enumerate(contents) if item.RelationshipType == "CONTAINS")
    contents.insert(first, conclusions)


# ---- the lesion -------------------------------------------------------------------------------------


def _has_lesion(prediction: Prediction) -> bool:
    return bool(prediction.lesion_areas_mm2)


def _describe_lesion_origin(prediction: Prediction) -> str:
    return f"Lesion {'outlined by the reader' if prediction.segmentation.is_drawn_by_reader else 'found by the model'}"


def _create_size_measurements(prediction: Prediction) -> list[Measurement]:
    """Create the volume in ml, the largest area on one slice in mm2, and the longest diameter in space in mm."""
    largest = max(prediction.lesion_areas_mm2.values(), default=0.0)
    axes = prediction.lesion_axes
    return [
        Measurement(VOLUME, round(prediction.lesion_volume_ml, 3), MILLILITRE, method=SUM_OF_VOXELS),
        Measurement(AREA, round(largest, 1), SQUARE_MILLIMETRE, derivation=MAXIMUM),
        *(
            []
            if axes is None
            else [Measurement(LONGEST_3D, round(axes.longest_3d.mm, 2), MILLIMETRE, derivation=MAXIMUM)]
        ),
    ]


def _list_comments(prediction: Prediction, language: Language) -> list[str]:
    """Return the comments on the whole report, the most important first."""
    texts, model = get_report_texts(language, prediction.segmentation.is_drawn_by_reader), prediction.model
    return [
        f"{texts.research} {texts.research_more}",
        *(render_message(text, language) for text in prediction.warnings),
        *([] if _has_lesion(prediction) else [f"{texts.no_lesion}. {texts.no_lesion_more}"]),
        *([texts.assumed] if prediction.study.spacing_assumed else []),
        f"{texts.intended_use}: {render_message(model.intended_use, language)}",
        f"{texts.trained_on}: {render_message(model.training_cohort, language)}",
        *(render_message(text, language) for text in prediction.all_notes),
    ]


# ---- the markers ------------------------------------------------------------------------------------


def _round_share(value: float) -> float:
    """Round a share (0 to 1) to four significant digits, so that a small limit does not become 0."""
    return float(f"{value:.4g}")


def _create_probability_measurements(prediction: Prediction) -> list[Measurement]:
    """Create the model's probabilities of the positive class, also if the reader's finding decided the level."""
    measurements = []
    for marker in prediction.markers:
        if marker.probability is not None and math.isfinite(marker.probability):
            name = create_private_code(f"p-{marker.marker}", f"Probability by the model, {marker.title}")
            measurements += [
                Measurement(name, _round_share(marker.probability), NO_UNITS, method=_MODEL),
                *_create_raw_measurement(marker),
                *_create_range_measurements(marker),
            ]
    return measurements


def _create_raw_measurement(marker: MarkerPrediction) -> list[Measurement]:
    """Create the probability before calibration; empty if there is no calibration."""
    if marker.calibration is None or marker.raw_probability is None:
        return []
    name = create_private_code(f"u-{marker.marker}", f"Probability before calibration, {marker.title}")
    return [Measurement(name, round(marker.raw_probability, 4), NO_UNITS, method=_MODEL)]


def _create_range_measurements(marker: MarkerPrediction) -> list[Measurement]:
    """Create the lowest and highest probability of single slices.

    They have their own code so that neither is mistaken for the patient's probability.
    """
    scale = "" if marker.calibration is None else " before calibration"
    name = create_private_code(
        f"r-{marker.marker}", f"Probability range across lesion slices{scale}, {marker.title}"
    )
    return [
        Measurement(name, round(value, 4), NO_UNITS, derivation=derivation)
        for derivation, value in zip((MINIMUM, MAXIMUM), marker.probability_range or (), strict=False)
    ]


def _create_marker_evaluation(marker: MarkerPrediction, language: Language) -> QualitativeEvaluation:
    """Create the predicted level with the properties needed to interpret it."""
    name = create_private_code(marker.marker, f"Predicted, not measured: {marker.title}")
    evaluation = QualitativeEvaluation(name, _create_level_code(marker))
    evaluation[0].ContentSequence = [
        CodeContentItem(
            create_private_code("decided-by", "Level decided by"),
            _create_decided_by_code(marker),
            "HAS PROPERTIES",
        ),
        *_create_limit_items(marker),
        *(
            _create_text_item(concept, text, "HAS PROPERTIES")
            for concept, text in _list_explanations(marker, language)
            if text
        ),
    ]
    return evaluation


def _create_limit_items(marker: MarkerPrediction) -> list[NumContentItem]:
    """Create the threshold, or the limits with coverage and prevalence; empty without a probability."""
    named_values: list[tuple[str, str, float | None]] = [("threshold", "Threshold", marker.threshold)]
    if marker.limits is not None and marker.calibration is not None:
        named_values += [
            ("negative-below", "Negative level stated below", marker.limits.negative_below),
            ("positive-above", "Positive level stated above", marker.limits.positive_above),
            ("coverage", "Coverage of the possible levels", marker.limits.coverage),
            ("prevalence", "Share of positive patients assumed", marker.calibration.prevalence),
        ]
    return [
        NumContentItem(create_private_code(code, name), _round_share(value), NO_UNITS, None, "HAS PROPERTIES")
        for code, name, value in named_values
        if value is not None
    ]


def _create_level_code(marker: MarkerPrediction) -> CodedConcept:
    if marker.level == "undetermined":
        return CodedConcept.from_code(UNDETERMINED)
    if marker.level == CANNOT_TELL:
        return create_private_code("cannot-tell", f"Cannot tell: {' or '.join(marker.possible_levels)}")
    return create_private_code(
        marker.level, f"Predicted {marker.level}{', borderline' if marker.borderline else ''}"
    )


def _create_decided_by_code(marker: MarkerPrediction) -> CodedConcept:
    if marker.decided_by == "model":
        return _MODEL
    return create_private_code("reader", "Reader's finding")


def _list_explanations(marker: MarkerPrediction, language: Language) -> list[tuple[CodedConcept, str]]:
    is_decided_by_model = marker.decided_by == "model"
    performance_name = (
        "Validation of the model" if is_decided_by_model else "Accuracy of the reader's finding"
    )
    named_texts = [
        (create_private_code("label", "Definition of the label"), marker.label),
        (create_private_code("fusion", "How the probability was computed"), marker.fusion_in_words),
        (create_private_code("threshold-origin", "Origin of the threshold"), marker.threshold_origin),
        (create_private_code("limits", "When a level is stated"), marker.limits_in_words),
        (create_private_code("calibration", "Calibration"), marker.calibration_in_words),
        (create_private_code("performance", performance_name), marker.performance),
        *((CodedConcept.from_code(COMMENT), text) for text in marker.warnings),
    ]
    return [(concept, render_message(text, language)) for concept, text in named_texts]


def _create_text_item(name: Code | CodedConcept, value: str, relationship: str) -> TextContentItem:
    return TextContentItem(name, value, relationship)
