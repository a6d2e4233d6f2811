"""Describe a weights file as text or as JSON: its card, its hashes and its signature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gliomark.messages import message
from gliomark.models.card import (
    KNOWN_RANGE_PART,
    MarkerCard,
    ModelCard,
    SecondSegmentationCard,
    to_card_record,
)
from gliomark.models.network_names import get_display_name
from gliomark.models.weights import Weights

MAX_LISTED_PATIENTS = 5


def describe_as_json(weights: Weights) -> str:
    """Return a JSON text with the path, hashes and signature of the file, and the whole card under ``card``."""
    record: dict[str, Any] = {
        "file": str(weights.path),
        "file_sha256": weights.file_sha256,
        "sha256": weights.sha256,
        "signature": weights.signature,
        "card": to_card_record(weights.card),
    }
    return json.dumps(record, ensure_ascii=False, indent=1)


def describe_as_text(weights: Weights) -> str:
    """Return a text with one line per property, the name first."""
    return "\n".join(f"{name:<22}{value}" for name, value in _build_lines(weights))


def _build_lines(weights: Weights) -> Iterator[tuple[str, str]]:
    card = weights.card
    yield "name", card.name
    yield "file", str(weights.path)
    yield "SHA-256 of the file", weights.file_sha256
    yield "SHA-256 of content", weights.sha256
    yield "signature", _describe_signature(weights.signature)
    yield "intended use", card.intended_use
    yield "licence", card.licence
    if card.is_synthetic:
        yield "", message("model-synthetic")
    yield "sequences", " + ".join(card.sequences)
    for wanted, shown in card.stand_ins.items():
        yield "", f"{shown} may replace {wanted}; no marker is predicted then"
    yield from _describe_segmentation("segmentation", card)
    if (second := card.second_segmentation) is not None:
        yield from _describe_segmentation("second segmentation", second)
        missing = ", ".join(name for name in card.sequences if name not in second.sequences)
        yield "", f"of {' + '.join(second.sequences)}, if {missing} is missing; no marker is predicted then"
        yield "", f"trained on {second.training_cohort}"
    for name, marker in card.markers.items():
        yield from _describe_marker(name, marker)
    yield "known range", _describe_known_range(weights)
    yield "trained on", card.training_cohort
    patients = ", ".join(card.training_patients[:MAX_LISTED_PATIENTS])
    more = len(card.training_patients) - MAX_LISTED_PATIENTS
    yield "", patients + (f" and {more} more" if more > 0 else "")
    yield "folds", card.folds_sha256
    yield "made with", ", ".join(f"{name} {version}" for name, version in card.versions.items())


def _describe_segmentation(name: str, card: ModelCard | SecondSegmentationCard) -> Iterator[tuple[str, str]]:
    yield (
        name,
        f"{get_display_name(card.segmentation.network)}, {card.rule}: {card.segmentation_performance}",
    )
    yield (
        "",
        f"probability threshold {card.segmentation_threshold:g}; smallest component {card.smallest_lesion_ml:g} ml",
    )


def _describe_marker(name: str, marker: MarkerCard) -> Iterator[tuple[str, str]]:
    yield f"marker {name}", f"{marker.title}: {marker.positive} or {marker.negative}; {marker.label}"
    yield "", f"{get_display_name(marker.architecture.network)}, trained on the column {marker.column}"
    if (calibration := marker.patient_calibration) is None:
        yield "", f"{marker.positive} if the probability is {marker.threshold:.3g} or higher"
    else:
        yield (
            "",
            f"calibrated ({calibration.method}) on {calibration.patients} patients of {calibration.cohort}, "
            f"{calibration.positives} of them {marker.positive}; says when it cannot tell",
        )
    if marker.age_cut is not None:
        yield "", f"uses sex, and age as below or at least {marker.age_cut:.1f} years"
    yield "", marker.validation_message
    for note in filter(None, (marker.performance, marker.warning)):
        yield "", note
    for one in marker.recalibrations:
        yield "", one.description


def _describe_known_range(weights: Weights) -> str:
    if weights.get_tensors(KNOWN_RANGE_PART):
        return "stored; images unlike those of the training patients get no marker"
    return "not stored; images unlike those of the training patients are not noticed"


def _describe_signature(state: str) -> str:
    if state == "unsigned":
        return "unsigned"
    return (
        "present but not checked; give its public key to check it"
        if state == "not checked"
        else f"valid, signed with key {state}"
    )
