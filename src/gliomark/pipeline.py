"""The cascade from Study to Prediction (method.md, section 5), used by command line, server and Python API."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gliomark.engines import BFLOAT16_ENGINE, choose_engine
from gliomark.errors import DATA_ERRORS, ConfigurationError, GliomarkError, WeightsError
from gliomark.inference.device import check_device, list_accelerators
from gliomark.inference.fusion import (
    FusionRule,
    check_fusion_rule,
    describe_fusion,
    fuse_probabilities,
    select_deciding_slices,
)
from gliomark.inference.levels import LevelOptions, check_level_options, decide_level
from gliomark.inference.segmenter import Segmenter, select_sequences
from gliomark.inference.slice_classifier import ScoredSlices, SliceClassifier, SliceFeatures
from gliomark.io.masks.supplied_masks import SuppliedMask, find_supplied_mask
from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.known_range import KnownRange, check_patient, load_known_range
from gliomark.lesion_location import LesionLocation
from gliomark.messages import Message, find_level_message, find_message_for_text, format_percent, message
from gliomark.models.card import SECOND_SEGMENTATION_PART, SEGMENTATION_PART
from gliomark.models.engine_loading import load_marker_engine, load_segmentation_engine
from gliomark.models.shipped_weights import SHIPPED_MODELS, resolve_weights_file
from gliomark.models.signatures import TrustPolicy
from gliomark.models.weights import MarkerCard, ModelCard, Weights, load_weights
from gliomark.prediction import (
    Contributions,
    MarkerPrediction,
    MarkerPredictions,
    ModelIdentity,
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

__all__ = ["SHIPPED_MODELS", "Model", "PreparedStudy", "build_model", "load_model", "predict"]

UNDETERMINED = "undetermined"
VALIDATED_FUSION_RULE: FusionRule = "near"  # thresholds and validation results in weights files use it
MAX_LESION_SHARE = 0.5  # of the examined brain; a larger lesion is a wrong outline, such as an inverted mask
UNSURE_MESSAGES = ("borderline", "cannot-tell")
DECIDED_BY_MODEL, DECIDED_BY_READER = "model", "reader's finding"


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model: one segmenter and one slice classifier per marker.

    Attributes
    ----------
    weights
        The weights file.
    segmenter
        The segmentation network with its settings.
    classifiers
        By marker: its network and trees.
    device
        Where the networks compute, such as "cpu".
    engine
        What computes them, see ``engines.load_network``.
    second_segmenter
        The second segmentation network, for other sequences; None if the weights file has none.
    known_range
        What the training patients look like; None if the weights file does not state it.
    """

    weights: Weights
    segmenter: Segmenter
    classifiers: Mapping[str, SliceClassifier]
    device: str = "cpu"
    engine: str = "openvino"
    second_segmenter: Segmenter | None = None
    known_range: KnownRange | None = None

    def __repr__(self) -> str:
        """Return one line with name, sequences, markers and device."""
        markers = ", ".join(self.card.markers) or "no markers"
        return f"Model({self.card.name!r}: {' + '.join(self.sequences)}; {markers}; {self.device})"

    @property
    def card(self) -> ModelCard:
        """What the weights file states about the model."""
        return self.weights.card

    @property
    def sha256(self) -> str:
        """Hash of the weights file's content."""
        return self.weights.sha256

    @property
    def signature(self) -> str:
        """Id of the trusted key that signed the weights file, "unsigned" or "not checked"."""
        return self.weights.signature

    def to_device(self, name: str) -> Model:
        """Return the model on another device; this one stays where it is.

        Parameters
        ----------
        name
            "cpu", "cuda", "cuda:<number>", "mps", or "auto": the first of CUDA and MPS that is present and runs the
            networks, otherwise the CPU.

        Returns
        -------
        Model
            This model if it is already there, otherwise a copy.

        Raises
        ------
        ConfigurationError
            If the name is unknown, or PyTorch does not find the device.
        """
        if name != "auto":
            check_device(name)
            return self if name == self.device else build_model(self.weights, name, self.engine)
        for device in list_accelerators():
            with suppress(GliomarkError, *DATA_ERRORS):  # the device may lack memory or an operation
                return self.to_device(device)
        return self.to_device("cpu")

    def segment(self, stack: SliceStack) -> Segmentation:
        """Segment the lesion by the network for the sequences of the stack.

        Parameters
        ----------
        stack
            The images, prepared by ``gliomark.prepare(study, model.choose_sequences(study))``.

        Returns
        -------
        Segmentation
            Probability and mask ``(slice, row, column)`` on the grid of the stack.

        Raises
        ------
        WeightsError
            If the network's output is not finite.

        Examples
        --------
        >>> stack = gliomark.prepare(study, model.choose_sequences(study))
        >>> volume_ml = model.segment(stack).mask.sum() * stack.voxel_volume_ml
        """
        return self.choose_segmenter(stack.images).segment(stack)

    def uses_second_network(self, available: Collection[MRSequence]) -> bool:
        """Whether the second segmentation network is used: its sequences are available, those of the first are not."""
        card = self.card.second_segmentation
        if card is None or set(self.sequences) <= set(available):
            return False
        return {MRSequence(name) for name in card.sequences} <= set(available)

    def choose_segmenter(self, available: Collection[MRSequence]) -> Segmenter:
        """Return the segmenter for the sequences that are available."""
        second = self.second_segmenter
        return second if second is not None and self.uses_second_network(available) else self.segmenter

    def choose_sequences(self, study: Study) -> tuple[MRSequence, ...]:
        """Return the pair of sequences that is used of a study, the reference last.

        It is ``sequences``, unless the study lacks one of them and has those of the second segmentation network.
        """
        card = self.card.second_segmentation
        if card is None or not self.uses_second_network(study.series):
            return self.sequences
        return tuple(MRSequence(name) for name in card.sequences)

    @property
    def sequences(self) -> tuple[MRSequence, ...]:
        """The sequences that the model needs, the reference last; see also ``choose_sequences``."""
        return tuple(MRSequence(name) for name in self.card.sequences)

    @property
    def preparation(self) -> PreparationConfig:
        """Settings with which studies are prepared for the model."""
        return PreparationConfig(**self.card.preparation)

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the weights, as it is written into results."""
        return create_model_identity(self.weights)


def create_model_identity(weights: Weights) -> ModelIdentity:
    """Create the identity of weights, as it is written into results, with messages where the catalogue has them."""
    card = weights.card
    cohort = find_message_for_text(card.training_cohort, "training-cohort", "training-cohort-synthetic")
    licence = find_message_for_text(card.licence, "licence", "licence-synthetic", "licence-not-stated")
    use = find_message_for_text(
        card.intended_use, "intended-use", "intended-use-synthetic", "intended-use-research"
    )
    return ModelIdentity(card.name, weights.sha256, card.sequences, cohort, licence, use, weights.signature)


def load_model(
    name_or_path: str | Path = "demo", trust: TrustPolicy = TrustPolicy(), *, device: str = "cpu"
) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_path
        Name of a shipped model ("demo") or path of a weights file.
    trust
        Which signatures are required.
    device
        Where the networks compute, see ``Model.to_device``. The published numbers are those of the CPU; other devices
        differ in the last digits.

    Returns
    -------
    Model
        Ready to predict.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, altered or not trusted, or does not describe a usable model.
    ConfigurationError
        If the device is unknown or missing.

    Examples
    --------
    >>> model = gliomark.load_model("demo")
    >>> model.sequences
    (<MRSequence.T1C: 'T1C'>, <MRSequence.FLAIR: 'FLAIR'>)
    """
    return build_model(load_weights_by_name(name_or_path, trust)).to_device(device)


def load_weights_by_name(name_or_path: str | Path, trust: TrustPolicy = TrustPolicy()) -> Weights:
    """Load weights by the name of a shipped model or by path, without building networks.

    Raises WeightsError as ``load_model`` does.
    """
    with resolve_weights_file(name_or_path) as path:
        return load_weights(path, trust)


def build_model(weights: Weights, device: str = "cpu", engine: str | None = None) -> Model:
    """Load the networks of a weights file and run each of them once.

    Parameters
    ----------
    weights
        The weights.
    device, engine
        Where and with what the networks compute, see ``engines.load_network``.

    Returns
    -------
    Model
        Ready to predict.

    Raises
    ------
    WeightsError
        If the networks cannot be built or give no finite output.
    """
    card, engine = weights.card, choose_engine(engine)
    sequences = tuple(MRSequence(name) for name in card.sequences)
    classifiers = {
        name: _build_classifier(weights, name, marker, sequences, device, engine)
        for name, marker in card.markers.items()
    }
    second_segmenter = None
    if card.second_segmentation is not None:
        second_segmenter = build_segmenter(weights, device, engine, SECOND_SEGMENTATION_PART)
    segmenter = build_segmenter(weights, device, engine)
    known_range = load_known_range(weights)
    model = Model(weights, segmenter, classifiers, device, engine, second_segmenter, known_range)
    stack, lesion = _create_trial_slice(sequences)
    for name, classifier in classifiers.items():
        _check_trial_run(
            partial(classifier.score, stack, lesion, ClinicalData("", None, None)), weights, name
        )
    return model


def build_segmenter(
    weights: Weights, device: str = "cpu", engine: str | None = None, part: str = SEGMENTATION_PART
) -> Segmenter:
    """Load a segmentation network of a weights file with the inference settings of its card.

    part: prefix of its tensors; the other parameters and errors are those of ``build_model``.
    """
    card = weights.card.get_segmentation(part)
    use, sequences = card.segmentation, tuple(MRSequence(name) for name in card.sequences)
    network, size_multiple = load_segmentation_engine(weights, device, engine, part)
    segmenter = Segmenter(
        network,
        select_sequences(sequences, card.rule),
        card.rule,
        use.tile,
        card.segmentation_threshold,
        card.smallest_lesion_ml,
        use.pool,
        use.context,
        use.flips,
        use.smallest_share,
        size_multiple,
    )
    _check_trial_run(partial(segmenter.segment, _create_trial_slice(sequences)[0]), weights, part)
    return segmenter


def _build_classifier(
    weights: Weights,
    name: str,
    marker: MarkerCard,
    sequences: tuple[MRSequence, ...],
    device: str,
    engine: str | None,
) -> SliceClassifier:
    network, trees = load_marker_engine(weights, name, device, engine)
    use = marker.architecture
    return SliceClassifier(
        network, trees, sequences, use.crop, marker.age_cut, use.evidence, marker.calibration
    )


def _create_trial_slice(sequences: Sequence[MRSequence]) -> tuple[SliceStack, NDArray[np.bool_]]:
    """Create a synthetic slice (noise with a square lesion), used to check that a network runs."""
    brain, lesion_mask = np.zeros((1, 240, 240), bool), np.zeros((1, 240, 240), bool)
    brain[:, 60:180, 60:180], lesion_mask[:, 100:130, 100:130] = True, True
    noise = np.random.default_rng(0).normal(size=(len(sequences), 1, 240, 240))
    images = {
        name: np.where(brain, noise_image, -3).astype(np.float32)
        for name, noise_image in zip(sequences, noise, strict=True)
    }
    return SliceStack("", images, brain, np.eye(4), ("1",), (0,)), lesion_mask


def _check_trial_run(trial_run: Callable[[], object], weights: Weights, part: str) -> None:
    """Run a network once, because finite weights can still produce non-finite output.

    Raises WeightsError if it fails.
    """
    try:
        trial_run()
    except GliomarkError as error:
        error_message = message("weights-no-answer", path=weights.path, part=part, reason=error.message)
        raise WeightsError(error_message) from None
    except DATA_ERRORS as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(message("weights-network", path=weights.path, part=part, reason=reason)) from None


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
    if model.engine == BFLOAT16_ENGINE and model.device == "cpu":
        warnings.append(message("engine-bfloat16"))
    if not areas.any():
        warnings.append(_build_no_lesion_message(segmentation, stack))
    lesion_share = segmentation.mask.sum() / max(stack.brain.sum(), 1)
    if lesion_share > MAX_LESION_SHARE:
        warnings.append(message("lesion-too-large", percent=100 * lesion_share))
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
    if has_enhancing_focus is None or marker_prediction.marker != "idh":
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
