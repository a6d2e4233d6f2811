"""Three networks of other people for one whole slice: ResNet-50, DenseNet-121, Xception. Tensors only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.resnet import resnet50
from torch import Tensor, nn

CLASSES = 2
# of a file's tensors that must fit, or the file is another network's
FITTING_SHARE = 0.9


def build_resnet50(inputs: int, classes: int = CLASSES) -> nn.Module:
    """He et al. 2016, MONAI's: ``(B, inputs, H, W)`` to logits ``(B, classes)``; stride 2 in the first convolution."""
    return resnet50(spatial_dims=2, n_input_channels=inputs, num_classes=classes, conv1_t_stride=2)


def build_densenet121(inputs: int, classes: int = CLASSES) -> nn.Module:
    """Huang et al. 2017, MONAI's: ``(B, inputs, H, W)`` to logits ``(B, classes)``."""
    return DenseNet121(spatial_dims=2, in_channels=inputs, out_channels=classes)


def build_xception(inputs: int, classes: int = CLASSES) -> nn.Module:
    """Chollet 2017: ``(B, inputs, H, W)`` to logits ``(B, classes)``."""
    return Xception(inputs, classes)


BASELINES: Mapping[str, Callable[[int], nn.Module]] = {
    "ResNet-50": build_resnet50,
    "DenseNet-121": build_densenet121,
    "Xception": build_xception,
}


class SeparableConvolution(nn.Module):
    """A 3x3 convolution of every channel by itself, then 1x1 across channels, nothing in between."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # the names are those of the public ImageNet files, here and below
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        return self.pointwise(self.conv1(feature))


class XceptionBlock(nn.Module):
    """Separable convolutions of the given widths with a shortcut past them; stride 2 is a maximum pooling.

    widths: channels before the first and after every convolution.
    """

    def __init__(self, widths: tuple[int, ...], stride: int = 1, leading_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.ReLU(), SeparableConvolution(inputs, outputs), nn.BatchNorm2d(outputs)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers[0 if leading_relu else 1 :])
        self.skip, self.skipbn = None, None
        if stride > 1 or widths[0] != widths[-1]:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])

    def forward(self, feature: Tensor) -> Tensor:
        past = feature if self.skip is None or self.skipbn is None else self.skipbn(self.skip(feature))
        return self.rep(feature) + past


class Xception(nn.Module):
    """Figure 5 of Chollet 2017: entry flow, middle flow (eight blocks alike), exit flow, average, one layer."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = XceptionBlock((64, 128, 128), 2, leading_relu=False)
        self.block2 = XceptionBlock((128, 256, 256), 2)
        self.block3 = XceptionBlock((256, 728, 728), 2)
        for number in range(4, 12):
            self.add_module(f"block{number}", XceptionBlock((728, 728, 728, 728)))
        self.block12 = XceptionBlock((728, 728, 1024), 2)
        self.conv3 = SeparableConvolution(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConvolution(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.fc = nn.Linear(2048, classes)

    def forward(self, image: Tensor) -> Tensor:
        feature = torch.relu(self.bn1(self.conv1(image)))
        feature = torch.relu(self.bn2(self.conv2(feature)))
        for number in range(1, 13):
            feature = getattr(self, f"block{number}")(feature)
        feature = torch.relu(self.bn3(self.conv3(feature)))
        feature = torch.relu(self.bn4(self.conv4(feature)))
        return self.fc(feature.mean(dim=(2, 3)))


@dataclass(frozen=True)
class Fit:
    """How many of a network's tensors a foreign state dict filled, and how many it has (counters left out)."""

    filled: int
    of: int


def load_imagenet(network: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """Fill the network from a torchvision- or timm-style state dict, as far as it fits.

    The last layer stays as it is unless its classes agree; colours become the network's own channels.
    Raises ValueError where too little fits for the file to be this network's.
    """
    own = {name: value for name, value in network.state_dict().items() if not name.endswith("_tracked")}
    named = {_own_name(name): value for name, value in state.items()}
    shaped = {name: _channels(named[name], value) for name, value in own.items() if name in named}
    fitting = {name: value for name, value in shaped.items() if value.shape == own[name].shape}
    if len(fitting) < FITTING_SHARE * len(own):
        raise ValueError(f"only {len(fitting)} of {len(own)} tensors fit")
    # MONAI's shortcuts have a bias that the published ones lack: theirs is zero
    silent = {n: torch.zeros_like(v) for n, v in own.items() if n.endswith("downsample.0.bias")}
    network.load_state_dict({**silent, **fitting}, strict=False)
    return Fit(len(fitting), len(own))


def _own_name(name: str) -> str:
    """A foreign tensor's name in MONAI's words, which nest the layers of DenseNet's blocks once deeper."""
    name = re.sub(r"^module\.", "", name)
    # older files write norm.1 for norm1
    name = re.sub(r"(denselayer\d+\.)(norm|conv)\.?([12])\.", r"\1layers.\2\3.", name)
    return re.sub(r"^classifier\.", "class_layers.out.", name)


def _channels(foreign: Tensor, own: Tensor) -> Tensor:
    """The first convolution for other channels than colours: their mean, times 3/n, so that sums stay as large."""
    if foreign.ndim != 4 or foreign.shape[1] != 3 or own.shape[1] == 3:
        return foreign
    count = own.shape[1]
    return foreign.mean(dim=1, keepdim=True).expand(-1, count, -1, -1) * (3 / count)
