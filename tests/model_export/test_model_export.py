"""Exported networks compute what ours compute, without gliomark."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.pipeline.conftest import PAIR

from gliomark.engines.torch_engine import TorchNetwork
from gliomark.errors import ConfigurationError, WeightsError
from gliomark.geometry import LPS_TO_RAS
from gliomark.inference.segmenter import Segmenter, predict_lesion_probability
from gliomark.inference.slice_classifier import (
    compute_crop_index,
    extract_lesion_slices,
    select_prediction_slices,
)
from gliomark.io import read_study
from gliomark.model_export import export_model
from gliomark.model_export.exported_networks import OUTPUT_TOLERANCE, check_outputs
from gliomark.model_export.monai_bundle import METADATA_SCHEMA
from gliomark.model_export.volume_network import VolumeNetwork, build_volume_network
from gliomark.model_loading import Model, build_model
from gliomark.models.engine_loading import create_segmentation_inputs
from gliomark.models.weights import Weights, load_weights
from gliomark.preprocessing import prepare
from gliomark.study import SliceStack

# runs in a process of its own that cannot import gliomark
RUN_BUNDLE = """
import sys
sys.modules["gliomark"] = None
from monai.bundle import run
run(config_file="configs/inference.json", meta_file="configs/metadata.json", bundle_root=".", images=%r)
"""


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> Weights:
    return load_weights(tiny_weights)


@pytest.fixture(scope="module")
def model(weights: Weights) -> Model:
    return build_model(weights)


@pytest.fixture(scope="module")
def stack(picture_folder: Path) -> SliceStack:
    """The prepared patient."""
    return prepare(read_study(picture_folder), PAIR)


class PositionNetwork(torch.nn.Module):
    """A convolution of the images, plus the position of the view: enough to see any displaced or mirrored pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, 2, H, W)``."""
        return self.convolution(images) + theta[:, :, 2, None, None]


def draw_stack(
    rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw noise in a brain of three slices: images ``(S, 2, 240, 240)`` and brain ``(S, 240, 240)``."""
    brain = np.zeros((3, 240, 240), bool)
    brain[:, slice(*rows), slice(*columns)] = True
    noise = np.random.default_rng(0).normal(size=(3, 2, 240, 240)).astype(np.float32)
    return np.where(brain[:, None], noise, noise.min() - 1), brain


def run_volume_network(network: torch.jit.ScriptModule, stack: SliceStack) -> NDArray[np.float32]:
    """Run the network on the axes of a NIfTI image, and return ``(slice, row, column)``."""
    image = np.stack([stack.images[name].transpose(2, 1, 0) for name in PAIR])
    with torch.inference_mode():
        found = network(torch.from_numpy(np.ascontiguousarray(image))[None])
    assert found.shape == (1, 1, *image.shape[1:])
    return found[0, 0].numpy().transpose(2, 1, 0)


@pytest.mark.parametrize(
    "rows, columns", [((40, 200), (60, 180)), ((3, 235), (15, 228)), ((90, 239), (40, 200))]
)
@pytest.mark.parametrize("size_multiple", [None, 32])
@pytest.mark.parametrize("flips", [False, True])
def test_the_volume_network_takes_the_steps_of_the_segmenter(
    rows: tuple[int, int], columns: tuple[int, int], size_multiple: int | None, flips: bool, weights: Weights
) -> None:
    """One tile, four tiles, or a window around a large or eccentric brain; neighbouring slices and mirroring."""
    use = dataclasses.replace(weights.card.segmentation, tile=192, pool=1.2, context=1, flips=flips)
    network = PositionNetwork().eval()
    images, brain = draw_stack(rows, columns)
    expected = predict_lesion_probability(
        TorchNetwork(network), images, brain, 192, 1.2, flips, size_multiple, 1
    )
    traced = torch.jit.trace(network, tuple(map(torch.from_numpy, create_segmentation_inputs(6, 160))))
    card = dataclasses.replace(weights.card, segmentation=use)
    volume_network = torch.jit.script(VolumeNetwork(traced, card, size_multiple or 0).eval())
    with torch.inference_mode():
        found = volume_network(torch.from_numpy(images.transpose(1, 3, 2, 0).copy())[None])
    assert np.abs(found[0, 0].numpy().transpose(2, 1, 0) - expected * brain).max() <= 1e-6
    assert expected.max() > 0.6


@pytest.mark.parametrize("rule", ["joint", "union"])
def test_the_volume_network_gives_the_probability_of_the_segmenter(
    rule: str, weights: Weights, model: Model, stack: SliceStack
) -> None:
    """With the network of the weights; by the rule "union" it sees each sequence alone."""
    if rule == "joint":
        volume_network, segmenter = build_volume_network(weights), model.segmenter
    else:
        network = PositionNetwork().eval()
        network.convolution = torch.nn.Conv2d(1, 2, 3, padding=1)
        use = dataclasses.replace(weights.card.segmentation, context=0, pool=1)
        card = dataclasses.replace(weights.card, rule="union", segmentation=use)
        traced = torch.jit.trace(
            network, tuple(map(torch.from_numpy, create_segmentation_inputs(1, use.tile)))
        )
        volume_network = torch.jit.script(VolumeNetwork(traced, card, 0).eval())
        segmenter = Segmenter(TorchNetwork(network), PAIR, "union", use.tile)
    expected = segmenter.segment(stack).probability
    found = run_volume_network(volume_network, stack)
    assert np.abs(found - expected).max() <= OUTPUT_TOLERANCE and expected.max() > 0.5


@pytest.mark.slow
def test_every_network_in_torchscript_gives_ours_on_the_patient(
    weights: Weights, model: Model, stack: SliceStack, tmp_path: Path
) -> None:
    folder = export_model(weights, tmp_path / "out", "torchscript")
    described = json.loads((folder / "model.json").read_text("utf-8"))
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "model.json", "segmentation.ts",
        *(f"{name}.{end}" for name in weights.card.markers for end in ("ts", "trees.txt")),
    }  # fmt: skip
    mask = model.segmenter.segment(stack).mask
    slices = select_prediction_slices(stack, mask)
    images, lesion = extract_lesion_slices(stack, mask, slices, PAIR)
    for name, classifier in model.classifiers.items():
        crop = compute_crop_index(240, weights.card.markers[name].architecture.crop)
        inputs = [np.ascontiguousarray(images[crop]), np.ascontiguousarray(lesion[crop])]
        network = torch.jit.load(str(folder / described["networks"][name]["file"]))
        with torch.inference_mode():
            found = network(*map(torch.from_numpy, inputs))
        for one, expected in zip(found, classifier.network.run(*inputs), strict=True):
            assert np.abs(one.numpy() - expected).max() <= OUTPUT_TOLERANCE
        trees = (folder / described["networks"][name]["trees"]).read_text("utf-8")
        assert trees.startswith("tree\n")


def test_every_network_in_onnx_gives_ours(weights: Weights, tmp_path: Path) -> None:
    """The command itself compares the outputs, in OpenVINO; here the files are run with ONNX Runtime."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        pytest.skip("onnx is not installed: pip install onnx onnxruntime")
    import onnxruntime

    folder = export_model(weights, tmp_path / "out", "onnx")
    ts_folder = export_model(weights, tmp_path / "ts", "torchscript")
    for name, described in json.loads((folder / "model.json").read_text("utf-8"))["networks"].items():
        session = onnxruntime.InferenceSession(str(folder / described["file"]))
        module = torch.jit.load(str(ts_folder / f"{name}.ts"))
        shapes = [[3, *(side for side in port.shape[1:])] for port in session.get_inputs()]
        inputs = [np.random.default_rng(1).normal(size=shape).astype(np.float32) for shape in shapes]
        with torch.inference_mode():
            expected = module(*map(torch.from_numpy, inputs))
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(
            None, dict(zip((port.name for port in session.get_inputs()), inputs, strict=True))
        )
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other.numpy()).max() <= OUTPUT_TOLERANCE


def test_onnx_without_its_package_says_what_to_install(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gliomark.model_export.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install onnx"):
        export_model(weights, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def bundle(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(weights, tmp_path_factory.mktemp("bundle") / "gliomark", "monai-bundle")


@pytest.mark.slow
def test_the_bundle_runs_without_gliomark_and_gives_ours(
    bundle: Path, model: Model, stack: SliceStack, tmp_path: Path
) -> None:
    """The volumes are stored with other axes, and the results lie on them."""
    images = {}
    for name in PAIR:
        volume = nib.Nifti1Image(stack.images[name].transpose(2, 1, 0), LPS_TO_RAS @ stack.affine)
        images[str(name)] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.as_closest_canonical(volume), images[str(name)])
    ended = subprocess.run(
        [sys.executable, "-c", RUN_BUNDLE % images], cwd=bundle, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    segmentation = model.segmenter.segment(stack)
    found = {key: nib.load(bundle / "output" / f"T1C_{key}.nii.gz") for key in ("pred", "mask")}
    for image in found.values():
        assert np.allclose(image.affine, nib.load(images["T1C"]).affine, atol=1e-4)
    target = nib.orientations.axcodes2ornt(("L", "P", "S"))
    values = {}
    for key, image in found.items():
        change = nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), target)
        values[key] = image.as_reoriented(change).get_fdata().transpose(2, 1, 0)
    assert np.abs(values["pred"] - segmentation.probability).max() <= OUTPUT_TOLERANCE
    assert np.array_equal(values["mask"] > 0, segmentation.probability >= model.segmenter.threshold)


def test_monai_verifies_the_input_and_output_of_the_bundle(bundle: Path) -> None:
    from monai.bundle import verify_net_in_out

    configs = bundle / "configs"
    verify_net_in_out(
        "network",
        str(configs / "metadata.json"),
        str(configs / "inference.json"),
        "cpu",
        bundle_root=str(bundle),
    )


def test_monai_verifies_the_metadata_of_the_bundle(bundle: Path) -> None:
    from monai.bundle import verify_metadata

    schema = Path(os.environ.get("GLIOMARK_MONAI_SCHEMA", ""))
    if not schema.is_file():
        pytest.skip(f"no copy of {METADATA_SCHEMA}: name one with GLIOMARK_MONAI_SCHEMA")
    verify_metadata(str(bundle / "configs" / "metadata.json"), str(schema))


def test_the_metadata_name_the_weights_and_the_channels(bundle: Path, weights: Weights) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text("utf-8"))
    assert weights.sha256 in next(iter(metadata["changelog"].values()))
    inputs = metadata["network_data_format"]["inputs"]["image"]
    assert (inputs["num_channels"], inputs["channel_def"]) == (2, {"0": "T1C", "1": "FLAIR"})
    assert {file.name for file in (bundle / "models").iterdir()} == {"model.pt", "model.ts"}


def test_other_outputs_are_refused() -> None:
    ours = np.zeros((2, 3), np.float32)
    check_outputs("segmentation", [ours + 5e-5], [ours])
    for other in (ours + 2e-4, ours * np.nan):
        with pytest.raises(WeightsError, match="'segmentation' gives other results"):
            check_outputs("segmentation", [other], [ours])


@pytest.mark.parametrize("export_format", ["torchscript", "monai-bundle"])
def test_a_folder_that_is_not_empty_is_refused_and_kept(
    export_format: str, weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigurationError, match="not empty"):
        export_model(weights, tmp_path, export_format)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
