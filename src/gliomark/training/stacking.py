"""Fit LightGBM on out-of-fold image vectors with age and sex (method.md, section 4).

Each training patient's vectors come from a network that was not trained on that patient. Vectors of a network's own
training patients separate the classes too well, which would be a data leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from gliomark.cohort.folds import check_disjoint
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.inference.fusion import FusionRule, fuse_probabilities
from gliomark.inference.slice_classifier import (
    LesionSlices,
    build_tree_columns,
    compute_lesion_features,
    extract_lesion_slices,
    select_training_slices,
)
from gliomark.messages import message
from gliomark.models.card import TreeFeatures
from gliomark.models.lightgbm_library import lightgbm
from gliomark.study import ClinicalData, MRSequence
from gliomark.training.network_vectors import compute_network_vectors


@dataclass(frozen=True)
class StackingConfig:
    """Configuration of the trees; the defaults are those of method.md, section 4.

    min_leaf_rows: minimum number of rows in a leaf; uses_clinical_data off (table 4-5): without age and sex;
    tree_features: image features that the trees use, see ``inference.slice_classifier.build_tree_columns``.
    """

    leaf_count: int = 15
    min_leaf_rows: int = 20
    max_rounds: int = 200
    rate: float = 0.05
    early_stopping_rounds: int = 20
    uses_clinical_data: bool = True
    tree_features: TreeFeatures = "vector"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class PatientVectors:
    """Features of one patient's lesion slices.

    vectors ``(S, D + 1)``: image vectors, the network's log-odds last; lesion_features ``(S, 9)``, see
    ``compute_lesion_features``.
    """

    slices: LesionSlices
    vectors: NDArray[np.float32]
    lesion_features: NDArray[np.float64]
    clinical: ClinicalData
    label: int

    def compute_network_probability(self) -> NDArray[np.float64]:
        """Return the network's probability of each slice, ``(S,)``, without the trees."""
        values: NDArray[np.float64] = expit(self.vectors[:, -1].astype(float))
        return values

    def predict_slice_probability(
        self, trees: lightgbm.Booster, age_cut: float | None, tree_features: TreeFeatures = "vector"
    ) -> NDArray[np.float64]:
        """Return LightGBM's probability of each slice, ``(S,)``."""
        return np.asarray(trees.predict(self.build_tree_columns(tree_features, age_cut), num_threads=1))

    def build_tree_columns(self, tree_features: TreeFeatures, age_cut: float | None) -> NDArray[np.float64]:
        """Return the trees' table ``(S, columns)``, see ``inference.slice_classifier.build_tree_columns``."""
        clinical = self.clinical
        return build_tree_columns(
            self.vectors, self.lesion_features, tree_features, clinical.age, clinical.sex, age_cut
        )

    def fuse_probability(self, probability: NDArray[np.float64], rule: FusionRule) -> float:
        """Fuse the probabilities of the slices ``(S,)`` into the patient's probability."""
        return fuse_probabilities(
            self.slices.neighbour_index, self.slices.area_mm2, probability.tolist(), rule
        )


@dataclass(frozen=True, eq=False)
class LesionSliceInputs:
    """Network input of one patient: images ``(S, 2, 240, 240)`` and lesion masks ``(S, 240, 240)``."""

    slices: LesionSlices
    images: Tensor
    lesion: Tensor
    clinical: ClinicalData
    label: int

    def attach_vectors(self, vectors: NDArray[np.float32]) -> PatientVectors:
        """Combine the slices with a network's vectors ``(S, D + 1)``."""
        lesion_features = compute_lesion_features(
            self.images.float().numpy(), self.lesion.float().numpy(), self.slices.area_mm2
        )
        return PatientVectors(self.slices, vectors, lesion_features, self.clinical, self.label)


def load_lesion_slice_inputs(
    cohort: Cohort,
    patient: str,
    label: int,
    sequences: tuple[MRSequence, ...],
    mask: NDArray[np.bool_] | None = None,
) -> LesionSliceInputs | None:
    """Load a patient's lesion slices; None if there are none. mask ``(slice, row, column)``; None: the manual mask."""
    stack = cohort.read_stack(patient)
    mask = stack.reader_mask if mask is None else mask
    slices = select_training_slices(stack, mask)
    if not slices.index:
        return None
    images, lesion = map(torch.from_numpy, extract_lesion_slices(stack, mask, slices, sequences))
    return LesionSliceInputs(slices, images, lesion, cohort.get_clinical(patient), label)


def compute_patient_vectors(network: nn.Module, inputs: LesionSliceInputs, crop_size: int) -> PatientVectors:
    """Compute a patient's vectors; crop_size: side of the network's view in pixels."""
    return inputs.attach_vectors(compute_network_vectors(network, inputs.images, inputs.lesion, crop_size))


def compute_held_out_vectors(
    network: nn.Module,
    cohort: Cohort,
    labels: Mapping[str, int],
    patients: Sequence[str],
    trained_on: Sequence[str],
    sequences: tuple[MRSequence, ...],
    crop_size: int,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, PatientVectors]:
    """Compute vectors of patients on whom the network was not trained, by manual masks or by ``masks``.

    Each mask is ``(slice, row, column)``. Patients without a lesion slice are left out. Raises CohortError if the
    network was trained on one of the patients.
    """
    check_disjoint({"trained on": trained_on, "to be scored": patients})
    vectors = {}
    for patient in patients:
        mask = None if masks is None else masks[patient]
        inputs = load_lesion_slice_inputs(cohort, patient, labels[patient], sequences, mask)
        if inputs is not None:
            vectors[patient] = compute_patient_vectors(network, inputs, crop_size)
    return vectors


def compute_age_cut(patients: Sequence[PatientVectors]) -> float | None:
    """Return the mean age of the training patients in years (method.md, section 2, step 8).

    None if no age is known; age and sex are not used then.
    """
    ages = [p.clinical.age for p in patients if p.clinical.age is not None]
    return float(np.mean(ages)) if ages else None


def fit_trees(
    training: Mapping[str, PatientVectors],
    validation: Mapping[str, PatientVectors],
    age_cut: float | None,
    config: StackingConfig,
) -> lightgbm.Booster:
    """Fit LightGBM on the training patients' slices with early stopping on the validation patients' slices.

    All patients have the same weight. age_cut: years, None without age and sex.

    Raises
    ------
    CohortError
        If one of the two groups is empty, or a patient belongs to both.
    """
    check_disjoint({"training": list(training), "validation": list(validation)})
    if not training or not validation:
        raise CohortError(message("marker-no-lesions", fitted=len(training), stopping=len(validation)))
    parameters = {
        "objective": "binary",
        "num_leaves": config.leaf_count,
        "learning_rate": config.rate,
        "min_data_in_leaf": config.min_leaf_rows,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "seed": config.seed,
        "deterministic": True,
        "num_threads": 1,
        "verbose": -1,
    }
    data = _build_lightgbm_dataset(training.values(), age_cut, config.tree_features)
    return lightgbm.train(
        parameters,
        data,
        config.max_rounds,
        valid_sets=[_build_lightgbm_dataset(validation.values(), age_cut, config.tree_features, data)],
        callbacks=[lightgbm.early_stopping(config.early_stopping_rounds, verbose=False)],
    )


def _build_lightgbm_dataset(
    patients: Iterable[PatientVectors],
    age_cut: float | None,
    tree_features: TreeFeatures,
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    patients = list(patients)
    rows = np.vstack([p.build_tree_columns(tree_features, age_cut) for p in patients])
    label = np.concatenate([np.full(len(p.vectors), p.label) for p in patients])
    weight = np.concatenate([np.full(len(p.vectors), 1 / len(p.vectors)) for p in patients])
    # mean weight 1, because LightGBM's minimum leaf weight assumes it
    return lightgbm.Dataset(rows, label, weight=weight / weight.mean(), reference=reference)
