"""Study to Prediction: the cascade of METHOD section 5. Every door (command line, server) calls this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import lightgbm
import numpy as np
from numpy.typing import NDArray

from gliomark.inference.fusion import FusionRule, deciding_slices, patient_probability
from gliomark.inference.segmenter import Segmenter, seen_sequences
from gliomark.inference.slice_classifier import SliceClassifier
from gliomark.models.marker_networks import build_marker_network, marker_network_settings
from gliomark.models.segmentation_networks import build_segmentation_network, network_settings
from gliomark.models.weights import MarkerCard, ModelCard, Weights, load_weights
from gliomark.preprocessing import PreparationSettings, prepare
from gliomark.preprocessing.coverage import no_lesion_message
from gliomark.study import (
    READERS_OUTLINE,
    Clinical,
    Contributions,
    MarkerPrediction,
    ModelIdentity,
    MRSequence,
    Prediction,
    Segmentation,
    SliceScore,
    SliceStack,
    Study,
)
from gliomark.tables import check_row

SHIPPED = {"demo": "demonstration.safetensors"}
UNDETERMINED = "undetermined"
EnhancingFocus = Literal["yes", "no"]


@dataclass(frozen=True, eq=False)
class Model:
    """A weights file brought to life: one segmenter, one slice classifier per marker."""

    card: ModelCard
    sha256: str
    segmenter: Segmenter
    classifiers: Mapping[str, SliceClassifier]

    @property
    def sequences(self) -> tuple[MRSequence, ...]:
        return tuple(MRSequence(name) for name in self.card.sequences)

    @property
    def identity(self) -> ModelIdentity:
        c = self.card
        return ModelIdentity(c.name, self.sha256, c.sequences, c.training_cohort, c.licence, c.intended_use)


def load_model(name_or_file: str | Path = "demo") -> Model:
    """A shipped model by name ("demo") or a weights file. Raises GliomarkError if it is damaged or altered."""
    if str(name_or_file) in SHIPPED:
        shipped = resources.files("gliomark") / "models" / "shipped" / SHIPPED[str(name_or_file)]
        with resources.as_file(shipped) as path:
            return build_model(load_weights(path))
    return build_model(load_weights(Path(name_or_file)))


def build_model(weights: Weights) -> Model:
    """The networks of a weights file, ready to predict."""
    card = weights.card
    sequences = tuple(MRSequence(name) for name in card.sequences)
    classifiers = {
        name: _classifier(weights, name, marker, sequences) for name, marker in card.markers.items()
    }
    return Model(card, weights.sha256, build_segmenter(weights), classifiers)


def build_segmenter(weights: Weights) -> Segmenter:
    """The outlining network of a weights file, ready to use as its card says."""
    card = weights.card
    network = build_segmentation_network(network_settings(card.segmentation["network"]))
    network.load_state_dict(weights.part("segmentation"))
    sequences = tuple(MRSequence(name) for name in card.sequences)
    return Segmenter(
        network.eval(),
        seen_sequences(sequences, card.rule),
        card.rule,
        card.segmentation["tile"],
        card.segmentation_threshold,
        card.smallest_lesion_ml,
        card.segmentation["pool"],
        card.segmentation["context"],
        card.segmentation["flips"],
        card.segmentation["smallest_share"],
    )


def _classifier(
    weights: Weights, name: str, marker: MarkerCard, sequences: tuple[MRSequence, ...]
) -> SliceClassifier:
    tensors = weights.part(name)
    text = bytes(tensors.pop("lightgbm").numpy()).decode()
    network = build_marker_network(marker_network_settings(marker.architecture["network"]))
    network.load_state_dict(tensors)
    trees = lightgbm.Booster(model_str=text)
    architecture = marker.architecture
    evidence = architecture.get("evidence", "vector")
    return SliceClassifier(
        network.eval(),
        trees,
        sequences,
        architecture["crop"],
        marker.age_cut,
        evidence,
        (marker.calibration[0], marker.calibration[1]),
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study as the model's networks see it, before anything is asked of them.

    stood_in: whether a missing sequence was replaced, as one of the warnings says. seconds: it took.
    """

    study: Study
    stack: SliceStack
    warnings: tuple[str, ...]
    stood_in: bool
    seconds: float


def predict(
    study: Study,
    clinical: Clinical,
    model: Model,
    *,
    fusion: FusionRule = "near",
    enhancing: EnhancingFocus | None = None,
) -> Prediction:
    """The whole cascade on one patient.

    fusion: how slices become the patient's answer. enhancing: the reader's finding of an enhancing
    focus, which decides IDH where it is given. Raises GliomarkError where a sequence is missing or no
    brain is found, the row is another patient's, or its age or sex is impossible. A patient without any
    lesion gets no marker answer.
    """
    check_row(clinical, study.patient_id)
    return predict_prepared(prepare_study(study, model), clinical, model, fusion=fusion, enhancing=enhancing)


def prepare_study(study: Study, model: Model, step: Callable[[str], None] = lambda _: None) -> Prepared:
    """What can be done before age, sex and finding are known; step: is told what is done next. Raises GliomarkError
    as ``predict``."""
    started = time.perf_counter()
    shown, warnings = with_stand_ins(study, model)
    stack = prepare(shown, model.sequences, PreparationSettings(**model.card.preparation), step)
    return Prepared(study, stack, (*warnings, *stack.warnings), bool(warnings), time.perf_counter() - started)


def predict_prepared(
    prepared: Prepared,
    clinical: Clinical,
    model: Model,
    *,
    fusion: FusionRule = "near",
    enhancing: EnhancingFocus | None = None,
    outline: NDArray[np.bool_] | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Prediction:
    """The rest of ``predict``. outline: a reader's, ``(slice, 240, 240)``, in place of the network's; step: is
    told what is done next."""
    check_row(clinical, prepared.study.patient_id)
    started = time.perf_counter()
    study, stack, warnings = prepared.study, prepared.stack, list(prepared.warnings)
    step("outline")
    segmentation = model.segmenter.segment(stack) if outline is None else _drawn(outline)
    areas = segmentation.mask.sum(axis=(1, 2)) * stack.pixel_area_mm2
    if not areas.any():
        warnings.append(no_lesion_message(stack.examined))
    if clinical.age is None or clinical.sex is None:
        warnings.append("Age or sex is unknown; the markers were predicted without it, which was not tested.")
    answers = []
    for name, classifier in model.classifiers.items():
        step(name)
        answer = _marker(name, model.card.markers[name], classifier, stack, segmentation, clinical, fusion)
        answers.append(_with_finding(_outside_training(answer) if prepared.stood_in else answer, enhancing))
    return Prediction(
        patient_id=study.patient_id,
        clinical=clinical,
        study=study,
        stack=stack,
        segmentation=segmentation,
        lesion_volume_ml=float(segmentation.mask.sum() * stack.voxel_volume_ml),
        lesion_areas_mm2={stack.slice_names[i]: float(areas[i]) for i in np.flatnonzero(areas)},
        markers=tuple(answers),
        warnings=tuple(warnings),
        model=model.identity,
        software_version=version("gliomark"),
        seconds=prepared.seconds + time.perf_counter() - started,
    )


def _drawn(outline: NDArray[np.bool_]) -> Segmentation:
    """A reader's outline, which is as sure as it says."""
    return Segmentation(outline.astype(np.float32), outline, READERS_OUTLINE)


def with_stand_ins(study: Study, model: Model) -> tuple[Study, list[str]]:
    """A missing sequence replaced where the model's card names a stand-in, with a warning for each."""
    series, warnings = dict(study.series), []
    for wanted, substitute in model.card.stand_ins.items():
        if wanted in model.card.sequences and wanted not in series and substitute in series:
            series[MRSequence(wanted)] = series[MRSequence(substitute)]
            warnings.append(
                f"{wanted} is missing and {substitute} was shown to the networks in its place, which they were not "
                "trained for: check the outline; the model gives no marker level."
            )
    return (replace(study, series=series) if warnings else study), warnings


def _marker(
    name: str,
    card: MarkerCard,
    classifier: SliceClassifier,
    stack: SliceStack,
    segmentation: Segmentation,
    clinical: Clinical,
    fusion: FusionRule,
) -> MarkerPrediction:
    slices, probabilities, parts = classifier.score(stack, segmentation.mask, clinical)
    answer = MarkerPrediction(
        marker=name,
        title=card.title,
        probability=None,
        level=UNDETERMINED,
        label=card.label,
        fusion=fusion,
        threshold=card.threshold,
        decided_by="model",
        performance=card.performance,
        warnings=tuple(text for text in (card.warning, card.why_no_level) if text),
    )
    if not slices.index:
        return answer
    decide = deciding_slices(slices.place, slices.area_mm2, fusion)
    probability = patient_probability(slices.place, slices.area_mm2, list(probabilities), fusion)
    scores = tuple(
        SliceScore(stack.slice_names[index], area, float(p), position in decide)
        for position, (index, area, p) in enumerate(
            zip(slices.index, slices.area_mm2, probabilities, strict=True)
        )
    )
    level = UNDETERMINED
    if card.names_level:
        level = card.positive if probability >= card.threshold else card.negative
    start, image, *codes = parts[list(decide)].mean(axis=0).tolist()
    age, sex = codes or (None, None)
    contributions = Contributions(start, image, age, sex)
    return replace(answer, probability=probability, level=level, slices=scores, contributions=contributions)


def _outside_training(answer: MarkerPrediction) -> MarkerPrediction:
    """A probability from images that the networks were not trained on decides nothing."""
    note = "The images are not of the kind the model was trained on: a probability is shown, but no level."
    return replace(answer, level=UNDETERMINED, warnings=(*answer.warnings, note))


def _with_finding(answer: MarkerPrediction, enhancing: EnhancingFocus | None) -> MarkerPrediction:
    """METHOD section 5: an enhancing focus means IDH wild type, none means mutant; the probability stays."""
    if enhancing is None or answer.marker != "idh":
        return answer
    return replace(
        answer, level="wild type" if enhancing == "yes" else "mutant", decided_by="reader's finding"
    )
