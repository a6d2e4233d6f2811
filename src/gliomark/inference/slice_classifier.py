"""Predict a marker's probability per lesion slice with a network and LightGBM (method.md, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from gliomark.engines import EngineNetwork
from gliomark.errors import WeightsError
from gliomark.evaluation.calibrators import compute_log_odds
from gliomark.messages import message
from gliomark.models.card import TreeFeatures
from gliomark.models.lightgbm_trees import LESION_FEATURE_COUNT
from gliomark.study import ClinicalData, MRSequence, SliceStack

if TYPE_CHECKING:
    import lightgbm

BATCH_SIZE = 16
MIN_LESION_AREA_MM2 = 50.0
ALL_SLICES_LIMIT = 40  # up to this number all slices are used
UNCALIBRATED = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class LesionSlices:
    """Slices that show lesion.

    neighbour_index: position among the slices that count as neighbours (all slices of the stack in a prediction, the K
    selected ones in training); index: position in the stack; area_mm2: lesion area in mm2.
    """

    neighbour_index: tuple[int, ...]
    index: tuple[int, ...]
    area_mm2: tuple[float, ...]


class ScoredSlices(NamedTuple):
    """Lesion slices with probability ``(S,)`` and contributions ``(S, 2)`` or, with age and sex, ``(S, 4)``.

    The contributions (TreeSHAP, Lundberg et al. 2018) are baseline, image, age and sex in log-odds; their sum is the
    log-odds of the probability.
    """

    slices: LesionSlices
    probability: NDArray[np.float64]
    contributions: NDArray[np.float64]


class SliceFeatures(NamedTuple):
    """What a network computes for a patient's lesion slices, whatever age and sex: see the functions of these names.

    vectors ``(S, D + 1)``; lesion_features ``(S, 9)``.
    """

    slices: LesionSlices
    vectors: NDArray[np.float32]
    lesion_features: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SliceClassifier:
    """A marker's trained network and LightGBM trees.

    network: from images ``(B, 2, h, w)`` and lesion masks ``(B, h, w)`` to image vectors ``(B, D)`` and logits
    ``(B, 2)``; crop_size: side of the central view in pixels; age_cut: in years, None if age and sex are not used;
    tree_features: image features that the trees use, see ``build_tree_columns``; calibration: intercept and slope on
    the trees' log-odds (Platt scaling), which older weights files have.
    """

    network: EngineNetwork
    trees: lightgbm.Booster
    sequences: tuple[MRSequence, ...]
    crop_size: int
    age_cut: float | None
    tree_features: TreeFeatures = "vector"
    calibration: tuple[float, float] = UNCALIBRATED

    def score(self, stack: SliceStack, mask: NDArray[np.bool_], clinical: ClinicalData) -> ScoredSlices:
        """Compute the marker's probability and its contributions for each lesion slice.

        Parameters
        ----------
        stack
            The prepared images.
        mask
            Lesion mask ``(slice, row, column)``.
        clinical
            Age and sex.

        Returns
        -------
        ScoredSlices
            Without slices if the mask is empty.

        Raises
        ------
        WeightsError
            If a result is not finite.
        """
        return self.score_features(self.compute_features(stack, mask), clinical)

    def compute_features(self, stack: SliceStack, mask: NDArray[np.bool_]) -> SliceFeatures:
        """Run the network on the lesion slices of the prepared images; mask ``(slice, row, column)``."""
        slices = select_prediction_slices(stack, mask)
        if not slices.index:
            return SliceFeatures(slices, np.empty((0, 1), np.float32), np.empty((0, LESION_FEATURE_COUNT)))
        images, lesion = extract_lesion_slices(stack, mask, slices, self.sequences)
        vectors = compute_image_vectors(self.network, images, lesion, self.crop_size)
        return SliceFeatures(slices, vectors, compute_lesion_features(images, lesion, slices.area_mm2))

    def score_features(self, features: SliceFeatures, clinical: ClinicalData) -> ScoredSlices:
        """Compute what ``score`` computes from the result of ``compute_features``.

        Raises
        ------
        WeightsError
            If a result is not finite.
        """
        slices, vectors, lesion_features = features
        if not slices.index:
            return ScoredSlices(slices, np.empty(0), np.empty((0, 2)))
        table = build_tree_columns(
            vectors, lesion_features, self.tree_features, clinical.age, clinical.sex, self.age_cut
        )
        probability = apply_calibration(
            np.asarray(self.trees.predict(table, num_threads=1)), self.calibration
        )
        shap_values = np.asarray(self.trees.predict(table, pred_contrib=True, num_threads=1))
        clinical_columns = 0 if self.age_cut is None else 2
        # TreeSHAP: one contribution per column, the baseline last
        image = shap_values[:, : table.shape[1] - clinical_columns].sum(axis=1)
        intercept, slope = self.calibration
        contributions = slope * np.stack(
            [shap_values[:, -1], image, *shap_values[:, table.shape[1] - clinical_columns : -1].T], axis=1
        )
        contributions[:, 0] += intercept
        if not (
            np.isfinite(vectors).all() and np.isfinite(probability).all() and np.isfinite(contributions).all()
        ):
            raise WeightsError(message("marker-no-number"))
        return ScoredSlices(slices, probability, contributions)


def apply_calibration(
    probability: NDArray[np.float64], calibration: tuple[float, float]
) -> NDArray[np.float64]:
    """Apply Platt scaling to probabilities ``(n,)``: ``expit(intercept + slope * logit(p))``."""
    intercept, slope = calibration
    if calibration == UNCALIBRATED:
        return probability
    return np.asarray(expit(intercept + slope * compute_log_odds(probability)))


def select_prediction_slices(stack: SliceStack, mask: NDArray[np.bool_]) -> LesionSlices:
    """Select the lesion slices used for prediction; mask ``(slice, row, column)``.

    Candidates are all slices of a small stack; otherwise the K selected slices, the slice with the largest lesion and
    its two neighbours. Lesions below 50 mm2 are used only if there is no larger one. Neighbours are adjacent slices of
    the stack.
    """
    areas = mask.sum(axis=(1, 2)) * stack.pixel_area_mm2
    count, largest = len(areas), int(areas.argmax())
    candidates: Sequence[int] = range(count)
    if count > ALL_SLICES_LIMIT:
        neighbours = range(max(largest - 1, 0), min(largest + 2, count))
        candidates = sorted({*stack.selected, *neighbours})
    for min_area in (MIN_LESION_AREA_MM2, 1e-6):
        if index := tuple(i for i in candidates if areas[i] >= min_area):
            return LesionSlices(index, index, tuple(float(areas[i]) for i in index))
    return LesionSlices((), (), ())


def select_training_slices(stack: SliceStack, mask: NDArray[np.bool_]) -> LesionSlices:
    """Select the lesion slices used for training; mask ``(slice, row, column)``.

    These are the selected K slices with a lesion of at least 50 mm2; if there are none, the selected slices with any
    lesion; if there are none either, the slice with the largest lesion.
    """
    areas = mask.sum(axis=(1, 2)) * stack.pixel_area_mm2
    chosen: list[tuple[int, int]] = []
    for min_area in (MIN_LESION_AREA_MM2, 1e-6):
        chosen = chosen or [(p, i) for p, i in enumerate(stack.selected) if areas[i] >= min_area]
    if not chosen and areas.any():
        largest = int(areas.argmax())
        chosen = [(int(np.abs(np.array(stack.selected) - largest).argmin()), largest)]
    index = tuple(i for _, i in chosen)
    return LesionSlices(tuple(p for p, _ in chosen), index, tuple(float(areas[i]) for i in index))


def extract_lesion_slices(
    stack: SliceStack, mask: NDArray[np.bool_], slices: LesionSlices, sequences: tuple[MRSequence, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return images ``(S, 2, 240, 240)`` and lesion masks ``(S, 240, 240)`` of the lesion slices."""
    index = list(slices.index)
    images = np.stack([stack.images[name][index] for name in sequences], axis=1)
    return images, mask[index].astype(np.float32)


def compute_crop_index(side: int, crop_size: int) -> tuple[Any, ...]:
    """Return the index of the central ``crop_size`` x ``crop_size`` pixels of an array ``(..., side, side)``."""
    margin = (side - crop_size) // 2
    return (..., slice(margin, margin + crop_size), slice(margin, margin + crop_size))


def compute_image_vectors(
    network: EngineNetwork, images: NDArray[np.float32], lesion: NDArray[np.float32], crop_size: int
) -> NDArray[np.float32]:
    """Return the network's image vectors ``(S, D + 1)``, with its log-odds as the last column.

    network: see ``SliceClassifier``; images ``(S, 2, H, W)``; lesion mask ``(S, H, W)``. The trees are fitted on
    vectors of several networks (one per fold): a single feature is not comparable between networks, the log-odds is.
    """
    crop_index = compute_crop_index(images.shape[-1], crop_size)
    rows = []
    for start in range(0, len(images), BATCH_SIZE):
        image_vector, logits = network.run(
            np.ascontiguousarray(images[start : start + BATCH_SIZE][crop_index], np.float32),
            np.ascontiguousarray(lesion[start : start + BATCH_SIZE][crop_index], np.float32),
        )
        rows.append(np.concatenate([image_vector, logits[:, 1:] - logits[:, :1]], axis=1))
    network.release_memory()
    return np.concatenate(rows)


def compute_lesion_features(
    images: NDArray[np.float32], lesion: NDArray[np.float32], area_mm2: Sequence[float]
) -> NDArray[np.float64]:
    """Compute first-order features of the lesion, ``(S, 9)``.

    Columns: area in mm2, then mean, standard deviation, 5th and 95th percentile of each sequence. images
    ``(S, 2, 240, 240)``, z-scores; lesion mask ``(S, 240, 240)``. The features are comparable between folds because no
    network computes them.
    """
    rows = []
    for image, lesion_pixels, area in zip(images, lesion > 0, area_mm2, strict=True):
        intensities = image[:, lesion_pixels].astype(np.float64)
        percentile_5, percentile_95 = np.percentile(intensities, [5, 95], axis=1)
        rows.append(
            [
                area,
                *np.stack(
                    [intensities.mean(axis=1), intensities.std(axis=1), percentile_5, percentile_95], axis=1
                ).ravel(),
            ]
        )
    return np.array(rows)


def build_tree_columns(
    vectors: NDArray[np.float32],
    lesion_features: NDArray[np.float64],
    tree_features: TreeFeatures,
    age: float | None,
    sex: int | None,
    age_cut: float | None,
) -> NDArray[np.float64]:
    """Build LightGBM's table ``(S, columns)``: image features, age code and sex code of each slice.

    Parameters
    ----------
    vectors
        ``(S, D + 1)`` from ``compute_image_vectors``.
    lesion_features
        Lesion features ``(S, 9)`` from ``compute_lesion_features``.
    tree_features
        "vector": all columns of ``vectors``, as published; "log-odds": only the last one, which is comparable between
        the networks of all folds; "lesion": the log-odds and the lesion features.
    age
        Years; None if unknown, coded as nan.
    sex
        1 for female, 0 for male, None if unknown, coded as nan.
    age_cut
        The age code is 1 from this age on; None: age and sex are not used.
    """
    image = (vectors if tree_features == "vector" else vectors[:, -1:]).astype(np.float64)
    if tree_features == "lesion":
        image = np.hstack([image, lesion_features])
    if age_cut is None:
        return image
    age_code = np.nan if age is None else float(age >= age_cut)
    codes = [age_code, np.nan if sex is None else float(sex)]
    return np.hstack([image, np.tile(codes, (len(image), 1))])
