"""LightGBM on out-of-fold image vectors with age and sex: the second stage of the marker's answer.

Out of fold means that each training patient's vectors come from a KiNet that never saw that patient;
vectors of the network's own training patients would look far too easy, and the stack would leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from gliomark.cohort.folds import check_disjoint
from gliomark.cohort.store import Cohort
from gliomark.inference.fusion import FusionRule, patient_probability
from gliomark.inference.slice_classifier import (
    Evidence,
    LesionSlices,
    image_vectors,
    lesion_figures,
    lesion_slices,
    mix_parts,
    tree_columns,
)
from gliomark.messages import message
from gliomark.study import Clinical, GliomarkError, MRSequence


@dataclass(frozen=True)
class StackingTraining:
    """METHOD section 4: modest trees. metadata off (table 4-5): image vectors alone.

    smallest_leaf: rows. evidence: what the trees read of the image, see ``inference.slice_classifier.tree_columns``.
    """

    leaves: int = 15
    smallest_leaf: int = 20
    rounds: int = 200
    rate: float = 0.05
    early_stopping: int = 20
    metadata: bool = True
    evidence: Evidence = "vector"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class PatientVectors:
    """One patient's lesion slices as a network sees them: vectors ``(S, D)``, the network's own log-odds last;
    figures ``(S, 9)`` from ``lesion_figures``."""

    slices: LesionSlices
    vectors: NDArray[np.float32]
    figures: NDArray[np.float64]
    clinical: Clinical
    label: int

    def own_probability(self) -> NDArray[np.float64]:
        """The network's own, by its softmax, ``(S,)``."""
        return expit(self.vectors[:, -1].astype(float))

    def slice_probability(
        self, trees: lightgbm.Booster, age_cut: float | None, evidence: Evidence = "vector"
    ) -> NDArray[np.float64]:
        """LightGBM's, ``(S,)``."""
        return np.asarray(trees.predict(self.columns(evidence, age_cut), num_threads=1))

    def columns(self, evidence: Evidence, age_cut: float | None) -> NDArray[np.float64]:
        """What the trees see, see ``tree_columns``."""
        person = self.clinical
        return tree_columns(self.vectors, self.figures, evidence, person.age, person.sex, age_cut)

    def fused(self, probability: NDArray[np.float64], rule: FusionRule) -> float:
        """Patient level from one probability per slice."""
        return patient_probability(self.slices.place, self.slices.area_mm2, probability.tolist(), rule)


@dataclass(frozen=True, eq=False)
class ShownSlices:
    """A patient's lesion slices as a network is shown them: images ``(S, 2, 240, 240)``, lesion ``(S, 240, 240)``."""

    slices: LesionSlices
    images: Tensor
    lesion: Tensor
    clinical: Clinical
    label: int

    def seen(self, vectors: NDArray[np.float32]) -> PatientVectors:
        """With what a network made of them."""
        figures = lesion_figures(self.images, self.lesion, self.slices.area_mm2)
        return PatientVectors(self.slices, vectors, figures, self.clinical, self.label)


def shown_slices(
    cohort: Cohort,
    patient: str,
    label: int,
    sequences: tuple[MRSequence, ...],
    mask: NDArray[np.bool_] | None = None,
) -> ShownSlices | None:
    """The patient's lesion slices by the drawn mask or by ``mask``; None where it has none."""
    stack = cohort.stack(patient)
    mask = stack.drawn if mask is None else mask
    slices = lesion_slices(stack, mask)
    if not slices.index:
        return None
    images, lesion = mix_parts(stack, mask, slices, sequences)
    return ShownSlices(slices, images, lesion, cohort.clinical(patient), label)


def vectors_of(network: nn.Module, shown: ShownSlices, crop: int) -> PatientVectors:
    """What the network makes of the slices; crop: side of its view in pixels."""
    return shown.seen(image_vectors(network, shown.images, shown.lesion, crop))


def patient_vectors(
    network: nn.Module,
    cohort: Cohort,
    labels: Mapping[str, int],
    patients: Sequence[str],
    trained_on: Sequence[str],
    sequences: tuple[MRSequence, ...],
    crop: int,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, PatientVectors]:
    """Vectors of patients whom the network never saw (checked), on their drawn masks or on ``masks``.

    A patient without any lesion slice is left out. Raises GliomarkError if one was trained on.
    """
    check_disjoint({"trained on": trained_on, "to be scored": patients})
    found = {}
    for patient in patients:
        mask = None if masks is None else masks[patient]
        shown = shown_slices(cohort, patient, labels[patient], sequences, mask)
        if shown is not None:
            found[patient] = vectors_of(network, shown, crop)
    return found


def training_age_cut(patients: Sequence[PatientVectors]) -> float:
    """Mean age in years of the training patients (METHOD section 2, step 8)."""
    return float(np.mean([p.clinical.age for p in patients if p.clinical.age is not None]))


def fit_trees(
    train: Mapping[str, PatientVectors],
    validation: Mapping[str, PatientVectors],
    age_cut: float | None,
    settings: StackingTraining,
) -> lightgbm.Booster:
    """Fit on the training patients' slices, stop by the validation patients'; a patient weighs 1 in all.

    Raises GliomarkError where there is nobody on one side, or somebody on both.
    """
    check_disjoint({"training": list(train), "validation": list(validation)})
    if not train or not validation:
        raise GliomarkError(message("marker-no-lesions", fitted=len(train), stopping=len(validation)))
    parameters = {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "learning_rate": settings.rate,
        "min_data_in_leaf": settings.smallest_leaf,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "seed": settings.seed,
        "deterministic": True,
        "num_threads": 1,
        "verbose": -1,
    }
    data = _table(train.values(), age_cut, settings.evidence)
    return lightgbm.train(
        parameters,
        data,
        settings.rounds,
        valid_sets=[_table(validation.values(), age_cut, settings.evidence, data)],
        callbacks=[lightgbm.early_stopping(settings.early_stopping, verbose=False)],
    )


def _table(
    patients: Iterable[PatientVectors],
    age_cut: float | None,
    evidence: Evidence,
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    patients = list(patients)
    rows = np.vstack([p.columns(evidence, age_cut) for p in patients])
    label = np.concatenate([np.full(len(p.vectors), p.label) for p in patients])
    weight = np.concatenate([np.full(len(p.vectors), 1 / len(p.vectors)) for p in patients])
    # mean weight 1, so that LightGBM's smallest leaf weight keeps its meaning
    return lightgbm.Dataset(rows, label, weight=weight / weight.mean(), reference=reference)
