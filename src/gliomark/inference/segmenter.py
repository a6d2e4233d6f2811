"""MIG-Net on a prepared patient: tiles, the rule that joins the sequences, a clean mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Segmentation, SliceStack

BATCH_SIZE = 8
SEQUENCE_RULES = ("joint", "union", "single")


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained network and how it is used.

    tile: side of the view it was trained on, in pixels of the 240-pixel slice; pool: slices are averaged over
    pool x pool of them for it; context: neighbouring slices on either side that it sees; flips: the mean of
    the slice's answer and its mirror image's; smallest_share: a piece whose summed probability is less than this
    share of the largest piece's is no lesion (1 keeps the largest alone).
    """

    network: nn.Module
    sequences: tuple[MRSequence, ...]
    rule: str
    tile_size: int = 224
    threshold: float = 0.5
    min_lesion_ml: float = 0.0
    pooling_factor: float = 1
    neighbour_slices: int = 0
    uses_mirroring: bool = False
    min_component_share: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in SEQUENCE_RULES:
            raise GliomarkError(
                f"The rule '{self.rule}' is unknown; it must be one of {', '.join(SEQUENCE_RULES)}."
            )

    def segment(self, stack: SliceStack) -> Segmentation:
        """The outline on every slice of the stack."""
        probability = self._predict_probability(stack)
        if not np.isfinite(probability).all():
            raise GliomarkError(message("outline-no-number"))
        probability[~stack.brain] = 0.0
        mask = remove_small_components(
            np.where(probability >= self.threshold, probability, 0.0),
            self.min_lesion_ml / stack.voxel_volume_ml,
            self.min_component_share,
        )
        return Segmentation(probability, mask, self.describe_rule(self.sequences))

    def describe_rule(self, sequences: Sequence[MRSequence]) -> str:
        """How the outlines of these sequences become one, as a message."""
        return message(f"outline-{self.rule}", sequences=", ".join(sequences))

    def build_inputs(self, stack: SliceStack) -> list[Tensor]:
        """What the network is shown, each ``(S, C, H, W)``: one input for joint, one per sequence otherwise."""
        samples = build_samples(stack, self.sequences, self.rule == "joint")
        return [add_neighbour_slices(images, self.neighbour_slices) for images in samples]

    def _predict_probability(self, stack: SliceStack) -> NDArray[np.float32]:
        probabilities = [
            predict_lesion_probability(
                self.network, images, stack.brain, self.tile_size, self.pooling_factor, self.uses_mirroring
            )
            for images in self.build_inputs(stack)
        ]
        # OR of the masks: a missed lesion is worse than extra background (METHOD section 5)
        return np.maximum.reduce(probabilities)

    def predict_high_grade_probability(self, stack: SliceStack, mask: NDArray[np.bool_]) -> float:
        """The auxiliary task's answer for the patient: the mean over the slices with a lesion, central view.

        nan where the network has no grading task or no slice has a lesion.
        """
        has_lesion = mask.any(axis=(1, 2))
        central_view = (self._compute_central_range(stack), self._compute_central_range(stack))
        if not has_lesion.any():
            return float("nan")
        probabilities = []
        for images in self.build_inputs(stack):
            views = downsample_by_averaging(
                images[torch.from_numpy(has_lesion)][..., *central_view], self.pooling_factor
            )
            theta = compute_tile_theta(
                central_view[0].start, central_view[1].start, self.tile_size, *images.shape[-2:]
            )
            with torch.inference_mode():
                grade = self.network(views, theta.expand(len(views), -1, -1)).grade
            probabilities.append(float("nan") if grade is None else float(grade.softmax(dim=1)[:, 1].mean()))
        return float(np.mean(probabilities))

    def _compute_central_range(self, stack: SliceStack) -> slice:
        start = (stack.brain.shape[-1] - self.tile_size) // 2
        return slice(start, start + self.tile_size)


def select_sequences(sequences: tuple[MRSequence, ...], rule: str) -> tuple[MRSequence, ...]:
    """What a rule reads of the prepared sequences: "single" the reference alone, which is the last."""
    return sequences[-1:] if rule == "single" else sequences


def build_samples(stack: SliceStack, sequences: Sequence[MRSequence], is_joint: bool) -> list[Tensor]:
    """What a network may be shown, each ``(S, C, H, W)``: all sequences as one sample's channels, an absent one
    as the brain's mean, which is 0; or every sequence there is as a sample of one channel."""
    if not is_joint:
        return [torch.from_numpy(stack.images[name])[:, None] for name in sequences if name in stack.images]
    empty = np.zeros(stack.brain.shape, np.float32)
    return [torch.from_numpy(np.stack([stack.images.get(name, empty) for name in sequences], axis=1))]


def add_neighbour_slices(images: Tensor, neighbour_slices: int) -> Tensor:
    """``(S, C, H, W)`` to ``(S, C * (2 * context + 1), H, W)``: each channel with the slices around it.

    Past the first or last slice that slice goes on. context 0 changes nothing.
    """
    last = len(images) - 1
    steps = [
        (torch.arange(last + 1) + step).clamp(0, max(last, 0))
        for step in range(-neighbour_slices, neighbour_slices + 1)
    ]
    return torch.stack([images[index] for index in steps], dim=2).flatten(1, 2)


def downsample_by_averaging(images: Tensor, pooling_factor: float) -> Tensor:
    """``(B, C, H, W)`` to ``(B, C, H / pool, W / pool)``: what pool x pool pixels hold, 1.5 being two of three."""
    return F.interpolate(
        images, size=[round(side / pooling_factor) for side in images.shape[-2:]], mode="area"
    )


def predict_lesion_probability(
    network: nn.Module,
    images: Tensor,
    brain: NDArray,
    tile_size: int,
    pooling_factor: float = 1,
    uses_mirroring: bool = False,
) -> NDArray[np.float32]:
    """``(S, C, H, W)`` to ``(S, H, W)``: softmax of logits averaged where tiles overlap.

    The network sees the tile averaged over pool x pool pixels; its logits are brought back to all of them.

    METHOD takes four corner tiles. The grid is centred on the brain, so one central tile holds all of
    a brain of up to ``tile`` mm at a quarter of the time; only a larger one needs the corners.
    """
    height, width = images.shape[-2:]
    logits, coverage = torch.zeros(len(images), 2, height, width), torch.zeros(height, width)
    with torch.inference_mode():
        for top, left in compute_tile_corners(brain, tile_size):
            window = (..., slice(top, top + tile_size), slice(left, left + tile_size))
            theta = compute_tile_theta(top, left, tile_size, height, width)
            for start in range(0, len(images), BATCH_SIZE):
                views = downsample_by_averaging(images[start : start + BATCH_SIZE][window], pooling_factor)
                tile_logits = _predict_logits(
                    network, views, theta.expand(len(views), -1, -1), uses_mirroring
                )
                logits[start : start + BATCH_SIZE][window] += F.interpolate(
                    tile_logits, size=(tile_size, tile_size), mode="bilinear", align_corners=False
                )
            coverage[window] += 1
    logits /= coverage.clamp(min=1)
    # never seen is never lesion
    return (logits.softmax(dim=1)[:, 1] * (coverage > 0)).numpy()


def _predict_logits(network: nn.Module, views: Tensor, theta: Tensor, uses_mirroring: bool) -> Tensor:
    logits = network(views, theta)[0]
    if not uses_mirroring:
        return logits
    mirrored = theta * theta.new_tensor([-1.0, 1.0, 1.0])  # the view's columns run the other way
    return (logits + network(views.flip(-1), mirrored)[0].flip(-1)) / 2


def compute_tile_corners(brain: NDArray, tile_size: int) -> Sequence[tuple[int, int]]:
    """Top-left corners: the centre where it holds the whole brain ``(S, H, W)``, otherwise all four."""
    height, width = brain.shape[-2:]
    top, left = (height - tile_size) // 2, (width - tile_size) // 2
    inside = brain[:, top : top + tile_size, left : left + tile_size].sum()
    if inside == brain.sum():
        return [(top, left)]
    return [(t, s) for t in (0, height - tile_size) for s in (0, width - tile_size)]


def compute_tile_theta(top: int, left: int, tile_size: int, height: int, width: int) -> Tensor:
    """``(1, 2, 3)``: the tile's place in the template, in normalised coordinates."""
    theta = torch.zeros(1, 2, 3)
    theta[0, 0, 0], theta[0, 1, 1] = tile_size / width, tile_size / height
    theta[0, 0, 2] = (2 * left + tile_size) / width - 1
    theta[0, 1, 2] = (2 * top + tile_size) / height - 1
    return theta


def remove_small_components(
    probability: NDArray[np.float32], min_voxels: float, min_component_share: float = 0.0
) -> NDArray[np.bool_]:
    """The mask of what is above 0, without connected pieces of fewer than ``smallest`` voxels or of less than
    ``smallest_share`` of the heaviest piece's summed probability."""
    labels, count = ndimage.label(probability, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    weights = np.bincount(labels.ravel(), probability.ravel(), minlength=count + 1)
    keep = (sizes >= min_voxels) & (weights >= min_component_share * weights[1:].max(initial=0.0))
    keep[0] = False
    return keep[labels]
