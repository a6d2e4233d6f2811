"""One safetensors file per model: every network of the cascade, and all that is needed to judge it.

The header carries a JSON card; a file without a full card, cut short or altered is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gliomark.messages import Message, message
from gliomark.study import GliomarkError

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class MarkerValidation:
    """How well the recipe told the marker on patients it never saw: AUC by patient, out of fold.

    auc, low, high: with its 95 % interval; patients, positives: on how many; cohort: where they come from.
    Raises ValueError where these are no such figures.
    """

    auc: float
    low: float
    high: float
    patients: int
    positives: int
    cohort: str

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.auc <= self.high <= 1 and 0 < self.positives < self.patients):
            raise ValueError(f"not an AUC with its interval: {self}")

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the whole interval lies above 0.5."""
        return self.low > 0.5


@dataclass(frozen=True)
class MarkerCard:
    """One marker's KiNet and LightGBM.

    column: the clinical column it was trained on; positive, negative: the two levels in a word; label: what
    positive means; threshold: for the patient-level probability; age_cut: years, the training patients' mean
    (METHOD section 2, step 8), None where metadata was left out; architecture: the network's settings;
    calibration: intercept and slope on the trees' log-odds; performance: held-out figures with intervals, in
    words; warning: shown with every answer; validation: the same figures as numbers, None where they were not
    measured.
    """

    column: str
    title: str
    positive: str
    negative: str
    label: str
    threshold: float
    age_cut: float | None
    architecture: Mapping[str, Any]
    calibration: tuple[float, float] = (0.0, 1.0)
    performance: str = ""
    warning: str = ""
    validation: MarkerValidation | None = None

    @property
    def names_level(self) -> bool:
        """Whether an answer may be called positive or negative: measured, and told from chance."""
        return self.validation is not None and self.validation.is_better_than_chance

    @property
    def verdict(self) -> Message:
        """How well the marker was told on patients it never saw, and whether a level is named for that reason."""
        if self.validation is None:
            return message("marker-not-validated")
        code = "marker-better-than-chance" if self.names_level else "marker-at-chance"
        return message(code, **asdict(self.validation))


@dataclass(frozen=True)
class ModelCard:
    """What the weights are. rule: "joint", "union" or "single", how the sequences make one outline.

    stand_ins: a sequence that may be shown in another's place, always with a warning and without a
    marker level. training_patients and folds_sha256 say who was trained on.
    """

    name: str
    sequences: tuple[str, ...]
    rule: str
    segmentation: Mapping[str, Any]
    segmentation_threshold: float
    smallest_lesion_ml: float
    training_cohort: str
    training_patients: tuple[str, ...]
    folds_sha256: str
    licence: str
    intended_use: str
    segmentation_performance: str
    versions: Mapping[str, str]
    markers: Mapping[str, MarkerCard] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    preparation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """A loaded file: its card, its tensors by name (``segmentation/...``, ``<marker>/...``), its hash."""

    card: ModelCard
    tensors: Mapping[str, Tensor]
    sha256: str

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, the prefix taken off; floating ones in single precision."""
        start = prefix + "/"
        return {
            name.removeprefix(start): tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def save_weights(path: Path, card: ModelCard, tensors: Mapping[str, Tensor]) -> None:
    """Write atomically; floating tensors in half precision, which keeps a model small."""
    halves = {
        n: (t.half() if t.is_floating_point() else t).detach().contiguous().cpu() for n, t in tensors.items()
    }
    text = json.dumps(asdict(card), ensure_ascii=False, sort_keys=True)
    metadata = {"schema_version": str(SCHEMA_VERSION), "card": text, "sha256": _digest(text, halves)}
    part = path.with_name(path.name + ".part")
    save_file(halves, part, metadata)
    part.chmod(0o644)  # safetensors writes for the owner alone
    os.replace(part, path)


def load_weights(path: Path) -> Weights:
    """Read and check a weights file. Raises GliomarkError where it is missing, cut short, altered or bare."""
    if not path.is_file():
        raise GliomarkError(
            f"{path}: there is no such weights file; give a file or the name of a shipped model."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise GliomarkError(
            f"{path}: the weights file is damaged or cut short ({error}); fetch it again."
        ) from error
    if metadata.get("schema_version") != str(SCHEMA_VERSION) or "card" not in metadata:
        raise GliomarkError(
            f"{path}: this is not a gliomark weights file of version {SCHEMA_VERSION}; train or fetch one."
        )
    if metadata.get("sha256") != _digest(metadata["card"], tensors):
        raise GliomarkError(f"{path}: the weights file was altered after it was written; fetch it again.")
    return Weights(_card(path, json.loads(metadata["card"])), tensors, metadata["sha256"])


def _card(path: Path, record: dict[str, Any]) -> ModelCard:
    missing = {f.name for f in fields(ModelCard)} - set(record)
    for name, marker in record.get("markers", {}).items():
        needed = {f.name for f in fields(MarkerCard)} - {"validation"}  # files of before: not measured
        missing |= {f"{name} {field}" for field in needed - set(marker)}
    if missing:
        raise GliomarkError(
            f"{path}: the weights file does not state its {', '.join(sorted(missing))}; train it anew."
        )
    try:
        record["markers"] = {name: _marker_card(marker) for name, marker in record["markers"].items()}
        for name in ("sequences", "training_patients"):
            record[name] = tuple(record[name])
        return ModelCard(**record)
    except (TypeError, ValueError) as error:
        raise GliomarkError(message("weights-card-unknown", path=path, reason=error)) from error


def _marker_card(record: dict[str, Any]) -> MarkerCard:
    """Older files also say whether the marker is ``informative``; now the validation does."""
    known = {name: value for name, value in record.items() if name != "informative"}
    measured = known.get("validation")
    return MarkerCard(**{**known, "validation": MarkerValidation(**measured) if measured else None})


def _digest(card: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
