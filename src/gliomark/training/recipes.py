"""The two training commands, which turn a prepared cohort into a weights file."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gliomark.cohort.folds import CohortFolds, TrainingFolds, check_disjoint, load_cohort_folds
from gliomark.cohort.private_files import is_new_id
from gliomark.cohort.range_fitting import fit_cohort_range
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError, ConfigurationError
from gliomark.evaluation.conservative_auc import compute_conservative_auc_interval
from gliomark.evaluation.metrics import auc, compute_youden_threshold
from gliomark.files import check_writable, remove_leftovers
from gliomark.inference.segmenter import SEQUENCE_RULES, select_sequences
from gliomark.inference.slice_classifier import SliceClassifier
from gliomark.known_range import KNOWN_RANGE_TENSOR, MIN_PATIENTS
from gliomark.messages import message
from gliomark.model_loading import build_model, build_segmenter
from gliomark.models.card import MarkerNetworkCard, SegmentationCard, TreeFeatures, check_marker_name
from gliomark.models.entries import Recipe
from gliomark.models.lightgbm_library import lightgbm
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.models.registry import choose_marker_entry, choose_segmentation_entry, to_network_record
from gliomark.models.torch_inference import wrap_marker_network
from gliomark.models.weights import (
    MarkerCard,
    MarkerValidation,
    ModelCard,
    Weights,
    load_weights,
    save_weights,
)
from gliomark.preprocessing import PreparationConfig
from gliomark.study import MRSequence
from gliomark.training.job_runner import run_jobs
from gliomark.training.markers import (
    MarkerTrainingConfig,
    check_marker_layout,
    create_marker_config,
    load_lesion_slice_dataset,
    read_marker_labels,
    read_marker_values,
    train_marker_network,
)
from gliomark.training.patient_calibration import add_patient_calibration, calibrate_marker
from gliomark.training.processes import ONE_PROCESS, ProcessLayout, check_layout, get_node
from gliomark.training.segmentation import (
    INFERENCE_POOLING_FACTOR,
    MIN_COMPONENT_SHARE,
    SegmentationTrainingConfig,
    create_segmentation_config,
    train_segmentation_network,
)
from gliomark.training.slice_dataset import load_slice_dataset
from gliomark.training.stacking import (
    PatientVectors,
    StackingConfig,
    compute_age_cut,
    compute_held_out_vectors,
    fit_trees,
)
from gliomark.training.work_folder import to_config_record

MIN_FOLDS = 3  # one to be scored, one to fit the trees, one for early stopping
RECORDED_PACKAGES = (
    "gliomark",
    "torch",
    "monai",
    "lightgbm",
    "numpy",
    "scikit-learn",
    "SimpleITK",
    "deepbet",
)


@dataclass(frozen=True)
class MarkerDefinition:
    """How a marker is derived from a clinical column, with the names that are shown.

    The marker is positive if the column's number is at least the threshold.
    """

    name: str
    column: str
    threshold: float
    title: str
    positive: str
    negative: str
    label: str

    @property
    def is_binary(self) -> bool:
        """Whether the column is 0 or 1, so that any other number is a mistake."""
        return self.threshold == BINARY_THRESHOLD and "at least" not in self.label

    def decide(self, value: float) -> int | None:
        """Return 1 if the column's number makes a patient positive, otherwise 0; None if it cannot be right."""
        if self.is_binary and value not in (0, 1):
            return None
        return int(value >= self.threshold)

    def label_patient(self, patient: str, value: float) -> int:
        """Return the label of a patient by ``decide``.

        Raises
        ------
        CohortError
            If the number cannot be right.
        """
        label = self.decide(value)
        if label is None:
            raise CohortError(
                message("marker-not-binary", patient=patient, column=self.column, value=f"{value:g}")
            )
        return label


BINARY_THRESHOLD = 0.5
MARKER_DEFINITIONS = {
    "idh": MarkerDefinition(
        "idh",
        "idh_mutant",
        0.5,
        "IDH",
        "mutant",
        "wild type",
        "positive: IDH1 or IDH2 is mutated; negative: wild type",
    ),
    "ki67": MarkerDefinition(
        "ki67",
        "ki67",
        10.0,
        "Ki-67",
        "high",
        "low",
        "high: at least 10 % of the stained tumour cells are Ki-67 positive",
    ),
    "proliferation": MarkerDefinition(
        "proliferation",
        "proliferation_high",
        0.5,
        "Proliferation proxy",
        "high",
        "low",
        "high: the mean rank of 13 cell-cycle genes, measured in the tumour's RNA, is above the training cohort's "
        "median. This is a proxy of proliferation, not a stained Ki-67 index",
    ),
}


@dataclass(frozen=True)
class TrainingDistribution:
    """How the trainings of a command are distributed.

    layout: processes over which every batch of one network is split; workers, scheduler: dask workers that train
    several networks at the same time, see ``job_runner.run_jobs``.

    Raises
    ------
    ConfigurationError
        If both are given.
    """

    layout: ProcessLayout = ONE_PROCESS
    workers: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.layout.count > 1 and (self.workers or self.scheduler):
            raise ConfigurationError(message("training-devices-and-workers"))

    @property
    def is_distributed(self) -> bool:
        """Whether anything is trained outside this process."""
        return self.layout.count > 1 or self.workers > 0 or self.scheduler is not None


LOG = logging.getLogger("gliomark.training")  # steps, which the command line shows


def parse_marker_definition(text: str) -> MarkerDefinition:
    """Parse the name or column of a known marker, a ``column`` of 0 and 1, or ``column>=threshold``.

    Raises
    ------
    ConfigurationError
        If the text is none of these, or cannot be part of file names.
    """
    for name, known in MARKER_DEFINITIONS.items():
        if text in (name, known.column):
            return known
    column, _, threshold_text = (part.strip() for part in text.partition(">="))
    try:
        threshold = float(threshold_text) if threshold_text else BINARY_THRESHOLD
    except ValueError:
        raise ConfigurationError(
            f"'{text}' must be a marker, a column of 0 and 1, or column>=number."
        ) from None
    check_marker_name(column)
    return MarkerDefinition(
        column,
        column,
        threshold,
        column,
        "positive",
        "negative",
        f"positive: {column} is at least {threshold:g}" if threshold_text else f"positive: {column} is 1",
    )


def restore_marker_definition(marker: str, card: MarkerCard) -> MarkerDefinition:
    """Restore the definition by which the patients of a marker were labelled in training.

    Older weights files do not hold the threshold of the column; their label states it, or the column is a known one or
    0 and 1.
    """
    known = next((d for n, d in MARKER_DEFINITIONS.items() if card.column in (n, d.column)), None)
    threshold = card.label_threshold
    if threshold is None:
        stated = re.fullmatch(rf"positive: {re.escape(card.column)} is at least (\S+)", card.label)
        threshold = BINARY_THRESHOLD if known is None else known.threshold
        threshold = float(stated[1]) if stated else threshold
    column = card.column if known is None else known.column
    return MarkerDefinition(
        marker, column, threshold, card.title, card.positive, card.negative, str(card.label)
    )


def get_cohort_sequences(cohort: Cohort) -> tuple[MRSequence, ...]:
    """Return the pair of sequences for which the cohort was prepared, the reference last."""
    return tuple(MRSequence(name) for name in cohort.metadata["sequences"])


def run_segmentation_training(
    cohort_folder: Path,
    output_path: Path,
    rule: str,
    recipe: Recipe,
    max_epochs: int,
    network: str | None = None,
    layout: ProcessLayout = ONE_PROCESS,
) -> Path:
    """Train a segmentation network and write its weights file (``gliomark train segmentation``).

    It is trained on all patients outside the test set for a fixed number of epochs.

    Parameters
    ----------
    cohort_folder
        The prepared cohort.
    output_path
        The weights file to write.
    rule
        "joint", "union" or "single", see ``inference.segmenter.Segmenter``.
    recipe
        The recipe.
    max_epochs
        Number of epochs.
    network
        Name of the network in the registry; None: the recipe's own.
    layout
        Processes over which every batch is split.

    Returns
    -------
    Path
        The weights file; of several nodes, node 0 writes it.

    Raises
    ------
    ConfigurationError
        If the rule, the recipe or the network is unknown, the network does not have the recipe, or the batches cannot
        be split over the processes.
    """
    if rule not in SEQUENCE_RULES:
        raise ConfigurationError(
            f"The rule '{rule}' is unknown; it must be one of {', '.join(SEQUENCE_RULES)}."
        )
    entry = choose_segmentation_entry(recipe, network)
    cohort = Cohort(cohort_folder)
    folds, sequences = load_cohort_folds(cohort), get_cohort_sequences(cohort)
    is_joint = rule == "joint"
    used_sequences = select_sequences(sequences, rule)
    sequence_count = len(used_sequences) if is_joint else 1
    config = create_segmentation_config(recipe, sequence_count, max_epochs, entry)
    check_layout(layout, config.batch)
    if get_node(layout) == 0:
        prepare_output_folder(output_path)
    training_patients, validation_patients = config.split_patients(folds.train, folds.validation)
    LOG.info("training on %d patients", len(training_patients))
    training_dataset = load_slice_dataset(cohort, training_patients, used_sequences, is_joint, config.context)
    validation_dataset = None
    if validation_patients:
        validation_dataset = load_slice_dataset(
            cohort, validation_patients, used_sequences, is_joint, config.context
        )
    trained = train_segmentation_network(
        training_dataset, config, output_path.with_suffix(".work"), validation_dataset, layout=layout
    )
    if get_node(layout) > 0:
        return output_path
    card = create_segmentation_card(output_path.stem, cohort, folds, training_patients, rule, config)
    if recipe == "pretrained":
        card = update_inference_settings(card, True, MIN_COMPONENT_SHARE, INFERENCE_POOLING_FACTOR)
    save_weights(
        output_path,
        card,
        collect_segmentation_tensors(trained.network, trained.prior),
        partial(build_segmenter, engine="torch"),
    )
    return output_path


def prepare_output_folder(output_path: Path) -> None:
    """Create the folder of a weights file before hours of training, and remove temporary files of a killed run.

    Raises FileWriteError if the folder cannot be written.
    """
    check_writable(output_path.parent)
    remove_leftovers(output_path.parent)
    remove_leftovers(output_path.with_suffix(".work"), recursive=True)


def collect_segmentation_tensors(network: torch.nn.Module, prior: Tensor) -> dict[str, Tensor]:
    """Collect the network's weights and its FPG ``(H, W)`` under the names of a weights file."""
    return {**{f"segmentation/{k}": v for k, v in network.state_dict().items()}, "prior": prior}


def learn_known_range(weights: Weights, cohort: Cohort, patients: Sequence[str]) -> Weights:
    """Return weights that state what these training patients look like, see ``known_range``.

    Without it if fewer than ``known_range.MIN_PATIENTS`` of them have both sequences and a lesion mask.
    """
    LOG.info("measuring the images of the training patients")
    sequences = [MRSequence(name) for name in weights.card.sequences]
    known_range = fit_cohort_range(cohort, patients, sequences)
    tensors = {name: tensor for name, tensor in weights.tensors.items() if name != KNOWN_RANGE_TENSOR}
    if known_range is not None:
        tensors[KNOWN_RANGE_TENSOR] = known_range.to_array()
    return replace(weights, tensors=tensors)


def add_known_range(weights: Weights, cohort: Cohort, output_path: Path) -> None:
    """Write a weights file with what its training patients look like; nothing else in it is changed.

    Parameters
    ----------
    weights
        The model.
    cohort
        The prepared cohort on which it was trained.
    output_path
        The weights file to write; may be the model's own.

    Raises
    ------
    CohortError
        If the cohort was prepared differently, or has too few of the patients on whom the model was trained.
    """
    card = weights.card
    if cohort.preparation != PreparationConfig(**card.preparation):
        raise CohortError(message("cohort-other-preparation", cohort=cohort.folder.name))
    learned = learn_known_range(weights, cohort, card.training_patients)
    if KNOWN_RANGE_TENSOR not in learned.tensors:
        raise CohortError(message("range-too-few-patients", cohort=cohort.folder.name, least=MIN_PATIENTS))
    save_weights(output_path, card, learned.tensors, partial(build_model, engine="torch"))


def create_segmentation_card(
    name: str,
    cohort: Cohort,
    folds: CohortFolds,
    trained_on: Sequence[str],
    rule: str,
    config: SegmentationTrainingConfig,
) -> ModelCard:
    """Create the card of a new segmentation network, without licence or performance; the cohort's owner adds them."""
    kind = "synthetic patients" if cohort.is_synthetic else "patients"
    return ModelCard(
        name=name,
        sequences=get_cohort_sequences(cohort),
        rule=rule,
        segmentation=SegmentationCard(
            network=to_network_record(config.network),
            tile=config.augmentation.crop,
            pool=config.pool,
            context=config.context,
            flips=False,
            smallest_share=0.0,
        ),
        segmentation_threshold=0.5,
        smallest_lesion_ml=0.5,
        training_cohort=f"{cohort.folder.name} ({len(trained_on)} {kind})",
        training_patients=tuple(trained_on),
        folds_sha256=folds.sha256,
        licence=message("licence-not-stated"),
        intended_use=message("intended-use-research"),
        segmentation_performance="not measured",
        versions={package: version(package) for package in RECORDED_PACKAGES},
        preparation=cohort.metadata["settings"],
        is_synthetic=cohort.is_synthetic,
        training_cohort_id=cohort.cohort_id,
    )


def select_training_patients(card: ModelCard, cohort: Cohort) -> set[str]:
    """Select the patients of a cohort on whom a network of the model was trained, by their ids.

    An id that a build assigned means another patient if the model was trained in another cohort.
    """
    trained_on = {
        patient
        for patient, cohort_id in card.list_training_patients()
        if not is_new_id(patient) or "" in (cohort_id, cohort.cohort_id) or cohort_id == cohort.cohort_id
    }
    return trained_on.intersection(cohort.prepared_ids)


def update_inference_settings(
    card: ModelCard, uses_mirroring: bool, min_component_share: float, pooling_factor: float
) -> ModelCard:
    """Return the card with other inference settings, see ``inference.segmenter.Segmenter``."""
    segmentation = replace(
        card.segmentation, flips=uses_mirroring, smallest_share=min_component_share, pool=pooling_factor
    )
    return replace(card, segmentation=segmentation)


def run_marker_training(
    cohort_folder: Path,
    segmentation_file: Path,
    output_path: Path,
    markers: Sequence[str],
    recipe: Recipe,
    epochs: int,
    network: str | None = None,
    distribution: TrainingDistribution = TrainingDistribution(),
) -> Weights | None:
    """Train and cross-validate marker networks and write a weights file (``gliomark train markers``).

    Parameters
    ----------
    cohort_folder
        The prepared cohort.
    segmentation_file
        Weights file of the segmentation network, which is included in the new file.
    output_path
        The weights file to write.
    markers
        Markers as ``parse_marker_definition`` accepts them.
    recipe
        The recipe.
    epochs
        Number of epochs.
    network
        Name of the network in the registry; None: the recipe's own.
    distribution
        How the trainings are distributed.

    Returns
    -------
    Weights | None
        The new file, loaded; None on another node than node 0, which writes it.

    Raises
    ------
    ConfigurationError
        If the recipe or the network is unknown, the network does not have the recipe, or the batches cannot be split
        over the processes.
    CohortError
        If the segmentation network was trained on test patients or with other sequences or another preparation.
    """
    entry = choose_marker_entry(recipe, network)
    config, layout = create_marker_config(recipe, epochs, entry), distribution.layout
    check_marker_layout(layout, config)
    cohort, weights = Cohort(cohort_folder), load_weights(segmentation_file)
    if get_node(layout) == 0:
        prepare_output_folder(output_path)
    _check_same_preparation(cohort, weights)
    folds = load_cohort_folds(cohort)
    if select_training_patients(weights.card, cohort) & set(folds.test):
        raise CohortError(
            f"{segmentation_file} was trained on test patients of {cohort_folder}; train it on these folds."
        )
    build_segmenter(weights, engine="torch")  # raises before hours of training if the network is unusable
    trained: dict[str, tuple[TrainedMarker, MarkerCard]] = {}
    training_folds, work_folder = (
        TrainingFolds(folds.development_folds, folds.test),
        output_path.with_suffix(".work"),
    )
    definitions = [parse_marker_definition(text) for text in markers]
    names = [definition.name for definition in definitions]
    if len(set(names)) < len(names):
        raise ConfigurationError(message("markers-same-name", names=", ".join(names)))
    known = {definition.name: read_labels_and_values(cohort, definition) for definition in definitions}
    if distribution.is_distributed:
        for definition in definitions:
            jobs = list_network_jobs(cohort, training_folds, definition, config, work_folder)
            train_networks(jobs, distribution)
        if get_node(layout) > 0:
            return None
    for definition in definitions:
        arguments = (cohort, training_folds, definition, *known[definition.name], config, work_folder)
        marker = train_marker(*arguments)
        card = create_validated_card(marker, cross_validate_marker(*arguments))
        if not set(marker.trained_on) <= select_training_patients(weights.card, cohort):
            card = replace(card, training_patients=marker.trained_on, training_cohort_id=cohort.cohort_id)
        trained[definition.name] = (marker, card)
    weights = learn_known_range(weights, cohort, folds.development)
    is_synthetic = weights.card.is_synthetic or cohort.is_synthetic
    save_model(output_path, weights, trained, name=output_path.stem, is_synthetic=is_synthetic)
    return load_weights(output_path)


def _check_same_preparation(cohort: Cohort, weights: Weights) -> None:
    """Raise CohortError if the cohort was not prepared as the segmentation network needs."""
    sequences = tuple(MRSequence(name) for name in weights.card.sequences)
    if get_cohort_sequences(cohort) != sequences:
        raise CohortError(
            message(
                "cohort-other-sequences",
                cohort=cohort.folder.name,
                prepared=" + ".join(get_cohort_sequences(cohort)),
                needed=" + ".join(sequences),
            )
        )
    if cohort.preparation != PreparationConfig(**weights.card.preparation):
        raise CohortError(message("cohort-other-preparation", cohort=cohort.folder.name))


@functools.lru_cache(maxsize=8)
def _find_patients_with_mask(cohort: Cohort, arrays: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Find the patients with a lesion mask; remembered, because a slice of each is read.

    arrays: patients, each with the hash of its arrays.
    """
    return tuple(patient for patient, _ in arrays if cohort.has_mask(patient))


def read_labels_and_values(
    cohort: Cohort, definition: MarkerDefinition
) -> tuple[dict[str, int], dict[str, float]]:
    """Read a marker's labels, and the numbers from which they are derived, by patient.

    Patients without a lesion mask are left out, because networks are trained on the slices with lesion.

    Raises
    ------
    CohortError
        If the cohort has no such column, or no patients of both classes with a mask.
    """
    sequences = get_cohort_sequences(cohort)
    values = read_marker_values(cohort, definition.column, sequences)
    for patient, value in values.items():
        definition.label_patient(patient, value)
    labels = read_marker_labels(cohort, definition.column, definition.threshold, sequences)
    arrays = tuple((p, cohort.read_patient_record(p).get("arrays_sha256", "")) for p in labels)
    with_mask = _find_patients_with_mask(cohort, arrays)
    if len({labels[patient] for patient in with_mask}) < 2:
        raise CohortError(
            message(
                "marker-without-masks", marker=definition.title, labelled=len(labels), drawn=len(with_mask)
            )
        )
    return {p: labels[p] for p in with_mask}, {p: values[p] for p in with_mask}


@dataclass(frozen=True)
class NetworkJob:
    """The training of one network of a marker: its patients, and the folder of the marker's networks."""

    cohort_folder: Path
    definition: MarkerDefinition
    patients: tuple[str, ...]
    config: MarkerTrainingConfig
    work_folder: Path


def list_network_jobs(
    cohort: Cohort,
    training_folds: TrainingFolds,
    definition: MarkerDefinition,
    config: MarkerTrainingConfig,
    work_folder: Path,
) -> list[NetworkJob]:
    """List the networks that ``train_marker`` and ``cross_validate_marker`` need.

    They are trained on all patients, on all but one fold, and, for the cross-validation, on all but two folds.
    """
    labels, _ = read_labels_and_values(cohort, definition)
    training_folds = training_folds.restrict_to(labels)
    most_left_out = 2 if can_cross_validate(training_folds, labels) else 1
    return [
        NetworkJob(
            cohort.folder.absolute(),
            definition,
            tuple(p for p in training_folds.patients if not any(p in fold for fold in left_out)),
            config,
            work_folder.absolute(),
        )
        for count in range(most_left_out + 1)
        for left_out in combinations(training_folds.folds, count)
    ]


def train_networks(jobs: Sequence[NetworkJob], distribution: TrainingDistribution) -> None:
    """Train networks: all at the same time on workers, or one after the other, each on several devices.

    Raises
    ------
    GliomarkError
        The error of a training.
    """
    finished: list[NetworkJob] = []

    def report(job: NetworkJob, _: None = None) -> None:
        finished.append(job)
        LOG.info("%s: %d of %d networks are trained", job.definition.title, len(finished), len(jobs))

    if distribution.layout.count == 1:
        run_jobs(jobs, train_network, report, distribution.workers, distribution.scheduler)
        return
    for job in jobs:
        train_network(job, distribution.layout)
        report(job)


def train_network(job: NetworkJob, layout: ProcessLayout = ONE_PROCESS) -> None:
    """Train a network, or continue its training, in the folder in which ``train_marker`` looks for it.

    Raises
    ------
    CohortError
        If the cohort cannot be used, or the folder belongs to another run.
    """
    cohort, definition = Cohort(job.cohort_folder), job.definition
    labels, values = read_labels_and_values(cohort, definition)
    dataset = load_lesion_slice_dataset(
        cohort, {p: labels[p] for p in job.patients}, get_cohort_sequences(cohort), values
    )
    folder = build_network_folder(job.work_folder, definition, labels, values, job.patients, job.config)
    train_marker_network(dataset, job.config, folder, layout)


@dataclass(frozen=True)
class MarkerCrossValidation:
    """What the out-of-fold predictions of a recipe show: the AUC with its interval, and the calibration."""

    validation: MarkerValidation
    calibration: PatientCalibration


def create_validated_card(marker: TrainedMarker, result: MarkerCrossValidation | None) -> MarkerCard:
    """Create the marker's card with the result of ``cross_validate_marker``, as numbers and as text."""
    if result is None:
        return marker.create_card("not measured: one class has too few patients")
    v = result.validation
    card = marker.create_card(
        f"AUC {v.auc:.2f} (conservative 95 % interval {v.low:.2f} to {v.high:.2f}) of the same recipe on {v.patients} "
        f"patients of {v.cohort} ({v.positives} positive), each never trained on, outlines drawn, mean of the slices "
        "around the largest lesion; the final model is refitted on all of them",
        validation=v,
    )
    return add_patient_calibration(card, result.calibration)


@dataclass(frozen=True, eq=False)
class TrainedMarker:
    """A marker's final network and trees, with the out-of-fold vectors of its training patients.

    threshold: Youden's threshold of the probabilities (near) of those patients from ``cross_fit_trees``.
    """

    definition: MarkerDefinition
    config: MarkerTrainingConfig
    network: torch.nn.Module
    classifier: SliceClassifier
    out_of_fold: Mapping[str, PatientVectors]
    labels: Mapping[str, int]
    trained_on: tuple[str, ...]
    threshold: float

    def create_card(
        self, performance: str = "not measured", validation: MarkerValidation | None = None
    ) -> MarkerCard:
        """Create the marker's card with its held-out performance, as text and as numbers."""
        d = self.definition
        architecture = MarkerNetworkCard(
            network=to_network_record(self.config.network),
            crop=self.classifier.crop_size,
            evidence=self.classifier.tree_features,
        )
        return MarkerCard(
            column=d.column,
            title=d.title,
            positive=d.positive,
            negative=d.negative,
            label=d.label,
            threshold=self.threshold,
            age_cut=self.classifier.age_cut,
            architecture=architecture,
            performance=performance,
            validation=validation,
            label_threshold=d.threshold,
        )

    def predict_patients(self, cohort: Cohort, patients: Sequence[str]) -> dict[str, float]:
        """Predict probabilities (near, by manual masks) of patients who were not trained on.

        Patients without a label or without a lesion slice are left out. Raises CohortError if one was trained on.
        """
        c, labels = self.classifier, self.labels
        labelled = [p for p in patients if p in labels]
        vectors = compute_held_out_vectors(
            self.network, cohort, labels, labelled, self.trained_on, c.sequences, c.crop_size
        )
        slice_probabilities = {
            p: v.predict_slice_probability(c.trees, c.age_cut, c.tree_features) for p, v in vectors.items()
        }
        return dict(
            zip(slice_probabilities, fuse_near_probabilities(vectors, slice_probabilities)[1], strict=True)
        )


def train_marker(
    cohort: Cohort,
    training_folds: TrainingFolds,
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    config: MarkerTrainingConfig,
    work_folder: Path,
) -> TrainedMarker:
    """Train one network per fold, LightGBM on the out-of-fold vectors, and a final network on all patients.

    Image features of the trees and threshold are chosen by ``cross_fit_trees``. Networks are stored in the work
    folder, see ``build_network_folder``, so that several calls can share them.

    Parameters
    ----------
    cohort
        The prepared cohort.
    training_folds
        Folds to train on, and patients to exclude.
    definition
        The marker.
    labels
        0 or 1 by patient.
    values
        The numbers from which the labels were derived; the pretrained recipe is fitted to them.
    config
        Configuration of the networks.
    work_folder
        Folder of the checkpoints.

    Raises
    ------
    CohortError
        If there are too few patients for three folds.
    """
    sequences, crop = get_cohort_sequences(cohort), config.augmentation.crop
    training_folds = training_folds.restrict_to(labels)
    all_patients = training_folds.patients
    if len(training_folds.folds) < MIN_FOLDS:
        raise CohortError(
            message("marker-too-few-patients", marker=definition.title, patients=len(all_patients))
        )
    slice_dataset = load_lesion_slice_dataset(cohort, {p: labels[p] for p in all_patients}, sequences, values)
    check_disjoint({"to be trained on": set(slice_dataset.patient_ids), "kept back": training_folds.excluded})

    def train_on(patients: Sequence[str]) -> torch.nn.Module:
        folder = build_network_folder(work_folder, definition, labels, values, patients, config)
        return train_marker_network(slice_dataset.select_patients(patients), config, folder)

    out_of_fold: dict[str, PatientVectors] = {}
    for number, fold in enumerate(training_folds.folds, start=1):
        LOG.info("%s: training without part %d of %d", definition.title, number, len(training_folds.folds))
        rest = [p for p in all_patients if p not in fold]
        network = train_on(rest)
        out_of_fold |= compute_held_out_vectors(network, cohort, labels, fold, rest, sequences, crop)
    LOG.info("%s: training on %d patients", definition.title, len(all_patients))
    final = train_on(all_patients)
    slice_probabilities = {
        evidence: cross_fit_trees(out_of_fold, training_folds, StackingConfig(tree_features=evidence))
        for evidence in get_args(TreeFeatures)
    }
    # the trees' image features are chosen on training patients only
    evidence = max(
        slice_probabilities,
        key=lambda name: auc(*fuse_near_probabilities(out_of_fold, slice_probabilities[name])),
    )
    *train, stop = training_folds.folds
    trees, age_cut = _fit_trees_on(
        out_of_fold, [p for fold in train for p in fold], stop, StackingConfig(tree_features=evidence)
    )
    threshold = compute_youden_threshold(*fuse_near_probabilities(out_of_fold, slice_probabilities[evidence]))
    classifier = SliceClassifier(wrap_marker_network(final.eval()), trees, sequences, crop, age_cut, evidence)
    return TrainedMarker(definition, config, final, classifier, out_of_fold, labels, all_patients, threshold)


def cross_validate_marker(
    cohort: Cohort,
    training_folds: TrainingFolds,
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    config: MarkerTrainingConfig,
    work_folder: Path,
) -> MarkerCrossValidation | None:
    """Cross-validate the recipe; return its AUC with a conservative interval, and the patient-level calibration.

    Each fold is predicted by ``train_marker`` on the other folds only, so that its patients influence no network, tree
    or choice. This requires an additional network per pair of folds, stored in the work folder. Returns
    None if a class has too few patients. The parameters are those of ``train_marker``.
    """
    training_folds = training_folds.restrict_to(labels)
    if not can_cross_validate(training_folds, labels):
        return None
    probabilities: dict[str, float] = {}
    for number, fold in enumerate(training_folds.folds):
        LOG.info(
            "%s: cross-validation, fold %d of %d", definition.title, number + 1, len(training_folds.folds)
        )
        others = tuple(one for n, one in enumerate(training_folds.folds) if n != number)
        rest = TrainingFolds(others, (*training_folds.excluded, *fold))
        probabilities |= train_marker(
            cohort, rest, definition, labels, values, config, work_folder
        ).predict_patients(cohort, fold)
    truth = [labels[p] for p in probabilities]
    if len(set(truth)) < 2:
        return None
    scores, name = list(probabilities.values()), cohort.folder.name
    interval = compute_conservative_auc_interval(truth, scores)
    validation = MarkerValidation(
        interval.value, interval.lower, interval.upper, len(truth), sum(truth), name
    )
    return MarkerCrossValidation(validation, calibrate_marker(truth, scores, name))


def can_cross_validate(training_folds: TrainingFolds, labels: Mapping[str, int]) -> bool:
    """Whether both classes remain when any two folds are left out, as for the networks behind the trees."""
    pairs = combinations(range(len(training_folds.folds)), 2)
    remaining = [
        {labels[p] for n, fold in enumerate(training_folds.folds) if n not in pair for p in fold}
        for pair in pairs
    ]
    return len(training_folds.folds) > MIN_FOLDS and all(len(classes) == 2 for classes in remaining)


def build_network_folder(
    work_folder: Path,
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    patients: Sequence[str],
    config: MarkerTrainingConfig,
) -> Path:
    """Return a network's folder, named by a hash of all that determines its weights, so that recipes are not mixed."""
    identity = [sorted((p, labels[p], values[p]) for p in patients), to_config_record(config)]
    return work_folder / definition.name / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def fuse_near_probabilities(
    vectors: Mapping[str, PatientVectors],
    slice_probabilities: Mapping[str, NDArray[np.float64]],
) -> tuple[list[int], list[float]]:
    """Return labels and probabilities (near) of patients from their slice probabilities ``(S,)``."""
    labels = [vectors[p].label for p in slice_probabilities]
    return labels, [vectors[p].fuse_probability(one, "near") for p, one in slice_probabilities.items()]


def _fit_trees_on(
    vectors: Mapping[str, PatientVectors],
    train: Sequence[str],
    validation: Sequence[str],
    config: StackingConfig,
) -> tuple[lightgbm.Booster, float | None]:
    """Fit trees with early stopping on other patients; return them with the age cut of the training patients."""
    fitted = {p: v for p, v in vectors.items() if p in train}
    age_cut = compute_age_cut(list(fitted.values())) if config.uses_clinical_data else None
    return fit_trees(fitted, {p: v for p, v in vectors.items() if p in validation}, age_cut, config), age_cut


def cross_fit_trees(
    vectors: Mapping[str, PatientVectors], training_folds: TrainingFolds, config: StackingConfig
) -> dict[str, NDArray[np.float64]]:
    """Predict slice probabilities ``(S,)`` of the training patients with trees fitted on other folds.

    Only for choosing among settings: the vectors of those trees come from networks that were trained on the patient's
    fold.
    """
    slice_probabilities: dict[str, NDArray[np.float64]] = {}
    for number, fold in enumerate(training_folds.folds):
        stop = training_folds.folds[(number + 1) % len(training_folds.folds)]
        rest = [p for p in vectors if p not in fold and p not in stop]
        trees, age_cut = _fit_trees_on(vectors, rest, stop, config)
        slice_probabilities |= {
            p: vectors[p].predict_slice_probability(trees, age_cut, config.tree_features)
            for p in fold
            if p in vectors
        }
    return slice_probabilities


def save_model(
    output_path: Path,
    weights: Weights,
    markers: Mapping[str, tuple[TrainedMarker, MarkerCard]],
    **card_fields: Any,
) -> None:
    """Write segmentation and markers to one weights file; card_fields: fields to replace in the segmentation's card.

    Markers that the weights of the segmentation hold already are replaced.
    """
    earlier = tuple(f"{name}/" for name in weights.card.markers)
    tensors: dict[str, ArrayLike] = {n: t for n, t in weights.tensors.items() if not n.startswith(earlier)}
    for name, (marker, _) in markers.items():
        tensors |= {f"{name}/{k}": v for k, v in marker.network.state_dict().items()}
        text = marker.classifier.trees.model_to_string(num_iteration=marker.classifier.trees.best_iteration)
        tensors[f"{name}/lightgbm"] = np.frombuffer(text.encode(), np.uint8)
    cards = {name: record for name, (_, record) in markers.items()}
    check = partial(build_model, engine="torch")
    save_weights(output_path, replace(weights.card, markers=cards, **card_fields), tensors, check)
