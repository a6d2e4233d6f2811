"""Segment a prepared patient: tiled inference, combination of the sequences, removal of small components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.engines import EngineNetwork, NetworkSource
from gliomark.errors import ConfigurationError, WeightsError
from gliomark.inference.device import find_device
from gliomark.messages import message
from gliomark.study import MRSequence, Segmentation, SliceStack

BATCH_SIZE = 8
SEQUENCE_RULES = ("joint", "union", "single")
LOGIT_TOLERANCE = 1e-3  # of an engine; a probability then differs by at most 0.0003


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained segmentation network and its inference settings.

    Attributes
    ----------
    network
        The network, in evaluation mode.
    sequences
        The sequences it reads.
    rule
        "joint": all sequences are channels of one input; "union": union of the masks of all sequences; "single":
        the reference sequence only.
    tile_size
        Side of the view on which it was trained, in pixels of the 240-pixel slice.
    threshold
        Probability, 0 to 1, from which a voxel belongs to the lesion.
    min_lesion_ml
        Smaller components are removed; volume in ml.
    pooling_factor
        Slices are averaged over pooling_factor x pooling_factor pixels before the network.
    neighbour_slices
        Number of neighbouring slices on either side that the network also receives.
    uses_mirroring
        Average the outputs for the slice and for its mirror image.
    min_component_share
        Components with less than this share of the largest component's summed probability are removed (1 keeps only
        the largest).

    engine
        Runs the network in place of PyTorch, with the same output; see ``create_source``.

    Raises
    ------
    ConfigurationError
        If the rule is unknown.
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
    engine: EngineNetwork | None = None

    def __post_init__(self) -> None:
        if self.rule not in SEQUENCE_RULES:
            raise ConfigurationError(
                f"The rule '{self.rule}' is unknown; it must be one of {', '.join(SEQUENCE_RULES)}."
            )

    def segment(self, stack: SliceStack) -> Segmentation:
        """Segment the lesion on every slice of the stack.

        Raises
        ------
        WeightsError
            If the network's output is not finite.
        """
        probability = self._predict_probability(stack)
        if not np.isfinite(probability).all():
            raise WeightsError(message("outline-no-number"))
        probability[~stack.brain] = 0.0
        mask = remove_small_components(
            np.where(probability >= self.threshold, probability, 0.0),
            self.min_lesion_ml / stack.voxel_volume_ml,
            self.min_component_share,
        )
        return Segmentation(probability, mask, self.describe_rule(self.sequences))

    def create_source(self, key: str) -> NetworkSource:
        """Describe the network for an engine; key: identifies architecture, weights and settings."""
        side = round(self.tile_size / self.pooling_factor)
        channels = (len(self.sequences) if self.rule == "joint" else 1) * (2 * self.neighbour_slices + 1)

        def create_inputs() -> list[NDArray[np.float32]]:
            noise = np.random.default_rng(0).normal(size=(2, channels, side, side))
            theta = compute_tile_theta(0, 0, self.tile_size, self.tile_size, self.tile_size)
            return [noise.astype(np.float32), theta.repeat(2, 1, 1).numpy()]

        return NetworkSource(
            "segmentation",
            key,
            lambda: _LogitsOnly(self.network).eval(),
            create_inputs,
            LOGIT_TOLERANCE,
            has_batch=True,
        )

    def describe_rule(self, sequences: Sequence[MRSequence]) -> str:
        """Return a message that describes how the segmentations of these sequences are combined."""
        return message(f"outline-{self.rule}", sequences=", ".join(sequences))

    def build_inputs(self, stack: SliceStack) -> list[Tensor]:
        """Return the network inputs, each ``(S, C, H, W)``: one for the joint rule, otherwise one per sequence."""
        samples = build_samples(stack, self.sequences, self.rule == "joint")
        return [add_neighbour_slices(images, self.neighbour_slices) for images in samples]

    def _predict_probability(self, stack: SliceStack) -> NDArray[np.float32]:
        probabilities = [
            predict_lesion_probability(
                self.network,
                images,
                stack.brain,
                self.tile_size,
                self.pooling_factor,
                self.uses_mirroring,
                self.engine,
            )
            for images in self.build_inputs(stack)
        ]
        # union of the masks: a missed lesion is worse than extra background (method.md, section 5)
        values: NDArray[np.float32] = np.maximum.reduce(probabilities)
        return values

    def predict_high_grade_probability(self, stack: SliceStack, mask: NDArray[np.bool_]) -> float:
        """Return the auxiliary task's probability, 0 to 1, of a high-grade glioma (WHO III or IV).

        It is the mean over the slices with lesion in mask ``(slice, row, column)``, in the central view; nan if the
        network has no grading task or no slice shows lesion.
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
                device = find_device(self.network)
                grade = self.network(
                    views.to(device), theta.expand(len(views), -1, -1).to(device)
                ).grade_logits
            probabilities.append(float("nan") if grade is None else float(grade.softmax(dim=1)[:, 1].mean()))
        return float(np.mean(probabilities))

    def _compute_central_range(self, stack: SliceStack) -> slice:
        start = (stack.brain.shape[-1] - self.tile_size) // 2
        return slice(start, start + self.tile_size)


class _LogitsOnly(nn.Module):
    """A segmentation network without its further outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, views: Tensor, theta: Tensor) -> Tensor:
        """Return the logits ``(B, 2, H, W)``."""
        logits: Tensor = self.network(views, theta)[0]
        return logits


def select_sequences(sequences: tuple[MRSequence, ...], rule: str) -> tuple[MRSequence, ...]:
    """Return the sequences that a rule uses: for "single" only the last, which is the reference."""
    return sequences[-1:] if rule == "single" else sequences


def build_samples(stack: SliceStack, sequences: Sequence[MRSequence], is_joint: bool) -> list[Tensor]:
    """Build the samples of a stack, each ``(S, C, H, W)``.

    is_joint: all sequences are channels of one sample, a missing one being 0, the mean of the brain; otherwise each
    sequence that is present is a sample of one channel.
    """
    if not is_joint:
        return [torch.from_numpy(stack.images[name])[:, None] for name in sequences if name in stack.images]
    empty = np.zeros(stack.brain.shape, np.float32)
    return [torch.from_numpy(np.stack([stack.images.get(name, empty) for name in sequences], axis=1))]


def add_neighbour_slices(images: Tensor, neighbour_slices: int) -> Tensor:
    """Add the neighbouring slices as channels: ``(S, C, H, W)`` to ``(S, C * (2 * neighbour_slices + 1), H, W)``.

    The first and last slice are repeated at the ends.
    """
    last = len(images) - 1
    steps = [
        (torch.arange(last + 1) + step).clamp(0, max(last, 0))
        for step in range(-neighbour_slices, neighbour_slices + 1)
    ]
    return torch.stack([images[index] for index in steps], dim=2).flatten(1, 2)


def downsample_by_averaging(images: Tensor, pooling_factor: float) -> Tensor:
    """Downsample ``(B, C, H, W)`` to ``(B, C, H / f, W / f)`` by averaging over areas of f x f pixels.

    f = pooling_factor need not be an integer: with 1.5, three pixels become two.
    """
    return F.interpolate(
        images, size=[round(side / pooling_factor) for side in images.shape[-2:]], mode="area"
    )


def predict_lesion_probability(
    network: nn.Module,
    images: Tensor,
    brain: NDArray[Any],
    tile_size: int,
    pooling_factor: float = 1,
    uses_mirroring: bool = False,
    engine: EngineNetwork | None = None,
) -> NDArray[np.float32]:
    """Predict the lesion probability, 0 to 1, of every pixel; logits are averaged where tiles overlap.

    The published method uses four corner tiles (method.md, section 3). Slices are centred on the brain, so that
    one central tile covers a brain of up to ``tile_size`` mm in a quarter of the time; larger brains need the corners.

    Parameters
    ----------
    network
        Called as ``network(image, theta)``.
    images
        ``(S, C, H, W)``.
    brain
        Brain mask ``(S, H, W)``.
    tile_size
        Side of a tile in pixels.
    pooling_factor
        The tile is averaged over pooling_factor x pooling_factor pixels for the network; the logits are upsampled.
    uses_mirroring
        Average the outputs for the tile and for its mirror image.
    engine
        Runs the network in place of PyTorch.

    Returns
    -------
    array
        Probability ``(S, H, W)``; 0 outside all tiles.
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
                    network, views, theta.expand(len(views), -1, -1), uses_mirroring, engine
                )
                logits[start : start + BATCH_SIZE][window] += F.interpolate(
                    tile_logits, size=(tile_size, tile_size), mode="bilinear", align_corners=False
                )
            coverage[window] += 1
    logits /= coverage.clamp(min=1)
    # pixels outside all tiles have probability 0
    return (logits.softmax(dim=1)[:, 1] * (coverage > 0)).numpy()


def _predict_logits(
    network: nn.Module, views: Tensor, theta: Tensor, uses_mirroring: bool, engine: EngineNetwork | None
) -> Tensor:
    """Compute the logits, by the engine or on the network's device, and return them on the CPU."""
    mirrored = theta * theta.new_tensor([-1.0, 1.0, 1.0])  # the columns of the mirrored view are reversed
    if engine is not None:
        if uses_mirroring:
            views, theta = torch.cat([views, views.flip(-1)]), torch.cat([theta, mirrored])
        logits = torch.from_numpy(engine.run(views.numpy(), theta.contiguous().numpy())[0])
        return _average_mirrored(*logits.chunk(2)) if uses_mirroring else logits
    device = find_device(network)
    views = views.to(device)
    logits = network(views, theta.to(device))[0]
    if uses_mirroring:
        logits = _average_mirrored(logits, network(views.flip(-1), mirrored.to(device))[0])
    return logits.cpu()


def _average_mirrored(logits: Tensor, mirrored_logits: Tensor) -> Tensor:
    return (logits + mirrored_logits.flip(-1)) / 2


def compute_tile_corners(brain: NDArray[Any], tile_size: int) -> Sequence[tuple[int, int]]:
    """Return the top-left corners of the tiles in pixels (row, column).

    One central tile if it contains the whole brain ``(S, H, W)``, otherwise four corner tiles.
    """
    height, width = brain.shape[-2:]
    top, left = (height - tile_size) // 2, (width - tile_size) // 2
    inside = brain[:, top : top + tile_size, left : left + tile_size].sum()
    if inside == brain.sum():
        return [(top, left)]
    return [(t, s) for t in (0, height - tile_size) for s in (0, width - tile_size)]


def compute_tile_theta(top: int, left: int, tile_size: int, height: int, width: int) -> Tensor:
    """Return theta ``(1, 2, 3)``: the tile's position in the template, in normalised coordinates."""
    theta = torch.zeros(1, 2, 3)
    theta[0, 0, 0], theta[0, 1, 1] = tile_size / width, tile_size / height
    theta[0, 0, 2] = (2 * left + tile_size) / width - 1
    theta[0, 1, 2] = (2 * top + tile_size) / height - 1
    return theta


def remove_small_components(
    probability: NDArray[np.float32], min_voxels: float, min_component_share: float = 0.0
) -> NDArray[np.bool_]:
    """Return the mask ``(S, H, W)`` of probabilities above 0 without small connected components.

    Components of fewer than ``min_voxels`` voxels, or with less than ``min_component_share`` of the largest component's
    summed probability, are removed.
    """
    labels, count = ndimage.label(probability, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    weights = np.bincount(labels.ravel(), probability.ravel(), minlength=count + 1)
    keep = (sizes >= min_voxels) & (weights >= min_component_share * weights[1:].max(initial=0.0))
    keep[0] = False
    mask: NDArray[np.bool_] = keep[labels]
    return mask
