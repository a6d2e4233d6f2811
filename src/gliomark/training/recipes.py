"""The two training commands: cohort in, one weights file out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import get_args

import lightgbm
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from torch import Tensor

from gliomark.cohort.folds import Folds, Learning, check_disjoint, cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.evaluation.calibration import recalibration
from gliomark.evaluation.cautious import cautious_area
from gliomark.evaluation.metrics import auc, youden_threshold
from gliomark.files import check_writable, remove_leftovers
from gliomark.inference.segmenter import RULES, seen_sequences
from gliomark.inference.slice_classifier import UNCALIBRATED, Evidence, SliceClassifier, calibrated
from gliomark.messages import message
from gliomark.models.card import check_marker_name
from gliomark.models.marker_networks import marker_network_record
from gliomark.models.segmentation_networks import network_record
from gliomark.models.weights import (
    MarkerCard,
    MarkerValidation,
    ModelCard,
    Weights,
    load_weights,
    save_weights,
)
from gliomark.pipeline import build_model, build_segmenter
from gliomark.study import GliomarkError, MRSequence
from gliomark.training import classification, segmentation
from gliomark.training.classification import (
    MarkerTraining,
    known_labels,
    known_values,
    load_lesion_bank,
    train_marker_network,
)
from gliomark.training.segmentation import SegmentationTraining, train_segmentation
from gliomark.training.slice_bank import load_bank
from gliomark.training.stacking import (
    PatientVectors,
    StackingTraining,
    fit_trees,
    patient_vectors,
    training_age_cut,
)

FEWEST_FOLDS = 3  # one is judged by trees that were fitted on a second and stopped by a third
SEGMENTATION_SIZES = ("published", "small", "light")
MARKER_SIZES = ("published", "small", "light")
PACKAGES = ("gliomark", "torch", "monai", "lightgbm", "numpy", "scikit-learn", "SimpleITK", "deepbet")


@dataclass(frozen=True)
class MarkerDefinition:
    """How a clinical column becomes a marker, in words a reader can check."""

    name: str
    column: str
    threshold: float
    title: str
    positive: str
    negative: str
    label: str


DEFINITIONS = {
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


def marker_definition(text: str) -> MarkerDefinition:
    """A known marker's name or column, or ``column`` (0/1), or ``column>=threshold``. Raises GliomarkError."""
    for name, known in DEFINITIONS.items():
        if text in (name, known.column):
            return known
    column, _, cut = (part.strip() for part in text.partition(">="))
    try:
        threshold = float(cut) if cut else 0.5
    except ValueError:
        raise GliomarkError(f"'{text}' must be a marker, a column of 0 and 1, or column>=number.") from None
    check_marker_name(column)
    return MarkerDefinition(
        column,
        column,
        threshold,
        column,
        "positive",
        "negative",
        f"positive: {column} is at least {threshold:g}",
    )


def cohort_sequences(cohort: Cohort) -> tuple[MRSequence, ...]:
    """The pair that the cohort was prepared for, the reference last."""
    return tuple(MRSequence(name) for name in cohort.about["sequences"])


def segmentation_recipe(folder: Path, out: Path, rule: str, size: str, epochs: int) -> Path:
    """``gliomark train segmentation``: trained on everybody but the test patients, the falling rate ends it."""
    if rule not in RULES:
        raise GliomarkError(f"The rule '{rule}' is unknown; it must be one of {', '.join(RULES)}.")
    cohort = Cohort(folder)
    prepare_place(out)
    folds, sequences = cohort_folds(cohort), cohort_sequences(cohort)
    joint = rule == "joint"
    seen = seen_sequences(sequences, rule)
    settings = segmentation_settings(size, len(seen) if joint else 1, epochs)
    learnt, stopping = settings.parts(folds.train, folds.validation)
    bank = load_bank(cohort, learnt, seen, joint, settings.context)
    validation = None
    if stopping:
        validation = load_bank(cohort, stopping, seen, joint, settings.context)
    trained = train_segmentation(bank, settings, out.with_suffix(".work"), validation)
    card = segmentation_card(out.stem, cohort, folds, learnt, rule, settings)
    if size == "light":
        card = read_as(card, True, segmentation.SMALLEST_SHARE, segmentation.READ_POOL)
    save_weights(out, card, segmentation_tensors(trained.network, trained.prior), build_segmenter)
    return out


def prepare_place(out: Path) -> None:
    """Make the folder of a weights file before hours of training, and remove what a killed run left there.

    Raises GliomarkError if it cannot be written.
    """
    check_writable(out.parent)
    remove_leftovers(out.parent)
    remove_leftovers(out.with_suffix(".work"), below=True)


def _check_size(size: str, sizes: Sequence[str]) -> None:
    if size not in sizes:
        raise GliomarkError(f"The size '{size}' is unknown; it must be {' or '.join(sizes)}.")


def segmentation_settings(size: str, inputs: int, epochs: int) -> SegmentationTraining:
    """MIG-Net in the published or the small size, or the demonstration weights' light recipe.

    Raises GliomarkError for another.
    """
    _check_size(size, SEGMENTATION_SIZES)
    if size == "light":
        return segmentation.light_training(inputs, epochs)
    if size == "small":
        return segmentation.small_training(inputs, epochs)
    default = SegmentationTraining(epochs=epochs)
    return replace(default, network=replace(default.network, inputs=inputs))


def segmentation_tensors(network: torch.nn.Module, prior: Tensor) -> dict[str, Tensor]:
    """The network's weights and its FPG under the names of a weights file."""
    return {**{f"segmentation/{k}": v for k, v in network.state_dict().items()}, "prior": prior}


def segmentation_card(
    name: str,
    cohort: Cohort,
    folds: Folds,
    trained_on: Sequence[str],
    rule: str,
    settings: SegmentationTraining,
) -> ModelCard:
    """A card that claims nothing yet: licence and use are the cohort owner's to state."""
    return ModelCard(
        name=name,
        sequences=cohort_sequences(cohort),
        rule=rule,
        segmentation={
            "network": network_record(settings.network),
            "tile": settings.augmentation.crop,
            "pool": settings.pool,
            "context": settings.context,
            "flips": False,
            "smallest_share": 0.0,
        },
        segmentation_threshold=0.5,
        smallest_lesion_ml=0.5,
        training_cohort=f"{cohort.folder.name} ({len(trained_on)} patients)",
        training_patients=tuple(trained_on),
        folds_sha256=folds.sha256,
        licence=message("licence-not-stated"),
        intended_use=message("intended-use-research"),
        segmentation_performance="not measured",
        versions={package: version(package) for package in PACKAGES},
        preparation=cohort.about["settings"],
    )


def read_as(card: ModelCard, flips: bool, smallest_share: float, pool: float) -> ModelCard:
    """The card of a network that is to be read so; what is said is as in ``Segmenter``."""
    reading = {"flips": flips, "smallest_share": smallest_share, "pool": pool}
    return replace(card, segmentation={**card.segmentation, **reading})


def markers_recipe(
    folder: Path, segmentation_file: Path, out: Path, markers: Sequence[str], size: str, epochs: int
) -> Weights:
    """``gliomark train markers``: KiNet and LightGBM for each marker, measured on patients they never saw, added to
    the segmentation's file; what was written."""
    cohort, weights = Cohort(folder), load_weights(segmentation_file)
    prepare_place(out)
    folds = cohort_folds(cohort)
    if set(weights.card.training_patients) & set(folds.test):
        raise GliomarkError(
            f"{segmentation_file} was trained on test patients of {folder}; train it on these folds."
        )
    build_segmenter(weights)  # before hours of training: what it cannot do
    settings = marker_settings(size, epochs)
    trained: dict[str, tuple[TrainedMarker, MarkerCard]] = {}
    learning, work = Learning(folds.development_folds, folds.test), out.with_suffix(".work")
    for definition in map(marker_definition, markers):
        sequences = cohort_sequences(cohort)
        labels = known_labels(cohort, definition.column, definition.threshold, sequences)
        values = known_values(cohort, definition.column, sequences)
        told = (cohort, learning, definition, labels, values, settings, work)
        marker = train_marker(*told)
        trained[definition.name] = (marker, measured_card(marker, validate_marker(*told)))
    save_model(out, weights, trained)
    return load_weights(out)


def measured_card(marker: TrainedMarker, validation: MarkerValidation | None) -> MarkerCard:
    """The marker's card with what ``validate_marker`` found, as numbers and in words."""
    v = validation
    if v is None:
        return marker.card("not measured: one class has too few patients")
    return marker.card(
        f"AUC {v.auc:.2f} (conservative 95 % interval {v.low:.2f} to {v.high:.2f}) of the same recipe on {v.patients} "
        f"patients of {v.cohort} ({v.positives} positive), each never trained on, outlines drawn, mean of the slices "
        "around the largest lesion; the final model is refitted on all of them",
        validation=v,
    )


def marker_settings(size: str, epochs: int) -> MarkerTraining:
    """The published or the small size, or the demonstration weights' light recipe, which has no epochs.

    Raises GliomarkError for another.
    """
    _check_size(size, MARKER_SIZES)
    if size == "light":
        return classification.light_training()
    return classification.small_training(epochs) if size == "small" else MarkerTraining(epochs=epochs)


@dataclass(frozen=True, eq=False)
class TrainedMarker:
    """A marker's final network and LightGBM, and the out-of-fold vectors of the patients behind them.

    threshold: Youden's, on calibrated Near answers of those patients by ``cross_fitted``.
    """

    definition: MarkerDefinition
    settings: MarkerTraining
    classifier: SliceClassifier
    out_of_fold: Mapping[str, PatientVectors]
    labels: Mapping[str, int]
    trained_on: tuple[str, ...]
    threshold: float

    def card(
        self, performance: str = "not measured", validation: MarkerValidation | None = None
    ) -> MarkerCard:
        """The marker's card with its held-out performance, in words and as numbers."""
        d = self.definition
        architecture = {
            "network": marker_network_record(self.settings.network),
            "crop": self.classifier.crop,
            "evidence": self.classifier.evidence,
        }
        return MarkerCard(
            column=d.column,
            title=d.title,
            positive=d.positive,
            negative=d.negative,
            label=d.label,
            threshold=self.threshold,
            age_cut=self.classifier.age_cut,
            architecture=architecture,
            calibration=self.classifier.calibration,
            performance=performance,
            validation=validation,
        )

    def answers(self, cohort: Cohort, patients: Sequence[str]) -> dict[str, float]:
        """Near's calibrated answer, on drawn outlines, of patients whom the marker never saw (checked).

        Who is not labelled or has no lesion slice is left out.
        """
        c, labels = self.classifier, self.labels
        asked = [p for p in patients if p in labels]
        seen = patient_vectors(c.network, cohort, labels, asked, self.trained_on, c.sequences, c.crop)
        judged = {p: v.slice_probability(c.trees, c.age_cut, c.evidence) for p, v in seen.items()}
        return dict(zip(judged, near_answers(seen, judged, c.calibration)[1], strict=True))


def train_marker(
    cohort: Cohort,
    learning: Learning,
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    settings: MarkerTraining,
    work: Path,
) -> TrainedMarker:
    """A network per fold of ``learning``, LightGBM on the out-of-fold vectors, a network on everybody.

    values: the numbers behind the labels, which the light recipe learns from.
    The kind of evidence, the calibration and the threshold come from what ``cross_fitted`` gives. Networks are
    kept under ``work``, see ``network_folder``, so that two calls may share them.
    """
    sequences, crop = cohort_sequences(cohort), settings.augmentation.crop
    learning = learning.only(labels)
    everybody = learning.patients
    if len(learning.folds) < FEWEST_FOLDS:
        raise GliomarkError(
            message("marker-too-few-patients", marker=definition.title, patients=len(everybody))
        )
    bank = load_lesion_bank(cohort, {p: labels[p] for p in everybody}, sequences, values)
    check_disjoint({"to be trained on": set(bank.patient_ids), "kept back": learning.kept_back})

    def trained_on(patients: Sequence[str]) -> torch.nn.Module:
        folder = network_folder(work, definition, labels, values, patients, settings)
        return train_marker_network(bank.of(patients), settings, folder)

    out_of_fold: dict[str, PatientVectors] = {}
    for fold in learning.folds:
        rest = [p for p in everybody if p not in fold]
        network = trained_on(rest)
        out_of_fold |= patient_vectors(network, cohort, labels, fold, rest, sequences, crop)
    final = trained_on(everybody)
    judged = {
        evidence: cross_fitted(out_of_fold, learning, StackingTraining(evidence=evidence))
        for evidence in get_args(Evidence)
    }
    # what the trees read of the image is decided by patients to learn from alone
    evidence = max(judged, key=lambda name: auc(*near_answers(out_of_fold, judged[name])))
    *train, stop = learning.folds
    trees, age_cut = _fit_on(
        out_of_fold, [p for fold in train for p in fold], stop, StackingTraining(evidence=evidence)
    )
    calibration = platt(*near_answers(out_of_fold, judged[evidence]))
    threshold = youden_threshold(*near_answers(out_of_fold, judged[evidence], calibration))
    classifier = SliceClassifier(final.eval(), trees, sequences, crop, age_cut, evidence, calibration)
    return TrainedMarker(definition, settings, classifier, out_of_fold, labels, everybody, threshold)


def validate_marker(
    cohort: Cohort,
    learning: Learning,
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    settings: MarkerTraining,
    work: Path,
) -> MarkerValidation | None:
    """How well the recipe tells the marker on patients it never saw, with a conservative interval.

    Each fold is answered by ``train_marker`` on the other folds alone: no network, tree, calibration or choice saw its
    patients. That takes a network per pair of folds besides, kept under ``work`` like the others. None where a class
    has too few patients to be left out so.
    """
    learning = learning.only(labels)
    if not _can_be_left_out(learning, labels):
        return None
    answers: dict[str, float] = {}
    for number, fold in enumerate(learning.folds):
        others = tuple(one for n, one in enumerate(learning.folds) if n != number)
        rest = Learning(others, (*learning.kept_back, *fold))
        answers |= train_marker(cohort, rest, definition, labels, values, settings, work).answers(
            cohort, fold
        )
    truth = [labels[p] for p in answers]
    if len(set(truth)) < 2:
        return None
    area = cautious_area(truth, list(answers.values()))
    return MarkerValidation(area.value, area.low, area.high, len(truth), sum(truth), cohort.folder.name)


def _can_be_left_out(learning: Learning, labels: Mapping[str, int]) -> bool:
    """Whether both classes remain without any two folds, which is the least that a network behind the trees sees."""
    pairs = combinations(range(len(learning.folds)), 2)
    remaining = [
        {labels[p] for n, fold in enumerate(learning.folds) if n not in pair for p in fold} for pair in pairs
    ]
    return len(learning.folds) > FEWEST_FOLDS and all(len(classes) == 2 for classes in remaining)


def network_folder(
    work: Path,
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    patients: Sequence[str],
    settings: MarkerTraining,
) -> Path:
    """A network's folder: a hash of what decides its weights, so that no other recipe's checkpoint goes on in it."""
    decides = [sorted((p, labels[p], values[p]) for p in patients), asdict(settings)]
    return work / definition.name / hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def near_answers(
    vectors: Mapping[str, PatientVectors],
    judged: Mapping[str, NDArray[np.float64]],
    calibration: tuple[float, float] = UNCALIBRATED,
) -> tuple[list[int], list[float]]:
    """Labels and calibrated Near answers of the patients who were judged slice by slice."""
    labels = [vectors[p].label for p in judged]
    return labels, [vectors[p].fused(calibrated(one, calibration), "near") for p, one in judged.items()]


def platt(label: Sequence[int], probability: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope that calibrate the log-odds (Platt 1999); never a negative slope, which would turn the
    answers round: where they rank no better than chance, every probability becomes the share of positives."""
    found = recalibration(label, probability)
    if np.isnan(found.slope.value):
        return UNCALIBRATED
    if found.slope.value <= 0:
        return float(logit(np.mean(label))), 0.0
    return found.intercept.value, found.slope.value


def _fit_on(
    vectors: Mapping[str, PatientVectors],
    train: Sequence[str],
    stop: Sequence[str],
    settings: StackingTraining,
) -> tuple[lightgbm.Booster, float | None]:
    """Trees fitted on some patients and stopped by others, and the age cut of the first."""
    fitted = {p: v for p, v in vectors.items() if p in train}
    age_cut = training_age_cut(list(fitted.values())) if settings.metadata else None
    return fit_trees(fitted, {p: v for p, v in vectors.items() if p in stop}, age_cut, settings), age_cut


def cross_fitted(
    vectors: Mapping[str, PatientVectors], learning: Learning, settings: StackingTraining
) -> dict[str, NDArray[np.float64]]:
    """Patients to learn from, each judged slice by slice by trees of other folds.

    For choosing among settings only: the vectors behind those trees come from networks that did see the
    judged patient's fold.
    """
    judged: dict[str, NDArray[np.float64]] = {}
    for number, fold in enumerate(learning.folds):
        stop = learning.folds[(number + 1) % len(learning.folds)]
        rest = [p for p in vectors if p not in fold and p not in stop]
        trees, age_cut = _fit_on(vectors, rest, stop, settings)
        judged |= {
            p: vectors[p].slice_probability(trees, age_cut, settings.evidence) for p in fold if p in vectors
        }
    return judged


def save_model(
    out: Path, weights: Weights, markers: Mapping[str, tuple[TrainedMarker, MarkerCard]], **card
) -> None:
    """Segmentation and markers in one file. card: fields of the segmentation's card to replace."""
    tensors = dict(weights.tensors)
    for name, (marker, _) in markers.items():
        tensors |= {f"{name}/{k}": v for k, v in marker.classifier.network.state_dict().items()}
        text = marker.classifier.trees.model_to_string(num_iteration=marker.classifier.trees.best_iteration)
        tensors[f"{name}/lightgbm"] = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
    cards = {name: record for name, (_, record) in markers.items()}
    save_weights(out, replace(weights.card, markers=cards, **card), tensors, build_model)
