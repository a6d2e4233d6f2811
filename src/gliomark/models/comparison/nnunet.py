"""2-D configuration of nnU-Net (Isensee et al. 2021), from MONAI's DynUNet. Tensors only."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import with_config

from gliomark.models.entries import SegmentationEntry, SegmentationTrainingDefaults
from gliomark.models.network_io import CLASS_COUNT, ImageSegmentationNetwork
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount

LEVEL_COUNT = 5
MAX_CHANNELS = 512


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class NNUNetSettings:
    """Settings of nnU-Net.

    inputs: input channels; width: channels at full resolution, doubled at each of the next four levels.
    """

    inputs: ChannelCount = 1
    width: ChannelCount = 32


def build_nnunet(settings: NNUNetSettings) -> ImageSegmentationNetwork:
    """Build nnU-Net; ``(B, inputs, H, W)`` to logits ``(B, 2, H, W)``, H and W multiples of 16.

    It has instance normalisation, leaky ReLU, strided convolutions, at most 512 channels, and deep supervision of all
    but the two lowest levels.
    """
    from monai.networks.nets.dynunet import DynUNet  # takes seconds to import

    channels = [min(settings.width * 2**level, MAX_CHANNELS) for level in range(LEVEL_COUNT)]
    network = DynUNet(
        2,
        settings.inputs,
        CLASS_COUNT,
        kernel_size=[3] * LEVEL_COUNT,
        strides=[1] + [2] * (LEVEL_COUNT - 1),
        upsample_kernel_size=[2] * (LEVEL_COUNT - 1),
        filters=channels,
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=LEVEL_COUNT - 3,
    )
    return ImageSegmentationNetwork(network)


ENTRY = SegmentationEntry(
    name="nnU-Net",
    reference="Isensee et al. 2021",
    recipes={"published": NNUNetSettings(), "small": NNUNetSettings(width=16)},
    build=lambda settings, prior: build_nnunet(settings),
    recorded_as="nnU-Net 2-D",
    training=SegmentationTrainingDefaults("sgd", rate=1e-2, weight_decay=3e-5, largest_gradient=12.0),
)
