"""A model on one page, written from its weights file: for readers (English, Chinese), and as a Hugging Face card.

The order follows the model facts of Sendak et al. 2020 (npj Digital Medicine 3:41): what the model does, how well, how
it is used, and what to beware of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gliomark.inference.levels import describe_calibration, describe_limits
from gliomark.inference.patient_calibration import compute_level_limits
from gliomark.known_range import load_known_range
from gliomark.messages import (
    Language,
    find_level_message,
    find_message_for_text,
    message,
    render_message,
)
from gliomark.model_loading import create_model_identity
from gliomark.models.card import MarkerCard, ModelCard, SecondSegmentationCard
from gliomark.models.network_names import get_display_name
from gliomark.models.weights import Weights
from gliomark.reporting.html_report import create_template_environment
from gliomark.reporting.report_texts import get_report_texts

OUTLINE_PERFORMANCE_CODES = (
    "outline-performance",
    "outline-performance-t2",
    "outline-performance-synthetic",
    "outline-performance-unknown",
)
HUGGING_FACE_TAGS = ("medical", "mri", "brain", "glioma", "neuro-oncology", "segmentation")


@dataclass(frozen=True)
class FactSection:
    """A section of the page: its title and its sentences, in one language."""

    title: str
    sentences: tuple[str, ...]


def collect_model_facts(weights: Weights, language: Language) -> tuple[FactSection, ...]:
    """Collect what there is to know about a model, in the order of the page.

    Parameters
    ----------
    weights
        The weights file.
    language
        Free texts of the weights file that are not in the catalogue of messages stay as they are.
    """
    card, identity = weights.card, create_model_identity(weights)
    cautions: list[str] = [message("model-synthetic")] if card.is_synthetic else []
    cautions += [one.warning for one in card.markers.values() if one.warning]
    sections: dict[str, list[str]] = {message("facts-section-outline"): list(_describe_outline(card))}
    for name, marker in card.markers.items():
        title = find_message_for_text(marker.title, f"title-{name}")
        sections[title] = list(_describe_marker(name, marker))
    sections |= {
        message("facts-section-data"): [identity.training_cohort],
        message("facts-section-use"): [identity.intended_use],
        message("facts-section-caution"): [
            *cautions,
            _describe_known_range(weights),
            message("facts-other-patients"),
            message("facts-local-check"),
        ],
        message("facts-section-file"): [
            identity.licence,
            f"SHA-256 {weights.sha256}",
            ", ".join(f"{name} {version}" for name, version in card.versions.items()),
        ],
    }
    return tuple(
        FactSection(
            render_message(title, language), tuple(render_message(one, language) for one in sentences if one)
        )
        for title, sentences in sections.items()
    )


def render_facts_as_html(weights: Weights, language: Language) -> str:
    """Return the model facts as one self-contained HTML page that prints on a sheet of A4."""
    template = create_template_environment({}).get_template("model_facts.html.j2")
    return template.render(
        language=language,
        title=render_message(message("facts-title"), language),
        research=get_report_texts(language).research,
        name=weights.card.name,
        sections=collect_model_facts(weights, language),
    )


def render_hugging_face_card(weights: Weights) -> str:
    """Return ``README.md`` of a model repository at Hugging Face: metadata in YAML, then the facts in English.

    Source: https://huggingface.co/docs/hub/model-cards (``model-index`` holds the measured results).
    """
    # every value is JSON, which is also YAML
    metadata = "\n".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in _build_metadata(weights).items()
    )
    body = "\n\n".join(
        f"## {section.title}\n\n" + "\n".join(f"- {one}" for one in section.sentences)
        for section in collect_model_facts(weights, "en")
    )
    usage = f"```sh\ngliomark predict PATIENT --model {weights.path.name} --clinical clinical.csv --out results\n```"
    research = get_report_texts("en").research
    return f"---\n{metadata}\n---\n\n# {weights.card.name}\n\n**{research}**\n\n{body}\n\n{usage}\n"


def _describe_outline(card: ModelCard) -> Iterator[str]:
    yield message(
        "facts-outline",
        sequences=" + ".join(card.sequences),
        network=get_display_name(card.segmentation.network),
        performance=_describe_performance(card),
    )
    for wanted, shown in card.stand_ins.items():
        yield message("facts-stand-in", wanted=wanted, shown=shown)
    if (second := card.second_segmentation) is not None:
        yield message(
            "facts-outline-second",
            missing=", ".join(name for name in card.sequences if name not in second.sequences),
            sequences=" + ".join(second.sequences),
            network=get_display_name(second.segmentation.network),
            performance=_describe_performance(second),
        )


def _describe_performance(card: ModelCard | SecondSegmentationCard) -> str:
    return find_message_for_text(card.segmentation_performance.rstrip("."), *OUTLINE_PERFORMANCE_CODES)


def _describe_marker(name: str, card: MarkerCard) -> Iterator[str]:
    words = {
        "positive": find_level_message(card.positive),
        "negative": find_level_message(card.negative),
    }
    yield message(
        "facts-marker" if card.age_cut is not None else "facts-marker-without-age",
        network=get_display_name(card.architecture.network),
        label=find_message_for_text(card.label, f"label-{name}"),
        **words,
    )
    yield card.validation_message
    if (calibration := card.patient_calibration) is not None and card.is_level_reported:
        yield describe_limits(compute_level_limits(calibration), words)
        yield describe_calibration(calibration, words["positive"])
    if card.validation is None:
        yield card.performance
    for one in card.recalibrations:
        yield one.description


def _describe_known_range(weights: Weights) -> str:
    known_range = load_known_range(weights)
    if known_range is None:
        return message("facts-no-known-range")
    return message("facts-known-range", count=known_range.patients)


def _build_metadata(weights: Weights) -> dict[str, Any]:
    card = weights.card
    results = [
        {
            "task": {"type": "image-classification", "name": f"{marker.title} from MRI"},
            "dataset": {"type": "private", "name": marker.validation.cohort},
            "metrics": [
                {
                    "type": "roc_auc",
                    "name": f"AUC (95 % interval {marker.validation.low:.2f} to {marker.validation.high:.2f})",
                    "value": marker.validation.auc,
                }
            ],
        }
        for marker in card.markers.values()
        if marker.validation is not None
    ]
    metadata: dict[str, Any] = {
        "license": "other",
        "license_name": card.licence,
        "library_name": "gliomark",
        "pipeline_tag": "image-segmentation",
        "tags": list(HUGGING_FACE_TAGS),
    }
    if results:
        metadata["model-index"] = [{"name": card.name, "results": results}]
    return metadata
