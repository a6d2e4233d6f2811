"""Segment a prepared patient: inference, combination of the sequences, removal of small components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from gliomark.engines import EngineNetwork
from gliomark.errors import ConfigurationError, WeightsError
from gliomark.inference.resampling import build_averaging_matrix, build_bilinear_matrix, resample_axes
from gliomark.messages import message
from gliomark.study import MRSequence, Segmentation, SliceStack

BATCH_SIZE = 8
SEQUENCE_RULES = ("joint", "union", "single")

FloatArray = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained segmentation network and its inference settings.

    Attributes
    ----------
    network
        From images ``(B, C, h, w)`` and theta ``(B, 2, 3)`` to logits ``(B, 2, h, w)``.
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
    size_multiple
        The network sees also a brain that is larger than a tile at once, in a window whose sides are multiples of this
        number of its pixels; None: in overlapping tiles, see ``models.entries.SegmentationEntry``.

    Raises
    ------
    ConfigurationError
        If the rule is unknown.
    """

    network: EngineNetwork
    sequences: tuple[MRSequence, ...]
    rule: str
    tile_size: int = 224
    threshold: float = 0.5
    min_lesion_ml: float = 0.0
    pooling_factor: float = 1
    neighbour_slices: int = 0
    uses_mirroring: bool = False
    min_component_share: float = 0.0
    size_multiple: int | None = None

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
        self.network.release_memory()
        if not np.isfinite(probability).all():
            raise WeightsError(message("outline-no-number"))
        probability[~stack.brain] = 0.0
        mask = self.create_mask(probability, stack)
        return Segmentation(probability, mask, self.describe_rule(self.sequences))

    def create_mask(self, probability: FloatArray, stack: SliceStack) -> NDArray[np.bool_]:
        """Create the mask ``(S, H, W)`` from the probabilities of a stack, 0 outside the brain."""
        return remove_small_components(
            np.where(probability >= self.threshold, probability, 0.0),
            self.min_lesion_ml / stack.voxel_volume_ml,
            self.min_component_share,
        )

    def describe_rule(self, sequences: Sequence[MRSequence]) -> str:
        """Return a message that describes how the segmentations of these sequences are combined."""
        return message(f"outline-{self.rule}", sequences=", ".join(sequences))

    def build_inputs(self, stack: SliceStack) -> list[FloatArray]:
        """Return the network inputs, each ``(S, C, H, W)``: one for the joint rule, otherwise one per sequence."""
        samples = build_samples(stack, self.sequences, self.rule == "joint")
        return [add_neighbour_slices(images, self.neighbour_slices) for images in samples]

    def _predict_probability(self, stack: SliceStack) -> FloatArray:
        probabilities = [
            predict_lesion_probability(
                self.network,
                images,
                stack.brain,
                self.tile_size,
                self.pooling_factor,
                self.uses_mirroring,
                self.size_multiple,
                self.neighbour_slices,
            )
            for images in build_samples(stack, self.sequences, self.rule == "joint")
        ]
        # union of the masks: a missed lesion is worse than extra background (method.md, section 5)
        values: FloatArray = np.maximum.reduce(probabilities)
        return values


def select_sequences(sequences: tuple[MRSequence, ...], rule: str) -> tuple[MRSequence, ...]:
    """Return the sequences that a rule uses: for "single" only the last, which is the reference."""
    return sequences[-1:] if rule == "single" else sequences


def build_samples(stack: SliceStack, sequences: Sequence[MRSequence], is_joint: bool) -> list[FloatArray]:
    """Build the samples of a stack, each ``(S, C, H, W)``.

    is_joint: all sequences are channels of one sample, a missing one being 0, the mean of the brain; otherwise each
    sequence that is present is a sample of one channel.
    """
    if not is_joint:
        return [stack.images[name][:, None] for name in sequences if name in stack.images]
    empty = np.zeros(stack.brain.shape, np.float32)
    return [np.stack([stack.images.get(name, empty) for name in sequences], axis=1)]


def add_neighbour_slices(images: NDArray[Number], neighbour_slices: int) -> NDArray[Number]:
    """Add the neighbouring slices as channels: ``(S, C, H, W)`` to ``(S, C * (2 * neighbour_slices + 1), H, W)``.

    The first and last slice are repeated at the ends.
    """
    count, channels, *shape = images.shape
    steps = range(-neighbour_slices, neighbour_slices + 1)
    index = [(np.arange(count) + step).clip(0, max(count - 1, 0)) for step in steps]
    return np.stack([images[one] for one in index], axis=2).reshape(count, channels * len(index), *shape)


class Window(NamedTuple):
    """A part of all slices that a network sees at once.

    Attributes
    ----------
    rows, columns
        Its pixels in the slice; a window may extend beyond the slice.
    sampled_rows, sampled_columns
        Number of the network's pixels.
    pixels_per_sample
        Pixels of the slice per pixel of the network.
    """

    rows: range
    columns: range
    sampled_rows: int
    sampled_columns: int
    pixels_per_sample: float


def predict_lesion_probability(
    network: EngineNetwork,
    images: FloatArray,
    brain: NDArray[np.bool_],
    tile_size: int,
    pooling_factor: float = 1,
    uses_mirroring: bool = False,
    size_multiple: int | None = None,
    neighbour_slices: int = 0,
) -> FloatArray:
    """Predict the lesion probability, 0 to 1, of every pixel; logits are averaged where tiles overlap.

    The published method uses four corner tiles (method.md, section 3). Slices are centred on the brain, so that
    one central tile covers a brain of up to ``tile_size`` mm in a quarter of the time; larger brains need the corners.
    A network with a ``size_multiple`` sees a larger brain in one window.

    Parameters
    ----------
    network
        From images ``(B, C, h, w)`` and theta ``(B, 2, 3)`` to logits ``(B, 2, h, w)``.
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
    size_multiple, neighbour_slices
        See ``Segmenter``.

    Returns
    -------
    array
        Probability ``(S, H, W)``; 0 outside all tiles.
    """
    height, width = images.shape[-2:]
    # of the positive class over the negative one
    log_odds, coverage = (
        np.zeros((len(images), height, width), np.float32),
        np.zeros((height, width), np.float32),
    )
    for window in compute_windows(brain, tile_size, pooling_factor, size_multiple):
        rows, columns = _clip_range(window.rows, height), _clip_range(window.columns, width)
        target = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        inner = (
            slice(rows.start - window.rows.start, rows.stop - window.rows.start),
            slice(columns.start - window.columns.start, columns.stop - window.columns.start),
        )
        theta = compute_theta(window.rows, window.columns, height, width)
        views = add_neighbour_slices(_extract_views(images, window, rows, columns), neighbour_slices)
        for start in range(0, len(images), BATCH_SIZE):
            found = _predict_log_odds(network, views[start : start + BATCH_SIZE], theta, uses_mirroring)
            log_odds[start : start + BATCH_SIZE][(..., *target)] += _enlarge(found, window)[(..., *inner)]
        coverage[target] += 1
    log_odds /= np.maximum(coverage, 1)
    # pixels outside all tiles have probability 0
    probability: FloatArray = (expit(log_odds) * (coverage > 0)).astype(np.float32)
    return probability


def _clip_range(pixels: range, length: int) -> range:
    return range(max(pixels.start, 0), min(pixels.stop, length))


def _extract_views(images: FloatArray, window: Window, rows: range, columns: range) -> FloatArray:
    """Return the network's views ``(B, C, h, w)`` of images ``(B, C, H, W)``.

    Pixels of the window beyond the slice have the lowest value of their image, which is that of its background.
    """
    views: NDArray[Any] = images[..., rows.start : rows.stop, columns.start : columns.stop]
    missing = [
        (within.start - pixels.start, pixels.stop - within.stop)
        for pixels, within in ((window.rows, rows), (window.columns, columns))
    ]
    if any(sum(missing, ())):
        extended = np.empty((*images.shape[:2], len(window.rows), len(window.columns)), np.float32)
        extended[:] = images.min(axis=(2, 3), keepdims=True)
        (top, _), (left, _) = missing
        extended[..., top : top + len(rows), left : left + len(columns)] = views
        views = extended
    return resample_axes(
        views,
        build_averaging_matrix(window.sampled_rows, len(window.rows), window.pixels_per_sample),
        build_averaging_matrix(window.sampled_columns, len(window.columns), window.pixels_per_sample),
    )


def _enlarge(log_odds: FloatArray, window: Window) -> FloatArray:
    """Interpolate ``(B, h, w)`` at the pixels of the window, ``(B, rows, columns)``."""
    return resample_axes(
        log_odds,
        build_bilinear_matrix(len(window.rows), window.sampled_rows, window.pixels_per_sample),
        build_bilinear_matrix(len(window.columns), window.sampled_columns, window.pixels_per_sample),
    )


def _predict_log_odds(
    network: EngineNetwork, views: FloatArray, theta: FloatArray, uses_mirroring: bool
) -> FloatArray:
    """Compute the log-odds ``(B, h, w)`` of views ``(B, C, h, w)``; theta ``(1, 2, 3)``: their position."""
    thetas = theta.repeat(len(views), axis=0)
    if uses_mirroring:
        views = np.concatenate([views, views[..., ::-1]])
        # the columns of the mirrored view are reversed
        thetas = np.concatenate([thetas, thetas * np.array([-1, 1, 1], np.float32)])
    logits = network.run(np.ascontiguousarray(views, np.float32), thetas)[0]
    log_odds = logits[:, 1] - logits[:, 0]
    if uses_mirroring:
        straight, mirrored = np.split(log_odds, 2)
        log_odds = (straight + mirrored[..., ::-1]) / 2
    return log_odds


def compute_windows(
    brain: NDArray[Any], tile_size: int, pooling_factor: float, size_multiple: int | None
) -> list[Window]:
    """Return the windows in which a network sees the slices of a brain ``(S, H, W)``.

    One central tile if it contains the whole brain; otherwise one larger window if the network has a
    ``size_multiple``, and else four tiles.
    """
    side = round(tile_size / pooling_factor)
    corners = compute_tile_corners(brain, tile_size)
    if len(corners) > 1 and size_multiple is not None:
        return [compute_brain_window(brain, tile_size, side, size_multiple)]
    return [
        Window(range(t, t + tile_size), range(s, s + tile_size), side, side, tile_size / side)
        for t, s in corners
    ]


def compute_tile_corners(brain: NDArray[Any], tile_size: int) -> list[tuple[int, int]]:
    """Return the top-left corners of the tiles in pixels (row, column).

    One central tile if it contains the whole brain ``(S, H, W)``, otherwise four corner tiles.
    """
    height, width = brain.shape[-2:]
    top, left = (height - tile_size) // 2, (width - tile_size) // 2
    inside = brain[:, top : top + tile_size, left : left + tile_size].sum()
    if inside == brain.sum():
        return [(top, left)]
    return [(t, s) for t in (0, height - tile_size) for s in (0, width - tile_size)]


def compute_brain_window(brain: NDArray[Any], tile_size: int, side: int, size_multiple: int) -> Window:
    """Return the central window that contains the whole brain ``(S, H, W)`` and at least a tile.

    side: the network's pixels along a tile. The window's sides are the smallest multiples of ``size_multiple`` of the
    network's pixels.
    """
    pixels_per_sample = tile_size / side
    ranges, sampled = [], []
    for axis in (1, 2):
        length = brain.shape[axis]
        occupied = np.flatnonzero(brain.any(axis=(0, 3 - axis)))
        # twice the distance from the centre to the farther end
        needed = max(2 * int(occupied[-1]) + 2 - length, length - 2 * int(occupied[0]), tile_size)
        samples = size_multiple * int(np.ceil(needed / pixels_per_sample / size_multiple - 1e-9))
        pixels = int(np.ceil(samples * pixels_per_sample - 1e-9))
        ranges.append(range((length - pixels) // 2, (length - pixels) // 2 + pixels))
        sampled.append(samples)
    return Window(ranges[0], ranges[1], sampled[0], sampled[1], pixels_per_sample)


def compute_theta(rows: range, columns: range, height: int, width: int) -> FloatArray:
    """Return theta ``(1, 2, 3)``: the position of a window in the template, in normalised coordinates."""
    theta = np.zeros((1, 2, 3), np.float32)
    theta[0, 0, 0], theta[0, 1, 1] = len(columns) / width, len(rows) / height
    theta[0, 0, 2] = (columns.start + columns.stop) / width - 1
    theta[0, 1, 2] = (rows.start + rows.stop) / height - 1
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
