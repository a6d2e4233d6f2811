"""The three slice classifiers: published sizes, any number of channels, and weights with other naming schemes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gliomark.models.comparison.image_classifiers import (
    IMAGE_CLASSIFIERS,
    build_densenet121,
    build_resnet50,
    build_xception,
    load_imagenet_state_dict,
)

# the first two numbers are torchvision's. MONAI's ResNet additionally has biases in its four shortcut convolutions
NOT_IN_FILES = ("tracked", "downsample.0.bias")
SHORTCUT_BIASES = 256 + 512 + 1024 + 2048
PUBLISHED_SIZES = [
    (build_resnet50, 25_557_032 + SHORTCUT_BIASES),
    (build_densenet121, 7_978_856),
    (build_xception, 22_855_952),
]


@pytest.mark.parametrize(("build", "parameters"), PUBLISHED_SIZES)
def test_as_many_parameters_as_published(build: Callable[..., nn.Module], parameters: int):
    with torch.device("meta"):
        network = build(3, 1000)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("name", IMAGE_CLASSIFIERS)
def test_every_channel_and_every_layer_takes_part(name: str):
    torch.manual_seed(0)
    network = IMAGE_CLASSIFIERS[name](2)
    image = torch.randn(2, 2, 60, 60, requires_grad=True)
    logits = network(image)
    logits[:, 1].sum().backward()
    assert logits.shape == (2, 2)
    assert image.grad is not None and (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_xception_halves_the_picture_five_times():
    seen = {}
    with torch.device("meta"):
        network = build_xception(1)
        network.conv4.register_forward_hook(lambda *hooked: seen.update(feature=hooked[2]))
        network(torch.zeros(1, 1, 299, 299))
    assert seen["feature"].shape == (1, 2048, 10, 10)  # figure 5 of Chollet 2017


def as_torchvision(network: nn.Module, old: bool = False) -> dict[str, Tensor]:
    """Return the network's tensors with torchvision's names; old: as in files of 2017."""
    state = {}
    for name, value in network.state_dict().items():
        name = re.sub(r"layers\.(norm|conv)([12])", r"\1.\2" if old else r"\1\2", name)
        if not name.endswith("downsample.0.bias") and not (old and name.endswith("tracked")):
            state[name.replace("class_layers.out", "classifier")] = value
    return state


@pytest.mark.parametrize(
    ("build", "first"),
    [
        (build_resnet50, "conv1.weight"),
        (build_densenet121, "features.conv0.weight"),
        (build_xception, "conv1.weight"),
    ],
)
def test_imagenet_weights_fit_all_but_the_last_layer(build: Callable[..., nn.Module], first: str):
    source, network = build(3, 3), build(2)
    given = source.state_dict()
    for old in (False, True):
        for weight in network.parameters():
            nn.init.constant_(weight, 7)
        fit = load_imagenet_state_dict(network, as_torchvision(source, old))
        own = network.state_dict()
        same = [n for n in own if own[n].shape == given[n].shape and not n.endswith(NOT_IN_FILES)]
        assert all(torch.equal(own[name], given[name]) for name in same)
        assert fit.loaded == len(same) + 1
        assert all((own[name] == 0).all() for name in own if name.endswith("downsample.0.bias"))
        # the first layer responds to a grey image as it did to the same image in three colours
        torch.testing.assert_close(own[first].sum(dim=1), given[first].sum(dim=1))


def test_the_same_picture_gives_the_same_features_after_loading():
    source, network = build_densenet121(3).eval(), build_densenet121(3).eval()
    load_imagenet_state_dict(network, as_torchvision(source))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), source(image))


def test_another_networks_file_is_refused():
    with pytest.raises(ValueError, match="tensors fit"):
        load_imagenet_state_dict(build_resnet50(1), as_torchvision(build_densenet121(3)))
