"""A weights file described for people and as JSON: its card, its hashes, who signed it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from gliomark.models.card import MarkerCard
from gliomark.models.weights import Weights

MAX_LISTED_PATIENTS = 5


def describe_as_json(weights: Weights) -> str:
    """The whole card under ``card``, beside what is not in it."""
    record: dict[str, Any] = {
        "file": str(weights.path),
        "file_sha256": weights.file_sha256,
        "sha256": weights.sha256,
        "signature": weights.signature,
        "card": asdict(weights.card),
    }
    return json.dumps(record, ensure_ascii=False, indent=1)


def describe_as_text(weights: Weights) -> str:
    """A line for each thing, its name first."""
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
    yield "sequences", " + ".join(card.sequences)
    for wanted, shown in card.stand_ins.items():
        yield "", f"{shown} may stand in for {wanted}, without a marker's level"
    yield (
        "outline",
        f"{_get_architecture_name(card.segmentation)}, {card.rule}: {card.segmentation_performance}",
    )
    yield (
        "",
        f"from a probability of {card.segmentation_threshold:g}, pieces of {card.smallest_lesion_ml:g} ml and more",
    )
    for name, marker in card.markers.items():
        yield from _describe_marker(name, marker)
    yield "trained on", card.training_cohort
    patients = ", ".join(card.training_patients[:MAX_LISTED_PATIENTS])
    more = len(card.training_patients) - MAX_LISTED_PATIENTS
    yield "", patients + (f" and {more} more" if more > 0 else "")
    yield "folds", card.folds_sha256
    yield "made with", ", ".join(f"{name} {version}" for name, version in card.versions.items())


def _describe_marker(name: str, marker: MarkerCard) -> Iterator[tuple[str, str]]:
    yield f"marker {name}", f"{marker.title}: {marker.positive} or {marker.negative}; {marker.label}"
    yield "", f"{_get_architecture_name(marker.architecture)}, from the column {marker.column}"
    yield "", f"{marker.positive} from a probability of {marker.threshold:.3g}"
    if marker.age_cut is not None:
        yield "", f"takes sex, and age as below or from {marker.age_cut:.1f} years"
    yield "", marker.validation_message
    for note in filter(None, (marker.performance, marker.warning)):
        yield "", note


def _get_architecture_name(record: Any) -> str:
    return str(record["network"].get("architecture", "KiNet or MIG-Net"))


def _describe_signature(state: str) -> str:
    if state == "unsigned":
        return "unsigned"
    return (
        "there is one; name its public key to check it"
        if state == "not checked"
        else f"right, by key {state}"
    )
