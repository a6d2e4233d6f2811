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
def test_the_number_of_parameters_is_the_published_one(build: Callable[..., nn.Module], parameters: int):
    with torch.device("meta"):
        network = build(3, 1000)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("name", IMAGE_CLASSIFIERS)
def test_every_channel_and_layer_contributes(name: str):
    torch.manual_seed(0)
    network = IMAGE_CLASSIFIERS[name](2)
    image = torch.randn(2, 2, 60, 60, requires_grad=True)
    logits = network(image)
    logits[:, 1].sum().backward()
    assert logits.shape == (2, 2)
    assert image.grad is not None and (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_xception_halves_the_picture_five_times():
    outputs = {}
    with torch.device("meta"):
        network = build_xception(1)
        network.conv4.register_forward_hook(lambda *arguments: outputs.update(feature=arguments[2]))
        network(torch.zeros(1, 1, 299, 299))
    assert outputs["feature"].shape == (1, 2048, 10, 10)  # figure 5 of Chollet 2017


def rename_to_torchvision(network: nn.Module, old: bool = False) -> dict[str, Tensor]:
    """Return the network's tensors with torchvision's names; old: as in files of 2017."""
    state = {}
    for name, value in network.state_dict().items():
        name = re.sub(r"layers\.(norm|conv)([12])", r"\1.\2" if old else r"\1\2", name)
        if not name.endswith("downsample.0.bias") and not (old and name.endswith("tracked")):
            state[name.replace("class_layers.out", "classifier")] = value
    return state


@pytest.mark.parametrize(
    ("build", "first_layer"),
    [
        (build_resnet50, "conv1.weight"),
        (build_densenet121, "features.conv0.weight"),
        (build_xception, "conv1.weight"),
    ],
)
def test_imagenet_weights_fit_all_but_the_last_layer(build: Callable[..., nn.Module], first_layer: str):
    source, network = build(3, 3), build(2)
    source_state = source.state_dict()
    for old in (False, True):
        for weight in network.parameters():
            nn.init.constant_(weight, 7)
        report = load_imagenet_state_dict(network, rename_to_torchvision(source, old))
        network_state = network.state_dict()
        loaded_names = [
            n
            for n in network_state
            if network_state[n].shape == source_state[n].shape and not n.endswith(NOT_IN_FILES)
        ]
        assert all(torch.equal(network_state[name], source_state[name]) for name in loaded_names)
        assert report.loaded == len(loaded_names) + 1
        assert all(
            (network_state[name] == 0).all() for name in network_state if name.endswith("downsample.0.bias")
        )
        # the first layer responds to a grey image as it did to the same image in three colours
        torch.testing.assert_close(
            network_state[first_layer].sum(dim=1), source_state[first_layer].sum(dim=1)
        )


def test_features_are_unchanged_after_loading():
    source, network = build_densenet121(3).eval(), build_densenet121(3).eval()
    load_imagenet_state_dict(network, rename_to_torchvision(source))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), source(image))


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="tensors fit"):
        load_imagenet_state_dict(build_resnet50(1), rename_to_torchvision(build_densenet121(3)))
