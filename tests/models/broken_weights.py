"""Weights files that must be refused when they are loaded, made by code from one tiny model that is in order.

``BROKEN`` is the table: a name, what makes the file at a path, and words of the sentence that must be said.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
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

from gliomark.models.kinet import KiNetSettings, KiNetSize, build_kinet
from gliomark.models.segmentation_networks import build_segmentation_network, network_settings
from gliomark.models.weights import _digest

OUTLINER = {"architecture": "U-Net", "inputs": 2, "width": 2}
READER = KiNetSettings(size=KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=2))
COLUMNS = 4 * 8 + 1 + 2  # the vector, its log-odds, age and sex
TREES = "idh/lightgbm"
Parts = tuple[dict[str, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Broken:
    """make: writes the file at a path; words: all of them stand in the sentence."""

    make: Callable[[Path], object]
    words: tuple[str, ...]


# ---- the model that is in order -------------------------------------------------------------------------------


@cache
def _tiny() -> Parts:
    torch.manual_seed(0)
    outliner, reader = build_segmentation_network(network_settings(OUTLINER)), build_kinet(READER)
    tensors = {f"segmentation/{name}": tensor for name, tensor in outliner.state_dict().items()}
    tensors |= {f"idh/{name}": tensor for name, tensor in reader.state_dict().items()}
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    tensors |= {"prior": torch.ones(4, 4).half(), TREES: as_bytes(tree_text())}
    marker = {
        "column": "idh_mutant", "title": "IDH", "positive": "mutant", "negative": "wild type", "label": "mutated",
        "threshold": 0.5, "age_cut": 45.0, "calibration": [0.0, 1.0], "performance": "", "warning": "",
        "architecture": {"network": {"architecture": "KiNet", **asdict(READER)}, "crop": 64},
        "validation": {"auc": 0.8, "low": 0.7, "high": 0.9, "patients": 40, "positives": 20, "cohort": "invented"},
    }  # fmt: skip
    use = {"tile": 64, "pool": 2, "context": 0, "flips": False, "smallest_share": 0.0}
    card = {
        "name": "tiny", "sequences": ["T1C", "FLAIR"], "rule": "joint",
        "segmentation": {"network": OUTLINER, **use},
        "segmentation_threshold": 0.5, "smallest_lesion_ml": 0.5, "training_cohort": "nobody",
        "training_patients": ["a"], "folds_sha256": "0" * 64, "licence": "CC0", "intended_use": "tests",
        "segmentation_performance": "not measured", "versions": {"gliomark": "0"}, "markers": {"idh": marker},
        "stand_ins": {"FLAIR": "T2"}, "preparation": {"k": 20, "size": 240, "pixel_mm": 1.0, "step_mm": 2.0},
    }  # fmt: skip
    return json.loads(json.dumps(card)), tensors


def tiny() -> Parts:
    """The card and the tensors of a tiny model that loads; the caller's own, to be broken."""
    card, tensors = _tiny()
    return deepcopy(card), dict(tensors)


@cache
def tree_text() -> str:
    """Three small trees over the tiny model's columns, as LightGBM writes them."""
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


def as_bytes(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())


def packed(card: str, tensors: dict[str, Tensor], **words: str) -> bytes:
    """A weights file whose hash is right, whatever is in it."""
    stated = {"schema_version": "2", "card": card, "sha256": _digest(card, tensors)} | words
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, stated)


def write_tiny(path: Path) -> Path:
    """The tiny model as it is."""
    card, tensors = tiny()
    path.write_bytes(packed(json.dumps(card), tensors))
    return path


# ---- what is done to it ---------------------------------------------------------------------------------------


def with_card(path: Path, change: Callable[[dict], object]) -> None:
    card, tensors = tiny()
    change(card)
    path.write_bytes(packed(json.dumps(card), tensors))


def with_text(path: Path, text: str) -> None:
    path.write_bytes(packed(text, tiny()[1]))


def with_words(path: Path, **words: str) -> None:
    card, tensors = tiny()
    path.write_bytes(packed(json.dumps(card), tensors, **words))


def with_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    card, tensors = tiny()
    change(tensors)
    path.write_bytes(packed(json.dumps(card), tensors))


def with_trees(path: Path, change: Callable[[str], str]) -> None:
    with_tensors(path, lambda tensors: tensors.update({TREES: as_bytes(change(tree_text()))}))


def with_header(path: Path, change: Callable[[dict], object]) -> None:
    """The header rewritten, the data as they are."""
    content = write_tiny(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def with_content(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(write_tiny(path).read_bytes()))


def _put(where: str, value: object) -> Callable[[dict], object]:
    """Set a field of the card by its path, such as ``markers.idh.threshold``."""

    def change(card: dict) -> None:
        *way, last = where.split(".")
        for step in way:
            card = card[step]
        card[last] = value

    return change


def _spoil(name: str, value: float, index: int = 0) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name].clone()
        tensors[name].reshape(-1)[index] = value

    return change


def _first(tensors: dict[str, Tensor], part: str, end: str) -> str:
    return next(name for name in tensors if name.startswith(part + "/") and name.endswith(end))


def _retype(kind: torch.dtype) -> Callable[[dict[str, Tensor]], object]:
    name = _first(_tiny()[1], "segmentation", "weight")
    return lambda tensors: tensors.update({name: tensors[name].to(kind)})


def _all(part: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    """Every weight of a part is the same number."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.startswith(part + "/") and tensor.is_floating_point():
                tensors[name] = torch.full(tensor.shape, value)

    return change


def _line(name: str, value: str) -> Callable[[str], str]:
    """The first line of that name in the trees' text, with another value."""

    def change(text: str) -> str:
        lines = text.split("\n")
        number = next(n for n, line in enumerate(lines) if line.startswith(name + "="))
        lines[number] = f"{name}={value}"
        return "\n".join(lines)

    return change


def _chain(text: str) -> str:
    """Five hundred leaves, each below the other."""
    leaves = 500
    inner = range(leaves - 1)
    lines = {
        "num_leaves": [leaves], "num_cat": [0], "split_feature": [0] * len(inner), "threshold": [0.5] * len(inner),
        "decision_type": [2] * len(inner), "left_child": [*range(1, leaves - 1), -1],
        "right_child": [-2 - n for n in inner], "leaf_value": [0.1] * leaves, "leaf_count": [1] * leaves,
        "internal_count": [leaves - n for n in inner], "is_linear": [0], "shrinkage": [1],
    }  # fmt: skip
    tree = "Tree=0\n" + "".join(f"{name}={' '.join(map(str, values))}\n" for name, values in lines.items())
    header = text.partition("Tree=0")[0]
    return _line("tree_sizes", str(len(tree)))(header) + tree + "\nend of trees\n"


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _pickled(path: Path) -> None:
    """Unpickling it would leave a mark beside it."""

    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (f"{path}.unpickled",)

    path.write_bytes(pickle.dumps(Trap()))


def _torch_saved(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.safetensors", b"nothing")


def _sparse(path: Path, header: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(20 * 10**9)


def _plain(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)


def _huge_claim(header: dict) -> None:
    header[_first(_tiny()[1], "segmentation", "weight")]["shape"] = [10**6, 10**6]


def _overlap(header: dict) -> None:
    one, other = sorted(name for name in header if name.startswith("segmentation/"))[:2]
    header[one]["data_offsets"] = header[other]["data_offsets"]


def _out_of_file(header: dict) -> None:
    name = _first(_tiny()[1], "segmentation", "weight")
    start, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [start + 10**12, end + 10**12]


SEG = "segmentation.network"
SIZE = "markers.idh.architecture.network.size"
IDH = "markers.idh"
CARD: dict[str, tuple[Callable[[dict], object], tuple[str, ...]]] = {
    "card-number-for-name": (_put("name", 5), ("name",)),
    "card-empty-name": (_put("name", ""), ("name",)),
    "card-control-sign": (_put("licence", "a\x1b[2J"), ("licence",)),
    "card-list-for-mapping": (_put("segmentation", [1]), ("segmentation",)),
    "card-markers-list": (_put("markers", [1]), ("markers",)),
    "card-marker-text": (_put(IDH, "yes"), ("idh",)),
    "card-marker-path": (lambda c: c["markers"].update({"../x": c["markers"]["idh"]}), ("markers",)),
    "card-marker-segmentation": (
        lambda c: c["markers"].update({"segmentation": c["markers"]["idh"]}),
        ("markers", "segmentation"),
    ),
    "card-one-sequence": (_put("sequences", ["T1C"]), ("sequences",)),
    "card-sequence-twice": (_put("sequences", ["T1C", "T1C"]), ("sequences", "twice")),
    "card-unknown-sequence": (_put("sequences", ["T1C", "DWI"]), ("sequences", "DWI")),
    "card-sequences-text": (_put("sequences", "T1C"), ("sequences",)),
    "card-unknown-rule": (_put("rule", "majority"), ("rule", "majority")),
    "card-stand-in-unknown": (_put("stand_ins", {"FLAIR": "CT"}), ("stand_ins", "CT")),
    "card-stand-in-itself": (_put("stand_ins", {"FLAIR": "T1C"}), ("stand_ins",)),
    "card-stand-in-for-nobody": (_put("stand_ins", {"T2": "T1"}), ("stand_ins",)),
    "card-threshold-above": (_put("segmentation_threshold", 1.1), ("segmentation_threshold",)),
    "card-threshold-zero": (_put("segmentation_threshold", 0), ("segmentation_threshold",)),
    "card-threshold-nan": (_put("segmentation_threshold", float("nan")), ("segmentation_threshold",)),
    "card-threshold-text": (_put("segmentation_threshold", "0.5"), ("segmentation_threshold",)),
    "card-threshold-true": (_put("segmentation_threshold", True), ("segmentation_threshold",)),
    "card-lesion-negative": (_put("smallest_lesion_ml", -1), ("smallest_lesion_ml",)),
    "card-lesion-infinite": (_put("smallest_lesion_ml", float("inf")), ("smallest_lesion_ml",)),
    "card-folds-no-hash": (_put("folds_sha256", "abc"), ("folds_sha256",)),
    "card-patients-number": (_put("training_patients", [1]), ("training_patients",)),
    "card-preparation-unknown": (_put("preparation", {"colour": 1}), ("preparation", "colour")),
    "card-preparation-zero": (_put("preparation.k", 0), ("preparation", "k")),
    "card-preparation-half": (_put("preparation.k", 2.5), ("preparation", "k")),
    "card-newer-field": (_put("abstains", True), ("abstains",)),
    "card-without-markers": (lambda c: c.pop("markers"), ("does not state its", "markers")),
    "marker-threshold": (_put(f"{IDH}.threshold", 1.5), ("idh.threshold",)),
    "marker-threshold-infinite": (_put(f"{IDH}.threshold", float("-inf")), ("idh.threshold",)),
    "marker-age-negative": (_put(f"{IDH}.age_cut", -3.0), ("idh.age_cut",)),
    "marker-age-nan": (_put(f"{IDH}.age_cut", float("nan")), ("idh.age_cut",)),
    "marker-calibration-one": (_put(f"{IDH}.calibration", [0.0]), ("idh.calibration",)),
    "marker-calibration-three": (_put(f"{IDH}.calibration", [0.0, 1.0, 2.0]), ("idh.calibration",)),
    "marker-calibration-nan": (_put(f"{IDH}.calibration", [0.0, float("nan")]), ("idh.calibration",)),
    "marker-calibration-turned": (_put(f"{IDH}.calibration", [0.0, -1.0]), ("idh.calibration",)),
    "marker-levels-alike": (_put(f"{IDH}.negative", "mutant"), ("idh", "mutant")),
    "marker-auc-impossible": (_put(f"{IDH}.validation.auc", 0.95), ("idh.validation",)),
    "marker-auc-text": (_put(f"{IDH}.validation.auc", "0.8"), ("idh.validation.auc",)),
    "marker-positives-all": (_put(f"{IDH}.validation.positives", 40), ("idh.validation",)),
    "marker-patients-half": (_put(f"{IDH}.validation.patients", 40.5), ("idh.validation.patients",)),
    "marker-crop-large": (_put(f"{IDH}.architecture.crop", 1000), ("idh.architecture.crop",)),
    "marker-crop-missing": (
        lambda c: c["markers"]["idh"]["architecture"].pop("crop"),
        ("architecture.crop",),
    ),
    "marker-evidence": (_put(f"{IDH}.architecture.evidence", "guess"), ("architecture.evidence",)),
    "marker-unknown-network": (
        _put(f"{IDH}.architecture.network.architecture", "GPT"),
        ("architecture.network", "GPT"),
    ),
    "marker-channels": (
        _put(f"{IDH}.architecture.network", {"architecture": "ResNet-50", "channels": [7], "size": {}}),
        ("network.channels",),
    ),
    "marker-widths-text": (_put(f"{SIZE}.widths", "wide"), ("size.widths",)),
    "marker-blocks-many": (_put(f"{SIZE}.blocks", [10**9, 1, 1, 1]), ("size.blocks",)),
    "marker-three-stages": (_put(f"{SIZE}.widths", [8, 8, 8]), ("idh",)),
    "marker-100-gb": (
        lambda c: c["markers"]["idh"]["architecture"]["network"]["size"].update(
            {"widths": [4096] * 4, "blocks": [64] * 4}
        ),
        ("idh", "GB"),
    ),
    "marker-pool-zero": (_put(f"{SIZE}.pool", 0), ("size.pool",)),
    "marker-network-number": (_put(f"{IDH}.architecture.network", 3), ("architecture.network",)),
    "outline-unknown-network": (_put(f"{SEG}.architecture", "GPT"), ("GPT",)),
    "outline-width-huge": (_put(f"{SEG}.width", 10**6), ("network.width",)),
    "outline-100-gb": (_put(f"{SEG}.width", 4096), ("segmentation", "GB")),
    "outline-width-text": (_put(f"{SEG}.width", "2"), ("network.width",)),
    "outline-inputs": (_put(f"{SEG}.inputs", 3), ("inputs", "3")),
    "outline-other-network": (_put(f"{SEG}.architecture", "Attention U-Net"), ("segmentation",)),
    "outline-of-before": (_put(SEG, {"architecture": "MIG-Net"}), ("gliomark 0.1",)),
    "outline-unknown-setting": (_put(f"{SEG}.colour", 1), ("network.colour",)),
    "outline-no-tile": (lambda c: c["segmentation"].pop("tile"), ("segmentation.tile",)),
    "outline-tile-huge": (_put("segmentation.tile", 10**6), ("segmentation.tile",)),
    "outline-tile-tiny": (_put("segmentation.tile", 16), ("segmentation",)),
    "outline-pool-zero": (_put("segmentation.pool", 0), ("segmentation.pool",)),
    "outline-context-negative": (_put("segmentation.context", -1), ("segmentation.context",)),
    "outline-share": (_put("segmentation.smallest_share", 2), ("segmentation.smallest_share",)),
    "outline-flips-text": (_put("segmentation.flips", "no"), ("segmentation.flips",)),
}

TEXT: dict[str, tuple[str, tuple[str, ...]]] = {
    "card-no-json": ("{not json", ("description", "cannot be read")),
    "card-empty": ("", ("description", "cannot be read")),
    "card-list": ("[1, 2]", ("description", "cannot be read")),
    "card-null": ("null", ("description", "cannot be read")),
    "card-cut": (json.dumps({"name": "a"})[:-3], ("description", "cannot be read")),
    "card-bare": ("{}", ("does not state its",)),
    "card-deep": (_deep(100_000), ("description", "cannot be read")),
    "card-deep-field": ('{"name": ' + _deep(5_000) + "}", ("description", "cannot be read")),
    "card-long-number": ('{"name": ' + "9" * 5000 + "}", ("description", "cannot be read")),
}

TREE: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "trees-empty": (lambda text: " ", ("trees", "idh")),
    "trees-noise": (lambda text: "\x01\x02" * 500, ("trees",)),
    "trees-chinese": (lambda text: "树" * 20, ("trees",)),
    "trees-cut": (lambda text: text[:700], ("trees",)),
    "trees-cut-end": (lambda text: text.partition("end of trees")[0], ("trees", "end is missing")),
    "trees-none": (lambda text: text.partition("Tree=0")[0] + "end of trees\n", ("trees",)),
    "trees-fewer": (lambda text: text.partition("Tree=2")[0] + "end of trees\n", ("trees", "announced")),
    "trees-more-columns": (_line("max_feature_idx", "99"), ("trees", "100 columns", "35")),
    "trees-no-columns": (_line("max_feature_idx", "x" * 100), ("trees", "columns")),
    "trees-huge-columns": (_line("max_feature_idx", "9" * 30), ("trees", "columns")),
    "trees-several-classes": (_line("num_class", "3"), ("trees", "num_class")),
    "trees-regression": (_line("objective", "regression"), ("trees", "objective")),
    "trees-absent-column": (_line("split_feature", "0 1 35"), ("trees", "column")),
    "trees-negative-column": (_line("split_feature", "0 1 -5"), ("trees", "column")),
    "trees-loop": (_line("left_child", "0 0 0"), ("trees", "node")),
    "trees-child-outside": (_line("right_child", "900 -3 -4"), ("trees",)),
    "trees-leaf-nan": (_line("leaf_value", "nan 0 0 0"), ("trees", "leaf_value")),
    "trees-leaf-infinite": (_line("leaf_value", "inf 0 0 0"), ("trees", "leaf_value")),
    "trees-leaf-huge": (_line("leaf_value", "1e308 0 0 0"), ("trees", "leaf_value")),
    "trees-leaf-large": (_line("leaf_value", "1e9 0 0 0"), ("trees", "leaf value")),
    "trees-leaf-missing": (_line("leaf_value", "0 0"), ("trees", "leaf_value")),
    "trees-threshold-nan": (_line("threshold", "nan 0 0"), ("trees", "threshold")),
    "trees-many-leaves": (_line("num_leaves", "2000000000"), ("trees",)),
    "trees-no-leaves": (_line("num_leaves", "0"), ("trees",)),
    "trees-negative-leaves": (_line("num_leaves", "-4"), ("trees",)),
    "trees-categories": (_line("num_cat", "5"), ("trees",)),
    "trees-linear": (_line("is_linear", "1"), ("trees",)),
    "trees-decision": (_line("decision_type", "1 2 2"), ("trees", "decides")),
    "trees-nobody": (_line("internal_count", "0 1 1"), ("trees", "nobody")),
    "trees-chain": (_chain, ("trees", "deeper")),
    "trees-wrong-sizes": (_line("tree_sizes", "1 2"), ("trees", "announced")),
}

_WEIGHT = _first(_tiny()[1], "segmentation", "weight")
_VARIANCE = _first(_tiny()[1], "idh", "running_var")
_STEPS = _first(_tiny()[1], "idh", "num_batches_tracked")
TENSOR: dict[str, tuple[Callable[[dict[str, Tensor]], object], tuple[str, ...]]] = {
    "tensor-missing": (lambda t: t.pop(_WEIGHT), ("lacks", _WEIGHT)),
    "tensor-marker-missing": (lambda t: t.pop("idh/cat_head.bias"), ("lacks", "idh/cat_head.bias")),
    "tensor-trees-missing": (lambda t: t.pop(TREES), ("trees", "idh")),
    "tensor-part-missing": (
        lambda t: [t.pop(name) for name in list(t) if name.startswith("segmentation/")],
        ("lacks",),
    ),
    "tensor-extra": (lambda t: t.update({"segmentation/extra": torch.ones(2)}), ("no part", "extra")),
    "tensor-of-nobody": (lambda t: t.update({"ki67/weight": torch.ones(2)}), ("no part", "ki67/weight")),
    "tensor-shape": (lambda t: t.update({_WEIGHT: t[_WEIGHT][:1].clone()}), (_WEIGHT, "takes")),
    "tensor-transposed": (
        lambda t: t.update({_WEIGHT: t[_WEIGHT].transpose(0, 3).flatten(0, 1)}),
        (_WEIGHT, "takes"),
    ),
    "tensor-empty": (lambda t: t.update({_WEIGHT: torch.zeros(0, 3).half()}), (_WEIGHT, "empty")),
    "tensor-whole": (_retype(torch.int64), (_WEIGHT, "int64")),
    "tensor-bytes": (_retype(torch.uint8), (_WEIGHT, "uint8")),
    "tensor-double": (_retype(torch.float64), (_WEIGHT, "F64")),
    "tensor-complex": (_retype(torch.complex64), (_WEIGHT, "C64")),
    "tensor-truth": (_retype(torch.bool), (_WEIGHT, "BOOL")),
    "tensor-steps-float": (lambda t: t.update({_STEPS: torch.tensor(1.0)}), (_STEPS, "takes")),
    "tensor-nan": (_spoil(_WEIGHT, float("nan")), ("no network can compute", _WEIGHT)),
    "tensor-infinite": (_spoil(_WEIGHT, float("inf")), ("no network can compute", _WEIGHT)),
    "tensor-marker-nan": (_spoil("idh/cat_head.bias", float("nan")), ("no network can compute",)),
    "tensor-prior-nan": (_spoil("prior", float("nan")), ("no network can compute", "prior")),
    "tensor-prior-flat": (lambda t: t.update({"prior": torch.ones(16).half()}), ("prior", "takes")),
    "tensor-prior-whole": (lambda t: t.update({"prior": torch.ones(4, 4).long()}), ("prior", "takes")),
    "tensor-variance": (_spoil(_VARIANCE, -1.0), ("no network can compute", _VARIANCE)),
    "tensor-overflow": (_all("segmentation", 3e38), ("segmentation", "no answer")),
    "tensor-marker-overflow": (_all("idh", 3e38), ("idh", "no answer")),
    "tensor-trees-float": (lambda t: t.update({TREES: torch.zeros(9)}), ("trees", "idh")),
    "tensor-trees-square": (lambda t: t.update({TREES: torch.zeros(3, 3, dtype=torch.uint8)}), ("trees",)),
}  # fmt: skip

HEADER: dict[str, tuple[Callable[[dict], object], tuple[str, ...]]] = {
    "header-huge-tensor": (_huge_claim, ("damaged or cut short",)),
    "header-overlap": (_overlap, ("damaged or cut short",)),
    "header-outside": (_out_of_file, ("damaged or cut short",)),
    "header-negative": (lambda h: h[_WEIGHT].update({"data_offsets": [-8, 0]}), ("damaged or cut short",)),
    "header-unknown-type": (lambda h: h[_WEIGHT].update({"dtype": "F3"}), (_WEIGHT, "F3")),
    "header-no-shape": (lambda h: h[_WEIGHT].pop("shape"), (_WEIGHT,)),
    "header-text-tensor": (lambda h: h.update({"x": "y"}), ("x",)),
    "header-no-words": (lambda h: h.pop("__metadata__"), ("not a gliomark weights file",)),
    "header-number-words": (lambda h: h.update({"__metadata__": 5}), ("damaged or cut short",)),
    "header-number-card": (lambda h: h["__metadata__"].update({"card": 5}), ("damaged or cut short",)),
    "header-no-card": (lambda h: h["__metadata__"].pop("card"), ("not a gliomark weights file",)),
    "header-no-hash": (lambda h: h["__metadata__"].pop("sha256"), ("altered",)),
    "header-other-card": (
        lambda h: h["__metadata__"].update({"card": h["__metadata__"]["card"].replace("tiny", "huge")}),
        ("altered",),
    ),
}

FILE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "file-absent": (lambda path: None, ("no such weights file",)),
    "file-empty": (lambda path: path.write_bytes(b""), ("damaged or cut short",)),
    "file-one-byte": (lambda path: path.write_bytes(b"x"), ("damaged or cut short",)),
    "file-zeros": (lambda path: path.write_bytes(bytes(10_000)), ("damaged or cut short",)),
    "file-noise": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(10_000)),
        ("damaged or cut short",),
    ),
    "file-text": (lambda path: path.write_text("<html>not found</html>"), ("damaged or cut short",)),
    "file-cut-header": (partial(with_content, change=lambda b: b[:300]), ("damaged or cut short",)),
    "file-cut-data": (partial(with_content, change=lambda b: b[:-5]), ("damaged or cut short",)),
    "file-longer": (partial(with_content, change=lambda b: b + b"more"), ("damaged or cut short",)),
    "file-flipped": (
        partial(with_content, change=lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:]),
        ("altered",),
    ),
    "file-list-header": (
        lambda path: path.write_bytes(struct.pack("<Q", 2) + b"[]"),
        ("damaged or cut short",),
    ),
    "file-deep-header": (
        lambda path: path.write_bytes(struct.pack("<Q", 200_000) + _deep(100_000).encode()),
        ("damaged or cut short",),
    ),
    "file-header-beyond": (
        partial(with_content, change=lambda b: struct.pack("<Q", 10**12) + b[8:]),
        ("damaged or cut short",),
    ),
    "file-header-100-mb": (
        lambda path: path.write_bytes(struct.pack("<Q", 10**8) + b" " * 10**8),
        ("none of which is so large",),
    ),
    "file-sparse-20-gb": (_sparse, ("none of which is so large",)),
    "file-sparse-with-header": (
        partial(_sparse, header=struct.pack("<Q", 2) + b"{}"),
        ("none of which is so large",),
    ),
    "file-folder": (lambda path: path.mkdir(), ("no such weights file",)),
    "file-pipe": (lambda path: os.mkfifo(path), ("no such weights file",)),
    "file-device": (lambda path: path.symlink_to("/dev/zero"), ("no such weights file",)),
    "file-link-to-nothing": (lambda path: path.symlink_to("nowhere"), ("no such weights file",)),
    "file-link-loop": (lambda path: path.symlink_to(path.name), ("cannot be opened",)),
    "file-zip": (_zipped, ("damaged or cut short",)),
    "file-pickle": (_pickled, ("damaged or cut short",)),
    "file-torch": (_torch_saved, ("damaged or cut short",)),
    "file-other-safetensors": (_plain, ("not a gliomark weights file",)),
    "file-schema-older": (partial(with_words, schema_version="1"), ("version 2",)),
    "file-schema-newer": (partial(with_words, schema_version="3"), ("version 2",)),
    "file-schema-none": (partial(with_words, schema_version=""), ("version 2",)),
}

BROKEN: dict[str, Broken] = {
    **{name: Broken(partial(with_card, change=change), words) for name, (change, words) in CARD.items()},
    **{name: Broken(partial(with_text, text=text), words) for name, (text, words) in TEXT.items()},
    **{name: Broken(partial(with_trees, change=change), words) for name, (change, words) in TREE.items()},
    **{name: Broken(partial(with_tensors, change=change), words) for name, (change, words) in TENSOR.items()},
    **{name: Broken(partial(with_header, change=change), words) for name, (change, words) in HEADER.items()},
    **{name: Broken(make, words) for name, (make, words) in FILE.items()},
}
