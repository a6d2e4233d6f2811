"""The cascade from Study to Prediction (method.md, section 5), used by command line, server and Python API."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gliomark.engines import BFLOAT16_ENGINE
from gliomark.errors import ConfigurationError, WeightsError
from gliomark.inference.fusion import (
    FusionRule,
    check_fusion_rule,
    describe_fusion,
    fuse_probabilities,
    select_deciding_slices,
)
from gliomark.inference.levels import LevelOptions, check_level_options, decide_level
from gliomark.inference.segmenter import Segmenter
from gliomark.inference.slice_classifier import ScoredSlices, SliceClassifier, SliceFeatures
from gliomark.io.masks.supplied_masks import SuppliedMask, find_supplied_mask
from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.known_range import check_patient
from gliomark.lesion_location import LesionLocation
from gliomark.messages import Message, find_level_message, find_message_for_text, format_percent, message
from gliomark.model_loading import Model
from gliomark.models.weights import MarkerCard, ModelCard
from gliomark.prediction import (
    Contributions,
    MarkerPrediction,
    MarkerPredictions,
    Prediction,
    RangeCheck,
    SliceScore,
)
from gliomark.preprocessing import PreparationConfig, prepare
from gliomark.preprocessing.brain_coverage import format_no_lesion_message
from gliomark.reader_finding_accuracy import READER_FINDING_ACCURACY
from gliomark.study import (
    CANNOT_TELL,
    READER_SEGMENTATION_RULE,
    ClinicalData,
    MRSequence,
    Segmentation,
    SliceStack,
    Study,
)
from gliomark.tables import check_clinical_row

UNDETERMINED = "undetermined"
IDH_MARKER = "idh"  # the only marker of which a reader's finding decides the level
VALIDATED_FUSION_RULE: FusionRule = "near"  # thresholds and validation results in weights files use it
MAX_LESION_SHARE = 0.5  # of the examined brain; a larger lesion is a wrong outline, such as an inverted mask
MAX_OUTSIDE_SHARE = 0.5  # of the outline; a larger one is a wrong outline, such as a shifted mask
UNSURE_MESSAGES = ("borderline", "cannot-tell")
DECIDED_BY_MODEL, DECIDED_BY_READER = "model", "reader's finding"


@dataclass(frozen=True, eq=False)
class PreparedStudy:
    """A study after registration, skull stripping and normalisation.

    stack: the prepared images, a substitute under its own name; stand_ins: substitute by missing sequence; seconds:
    computing time; found: a lesion mask that was supplied with the images; config: the settings of the preparation.
    """

    study: Study
    stack: SliceStack
    stand_ins: Mapping[MRSequence, MRSequence]
    seconds: float
    found: SuppliedMask | None = None
    config: PreparationConfig = PreparationConfig()  # of studies that were stored before it was recorded

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of substituted sequences and of the preparation."""
        pairs = self.stand_ins.items()
        substitute_warnings = (
            message("stood-in", wanted=str(wanted), shown=str(shown)) for wanted, shown in pairs
        )
        return (*substitute_warnings, *self.stack.warnings)


def predict(
    study: Study,
    clinical: ClinicalData,
    model: Model,
    *,
    fusion: FusionRule = "near",
    has_enhancing_focus: bool | None = None,
    levels: LevelOptions = LevelOptions(),
    locates_lesion: bool = False,
    reader_pool: ReadExecutor = run_in_this_process,
    report_progress: Callable[[str], None] = lambda _: None,
) -> Prediction:
    """Segment the lesion of one patient and predict the markers.

    Without a lesion no marker is predicted.

    Parameters
    ----------
    study
        The patient's images, from ``read_study``.
    clinical
        Age and sex of the same patient.
    model
        From ``load_model``.
    fusion
        How slice probabilities are fused, see ``inference.fusion``.
    has_enhancing_focus
        The reader's finding of an enhancing focus, which decides IDH if it is given (method.md, section 5).
    levels
        Coverage of stated levels, and prevalence of the markers.
    locates_lesion
        Whether the lesion's location in the brain is found, with the atlas of the extra ``atlas``.
    reader_pool
        Where a mask supplied with the images is read: in this process by default, in a separate process with
        ``gliomark.isolation``.
    report_progress
        Called with the name of each step before it starts, see ``describe_step``.

    Returns
    -------
    Prediction
        Segmentation and markers, with the images.

    Raises
    ------
    InputError
        If a sequence is missing, no brain is detected, ``clinical`` belongs to another patient, or its age or sex is
        not possible.
    ConfigurationError
        If ``fusion``, ``has_enhancing_focus`` or ``levels`` has an invalid value, the model has no calibration for
        ``levels``, or the atlas is needed and not installed.
    """
    if locates_lesion:
        from gliomark.location import check_atlas  # loads slowly, and few ask for it

        check_atlas()
    check_prediction_arguments(study, clinical, fusion, has_enhancing_focus)
    check_level_options(levels, model.card.markers)
    return predict_prepared(
        prepare_study(study, model, report_progress, reader_pool),
        clinical,
        model,
        fusion=fusion,
        has_enhancing_focus=has_enhancing_focus,
        levels=levels,
        locates_lesion=locates_lesion,
        notify=report_progress,
    )


def describe_step(name: str, card: ModelCard) -> Message:
    """Return the message for a step of a prediction: a marker, or a step such as "read" or "outline"."""
    if name in card.markers:
        return message("step-marker", title=card.markers[name].title)
    return message(f"step-{name}")


def check_prediction_arguments(
    study: Study, clinical: ClinicalData, fusion: object, has_enhancing_focus: object
) -> None:
    """Check the arguments of a prediction.

    Raises
    ------
    InputError
        If ``clinical`` belongs to another patient, or its age or sex is not possible.
    ConfigurationError
        If ``fusion`` or ``has_enhancing_focus`` has an invalid value.
    """
    check_fusion_rule(fusion)
    if has_enhancing_focus is not None and not isinstance(has_enhancing_focus, bool):
        raise ConfigurationError(message("enhancing-not-understood", given=repr(has_enhancing_focus)))
    check_clinical_row(clinical, study.patient_id)


def prepare_study(
    study: Study,
    model: Model,
    report_progress: Callable[[str], None] = lambda _: None,
    reader_pool: ReadExecutor = run_in_this_process,
) -> PreparedStudy:
    """Prepare a study for a model: the part of ``predict`` that needs no age, sex or reader's finding.

    Parameters
    ----------
    study
        The patient's images, from ``read_study``.
    model
        Determines the sequences and the preparation.
    report_progress
        Called with the name of each step before it starts.
    reader_pool
        Where a mask supplied with the images is read, see ``predict``.

    Returns
    -------
    PreparedStudy
        For ``predict_prepared``; several predictions can use it.

    Raises
    ------
    InputError
        If a sequence is missing or no brain is detected.
    """
    start_time = time.perf_counter()
    pair = model.choose_sequences(study)
    stand_ins = find_substitutes(study, model.card) if pair == model.sequences else {}
    # a substitute keeps its own name, so that messages never name it as the missing sequence
    sequences_used = list(dict.fromkeys(stand_ins.get(name, name) for name in pair))
    stack = prepare(study, sequences_used, model.preparation, report_progress)
    if pair != model.sequences:
        stack = _note_second_network(stack, model)
    supplied_mask = find_supplied_mask(study, stack, reader_pool)
    seconds = time.perf_counter() - start_time
    return PreparedStudy(study, stack, stand_ins, seconds, supplied_mask, model.preparation)


def find_substitutes(study: Study, card: ModelCard) -> dict[MRSequence, MRSequence]:
    """Return the substitute of each missing sequence that the model's card permits and the study contains."""
    return {
        MRSequence(wanted): MRSequence(shown)
        for wanted, shown in card.stand_ins.items()
        if wanted in card.sequences and wanted not in study.series and shown in study.series
    }


def check_prepared_for(prepared: PreparedStudy, model: Model) -> None:
    """Check that a model can use a prepared study: other weights with the same sequences and preparation can.

    Raises
    ------
    WeightsError
        If the model needs other sequences, another grid or another number of slices.
    """
    stand_ins = prepared.stand_ins
    is_for_first_network = (
        tuple(prepared.stack.images)
        == tuple(dict.fromkeys(stand_ins.get(name, name) for name in model.sequences))
        and stand_ins.items() <= dict(model.card.stand_ins).items()
    )
    if prepared.config == model.preparation and (
        is_for_first_network or _is_for_second_network(prepared, model)
    ):
        return
    raise WeightsError(
        message(
            "prepared-for-another-model",
            prepared=" + ".join(prepared.stack.images),
            model=model.card.name,
            needed=" + ".join(model.sequences),
        )
    )


def _is_for_second_network(prepared: PreparedStudy, model: Model) -> bool:
    """Whether the images are those of the second segmentation network, which may have been substitutes before."""
    second = model.card.second_segmentation
    return second is not None and tuple(prepared.stack.images) == tuple(map(MRSequence, second.sequences))


def _note_second_network(stack: SliceStack, model: Model) -> SliceStack:
    """Return the stack with the note that the second network outlines the lesion on it."""
    missing = ", ".join(name for name in model.sequences if name not in stack.images)
    note = message("outline-by-second-network", missing=missing, used=" + ".join(stack.images))
    return replace(stack, notes=(*stack.notes, note))


def _rename_substituted_sequences(
    stack: SliceStack, sequences: Sequence[MRSequence], stand_ins: Mapping[MRSequence, MRSequence]
) -> SliceStack:
    """Return the stack with each substitute under the name of the missing sequence, as the networks require."""
    return replace(stack, images={name: stack.images[stand_ins.get(name, name)] for name in sequences})


def predict_prepared(
    prepared: PreparedStudy,
    clinical: ClinicalData,
    model: Model,
    *,
    fusion: FusionRule = "near",
    has_enhancing_focus: bool | None = None,
    levels: LevelOptions = LevelOptions(),
    reader_mask: NDArray[np.bool_] | None = None,
    locates_lesion: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> Prediction:
    """Predict from a prepared study, see ``predict`` for the other parameters and the errors.

    The networks run once for a prepared study, model and mask: their results are kept as long as the study itself, so
    that another age, sex, finding, fusion rule or prevalence is answered at once.

    Parameters
    ----------
    prepared
        From ``prepare_study``.
    reader_mask
        A reader's mask ``(slice, 240, 240)``, boolean, which replaces the network's.
    locates_lesion
        See ``predict``; the location is kept like the results of the networks.
    notify
        Called with the name of each step before it starts.

    Returns
    -------
    Prediction
        Segmentation and markers, with the images.

    Raises
    ------
    WeightsError
        If the study was prepared for a model with other sequences or settings.
    """
    start_time = time.perf_counter()
    study, stack = prepared.study, prepared.stack
    check_prepared_for(prepared, model)
    if prepared.stand_ins and _is_for_second_network(prepared, model):
        # prepared for weights without this network
        stack = _note_second_network(stack, model)
        prepared = replace(prepared, stand_ins={}, stack=stack)
    check_prediction_arguments(study, clinical, fusion, has_enhancing_focus)
    check_level_options(levels, model.card.markers)
    notify("outline")
    results = _find_network_results(prepared, model, reader_mask)
    segmentation = results.segmentation
    areas = segmentation.mask.sum(axis=(1, 2)) * stack.pixel_area_mm2
    warnings, marker_predictions = [*results.known_range.findings, *prepared.warnings], []
    if model.card.is_synthetic:
        warnings.insert(0, message("model-synthetic"))
    if has_enhancing_focus is not None and IDH_MARKER not in model.classifiers:
        warnings.append(message("finding-without-idh"))
    if model.engine == BFLOAT16_ENGINE and model.device == "cpu":
        warnings.append(message("engine-bfloat16"))
    warnings += _check_outline(segmentation, stack)
    for name, classifier in model.classifiers.items():
        notify(name)
        card = model.card.markers[name]
        marker_prediction = _create_empty_prediction(name, card, fusion)
        reason = _find_withholding_reason(card, prepared, model.sequences, results.known_range)
        if reason is not None:
            marker_prediction = replace(marker_prediction, warnings=(reason,))
        elif areas.any():
            if classifier not in results.features:
                results.features[classifier] = classifier.compute_features(stack, segmentation.mask)
            scored_slices = classifier.score_features(results.features[classifier], clinical)
            marker_prediction = _predict_marker(marker_prediction, card, scored_slices, stack, fusion, levels)
        marker_predictions.append(
            _apply_reader_finding(marker_prediction, card, has_enhancing_focus, bool(areas.any()))
        )
    if (clinical.age is None or clinical.sex is None) and any(
        a.probability is not None for a in marker_predictions
    ):
        warnings.append(message("age-or-sex-unknown"))
    return Prediction(
        patient_id=study.patient_id,
        clinical=clinical,
        study=study,
        stack=stack,
        segmentation=segmentation,
        lesion_volume_ml=float(segmentation.mask.sum() * stack.voxel_volume_ml),
        lesion_areas_mm2={stack.slice_names[i]: float(areas[i]) for i in np.flatnonzero(areas)},
        markers=MarkerPredictions(marker_predictions),
        warnings=tuple(warnings),
        model=model.identity,
        software_version=version("gliomark"),
        seconds=prepared.seconds + time.perf_counter() - start_time,
        stand_ins=prepared.stand_ins,
        notes=(prepared.found.note,) if prepared.found is not None and reader_mask is None else (),
        known_range=results.known_range,
        location=_find_location(results, prepared, notify) if locates_lesion and areas.any() else None,
    )


# ---- results of the networks ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _NetworkResults:
    """What was computed for a prepared study and a mask.

    features: by classifier; locations: the lesion's location, at most one. Both are added when needed.
    """

    segmentation: Segmentation
    known_range: RangeCheck
    features: dict[SliceClassifier, SliceFeatures]
    locations: list[LesionLocation]


_ResultKey = tuple[
    Segmenter, str, str
]  # the segmenter itself: a copy with another threshold has other results
_NETWORK_RESULTS: WeakKeyDictionary[PreparedStudy, dict[_ResultKey, _NetworkResults]] = WeakKeyDictionary()


def _find_location(
    results: _NetworkResults, prepared: PreparedStudy, notify: Callable[[str], None]
) -> LesionLocation:
    """Return the lesion's location, which is found once."""
    from gliomark.location import locate_lesion

    if not results.locations:
        notify("locate")
        results.locations.append(locate_lesion(prepared.study, prepared.stack, results.segmentation.mask))
    return results.locations[0]


def _find_network_results(
    prepared: PreparedStudy, model: Model, reader_mask: NDArray[np.bool_] | None
) -> _NetworkResults:
    """Return what has been computed before for the same images, or segment the lesion.

    Kept are the results of the network's mask and of one reader's mask.
    """
    kept = _NETWORK_RESULTS.setdefault(prepared, {})
    stack = prepared.stack
    images_hash = _hash_arrays(*stack.images.values(), stack.brain)
    mask_hash = "" if reader_mask is None else _hash_arrays(reader_mask)
    key = (model.choose_segmenter(stack.images), images_hash, mask_hash)
    if key not in kept:
        segmentation = (
            _segment_by_network(prepared, model)
            if reader_mask is None
            else _create_reader_segmentation(reader_mask)
        )
        for array in (segmentation.mask, segmentation.probability):
            array.setflags(write=False)  # later predictions share them
        for other in [one for one in kept if one[:2] != key[:2] or (one[2] and mask_hash)]:
            del kept[other]
        known_range = check_patient(
            model.known_range,
            stack,
            segmentation.mask,
            is_spacing_assumed=prepared.study.spacing_assumed,
        )
        kept[key] = _NetworkResults(segmentation, known_range, {}, [])
    return kept[key]


def _hash_arrays(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _segment_by_network(prepared: PreparedStudy, model: Model) -> Segmentation:
    """Segment by the network; the rule names the sequences that were actually used."""
    if not prepared.stand_ins:
        return model.segment(prepared.stack)
    network_stack = _rename_substituted_sequences(prepared.stack, model.sequences, prepared.stand_ins)
    sequences_used = [prepared.stand_ins.get(name, name) for name in model.segmenter.sequences]
    return replace(model.segmenter.segment(network_stack), rule=model.segmenter.describe_rule(sequences_used))


def _create_reader_segmentation(reader_mask: NDArray[np.bool_]) -> Segmentation:
    """Create a segmentation from a reader's mask; its probability is 0 or 1."""
    return Segmentation(reader_mask.astype(np.float32), reader_mask.copy(), READER_SEGMENTATION_RULE)


def _check_outline(segmentation: Segmentation, stack: SliceStack) -> list[str]:
    """Warn of an outline that is empty, mostly outside the brain, or larger than a glioma."""
    lesion_size = int(segmentation.mask.sum())
    if not lesion_size:
        return [_build_no_lesion_message(segmentation, stack)]
    in_brain, warnings = int((segmentation.mask & stack.brain).sum()), list[str]()
    outside_share, brain_share = 1 - in_brain / lesion_size, in_brain / max(int(stack.brain.sum()), 1)
    if outside_share > MAX_OUTSIDE_SHARE:
        warnings.append(message("outline-outside-brain", percent=100 * outside_share))
    if brain_share > MAX_LESION_SHARE:
        warnings.append(message("lesion-too-large", percent=100 * brain_share))
    return warnings


def _build_no_lesion_message(segmentation: Segmentation, stack: SliceStack) -> str:
    """Build the message that there is no lesion in the examined part of the brain."""
    if segmentation.is_drawn_by_reader:
        return message("no-outline")
    return format_no_lesion_message(stack.examined)


# ---- the markers ------------------------------------------------------------------------------------


def _create_empty_prediction(name: str, card: MarkerCard, fusion: FusionRule) -> MarkerPrediction:
    return MarkerPrediction(
        marker=name,
        title=find_message_for_text(card.title, f"title-{name}"),
        probability=None,
        level=UNDETERMINED,
        label=find_message_for_text(card.label, f"label-{name}"),
        fusion=fusion,
        threshold=None,
        decided_by=DECIDED_BY_MODEL,
        positive=card.positive,
        negative=card.negative,
    )


def _find_withholding_reason(
    card: MarkerCard, prepared: PreparedStudy, sequences: Sequence[MRSequence], known_range: RangeCheck
) -> Message | None:
    """Return why neither level nor probability may be shown; None if they may. sequences: of the marker networks."""
    if known_range.is_refused:
        return message("marker-refused")
    for wanted, shown in prepared.stand_ins.items():
        return message("marker-on-stand-in", wanted=str(wanted), shown=str(shown))
    missing = [name for name in sequences if name not in prepared.stack.images]
    if missing:
        return message("marker-needs-sequence", missing=", ".join(missing))
    return None if card.is_level_reported else card.validation_message


def _predict_marker(
    empty_prediction: MarkerPrediction,
    card: MarkerCard,
    scored_slices: ScoredSlices,
    stack: SliceStack,
    fusion: FusionRule,
    levels: LevelOptions,
) -> MarkerPrediction:
    """Predict a validated marker of a patient with a lesion."""
    slices, probabilities, contributions = scored_slices
    deciding_positions = select_deciding_slices(slices.neighbour_index, slices.area_mm2, fusion)
    probability = fuse_probabilities(slices.neighbour_index, slices.area_mm2, list(probabilities), fusion)
    scores = tuple(
        SliceScore(stack.slice_names[index], area, float(p), position in deciding_positions)
        for position, (index, area, p) in enumerate(
            zip(slices.index, slices.area_mm2, probabilities, strict=True)
        )
    )
    baseline, image, *clinical_contributions = contributions[list(deciding_positions)].mean(axis=0).tolist()
    age, sex = clinical_contributions or (None, None)
    decided = decide_level(replace(empty_prediction, raw_probability=probability), card, levels)
    warnings = list(decided.warnings)
    if fusion != VALIDATED_FUSION_RULE:
        warnings.append(message("fusion-not-validated", fusion=fusion))
    return replace(
        decided,
        slices=scores,
        contributions=Contributions(baseline, image, age, sex),
        performance=describe_performance(card),
        fusion_in_words=describe_fusion(fusion, len(deciding_positions)),
        warnings=(*warnings, *((card.warning,) if card.warning else ())),
    )


def describe_performance(card: MarkerCard) -> str:
    """Return a message with the model's performance in held-out patients; empty if it was not measured."""
    if card.validation is None:
        return ""
    return card.validation.performance_message


def _apply_reader_finding(
    marker_prediction: MarkerPrediction, card: MarkerCard, has_enhancing_focus: bool | None, has_lesion: bool
) -> MarkerPrediction:
    """Apply the reader's finding (method.md, section 5): an enhancing focus means IDH wild type, none mutant.

    The probability is not changed. Without a lesion the finding is not applied. If the model clearly predicts the other
    level, a warning states the contradiction.
    """
    if has_enhancing_focus is None or marker_prediction.marker != IDH_MARKER:
        return marker_prediction
    if not has_lesion:
        return replace(
            marker_prediction, warnings=(*marker_prediction.warnings, message("finding-without-lesion"))
        )
    level, warnings = "wild type" if has_enhancing_focus else "mutant", marker_prediction.warnings
    if marker_prediction.borderline or marker_prediction.level == CANNOT_TELL:
        warnings = tuple(w for w in warnings if getattr(w, "code", "") not in UNSURE_MESSAGES)
    elif marker_prediction.probability is not None and marker_prediction.level != level:
        contradiction = message(
            "finding-contradicted",
            found=find_level_message(level),
            level=find_level_message(marker_prediction.level),
            positive=find_level_message(card.positive),
            probability=format_percent(marker_prediction.probability),
        )
        warnings = (contradiction, *warnings)
    return replace(
        marker_prediction,
        level=level,
        borderline=False,
        decided_by=DECIDED_BY_READER,
        performance=READER_FINDING_ACCURACY.describe_performance(has_enhancing_focus),
        warnings=warnings,
    )
