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

BATCH = 8
RULES = ("joint", "union", "single")


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
    tile: int = 224
    threshold: float = 0.5
    smallest_lesion_ml: float = 0.0
    pool: float = 1
    context: int = 0
    flips: bool = False
    smallest_share: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise GliomarkError(f"The rule '{self.rule}' is unknown; it must be one of {', '.join(RULES)}.")

    def segment(self, stack: SliceStack) -> Segmentation:
        """The outline on every slice of the stack."""
        probability = self._probability(stack)
        if not np.isfinite(probability).all():
            raise GliomarkError(message("outline-no-number"))
        probability[~stack.brain] = 0.0
        mask = without_specks(
            np.where(probability >= self.threshold, probability, 0.0),
            self.smallest_lesion_ml / stack.voxel_volume_ml,
            self.smallest_share,
        )
        return Segmentation(probability, mask, self.rule_in_words(self.sequences))

    def rule_in_words(self, sequences: Sequence[MRSequence]) -> str:
        """How the outlines of these sequences become one, as a message."""
        return message(f"outline-{self.rule}", sequences=", ".join(sequences))

    def inputs(self, stack: SliceStack) -> list[Tensor]:
        """What the network is shown, each ``(S, C, H, W)``: one input for joint, one per sequence otherwise."""
        samples = samples_of(stack, self.sequences, self.rule == "joint")
        return [with_neighbours(images, self.context) for images in samples]

    def _probability(self, stack: SliceStack) -> NDArray[np.float32]:
        each = [
            lesion_probability(self.network, images, stack.brain, self.tile, self.pool, self.flips)
            for images in self.inputs(stack)
        ]
        # OR of the masks: a missed lesion is worse than extra background (METHOD section 5)
        return np.maximum.reduce(each)

    def high_grade_probability(self, stack: SliceStack, lesion: NDArray[np.bool_]) -> float:
        """The auxiliary task's answer for the patient: the mean over the slices with a lesion, central view.

        nan where the network has no grading task or no slice has a lesion.
        """
        shown = lesion.any(axis=(1, 2))
        inner = (self._margin(stack), self._margin(stack))
        if not shown.any():
            return float("nan")
        answers = []
        for images in self.inputs(stack):
            part = averaged(images[torch.from_numpy(shown)][..., *inner], self.pool)
            theta = tile_theta(inner[0].start, inner[1].start, self.tile, *images.shape[-2:])
            with torch.inference_mode():
                grade = self.network(part, theta.expand(len(part), -1, -1)).grade
            answers.append(float("nan") if grade is None else float(grade.softmax(dim=1)[:, 1].mean()))
        return float(np.mean(answers))

    def _margin(self, stack: SliceStack) -> slice:
        start = (stack.brain.shape[-1] - self.tile) // 2
        return slice(start, start + self.tile)


def seen_sequences(sequences: tuple[MRSequence, ...], rule: str) -> tuple[MRSequence, ...]:
    """What a rule reads of the prepared sequences: "single" the reference alone, which is the last."""
    return sequences[-1:] if rule == "single" else sequences


def samples_of(stack: SliceStack, sequences: Sequence[MRSequence], joint: bool) -> list[Tensor]:
    """What a network may be shown, each ``(S, C, H, W)``: all sequences as one sample's channels, an absent one
    as the brain's mean, which is 0; or every sequence there is as a sample of one channel."""
    if not joint:
        return [torch.from_numpy(stack.images[name])[:, None] for name in sequences if name in stack.images]
    empty = np.zeros(stack.brain.shape, np.float32)
    return [torch.from_numpy(np.stack([stack.images.get(name, empty) for name in sequences], axis=1))]


def with_neighbours(images: Tensor, context: int) -> Tensor:
    """``(S, C, H, W)`` to ``(S, C * (2 * context + 1), H, W)``: each channel with the slices around it.

    Past the first or last slice that slice goes on. context 0 changes nothing.
    """
    last = len(images) - 1
    steps = [(torch.arange(last + 1) + step).clamp(0, max(last, 0)) for step in range(-context, context + 1)]
    return torch.stack([images[index] for index in steps], dim=2).flatten(1, 2)


def averaged(images: Tensor, pool: float) -> Tensor:
    """``(B, C, H, W)`` to ``(B, C, H / pool, W / pool)``: what pool x pool pixels hold, 1.5 being two of three."""
    return F.interpolate(images, size=[round(side / pool) for side in images.shape[-2:]], mode="area")


def lesion_probability(
    network: nn.Module, images: Tensor, brain: NDArray, tile: int, pool: float = 1, flips: bool = False
) -> NDArray[np.float32]:
    """``(S, C, H, W)`` to ``(S, H, W)``: softmax of logits averaged where tiles overlap.

    The network sees the tile averaged over pool x pool pixels; its logits are brought back to all of them.

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
                part = averaged(images[start : start + BATCH][place], pool)
                answer = _logits(network, part, theta.expand(len(part), -1, -1), flips)
                logits[start : start + BATCH][place] += F.interpolate(
                    answer, size=(tile, tile), mode="bilinear", align_corners=False
                )
            seen[place] += 1
    logits /= seen.clamp(min=1)
    # never seen is never lesion
    return (logits.softmax(dim=1)[:, 1] * (seen > 0)).numpy()


def _logits(network: nn.Module, part: Tensor, theta: Tensor, flips: bool) -> Tensor:
    answer = network(part, theta)[0]
    if not flips:
        return answer
    mirrored = theta * theta.new_tensor([-1.0, 1.0, 1.0])  # the view's columns run the other way
    return (answer + network(part.flip(-1), mirrored)[0].flip(-1)) / 2


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


def without_specks(
    probability: NDArray[np.float32], smallest: float, smallest_share: float = 0.0
) -> NDArray[np.bool_]:
    """The mask of what is above 0, without connected pieces of fewer than ``smallest`` voxels or of less than
    ``smallest_share`` of the heaviest piece's summed probability."""
    labels, count = ndimage.label(probability, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    weights = np.bincount(labels.ravel(), probability.ravel(), minlength=count + 1)
    keep = (sizes >= smallest) & (weights >= smallest_share * weights[1:].max(initial=0.0))
    keep[0] = False
    return keep[labels]
