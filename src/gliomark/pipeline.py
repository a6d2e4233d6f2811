"""Study to Prediction: the cascade of METHOD section 5. Every door (command line, server) calls this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.found_outline import FoundOutline, find_outline
from gliomark.inference.fusion import (
    FusionRule,
    check_fusion,
    deciding_slices,
    fusion_in_words,
    patient_probability,
)
from gliomark.inference.segmenter import Segmenter, seen_sequences
from gliomark.inference.slice_classifier import SliceClassifier
from gliomark.isolation import Reads, read_here
from gliomark.messages import Message, known, level_word, message, percent
from gliomark.models.building import marker_network, outlining_network
from gliomark.models.card import SEGMENTATION
from gliomark.models.shelf import SHIPPED, weights_file
from gliomark.models.signatures import UNSIGNED, Trust
from gliomark.models.weights import MarkerCard, MarkerValidation, ModelCard, Weights, load_weights
from gliomark.preprocessing import PreparationSettings, prepare
from gliomark.preprocessing.coverage import no_lesion_message
from gliomark.study import (
    READER_FINDING,
    READERS_OUTLINE,
    UNFORESEEN,
    Clinical,
    Contributions,
    GliomarkError,
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

__all__ = ["SHIPPED", "Model", "Prepared", "build_model", "load_model", "predict"]

UNDETERMINED = "undetermined"
VALIDATED_FUSION: FusionRule = "near"  # of every threshold and every figure of validation in a weights file
BORDERLINE = 0.05  # a probability this close to the threshold, or closer, names a level only as borderline
MODEL, READER = "model", "reader's finding"


@dataclass(frozen=True, eq=False)
class Model:
    """A weights file brought to life: one segmenter, one slice classifier per marker."""

    card: ModelCard
    sha256: str
    segmenter: Segmenter
    classifiers: Mapping[str, SliceClassifier]
    signature: str = UNSIGNED

    @property
    def sequences(self) -> tuple[MRSequence, ...]:
        return tuple(MRSequence(name) for name in self.card.sequences)

    @property
    def identity(self) -> ModelIdentity:
        c = self.card
        cohort = c.training_cohort
        if c.markers:
            fewest = min(m.validation.patients if m.validation else 0 for m in c.markers.values())
            cohort = known(cohort, "training-cohort", patients=len(c.training_patients), fewest=fewest)
        licence = known(c.licence, "licence", "licence-not-stated")
        use = known(c.intended_use, "intended-use", "intended-use-research")
        return ModelIdentity(c.name, self.sha256, c.sequences, cohort, licence, use, self.signature)


def load_model(name_or_file: str | Path = "demo", trust: Trust = Trust()) -> Model:
    """A shipped model by name ("demo") or a weights file; trust: whose.

    Raises GliomarkError, in one sentence, for a file that is damaged, altered, not to be trusted, or no model.
    """
    return build_model(open_weights(name_or_file, trust))


def open_weights(name_or_file: str | Path, trust: Trust = Trust()) -> Weights:
    """A shipped model's or a file's weights, before they are networks. Raises GliomarkError as ``load_model``."""
    with weights_file(name_or_file) as path:
        return load_weights(path, trust)


def build_model(weights: Weights) -> Model:
    """The networks of a weights file, ready to predict. Raises GliomarkError where they are none, or answer nothing."""
    card = weights.card
    sequences = tuple(MRSequence(name) for name in card.sequences)
    classifiers = {
        name: _classifier(weights, name, marker, sequences) for name, marker in card.markers.items()
    }
    model = Model(card, weights.sha256, build_segmenter(weights), classifiers, weights.signature)
    stack, lesion = _trial(sequences)
    for name, classifier in classifiers.items():
        _try_out(partial(classifier.score, stack, lesion, Clinical("", None, None)), weights, name)
    return model


def build_segmenter(weights: Weights) -> Segmenter:
    """The outlining network of a weights file, ready to use as its card says. Raises as ``build_model``."""
    card = weights.card
    network, use = outlining_network(weights)
    sequences = tuple(MRSequence(name) for name in card.sequences)
    segmenter = Segmenter(
        network,
        seen_sequences(sequences, card.rule),
        card.rule,
        use.tile,
        card.segmentation_threshold,
        card.smallest_lesion_ml,
        use.pool,
        use.context,
        use.flips,
        use.smallest_share,
    )
    _try_out(partial(segmenter.segment, _trial(sequences)[0]), weights, SEGMENTATION)
    return segmenter


def _classifier(
    weights: Weights, name: str, marker: MarkerCard, sequences: tuple[MRSequence, ...]
) -> SliceClassifier:
    network, trees, use = marker_network(weights, name)
    age_cut, calibration = marker.age_cut, marker.calibration
    return SliceClassifier(network, trees, sequences, use.crop, age_cut, use.evidence, calibration)


def _trial(sequences: Sequence[MRSequence]) -> tuple[SliceStack, NDArray[np.bool_]]:
    """One invented slice, a brain of noise with a lesion, to see whether a network answers at all."""
    brain, lesion = np.zeros((1, 240, 240), bool), np.zeros((1, 240, 240), bool)
    brain[:, 60:180, 60:180], lesion[:, 100:130, 100:130] = True, True
    noise = np.random.default_rng(0).normal(size=(len(sequences), 1, 240, 240))
    images = {
        name: np.where(brain, one, -3).astype(np.float32) for name, one in zip(sequences, noise, strict=True)
    }
    return SliceStack("", images, brain, np.eye(4), ("1",), (0,)), lesion


def _try_out(answer: Callable[[], object], weights: Weights, part: str) -> None:
    """Weights may each be a number and still give none. Raises GliomarkError where the trial fails."""
    try:
        answer()
    except GliomarkError as error:
        told = message("weights-no-answer", path=weights.path, part=part, reason=error.message)
        raise GliomarkError(told) from None
    except UNFORESEEN as error:
        reason = " ".join(str(error).split())[:160]
        raise GliomarkError(message("weights-network", path=weights.path, part=part, reason=reason)) from None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study as the model's networks see it, before anything is asked of them.

    stack: its images are called what they are. stand_ins: a missing sequence to the one that the networks are shown
    in its place. seconds: it took. found: a lesion mask that came with the images.
    """

    study: Study
    stack: SliceStack
    stand_ins: Mapping[MRSequence, MRSequence]
    seconds: float
    found: FoundOutline | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """One for each missing sequence, and what the preparation warns of."""
        pairs = self.stand_ins.items()
        told = (message("stood-in", wanted=str(wanted), shown=str(shown)) for wanted, shown in pairs)
        return (*told, *self.stack.warnings)


def predict(
    study: Study,
    clinical: Clinical,
    model: Model,
    *,
    fusion: FusionRule = "near",
    enhancing: bool | None = None,
    reading: Reads = read_here,
) -> Prediction:
    """The whole cascade on one patient, read before by ``read_study``.

    fusion: how slices become the patient's answer. enhancing: the reader's finding of an enhancing focus, which
    decides IDH where it is stated. reading: where a mask that lies among the images is read, in this process by default
    (the command line and the server read in a process of its own, ``gliomark.isolation``). A patient without any lesion
    gets no marker answer. Raises GliomarkError where a sequence is missing, no brain is found, ``clinical`` is another
    patient's or nobody's, or an argument is none of its values.
    """
    check_request(study, clinical, fusion, enhancing)
    return predict_prepared(
        prepare_study(study, model, reading=reading), clinical, model, fusion=fusion, enhancing=enhancing
    )


def check_request(study: Study, clinical: Clinical, fusion: object, enhancing: object) -> None:
    """Raise GliomarkError for another patient's row, an impossible person and values that nothing is computed for."""
    check_fusion(fusion)
    if enhancing is not None and not isinstance(enhancing, bool):
        raise GliomarkError(message("enhancing-not-understood", given=repr(enhancing)))
    check_row(clinical, study.patient_id)


def prepare_study(
    study: Study, model: Model, step: Callable[[str], None] = lambda _: None, reading: Reads = read_here
) -> Prepared:
    """What can be done before age, sex and finding are known; step: is told what is done next. Raises GliomarkError
    as ``predict``."""
    started = time.perf_counter()
    stand_ins = find_stand_ins(study, model.card)
    # by its own name: whatever is said of an image, it is not called what it stands in for
    shown = list(dict.fromkeys(stand_ins.get(name, name) for name in model.sequences))
    stack = prepare(study, shown, PreparationSettings(**model.card.preparation), step)
    found = find_outline(study, stack, reading)
    return Prepared(study, stack, stand_ins, time.perf_counter() - started, found)


def find_stand_ins(study: Study, card: ModelCard) -> dict[MRSequence, MRSequence]:
    """Each missing sequence with the one that the model's card lets stand in for it."""
    return {
        MRSequence(wanted): MRSequence(shown)
        for wanted, shown in card.stand_ins.items()
        if wanted in card.sequences and wanted not in study.series and shown in study.series
    }


def _named_as_asked(
    stack: SliceStack, sequences: Sequence[MRSequence], stand_ins: Mapping[MRSequence, MRSequence]
) -> SliceStack:
    """The stack as the networks ask for it: a stand-in under the name of the sequence that is missing."""
    return replace(stack, images={name: stack.images[stand_ins.get(name, name)] for name in sequences})


def predict_prepared(
    prepared: Prepared,
    clinical: Clinical,
    model: Model,
    *,
    fusion: FusionRule = "near",
    enhancing: bool | None = None,
    outline: NDArray[np.bool_] | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Prediction:
    """The rest of ``predict``. outline: a reader's, ``(slice, 240, 240)``, in place of the network's; step: is
    told what is done next."""
    started = time.perf_counter()
    study, stack = prepared.study, prepared.stack
    check_request(study, clinical, fusion, enhancing)
    step("outline")
    segmentation = _outlined(prepared, model) if outline is None else _drawn(outline)
    areas = segmentation.mask.sum(axis=(1, 2)) * stack.pixel_area_mm2
    warnings, answers = list(prepared.warnings), []
    if not areas.any():
        warnings.append(_no_lesion(segmentation, stack))
    for name, classifier in model.classifiers.items():
        step(name)
        card = model.card.markers[name]
        answer = _unanswered(name, card, fusion)
        reason = _why_withheld(card, prepared.stand_ins)
        if reason is not None:
            answer = replace(answer, warnings=(reason,))
        elif areas.any():
            answer = _answered(answer, card, classifier, stack, segmentation, clinical, fusion)
        answers.append(_with_finding(answer, card, enhancing, bool(areas.any())))
    if (clinical.age is None or clinical.sex is None) and any(a.probability is not None for a in answers):
        warnings.append(message("age-or-sex-unknown"))
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
        stand_ins=prepared.stand_ins,
        notes=(prepared.found.note,) if prepared.found is not None and outline is None else (),
    )


# ---- the outline ------------------------------------------------------------------------------------


def _outlined(prepared: Prepared, model: Model) -> Segmentation:
    """The network's outline; its rule names the sequences that it was really shown."""
    asked = _named_as_asked(prepared.stack, model.sequences, prepared.stand_ins)
    shown = [prepared.stand_ins.get(name, name) for name in model.segmenter.sequences]
    return replace(model.segmenter.segment(asked), rule=model.segmenter.rule_in_words(shown))


def _drawn(outline: NDArray[np.bool_]) -> Segmentation:
    """A reader's outline, which is as sure as it says."""
    return Segmentation(outline.astype(np.float32), outline, READERS_OUTLINE)


def _no_lesion(segmentation: Segmentation, stack: SliceStack) -> str:
    """That there is none, and in how much of the brain there is none."""
    if segmentation.by_reader:
        return message("no-outline")
    return no_lesion_message(stack.examined)


# ---- the markers ------------------------------------------------------------------------------------


def _unanswered(name: str, card: MarkerCard, fusion: FusionRule) -> MarkerPrediction:
    return MarkerPrediction(
        marker=name,
        title=known(card.title, f"title-{name}"),
        probability=None,
        level=UNDETERMINED,
        label=known(card.label, f"label-{name}"),
        fusion=fusion,
        threshold=None,
        decided_by=MODEL,
        positive=card.positive,
    )


def _why_withheld(card: MarkerCard, stand_ins: Mapping[MRSequence, MRSequence]) -> Message | None:
    """Why no level and no probability may be given, whatever the model computes; None where they may."""
    for wanted, shown in stand_ins.items():
        return message("marker-on-stand-in", wanted=str(wanted), shown=str(shown))
    return None if card.names_level else card.verdict


def _answered(
    answer: MarkerPrediction,
    card: MarkerCard,
    classifier: SliceClassifier,
    stack: SliceStack,
    segmentation: Segmentation,
    clinical: Clinical,
    fusion: FusionRule,
) -> MarkerPrediction:
    """The model's answer of a patient with a lesion, by a marker that may be answered."""
    assert card.validation is not None
    slices, probabilities, parts = classifier.score(stack, segmentation.mask, clinical)
    decide = deciding_slices(slices.place, slices.area_mm2, fusion)
    probability = patient_probability(slices.place, slices.area_mm2, list(probabilities), fusion)
    scores = tuple(
        SliceScore(stack.slice_names[index], area, float(p), position in decide)
        for position, (index, area, p) in enumerate(
            zip(slices.index, slices.area_mm2, probabilities, strict=True)
        )
    )
    start, image, *codes = parts[list(decide)].mean(axis=0).tolist()
    age, sex = codes or (None, None)
    is_borderline = abs(probability - card.threshold) <= BORDERLINE
    warnings = [message("borderline", margin=100 * BORDERLINE)] if is_borderline else []
    if fusion != VALIDATED_FUSION:
        warnings.append(message("fusion-not-validated", fusion=fusion))
    return replace(
        answer,
        probability=probability,
        level=card.positive if probability >= card.threshold else card.negative,
        borderline=is_borderline,
        threshold=card.threshold,
        threshold_origin=_threshold_origin(card, card.validation),
        slices=scores,
        contributions=Contributions(start, image, age, sex),
        performance=performance(card),
        fusion_in_words=fusion_in_words(fusion, len(decide)),
        warnings=(*warnings, *((card.warning,) if card.warning else ())),
    )


def performance(card: MarkerCard) -> str:
    """How well the model did on patients it had not seen, in words; empty where that was not measured."""
    if card.validation is None:
        return ""
    return message("performance", **asdict(card.validation))


def _threshold_origin(card: MarkerCard, validation: MarkerValidation) -> str:
    return message(
        "threshold-origin",
        threshold=percent(card.threshold),
        positives=validation.positives,
        patients=validation.patients,
        share=percent(validation.positives / validation.patients),
        positive=level_word(card.positive),
        negative=level_word(card.negative),
    )


def _with_finding(
    answer: MarkerPrediction, card: MarkerCard, enhancing: bool | None, has_lesion: bool
) -> MarkerPrediction:
    """METHOD section 5: an enhancing focus means IDH wild type, none means mutant; the probability stays. Without a
    lesion there is nothing to decide. A model that is sure of the other level is not kept quiet."""
    if enhancing is None or answer.marker != "idh":
        return answer
    if not has_lesion:
        return replace(answer, warnings=(*answer.warnings, message("finding-without-lesion")))
    level, warnings = "wild type" if enhancing else "mutant", answer.warnings
    if answer.borderline:
        warnings = tuple(w for w in warnings if getattr(w, "code", "") != "borderline")
    elif answer.probability is not None and answer.level != level:
        contradiction = message(
            "finding-contradicted",
            found=level_word(level),
            level=level_word(answer.level),
            positive=level_word(card.positive),
            probability=percent(answer.probability),
        )
        warnings = (contradiction, *warnings)
    return replace(
        answer,
        level=level,
        borderline=False,
        decided_by=READER,
        performance=READER_FINDING.performance(enhancing),
        warnings=warnings,
    )
