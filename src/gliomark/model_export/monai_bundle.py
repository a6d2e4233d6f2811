"""The segmentation network as a MONAI bundle (https://docs.monai.io/en/stable/mb_specification.html).

Its network is the volume network in TorchScript, so that the bundle runs with MONAI and nibabel alone. Its input is
what ``gliomark cohort export --to bids`` writes: prepared volumes of 1 mm pixels, brain only, z-scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliomark.inference.segmenter import select_sequences
from gliomark.model_export.volume_network import build_volume_network
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.weights import Weights
from gliomark.study import MRSequence

METADATA_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
SLICE_SIDE = 240  # pixels of 1 mm of a prepared slice


def write_monai_bundle(weights: Weights, folder: Path) -> None:
    """Write the bundle into an empty folder.

    Raises
    ------
    WeightsError
        If the file does not describe a valid network.
    """
    for name in ("configs", "docs", "models"):
        (folder / name).mkdir()
    sequences = list_bundle_sequences(weights)
    build_volume_network(weights).save(str(folder / "models" / "model.ts"))
    torch.save(load_segmentation_network(weights).state_dict(), folder / "models" / "model.pt")
    _write_json(folder / "configs" / "metadata.json", _create_metadata(weights, sequences))
    _write_json(folder / "configs" / "inference.json", _create_inference_config(weights, sequences))
    (folder / "docs" / "README.md").write_text(_format_readme(weights, sequences), "utf-8")
    (folder / "docs" / "license.txt").write_text(f"{weights.card.licence}\n", "utf-8")


def list_bundle_sequences(weights: Weights) -> tuple[MRSequence, ...]:
    """List the sequences that are the channels of the bundle's input."""
    return select_sequences(tuple(map(MRSequence, weights.card.sequences)), weights.card.rule)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _create_metadata(weights: Weights, sequences: Sequence[str]) -> Mapping[str, Any]:
    card = weights.card
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": len(sequences),
        "spatial_shape": [SLICE_SIDE, SLICE_SIDE, "*"],
        "dtype": "float32",
        "value_range": [-10, 10],
        "is_patch_data": False,
        "channel_def": {str(number): str(name) for number, name in enumerate(sequences)},
    }
    prediction = {
        **image,
        "type": "probability",
        "format": "segmentation",
        "num_channels": 1,
        "value_range": [0, 1],
    }
    prediction["channel_def"] = {"0": "lesion"}
    return {
        "schema": METADATA_SCHEMA,
        "version": version("gliomark"),
        "changelog": {version("gliomark"): f"exported from {card.name}, SHA-256 {weights.sha256}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": version("nibabel")},
        "name": f"gliomark {card.name}",
        "task": "Segmentation of glioma on preoperative MRI",
        "description": "Probability of lesion for every voxel of prepared volumes: registered, brain only, z-scored.",
        "authors": "gliomark contributors",
        "copyright": f"Weights: {card.licence}",
        "data_source": card.training_cohort,
        "data_type": "nibabel",
        "image_classes": ", ".join(sequences),
        "pred_classes": "lesion",
        "intended_use": card.intended_use,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}},
    }


def _create_inference_config(weights: Weights, sequences: Sequence[str]) -> Mapping[str, Any]:
    """Create a workflow that reads one volume per sequence and writes the mask on their grid."""
    keys = [str(name) for name in sequences]
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "images": {name: f"{name}.nii.gz" for name in keys},
        "threshold": weights.card.segmentation_threshold,
        "network_def": {
            "_target_": "torch.jit.load",
            "f": "$@bundle_root + '/models/model.ts'",
            "map_location": "@device",
        },
        "network": "$@network_def.to(@device).eval()",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": keys},
                {"_target_": "EnsureChannelFirstd", "keys": keys},
                {"_target_": "Orientationd", "keys": keys, "axcodes": "LPS"},
                {"_target_": "ConcatItemsd", "keys": keys, "name": "image"},
                {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "device": "@device"},
            ],
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "CopyItemsd", "keys": "pred", "names": "mask"},
                {"_target_": "AsDiscreted", "keys": "mask", "threshold": "@threshold"},
                {
                    "_target_": "Invertd",
                    "keys": ["pred", "mask"],
                    "transform": "@preprocessing",
                    "orig_keys": keys[0],
                    "nearest_interp": [False, True],
                    "to_tensor": True,
                },
                _create_writer("pred", "float32"),
                _create_writer("mask", "uint8"),
            ],
        },
        "data": "$@preprocessing(@images)",
        "prediction": "$torch.inference_mode()(@network)(@data['image'][None])[0]",
        "run": ["$@postprocessing({**@data, 'pred': @prediction})"],
    }


def _create_writer(key: str, kind: str) -> Mapping[str, Any]:
    return {
        "_target_": "SaveImaged",
        "keys": key,
        "output_dir": "@output_dir",
        "output_postfix": key,
        "output_dtype": f"$__import__('numpy').{kind}",
        "separate_folder": False,
        "resample": False,
    }


def _format_readme(weights: Weights, sequences: Sequence[str]) -> str:
    card = weights.card
    images = " ".join(f"--images#{name} {name}.nii.gz" for name in sequences)
    return f"""\
# {card.name}: segmentation of glioma

{card.intended_use}

Input: one volume per sequence ({", ".join(sequences)}) on one grid of 240 x 240 pixels of 1 mm, axial, registered,
brain only, z-scored inside the brain, with the minimum outside. `gliomark cohort export --to bids` writes them.

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . {images}

Output: the probability of lesion and the mask from {card.segmentation_threshold:g} on. gliomark also removes components
below {card.smallest_lesion_ml:g} ml, and those below {card.segmentation.smallest_share:g} of the largest one; this
bundle does not.

Performance: {card.segmentation_performance}

Training: {card.training_cohort}

Weights: SHA-256 {weights.sha256}. Licence: {card.licence}
"""
