"""KiNet and LightGBM on a prepared, outlined patient: one probability per lesion slice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import lightgbm
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor, nn

from gliomark.messages import message
from gliomark.models.building import TreeFeatures
from gliomark.models.kinet import KiNet, MarkerOutput, build_mix_input
from gliomark.models.marker_networks import LesionPooledFeatures, SingleHeadNetwork
from gliomark.study import ClinicalData, GliomarkError, MRSequence, SliceStack

BATCH_SIZE = 16
MIN_LESION_AREA_MM2 = 50.0
ALL_SLICES_LIMIT = 40  # as many are all read
MIN_PROBABILITY = 1e-6  # a probability of 0 or 1 has no logit
UNCALIBRATED = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class LesionSlices:
    """Slices that show lesion. place: number among those that count as neighbours (all of the stack's in a
    prediction, the K selected in training); index: in the stack; area in mm2."""

    neighbour_index: tuple[int, ...]
    index: tuple[int, ...]
    area_mm2: tuple[float, ...]


class ScoredSlices(NamedTuple):
    """probability ``(S,)``; parts ``(S, 2)`` or, with metadata, ``(S, 4)``: the start and what image, age and
    sex added to the log-odds (TreeSHAP, Lundberg et al. 2018), whose sum is the probability's."""

    slices: LesionSlices
    probability: NDArray[np.float64]
    contributions: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SliceClassifier:
    """A marker's trained network and LightGBM. crop: side of the view in pixels; age_cut: years or None;
    evidence: what of the image the trees read; calibration: intercept and slope on the trees' log-odds (Platt)."""

    network: nn.Module
    trees: lightgbm.Booster
    sequences: tuple[MRSequence, ...]
    crop_size: int
    age_cut: float | None
    tree_features: TreeFeatures = "vector"
    calibration: tuple[float, float] = UNCALIBRATED

    def score(self, stack: SliceStack, mask: NDArray[np.bool_], clinical: ClinicalData) -> ScoredSlices:
        """The lesion slices, the marker's probability on each, and what it is made of."""
        slices = select_prediction_slices(stack, mask)
        if not slices.index:
            return ScoredSlices(slices, np.empty(0), np.empty((0, 2)))
        images, lesion = extract_lesion_slices(stack, mask, slices, self.sequences)
        vectors = compute_image_vectors(self.network, images, lesion, self.crop_size)
        lesion_features = compute_lesion_features(images, lesion, slices.area_mm2)
        table = build_tree_columns(
            vectors, lesion_features, self.tree_features, clinical.age, clinical.sex, self.age_cut
        )
        probability = apply_calibration(
            np.asarray(self.trees.predict(table, num_threads=1)), self.calibration
        )
        shap_values = np.asarray(self.trees.predict(table, pred_contrib=True, num_threads=1))
        clinical_columns = 0 if self.age_cut is None else 2
        # TreeSHAP: a part per column, the start last
        image = shap_values[:, : table.shape[1] - clinical_columns].sum(axis=1)
        intercept, slope = self.calibration
        contributions = slope * np.stack(
            [shap_values[:, -1], image, *shap_values[:, table.shape[1] - clinical_columns : -1].T], axis=1
        )
        contributions[:, 0] += intercept
        if not (
            np.isfinite(vectors).all() and np.isfinite(probability).all() and np.isfinite(contributions).all()
        ):
            raise GliomarkError(message("marker-no-number"))
        return ScoredSlices(slices, probability, contributions)


def apply_calibration(
    probability: NDArray[np.float64], calibration: tuple[float, float]
) -> NDArray[np.float64]:
    """Platt's scaling: ``expit(intercept + slope * logit(p))``."""
    intercept, slope = calibration
    if calibration == UNCALIBRATED:
        return probability
    return np.asarray(
        expit(intercept + slope * logit(np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)))
    )


def select_prediction_slices(stack: SliceStack, mask: NDArray[np.bool_]) -> LesionSlices:
    """The lesion slices that a patient's answer rests on, numbered as in the stack, so that neighbours are the
    patient's own: of all slices where there are few, else of the K selected, the largest lesion's and its two
    neighbours. Specks of less than 50 mm2 are left out unless there is nothing else."""
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
    """What is trained on: those of the K selected slices whose lesion has at least 50 mm2, a speck being no lesion to
    judge; where none has, every selected slice with any lesion; failing that the largest slice of all."""
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
) -> tuple[Tensor, Tensor]:
    """images ``(S, 2, 240, 240)`` and lesion ``(S, 240, 240)`` of the lesion slices."""
    index = list(slices.index)
    images = np.stack([stack.images[name][index] for name in sequences], axis=1)
    return torch.from_numpy(images), torch.from_numpy(mask[index].astype(np.float32))


def compute_crop_index(side: int, crop_size: int) -> tuple:
    """The index of the central ``crop`` x ``crop`` pixels of ``(..., side, side)``."""
    margin = (side - crop_size) // 2
    return (..., slice(margin, margin + crop_size), slice(margin, margin + crop_size))


def compute_image_vectors(
    network: nn.Module, images: Tensor, lesion: Tensor, crop_size: int
) -> NDArray[np.float32]:
    """``(S, features)``: the network's image vector, and its own log-odds as the last column.

    The log-odds is a linear reading of the vector. It is there because the trees are fitted on vectors
    from several networks (one per fold): single features need not mean the same in two of them, the
    log-odds does.
    """
    crop_index = compute_crop_index(images.shape[-1], crop_size)
    predict: Callable[[Tensor], MarkerOutput] = network
    if isinstance(network, KiNet):
        # it need not run what only training asks for
        predict = network.predict
    elif isinstance(network, SingleHeadNetwork) and isinstance(network.trunk, LesionPooledFeatures):
        predict = partial(_predict_with_cached_features, network, network.trunk)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            image, lesion_crop = (
                images[start : start + BATCH_SIZE][crop_index].float(),
                lesion[start : start + BATCH_SIZE][crop_index],
            )
            output = predict(build_mix_input(image[:, 0], image[:, 1], lesion_crop))
            log_odds = output["cat"][:, 1:] - output["cat"][:, :1]
            rows.append(torch.cat([output["vector"], log_odds], dim=1))
    return torch.cat(rows).numpy()


# a frozen trunk's vectors, ``(D,)`` of 1 kB each, by a hash of trunk and slice; the oldest are forgotten
_VECTOR_CACHE: OrderedDict[bytes, Tensor] = OrderedDict()
_MAX_CACHED_VECTORS = 50_000


def _predict_with_cached_features(
    network: SingleHeadNetwork, feature_extractor: LesionPooledFeatures, mix: Tensor
) -> MarkerOutput:
    """A light network's answer; its trunk, the same in every fold and for every marker, reads a slice only once."""
    inputs = network.select_input(mix)
    weights = blake2b(
        b"".join(value.numpy().tobytes() for value in feature_extractor.state_dict().values())
    ).digest()
    keys = [blake2b(one.numpy().tobytes(), digest_size=16, key=weights).digest() for one in inputs]
    vectors = [_VECTOR_CACHE.get(key) for key in keys]
    missing = [index for index, vector in enumerate(vectors) if vector is None]
    for index, new_vector in zip(missing, feature_extractor(inputs[missing]) if missing else (), strict=True):
        vectors[index] = _VECTOR_CACHE[keys[index]] = new_vector.clone()
    vector = torch.stack([one for one in vectors if one is not None])
    while len(_VECTOR_CACHE) > _MAX_CACHED_VECTORS:
        _VECTOR_CACHE.popitem(last=False)
    return {"vector": vector, "cat": network.cat_head(vector)}


def compute_lesion_features(images: Tensor, lesion: Tensor, area_mm2: Sequence[float]) -> NDArray[np.float64]:
    """``(S, 1 + 4 sequences)``: the lesion's area, then of each sequence its mean, deviation, 5th and 95th percentile.

    images ``(S, 2, 240, 240)``, z-scores; lesion ``(S, 240, 240)``. What a radiologist would measure first; being no
    network's, it means the same in every fold.
    """
    rows = []
    for image, lesion_pixels, area in zip(images.float().numpy(), lesion.numpy() > 0, area_mm2, strict=True):
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
    """What LightGBM sees of each slice: the image's evidence, age code (1 at or above the cut), sex code.

    vectors ``(S, D)`` from ``image_vectors``; figures ``(S, 9)`` from ``lesion_figures``. evidence "vector": all of
    the vector, as published; "log-odds": its last column alone, the one that means the same in every fold's network;
    "lesion": that one and the figures. Unknown age or sex is nan; no age cut means no metadata.
    """
    image = (vectors if tree_features == "vector" else vectors[:, -1:]).astype(np.float64)
    if tree_features == "lesion":
        image = np.hstack([image, lesion_features])
    if age_cut is None:
        return image
    age_code = np.nan if age is None else float(age >= age_cut)
    codes = [age_code, np.nan if sex is None else float(sex)]
    return np.hstack([image, np.tile(codes, (len(image), 1))])
