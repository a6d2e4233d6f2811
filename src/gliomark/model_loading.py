"""A loaded model: the networks, trees and settings of a weights file, ready to predict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.engines import choose_engine
from gliomark.errors import DATA_ERRORS, GliomarkError, WeightsError
from gliomark.inference.device import check_device, list_accelerators
from gliomark.inference.segmenter import Segmenter, select_sequences
from gliomark.inference.slice_classifier import SliceClassifier
from gliomark.known_range import KnownRange, load_known_range
from gliomark.messages import find_message_for_text, message
from gliomark.models.card import SECOND_SEGMENTATION_PART, SEGMENTATION_PART
from gliomark.models.engine_loading import load_marker_engine, load_segmentation_engine
from gliomark.models.shipped_weights import resolve_weights_file
from gliomark.models.signatures import TrustPolicy
from gliomark.models.weights import MarkerCard, ModelCard, Weights, load_weights
from gliomark.prediction import ModelIdentity
from gliomark.preprocessing import PreparationConfig
from gliomark.study import ClinicalData, MRSequence, Segmentation, SliceStack, Study


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
