"""The prediction as plain data: what prediction.json holds and every form of the report says."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from gliomark.messages import collect
from gliomark.study import Contributions, Examination, MarkerPrediction, Prediction, SliceScore

SCHEMA_VERSION = 1


def prediction_document(prediction: Prediction) -> dict[str, Any]:
    """What prediction.json holds; every field is described in ``prediction.schema.json``."""
    study, stack, model = prediction.study, prediction.stack, prediction.model
    document = {
        "schema_version": SCHEMA_VERSION,
        "patient_id": prediction.patient_id,
        "age": number(prediction.clinical.age),
        "sex": prediction.clinical.sex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "markers": [_marker(marker) for marker in prediction.markers],
        "lesion": {
            "found": bool(prediction.lesion_areas_mm2),
            "volume_ml": number(prediction.lesion_volume_ml),
            "areas_mm2": {name: number(area) for name, area in prediction.lesion_areas_mm2.items()},
            "rule": prediction.segmentation.rule,
        },
        "sequences": {
            "found": [str(name) for name in study.series],
            "used": [str(name) for name in stack.images],
            "stand_ins": {str(wanted): str(shown) for wanted, shown in prediction.stand_ins.items()},
        },
        "input": {
            "kind": study.kind,
            "spacing_assumed": study.spacing_assumed,
            "examination": _examination(study.examination),
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
        "seconds": number(prediction.seconds),
    }
    return document | {"messages": collect(document)}


def _examination(examination: Examination | None) -> dict[str, Any] | None:
    """Which of the patient's examinations was read; the date as the files have it, YYYYMMDD."""
    if examination is None:
        return None
    return {"date": examination.date or None, "number": examination.number, "of": examination.count}


def _marker(marker: MarkerPrediction) -> dict[str, Any]:
    extremes = marker.slice_range
    return {
        "marker": marker.marker,
        "title": marker.title,
        "probability": number(marker.probability),
        "probability_range": None if extremes is None else [number(value) for value in extremes],
        "level": marker.level,
        "borderline": marker.borderline,
        "positive": marker.positive,
        "label": marker.label,
        "threshold": number(marker.threshold),
        "threshold_origin": marker.threshold_origin,
        "decided_by": marker.decided_by,
        "fusion": marker.fusion,
        "fusion_in_words": marker.fusion_in_words,
        "slices_used": [score.slice_name for score in marker.slices if score.decides],
        "slices": [_slice(score) for score in marker.slices],
        "performance": marker.performance,
        "contributions": _contributions(marker.contributions),
        "warnings": list(marker.warnings),
    }


def _contributions(parts: Contributions | None) -> dict[str, float | None] | None:
    return None if parts is None else {name: number(value) for name, value in vars(parts).items()}


def _slice(score: SliceScore) -> dict[str, Any]:
    return {
        "name": score.slice_name,
        "lesion_area_mm2": number(score.lesion_area_mm2),
        "probability": number(score.probability),
        "decides": bool(score.decides),
    }


def number(value: float | None) -> float | None:
    """A plain float of six decimals; JSON knows no NaN, so what is not finite becomes null."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
