"""Scoring of slices from the stored feature vectors of a marker's networks, for every method and fold.

Trees and logistic regression are fitted on the training patients of a fold, with early stopping on its validation
patients, and then applied to its test patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from gliomark.cohort.folds import FOLD_COUNT, FoldSplit, check_disjoint
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.experiments.markers.procedure import MarkerData, MarkerJob, MarkerProcedure
from gliomark.experiments.markers.runs import MarkerRun, ScoringMethod
from gliomark.experiments.runner import TrainingJob
from gliomark.inference.fusion import FusionRule, fuse_probabilities
from gliomark.inference.slice_classifier import LesionSlices
from gliomark.models.card import TreeFeatures
from gliomark.models.registry import build_marker_network
from gliomark.study import ClinicalData, MRSequence
from gliomark.training.recipes import MarkerDefinition, get_cohort_sequences
from gliomark.training.stacking import PatientVectors, StackingConfig, compute_age_cut, fit_trees

VectorsByPatient = Mapping[str, PatientVectors]
# by test patient: the slices and the probability of each, (n,)
PatientScores = dict[str, tuple[LesionSlices, NDArray[np.float64]]]


@dataclass(frozen=True, eq=False)
class FoldVectors:
    """Input of a fold's second stage.

    training: out-of-fold vectors of the training patients; validation, test: vectors by the fold's own network.
    Raises CohortError if a patient is in two of the parts.
    """

    training: VectorsByPatient
    validation: VectorsByPatient
    test: VectorsByPatient

    def __post_init__(self) -> None:
        check_disjoint(
            {"training": list(self.training), "validation": list(self.validation), "test": list(self.test)}
        )


@dataclass(frozen=True, eq=False)
class TrainedMarkerRuns:
    """The finished networks of a marker and the data to score with them.

    runs: by name; radiomics_features: radiomics features ``(F,)`` by patient, None if not computed.
    """

    runs: Mapping[str, MarkerRun]
    definition: MarkerDefinition
    cohort_folder: Path
    work_folder: Path
    data: MarkerData
    radiomics_features: Mapping[str, NDArray[np.float64]] | None = None

    def load_fold_vectors(self, run_name: str, fold_index: int) -> FoldVectors:
        """Load the vectors of a run and fold (from 0); without stacking, ``training`` is empty.

        Raises
        ------
        CohortError
            If the vectors of a network are missing.
        """
        run, split = self.runs[run_name], self.split_fold(run_name, fold_index)
        fold_vectors = self._load_run_vectors(run, (fold_index,))
        training: dict[str, PatientVectors] = {}
        if run.stacked:
            for other in (n for n in range(FOLD_COUNT) if n != fold_index):
                pair = self._load_run_vectors(run, (min(fold_index, other), max(fold_index, other)))
                training |= {
                    p: pair[p]
                    for p in self.data.list_fold_patients(other)
                    if p in split.training and p in pair
                }
        return FoldVectors(
            training,
            _select_patients(fold_vectors, split.validation),
            _select_patients(fold_vectors, split.test),
        )

    @property
    def sequences(self) -> tuple[MRSequence, ...]:
        """Sequences for which the cohort was prepared."""
        return get_cohort_sequences(Cohort(self.cohort_folder))

    def split_fold(self, run_name: str | None, fold_index: int) -> FoldSplit:
        """Split a fold (from 0) into training, validation and test patients; run_name None stands for the first run."""
        run = next(iter(self.runs.values())) if run_name is None else self.runs[run_name]
        return self.data.split_fold(fold_index, run.training.seed)

    def load_network(self, run_name: str, fold_index: int) -> tuple[nn.Module, int]:
        """Load the network that is tested on a fold (from 0), and the side of its input crop in pixels."""
        training = self.runs[run_name].training
        network = build_marker_network(training.network)
        job = self._create_job(self.runs[run_name], (fold_index,))
        path = MarkerProcedure(self.definition).get_record_path(job).with_suffix(".safetensors")
        network.load_state_dict(load_file(path))
        return network.eval(), training.augmentation.crop

    def _load_run_vectors(self, run: MarkerRun, excluded_folds: tuple[int, ...]) -> dict[str, PatientVectors]:
        job = self._create_job(run, excluded_folds)
        return MarkerProcedure(self.definition).load_vectors(job, self.data)

    def _create_job(self, run: MarkerRun, excluded_folds: tuple[int, ...]) -> MarkerJob:
        return TrainingJob(run, excluded_folds, (self.cohort_folder,), self.work_folder)


def _select_patients(vectors: VectorsByPatient, patients: Sequence[str]) -> VectorsByPatient:
    return {p: vectors[p] for p in patients if p in vectors}


def score_slices(method: ScoringMethod, trained_runs: TrainedMarkerRuns) -> pd.DataFrame:
    """Score the test patients of every fold by a method.

    One row per slice, or per patient if the method uses no slices; columns reading, fold (from 1), patient, label,
    place (slice index), area_mm2, probability.

    Raises
    ------
    CohortError
        If vectors or radiomics features are missing.
    """
    fold_scores = (_score_fold(method, trained_runs, number) for number in range(FOLD_COUNT))
    return tabulate_scores(method.name, fold_scores, trained_runs.data.labels)


def tabulate_scores(
    method_name: str, fold_scores: Iterable[PatientScores], labels: Mapping[str, int]
) -> pd.DataFrame:
    """Tabulate the scores of all folds in the columns of ``score_slices``."""
    rows = []
    for number, patients in enumerate(fold_scores):
        for patient, (slices, probability) in patients.items():
            for slice_index, area, p in zip(
                slices.neighbour_index, slices.area_mm2, probability.tolist(), strict=True
            ):
                rows.append((method_name, number + 1, patient, labels[patient], slice_index, area, p))
    columns = ["reading", "fold", "patient", "label", "place", "area_mm2", "probability"]
    return pd.DataFrame(rows, columns=columns)


def fuse_patient_scores(slice_scores: pd.DataFrame, rule: FusionRule) -> pd.DataFrame:
    """Fuse slice scores to one row per method, fold and patient."""
    rows = []
    for (reading, fold, patient), group in slice_scores.groupby(["reading", "fold", "patient"], sort=False):
        group = group.sort_values("place")
        p = fuse_probabilities(
            group["place"].tolist(), group["area_mm2"].tolist(), group["probability"].tolist(), rule
        )
        rows.append((reading, fold, patient, group["label"].iloc[0], p))
    return pd.DataFrame(rows, columns=["reading", "fold", "patient", "label", "probability"])


WHOLE_LESION = LesionSlices((0,), (0,), (1.0,))  # for a method that scores patients without slices
NO_LESION_FEATURES = np.empty((1, 0))


def _score_fold(method: ScoringMethod, trained_runs: TrainedMarkerRuns, fold_index: int) -> PatientScores:
    if method.stage == "clinical":
        return _score_run_clinical(trained_runs, fold_index)
    if method.stage == "radiomics":
        return _score_run_radiomics(trained_runs, fold_index, method.uses_clinical_data)
    folds = [trained_runs.load_fold_vectors(name, fold_index) for name in method.run_names]
    if method.stage == "softmax":
        return _score_with_softmax(folds)
    (fold,) = folds
    return (
        _score_with_lightgbm(fold, method)
        if method.stage == "LightGBM"
        else _score_with_logistic_regression(fold, method.tree_features)
    )


def _score_with_softmax(folds: Sequence[FoldVectors]) -> PatientScores:
    """Average the softmax probabilities of the networks."""
    return {
        p: (v.slices, np.mean([fold.test[p].compute_network_probability() for fold in folds], axis=0))
        for p, v in folds[0].test.items()
    }


def _score_with_lightgbm(fold: FoldVectors, method: ScoringMethod, min_leaf_rows: int = 20) -> PatientScores:
    """Score with LightGBM on the vectors; with clinical data, the age threshold is the training patients' mean."""
    age_cut = compute_age_cut(list(fold.training.values())) if method.uses_clinical_data else None
    settings = StackingConfig(
        uses_clinical_data=method.uses_clinical_data,
        tree_features=method.tree_features,
        min_leaf_rows=min_leaf_rows,
    )
    trees = fit_trees(fold.training, fold.validation, age_cut, settings)
    return {
        p: (v.slices, v.predict_slice_probability(trees, age_cut, method.tree_features))
        for p, v in fold.test.items()
    }


def _score_with_logistic_regression(fold: FoldVectors, tree_features: TreeFeatures) -> PatientScores:
    """Score with logistic regression on the input of the trees, with age in years.

    The slices of a patient have a total weight of 1.
    """

    def build_columns(v: PatientVectors) -> NDArray[np.float64]:
        person = [_to_float_or_nan(v.clinical.age), _to_float_or_nan(v.clinical.sex)]
        return np.hstack([v.build_tree_columns(tree_features, None), np.tile(person, (len(v.vectors), 1))])

    patients = list(fold.training.values())
    label = np.concatenate([np.full(len(v.vectors), v.label) for v in patients])
    weight = np.concatenate([np.full(len(v.vectors), 1 / len(v.vectors)) for v in patients])
    model = _create_logistic_regression()
    model.fit(
        np.vstack([build_columns(v) for v in patients]), label, logisticregression__sample_weight=weight
    )
    return {p: (v.slices, model.predict_proba(build_columns(v))[:, 1]) for p, v in fold.test.items()}


def _to_float_or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _create_logistic_regression() -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def _score_run_clinical(trained_runs: TrainedMarkerRuns, fold_index: int) -> PatientScores:
    clinical_by_patient = {p: shown.clinical for p, shown in trained_runs.data.lesion_slice_inputs.items()}
    return score_clinical(
        clinical_by_patient, trained_runs.data.labels, trained_runs.split_fold(None, fold_index)
    )


def score_clinical(
    clinical_by_patient: Mapping[str, ClinicalData], labels: Mapping[str, int], split: FoldSplit
) -> PatientScores:
    """Score the test patients from age and sex alone, the reference that any image must exceed."""
    training, test = ([p for p in part if p in clinical_by_patient] for part in (split.training, split.test))
    probabilities = predict_from_clinical(clinical_by_patient, labels, training, test)
    return {p: (WHOLE_LESION, one) for p, one in probabilities.items()}


def predict_from_clinical(
    clinical_by_patient: Mapping[str, ClinicalData],
    labels: Mapping[str, int],
    training_patients: Sequence[str],
    patients_to_score: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """Predict patients from age and sex by logistic regression on the training patients; probabilities ``(1,)``."""

    def build_columns(patients: Sequence[str]) -> NDArray[np.float64]:
        return np.array(
            [
                (_to_float_or_nan(clinical_by_patient[p].age), _to_float_or_nan(clinical_by_patient[p].sex))
                for p in patients
            ]
        )

    model = _create_logistic_regression().fit(
        build_columns(training_patients), [labels[p] for p in training_patients]
    )
    return (
        dict(
            zip(patients_to_score, model.predict_proba(build_columns(patients_to_score))[:, 1:], strict=True)
        )
        if patients_to_score
        else {}
    )


def _score_run_radiomics(
    trained_runs: TrainedMarkerRuns, fold_index: int, uses_clinical_data: bool
) -> PatientScores:
    if trained_runs.radiomics_features is None:
        raise CohortError("The radiomics features have not been computed.")
    clinical_by_patient = {p: shown.clinical for p, shown in trained_runs.data.lesion_slice_inputs.items()}
    return score_features(
        trained_runs.radiomics_features,
        clinical_by_patient,
        trained_runs.data.labels,
        trained_runs.split_fold(None, fold_index),
        uses_clinical_data,
    )


def score_features(
    features: Mapping[str, NDArray[np.float64]],
    clinical_by_patient: Mapping[str, ClinicalData],
    labels: Mapping[str, int],
    split: FoldSplit,
    uses_clinical_data: bool,
) -> PatientScores:
    """Score with LightGBM on features ``(F,)`` of the whole lesion, one row per patient."""
    patients_with_features = set(features) & set(clinical_by_patient)
    parts = [
        {
            p: PatientVectors(
                WHOLE_LESION,
                features[p][None].astype(np.float32),
                NO_LESION_FEATURES,
                clinical_by_patient[p],
                labels[p],
            )
            for p in part
            if p in patients_with_features
        }
        for part in (split.training, split.validation, split.test)
    ]
    # smaller leaves than for slices: there is only one row per patient
    return _score_with_lightgbm(
        FoldVectors(*parts), ScoringMethod("", (), "LightGBM", uses_clinical_data), min_leaf_rows=5
    )
