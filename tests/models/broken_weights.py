"""Invalid weights files that must be refused, derived from one tiny valid model.

``BROKEN`` maps a name to the function that writes the file and to words that the message must contain.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from gliomark.models.published.kinet import KiNetSettings, KiNetSize, build_kinet
from gliomark.models.registry import (
    build_segmentation_network,
    parse_segmentation_settings,
)

SEGMENTATION_SETTINGS = {"architecture": "U-Net", "inputs": 2, "width": 2}
MARKER_SETTINGS = KiNetSettings(size=KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=2))
COLUMNS = 4 * 8 + 1 + 2  # the vector, its log-odds, age and sex
TREES = "idh/lightgbm"
Parts = tuple[dict[str, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class BrokenFile:
    """An invalid file. write: writes it to a path; expected_words: words that the message must contain."""

    write: Callable[[Path], object]
    expected_words: tuple[str, ...]


# ---- the valid model ------------------------------------------------------------------------------------------


@cache
def _create_tiny_model() -> Parts:
    torch.manual_seed(0)
    segmenter, classifier = (
        build_segmentation_network(parse_segmentation_settings(SEGMENTATION_SETTINGS)),
        build_kinet(MARKER_SETTINGS),
    )
    tensors = {f"segmentation/{name}": tensor for name, tensor in segmenter.state_dict().items()}
    tensors |= {f"idh/{name}": tensor for name, tensor in classifier.state_dict().items()}
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    tensors |= {"prior": torch.ones(4, 4).half(), TREES: encode_tensor(create_tree_text())}
    marker = {
        "column": "idh_mutant",
        "title": "IDH",
        "positive": "mutant",
        "negative": "wild type",
        "label": "mutated",
        "threshold": 0.5,
        "age_cut": 45.0,
        "calibration": [0.0, 1.0],
        "performance": "",
        "warning": "",
        "architecture": {"network": {"architecture": "KiNet", **asdict(MARKER_SETTINGS)}, "crop": 64},
        "validation": {
            "auc": 0.8,
            "low": 0.7,
            "high": 0.9,
            "patients": 40,
            "positives": 20,
            "cohort": "invented",
        },
    }
    inference = {"tile": 64, "pool": 2, "context": 0, "flips": False, "smallest_share": 0.0}
    card = {
        "name": "tiny",
        "sequences": ["T1C", "FLAIR"],
        "rule": "joint",
        "segmentation": {"network": SEGMENTATION_SETTINGS, **inference},
        "segmentation_threshold": 0.5,
        "smallest_lesion_ml": 0.5,
        "training_cohort": "none",
        "training_patients": ["a"],
        "folds_sha256": "0" * 64,
        "licence": "CC0",
        "intended_use": "tests",
        "segmentation_performance": "not measured",
        "versions": {"gliomark": "0"},
        "markers": {"idh": marker},
        "stand_ins": {"FLAIR": "T2"},
        "preparation": {"k": 20, "size": 240, "pixel_mm": 1.0, "step_mm": 2.0},
    }
    return json.loads(json.dumps(card)), tensors


def copy_tiny_model() -> Parts:
    """Return a copy of the card and tensors of a tiny valid model, which the caller may change."""
    card, tensors = _create_tiny_model()
    return deepcopy(card), dict(tensors)


@cache
def create_tree_text() -> str:
    """Return three small trees over the tiny model's columns, as LightGBM writes them."""
    random = np.random.default_rng(0)
    table, label = random.normal(size=(60, COLUMNS)), random.integers(0, 2, 60)
    settings = {
        "objective": "binary",
        "num_leaves": 4,
        "min_data_in_leaf": 5,
        "num_threads": 1,
        "verbose": -1,
    }
    return lightgbm.train(settings, lightgbm.Dataset(table, label.astype(float)), 3).model_to_string()


def encode_tensor(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())


def compute_digest(card: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of a weights file's content, from its definition."""
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pack_weights(card: str, tensors: dict[str, Tensor], **metadata: str) -> bytes:
    """Return a weights file with a correct hash, whatever its content."""
    header_metadata = {
        "schema_version": "2",
        "card": card,
        "sha256": compute_digest(card, tensors),
    } | metadata
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, header_metadata)


def write_tiny(path: Path) -> Path:
    """Write the tiny model unchanged."""
    card, tensors = copy_tiny_model()
    path.write_bytes(pack_weights(json.dumps(card), tensors))
    return path


# ---- changes --------------------------------------------------------------------------------------------------


def write_with_card(path: Path, change: Callable[[dict], object]) -> None:
    card, tensors = copy_tiny_model()
    change(card)
    path.write_bytes(pack_weights(json.dumps(card), tensors))


def write_with_card_text(path: Path, text: str) -> None:
    path.write_bytes(pack_weights(text, copy_tiny_model()[1]))


def write_with_metadata(path: Path, **metadata: str) -> None:
    card, tensors = copy_tiny_model()
    path.write_bytes(pack_weights(json.dumps(card), tensors, **metadata))


def write_with_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    card, tensors = copy_tiny_model()
    change(tensors)
    path.write_bytes(pack_weights(json.dumps(card), tensors))


def write_with_trees(path: Path, change: Callable[[str], str]) -> None:
    write_with_tensors(
        path, lambda tensors: tensors.update({TREES: encode_tensor(change(create_tree_text()))})
    )


def write_with_header(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite the header and keep the data."""
    content = write_tiny(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def write_with_content(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(write_tiny(path).read_bytes()))


def _set_field(path: str, value: object) -> Callable[[dict], object]:
    """Return a change that sets a field of the card by its path, such as ``markers.idh.threshold``."""

    def change(card: dict) -> None:
        *keys, last = path.split(".")
        for key in keys:
            card = card[key]
        card[last] = value

    return change


def _set_tensor_value(name: str, value: float, index: int = 0) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name].clone()
        tensors[name].reshape(-1)[index] = value

    return change


def _find_tensor_name(tensors: dict[str, Tensor], part: str, suffix: str) -> str:
    return next(name for name in tensors if name.startswith(part + "/") and name.endswith(suffix))


def _change_dtype(dtype: torch.dtype) -> Callable[[dict[str, Tensor]], object]:
    name = _find_tensor_name(_create_tiny_model()[1], "segmentation", "weight")
    return lambda tensors: tensors.update({name: tensors[name].to(dtype)})


def _fill_tensors(part: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    """Return a change that sets every weight of a part to the same number."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.startswith(part + "/") and tensor.is_floating_point():
                tensors[name] = torch.full(tensor.shape, value)

    return change


def _replace_line(name: str, value: str) -> Callable[[str], str]:
    """Return a change that sets the value of the first line of that name in the trees' text."""

    def change(text: str) -> str:
        lines = text.split("\n")
        number = next(n for n, line in enumerate(lines) if line.startswith(name + "="))
        lines[number] = f"{name}={value}"
        return "\n".join(lines)

    return change


def _build_chain_tree(text: str) -> str:
    """Return a tree of five hundred leaves, each one level deeper."""
    leaves = 500
    inner = range(leaves - 1)
    lines = {
        "num_leaves": [leaves],
        "num_cat": [0],
        "split_feature": [0] * len(inner),
        "threshold": [0.5] * len(inner),
        "decision_type": [2] * len(inner),
        "left_child": [*range(1, leaves - 1), -1],
        "right_child": [-2 - n for n in inner],
        "leaf_value": [0.1] * leaves,
        "leaf_count": [1] * leaves,
        "internal_count": [leaves - n for n in inner],
        "is_linear": [0],
        "shrinkage": [1],
    }
    tree = "Tree=0\n" + "".join(f"{name}={' '.join(map(str, values))}\n" for name, values in lines.items())
    header = text.partition("Tree=0")[0]
    return _replace_line("tree_sizes", str(len(tree)))(header) + tree + "\nend of trees\n"


def _nest_brackets(depth: int) -> str:
    return "[" * depth + "]" * depth


def _write_pickle(path: Path) -> None:
    """Write a pickle that creates a folder beside it when it is unpickled."""

    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (f"{path}.unpickled",)

    path.write_bytes(pickle.dumps(Trap()))


def _write_torch_file(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def _write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.safetensors", b"nothing")


def _write_sparse_file(path: Path, header: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(20 * 10**9)


def _write_other_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)


def _claim_huge_shape(header: dict) -> None:
    header[_find_tensor_name(_create_tiny_model()[1], "segmentation", "weight")]["shape"] = [10**6, 10**6]


def _overlap_tensors(header: dict) -> None:
    first_name, second_name = sorted(name for name in header if name.startswith("segmentation/"))[:2]
    header[first_name]["data_offsets"] = header[second_name]["data_offsets"]


def _point_outside_file(header: dict) -> None:
    name = _find_tensor_name(_create_tiny_model()[1], "segmentation", "weight")
    start, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [start + 10**12, end + 10**12]


SEGMENTATION_PATH = "segmentation.network"
MARKER_SIZE_PATH = "markers.idh.architecture.network.size"
MARKER_PATH = "markers.idh"
BROKEN_CARDS: dict[str, tuple[Callable[[dict], object], tuple[str, ...]]] = {
    "card-number-for-name": (_set_field("name", 5), ("name",)),
    "card-empty-name": (_set_field("name", ""), ("name",)),
    "card-control-sign": (_set_field("licence", "a\x1b[2J"), ("licence",)),
    "card-list-for-mapping": (_set_field("segmentation", [1]), ("segmentation",)),
    "card-markers-list": (_set_field("markers", [1]), ("markers",)),
    "card-marker-text": (_set_field(MARKER_PATH, "yes"), ("idh",)),
    "card-marker-path": (lambda c: c["markers"].update({"../x": c["markers"]["idh"]}), ("markers",)),
    "card-marker-segmentation": (
        lambda c: c["markers"].update({"segmentation": c["markers"]["idh"]}),
        ("markers", "segmentation"),
    ),
    "card-one-sequence": (_set_field("sequences", ["T1C"]), ("sequences",)),
    "card-sequence-twice": (_set_field("sequences", ["T1C", "T1C"]), ("sequences", "twice")),
    "card-unknown-sequence": (_set_field("sequences", ["T1C", "DWI"]), ("sequences", "DWI")),
    "card-sequences-text": (_set_field("sequences", "T1C"), ("sequences",)),
    "card-unknown-rule": (_set_field("rule", "majority"), ("rule", "majority")),
    "card-stand-in-unknown": (_set_field("stand_ins", {"FLAIR": "CT"}), ("stand_ins", "CT")),
    "card-stand-in-itself": (_set_field("stand_ins", {"FLAIR": "T1C"}), ("stand_ins",)),
    "card-stand-in-for-absent": (_set_field("stand_ins", {"T2": "T1"}), ("stand_ins",)),
    "card-threshold-above": (_set_field("segmentation_threshold", 1.1), ("segmentation_threshold",)),
    "card-threshold-zero": (_set_field("segmentation_threshold", 0), ("segmentation_threshold",)),
    "card-threshold-nan": (_set_field("segmentation_threshold", float("nan")), ("segmentation_threshold",)),
    "card-threshold-text": (_set_field("segmentation_threshold", "0.5"), ("segmentation_threshold",)),
    "card-threshold-true": (_set_field("segmentation_threshold", True), ("segmentation_threshold",)),
    "card-lesion-negative": (_set_field("smallest_lesion_ml", -1), ("smallest_lesion_ml",)),
    "card-lesion-infinite": (_set_field("smallest_lesion_ml", float("inf")), ("smallest_lesion_ml",)),
    "card-folds-no-hash": (_set_field("folds_sha256", "abc"), ("folds_sha256",)),
    "card-patients-number": (_set_field("training_patients", [1]), ("training_patients",)),
    "card-preparation-unknown": (_set_field("preparation", {"colour": 1}), ("preparation", "colour")),
    "card-preparation-zero": (_set_field("preparation.k", 0), ("preparation", "k")),
    "card-preparation-half": (_set_field("preparation.k", 2.5), ("preparation", "k")),
    "card-newer-field": (_set_field("abstains", True), ("abstains",)),
    "card-without-markers": (lambda c: c.pop("markers"), ("lacks", "markers")),
    "marker-threshold": (_set_field(f"{MARKER_PATH}.threshold", 1.5), ("idh.threshold",)),
    "marker-threshold-infinite": (_set_field(f"{MARKER_PATH}.threshold", float("-inf")), ("idh.threshold",)),
    "marker-age-negative": (_set_field(f"{MARKER_PATH}.age_cut", -3.0), ("idh.age_cut",)),
    "marker-age-nan": (_set_field(f"{MARKER_PATH}.age_cut", float("nan")), ("idh.age_cut",)),
    "marker-calibration-one": (_set_field(f"{MARKER_PATH}.calibration", [0.0]), ("idh.calibration",)),
    "marker-calibration-three": (
        _set_field(f"{MARKER_PATH}.calibration", [0.0, 1.0, 2.0]),
        ("idh.calibration",),
    ),
    "marker-calibration-nan": (
        _set_field(f"{MARKER_PATH}.calibration", [0.0, float("nan")]),
        ("idh.calibration",),
    ),
    "marker-calibration-turned": (
        _set_field(f"{MARKER_PATH}.calibration", [0.0, -1.0]),
        ("idh.calibration",),
    ),
    "marker-levels-alike": (_set_field(f"{MARKER_PATH}.negative", "mutant"), ("idh", "mutant")),
    "marker-auc-impossible": (_set_field(f"{MARKER_PATH}.validation.auc", 0.95), ("idh.validation",)),
    "marker-auc-text": (_set_field(f"{MARKER_PATH}.validation.auc", "0.8"), ("idh.validation.auc",)),
    "marker-positives-all": (_set_field(f"{MARKER_PATH}.validation.positives", 40), ("idh.validation",)),
    "marker-patients-half": (
        _set_field(f"{MARKER_PATH}.validation.patients", 40.5),
        ("idh.validation.patients",),
    ),
    "marker-crop-large": (_set_field(f"{MARKER_PATH}.architecture.crop", 1000), ("idh.architecture.crop",)),
    "marker-crop-missing": (
        lambda c: c["markers"]["idh"]["architecture"].pop("crop"),
        ("architecture.crop",),
    ),
    "marker-evidence": (
        _set_field(f"{MARKER_PATH}.architecture.evidence", "guess"),
        ("architecture.evidence",),
    ),
    "marker-unknown-network": (
        _set_field(f"{MARKER_PATH}.architecture.network.architecture", "GPT"),
        ("architecture.network", "GPT"),
    ),
    "marker-channels": (
        _set_field(
            f"{MARKER_PATH}.architecture.network", {"architecture": "ResNet-50", "channels": [7], "size": {}}
        ),
        ("network.channels",),
    ),
    "marker-widths-text": (_set_field(f"{MARKER_SIZE_PATH}.widths", "wide"), ("size.widths",)),
    "marker-blocks-many": (_set_field(f"{MARKER_SIZE_PATH}.blocks", [10**9, 1, 1, 1]), ("size.blocks",)),
    "marker-three-stages": (_set_field(f"{MARKER_SIZE_PATH}.widths", [8, 8, 8]), ("idh",)),
    "marker-100-gb": (
        lambda c: c["markers"]["idh"]["architecture"]["network"]["size"].update(
            {"widths": [4096] * 4, "blocks": [64] * 4}
        ),
        ("idh", "GB"),
    ),
    "marker-pool-zero": (_set_field(f"{MARKER_SIZE_PATH}.pool", 0), ("size.pool",)),
    "marker-network-number": (
        _set_field(f"{MARKER_PATH}.architecture.network", 3),
        ("architecture.network",),
    ),
    "outline-unknown-network": (_set_field(f"{SEGMENTATION_PATH}.architecture", "GPT"), ("GPT",)),
    "outline-width-huge": (_set_field(f"{SEGMENTATION_PATH}.width", 10**6), ("network.width",)),
    "outline-100-gb": (_set_field(f"{SEGMENTATION_PATH}.width", 4096), ("segmentation", "GB")),
    "outline-width-text": (_set_field(f"{SEGMENTATION_PATH}.width", "2"), ("network.width",)),
    "outline-inputs": (_set_field(f"{SEGMENTATION_PATH}.inputs", 3), ("inputs", "3")),
    "outline-other-network": (
        _set_field(f"{SEGMENTATION_PATH}.architecture", "Attention U-Net"),
        ("segmentation",),
    ),
    "outline-of-before": (_set_field(SEGMENTATION_PATH, {"architecture": "MIG-Net"}), ("gliomark 0.1",)),
    "outline-unknown-setting": (_set_field(f"{SEGMENTATION_PATH}.colour", 1), ("network.colour",)),
    "outline-no-tile": (lambda c: c["segmentation"].pop("tile"), ("segmentation.tile",)),
    "outline-tile-huge": (_set_field("segmentation.tile", 10**6), ("segmentation.tile",)),
    "outline-tile-tiny": (_set_field("segmentation.tile", 16), ("segmentation",)),
    "outline-pool-zero": (_set_field("segmentation.pool", 0), ("segmentation.pool",)),
    "outline-context-negative": (_set_field("segmentation.context", -1), ("segmentation.context",)),
    "outline-share": (_set_field("segmentation.smallest_share", 2), ("segmentation.smallest_share",)),
    "outline-flips-text": (_set_field("segmentation.flips", "no"), ("segmentation.flips",)),
}

BROKEN_CARD_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "card-no-json": ("{not json", ("model card", "cannot be read")),
    "card-empty": ("", ("model card", "cannot be read")),
    "card-list": ("[1, 2]", ("model card", "cannot be read")),
    "card-null": ("null", ("model card", "cannot be read")),
    "card-cut": (json.dumps({"name": "a"})[:-3], ("model card", "cannot be read")),
    "card-bare": ("{}", ("lacks",)),
    "card-deep": (_nest_brackets(100_000), ("model card", "cannot be read")),
    "card-deep-field": ('{"name": ' + _nest_brackets(5_000) + "}", ("model card", "cannot be read")),
    "card-long-number": ('{"name": ' + "9" * 5000 + "}", ("model card", "cannot be read")),
}

BROKEN_TREES: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "trees-empty": (lambda text: " ", ("trees", "idh")),
    "trees-noise": (lambda text: "\x01\x02" * 500, ("trees",)),
    "trees-chinese": (lambda text: "树" * 20, ("trees",)),
    "trees-cut": (lambda text: text[:700], ("trees",)),
    "trees-cut-end": (lambda text: text.partition("end of trees")[0], ("trees", "end is missing")),
    "trees-none": (lambda text: text.partition("Tree=0")[0] + "end of trees\n", ("trees",)),
    "trees-fewer": (lambda text: text.partition("Tree=2")[0] + "end of trees\n", ("trees", "in the header")),
    "trees-more-columns": (_replace_line("max_feature_idx", "99"), ("trees", "100 columns", "35")),
    "trees-no-columns": (_replace_line("max_feature_idx", "x" * 100), ("trees", "columns")),
    "trees-huge-columns": (_replace_line("max_feature_idx", "9" * 30), ("trees", "columns")),
    "trees-several-classes": (_replace_line("num_class", "3"), ("trees", "num_class")),
    "trees-regression": (_replace_line("objective", "regression"), ("trees", "objective")),
    "trees-absent-column": (_replace_line("split_feature", "0 1 35"), ("trees", "column")),
    "trees-negative-column": (_replace_line("split_feature", "0 1 -5"), ("trees", "column")),
    "trees-loop": (_replace_line("left_child", "0 0 0"), ("trees", "node")),
    "trees-child-outside": (_replace_line("right_child", "900 -3 -4"), ("trees",)),
    "trees-leaf-nan": (_replace_line("leaf_value", "nan 0 0 0"), ("trees", "leaf_value")),
    "trees-leaf-infinite": (_replace_line("leaf_value", "inf 0 0 0"), ("trees", "leaf_value")),
    "trees-leaf-huge": (_replace_line("leaf_value", "1e308 0 0 0"), ("trees", "leaf_value")),
    "trees-leaf-large": (_replace_line("leaf_value", "1e9 0 0 0"), ("trees", "leaf value")),
    "trees-leaf-missing": (_replace_line("leaf_value", "0 0"), ("trees", "leaf_value")),
    "trees-threshold-nan": (_replace_line("threshold", "nan 0 0"), ("trees", "threshold")),
    "trees-many-leaves": (_replace_line("num_leaves", "2000000000"), ("trees",)),
    "trees-no-leaves": (_replace_line("num_leaves", "0"), ("trees",)),
    "trees-negative-leaves": (_replace_line("num_leaves", "-4"), ("trees",)),
    "trees-categories": (_replace_line("num_cat", "5"), ("trees",)),
    "trees-linear": (_replace_line("is_linear", "1"), ("trees",)),
    "trees-decision": (_replace_line("decision_type", "1 2 2"), ("trees", "decision type")),
    "trees-empty-leaf": (_replace_line("internal_count", "0 1 1"), ("trees", "empty leaf")),
    "trees-chain": (_build_chain_tree, ("trees", "deeper")),
    "trees-wrong-sizes": (_replace_line("tree_sizes", "1 2"), ("trees", "in the header")),
}

_WEIGHT = _find_tensor_name(_create_tiny_model()[1], "segmentation", "weight")
_VARIANCE = _find_tensor_name(_create_tiny_model()[1], "idh", "running_var")
_STEPS = _find_tensor_name(_create_tiny_model()[1], "idh", "num_batches_tracked")
BROKEN_TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], tuple[str, ...]]] = {
    "tensor-missing": (lambda t: t.pop(_WEIGHT), ("lacks", _WEIGHT)),
    "tensor-marker-missing": (lambda t: t.pop("idh/cat_head.bias"), ("lacks", "idh/cat_head.bias")),
    "tensor-trees-missing": (lambda t: t.pop(TREES), ("trees", "idh")),
    "tensor-part-missing": (
        lambda t: [t.pop(name) for name in list(t) if name.startswith("segmentation/")],
        ("lacks",),
    ),
    "tensor-extra": (lambda t: t.update({"segmentation/extra": torch.ones(2)}), ("no part", "extra")),
    "tensor-of-no-part": (lambda t: t.update({"ki67/weight": torch.ones(2)}), ("no part", "ki67/weight")),
    "tensor-shape": (lambda t: t.update({_WEIGHT: t[_WEIGHT][:1].clone()}), (_WEIGHT, "needs")),
    "tensor-transposed": (
        lambda t: t.update({_WEIGHT: t[_WEIGHT].transpose(0, 3).flatten(0, 1)}),
        (_WEIGHT, "needs"),
    ),
    "tensor-empty": (lambda t: t.update({_WEIGHT: torch.zeros(0, 3).half()}), (_WEIGHT, "empty")),
    "tensor-whole": (_change_dtype(torch.int64), (_WEIGHT, "int64")),
    "tensor-bytes": (_change_dtype(torch.uint8), (_WEIGHT, "uint8")),
    "tensor-double": (_change_dtype(torch.float64), (_WEIGHT, "F64")),
    "tensor-complex": (_change_dtype(torch.complex64), (_WEIGHT, "C64")),
    "tensor-truth": (_change_dtype(torch.bool), (_WEIGHT, "BOOL")),
    "tensor-steps-float": (lambda t: t.update({_STEPS: torch.tensor(1.0)}), (_STEPS, "needs")),
    "tensor-nan": (_set_tensor_value(_WEIGHT, float("nan")), ("a network cannot use", _WEIGHT)),
    "tensor-infinite": (_set_tensor_value(_WEIGHT, float("inf")), ("a network cannot use", _WEIGHT)),
    "tensor-marker-nan": (_set_tensor_value("idh/cat_head.bias", float("nan")), ("a network cannot use",)),
    "tensor-prior-nan": (_set_tensor_value("prior", float("nan")), ("a network cannot use", "prior")),
    "tensor-prior-flat": (lambda t: t.update({"prior": torch.ones(16).half()}), ("prior", "needs")),
    "tensor-prior-whole": (lambda t: t.update({"prior": torch.ones(4, 4).long()}), ("prior", "needs")),
    "tensor-variance": (_set_tensor_value(_VARIANCE, -1.0), ("a network cannot use", _VARIANCE)),
    "tensor-overflow": (_fill_tensors("segmentation", 3e38), ("segmentation", "no valid output")),
    "tensor-marker-overflow": (_fill_tensors("idh", 3e38), ("idh", "no valid output")),
    "tensor-trees-float": (lambda t: t.update({TREES: torch.zeros(9)}), ("trees", "idh")),
    "tensor-trees-square": (lambda t: t.update({TREES: torch.zeros(3, 3, dtype=torch.uint8)}), ("trees",)),
}

BROKEN_HEADERS: dict[str, tuple[Callable[[dict], object], tuple[str, ...]]] = {
    "header-huge-tensor": (_claim_huge_shape, ("damaged or truncated",)),
    "header-overlap": (_overlap_tensors, ("damaged or truncated",)),
    "header-outside": (_point_outside_file, ("damaged or truncated",)),
    "header-negative": (lambda h: h[_WEIGHT].update({"data_offsets": [-8, 0]}), ("damaged or truncated",)),
    "header-unknown-type": (lambda h: h[_WEIGHT].update({"dtype": "F3"}), (_WEIGHT, "F3")),
    "header-no-shape": (lambda h: h[_WEIGHT].pop("shape"), (_WEIGHT,)),
    "header-text-tensor": (lambda h: h.update({"x": "y"}), ("x",)),
    "header-no-words": (lambda h: h.pop("__metadata__"), ("not a gliomark weights file",)),
    "header-number-words": (lambda h: h.update({"__metadata__": 5}), ("damaged or truncated",)),
    "header-number-card": (lambda h: h["__metadata__"].update({"card": 5}), ("damaged or truncated",)),
    "header-no-card": (lambda h: h["__metadata__"].pop("card"), ("not a gliomark weights file",)),
    "header-no-hash": (lambda h: h["__metadata__"].pop("sha256"), ("modified",)),
    "header-other-card": (
        lambda h: h["__metadata__"].update({"card": h["__metadata__"]["card"].replace("tiny", "huge")}),
        ("modified",),
    ),
}

BROKEN_FILES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "file-absent": (lambda path: None, ("does not exist",)),
    "file-empty": (lambda path: path.write_bytes(b""), ("damaged or truncated",)),
    "file-one-byte": (lambda path: path.write_bytes(b"x"), ("damaged or truncated",)),
    "file-zeros": (lambda path: path.write_bytes(bytes(10_000)), ("damaged or truncated",)),
    "file-noise": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(10_000)),
        ("damaged or truncated",),
    ),
    "file-text": (lambda path: path.write_text("<html>not found</html>"), ("damaged or truncated",)),
    "file-cut-header": (partial(write_with_content, change=lambda b: b[:300]), ("damaged or truncated",)),
    "file-cut-data": (partial(write_with_content, change=lambda b: b[:-5]), ("damaged or truncated",)),
    "file-longer": (partial(write_with_content, change=lambda b: b + b"more"), ("damaged or truncated",)),
    "file-flipped": (
        partial(write_with_content, change=lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:]),
        ("modified",),
    ),
    "file-list-header": (
        lambda path: path.write_bytes(struct.pack("<Q", 2) + b"[]"),
        ("damaged or truncated",),
    ),
    "file-deep-header": (
        lambda path: path.write_bytes(struct.pack("<Q", 200_000) + _nest_brackets(100_000).encode()),
        ("damaged or truncated",),
    ),
    "file-header-beyond": (
        partial(write_with_content, change=lambda b: struct.pack("<Q", 10**12) + b[8:]),
        ("damaged or truncated",),
    ),
    "file-header-100-mb": (
        lambda path: path.write_bytes(struct.pack("<Q", 10**8) + b" " * 10**8),
        ("too large",),
    ),
    "file-sparse-20-gb": (_write_sparse_file, ("too large",)),
    "file-sparse-with-header": (
        partial(_write_sparse_file, header=struct.pack("<Q", 2) + b"{}"),
        ("too large",),
    ),
    "file-folder": (lambda path: path.mkdir(), ("does not exist",)),
    "file-pipe": (lambda path: os.mkfifo(path), ("does not exist",)),
    "file-device": (lambda path: path.symlink_to("/dev/zero"), ("does not exist",)),
    "file-link-to-nothing": (lambda path: path.symlink_to("nowhere"), ("does not exist",)),
    "file-link-loop": (lambda path: path.symlink_to(path.name), ("cannot be opened",)),
    "file-zip": (_write_zip, ("damaged or truncated",)),
    "file-pickle": (_write_pickle, ("damaged or truncated",)),
    "file-torch": (_write_torch_file, ("damaged or truncated",)),
    "file-other-safetensors": (_write_other_safetensors, ("not a gliomark weights file",)),
    "file-schema-older": (partial(write_with_metadata, schema_version="1"), ("version 2",)),
    "file-schema-newer": (partial(write_with_metadata, schema_version="3"), ("version 2",)),
    "file-schema-none": (partial(write_with_metadata, schema_version=""), ("version 2",)),
}

BROKEN: dict[str, BrokenFile] = {
    **{
        name: BrokenFile(partial(write_with_card, change=change), words)
        for name, (change, words) in BROKEN_CARDS.items()
    },
    **{
        name: BrokenFile(partial(write_with_card_text, text=text), words)
        for name, (text, words) in BROKEN_CARD_TEXTS.items()
    },
    **{
        name: BrokenFile(partial(write_with_trees, change=change), words)
        for name, (change, words) in BROKEN_TREES.items()
    },
    **{
        name: BrokenFile(partial(write_with_tensors, change=change), words)
        for name, (change, words) in BROKEN_TENSORS.items()
    },
    **{
        name: BrokenFile(partial(write_with_header, change=change), words)
        for name, (change, words) in BROKEN_HEADERS.items()
    },
    **{name: BrokenFile(make, words) for name, (make, words) in BROKEN_FILES.items()},
}
