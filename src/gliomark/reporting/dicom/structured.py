"""The answer as a structured report after TID 1500, the lesion being one group of measurements (TID 1411 or 1501)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
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
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from gliomark.messages import render
from gliomark.reporting.dicom.codes import (
    ABSENT,
    AREA,
    BRAIN,
    LANGUAGES,
    LESION,
    MAXIMUM,
    MILLILITRE,
    MINIMUM,
    MRI_OF_BRAIN,
    NO_UNITS,
    PRESENT,
    SCHEMES,
    SQUARE_MILLIMETRE,
    UNDETERMINED,
    VOLUME,
    private,
)
from gliomark.reporting.dicom.segmentation import TRACKING_ID
from gliomark.reporting.dicom.sources import Headers, new_series
from gliomark.reporting.text import Language, strings
from gliomark.study import PRODUCT, MarkerPrediction, Prediction

COMMENT = codes.DCM.Comment


def structured_report(
    prediction: Prediction,
    headers: Headers,
    others: Sequence[Dataset],
    segmentation: Segmentation | None,
    tracking_uid: str,
    language: Language,
) -> Comprehensive3DSR:
    """headers: of the reference series; others: of the further series looked at; segmentation: None if no lesion."""
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_device(prediction)),
        procedure_reported=MRI_OF_BRAIN,
        imaging_measurements=[_group(prediction, headers, segmentation, tracking_uid, language)],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(LANGUAGES[language]),
    )
    return Comprehensive3DSR(
        evidence=[*headers.datasets, *([] if segmentation is None else [segmentation]), *others],
        content=report[0],
        is_complete=True,
        coding_schemes=SCHEMES,
        **new_series(prediction, 9002, "gliomark measurements, research use only"),
    )


def _device(prediction: Prediction) -> ObserverContext:
    """The observer: the model, known by the hash of its weights."""
    model = prediction.model
    attributes = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[model.sha256]),
        name=model.name,
        manufacturer_name=PRODUCT,
        model_name=f"gliomark {prediction.software_version}",
        serial_number=model.sha256,
    )
    return ObserverContext(codes.DCM.Device, attributes)


def _group(
    prediction: Prediction,
    headers: Headers,
    segmentation: Segmentation | None,
    tracking_uid: str,
    language: Language,
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    """The lesion with all that is said of it; without a segment the images looked at take the lesion's place."""
    said: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(tracking_uid, TRACKING_ID),
        "finding_type": LESION,
        "finding_sites": [FindingSite(BRAIN)],
        "algorithm_id": AlgorithmIdentification(
            prediction.model.name,
            f"gliomark {prediction.software_version}",
            parameters=[f"sha256={prediction.model.sha256}"],
            family=codes.DCM.ArtificialIntelligence,
        ),
        "measurements": [*_sizes(prediction), *_probabilities(prediction)],
        "qualitative_evaluations": [
            QualitativeEvaluation(
                private("lesion", _finder(prediction)), PRESENT if _found(prediction) else ABSENT
            ),
            *(_evaluation(marker, language) for marker in prediction.markers),
        ],
    }
    group: MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
    if segmentation is None:
        frames = None if headers.frames is None else list(headers.frames)
        images = [
            SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID, frames)
            for one in headers.datasets
        ]
        group = MeasurementsAndQualitativeEvaluations(source_images=images, **said)
    else:
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_segment(segmentation), **said
        )
    group[0].ContentSequence.extend(
        _text(COMMENT, text, "CONTAINS") for text in _comments(prediction, language)
    )
    return group


def _segment(segmentation: Segmentation) -> ReferencedSegment:
    """The segment, and the images and frames on which it lies."""
    frames: dict[tuple[str, str], list[int]] = {}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        numbers = frames.setdefault((source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID), [])
        if "ReferencedFrameNumber" in source:
            numbers.append(int(source.ReferencedFrameNumber))
    images = [SourceImageForSegmentation(*image, numbers or None) for image, numbers in frames.items()]
    return ReferencedSegment(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1, source_images=images)


# ---- the lesion -------------------------------------------------------------------------------------


def _found(prediction: Prediction) -> bool:
    return bool(prediction.lesion_areas_mm2)


def _finder(prediction: Prediction) -> str:
    return f"Lesion {'outlined by the reader' if prediction.segmentation.by_reader else 'found by the model'}"


def _sizes(prediction: Prediction) -> list[Measurement]:
    """Volume in ml, and the area of the slice with the largest in mm2."""
    largest = max(prediction.lesion_areas_mm2.values(), default=0.0)
    return [
        Measurement(VOLUME, round(prediction.lesion_volume_ml, 3), MILLILITRE),
        Measurement(AREA, round(largest, 1), SQUARE_MILLIMETRE, derivation=MAXIMUM),
    ]


def _comments(prediction: Prediction, language: Language) -> list[str]:
    """What holds for the whole report, the most important first."""
    t, model = strings(language, prediction.segmentation.by_reader), prediction.model
    return [
        f"{t.research} {t.research_more}",
        *(render(text, language) for text in prediction.warnings),
        *([] if _found(prediction) else [f"{t.no_lesion}. {t.no_lesion_more}"]),
        *([t.assumed] if prediction.study.spacing_assumed else []),
        f"{t.intended_use}: {render(model.intended_use, language)}",
        f"{t.trained_on}: {render(model.training_cohort, language)}",
        *(render(text, language) for text in prediction.all_notes),
    ]


# ---- the markers ------------------------------------------------------------------------------------


def _probabilities(prediction: Prediction) -> list[Measurement]:
    """Of the positive class, by the model alone, whoever decided the level."""
    measurements = []
    for marker in prediction.markers:
        if marker.probability is not None and math.isfinite(marker.probability):
            name = private(f"p-{marker.marker}", f"Probability by the model, {marker.title}")
            measurements += [Measurement(name, round(marker.probability, 4), NO_UNITS), *_range(marker)]
    return measurements


def _range(marker: MarkerPrediction) -> list[Measurement]:
    """Lowest and highest of the single slices, by a code of their own, lest one be taken for the answer."""
    name = private(f"r-{marker.marker}", f"Probability range over the lesion's slices, {marker.title}")
    return [
        Measurement(name, round(value, 4), NO_UNITS, derivation=derivation)
        for derivation, value in zip((MINIMUM, MAXIMUM), marker.slice_range or (), strict=False)
    ]


def _evaluation(marker: MarkerPrediction, language: Language) -> QualitativeEvaluation:
    """The predicted level, with all that must be known to read it."""
    name = private(marker.marker, f"Predicted, not measured: {marker.title}")
    evaluation = QualitativeEvaluation(name, _level(marker))
    evaluation[0].ContentSequence = [
        CodeContentItem(private("decided-by", "Level decided by"), _decided_by(marker), "HAS PROPERTIES"),
        *_threshold(marker),
        *(
            _text(concept, text, "HAS PROPERTIES")
            for concept, text in _explanations(marker, language)
            if text
        ),
    ]
    return evaluation


def _threshold(marker: MarkerPrediction) -> list[NumContentItem]:
    """Only where there is a probability to hold against it."""
    if marker.threshold is None:
        return []
    name, value = private("threshold", "Threshold"), round(marker.threshold, 4)
    return [NumContentItem(name, value, NO_UNITS, None, "HAS PROPERTIES")]


def _level(marker: MarkerPrediction) -> CodedConcept:
    if marker.level == "undetermined":
        return CodedConcept.from_code(UNDETERMINED)
    return private(marker.level, f"Predicted {marker.level}{', borderline' if marker.borderline else ''}")


def _decided_by(marker: MarkerPrediction) -> CodedConcept:
    if marker.decided_by == "model":
        return private("model", "Model")
    return private("reader", "Reader's finding")


def _explanations(marker: MarkerPrediction, language: Language) -> list[tuple[CodedConcept, str]]:
    by_model = marker.decided_by == "model"
    measured = "Validation of the model" if by_model else "How reliable the reader's finding is"
    told = [
        (private("label", "Definition of the label"), marker.label),
        (private("fusion", "How the probability was computed"), marker.fusion_in_words),
        (private("threshold-origin", "Where the threshold comes from"), marker.threshold_origin),
        (private("performance", measured), marker.performance),
        *((CodedConcept.from_code(COMMENT), text) for text in marker.warnings),
    ]
    return [(concept, render(text, language)) for concept, text in told]


def _text(name: CodedConcept, value: str, relationship: str) -> TextContentItem:
    return TextContentItem(name, value, relationship)
