"""Write a weights file in the format of another program, and compare what the files compute with ours."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from gliomark.engines.openvino_library import openvino
from gliomark.errors import ConfigurationError
from gliomark.files import atomic_folder
from gliomark.messages import message
from gliomark.model_export.exported_networks import ExportedNetwork, check_outputs, list_exported_networks
from gliomark.model_export.monai_bundle import write_monai_bundle
from gliomark.models.weights import TREES_TENSOR, Weights

ExportName = Literal["monai-bundle", "onnx", "torchscript"]
EXPORT_FORMATS: tuple[ExportName, ...] = get_args(ExportName)
ONNX_OPSET = 20  # the first with affine_grid
_README = """\
# {name}

The networks of a gliomark weights file, for other programs. `model.json` states what their inputs and outputs are and
which settings belong to them; the trees of a marker (LightGBM's text format) turn its image vectors, age and sex into
a probability. {intended_use}

Licence of the weights: {licence}
"""


def export_model(weights: Weights, out: Path, export_format: ExportName) -> Path:
    """Write the networks of a weights file to a new folder.

    Parameters
    ----------
    weights
        The weights.
    out
        A new or empty folder.
    export_format
        "torchscript" and "onnx": every network in a file, the trees, and ``model.json``; "monai-bundle": the
        segmentation as a bundle.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigurationError
        If the folder is not empty, or a package that the format needs is missing.
    WeightsError
        If the file does not describe valid networks, or an exported network computes something else.
    FileWriteError
        If the files cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(message("export-not-empty", folder=out))
    writers: Mapping[ExportName, Callable[[Weights, Path], None]] = {
        "monai-bundle": write_monai_bundle,
        "onnx": lambda weights, folder: _write_networks(weights, folder, ".onnx", _write_onnx),
        "torchscript": lambda weights, folder: _write_networks(weights, folder, ".ts", _write_torchscript),
    }
    with atomic_folder(out) as folder:
        writers[export_format](weights, folder)
    return out


def _write_networks(
    weights: Weights, folder: Path, suffix: str, write: Callable[[ExportedNetwork, Path], None]
) -> None:
    """Write every network, the trees of the markers, and the description."""
    card, networks = weights.card, dict[str, Any]()
    for exported in list_exported_networks(weights):
        file = folder / f"{exported.name}{suffix}"
        write(exported, file)
        networks[exported.name] = {"file": file.name, **exported.description}
    for name in card.markers:
        trees = bytes(weights.tensors[f"{name}/{TREES_TENSOR}"])
        (folder / f"{name}.trees.txt").write_bytes(trees)
    description = {
        "name": card.name,
        "sha256": weights.sha256,
        "sequences": list(card.sequences),
        "intended_use": card.intended_use,
        "licence": card.licence,
        "training_cohort": card.training_cohort,
        "software": {"gliomark": version("gliomark"), "torch": version("torch")},
        "networks": networks,
    }
    (folder / "model.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8")
    text = _README.format(name=card.name, intended_use=card.intended_use, licence=card.licence)
    (folder / "README.md").write_text(text, "utf-8")


def _write_torchscript(exported: ExportedNetwork, path: Path) -> None:
    exported.trace().save(str(path))
    with torch.no_grad():
        found = torch.jit.load(str(path))(*exported.tensors)
    outputs = found if isinstance(found, tuple) else (found,)
    check_outputs(exported.name, [one.numpy() for one in outputs], exported.compute_example_outputs())


def _write_onnx(exported: ExportedNetwork, path: Path) -> None:
    if find_spec("onnx") is None:
        raise ConfigurationError(message("export-needs-onnx"))
    axes = {name: {0: "samples"} for name in (*exported.input_names, *exported.output_names)}
    if exported.size_multiple is not None:
        for name in (exported.input_names[0], exported.output_names[0]):
            axes[name] |= {2: "rows", 3: "columns"}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tracing, whose result is compared
        torch.onnx.export(
            exported.module,
            exported.tensors,
            str(path),
            input_names=exported.input_names,
            output_names=exported.output_names,
            dynamic_axes=axes,
            opset_version=ONNX_OPSET,
            dynamo=False,
        )
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = dict(zip(exported.input_names, exported.example, strict=True))
    # a network that does not use an input has none of that name
    found = model({port.any_name: inputs[port.any_name] for port in model.inputs})
    check_outputs(
        exported.name,
        [np.asarray(found[name]) for name in exported.output_names],
        exported.compute_example_outputs(),
    )
