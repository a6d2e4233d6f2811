"""MIG-Net on a prepared patient: tiles, the rule that joins the sequences, a clean mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from gliomark.models.mignet import MIGNet
from gliomark.study import GliomarkError, MRSequence, Segmentation, SliceStack

BATCH = 8
RULES = {
    "joint": "the sequences together as one input",
    "union": "each sequence alone, the outlines united",
    "single": "one sequence alone",
}


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained MIG-Net and how it is used. tile: side of the view it was trained on, in pixels."""

    network: MIGNet
    sequences: tuple[MRSequence, ...]
    rule: str
    tile: int = 224
    threshold: float = 0.5
    smallest_lesion_ml: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise GliomarkError(f"The rule '{self.rule}' is unknown; it must be one of {', '.join(RULES)}.")

    def segment(self, stack: SliceStack) -> Segmentation:
        """The outline on every slice of the stack."""
        probability = self._probability(stack.images, stack.brain)
        probability[~stack.brain] = 0.0
        mask = without_specks(probability >= self.threshold, self.smallest_lesion_ml / stack.voxel_volume_ml)
        names = ", ".join(self.sequences)
        return Segmentation(probability, mask, f"{RULES[self.rule]} ({names})")

    def _probability(self, images: Mapping[MRSequence, NDArray], brain: NDArray) -> NDArray[np.float32]:
        channels = [torch.from_numpy(images[name]) for name in self.sequences]
        if self.rule == "joint":
            return lesion_probability(self.network, torch.stack(channels, dim=1), brain, self.tile)
        each = [lesion_probability(self.network, channel[:, None], brain, self.tile) for channel in channels]
        # OR of the masks: a missed lesion is worse than extra background (METHOD section 5)
        return np.maximum.reduce(each)


def lesion_probability(network: MIGNet, images: Tensor, brain: NDArray, tile: int) -> NDArray[np.float32]:
    """``(S, C, H, W)`` to ``(S, H, W)``: softmax of logits averaged where tiles overlap.

    METHOD takes four corner tiles. The grid is centred on the brain, so one central tile holds all of
    a brain of up to ``tile`` mm at a quarter of the time; only a larger one needs the corners.
    """
    height, width = images.shape[-2:]
    logits, seen = torch.zeros(len(images), 2, height, width), torch.zeros(height, width)
    with torch.inference_mode():
        for top, left in tile_corners(brain, tile):
            place = (..., slice(top, top + tile), slice(left, left + tile))
            theta = tile_theta(top, left, tile, height, width)
            for start in range(0, len(images), BATCH):
                part = images[start : start + BATCH][place]
                logits[start : start + BATCH][place] += network(part, theta.expand(len(part), -1, -1))[0]
            seen[place] += 1
    logits /= seen.clamp(min=1)
    # never seen is never lesion
    return (logits.softmax(dim=1)[:, 1] * (seen > 0)).numpy()


def tile_corners(brain: NDArray, tile: int) -> Sequence[tuple[int, int]]:
    """Top-left corners: the centre where it holds the whole brain ``(S, H, W)``, otherwise all four."""
    height, width = brain.shape[-2:]
    top, left = (height - tile) // 2, (width - tile) // 2
    inside = brain[:, top : top + tile, left : left + tile].sum()
    if inside == brain.sum():
        return [(top, left)]
    return [(t, s) for t in (0, height - tile) for s in (0, width - tile)]


def tile_theta(top: int, left: int, tile: int, height: int, width: int) -> Tensor:
    """``(1, 2, 3)``: the tile's place in the template, in normalised coordinates."""
    theta = torch.zeros(1, 2, 3)
    theta[0, 0, 0], theta[0, 1, 1] = tile / width, tile / height
    theta[0, 0, 2] = (2 * left + tile) / width - 1
    theta[0, 1, 2] = (2 * top + tile) / height - 1
    return theta


def without_specks(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """The mask without connected pieces of fewer than ``smallest`` voxels."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= smallest
    keep[0] = False
    return keep[labels]
