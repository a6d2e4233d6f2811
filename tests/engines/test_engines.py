"""Networks give the same output in OpenVINO as in PyTorch, and are converted once."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gliomark.engines import NetworkSource, load_network, openvino_engine
from gliomark.engines.graph_rewriting import replace_normalisations, rewrite_graph
from gliomark.engines.openvino_engine import (
    OpenVinoNetwork,
    load_openvino_network,
    trace_network,
)
from gliomark.engines.openvino_library import openvino
from gliomark.engines.torch_engine import TorchNetwork
from gliomark.errors import ConfigurationError

SIDE = 96


class Normalised(nn.Module):
    """Convolution and instance normalisation, as in a network for volumes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return ``(1, 2, D, H, W)``."""
        return self.layers(image)


class RandomShift(nn.Module):
    """A network whose conversion cannot agree: it adds another number every time."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image plus a random number."""
        return image + torch.rand(1)


class RoundedSide(nn.Module):
    """A network that cannot be traced, because it computes with a side of its input as a Python number."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image plus its rounded number of rows."""
        return image + round(image.shape[2] / 2)


def create_inputs() -> list[np.ndarray]:
    noise = np.random.default_rng(0).normal(size=(1, 1, SIDE, SIDE, SIDE))
    return [(noise + 5).astype(np.float32)]  # sums of such numbers lose digits one after the other


def create_source(network: nn.Module, name: str = "test", key: str = "1") -> NetworkSource:
    return NetworkSource(name, key, network.eval, create_inputs, tolerance=2e-5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "缓存 cache"
    monkeypatch.setenv("GLIOMARK_CACHE", str(folder))
    monkeypatch.delenv("GLIOMARK_ENGINE", raising=False)
    return folder


def test_a_volume_is_normalised_as_in_double_precision() -> None:
    network, (image,) = Normalised().eval(), create_inputs()
    with torch.inference_mode():
        expected = Normalised().double().eval()(torch.from_numpy(image).double()).numpy()
    found = load_openvino_network(create_source(network)).run(image)[0]
    assert np.abs(found - expected).max() < 2e-5
    plain = trace_network(network, [image], create_source(network))
    unchanged = OpenVinoNetwork(plain).run(image)[0]
    assert np.abs(unchanged - expected).max() > 1e-4, (
        "OpenVINO has become exact: replace_normalisations can go"
    )
    replace_normalisations(plain)
    assert "MVN" not in {operation.get_type_name() for operation in plain.get_ops()}


class BrainLike(nn.Module):
    """A network with the layers that the conversion rewrites: pooling at the start, two classes at the end."""

    def __init__(self, used_class: int = 1, stride: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used_class = used_class
        self.layers = nn.Sequential(
            nn.Conv3d(1, 4, 7, padding=3), nn.InstanceNorm3d(4), nn.ReLU(), nn.MaxPool3d(3, 2, padding=1),
            nn.Conv3d(4, 6, 3, padding=1), nn.InstanceNorm3d(6), nn.ReLU(), nn.ConvTranspose3d(6, 2, 2, stride),
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the probability of one of two classes, ``(1, D, H, W)``."""
        return torch.softmax(self.layers(image), 1)[:, self.used_class]


@pytest.mark.parametrize("used_class, stride, has_softmax", [(1, 2, False), (0, 2, True), (1, 1, True)])
def test_a_probability_of_two_classes_needs_one_channel(
    used_class: int, stride: int, has_softmax: bool
) -> None:
    network, (image,) = BrainLike(used_class, stride).eval(), create_inputs()
    model = trace_network(network, [image], create_source(network))
    rewrite_graph(model)
    operations = [operation.get_type_name() for operation in model.get_ordered_ops()]
    assert ("Softmax" in operations) == has_softmax
    (pooling,) = (one for one in model.get_ops() if one.get_type_name() == "MaxPool")
    assert pooling.input_value(0).get_node().get_type_name() == "Add", "pooled right after the convolution"
    expected = TorchNetwork(network).run(image)[0]
    np.testing.assert_allclose(OpenVinoNetwork(model).run(image)[0], expected, atol=2e-6)


@pytest.mark.parametrize("side", [7, 11, 24, 25])
def test_sides_that_are_no_power_of_two_are_averaged(side: int) -> None:
    image = np.random.default_rng(1).normal(size=(1, 1, side, side + 1, 2 * side)).astype(np.float32)
    source = NetworkSource(f"side-{side}", "1", Normalised().eval, lambda: [image], tolerance=2e-5)
    found = load_openvino_network(source).run(image)[0]
    np.testing.assert_allclose(found, TorchNetwork(Normalised().eval()).run(image)[0], atol=2e-5)


def test_a_network_is_converted_once(cache: Path) -> None:
    (image,) = create_inputs()
    first = load_network(create_source(Normalised())).run(image)[0]
    (folder,) = cache.iterdir()

    def fail() -> nn.Module:
        raise AssertionError("built although it was converted before")

    again = load_network(NetworkSource("test", "1", fail, create_inputs)).run(image)[0]
    np.testing.assert_array_equal(first, again)
    load_network(create_source(Normalised(), key="2"))
    assert len(list(cache.iterdir())) == 2, "other weights are another network"
    assert folder.exists()


def test_an_output_outlives_its_network_and_later_runs() -> None:
    (image,) = create_inputs()
    network = load_network(create_source(Normalised()))
    first = network.run(image)[0]
    copy, second = first.copy(), network.run(image[:, :, ::-1].copy())[0]
    assert np.abs(first - second).max() > 0.1
    del network
    np.testing.assert_array_equal(first, copy)


@pytest.mark.sample(3)
@pytest.mark.parametrize("content", [b"", b"<?xml version='1.0'?><net", b"no xml at all"])
def test_a_damaged_conversion_is_repeated(
    cache: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (image,) = create_inputs()
    expected = load_network(create_source(Normalised())).run(image)[0]
    (folder,) = cache.iterdir()
    for file in folder.glob("*.blob"):
        file.unlink()
    (folder / "network.xml").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = load_network(create_source(Normalised())).run(image)[0]
    np.testing.assert_array_equal(found, expected)
    assert "converted again" in caplog.text


def test_without_a_cache_folder_it_runs_all_the_same(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the folder should be")
    (image,) = create_inputs()
    with caplog.at_level(logging.WARNING):
        found = load_network(create_source(Normalised())).run(image)[0]
    np.testing.assert_allclose(found, TorchNetwork(Normalised().eval()).run(image)[0], atol=2e-5)
    assert "every time" in caplog.text


def test_a_conversion_that_differs_is_refused(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError, match="differs by"):
        load_openvino_network(create_source(RandomShift()))
    assert not cache.exists() or not list(cache.iterdir())
    with caplog.at_level(logging.WARNING):
        network = load_network(create_source(RandomShift()))
    assert isinstance(network, TorchNetwork) and "runs in PyTorch" in caplog.text


def test_a_network_that_cannot_be_converted_runs_in_pytorch(caplog: pytest.LogCaptureFixture) -> None:
    (image,) = create_inputs()
    with caplog.at_level(logging.WARNING):
        network = load_network(create_source(RoundedSide()))
    assert isinstance(network, TorchNetwork) and "cannot convert it" in caplog.text
    assert network.run(image)[0].shape == image.shape


def test_an_engine_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIOMARK_ENGINE", "torch")
    assert isinstance(load_network(create_source(Normalised())), TorchNetwork)
    monkeypatch.setenv("GLIOMARK_ENGINE", "tensorrt")
    with pytest.raises(ConfigurationError, match="tensorrt"):
        load_network(create_source(Normalised()))


class Scaled(nn.Module):
    """A network whose output is easily told from its rounded one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return 32 channels of the same size."""
        return self.layers(image)


def create_slices() -> list[np.ndarray]:
    return [np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)]


HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("is_allowed", [True, False])
@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor does not compute in bfloat16")
def test_bfloat16_is_used_only_by_networks_that_allow_it(is_allowed: bool) -> None:
    source = NetworkSource(
        "test", "bf16", Scaled().eval, create_slices, 1e-4, has_batch=True, allows_bfloat16=is_allowed
    )
    (image,) = create_slices()
    expected, found = (load_network(source, engine=name).run(image)[0] for name in ("torch", "openvino-bf16"))
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-4 < difference < 0.02 if is_allowed else difference < 1e-5


@pytest.mark.skipif(HAS_BFLOAT16, reason="this processor computes in bfloat16")
def test_bfloat16_is_refused_on_a_processor_without_it() -> None:
    source = NetworkSource("test", "bf16", Scaled().eval, create_slices, 1e-4, allows_bfloat16=True)
    with pytest.raises(ConfigurationError, match="does not compute in bfloat16"):
        load_network(source, engine="openvino-bf16")


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor does not compute in bfloat16")
def test_wrong_results_in_bfloat16_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "BFLOAT16_TOLERANCE", 1e-6)  # correct results are too far away then
    source = NetworkSource("test", "bf16", Scaled().eval, create_slices, 1e-4, allows_bfloat16=True)
    with pytest.raises(ConfigurationError, match="differ by .* % from single precision"):
        load_network(source, engine="openvino-bf16")


def test_openvino_reports_nothing_to_its_maker() -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "import gliomark.engines.openvino_engine\n"
        "assert not sys.modules['openvino_telemetry']\n"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class FixedWidth(nn.Module):
    """Tracing fixes the width of the example."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        width = int(image.shape[-1])
        return image + torch.arange(width) / width if width > 16 else 2 * image


def test_a_network_whose_size_is_fixed_by_tracing_is_refused_for_other_sizes() -> None:
    def create_small_inputs() -> list[np.ndarray]:
        return [np.ones((2, 1, 16, 16), np.float32)]

    source = NetworkSource("test", "1", FixedWidth().eval, create_small_inputs, has_batch=True)
    image = np.full((3, 1, 16, 16), 3, np.float32)
    np.testing.assert_array_equal(load_openvino_network(source).run(image)[0], 2 * image)
    with pytest.raises(ConfigurationError, match="differs"):
        load_openvino_network(replace(source, key="2", is_size_free=True))
