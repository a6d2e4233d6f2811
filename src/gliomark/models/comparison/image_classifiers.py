"""Classifiers of whole slices (table 2-3): ResNet-50, DenseNet-121 and Xception. Tensors only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.resnet import resnet50
from torch import Tensor, nn

CLASS_COUNT = 2
# share of the network's tensors that a file must provide; otherwise it belongs to another network
MIN_MATCHING_SHARE = 0.9


def build_resnet50(in_channels: int, class_count: int = CLASS_COUNT) -> nn.Module:
    """Build MONAI's ResNet-50 (He et al. 2016): ``(B, in_channels, H, W)`` to logits ``(B, class_count)``.

    The first convolution has stride 2, as published.
    """
    return resnet50(spatial_dims=2, n_input_channels=in_channels, num_classes=class_count, conv1_t_stride=2)


def build_densenet121(in_channels: int, class_count: int = CLASS_COUNT) -> nn.Module:
    """Build MONAI's DenseNet-121 (Huang et al. 2017): ``(B, in_channels, H, W)`` to logits ``(B, class_count)``."""
    return DenseNet121(spatial_dims=2, in_channels=in_channels, out_channels=class_count)


def build_xception(in_channels: int, class_count: int = CLASS_COUNT) -> nn.Module:
    """Build Xception (Chollet 2017): ``(B, in_channels, H, W)`` to logits ``(B, class_count)``."""
    return Xception(in_channels, class_count)


IMAGE_CLASSIFIERS: Mapping[str, Callable[[int], nn.Module]] = {
    "ResNet-50": build_resnet50,
    "DenseNet-121": build_densenet121,
    "Xception": build_xception,
}


class SeparableConvolution(nn.Module):
    """Depthwise 3x3 convolution followed directly by a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # attribute names here and below match the public ImageNet files
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature ``(B, out_channels, H, W)``."""
        output: Tensor = self.pointwise(self.conv1(feature))
        return output


class XceptionBlock(nn.Module):
    """Separable convolutions with a residual connection; stride 2 is max pooling.

    channels: channels before the first and after every convolution.
    """

    def __init__(self, channels: tuple[int, ...], stride: int = 1, starts_with_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.ReLU(), SeparableConvolution(inputs, outputs), nn.BatchNorm2d(outputs)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers[0 if starts_with_relu else 1 :])
        self.skip, self.skipbn = None, None
        if stride > 1 or channels[0] != channels[-1]:
            self.skip = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(channels[-1])

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature ``(B, C, H / stride, W / stride)``."""
        shortcut = feature if self.skip is None or self.skipbn is None else self.skipbn(self.skip(feature))
        output: Tensor = self.rep(feature) + shortcut
        return output


class Xception(nn.Module):
    """Xception (figure 5 of Chollet 2017): entry, middle (eight equal blocks) and exit flow, pooling, one layer."""

    def __init__(self, in_channels: int, class_count: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = XceptionBlock((64, 128, 128), 2, starts_with_relu=False)
        self.block2 = XceptionBlock((128, 256, 256), 2)
        self.block3 = XceptionBlock((256, 728, 728), 2)
        for number in range(4, 12):
            self.add_module(f"block{number}", XceptionBlock((728, 728, 728, 728)))
        self.block12 = XceptionBlock((728, 728, 1024), 2)
        self.conv3 = SeparableConvolution(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConvolution(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.fc = nn.Linear(2048, class_count)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(B, class_count)``."""
        feature = torch.relu(self.bn1(self.conv1(image)))
        feature = torch.relu(self.bn2(self.conv2(feature)))
        for number in range(1, 13):
            feature = getattr(self, f"block{number}")(feature)
        feature = torch.relu(self.bn3(self.conv3(feature)))
        feature = torch.relu(self.bn4(self.conv4(feature)))
        output: Tensor = self.fc(feature.mean(dim=(2, 3)))
        return output


@dataclass(frozen=True)
class WeightsMatch:
    """Number of a network's tensors that were loaded from a state dict, and their total number (without counters)."""

    loaded: int
    total: int


def load_imagenet_state_dict(network: nn.Module, state_dict: Mapping[str, Tensor]) -> WeightsMatch:
    """Load the matching tensors of a torchvision- or timm-style state dict, of any shape, into a network.

    The last layer is loaded only if its number of classes is the same; the first convolution is adapted to the
    network's input channels.

    Raises
    ------
    ValueError
        If fewer than 90 % of the network's tensors match.
    """
    targets = {name: value for name, value in network.state_dict().items() if not name.endswith("_tracked")}
    translated = {_translate_tensor_name(name): value for name, value in state_dict.items()}
    adapted = {
        name: _adapt_input_channels(translated[name], value)
        for name, value in targets.items()
        if name in translated
    }
    fitting = {name: value for name, value in adapted.items() if value.shape == targets[name].shape}
    if len(fitting) < MIN_MATCHING_SHARE * len(targets):
        raise ValueError(f"only {len(fitting)} of {len(targets)} tensors fit")
    # MONAI's shortcuts have a bias, the published ones have none
    zero_biases = {n: torch.zeros_like(v) for n, v in targets.items() if n.endswith("downsample.0.bias")}
    network.load_state_dict({**zero_biases, **fitting}, strict=False)
    return WeightsMatch(len(fitting), len(targets))


def _translate_tensor_name(name: str) -> str:
    """Translate a tensor's name to MONAI's, which nests the layers of DenseNet's blocks one level deeper."""
    name = re.sub(r"^module\.", "", name)
    # older files write norm.1 for norm1
    name = re.sub(r"(denselayer\d+\.)(norm|conv)\.?([12])\.", r"\1layers.\2\3.", name)
    return re.sub(r"^classifier\.", "class_layers.out.", name)


def _adapt_input_channels(source: Tensor, target: Tensor) -> Tensor:
    """Adapt the first convolution from colour to n channels: the mean over colours times 3/n keeps its scale."""
    if source.ndim != 4 or source.shape[1] != 3 or target.shape[1] == 3:
        return source
    count = target.shape[1]
    return source.mean(dim=1, keepdim=True).expand(-1, count, -1, -1) * (3 / count)
