"""Check that a work folder's checkpoint belongs to this run.

A record of everything that determines a network's weights is stored beside the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from gliomark.errors import CohortError
from gliomark.files import atomic_write
from gliomark.messages import message
from gliomark.models.entries import NetworkSettings
from gliomark.models.registry import to_identity_record
from gliomark.training.checkpoints import has_checkpoint

RUN_RECORD_NAME = "run.json"
# settings that the records of earlier versions lack
LATER_SETTINGS = ("largest_epoch",)


class TrainingConfig(Protocol):
    """Configuration of a training: a dataclass with the settings of the network."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def network(self) -> NetworkSettings:
        """Settings of the network."""
        ...


class TrainingDataset(Protocol):
    """Training data: a dataclass of tensors. patient ``(N,)``: index of each slice's patient in patient_ids."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def patient(self) -> Tensor:
        """Index of each slice's patient in patient_ids, ``(N,)``."""
        ...

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Ids of the patients."""
        ...


def check_work_folder(
    work_folder: Path,
    config: TrainingConfig,
    training_dataset: TrainingDataset,
    validation_dataset: TrainingDataset | None = None,
    teacher: nn.Module | None = None,
) -> None:
    """Record in the work folder which run it belongs to: configuration with seed, patients, and a hash of the data.

    Raises
    ------
    CohortError
        If the folder contains a checkpoint of another run, or a checkpoint without a run record. Resuming from it would
        mix two runs.
    """
    run = {
        "settings": json.loads(json.dumps(to_config_record(config))),
        "patients": sorted(_get_patient_ids(training_dataset)),
        "data": _compute_data_digest(training_dataset, validation_dataset, teacher),
    }
    record = work_folder / RUN_RECORD_NAME
    if not has_checkpoint(work_folder):
        atomic_write(record, json.dumps(run))
        return
    if difference := _find_first_difference(record, run):
        raise CohortError(message(f"work-of-other-{difference}", folder=work_folder))


def to_config_record(config: TrainingConfig) -> dict[str, Any]:
    """Convert a configuration to the form by which finished and interrupted trainings are recognised.

    Settings that earlier versions lacked are part of it only if they have a value.
    """
    record = {**asdict(config), "network": to_identity_record(config.network)}
    return {name: value for name, value in record.items() if name not in LATER_SETTINGS or value is not None}


def _find_first_difference(record: Path, run: Mapping[str, Any]) -> str:
    """Return "settings", "patients" or "data"; "unknown" without a record; empty if nothing differs."""
    try:
        before = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        return "unknown"
    return next((name for name in ("patients", "settings", "data") if before.get(name) != run[name]), "")


def _get_patient_ids(training_dataset: TrainingDataset) -> set[str]:
    return {training_dataset.patient_ids[index] for index in training_dataset.patient.unique().tolist()}


def _compute_data_digest(
    training_dataset: TrainingDataset, validation_dataset: TrainingDataset | None, teacher: nn.Module | None
) -> str:
    """Hash all slices with their patients, and the weights of the teacher."""
    digest = hashlib.sha256()
    for dataset in (training_dataset, validation_dataset):
        if dataset is not None:
            digest.update(
                json.dumps([dataset.patient_ids[index] for index in dataset.patient.tolist()]).encode()
            )
            tensors = ((field.name, getattr(dataset, field.name)) for field in fields(dataset))
            _update_digest(
                digest, ((n, t) for n, t in tensors if t is not None and n not in ("patient", "patient_ids"))
            )
    if teacher is not None:
        _update_digest(digest, sorted(teacher.state_dict().items()))
    return digest.hexdigest()


def _update_digest(digest: hashlib._Hash, tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
