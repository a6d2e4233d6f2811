"""Input and output that all networks share, and two wrappers that give an image network that form. Tensors only.

A segmentation network is called as ``network(image, theta)`` and returns a ``SegmentationOutput``; a marker network is
called as ``network(mix)`` and returns a ``MarkerOutput``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple, TypedDict

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

CLASS_COUNT = 2
CHANNELS_PER_SEQUENCE = 2  # channels of MIX: the image and its lesion-only image
ChannelIndices = Annotated[tuple[Annotated[int, Field(ge=0, le=3)], ...], Field(min_length=1, max_length=4)]
ALL_CHANNELS: ChannelIndices = (0, 1, 2, 3)


class SegmentationOutput(NamedTuple):
    """Output of a segmentation network.

    logits ``(B, 2, H, W)``; grade_logits ``(B, 2)``, or None without a grading task; deep_supervision_logits: logits
    of the coarser levels, upsampled to ``(B, 2, H, W)``, fine to coarse, only while training with deep supervision.
    """

    logits: Tensor
    grade_logits: Tensor | None
    deep_supervision_logits: tuple[Tensor, ...] = ()


class MarkerOutput(TypedDict):
    """Output of every marker network.

    image_vector ``(B, D)``: input of LightGBM; logits ``(B, 2)``: the output used for prediction.
    """

    image_vector: Tensor
    logits: Tensor


class ImageSegmentationNetwork(nn.Module):
    """Gives a network from image to logits the form of a segmentation network without a grading task.

    The inner network maps ``(B, C, H, W)`` to logits ``(B, 2, H, W)``, or to ``(B, level, 2, H, W)`` while training
    with deep supervision. theta is ignored, because such a network does not use the template.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, theta: Tensor | None = None) -> SegmentationOutput:
        """Return the logits ``(B, 2, H, W)``."""
        logits = self.network(image)
        if logits.ndim == 5:  # (B, level, 2, H, W), all brought to full resolution
            return SegmentationOutput(logits[:, 0], None, tuple(logits[:, 1:].unbind(dim=1)))
        return SegmentationOutput(logits, None)


class LogitsOnly(nn.Module):
    """A segmentation network without its further outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, theta: Tensor) -> Tensor:
        """Return the logits ``(B, 2, H, W)``."""
        logits: Tensor = self.network(image, theta)[0]
        return logits


class VectorAndLogits(nn.Module):
    """A marker network as prediction uses it, from images and lesion masks to its image vectors and logits.

    predict: computes the ``MarkerOutput``, see ``entries.MarkerEntry``.
    """

    def __init__(self, network: nn.Module, predict: Callable[[nn.Module, Tensor], MarkerOutput]) -> None:
        super().__init__()
        self.network, self.predict = network, predict

    def forward(self, images: Tensor, lesion: Tensor) -> tuple[Tensor, Tensor]:
        """Return image vectors ``(B, D)`` and logits ``(B, 2)``; images ``(B, 2, H, W)``, masks ``(B, H, W)``."""
        output = self.predict(self.network, build_mix_input(images[:, 0], images[:, 1], lesion))
        return output["image_vector"], output["logits"]


class SingleHeadNetwork(nn.Module):
    """A feature extractor on selected channels of MIX ``(B, 4, H, W)``, followed by one linear layer."""

    def __init__(
        self, backbone: nn.Module, vector_length: int, channels: Sequence[int], pooling_factor: int
    ) -> None:
        super().__init__()
        self.trunk = backbone
        self.cat_head = nn.Linear(vector_length, CLASS_COUNT)
        self.channels, self.pooling_factor = list(channels), pooling_factor

    def forward(self, mix: Tensor) -> MarkerOutput:
        """Return image vector and logits ``(B, 2)`` for MIX ``(B, 4, H, W)``."""
        vector = self.trunk(self.select_input(mix))
        return {"image_vector": vector, "logits": self.cat_head(vector)}

    def select_input(self, mix: Tensor) -> Tensor:
        """Return the feature extractor's input ``(B, C, h, w)``: the selected channels of MIX, average-pooled."""
        return average_pool_input(mix[:, self.channels], self.pooling_factor)


def average_pool_input(mix: Tensor, pooling_factor: int) -> Tensor:
    """Average the slices ``(B, C, H, W)`` over pooling_factor x pooling_factor pixels."""
    return F.avg_pool2d(mix, pooling_factor) if pooling_factor > 1 else mix


def downsample_by_averaging(images: Tensor, pooling_factor: float) -> Tensor:
    """Downsample ``(B, C, H, W)`` to ``(B, C, H / f, W / f)`` by averaging over areas of f x f pixels.

    f = pooling_factor need not be an integer: with 1.5, three pixels become two.
    """
    if pooling_factor == 1:
        return images
    return F.interpolate(
        images, size=[round(side / pooling_factor) for side in images.shape[-2:]], mode="area"
    )


def average_globally(features: Sequence[Tensor]) -> list[Tensor]:
    """Apply global average pooling to each feature, ``(B, C, H, W)`` to ``(B, C)``."""
    return [feature.mean(dim=(2, 3)) for feature in features]


def initialise_kaiming(module: nn.Module) -> None:
    """Initialise a convolution by Kaiming's method (method.md, section 4); other modules are left unchanged."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build_mix_input(first: Tensor, second: Tensor, lesion: Tensor) -> Tensor:
    """Build the network input MIX ``(B, 4, H, W)`` from two images and a lesion mask, each ``(B, H, W)``.

    Each image is followed by its ROI, in which everything outside the lesion has the image's background value. The
    background is the minimum of the image, which preparation assigns outside the brain (method.md, section 4).
    """
    channels = []
    for image in (first, second):
        background = image.flatten(1).amin(dim=1)[:, None, None]
        channels += [image, torch.where(lesion > 0, image, background)]
    return torch.stack(channels, dim=1)


def extract_lesion_mask(mix: Tensor) -> Tensor:
    """Return the lesion mask ``(B, 1, H, W)``, 0 or 1, of MIX ``(B, 2 or 4, H, W)``.

    The lesion is where the lesion-only image differs from its background.
    """
    lesion_only = mix[:, 1:2]
    return (lesion_only > lesion_only.amin(dim=(2, 3), keepdim=True)).float()
