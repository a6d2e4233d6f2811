"""The segmentation network with the steps around it, from a prepared volume to the lesion's probability.

It computes what ``inference.segmenter.predict_lesion_probability`` computes, as one TorchScript module that needs no
gliomark: channels of neighbouring slices, the window that contains the brain, averaging, mirroring, interpolation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gliomark.inference.segmenter import BATCH_SIZE
from gliomark.model_export.exported_networks import build_exported_segmentation
from gliomark.models.card import ModelCard
from gliomark.models.weights import Weights


def build_volume_network(weights: Weights) -> torch.jit.ScriptModule:
    """Build the volume network of a weights file, in TorchScript.

    It maps images ``(1, C, column, row, slice)``, one channel per sequence, to the probability of lesion
    ``(1, 1, column, row, slice)``.

    Raises
    ------
    WeightsError
        If the file does not describe a valid network.
    """
    exported = build_exported_segmentation(weights)
    network = VolumeNetwork(exported.trace(), weights.card, exported.size_multiple or 0)
    return torch.jit.script(network.eval())


class VolumeNetwork(nn.Module):
    """See ``build_volume_network``.

    Parameters
    ----------
    network
        From images ``(B, C, h, w)`` and theta ``(B, 2, 3)`` to logits ``(B, 2, h, w)``.
    card
        The settings around it.
    size_multiple
        See ``models.entries.SegmentationEntry``; 0: None.
    """

    def __init__(self, network: torch.jit.ScriptModule, card: ModelCard, size_multiple: int) -> None:
        super().__init__()
        use = card.segmentation
        self.network = network
        self.is_joint: bool = card.rule == "joint"
        self.tile: int = use.tile
        self.side: int = round(use.tile / use.pool)
        self.context: int = use.context
        self.uses_mirroring: bool = use.flips
        self.size_multiple: int = size_multiple
        self.batch_size: int = BATCH_SIZE

    def forward(self, image: Tensor) -> Tensor:
        """Return the probability, of the shape of one sequence of the image ``(1, C, column, row, S)``.

        Outside the brain, where all sequences have their minimum, it is 0.
        """
        slices = image[0].permute(3, 0, 2, 1)  # (S, C, row, column)
        brain = (slices > slices.amin(dim=(0, 2, 3), keepdim=True)).any(dim=1)
        if self.is_joint:
            probability = self.predict_sample(slices, brain)
        else:
            probability = self.predict_sample(slices[:, 0:1], brain)
            for channel in range(1, slices.shape[1]):
                other = self.predict_sample(slices[:, channel : channel + 1], brain)
                probability = torch.maximum(probability, other)
        return (probability * brain).permute(2, 1, 0)[None, None]

    def predict_sample(self, images: Tensor, brain: Tensor) -> Tensor:
        """Predict the probability ``(S, H, W)`` of images ``(S, C, H, W)``; brain ``(S, H, W)``."""
        height, width = images.shape[2], images.shape[3]
        log_odds = torch.zeros(images.shape[0], height, width, device=images.device)
        coverage = torch.zeros(height, width, device=images.device)
        for window in self.compute_windows(brain):
            top, left, rows, columns = window[0], window[1], window[2], window[3]
            found = self.predict_window(images, window)
            first_row, end_row = max(top, 0), min(top + rows, height)
            first_column, end_column = max(left, 0), min(left + columns, width)
            inner = found[:, first_row - top : end_row - top, first_column - left : end_column - left]
            log_odds[:, first_row:end_row, first_column:end_column] += inner
            coverage[first_row:end_row, first_column:end_column] += 1
        return torch.sigmoid(log_odds / coverage.clamp(min=1)) * (coverage > 0)

    def compute_windows(self, brain: Tensor) -> list[list[int]]:
        """Return the windows: top, left, rows, columns, and the network's rows and columns; brain ``(S, H, W)``."""
        height, width, tile, side = brain.shape[1], brain.shape[2], self.tile, self.side
        top, left = (height - tile) // 2, (width - tile) // 2
        inside = int(brain[:, top : top + tile, left : left + tile].sum())
        if inside == int(brain.sum()):
            return [[top, left, tile, tile, side, side]]
        if self.size_multiple > 0:
            rows, sampled_rows = self.compute_length(brain.any(dim=2).any(dim=0))
            columns, sampled_columns = self.compute_length(brain.any(dim=1).any(dim=0))
            top, left = (height - rows) // 2, (width - columns) // 2
            return [[top, left, rows, columns, sampled_rows, sampled_columns]]
        corners: list[list[int]] = []
        for corner_top in [0, height - tile]:
            for corner_left in [0, width - tile]:
                corners.append([corner_top, corner_left, tile, tile, side, side])
        return corners

    def compute_length(self, is_occupied: Tensor) -> tuple[int, int]:
        """Return pixels and samples of the central window that contains all occupied pixels ``(n,)``."""
        occupied, length = torch.nonzero(is_occupied)[:, 0], is_occupied.shape[0]
        # twice the distance from the centre to the farther end
        needed = max(max(2 * int(occupied[-1]) + 2 - length, length - 2 * int(occupied[0])), self.tile)
        pixels_per_sample = self.tile / self.side
        multiple = self.size_multiple
        samples = multiple * round_up(needed / pixels_per_sample / multiple)
        return round_up(samples * pixels_per_sample), samples

    def predict_window(self, images: Tensor, window: list[int]) -> Tensor:
        """Predict the log-odds ``(S, rows, columns)`` of a window of images ``(S, C, H, W)``."""
        top, left, rows, columns, sampled_rows, sampled_columns = window
        height, width = images.shape[2], images.shape[3]
        first_row, end_row = max(top, 0), min(top + rows, height)
        first_column, end_column = max(left, 0), min(left + columns, width)
        views = images.amin(dim=(2, 3), keepdim=True).repeat(1, 1, rows, columns)
        views[:, :, first_row - top : end_row - top, first_column - left : end_column - left] = images[
            :, :, first_row:end_row, first_column:end_column
        ]
        scale = self.tile / self.side
        views = build_averaging_matrix(sampled_rows, rows, scale).to(images.device) @ (
            views @ build_averaging_matrix(sampled_columns, columns, scale).to(images.device).t()
        )
        theta = torch.zeros(1, 2, 3, device=images.device)
        theta[0, 0, 0], theta[0, 1, 1] = columns / width, rows / height
        theta[0, 0, 2], theta[0, 1, 2] = (2 * left + columns) / width - 1, (2 * top + rows) / height - 1
        found = self.run_network(self.add_neighbour_slices(views), theta)
        return build_bilinear_matrix(rows, sampled_rows, scale).to(images.device) @ (
            found @ build_bilinear_matrix(columns, sampled_columns, scale).to(images.device).t()
        )

    def add_neighbour_slices(self, views: Tensor) -> Tensor:
        """Add the neighbouring slices as channels, ``(S, C, h, w)`` to ``(S, C * (2 * context + 1), h, w)``."""
        count = views.shape[0]
        steps: list[Tensor] = []
        for step in range(-self.context, self.context + 1):
            steps.append(views[(torch.arange(count) + step).clamp(0, count - 1)])
        return torch.stack(steps, dim=2).flatten(1, 2)

    def run_network(self, views: Tensor, theta: Tensor) -> Tensor:
        """Compute the log-odds ``(S, h, w)`` of views ``(S, C, h, w)`` in batches."""
        parts: list[Tensor] = []
        for start in range(0, views.shape[0], self.batch_size):
            batch = views[start : start + self.batch_size]
            straight = self.network(batch, theta.repeat(batch.shape[0], 1, 1))
            log_odds = straight[:, 1] - straight[:, 0]
            if self.uses_mirroring:
                mirrored_theta = theta * torch.tensor([-1.0, 1.0, 1.0], device=theta.device)
                mirrored = self.network(batch.flip([3]), mirrored_theta.repeat(batch.shape[0], 1, 1))
                log_odds = (log_odds + (mirrored[:, 1] - mirrored[:, 0]).flip([2])) / 2
            parts.append(log_odds)
        return torch.cat(parts)


def round_up(number: float) -> int:
    """Return the smallest whole number that is not below ``number``, but for rounding errors."""
    return math.ceil(number - 1e-9)


def build_averaging_matrix(count: int, pixel_count: int, pixels_per_sample: float) -> Tensor:
    """Build the matrix ``(count, pixel_count)`` of ``inference.resampling.build_averaging_matrix``."""
    index = torch.arange(count, dtype=torch.float64)
    start = torch.floor(index * pixels_per_sample + 1e-9)[:, None]
    end = torch.ceil((index + 1) * pixels_per_sample - 1e-9).clamp(max=float(pixel_count))[:, None]
    pixels = torch.arange(pixel_count, dtype=torch.float64)[None]
    return (((pixels >= start) & (pixels < end)) / (end - start)).to(torch.float32)


def build_bilinear_matrix(pixel_count: int, count: int, pixels_per_sample: float) -> Tensor:
    """Build the matrix ``(pixel_count, count)`` of ``inference.resampling.build_bilinear_matrix``."""
    position = (torch.arange(pixel_count, dtype=torch.float64) + 0.5) / pixels_per_sample - 0.5
    position = position.clamp(0.0, count - 1.0)[:, None]
    lower = torch.floor(position)
    upper = (lower + 1).clamp(max=count - 1.0)
    samples = torch.arange(count, dtype=torch.float64)[None]
    share = position - lower
    return ((samples == lower) * (1 - share) + (samples == upper) * share).to(torch.float32)
