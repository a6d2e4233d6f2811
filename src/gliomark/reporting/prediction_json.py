"""The prediction as plain data: the content of prediction.json, from which all reports are made."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from gliomark.messages import collect_message_records
from gliomark.study import Contributions, Examination, MarkerPrediction, Prediction, SliceScore

SCHEMA_VERSION = 1


def create_prediction_document(prediction: Prediction) -> dict[str, Any]:
    """Return the content of prediction.json; ``prediction.schema.json`` describes every field."""
    study, stack, model = prediction.study, prediction.stack, prediction.model
    document = {
        "schema_version": SCHEMA_VERSION,
        "patient_id": prediction.patient_id,
        "age": to_json_number(prediction.clinical.age),
        "sex": prediction.clinical.sex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "markers": [_create_marker_record(marker) for marker in prediction.markers],
        "lesion": {
            "found": bool(prediction.lesion_areas_mm2),
            "volume_ml": to_json_number(prediction.lesion_volume_ml),
            "areas_mm2": {name: to_json_number(area) for name, area in prediction.lesion_areas_mm2.items()},
            "rule": prediction.segmentation.rule,
        },
        "sequences": {
            "found": [str(name) for name in study.series],
            "used": [str(name) for name in stack.images],
            "stand_ins": {
                str(missing_sequence): str(substitute)
                for missing_sequence, substitute in prediction.stand_ins.items()
            },
        },
        "input": {
            "kind": study.kind,
            "spacing_assumed": study.spacing_assumed,
            "examination": _create_examination_record(study.examination),
        },
        "warnings": list(prediction.warnings),
        "notes": list(prediction.all_notes),
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "sequences": list(model.sequences),
            "training_cohort": model.training_cohort,
            "licence": model.licence,
            "intended_use": model.intended_use,
            "signature": model.signature,
        },
        "software": {"name": "gliomark", "version": prediction.software_version},
        "seconds": to_json_number(prediction.seconds),
    }
    return document | {"messages": collect_message_records(document)}


def _create_examination_record(examination: Examination | None) -> dict[str, Any] | None:
    """Return date (YYYYMMDD, as in the files), number and count of the examination that was read."""
    if examination is None:
        return None
    return {"date": examination.date or None, "number": examination.number, "of": examination.count}


def _create_marker_record(marker: MarkerPrediction) -> dict[str, Any]:
    probability_range = marker.probability_range
    return {
        "marker": marker.marker,
        "title": marker.title,
        "probability": to_json_number(marker.probability),
        "probability_range": None
        if probability_range is None
        else [to_json_number(value) for value in probability_range],
        "level": marker.level,
        "borderline": marker.borderline,
        "positive": marker.positive,
        "label": marker.label,
        "threshold": to_json_number(marker.threshold),
        "threshold_origin": marker.threshold_origin,
        "decided_by": marker.decided_by,
        "fusion": marker.fusion,
        "fusion_in_words": marker.fusion_in_words,
        "slices_used": [score.slice_name for score in marker.slices if score.decides],
        "slices": [_create_slice_record(score) for score in marker.slices],
        "performance": marker.performance,
        "contributions": _create_contributions_record(marker.contributions),
        "warnings": list(marker.warnings),
    }


def _create_contributions_record(contributions: Contributions | None) -> dict[str, float | None] | None:
    return (
        None
        if contributions is None
        else {name: to_json_number(value) for name, value in vars(contributions).items()}
    )


def _create_slice_record(score: SliceScore) -> dict[str, Any]:
    return {
        "name": score.slice_name,
        "lesion_area_mm2": to_json_number(score.lesion_area_mm2),
        "probability": to_json_number(score.probability),
        "decides": bool(score.decides),
    }


def to_json_number(value: float | None) -> float | None:
    """Round to six decimals; non-finite values become None because JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
