"""The packaged graphs are those of all recipes, and give PyTorch's output with any weights."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.export_graphs import GRAPHS, ExportedNetwork, list_networks
from torch import nn

from gliomark.engines.graph_rewriting import rewrite_graph
from gliomark.engines.openvino_engine import OpenVinoNetwork
from gliomark.errors import WeightsError
from gliomark.models.network_loading import describe_tensors, get_constants
from gliomark.models.packaged_graphs import PackagedGraph, find_packaged_graph

RELATIVE_TOLERANCE = 1e-4  # of the largest output
MAX_QUICK_WEIGHTS = 10_000_000


def build_without_memory() -> list[ExportedNetwork]:
    """Build all networks on the meta device, without memory for their weights."""
    with torch.device("meta"):
        return [build() for build in list_networks()]


WITHOUT_MEMORY = build_without_memory()


def count_weights(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())


def describe_network(exported: ExportedNetwork) -> str:
    millions = count_weights(exported.network) / 1e6
    return f"{exported.source.name}, {exported.input_shape[0]} channels, {millions:.1f} million"


def find_graph(exported: ExportedNetwork) -> PackagedGraph:
    graph = find_packaged_graph(exported.record, exported.input_shape)
    assert graph is not None, "run python -m scripts.export_graphs"
    return graph


@pytest.mark.parametrize("exported", WITHOUT_MEMORY, ids=map(describe_network, WITHOUT_MEMORY))
def test_every_network_of_a_recipe_has_its_graph(exported: ExportedNetwork) -> None:
    graph = find_graph(exported)
    assert graph.tensors == describe_tensors(exported.network)
    assert graph.size_multiple == exported.size_multiple
    assert graph.vector_length == exported.vector_length
    # one channel more, or other settings, are another network
    channels, *sides = exported.input_shape
    assert find_packaged_graph(exported.record, (channels + 1, *sides)) is None
    assert find_packaged_graph({**exported.record, "unknown": 1}, exported.input_shape) is None
    other_size = find_packaged_graph(exported.record, (channels, 32, 32))
    assert (other_size is None) == (exported.size_multiple is None)


def test_there_is_no_other_graph() -> None:
    """Every file states its network, by which it is found."""
    expected = set()
    for exported in WITHOUT_MEMORY:
        shape = exported.input_shape[: 3 if exported.size_multiple is None else 1]
        expected.add(json.dumps([exported.record, shape], sort_keys=True))
    found = {}
    for path in GRAPHS.iterdir():
        assert path.suffix == ".zip"
        with zipfile.ZipFile(path) as file:
            description = json.loads(file.read("tensors.json"))
        shape = description["input_shape"][: 3 if description["size_multiple"] is None else 1]
        found[json.dumps([description["network"], shape], sort_keys=True)] = path
    assert set(found) == expected and len(found) == len(list(GRAPHS.iterdir()))


# ---- output -------------------------------------------------------------------------------------------------


def draw_weights(network: nn.Module) -> dict[str, np.ndarray]:
    """Give the network weights as after training: no bias, scale or map is constant; return all of its tensors."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim < 2 or tensor.std() == 0:
            tensor += torch.randn(tensor.shape, generator=generator) / 10
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def draw_inputs(exported: ExportedNetwork, count: int, sides: tuple[int, int]) -> list[np.ndarray]:
    """Draw images and their positions or lesions, which differ between the items of the batch."""
    random = np.random.default_rng(count)
    images = random.normal(size=(count, exported.input_shape[0], *sides)).astype(np.float32)
    if exported.vector_length == 0:
        theta = np.eye(2, 3, dtype=np.float32) * random.uniform(0.5, 1, (count, 2, 1))
        return [images, theta.astype(np.float32)]
    lesion = np.zeros((count, *sides), np.float32)
    for number in range(count):
        lesion[number, 20 + 9 * number : 60 + 9 * number, 30 : 50 + 20 * number] = 1
    return [images, lesion]


def assert_same_output(build: Callable[[], ExportedNetwork]) -> None:
    """Compare the graph with PyTorch: for one and three slices, and views of another size if the graph takes them."""
    torch.manual_seed(0)
    exported = build()
    model = find_graph(exported).join_weights(draw_weights(exported.network))
    rewrite_graph(model)
    engine = OpenVinoNetwork(model)
    _, rows, columns = exported.input_shape
    cases = [(1, (rows, columns)), (3, (rows, columns))]
    if exported.size_multiple is not None:
        cases.append((2, (2 * exported.size_multiple, 3 * exported.size_multiple)))
    for count, sides in cases:
        inputs = draw_inputs(exported, count, sides)
        with torch.inference_mode():
            expected = exported.wrapped(*map(torch.from_numpy, inputs))
        expected = (expected,) if isinstance(expected, torch.Tensor) else expected
        for one, reference in zip(engine.run(*inputs), expected, strict=True):
            assert one.shape == tuple(reference.shape) and one.dtype == np.float32
            assert reference.std() > 0, "a constant output shows nothing"
            tolerance = RELATIVE_TOLERANCE * float(reference.abs().max())
            np.testing.assert_allclose(one, reference.numpy(), rtol=0, atol=tolerance)


def list_builds(is_quick: bool) -> list[pytest.param]:
    return [
        pytest.param(build, id=describe_network(exported))
        for build, exported in zip(list_networks(), WITHOUT_MEMORY, strict=True)
        if (count_weights(exported.network) <= MAX_QUICK_WEIGHTS) == is_quick
    ]


@pytest.mark.sample(3)
@pytest.mark.parametrize("build", list_builds(is_quick=True))
def test_a_graph_gives_the_output_of_pytorch(build: Callable[[], ExportedNetwork]) -> None:
    assert_same_output(build)


@pytest.mark.slow
@pytest.mark.parametrize("build", list_builds(is_quick=False))
def test_a_graph_of_a_large_network_gives_the_output_of_pytorch(build: Callable[[], ExportedNetwork]) -> None:
    assert_same_output(build)


# ---- weights that do not fit --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_mignet() -> ExportedNetwork:
    """MIG-Net of the small recipe, which has constants: the relative positions in its windows."""
    for build, exported in zip(list_networks(), WITHOUT_MEMORY, strict=True):
        if exported.source.name == "MIG-Net" and count_weights(exported.network) <= MAX_QUICK_WEIGHTS:
            return build()
    raise AssertionError("there is no small MIG-Net")


def drop(tensors: dict[str, np.ndarray], name: str) -> None:
    del tensors[name]


def add_axis(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = tensors[name][None]


def halve_precision(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = tensors[name].astype(np.float16)


def add_another(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[f"{name}.more"] = tensors[name]


def change_constant(tensors: dict[str, np.ndarray], name: str) -> None:
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] += 1


@pytest.mark.parametrize(
    ("change", "is_constant", "code"),
    [
        (drop, False, "weights-tensor-missing"),
        (drop, True, "weights-tensor-missing"),
        (add_axis, False, "weights-tensor-other"),
        (halve_precision, False, "weights-tensor-other"),
        (add_another, False, "weights-tensor-strange"),
        (change_constant, True, "weights-not-numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    small_mignet: ExportedNetwork, change: Callable[..., None], is_constant: bool, code: str
) -> None:
    tensors = {name: tensor.numpy() for name, tensor in small_mignet.network.state_dict().items()}
    constants = get_constants(small_mignet.network)
    name = next(one for one in tensors if (one in constants) == is_constant)
    graph = find_graph(small_mignet)
    graph.join_weights(tensors, Path("w.safetensors"), "segmentation")  # they fit
    change(tensors, name)
    with pytest.raises(WeightsError, match=re.escape(f"segmentation/{name}")) as refused:
        graph.join_weights(tensors, Path("w.safetensors"), "segmentation")
    assert refused.value.message.code == code and str(refused.value).startswith("w.safetensors: ")


def test_a_negative_variance_is_refused() -> None:
    exported = next(
        build()
        for build, one in zip(list_networks(), WITHOUT_MEMORY, strict=True)
        if one.source.name == "EfficientNet U-Net"
    )
    tensors = {name: tensor.numpy().copy() for name, tensor in exported.network.state_dict().items()}
    name = next(one for one in tensors if one.endswith("running_var"))
    tensors[name][0] = -1e-3
    with pytest.raises(WeightsError, match=re.escape(f"segmentation/{name}")) as refused:
        find_graph(exported).join_weights(tensors, Path("w.safetensors"), "segmentation")
    assert refused.value.message.code == "weights-not-numbers"
