"""The whole cascade in five folds: no outline, vector, tree, calibration or threshold of a fold saw its patients.

What answers fold k is the recipe of ``train_marker`` on the other four folds, asked on the outlines that the
segmentation's fold k predicts. With the labels shuffled across patients it is the leak test of the whole chain.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.folds import FOLDS, check_disjoint, cohort_folds, learning_without
from gliomark.cohort.store import Cohort, write_json
from gliomark.evaluation.intervals import bootstrap
from gliomark.evaluation.metrics import at_threshold, auc, auc_within
from gliomark.experiments.place import Place
from gliomark.experiments.records import run_record, write_table
from gliomark.experiments.segmentation.study import FoldJob, Trial, trial_segmenter
from gliomark.experiments.sharing import run_jobs
from gliomark.inference.fusion import FusionRule
from gliomark.inference.slice_classifier import calibrated
from gliomark.models.weights import Weights, load_weights
from gliomark.study import GliomarkError
from gliomark.training.classification import (
    LesionBank,
    MarkerTraining,
    known_labels,
    known_values,
    load_lesion_bank,
    train_marker_network,
)
from gliomark.training.recipes import (
    MarkerDefinition,
    TrainedMarker,
    cohort_sequences,
    network_folder,
    train_marker,
)
from gliomark.training.stacking import PatientVectors, patient_vectors

FUSIONS: tuple[FusionRule, ...] = ("near", "all", "large")
CASCADE, ALONE = "light KiNet + LightGBM", "light KiNet alone"
SHUFFLED = "shuffled_labels"
Masks = Mapping[str, NDArray[np.bool_]]


def cascade_labels(
    cohort: Cohort, definition: MarkerDefinition, shuffle: int = 0
) -> tuple[dict[str, int], dict[str, float]]:
    """The marker's label and the number behind it, by patient; shuffle: a seed by which both are dealt to other
    patients, 0 not."""
    sequences = cohort_sequences(cohort)
    labels = known_labels(cohort, definition.column, definition.threshold, sequences)
    values = known_values(cohort, definition.column, sequences)
    if not shuffle:
        return labels, values
    patients = list(labels)
    giver = dict(zip(patients, np.random.default_rng(shuffle).permutation(patients).tolist(), strict=True))
    return {p: labels[giver[p]] for p in patients}, {p: values[giver[p]] for p in patients}


@dataclass(frozen=True)
class PeopleJob:
    """A network to be trained on some patients, under the name ``train_marker`` will look for it."""

    cohort: Path
    definition: MarkerDefinition
    labels: tuple[tuple[str, int], ...]
    values: tuple[tuple[str, float], ...]
    patients: tuple[str, ...]
    settings: MarkerTraining
    work: Path


def train_people(job: PeopleJob) -> dict:
    """Train the network; nothing where it is finished."""
    known = dict(job.labels), dict(job.values)
    folder = network_folder(job.work, job.definition, *known, job.patients, job.settings)
    train_marker_network(_bank(job.cohort, job.labels, job.values).of(job.patients), job.settings, folder)
    return {}


@functools.lru_cache(maxsize=1)
def _bank(
    folder: Path, labels: tuple[tuple[str, int], ...], values: tuple[tuple[str, float], ...]
) -> LesionBank:
    """Everybody's slices, read once for all of a marker's networks."""
    cohort = Cohort(folder)
    return load_lesion_bank(cohort, dict(labels), cohort_sequences(cohort), dict(values))


def train_networks(
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    settings: MarkerTraining,
    place: Place,
    shipped: bool,
) -> None:
    """Every network that the folds will ask for, shared out over the workers; a pair of folds shares one.

    shipped: the one on everybody too.
    """
    cohort = Cohort(place.cohorts[0])
    learning = learning_without(cohort_folds(cohort), None).only(labels)
    left_out = [*((n,) for n in range(FOLDS)), *combinations(range(FOLDS), 2)]
    groups = [
        tuple(sorted(p for number, fold in enumerate(learning.folds) if number not in out for p in fold))
        for out in [*left_out, *([()] if shipped else [])]
    ]
    dealt, work = (tuple(labels.items()), tuple(values.items())), place.work / "cascade"
    jobs = [PeopleJob(place.cohorts[0], definition, *dealt, group, settings, work) for group in groups]
    place.say(f"{definition.title}: {len(jobs)} networks")
    run_jobs(
        jobs,
        train_people,
        lambda job, _: place.say(f"{definition.title}: a network on {len(job.patients)} patients"),
        place.workers,
        place.scheduler,
    )


def run_cascade(
    definition: MarkerDefinition,
    trial: Trial,
    settings: MarkerTraining,
    place: Place,
    shuffle: int = 0,
    outlines: Path | None = None,
) -> pd.DataFrame:
    """Every labelled patient's answer: one row per outline, stage and fusion, with the fold's threshold.

    trial: how the segmentation's folds are read. shuffle: see ``cascade_labels``. outlines: the work folder of the
    segmentation's folds, by default this run's own. Raises GliomarkError where a fold saw one of its test patients.
    """
    cohort = Cohort(place.cohorts[0])
    labels, values = cascade_labels(cohort, definition, shuffle)
    if shuffle:
        definition = replace(definition, name=f"{definition.name}-shuffled-{shuffle}")
    folds = cohort_folds(cohort)
    outlined_by = [FoldJob(trial, n, place.cohorts, outlines or place.work) for n in range(FOLDS)]
    for job, fold in zip(outlined_by, folds.folds, strict=True):
        fold_weights(job, fold)  # asked before hours of training
    train_networks(definition, labels, values, settings, place, shipped=not shuffle)
    rows = []
    for number in range(FOLDS):
        learning = learning_without(folds, number)
        marker = train_marker(cohort, learning, definition, labels, values, settings, place.work / "cascade")
        test = [p for p in folds.folds[number] if p in labels]
        masks = fold_outlines(outlined_by[number], tuple(test))
        for outline, given in (("drawn", None), ("predicted", masks)):
            for row in answers(marker, cohort, test, given):
                rows.append({"marker": definition.name, "fold": number + 1, "outline": outline, **row})
        place.say(f"{definition.title}: fold {number + 1} answered")
    return pd.DataFrame(rows)


def fold_weights(job: FoldJob, test: Sequence[str]) -> Weights:
    """The finished outline network of a fold. Raises GliomarkError if there is none, or it was trained on ``test``."""
    path = job.weights_path(job.trial.weights_of)
    if not path.exists():
        raise GliomarkError(
            f"{path} is missing: name the folder in which 'experiment demonstration' came to its end."
        )
    weights = load_weights(path)
    check_disjoint({"trained on": weights.card.training_patients, "tested on": test})
    return weights


@functools.lru_cache(maxsize=FOLDS)
def fold_outlines(job: FoldJob, test: tuple[str, ...]) -> Masks:
    """The test patients' outlines by the fold that tested on them. Raises GliomarkError if it was trained on one."""
    segmenter, cohort = trial_segmenter(job.trial, fold_weights(job, test)), Cohort(job.cohorts[0])
    return {patient: segmenter.segment(cohort.stack(patient)).mask for patient in test}


def answers(marker: TrainedMarker, cohort: Cohort, test: Sequence[str], masks: Masks | None) -> list[dict]:
    """Both stages and every fusion rule of each test patient; a patient in whom nothing is outlined is left out."""
    classifier = marker.classifier
    judged = patient_vectors(
        classifier.network,
        cohort,
        marker.labels,
        test,
        marker.trained_on,
        cohort_sequences(cohort),
        classifier.crop,
        masks,
    )
    rows = []
    for patient, vectors in judged.items():
        for stage, probability, threshold in (
            (CASCADE, cascade_probability(marker, vectors), marker.threshold),
            (ALONE, vectors.own_probability(), 0.5),
        ):
            for fusion in FUSIONS:
                row = {"patient": patient, "label": vectors.label, "stage": stage, "fusion": fusion}
                rows.append(row | {"probability": vectors.fused(probability, fusion), "threshold": threshold})
    return rows


def cascade_probability(marker: TrainedMarker, vectors: PatientVectors) -> NDArray[np.float64]:
    """Calibrated, per slice."""
    one = marker.classifier
    return calibrated(vectors.slice_probability(one.trees, one.age_cut, one.evidence), one.calibration)


def cascade_summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row per marker, outline, stage and fusion, over all folds' patients together."""
    rows = []
    keys = ["marker", "outline", "stage", "fusion"]
    for key, group in table.groupby(keys, sort=False):
        value, low, high = bootstrap(auc, group["label"], group["probability"])
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "patients": len(group),
                "positive": int(group["label"].sum()),
                "auc": value,
                "low_95": low,
                "high_95": high,
                "auc_in_folds": auc_within(group["label"], group["probability"], group["fold"]),
                **at_threshold(group["label"], group["probability"], group["threshold"]),
            }
        )
    return pd.DataFrame(rows)


def run_shuffled(
    definition: MarkerDefinition,
    trial: Trial,
    settings: MarkerTraining,
    place: Place,
    shuffles: int,
    outlines: Path,
) -> Path:
    """The cascade with labels dealt to other patients, ``shuffles`` times; ``shuffled_labels_<marker>.csv``.

    A row per dealing, and their mean, which is near 0.5 within folds where nothing leaks.
    """
    tables = [
        run_cascade(definition, trial, settings, place, seed, outlines) for seed in range(1, shuffles + 1)
    ]
    table = pd.concat([cascade_summary(one) for one in tables])
    table = table[table["fusion"] == "near"].drop(columns="fusion")
    means = table.groupby(["outline", "stage"], sort=False)[["auc", "auc_in_folds"]].agg(["mean", "std"])
    means.columns = ["auc", "auc_sd", "auc_in_folds", "auc_in_folds_sd"]
    path = place.out / f"{SHUFFLED}_{definition.name}.csv"
    write_table(pd.concat([table, means.reset_index().assign(marker=f"mean of {shuffles}")]), path)
    record = run_record(SHUFFLED, marker=definition.name, shuffles=shuffles, training=asdict(settings))
    write_json(path.with_name(f"{path.stem}_run_record.json"), record)
    return path
