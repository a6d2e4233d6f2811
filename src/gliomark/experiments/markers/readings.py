"""From the kept vectors of a marker's networks to one probability per slice, for every reading and fold.

Whatever is fitted here (trees, logistic regression) is fitted on a fold's training patients, stopped by its
validation patients, and then asked about its test patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from lightgbm import Booster
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from gliomark.cohort.folds import FOLDS, Split, check_disjoint
from gliomark.cohort.store import Cohort
from gliomark.experiments.markers.study import MarkerData, NetworkJob, load_vectors
from gliomark.experiments.markers.trials import MarkerTrial, Reading
from gliomark.inference.fusion import FusionRule, patient_probability
from gliomark.inference.slice_classifier import Evidence, LesionSlices
from gliomark.models.marker_networks import build_marker_network
from gliomark.study import Clinical, GliomarkError, MRSequence
from gliomark.training.recipes import MarkerDefinition, cohort_sequences
from gliomark.training.stacking import PatientVectors, StackingTraining, fit_trees, training_age_cut

Vectors = Mapping[str, PatientVectors]
# part, patient: the slices and a probability for each
Answers = dict[str, dict[str, tuple[LesionSlices, NDArray[np.float64]]]]


@dataclass(frozen=True, eq=False)
class FoldVectors:
    """What a fold's second stage works with: out-of-fold vectors of the training patients, and the fold's own
    network's vectors of the validation and the test patients."""

    training: Vectors
    validation: Vectors
    test: Vectors

    def __post_init__(self) -> None:
        check_disjoint(
            {"training": list(self.training), "validation": list(self.validation), "test": list(self.test)}
        )


@dataclass(frozen=True, eq=False)
class MarkerStudy:
    """A marker's finished networks, and where its readings come from. features: radiomics by patient, if computed."""

    trials: Mapping[str, MarkerTrial]
    definition: MarkerDefinition
    cohort: Path
    work: Path
    data: MarkerData
    features: Mapping[str, NDArray[np.float64]] | None = None

    def vectors(self, trial: str, number: int) -> FoldVectors:
        """Of one trial and fold; the training patients' are empty where the trial is not stacked."""
        own, split = self.trials[trial], self.split(trial, number)
        answered = self._load(own, (number,))
        training: dict[str, PatientVectors] = {}
        if own.stacked:
            for other in (n for n in range(FOLDS) if n != number):
                pair = self._load(own, (min(number, other), max(number, other)))
                training |= {p: pair[p] for p in self.data.fold(other) if p in split.training and p in pair}
        return FoldVectors(training, _of(answered, split.validation), _of(answered, split.test))

    @property
    def sequences(self) -> tuple[MRSequence, ...]:
        """The pair that the cohort was prepared for."""
        return cohort_sequences(Cohort(self.cohort))

    def split(self, trial: str | None, number: int) -> Split:
        """The fold's three parts; those of the first trial where a reading has none."""
        one = next(iter(self.trials.values())) if trial is None else self.trials[trial]
        return self.data.split(number, one.training.seed)

    def network(self, trial: str, number: int) -> tuple[nn.Module, int]:
        """The finished network that answers fold ``number`` (from 0), and the side of its view in pixels."""
        training = self.trials[trial].training
        network = build_marker_network(training.network)
        job = NetworkJob(self.trials[trial], self.definition, (number,), self.cohort, self.work)
        network.load_state_dict(load_file(job.record_path.with_suffix(".safetensors")))
        return network.eval(), training.augmentation.crop

    def _load(self, trial: MarkerTrial, left_out: tuple[int, ...]) -> dict[str, PatientVectors]:
        return load_vectors(NetworkJob(trial, self.definition, left_out, self.cohort, self.work), self.data)


def _of(vectors: Vectors, patients: Sequence[str]) -> Vectors:
    return {p: vectors[p] for p in patients if p in vectors}


def read(reading: Reading, study: MarkerStudy) -> pd.DataFrame:
    """One row per slice (per patient where no slice is looked at) of every fold's validation and test patients.

    Columns: reading, fold (from 1), part, patient, label, place, area_mm2, probability.
    """
    answered = (_answers(reading, study, number) for number in range(FOLDS))
    return answer_rows(reading.name, answered, study.data.labels)


def answer_rows(name: str, folds: Iterable[Answers], labels: Mapping[str, int]) -> pd.DataFrame:
    """The folds' answers as ``read`` gives them."""
    rows = []
    for number, parts in enumerate(folds):
        for part, patients in parts.items():
            for patient, (slices, probability) in patients.items():
                for place, area, p in zip(slices.place, slices.area_mm2, probability.tolist(), strict=True):
                    rows.append((name, number + 1, part, patient, labels[patient], place, area, p))
    columns = ["reading", "fold", "part", "patient", "label", "place", "area_mm2", "probability"]
    return pd.DataFrame(rows, columns=columns)


def patient_answers(slices: pd.DataFrame, rule: FusionRule) -> pd.DataFrame:
    """A reading's slices, one row per patient of each part and fold."""
    rows = []
    for (reading, fold, part, patient), group in slices.groupby(
        ["reading", "fold", "part", "patient"], sort=False
    ):
        group = group.sort_values("place")
        p = patient_probability(
            group["place"].tolist(), group["area_mm2"].tolist(), group["probability"].tolist(), rule
        )
        rows.append((reading, fold, part, patient, group["label"].iloc[0], p))
    return pd.DataFrame(rows, columns=["reading", "fold", "part", "patient", "label", "probability"])


WHOLE = LesionSlices((0,), (0,), (1.0,))  # where a patient is answered without any slice
NOTHING = np.empty((1, 0))


def _answers(reading: Reading, study: MarkerStudy, number: int) -> Answers:
    if reading.stage == "clinical":
        return _clinical(study, number)
    if reading.stage == "radiomics":
        return _radiomics(study, number, reading.metadata)
    folds = [study.vectors(name, number) for name in reading.of]
    if reading.stage == "softmax":
        return _softmax(folds)
    (fold,) = folds
    return _trees(fold, reading) if reading.stage == "LightGBM" else _logistic(fold, reading.evidence)


def _parts(fold: FoldVectors, answer: Callable[[PatientVectors], NDArray[np.float64]]) -> Answers:
    parts = {"validation": fold.validation, "test": fold.test}
    return {name: {p: (v.slices, answer(v)) for p, v in part.items()} for name, part in parts.items()}


def _softmax(folds: Sequence[FoldVectors]) -> Answers:
    """The networks' own probabilities, averaged over the networks."""
    parts: Answers = {}
    for name in ("validation", "test"):
        every: list[Vectors] = [getattr(fold, name) for fold in folds]
        parts[name] = {
            p: (v.slices, np.mean([one[p].own_probability() for one in every], axis=0))
            for p, v in every[0].items()
        }
    return parts


def _trees(fold: FoldVectors, reading: Reading, smallest_leaf: int = 20) -> Answers:
    """LightGBM on the vectors; with metadata, the age cut is the training patients' mean."""
    age_cut = training_age_cut(list(fold.training.values())) if reading.metadata else None
    settings = StackingTraining(
        metadata=reading.metadata, evidence=reading.evidence, smallest_leaf=smallest_leaf
    )
    trees: Booster = fit_trees(fold.training, fold.validation, age_cut, settings)

    return _parts(fold, lambda v: v.slice_probability(trees, age_cut, reading.evidence))


def _logistic(fold: FoldVectors, evidence: Evidence) -> Answers:
    """Logistic regression on what the trees would see, age in years; a patient weighs 1 in all."""

    def columns(v: PatientVectors) -> NDArray[np.float64]:
        person = [_or_nan(v.clinical.age), _or_nan(v.clinical.sex)]
        return np.hstack([v.columns(evidence, None), np.tile(person, (len(v.vectors), 1))])

    patients = list(fold.training.values())
    label = np.concatenate([np.full(len(v.vectors), v.label) for v in patients])
    weight = np.concatenate([np.full(len(v.vectors), 1 / len(v.vectors)) for v in patients])
    model = _regression()
    model.fit(np.vstack([columns(v) for v in patients]), label, logisticregression__sample_weight=weight)
    return _parts(fold, lambda v: model.predict_proba(columns(v))[:, 1])


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _regression() -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def _clinical(study: MarkerStudy, number: int) -> Answers:
    people = {p: shown.clinical for p, shown in study.data.shown.items()}
    return clinical_answers(people, study.data.labels, study.split(None, number))


def clinical_answers(people: Mapping[str, Clinical], labels: Mapping[str, int], split: Split) -> Answers:
    """Age and sex alone: the bar for any image."""
    training, *rest = (
        [p for p in part if p in people] for part in (split.training, split.validation, split.test)
    )

    return {
        name: {p: (WHOLE, one) for p, one in clinical_probability(people, labels, training, part).items()}
        for name, part in zip(("validation", "test"), rest, strict=True)
    }


def clinical_probability(
    people: Mapping[str, Clinical], labels: Mapping[str, int], training: Sequence[str], asked: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """What age and sex alone say of the patients asked about, ``(1,)`` each: logistic regression on the others."""

    def columns(patients: Sequence[str]) -> NDArray[np.float64]:
        return np.array([(_or_nan(people[p].age), _or_nan(people[p].sex)) for p in patients])

    model = _regression().fit(columns(training), [labels[p] for p in training])
    return dict(zip(asked, model.predict_proba(columns(asked))[:, 1:], strict=True)) if asked else {}


def _radiomics(study: MarkerStudy, number: int, metadata: bool) -> Answers:
    if study.features is None:
        raise GliomarkError("The radiomics features have not been computed.")
    people = {p: shown.clinical for p, shown in study.data.shown.items()}
    return feature_answers(study.features, people, study.data.labels, study.split(None, number), metadata)


def feature_answers(
    features: Mapping[str, NDArray[np.float64]],
    people: Mapping[str, Clinical],
    labels: Mapping[str, int],
    split: Split,
    metadata: bool,
) -> Answers:
    """LightGBM on features of the whole lesion, one row per patient, as a user would do it."""
    known = set(features) & set(people)
    parts = [
        {
            p: PatientVectors(WHOLE, features[p][None].astype(np.float32), NOTHING, people[p], labels[p])
            for p in part
            if p in known
        }
        for part in (split.training, split.validation, split.test)
    ]
    # a patient is one row here, not one per slice
    return _trees(FoldVectors(*parts), Reading("", (), "LightGBM", metadata), smallest_leaf=5)
